package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/web"
)

// SignIns lets operators sign in with OpenID Connect.
type SignIns interface {
	// Begin returns what an operator's own program needs to sign its user in.
	Begin(context.Context) (SignInStart, error)

	// Finish verifies an ID token, which is used up, and returns who it is,
	// and the secret of a session. The error wraps
	// [mandate.ErrUnauthenticated]; if the person has no role here, it wraps
	// [mandate.ErrDenied].
	Finish(ctx context.Context, idToken string) (Operator, mandate.Secret, error)

	// Session returns whose session a secret is for, with the roles of now.
	// The error wraps [mandate.ErrUnauthenticated].
	Session(context.Context, mandate.Secret) (Operator, error)

	// End ends a session.
	End(context.Context, mandate.Secret) error
}

// An Operator is a person who has signed in.
type Operator struct {
	Issuer   string
	User     mandate.Identity
	UserName string // for people to read
	Roles    []string
	SignedIn time.Time // by the issuer's word; zero if it does not say
	Expires  time.Time // of the session
}

// caller returns the name of an operator in rules and records.
func (o *Operator) caller() mandate.CallerID {
	return mandate.CallerID("oid:" + o.User.Object.String())
}

// A SignInStart is the answer to POST /v1/signin: the parameters of an
// authorization code flow with PKCE, for a public client.
type SignInStart struct {
	AuthorizeURL string `json:"authorize_url"`
	TokenURL     string `json:"token_url"`
	ClientID     string `json:"client_id"`
	Scope        string `json:"scope"`
	Nonce        string `json:"nonce"`
	Claims       string `json:"claims,omitempty"`
}

// A signInRequest is the body of POST /v1/signin/finish.
type signInRequest struct {
	IDToken string `json:"id_token"`
}

// A SignedIn is the answer to it.
type SignedIn struct {
	Session  string           `json:"session"`
	Caller   mandate.CallerID `json:"caller"`
	UserName string           `json:"user_name,omitempty"`
	Roles    []string         `json:"roles"`
	Expires  time.Time        `json:"expires"`
}

// sessionScheme begins the Authorization header of an operator's request.
const sessionScheme = bearerScheme + "mds_"

// maxSession is the longest secret of a session that is looked at, in bytes.
const maxSession = 100

// signInRoutes are for whoever is about to sign in.
var signInRoutes = []route{
	{"POST", "/v1/signin", (*Server).beginSignIn},
	{"POST", "/v1/signin/finish", (*Server).finishSignIn},
	{"POST", "/v1/signin/end", (*Server).endSignIn},
}

// person tells an operator by the session.
func (s *Server) person(r *http.Request) (*Operator, error) {
	secret, ok := session(r)
	if s.cfg.SignIns == nil || !ok {
		return nil, s.failed(r, "", nil)
	}
	o, err := s.cfg.SignIns.Session(r.Context(), secret)
	if errors.Is(err, mandate.ErrUnauthenticated) {
		return nil, s.failed(r, "", err)
	}
	return &o, err
}

// session returns the secret of a session in a request, if there is one.
func session(r *http.Request) (mandate.Secret, bool) {
	shown := r.Header["Authorization"]
	if len(shown) != 1 || !strings.HasPrefix(shown[0], sessionScheme) || len(shown[0]) > maxSession {
		return mandate.Secret{}, false
	}
	return mandate.NewSecret(shown[0][len(bearerScheme):]), true
}

// signIns returns what signs operators in, if anything does.
func (s *Server) signIns() (SignIns, error) {
	if s.cfg.SignIns == nil {
		return nil, fmt.Errorf("%w: operators do not sign in here: it is not configured", mandate.ErrNotFound)
	}
	return s.cfg.SignIns, nil
}

func (s *Server) beginSignIn(w http.ResponseWriter, r *http.Request, _ mandate.CallerID) error {
	in, err := s.signIns()
	if err != nil {
		return err
	}
	if _, err := web.Read[struct{}](w, r); err != nil {
		return err
	}
	start, err := in.Begin(r.Context())
	if err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, start)
}

func (s *Server) finishSignIn(w http.ResponseWriter, r *http.Request, _ mandate.CallerID) error {
	in, err := s.signIns()
	if err != nil {
		return err
	}
	body, err := web.Read[signInRequest](w, r)
	if err != nil {
		return err
	}
	o, secret, err := in.Finish(r.Context(), body.IDToken)
	switch {
	case errors.Is(err, mandate.ErrUnauthenticated):
		return s.failed(r, "", err)
	case errors.Is(err, mandate.ErrDenied):
		return errors.Join(err, s.recordSignIn(r, &o, mandate.KindDenied))
	case err != nil:
		return err
	}
	if err := s.recordSignIn(r, &o, mandate.KindChanged); err != nil {
		return errors.Join(err, in.End(r.Context(), secret))
	}
	return web.Write(w, http.StatusCreated, SignedIn{secret.Reveal(), o.caller(), o.UserName, o.Roles, o.Expires})
}

// recordSignIn records a sign-in. Without the record there is no session.
func (s *Server) recordSignIn(r *http.Request, o *Operator, kind string) error {
	epoch, err := s.cfg.Epoch.Epoch()
	if err != nil {
		return err
	}
	rec := mandate.Record{Kind: kind, Epoch: epoch, Caller: o.caller(), User: &o.User, Expires: o.Expires, Detail: "sign in as " + strings.Join(o.Roles, ", ")}
	if len(o.Roles) == 0 {
		rec.Detail, rec.Reason = "sign in", "the person has no role here"
	}
	if a := web.Address(r.Context()); a.IsValid() {
		rec.Address = a.String()
	}
	_, err = s.cfg.Recorder.Record(r.Context(), rec)
	return err
}

func (s *Server) endSignIn(w http.ResponseWriter, r *http.Request, _ mandate.CallerID) error {
	in, err := s.signIns()
	if err != nil {
		return err
	}
	if _, err := web.Read[struct{}](w, r); err != nil {
		return err
	}
	secret, ok := session(r)
	if !ok {
		return s.failed(r, "", nil)
	}
	if err := in.End(r.Context(), secret); err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, okAnswer)
}
