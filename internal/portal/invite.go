package portal

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/web"
)

// front is the page of somebody who came without an invitation.
func (p *Portal) front(w http.ResponseWriter, _ *http.Request) error {
	return p.show(w, http.StatusOK, "front", "Consent for partners", p.cfg.People != nil)
}

// An invitationPage is what a partner reads before anything happens.
type invitationPage struct {
	Invitation
	App           *Application
	APIs          []apiGroup
	AuthorityHost string
	Term          string
	Until         time.Time
	Token         string // goes back in the form; it is in this page's URL anyway
}

// invitation shows who asks for what, and changes nothing however often it is
// opened: mail scanners open links too.
func (p *Portal) invitation(w http.ResponseWriter, r *http.Request) error {
	inv, app, err := p.invited(r, r.PathValue("token"))
	if err != nil {
		return p.uninvited(w, r, inv, err)
	}
	return p.show(w, http.StatusOK, "invitation", app.Publisher+" asks for your consent", &invitationPage{
		Invitation: inv, App: app, APIs: app.groups(), AuthorityHost: app.authorityHost(), Term: lasting(inv.Term),
		Until: time.Now().Add(inv.Term).Truncate(time.Minute), Token: r.PathValue("token"),
	})
}

// invited finds the invitation that a token opens, and its application.
func (p *Portal) invited(r *http.Request, token string) (Invitation, *Application, error) {
	if !plain(token) {
		return Invitation{}, nil, ErrInvitationUnknown
	}
	inv, err := p.cfg.Invitations.Invitation(r.Context(), mandate.NewSecret(token))
	if err != nil {
		return inv, nil, err
	}
	app, err := p.application(inv.Partner.Key)
	return inv, app, err
}

// plain reports whether s could be a token or an id of ours, so that nothing
// else gets into a cookie's name, a path or the database.
func plain(s string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
	return len(s) >= 8 && len(s) <= 128 && strings.Trim(s, letters) == ""
}

// uninvited answers for an invitation that does not open. What is about a
// known partner is recorded; what is not would let strangers fill the record.
func (p *Portal) uninvited(w http.ResponseWriter, r *http.Request, inv Invitation, err error) error {
	status, detail := http.StatusGone, ""
	switch {
	case errors.Is(err, ErrInvitationUnknown):
		status, detail = http.StatusNotFound, "unknown"
	case errors.Is(err, ErrInvitationUsed):
		detail = "used"
	case errors.Is(err, ErrInvitationExpired):
		detail = "expired"
	default:
		return err
	}
	refusal := &mandate.Refusal{Reason: mandate.ReasonInvitation, Detail: detail}
	if inv.Partner.Key.Partner.IsZero() {
		return p.refuse(w, r, status, refusal)
	}
	p.record(r, inv.Partner, refusal)
	return p.showRefusal(w, status, Outcome{Partner: inv.Partner, Request: web.RequestID(r.Context()), Refused: refused(refusal)})
}

// begin starts a sign-in and sends the browser to Entra.
func (p *Portal) begin(w http.ResponseWriter, r *http.Request) error {
	form, err := web.ReadForm(w, r)
	if err != nil {
		return err
	}
	if name := web.Duplicate(form); name != "" {
		return mandate.Invalid(name, "is given twice")
	}
	inv, app, err := p.invited(r, form.Get("invitation"))
	if err != nil {
		return p.uninvited(w, r, inv, err)
	}
	until, err := agreed(form.Get("until"), inv.Term)
	if err != nil {
		return err
	}
	proof, err := p.cfg.Transactions.Begin(r.Context(), Start{
		Invitation: inv, Authority: app.Cloud.Authority, RedirectURI: p.redirectURI(app.Cloud.Name),
		Until: until, Audiences: app.Audiences,
	})
	if err != nil {
		return p.uninvited(w, r, inv, err)
	}
	return p.leave(w, app, &inv, proof, inv.User, false)
}

