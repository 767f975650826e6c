package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/web"
)

// Credentials are those by which applications prove themselves to Entra.
type Credentials interface {
	// Credentials tells of each application's, or of one's. The error wraps
	// [mandate.ErrNotFound] if there is no such application.
	Credentials(ctx context.Context, application string) ([]CredentialStatus, error)

	// RotateCredential replaces one, or goes on with it, and tells how it
	// goes. What it changes it records before.
	RotateCredential(ctx context.Context, in CredentialRequest, by mandate.By, tell func(CredentialLine)) error
}

// A CredentialStatus is what is known of an application's credential.
type CredentialStatus struct {
	Application string              `json:"application"`
	Kind        string              `json:"kind"`  // "certificate", "secret", "key vault certificate"; or "" if it cannot be rotated from here
	Where       string              `json:"where"` // it is kept
	ID          string              `json:"id"`    // a thumbprint, or the hash of a secret
	Expires     time.Time           `json:"expires,omitzero"`
	Rotation    *CredentialRotation `json:"rotation,omitempty"` // under way
	Entra       []EntraCredential   `json:"entra"`              // what is registered
	Implicit    []string            `json:"implicit,omitempty"` // what Entra lets a browser have without a code: "access tokens", "ID tokens"
	Unasked     string              `json:"unasked,omitempty"`  // why Entra could not be asked
	Warnings    []string            `json:"warnings"`
}

// Strangers returns how many credentials at Entra nobody here knows that have
// not ended.
func (s *CredentialStatus) Strangers() (n int) {
	for _, e := range s.Entra {
		if e.Ours == "" && e.End.After(time.Now()) {
			n++
		}
	}
	return n
}

// A CredentialRotation is how far one has come.
type CredentialRotation struct {
	ID          string    `json:"id"`
	Begun       time.Time `json:"begun"`
	Done        string    `json:"done,omitempty"` // the last step that is done
	Undoing     bool      `json:"undoing,omitempty"`
	Compromised bool      `json:"compromised,omitempty"`
	KeepUntil   time.Time `json:"keep_until,omitzero"`
}

// An EntraCredential is one that is registered.
type EntraCredential struct {
	KeyID      string    `json:"key_id"`
	Kind       string    `json:"kind"` // "certificate" or "secret"
	Name       string    `json:"name,omitempty"`
	Hint       string    `json:"hint,omitempty"`
	Thumbprint string    `json:"thumbprint,omitempty"`
	Start      time.Time `json:"start,omitzero"`
	End        time.Time `json:"end,omitzero"`
	Ours       string    `json:"ours,omitempty"` // "in use", "new", "old"; "" if it is not known here
}

type credentialsAnswer struct {
	Credentials []CredentialStatus `json:"credentials"`
}

// A CredentialRequest is the body of POST /v1/credentials/rotate.
type CredentialRequest struct {
	Application  string `json:"application"`
	Kind         string `json:"kind,omitempty"`          // what it must be, if said
	Compromised  bool   `json:"compromised,omitempty"`   // somebody else may have the old one
	KeepOldSecs  int64  `json:"keep_old_secs,omitempty"` // how long the old one stays valid beside the new
	ByHand       bool   `json:"by_hand,omitempty"`       // a person changes the registration
	ReplicasDone bool   `json:"replicas_done,omitempty"` // whatever is known of them
	Undo         bool   `json:"undo,omitempty"`          // go back instead
}

// A CredentialLine is a line of the answer to it. The last has Finished, and
// Error if it is not done.
type CredentialLine struct {
	Step     string           `json:"step,omitempty"`
	Text     string           `json:"text,omitempty"`
	TookMS   int64            `json:"took_ms,omitempty"` // set when the step is done
	Grant    *CredentialGrant `json:"grant,omitempty"`   // one that the credential was for
	Finished bool             `json:"finished,omitempty"`
	Kept     bool             `json:"kept,omitempty"`   // all is well, and the old one is removed later
	Undone   bool             `json:"undone,omitempty"` // everything is as it was
	Error    string           `json:"error,omitempty"`
}

// A CredentialGrant is a grant that is redeemed with the credential.
type CredentialGrant struct {
	Partner    string `json:"partner"`
	State      string `json:"state"`
	Generation int64  `json:"generation"`
	Renew      bool   `json:"renew,omitempty"` // the partner should consent anew
	Why        string `json:"why,omitempty"`
}

// credentialRoutes are for the operator socket.
var credentialRoutes = []route{
	{"GET", "/v1/credentials", (*Server).credentials},
	{"POST", "/v1/credentials/rotate", (*Server).rotateCredential},
}

func (s *Server) credentials(w http.ResponseWriter, r *http.Request, _ mandate.CallerID) error {
	if s.cfg.Credentials == nil {
		return fmt.Errorf("%w: this server does not look after credentials", mandate.ErrNotFound)
	}
	all, err := s.cfg.Credentials.Credentials(r.Context(), r.URL.Query().Get("application"))
	if err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, credentialsAnswer{all})
}

// maxKeep bounds how long an old credential stays beside a new one.
const maxKeep = 30 * 24 * time.Hour

// rotateCredential answers with lines. It ends when whoever asked hangs up; to
// ask again goes on where it ended.
func (s *Server) rotateCredential(w http.ResponseWriter, r *http.Request, caller mandate.CallerID) error {
	if s.cfg.Credentials == nil {
		return fmt.Errorf("%w: this server does not look after credentials", mandate.ErrNotFound)
	}
	in, err := web.Read[CredentialRequest](w, r)
	if err != nil {
		return err
	}
	if in.KeepOldSecs < 0 || in.KeepOldSecs > int64(maxKeep/time.Second) {
		return mandate.Invalid("keep_old_secs", "must be from 0 to 30 days")
	}
	if in.Undo && (in.Compromised || in.KeepOldSecs > 0) {
		return mandate.Invalid("undo", "puts the old credential to use again, and so goes neither with compromised nor with keep_old_secs")
	}
	var out *stream
	last := CredentialLine{Finished: true}
	err = s.cfg.Credentials.RotateCredential(r.Context(), in, mandate.By{Caller: caller}, func(l CredentialLine) {
		if out == nil {
			out = newStream(w)
		}
		if l.Kept || l.Undone {
			last.Kept, last.Undone = l.Kept, l.Undone
		}
		out.tell(l)
	})
	if out == nil && err != nil {
		return err
	}
	if out == nil {
		out = newStream(w)
	}
	if err != nil {
		last.Error = err.Error()
	}
	out.tell(last)
	return nil
}

// Credentials tells of each application's credential, or of one's.
func (c *Client) Credentials(ctx context.Context, application string) ([]CredentialStatus, error) {
	path := "/v1/credentials"
	if application != "" {
		path += "?application=" + url.QueryEscape(application)
	}
	a, err := exchange[credentialsAnswer](ctx, c, "GET", path, nil)
	return a.Credentials, err
}

// RotateCredential replaces an application's credential, or goes on with it.
// each gets every line, the last one too.
func (c *Client) RotateCredential(ctx context.Context, in CredentialRequest, each func(CredentialLine)) error {
	return follow(ctx, c, "/v1/credentials/rotate", in, func(l CredentialLine) (bool, error) {
		each(l)
		return l.Finished, said(l.Error)
	})
}
