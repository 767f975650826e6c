package portal

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/web"
)

// An act is something that people of a partner do with its grant. It needs a
// role, a sign-in of just now, a grant, and the partner's name typed.
type act struct {
	page string // a key of pages, and its template
	role string
	what string // for a sentence: "renew"
}

var (
	renewing    = act{"renew", mandate.PartnerRenewer, "renew"}
	withdrawing = act{"withdraw", mandate.PartnerWithdrawer, "withdraw"}
)

// An actPage asks for the confirmation of an act.
type actPage struct {
	*partnerPage
	Act         string // what for a sentence
	To          string // of the sign-in that is too old, to come back from
	Wrong       string // with what was typed
	EndSessions bool   // as it was chosen
	Until       time.Time
	Term        string
	APIs        []apiGroup
}

// ready shows why somebody cannot do an act now, or returns what its page
// says. It returns nil if there is nothing more to do.
func (p *Portal) ready(w http.ResponseWriter, r *http.Request, who Person, a act) (*actPage, error) {
	app, err := p.application(who.Partner.Key)
	if err != nil {
		return nil, err
	}
	if !who.may(a.role) {
		return nil, p.message(w, http.StatusForbidden, a.notAllowed(app))
	}
	page := &actPage{partnerPage: &partnerPage{Person: who, App: app, Now: time.Now()}, Act: a.what, To: a.page}
	if !who.fresh(page.Now) {
		return nil, p.show(w, http.StatusForbidden, "again", "Sign in once more", page)
	}
	page.Grant, page.Used, err = p.cfg.Records.Grant(r.Context(), who.Partner.Key)
	if page.Given = err == nil; !page.Given && !errors.Is(err, mandate.ErrNotFound) {
		return nil, err
	}
	if !page.Held() {
		return nil, p.message(w, http.StatusConflict, a.nothing(page))
	}
	return page, nil
}

// Held reports whether there is something to renew or withdraw.
func (p *partnerPage) Held() bool {
	return p.Given && (p.Grant.State == mandate.StateActive || p.Grant.State == mandate.StateSuspended)
}

func (a act) notAllowed(app *Application) message {
	return message{Title: "You may look, and not " + a.what, Text: []string{
		"Your account may see what was done with the consent. To " + a.what + " it, your account must be an Admin agent of your organisation, or have been given the role “" + a.role + "” by " + app.Publisher + ".",
		"Nothing was changed.",
	}}
}

// nothing says that there is no grant to act on: it may have been withdrawn a
// moment ago, by a second press of the same button.
func (a act) nothing(p *actPage) message {
	m := message{Title: "There is nothing to " + a.what, Text: []string{
		p.Person.Partner.DisplayName + " has no consent that is in use. Nothing was changed.",
		"To begin again, ask " + p.App.Publisher + " for an invitation.",
	}}
	if p.Given && p.Grant.State == mandate.StateWithdrawn {
		m.Text[0] = "The consent of " + p.Person.Partner.DisplayName + " is withdrawn already. Nothing more was changed."
	}
	return m
}

// confirmed reads the form of an act. Whoever did not type the partner's name
// is asked again.
func (p *Portal) confirmed(w http.ResponseWriter, r *http.Request, a act, page *actPage, title string) (url.Values, error) {
	form, err := web.ReadForm(w, r)
	if err != nil {
		return nil, err
	}
	if name := web.Duplicate(form); name != "" {
		return nil, mandate.Invalid(name, "is given twice")
	}
	if strings.TrimSpace(form.Get("confirm")) == page.Person.Partner.Name {
		return form, nil
	}
	page.Wrong, page.EndSessions = "That is not “"+page.Person.Partner.Name+"”. Nothing was changed.", form.Get("end_sessions") != ""
	return nil, p.show(w, http.StatusBadRequest, a.page, title, page)
}

// withdrawWithin bounds the answer to a withdrawal: Microsoft is asked more
// than once whether it refuses the key.
const withdrawWithin = 4 * time.Minute

