package api

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/web"
)

// A Custodian does what an operator wants done with keys, backups and the
// whole system.
type Custodian interface {
	Keys
	Backups

	// Lockdown returns the one that is in force, or nil.
	Lockdown() (*mandate.Lockdown, error)

	// Lock begins a lockdown, or changes the reason for it.
	Lock(context.Context, mandate.Lockdown) error

	// Unlock ends it. The error wraps [mandate.ErrNotFound] if there is none.
	Unlock(context.Context) error
}

// Keys are the key-encryption keys.
type Keys interface {
	// Keys tells how much is sealed with which key.
	Keys(context.Context) (KeyStatus, error)

	// RotateKey makes new keys with which everything is sealed from now on.
	// shared says that all replicas read the same files.
	RotateKey(ctx context.Context, shared bool) (Rotated, error)

	// ReloadKeys has every replica read its key files again.
	ReloadKeys(context.Context) error

	// RetireKey takes a key away for good. The error wraps [mandate.ErrInvalid]
	// if anything is still sealed with it.
	RetireKey(ctx context.Context, keyID string) error

	// Rewrap brings everything under the current key; if compromised, with new
	// data keys. What could not be brought is in the error, the rest is done.
	Rewrap(ctx context.Context, compromised bool, progress func(done, total int)) error
}

// Backups are copies that are kept elsewhere.
type Backups interface {
	// Backup returns a consistent copy that is still sealed. directory is where
	// it is to be kept; the error wraps [mandate.ErrInvalid] if the key file is
	// there.
	Backup(ctx context.Context, directory string) (io.ReadCloser, error)

	// Release probes every grant that came out of a backup, lets serve those
	// that pass, and tells each of what came of it.
	Release(ctx context.Context, by mandate.By, each func(ReleasedGrant)) error
}

// A KeyStatus is what is sealed with which key.
type KeyStatus struct {
	Current string   `json:"current"`          // with which grants are sealed from now on
	Shared  string   `json:"shared,omitempty"` // and the tokens that replicas share
	Where   string   `json:"where"`            // the keys are kept
	Keys    []KeyUse `json:"keys"`
}

// A KeyUse is one key, and how much is sealed with it.
type KeyUse struct {
	ID     string `json:"id"`
	Grants int    `json:"grants"`
	Tokens int    `json:"tokens"` // shared access tokens
	Own    int    `json:"own"`    // keys of the server's own: that of the security state, that of the audit log
	Here   bool   `json:"here"`   // whether this replica has it
}

// A RotateRequest is the body of POST /v1/keys/rotate.
type RotateRequest struct {
	Shared bool `json:"shared,omitempty"` // all replicas read the same key files
}

// A Rotated is the answer to it.
type Rotated struct {
	KeyID string `json:"key_id"`

	// Where the tokens that replicas share have a key of their own: its ID, or
	// why it is the same as before and what to do.
	SharedKeyID string `json:"shared_key_id,omitempty"`
	Left        string `json:"left,omitempty"`
}

// A RetireRequest is the body of POST /v1/keys/retire.
type RetireRequest struct {
	KeyID string `json:"key_id"`
}

// A RewrapRequest is the body of POST /v1/keys/rewrap.
type RewrapRequest struct {
	Compromised bool `json:"compromised,omitempty"` // new data keys too
}

// A RewrapLine is a line of the answer to it. The last has Finished, and Error
// if something is left.
type RewrapLine struct {
	Done     int    `json:"done"`
	Total    int    `json:"total"`
	Finished bool   `json:"finished,omitempty"`
	Error    string `json:"error,omitempty"`
}

// A LockRequest is the body of POST /v1/lockdown.
type LockRequest struct {
	Reason string `json:"reason"`
}

// A LockStatus tells whether there is a lockdown, and then what it cannot take
// back.
type LockStatus struct {
	Locked   bool              `json:"locked"`
	Lockdown *mandate.Lockdown `json:"lockdown,omitempty"`
	Alive    *int              `json:"alive,omitempty"`   // tokens that were handed out before, and live until they expire
	Until    time.Time         `json:"until,omitzero"`    // when the last of them expires
	Unknown  string            `json:"unknown,omitempty"` // why it is not known how many are alive
}