// leave sends the browser to Entra, with the proof of the sign-in that begins.
// A hint that is a user name is filled in there.
func (p *Portal) leave(w http.ResponseWriter, app *Application, inv *Invitation, proof Proof, hint string, signIn bool) error {
	target, err := p.authorize(app, inv, proof, hint, signIn)
	if err != nil {
		return err
	}
	http.SetCookie(w, proofCookie(proof, 10*time.Minute, http.SameSiteNoneMode))
	// Not a redirect: Chromium holds form-action against every hop that
	// follows a POST, and a federated partner's sign-in hops on to a host that
	// nobody here knows.
	w.Header().Set("Refresh", "0;url="+target)
	return p.show(w, http.StatusOK, "leaving", "Taking you to Microsoft", &leavingPage{target, app.authorityHost()})
}

// A leavingPage is between this site and Entra's.
type leavingPage struct{ Target, Host string }

// agreed reads the end of the grant that the partner saw on the page. A
// browser can send what it likes, but only an earlier end than the invitation
// allows.
func agreed(s string, term time.Duration) (time.Time, error) {
	until, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, mandate.Invalid("until", "is not a time")
	}
	if now := time.Now(); !until.After(now) || until.After(now.Add(term)) {
		return time.Time{}, mandate.Invalid("until", "is not within the term of the invitation; open the invitation again")
	}
	return until.UTC(), nil
}

// authorize returns the URL of Entra's sign-in page. It must be at the
// cloud's authority: a browser is sent nowhere else.
func (p *Portal) authorize(app *Application, inv *Invitation, proof Proof, hint string, signIn bool) (string, error) {
	challenge := sha256.Sum256([]byte(proof.Verifier.Reveal()))
	req := AuthorizeRequest{
		Application: app.ID, Cloud: app.Cloud.Name, Tenant: inv.Partner.Key.Partner,
		RedirectURI: p.redirectURI(app.Cloud.Name),
		State:       state(proof),
		Nonce:       proof.Nonce,
		SignIn:      signIn,
		Challenge:   base64.RawURLEncoding.EncodeToString(challenge[:]),
	}
	if strings.Contains(hint, "@") {
		req.LoginHint = hint
	}
	target, err := p.cfg.Authorize(req)
	if err != nil {
		return "", fmt.Errorf("authorize: %w", err)
	}
	if u, err := url.Parse(target); err != nil || u.Scheme+"://"+u.Host != app.Cloud.Authority {
		return "", fmt.Errorf("authorize: the URL is not at %s", app.Cloud.Authority)
	}
	return target, nil
}

// redirectURI is where Entra answers for a cloud. It comes from the
// configuration alone.
func (p *Portal) redirectURI(cloud string) string { return p.cfg.PublicURL + callbackPath(cloud) }

// state is what Entra carries to the callback: which sign-in, and a value that
// only the cookie of that sign-in leads to.
func state(proof Proof) string { return proof.ID + "." + proof.State.Reveal() }

// proofCookie holds the proof of one sign-in, and is not a session.
func proofCookie(proof Proof, life time.Duration, site http.SameSite) *http.Cookie {
	return &http.Cookie{
		Name: cookieName(proof.ID), Value: proof.Cookie.Reveal(), Path: "/", MaxAge: int(life.Seconds()),
		Secure: true, HttpOnly: true, SameSite: site,
	}
}

func cookieName(id string) string { return "__Host-tx-" + id }

// proof returns the proof that the browser holds of the sign-in id. The
// cookie must be there once and not be empty: what is missing here must never
// equal what is missing elsewhere.
func (p *Portal) proof(r *http.Request, id string) (Proof, error) {
	if !plain(id) {
		return Proof{}, ErrTransaction
	}
	cookies := r.CookiesNamed(cookieName(id))
	if len(cookies) != 1 || cookies[0].Value == "" {
		return Proof{}, ErrTransaction
	}
	return p.cfg.Transactions.Proof(id, mandate.NewSecret(cookies[0].Value))
}

// address returns the browser's address for the record.
func address(r *http.Request) string {
	if a := web.Address(r.Context()); a.IsValid() {
		return a.String()
	}
	return ""
}