// takes gives an answer more time than others have.
func takes(w http.ResponseWriter, d time.Duration) error {
	err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(d))
	if errors.Is(err, http.ErrNotSupported) {
		return nil // there is no limit then
	}
	return err
}

const renewTitle, withdrawTitle = "Renew your consent", "Withdraw your consent"

// renewForm asks for the confirmation of a renewal.
func (p *Portal) renewForm(w http.ResponseWriter, r *http.Request, who Person) error {
	page, err := p.ready(w, r, who, renewing)
	if page == nil {
		return err
	}
	page.renewal()
	return p.show(w, http.StatusOK, renewing.page, renewTitle, page)
}

// renewal says what a renewal would bring: as much time as the last consent.
func (p *actPage) renewal() {
	term := p.term()
	p.Until, p.Term, p.APIs = p.Now.Add(term).Truncate(time.Minute), lasting(term), p.App.groups()
}

// term is for how long the consent that is there was given. What is lost
// between reading the page and consenting, which is minutes, is not lost again
// with each renewal.
func (p *actPage) term() time.Duration {
	term := p.Grant.Until.Sub(p.Grant.Consented)
	return (term + time.Hour - 1).Truncate(time.Hour)
}

// renew sends whoever confirmed it to consent again, as the same user.
func (p *Portal) renew(w http.ResponseWriter, r *http.Request, who Person) error {
	page, err := p.ready(w, r, who, renewing)
	if page == nil {
		return err
	}
	page.renewal()
	form, err := p.confirmed(w, r, renewing, page, renewTitle)
	if form == nil {
		return err
	}
	until, err := agreed(form.Get("until"), page.term())
	if err != nil {
		return err
	}
	if err := p.cfg.Grants.Renew(r.Context(), who, address(r)); err != nil {
		return err
	}
	inv := Invitation{Partner: who.Partner, User: who.User.Object.String()}
	proof, err := p.cfg.Transactions.Begin(r.Context(), Start{
		Invitation: inv, Renewal: true, Authority: page.App.Cloud.Authority, RedirectURI: p.redirectURI(page.App.Cloud.Name),
		Until: until, Audiences: page.App.Audiences,
	})
	if err != nil {
		return err
	}
	return p.leave(w, page.App, &inv, proof, who.UserName, false)
}

// withdrawForm asks for the confirmation of a withdrawal.
func (p *Portal) withdrawForm(w http.ResponseWriter, r *http.Request, who Person) error {
	page, err := p.ready(w, r, who, withdrawing)
	if page == nil {
		return err
	}
	return p.show(w, http.StatusOK, withdrawing.page, withdrawTitle, page)
}

// withdraw withdraws the grant, and shows what came of it. The answer is the
// page itself: pressing the button twice finds nothing to withdraw.
func (p *Portal) withdraw(w http.ResponseWriter, r *http.Request, who Person) error {
	page, err := p.ready(w, r, who, withdrawing)
	if page == nil {
		return err
	}
	form, err := p.confirmed(w, r, withdrawing, page, withdrawTitle)
	if form == nil {
		return err
	}
	if err := takes(w, withdrawWithin); err != nil {
		return err
	}
	report, err := p.cfg.Grants.Withdraw(r.Context(), who, form.Get("end_sessions") != "", address(r))
	if errors.Is(err, mandate.ErrNoGrant) {
		return p.message(w, http.StatusConflict, withdrawing.nothing(page))
	}
	if err != nil && report.Local.Result != mandate.ResultDone {
		return err
	}
	if err != nil {
		// It is withdrawn, and the person must see so; that the report is not
		// on record is for the operator.
		p.cfg.Log.ErrorContext(r.Context(), "the report on a withdrawal is not recorded", "request_id", web.RequestID(r.Context()), "err", err)
	}
	title := "Your consent is withdrawn"
	if report.Revoked {
		title = "Your consent is withdrawn and revoked"
	}
	return p.show(w, http.StatusOK, "withdrawn", title, &withdrawnPage{Report: report, Person: who, App: page.App, Now: page.Now})
}