// A ReleasedGrant is what came of the probe of a restored grant: a line of the
// answer to POST /v1/restore/finish. The last line has Finished.
type ReleasedGrant struct {
	Partner  string `json:"partner,omitempty"`
	Serves   bool   `json:"serves,omitempty"`
	Text     string `json:"text,omitempty"`
	Finished bool   `json:"finished,omitempty"`
	Error    string `json:"error,omitempty"`
}

// ok is the answer where there is nothing else to say.
var okAnswer = map[string]bool{"ok": true}

// withCustodian makes an operation of one that needs the custodian.
func withCustodian(do func(*Server, Custodian, http.ResponseWriter, *http.Request, mandate.CallerID) error) action {
	return func(s *Server, w http.ResponseWriter, r *http.Request, caller mandate.CallerID) error {
		if s.cfg.Custodian == nil {
			return fmt.Errorf("%w: this server has no custodian", mandate.ErrNotFound)
		}
		return do(s, s.cfg.Custodian, w, r, caller)
	}
}

// custodyRoutes are a part of the operator's.
var custodyRoutes = []route{
	{"GET", "/v1/keys", withCustodian((*Server).keys)},
	{"POST", "/v1/keys/rotate", withCustodian((*Server).rotateKey)},
	{"POST", "/v1/keys/reload", withCustodian((*Server).reloadKeys)},
	{"POST", "/v1/keys/retire", withCustodian((*Server).retireKey)},
	{"POST", "/v1/keys/rewrap", withCustodian((*Server).rewrap)},
	{"GET", "/v1/lockdown", withCustodian((*Server).lockdown)},
	{"POST", "/v1/lockdown", withCustodian((*Server).lock)},
	{"POST", "/v1/lockdown/end", withCustodian((*Server).unlock)},
	{"GET", "/v1/backup", withCustodian((*Server).backup)},
	{"POST", "/v1/restore/finish", withCustodian((*Server).release)},
}

func (s *Server) keys(c Custodian, w http.ResponseWriter, r *http.Request, _ mandate.CallerID) error {
	st, err := c.Keys(r.Context())
	if err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, st)
}

func (s *Server) rotateKey(c Custodian, w http.ResponseWriter, r *http.Request, caller mandate.CallerID) error {
	in, err := web.Read[RotateRequest](w, r)
	if err != nil {
		return err
	}
	var out Rotated
	err = s.change(r.Context(), mandate.Record{Caller: caller, Detail: "rotate the key"}, func() (err error) {
		out, err = c.RotateKey(r.Context(), in.Shared)
		return err
	})
	if err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, out)
}

func (s *Server) reloadKeys(c Custodian, w http.ResponseWriter, r *http.Request, caller mandate.CallerID) error {
	if _, err := web.Read[struct{}](w, r); err != nil {
		return err
	}
	if err := s.change(r.Context(), mandate.Record{Caller: caller, Detail: "reload the key files"}, func() error { return c.ReloadKeys(r.Context()) }); err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, okAnswer)
}

func (s *Server) retireKey(c Custodian, w http.ResponseWriter, r *http.Request, caller mandate.CallerID) error {
	in, err := web.Read[RetireRequest](w, r)
	if err != nil {
		return err
	}
	if in.KeyID == "" || len(in.KeyID) > 300 {
		return mandate.Invalid("key_id", "must be the id of a key")
	}
	err = s.change(r.Context(), mandate.Record{Caller: caller, Detail: fmt.Sprintf("retire key %.64q", in.KeyID)}, func() error { return c.RetireKey(r.Context(), in.KeyID) })
	if err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, okAnswer)
}

// progressEvery bounds how often progress is told.
const progressEvery = 200 * time.Millisecond

