package entra

import (
	"crypto/subtle"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/mandate-sam/mandate/emulator/directory"
)

// credential is how a client says who it is, in a token request.
type credential struct{ id, secret, assertion, assertionType string }

// readCredential reads the credential from the form, or from the
// Authorization header (RFC 6749, 2.3.1). An Authorization header of another
// scheme means nothing here.
func readCredential(r *http.Request) (credential, *refusal) {
	f := r.PostForm
	c := credential{f.Get("client_id"), f.Get("client_secret"), f.Get("client_assertion"), f.Get("client_assertion_type")}
	id, secret, ok := r.BasicAuth()
	if !ok {
		return c, nil
	}
	id, err1 := url.QueryUnescape(id)
	secret, err2 := url.QueryUnescape(secret)
	if err1 != nil || err2 != nil || c.id != "" && !strings.EqualFold(c.id, id) {
		return c, refuse(9002313)
	}
	c.id, c.secret = id, secret
	return c, nil
}

// authenticate returns the application that the credential belongs to, and
// how strong it was: "1" for a secret, "2" for a certificate.
func (s *Server) authenticate(c credential, tenant string) (directory.Application, string, *refusal) {
	if c.id == "" {
		return directory.Application{}, "", refuse(900144, "client_id")
	}
	app, ok := s.cfg.Directory.Application(c.id)
	if !ok {
		return app, "", refuse(700016, c.id, s.tenantName(tenant))
	}
	if c.assertion == "" && c.secret == "" {
		return app, "", refuse(7000218)
	}
	for _, id := range s.cfg.Dials.Dials().ExpiredCredentials {
		if strings.EqualFold(id, app.ID) {
			return app, "", refuse(7000222, app.ID)
		}
	}
	if c.assertion != "" {
		if c.assertionType != assertionType {
			return app, "", refuse(90023, "client_assertion_type")
		}
		return app, "2", s.checkAssertion(c.assertion, app, tenant, time.Now())
	}
	for _, secret := range app.Secrets {
		if subtle.ConstantTimeCompare([]byte(secret), []byte(c.secret)) == 1 {
			return app, "1", nil
		}
	}
	return app, "", refuse(7000215, app.ID)
}
