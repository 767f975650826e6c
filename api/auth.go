package api

import (
	"errors"
	"net/http"
	"slices"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/web"
)

// maxSecret is the longest secret that is looked at, in bytes; ours are much
// shorter.
const maxSecret = 256

// basic authenticates a caller by HTTP Basic (RFC 7617).
//
// Only failures are limited, and they are counted after the fact: somebody
// who tries secrets is answered 429 before long, while the caller whose name
// or address is being abused is never locked out. Secrets are 256 random bits,
// so the limit is there for the log and the load and not against guessing.
func (s *Server) basic(r *http.Request) (mandate.CallerID, error) {
	id, secret, ok := r.BasicAuth()
	if !ok || !mandate.Name(id) || len(secret) > maxSecret {
		return "", s.failed(r, "")
	}
	caller, err := s.cfg.Authenticator.Authenticate(id, secret)
	if errors.Is(err, mandate.ErrUnauthenticated) {
		return "", s.failed(r, id)
	}
	return caller, err
}

// failed counts a failed authentication, and returns what to answer.
func (s *Server) failed(r *http.Request, id string) error {
	err := s.addresses.Allow(web.AddressKey(web.Address(r.Context())))
	if id != "" {
		err = errors.Join(err, s.ids.Allow(id))
	}
	if err != nil {
		return err
	}
	return mandate.ErrUnauthenticated
}

// peer identifies an operator by the user id at the other end of the socket.
func (s *Server) peer(r *http.Request) (mandate.CallerID, error) {
	uid, ok := peerUID(r.Context())
	if !ok {
		return "", mandate.ErrUnauthenticated
	}
	if !slices.Contains(s.cfg.Operators, uid) {
		return "", &mandate.DeniedError{Decision: mandate.Decision{
			Reason: string(uidCaller(uid)) + " is not an operator of this server",
		}}
	}
	return uidCaller(uid), nil
}