// rewrap answers with lines. It ends when whoever asked hangs up; to ask again
// goes on where it ended.
func (s *Server) rewrap(c Custodian, w http.ResponseWriter, r *http.Request, caller mandate.CallerID) error {
	in, err := web.Read[RewrapRequest](w, r)
	if err != nil {
		return err
	}
	rec := mandate.Record{Caller: caller, Detail: "bring everything under the current key"}
	if in.Compromised {
		rec.Detail += ", with new data keys"
	}
	var out *stream
	var last RewrapLine
	var told time.Time
	err = s.change(r.Context(), rec, func() error {
		out = newStream(w)
		return c.Rewrap(r.Context(), in.Compromised, func(done, total int) {
			last = RewrapLine{Done: done, Total: total}
			if time.Since(told) >= progressEvery || done == total {
				told = time.Now()
				out.tell(last)
			}
		})
	})
	if out == nil {
		return err
	}
	last.Finished = true
	if err != nil {
		last.Error = err.Error()
	}
	out.tell(last)
	return nil
}

// tell writes a line at once. Whoever does not listen is not waited for: the
// request's context ends.
func (s *stream) tell(v any) {
	if b, err := json.Marshal(v); err == nil && s.line(b) == nil {
		_ = s.flush()
	}
}

func (s *Server) lockdown(c Custodian, w http.ResponseWriter, r *http.Request, _ mandate.CallerID) error {
	l, err := c.Lockdown()
	if err != nil {
		return err
	}
	out := LockStatus{Locked: l != nil, Lockdown: l}
	if out.Locked && s.cfg.Revoker != nil {
		n, until, err := s.cfg.Revoker.Alive(r.Context(), mandate.Reach{}, time.Now())
		if out.Alive, out.Until = &n, until; err != nil {
			out.Alive, out.Unknown = nil, err.Error()
		}
	}
	return web.Write(w, http.StatusOK, out)
}

func (s *Server) lock(c Custodian, w http.ResponseWriter, r *http.Request, caller mandate.CallerID) error {
	in, err := web.Read[LockRequest](w, r)
	if err != nil {
		return err
	}
	l := mandate.Lockdown{Reason: in.Reason, Since: time.Now(), By: caller}
	err = s.change(r.Context(), mandate.Record{Caller: caller, Detail: "lock down", Reason: in.Reason}, func() error { return c.Lock(r.Context(), l) })
	if err != nil {
		return err
	}
	return s.lockdown(c, w, r, caller)
}

func (s *Server) unlock(c Custodian, w http.ResponseWriter, r *http.Request, caller mandate.CallerID) error {
	if _, err := web.Read[struct{}](w, r); err != nil {
		return err
	}
	if err := s.change(r.Context(), mandate.Record{Caller: caller, Detail: "end the lockdown"}, func() error { return c.Unlock(r.Context()) }); err != nil {
		return err
	}
	return s.lockdown(c, w, r, caller)
}

// backup is GET /v1/backup?directory=….
func (s *Server) backup(c Custodian, w http.ResponseWriter, r *http.Request, caller mandate.CallerID) error {
	directory := r.URL.Query().Get("directory")
	var copy io.ReadCloser
	err := s.change(r.Context(), mandate.Record{Caller: caller, Detail: "back up"}, func() (err error) {
		copy, err = c.Backup(r.Context(), directory)
		return err
	})
	if err != nil {
		return err
	}
	defer copy.Close()
	out := newStream(w)
	buf := make([]byte, 256<<10)
	for {
		n, err := copy.Read(buf)
		if n > 0 {
			if err := out.raw(buf[:n]); err != nil {
				return nil // nobody listens
			}
		}
		if err != nil {
			return nil // the copy's own last line says whether it is whole
		}
	}
}

// raw writes part of a long answer.
func (s *stream) raw(b []byte) error {
	if err := s.ctrl.SetWriteDeadline(time.Now().Add(streamTimeout)); err != nil {
		return err
	}
	_, err := s.w.Write(b)
	return err
}

func (s *Server) release(c Custodian, w http.ResponseWriter, r *http.Request, caller mandate.CallerID) error {
	if _, err := web.Read[struct{}](w, r); err != nil {
		return err
	}
	b, err := by(r, caller, "")
	if err != nil {
		return err
	}
	if _, err := s.cfg.Epoch.Epoch(); err != nil {
		return err
	}
	out := newStream(w)
	last := ReleasedGrant{Finished: true}
	if err := c.Release(r.Context(), b, func(g ReleasedGrant) { out.tell(g) }); err != nil {
		last.Error = err.Error()
	}
	out.tell(last)
	return nil
}
