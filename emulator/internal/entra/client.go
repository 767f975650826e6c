package entra

import (
	"crypto/subtle"
	"net/http"
	"net/url"
	"strings"

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

// Strengths of a client's credential, as appidacr has them.
const (
	strengthNone   = "0"
	strengthSecret = "1"
	strengthKey    = "2"
)

// public reports whether the client showed no credential.
func (a *attempt) public() bool { return a.strength == strengthNone }

// authenticate returns the application that the credential belongs to, and
// how strong it was.
func (s *Server) authenticate(c credential, tenant string) (directory.Application, string, *refusal) {
	if c.id == "" {
		return directory.Application{}, "", refuse(900144, "client_id")
	}
	app, ok := s.cfg.Directory.Application(c.id)
	if !ok {
		return app, "", refuse(700016, short(c.id), s.tenantName(tenant))
	}
	if e := s.atHome(app, tenant); e != nil {
		return app, "", e
	}
	if c.assertion == "" && c.secret == "" {
		return app, strengthNone, nil
	}
	if app.Public && len(app.Secrets)+len(app.Certificates)+len(app.Federated) == 0 {
		return app, "", refuse(700025)
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
		return app, strengthKey, s.checkAssertion(c.assertion, app, tenant, s.cfg.Dials.Now())
	}
	return app, strengthSecret, s.checkSecret(c.secret, app)
}

func (s *Server) checkSecret(value string, app directory.Application) *refusal {
	for _, secret := range app.Secrets {
		if subtle.ConstantTimeCompare([]byte(secret), []byte(value)) == 1 {
			return nil
		}
	}
	if s.cfg.Directory.Expired(app.ID, value, s.cfg.Dials.Now()) {
		return refuse(7000222, app.ID)
	}
	return refuse(7000215, app.ID)
}

// mayGoWithout refuses a client without credential that needs one for the
// grant. Codes and refresh tokens of single-page applications need none; that
// is known only when they have been found.
func (a *attempt) mayGoWithout() *refusal {
	if !a.public() {
		return nil
	}
	switch a.form.Get("grant_type") {
	case "authorization_code", "refresh_token":
		if a.client.Public || len(a.client.SPARedirectURIs) > 0 {
			return nil
		}
	case deviceGrant, oldDeviceGrant:
		if a.client.Public {
			return nil
		}
	}
	return refuse(7000218)
}

// checkSPA holds what was found against how the client presents it: a
// single-page application has no credential, and only a public client goes
// without one otherwise.
func (a *attempt) checkSPA(spa bool) *refusal {
	switch {
	case spa && !a.public():
		return refuse(700025)
	case !spa && a.public() && !a.client.Public:
		return refuse(7000218)
	}
	return nil
}
