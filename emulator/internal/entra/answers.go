package entra

import (
	"net/url"
	"strings"

	"github.com/mandate-sam/mandate/emulator/directory"
)

// take records what a page sent. A refusal ends the interaction.
func (s *Server) take(ix *interaction, f url.Values) *refusal {
	switch s.step(ix) {
	case stepAccount:
		s.takeAccount(ix, f.Get("account"))
	case stepSignIn:
		s.takeSignIn(ix, f)
	case stepMFA:
		s.takeMFA(ix, f)
	case stepApproval:
		if f.Get("decision") != "" {
			return refuse(90094)
		}
	case stepConsent:
		return s.takeConsent(ix, f)
	}
	return nil
}

func (s *Server) takeAccount(ix *interaction, name string) {
	u, ok := s.find(ix, strings.TrimSpace(name))
	if !ok {
		ix.notice = "There is no such account here."
		return
	}
	if e := s.choose(ix, u); e != nil {
		ix.notice = e.text()
	}
}

func (s *Server) takeSignIn(ix *interaction, f url.Values) {
	switch f.Get("signin") {
	case "yes":
		ix.signedIn = s.cfg.Dials.Now()
	case "other":
		ix.user, ix.tenant = directory.User{}, ""
	}
}

func (s *Server) takeMFA(ix *interaction, f url.Values) {
	switch {
	case f.Get("skip") != "" && !s.mustMFA(ix):
		ix.mfaSkip = true
	case strings.TrimSpace(f.Get("otp")) == ix.otp:
		ix.mfa = true
		ix.signedIn = s.cfg.Dials.Now()
	default:
		ix.notice = "That is not the code."
	}
}

func (s *Server) takeConsent(ix *interaction, f url.Values) *refusal {
	switch f.Get("decision") {
	case "cancel":
		return refuse(65004)
	case "accept":
		s.grantConsent(ix, f.Get("organization") != "" || ix.request.prompt == "admin_consent" || ix.request.admin)
		ix.consent = true
	}
	return nil
}

// grantConsent writes down the consent, for everyone in the tenant if an
// administrator said so.
func (s *Server) grantConsent(ix *interaction, everyone bool) {
	user := ix.user.ID
	if everyone && s.cfg.Directory.MayManage(ix.user, ix.tenant) {
		user = ""
	}
	app := ix.request.client.ID
	s.cfg.Directory.Install(ix.tenant, app)
	for _, p := range s.wanted(ix.request) {
		s.cfg.Directory.Consent(ix.tenant, app, user, p.resource.ID, p.scope.Name)
	}
	// Whoever sees the page may grant these, and they are nobody's in particular.
	for _, p := range s.wantedRoles(ix.request, ix.tenant) {
		s.cfg.Directory.AssignRoles(ix.tenant, app, p.resource.ID, p.scope.Name)
	}
}

// find looks an account up: in the tenant addressed, else in that of its own
// domain, else anywhere that knows it as a guest.
func (s *Server) find(ix *interaction, name string) (directory.User, bool) {
	d := s.cfg.Directory
	if u, ok := d.User(ix.request.tenant, name); ok {
		return u, true
	}
	_, domain, _ := strings.Cut(name, "@")
	if t, ok := d.Tenant(domain); ok {
		if u, ok := d.User(t.ID, name); ok {
			return u, true
		}
	}
	if ix.request.tenant != "" {
		return directory.User{}, false
	}
	return d.UserAnywhere(name)
}

// choose makes u the interaction's account, if it may sign in there.
func (s *Server) choose(ix *interaction, u directory.User) *refusal {
	tenant := ix.request.tenant
	if tenant == "" {
		tenant = u.Tenant
	}
	if !s.cfg.Directory.MayAct(u, tenant) {
		return refuse(50020, u.UPN, s.issuer(u.Home(), 1), s.tenantName(tenant), ix.request.client.ID)
	}
	ix.user, ix.tenant = u, tenant
	return nil
}
