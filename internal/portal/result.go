package portal

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/web"
)

// A frame is what base.html needs for every page.
type frame struct {
	Title     string
	CSS, Icon string
	Emulated  bool
	Body      any
}

// show renders a page inside the frame.
func (p *Portal) show(w http.ResponseWriter, status int, page, title string, body any) error {
	return p.pages.Render(w, status, page, frame{title, p.css.Path, p.icon.Path, p.cfg.Emulated, body})
}

// result shows how a sign-in ended, to the browser that signed in.
func (p *Portal) result(w http.ResponseWriter, r *http.Request) error {
	proof, err := p.proof(r, r.PathValue("id"))
	if errors.Is(err, ErrTransaction) {
		return p.message(w, http.StatusNotFound, otherBrowser)
	}
	if err != nil {
		return err
	}
	o, err := p.cfg.Outcomes.Outcome(r.Context(), proof)
	if errors.Is(err, mandate.ErrNotFound) {
		return p.message(w, http.StatusNotFound, otherBrowser)
	}
	if err != nil {
		return err
	}
	return p.showOutcome(w, o)
}

func (p *Portal) showOutcome(w http.ResponseWriter, o Outcome) error {
	if o.SignIn {
		return p.showSignInRefused(w, o)
	}
	if o.Receipt == nil {
		return p.showRefusal(w, http.StatusOK, o)
	}
	app, err := p.application(o.Partner.Key)
	if err != nil {
		return err
	}
	return p.show(w, http.StatusOK, "receipt", "Consent given", &receiptPage{o, app, p.cfg.People != nil})
}

// A receiptPage is what a partner keeps of a consent.
type receiptPage struct {
	Outcome
	App   *Application
	Pages bool // there are pages of the partner's own
}

// A Proven is one fact about MFA and where it comes from.
type proven struct{ Fact, Source string }

// MFA lists the evidence as facts, and claims no more than they say.
func (p *receiptPage) MFA() []proven {
	e := p.Receipt.Evidence
	var facts []proven
	if e.PartnerCenter {
		facts = append(facts, proven{"MFA confirmed", "Partner Center, on your own token"})
	}
	for _, t := range e.AMR {
		facts = append(facts, proven{"Signed in by " + methodNames(t.Methods), p.tokenName(t.Token)})
	}
	if e.AuthTime.IsZero() {
		return append(facts, proven{"MFA proven, time not proven", "no token says when you proved it"})
	}
	return append(facts, proven{"Signed in at " + when(e.AuthTime), "ID token"})
}

func (p *receiptPage) tokenName(token string) string {
	if token == "id_token" {
		return "ID token"
	}
	return "access token for " + p.App.apiName(mandate.Audience(token))
}

// API names an audience of the receipt.
func (p *receiptPage) API(a mandate.Audience) string { return p.App.apiName(a) }

// Duration is how long the consent lasts from now on.
func (p *receiptPage) Duration() string { return lasting(p.Receipt.Until.Sub(p.Receipt.Consented)) }

// A message is a page with a heading and a few sentences.
type message struct {
	Title string
	Text  []string
	Ref   string // id of the request, for somebody who asks for help
}

var (
	nothingHere = message{Title: "There is nothing here", Text: []string{
		"If you came by a link, check that you opened the whole of it: some mail programs break long links in two.",
	}}
	wrongMethod = message{Title: "This page does not work that way", Text: []string{
		"Microsoft's sign-in page sends its answer here by itself; opening or reloading this address by hand does nothing. Nothing was changed.",
		"Open your invitation link again to start over.",
	}}
	crossOrigin = message{Title: "This request came from another site", Text: []string{
		"To protect you, this site accepts its forms only from its own pages. Nothing was changed.",
		"Open your invitation link and press the button there. If you did exactly that, update your browser or try another one: very old ones do not say where a form comes from.",
	}}
	otherBrowser = message{Title: "This result is shown only in the browser that signed in", Text: []string{
		"The result of a sign-in can be seen for one hour, and only in the browser in which it took place. This browser has no proof that it was this one, or the hour is over, or the sign-in has not come back from Microsoft yet.",
		"If you gave consent, the company that invited you can tell you whether it arrived. If you did not finish, open your invitation link again.",
	}}
)

func (p *Portal) message(w http.ResponseWriter, status int, m message) error {
	return p.show(w, status, "message", m.Title, m)
}

// fail is the page of an error that ended a request.
func (p *Portal) fail(w http.ResponseWriter, r *http.Request, e web.Problem) error {
	m := message{Title: "Something went wrong on this site", Ref: e.RequestID, Text: []string{
		"This is not your doing. Nothing was stored halfway. Try again in a few minutes; if it stays, send the reference below to the company that invited you.",
	}}
	switch {
	case e.Status == http.StatusTooManyRequests:
		m.Title, m.Text = "Too many requests", []string{
			"There were too many requests from your network, or too many sign-ins are waiting to come back. Nothing is lost: wait " + lastingSeconds(e.RetryAfter) + " and try again.",
		}
	case e.Status == http.StatusServiceUnavailable:
		m.Title, m.Text = "Not available at the moment", []string{
			"This site cannot reach its records, and does nothing without them. Try again in a few minutes.",
		}
	case e.Status < 500 && strings.HasPrefix(r.URL.Path, "/partner"):
		m.Title, m.Text = "That choice does not exist", []string{"The field “" + e.Field + "” " + e.Reason + ".", "Go back, or open the page anew, and choose again."}
	case e.Status < 500:
		m.Title, m.Text = "This form was not complete", []string{
			"The field “" + e.Field + "” " + e.Reason + ".", "Open your invitation link again and press the button there.",
		}
	}
	return p.message(w, e.Status, m)
}

func lastingSeconds(n int64) string {
	if n < 60 {
		return "a minute"
	}
	return (time.Duration(n) * time.Second).String()
}
