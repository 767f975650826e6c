package api

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/web"
)

// Proofs tells callers that show something other than a secret. What it does
// not accept wraps [mandate.ErrUnauthenticated].
type Proofs interface {
	// Token returns the caller that a JWT stands for. If it is not accepted,
	// the caller is the one that it names, or "".
	Token(ctx context.Context, raw string) (mandate.CallerID, error)

	// Certificate returns the caller that a client certificate stands for,
	// the first of chain. That the client has its key was proven.
	Certificate(chain []*x509.Certificate) (mandate.CallerID, error)

	// Binding returns what a caller's registration binds, or nil.
	Binding(mandate.CallerID) (*mandate.Binding, error)
}

// Users verifies ID tokens of end users.
type Users interface {
	// User returns whose an ID token is, of the tenant of a partner and for an
	// application of ours. It was verified in full: signature, issuer,
	// audience, times. The error wraps [mandate.ErrUnavailable] if that could
	// not be done just now.
	User(ctx context.Context, key mandate.GrantKey, raw string) (mandate.Identity, error)
}

// maxSecret is the longest secret that is looked at, in bytes; ours are much
// shorter.
const maxSecret = 256

// authenticate tells a caller by the one thing that it shows: a secret by HTTP
// Basic, a JWT as a bearer token, or a client certificate. What is shown in the
// header counts before the certificate: several callers may share a
// connection.
//
// Only failures are limited, and they are counted after the fact: somebody
// who tries secrets is answered 429 before long, while the caller whose name
// or address is being abused is never locked out. Secrets are 256 random bits,
// so the limit is there for the log and the load and not against guessing.
func (s *Server) authenticate(r *http.Request) (mandate.CallerID, error) {
	switch shown := r.Header["Authorization"]; {
	case len(shown) > 1:
		return "", s.failed(r, "", errTwice)
	case len(shown) == 0 && s.cfg.Proofs != nil:
		return s.certificate(r)
	case len(shown) == 1 && s.cfg.Proofs != nil && len(shown[0]) > len(bearerScheme) && strings.EqualFold(shown[0][:len(bearerScheme)], bearerScheme):
		return s.bearer(r, shown[0][len(bearerScheme):])
	}
	return s.basic(r)
}

const bearerScheme = "Bearer "

var errTwice = errors.New("there are two Authorization headers")

// basic authenticates a caller by HTTP Basic (RFC 7617).
func (s *Server) basic(r *http.Request) (mandate.CallerID, error) {
	id, secret, ok := basicOf(r.Header["Authorization"])
	if !ok || !mandate.Name(id) || len(secret) > maxSecret {
		return "", s.failed(r, "", nil)
	}
	caller, err := s.cfg.Authenticator.Authenticate(id, secret)
	if errors.Is(err, mandate.ErrUnauthenticated) {
		return "", s.failed(r, id, err)
	}
	return caller, err
}

// basicOf is [http.Request.BasicAuth] for credentials that could be
// somebody's, with one allocation.
func basicOf(shown []string) (id, secret string, ok bool) {
	const scheme = "Basic "
	if len(shown) == 0 || len(shown[0]) < len(scheme) || !strings.EqualFold(shown[0][:len(scheme)], scheme) {
		return "", "", false
	}
	var plain [2 * maxSecret]byte
	encoded := shown[0][len(scheme):]
	if base64.StdEncoding.DecodedLen(len(encoded)) > len(plain) {
		return "", "", false
	}
	n, err := base64.StdEncoding.Decode(plain[:], []byte(encoded))
	if err != nil {
		return "", "", false
	}
	return strings.Cut(string(plain[:n]), ":")
}

func (s *Server) bearer(r *http.Request, raw string) (mandate.CallerID, error) {
	caller, err := s.cfg.Proofs.Token(r.Context(), raw)
	if errors.Is(err, mandate.ErrUnauthenticated) {
		return "", s.failed(r, string(caller), err)
	}
	return caller, err
}

func (s *Server) certificate(r *http.Request) (mandate.CallerID, error) {
	chain, err := s.chain(r)
	if err != nil || len(chain) == 0 {
		return "", s.failed(r, "", err)
	}
	caller, err := s.cfg.Proofs.Certificate(chain)
	if errors.Is(err, mandate.ErrUnauthenticated) {
		return "", s.failed(r, "", err)
	}
	return caller, err
}

// chain returns the certificates that the client has shown: in the handshake,
// or to a listed proxy, which says so in the header of RFC 9440. From anybody
// else that header is words.
func (s *Server) chain(r *http.Request) ([]*x509.Certificate, error) {
	if s.cfg.CertificateProxies.Peer(r) {
		return fromProxy(r.Header)
	}
	if r.TLS == nil {
		return nil, nil
	}
	return r.TLS.PeerCertificates, nil
}

const (
	maxClientCert = 16 << 10 // of one certificate in base64
	maxBetween    = 4        // certificates between the client's and its authority
)

var errClientCert = errors.New("the proxy's Client-Cert header is not as RFC 9440 has it")

// fromProxy reads Client-Cert and Client-Cert-Chain.
func fromProxy(h http.Header) ([]*x509.Certificate, error) {
	leaf := h.Values("Client-Cert")
	if len(leaf) == 0 {
		return nil, nil
	}
	if len(leaf) > 1 {
		return nil, errClientCert
	}
	fields := leaf
	if chain := strings.Join(h.Values("Client-Cert-Chain"), ","); strings.TrimSpace(chain) != "" {
		if strings.Count(chain, ",") >= maxBetween {
			return nil, errClientCert
		}
		fields = append(slices.Clone(leaf), strings.Split(chain, ",")...)
	}
	var out []*x509.Certificate
	for _, f := range fields {
		c, err := fromField(strings.TrimSpace(f))
		if err != nil {
			return nil, errClientCert
		}
		out = append(out, c)
	}
	return out, nil
}

// fromField reads a byte sequence of RFC 8941: base64 between colons.
func fromField(f string) (*x509.Certificate, error) {
	if len(f) < 2 || len(f) > maxClientCert || f[0] != ':' || f[len(f)-1] != ':' {
		return nil, errClientCert
	}
	der, err := base64.StdEncoding.DecodeString(f[1 : len(f)-1])
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// failed counts a failed authentication, and returns what to answer. Why it
// failed is for the log.
func (s *Server) failed(r *http.Request, id string, why error) error {
	err := s.addresses.Allow(web.AddressKey(web.Address(r.Context())))
	if id != "" {
		err = errors.Join(err, s.ids.Allow(id))
	}
	switch {
	case err != nil:
		return err
	case why != nil:
		return errors.Join(mandate.ErrUnauthenticated, why)
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
