package portal

import (
	"cmp"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/web"
)

// pages are the pages to which a sign-in may lead, by what a form calls them.
// Nothing else in a request chooses where a browser goes.
var pages = map[string]string{"": "/partner", "renew": "/partner/renew", "withdraw": "/partner/withdraw", "usage": "/partner/usage"}

// partnerRoutes adds the pages of people of partners.
func (p *Portal) partnerRoutes(mux *http.ServeMux) {
	p.route(mux, "GET", "/partner", p.limited(p.signedIn("", p.partner)))
	p.route(mux, "GET", "/partner/usage", p.limited(p.signedIn("usage", p.usage)))
	p.route(mux, "GET", "/partner/records.jsonl", p.limited(p.signedIn("records", p.download)))
	p.form(mux, "/partner/renew", p.renewForm, p.renew)
	p.form(mux, "/partner/withdraw", p.withdrawForm, p.withdraw)
	p.route(mux, "POST", "/partner/signin", p.limited(p.beginSignIn))
	p.route(mux, "POST", "/partner/signout", p.limited(p.signOut))
}

var (
	noAccess = message{Title: "You have no access here", Text: []string{
		"Your account signed in, but nobody has allowed it to see this partner’s consent.",
		"Admin agents of your organisation have access by themselves: a Global Administrator gives that role in Partner Center under Account settings → User management.",
		"Or ask the provider of the application to allow your account, and give them your object ID; an administrator finds it in the Entra admin center under Users.",
	}}
	roleUnknown = message{Title: "We cannot see whether you still have access", Text: []string{
		"You see these pages as an Admin agent of your organisation, and whether your account still is one could not be asked of Microsoft just now. Without an answer nothing is shown, and nothing was changed.",
		"Either Microsoft did not answer: then try again in a few minutes. Or the consent of your organisation does not work at the moment, for instance because it was suspended or withdrawn: Microsoft is asked with it. Then the provider of the application can allow your account by its object ID.",
	}}
	signedOut = message{Title: "You are signed out", Text: []string{
		"This site has forgotten your session. You may still be signed in at Microsoft: sign out there too on a computer that others use.",
	}}
)

// signInWords says in plain words why somebody was not signed in.
var signInWords = map[mandate.Reason]string{
	mandate.ReasonTenant:      "The account belongs to another organisation. Sign in with an account of your own tenant, for instance in a private window.",
	mandate.ReasonGuest:       "The account is a guest of the tenant. Only accounts that your organisation itself manages can sign in here.",
	mandate.ReasonDeclined:    "You cancelled on Microsoft’s page.",
	mandate.ReasonTransaction: "The sign-in was begun elsewhere, was finished before, or took more than ten minutes.",
	mandate.ReasonUnavailable: "Microsoft did not answer. Try again in a few minutes.",
	mandate.ReasonRoleUnknown: "Nobody has given your account a role here by hand, and whether it is an Admin agent of your organisation could not be asked of Microsoft: the consent of your organisation does not work at the moment, or Microsoft did not answer. Try again in a few minutes, or ask the provider of the application to allow your account by its object ID.",
}

// A signInPage asks whose consent somebody wants to see.
type signInPage struct {
	Applications []*Application
	To           string // where it leads
	Wrong        string // with what was entered before
}

// signInForm shows where people sign in, to get to a page of theirs.
func (p *Portal) signInForm(w http.ResponseWriter, status int, to, wrong string) error {
	page := &signInPage{To: to, Wrong: wrong}
	for _, a := range p.apps {
		page.Applications = append(page.Applications, a)
	}
	slices.SortFunc(page.Applications, func(a, b *Application) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.ID.String(), b.ID.String()))
	})
	return p.show(w, status, "partnersignin", "Sign in to see your consent", page)
}

// beginSignIn starts the sign-in of somebody who looks.
func (p *Portal) beginSignIn(w http.ResponseWriter, r *http.Request) error {
	form, err := web.ReadForm(w, r)
	if err != nil {
		return err
	}
	if name := web.Duplicate(form); name != "" {
		return mandate.Invalid(name, "is given twice")
	}
	to := form.Get("to")
	if pages[to] == "" {
		return mandate.Invalid("to", "is none of this site’s pages")
	}
	tenant, err := mandate.ParseTenantID(strings.TrimSpace(form.Get("tenant")))
	if err != nil {
		return p.signInForm(w, http.StatusBadRequest, to, "That is not a tenant ID. One looks like 11111111-2222-3333-4444-555555555555.")
	}
	app, err := p.chosen(form.Get("application"))
	if err != nil {
		return err
	}
	partner, err := p.cfg.People.Partner(r.Context(), app.Cloud.Name, app.ID, tenant)
	if errors.Is(err, mandate.ErrUnknownPartner) {
		return p.signInForm(w, http.StatusNotFound, to, "No organisation with this tenant ID was ever invited to "+app.Name+".")
	}
	if err != nil {
		return err
	}
	inv := Invitation{Partner: partner}
	proof, err := p.cfg.Transactions.Begin(r.Context(), Start{
		Invitation: inv, SignIn: true, To: to, Authority: app.Cloud.Authority, RedirectURI: p.redirectURI(app.Cloud.Name),
	})
	if err != nil {
		return err
	}
	return p.leave(w, app, &inv, proof, p.hint(r, partner), true)
}

// hint returns the user name of whoever is signed in already for that partner,
// to be filled in.
func (p *Portal) hint(r *http.Request, partner mandate.Partner) string {
	if who, err := p.person(r); err == nil && who.Partner.Key == partner.Key {
		return who.UserName
	}
	return ""
}

// chosen returns the application that a form names, or the only one.
func (p *Portal) chosen(name string) (*Application, error) {
	for k, a := range p.apps {
		if name == "" && len(p.apps) == 1 || name == k.cloud+"/"+k.id.String() {
			return a, nil
		}
	}
	return nil, mandate.Invalid("application", "is not one of this site’s")
}

// signIn makes a session of a sign-in that came back, or writes into o why
// there is none.
func (p *Portal) signIn(r *http.Request, tx *Transaction, proof Proof, code mandate.Secret, o *Outcome) mandate.Secret {
	if p.cfg.People == nil {
		o.Refused = refused(&mandate.Refusal{Reason: mandate.ReasonSiteProblem})
		return mandate.Secret{}
	}
	secret, err := p.cfg.People.SignIn(r.Context(), SignIn{
		Partner: tx.Partner, Code: code, Verifier: proof.Verifier, RedirectURI: tx.RedirectURI, Nonce: proof.Nonce, Began: tx.Began, Address: address(r),
	})
	if err == nil && !secret.IsZero() {
		return secret
	}
	var refusal *mandate.Refusal
	if !errors.As(err, &refusal) {
		refusal = &mandate.Refusal{Reason: mandate.ReasonSiteProblem, Err: err}
	}
	p.logRefusal(r, refusal, err)
	o.Refused = refused(refusal)
	return mandate.Secret{}
}

// showSignInRefused says why somebody was not signed in.
func (p *Portal) showSignInRefused(w http.ResponseWriter, o Outcome) error {
	m := message{Title: "You were not signed in", Ref: o.Request, Text: []string{
		"Something about Microsoft’s answer was not in order, so nobody was signed in. Try again; if it happens again, give the reference below to the provider of the application.",
	}}
	if o.Refused != nil && o.Refused.Reason == mandate.ReasonRole {
		m.Title, m.Text = noAccess.Title, noAccess.Text
	} else if o.Refused != nil && signInWords[o.Refused.Reason] != "" {
		m.Text = []string{signInWords[o.Refused.Reason], "Nothing was changed. To try again, open the sign-in page of this site."}
	}
	return p.message(w, http.StatusForbidden, m)
}

// signOut ends the session that the browser shows.
func (p *Portal) signOut(w http.ResponseWriter, r *http.Request) error {
	if secret, ok := session(r); ok {
		if err := p.cfg.People.End(r.Context(), secret); err != nil {
			return err
		}
	}
	http.SetCookie(w, sessionCookie("", -time.Second))
	return p.message(w, http.StatusOK, signedOut)
}

// person returns who has signed in. The error wraps
// [mandate.ErrUnauthenticated].
func (p *Portal) person(r *http.Request) (Person, error) {
	secret, ok := session(r)
	if !ok {
		return Person{}, mandate.ErrUnauthenticated
	}
	who, err := p.cfg.People.Session(r.Context(), secret)
	if err == nil && !who.may(mandate.PartnerViewer) {
		return Person{}, mandate.ErrUnauthenticated
	}
	return who, err
}

// form adds a page with a form that posts to the same address.
func (p *Portal) form(mux *http.ServeMux, path string, get, post func(http.ResponseWriter, *http.Request, Person) error) {
	for method, do := range map[string]func(http.ResponseWriter, *http.Request, Person) error{"GET": get, "POST": post} {
		mux.Handle(method+" "+path, web.Page(p.cfg.Log, p.fail, p.limited(p.signedIn(strings.TrimPrefix(path, "/partner/"), do))))
	}
	mux.Handle(path, web.Page(p.cfg.Log, p.fail, func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("Allow", "GET, POST")
		return p.message(w, http.StatusMethodNotAllowed, wrongMethod)
	}))
}

// signedIn lets whoever has signed in and may look do something. Others are
// shown where to sign in, or why it is not known whether they may.
func (p *Portal) signedIn(to string, do func(http.ResponseWriter, *http.Request, Person) error) web.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		who, err := p.person(r)
		var refusal *mandate.Refusal
		switch {
		case errors.Is(err, mandate.ErrUnauthenticated):
			if pages[to] == "" { // a download: nobody must take the form for it
				return p.signInForm(w, http.StatusForbidden, "", "")
			}
			status := http.StatusOK
			if r.Method != http.MethodGet {
				status = http.StatusForbidden
			}
			return p.signInForm(w, status, to, "")
		case errors.As(err, &refusal) && refusal.Reason == mandate.ReasonRoleUnknown:
			p.logRefusal(r, refusal, err)
			m := roleUnknown
			m.Ref = web.RequestID(r.Context())
			return p.message(w, http.StatusForbidden, m)
		case err != nil:
			return err
		}
		return do(w, r, who)
	}
}
