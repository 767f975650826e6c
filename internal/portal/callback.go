package portal

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/web"
)

// finishWithin is how long a sign-in that came back may take to become a
// grant, whether or not its browser waits.
const finishWithin = 90 * time.Second

// callback accepts Entra's answer, once.
//
// Nothing about the answer is looked at until it is known whose sign-in it
// is; then the sign-in is consumed, and only then is the answer judged. So no
// answer can be tried twice, and one that is malformed is used up too.
func (p *Portal) callback(cloud string) web.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		form, err := web.ReadForm(w, r)
		if err != nil {
			return p.refuse(w, r, http.StatusBadRequest, &mandate.Refusal{Reason: mandate.ReasonUnacceptable, Err: err})
		}
		if r.URL.RawQuery != "" || len(form["state"]) > 1 {
			return p.refuse(w, r, http.StatusBadRequest, &mandate.Refusal{Reason: mandate.ReasonUnacceptable, Detail: "state twice, or a query"})
		}
		proof, err := p.returned(r, form.Get("state"))
		if err == nil {
			err = p.finish(w, r, cloud, proof, form)
		}
		if !errors.Is(err, ErrTransaction) {
			return err
		}
		return p.refuse(w, r, http.StatusBadRequest, &mandate.Refusal{Reason: mandate.ReasonTransaction, Err: err})
	}
}

// returned returns the proof of the sign-in that state names, if this browser
// began it.
func (p *Portal) returned(r *http.Request, got string) (Proof, error) {
	id, value, _ := strings.Cut(got, ".")
	if id == "" || value == "" {
		return Proof{}, fmt.Errorf("no state: %w", ErrTransaction)
	}
	proof, err := p.proof(r, id)
	if err != nil {
		return Proof{}, err
	}
	if subtle.ConstantTimeCompare([]byte(got), []byte(state(proof))) == 0 {
		return Proof{}, fmt.Errorf("wrong state: %w", ErrTransaction)
	}
	return proof, nil
}

// finish consumes the sign-in, judges the answer, and sends the browser to a
// URL without either. The error wraps [ErrTransaction] if this sign-in may not
// come back, or not again.
func (p *Portal) finish(w http.ResponseWriter, r *http.Request, cloud string, proof Proof, form url.Values) error {
	tx, err := p.cfg.Transactions.Consume(r.Context(), proof)
	if err != nil {
		return fmt.Errorf("consume sign-in: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), finishWithin)
	defer cancel()
	r = r.WithContext(ctx)
	o := Outcome{Partner: tx.Partner, User: tx.User, Time: time.Now().UTC().Truncate(time.Second), Request: web.RequestID(ctx)}
	var session mandate.Secret
	o.SignIn, o.Renewal = tx.SignIn, tx.Renewal
	switch code, refusal := p.answer(cloud, &tx, form); {
	case refusal != nil:
		p.record(r, tx.Partner, refusal)
		o.Refused = refused(refusal)
	case tx.SignIn:
		session = p.signIn(r, &tx, proof, code, &o)
	default:
		p.consent(r, &tx, proof, code, &o)
	}
	if !session.IsZero() {
		http.SetCookie(w, proofCookie(proof, -time.Second, http.SameSiteLaxMode))
		http.SetCookie(w, sessionCookie(session.Reveal(), sessionLife))
		http.Redirect(w, r, pages[tx.To], http.StatusSeeOther)
		return nil
	}
	http.SetCookie(w, proofCookie(proof, time.Hour, http.SameSiteLaxMode))
	if err := p.cfg.Outcomes.Finish(ctx, proof.ID, o); err != nil {
		// The sign-in has ended all the same; its result must not be lost.
		p.cfg.Log.ErrorContext(ctx, "outcome not stored", "request_id", o.Request, "err", err)
		return p.showOutcome(w, o)
	}
	http.Redirect(w, r, "/consent/"+proof.ID, http.StatusSeeOther)
	return nil
}

// answer returns the authorization code in Entra's answer, or why there is
// none to redeem.
func (p *Portal) answer(cloud string, tx *Transaction, form url.Values) (mandate.Secret, *mandate.Refusal) {
	none := mandate.Secret{}
	if app, err := p.application(tx.Partner.Key); err != nil || tx.Authority != app.Cloud.Authority || tx.RedirectURI != p.redirectURI(cloud) {
		return none, &mandate.Refusal{Reason: mandate.ReasonTransaction, Detail: "the sign-in began at another authority, or its answer belongs to another address"}
	}
	if name := web.Duplicate(form); name != "" {
		return none, &mandate.Refusal{Reason: mandate.ReasonUnacceptable, Detail: fmt.Sprintf("%.40q is there twice", name)}
	}
	for _, name := range []string{"id_token", "access_token"} {
		if form.Has(name) {
			return none, &mandate.Refusal{Reason: mandate.ReasonUnacceptable, Detail: name + " in the answer"}
		}
	}
	if form.Has("error") {
		return none, p.errorAnswer(form)
	}
	code := form.Get("code")
	if code == "" {
		return none, &mandate.Refusal{Reason: mandate.ReasonEntra, Detail: "neither code nor error in the answer"}
	}
	return mandate.NewSecret(code), nil
}

// errorAnswer reads an error that Entra posted back.
func (p *Portal) errorAnswer(form url.Values) *mandate.Refusal {
	if form.Get("error") == "" || form.Has("code") {
		return &mandate.Refusal{Reason: mandate.ReasonUnacceptable, Detail: "error beside a code, or empty"}
	}
	if r := p.cfg.Callback(form.Get("error"), form.Get("error_description")); r != nil {
		return r
	}
	return &mandate.Refusal{Reason: mandate.ReasonEntra, Detail: fmt.Sprintf("error %.80q", form.Get("error"))}
}

// consent makes a grant out of the code and writes into o how that ended.
func (p *Portal) consent(r *http.Request, tx *Transaction, proof Proof, code mandate.Secret, o *Outcome) {
	grant, record, err := p.cfg.Consenter.Consent(r.Context(), mandate.Consent{
		Partner: tx.Partner, User: tx.User, Began: tx.Began, Until: tx.Until, Audiences: tx.Audiences, Compromised: tx.Compromised, Renewal: tx.Renewal,
		Code: code, Verifier: proof.Verifier, RedirectURI: tx.RedirectURI, Nonce: proof.Nonce,
		Address: address(r),
	})
	if err == nil {
		o.Receipt = receipt(grant, record)
		return
	}
	var refusal *mandate.Refusal
	if !errors.As(err, &refusal) {
		refusal = &mandate.Refusal{Reason: mandate.ReasonSiteProblem, Err: err}
	}
	p.logRefusal(r, refusal, err)
	o.Refused = refused(refusal)
}

// record hands a refusal that nobody else knows of to the record. If it
// cannot be recorded it is a refusal still.
func (p *Portal) record(r *http.Request, partner mandate.Partner, refusal *mandate.Refusal) {
	err := p.cfg.Consenter.Refuse(r.Context(), partner, refusal, address(r))
	if err == nil {
		err = refusal
	}
	p.logRefusal(r, refusal, err)
}

// logRefusal logs err, which is the refusal or more than it. More is a fault
// of this site, and so are the two reasons that say so.
func (p *Portal) logRefusal(r *http.Request, refusal *mandate.Refusal, err error) {
	log := p.cfg.Log.InfoContext
	if err != error(refusal) || refusal.Reason == mandate.ReasonSiteProblem || refusal.Reason == mandate.ReasonApplication {
		log = p.cfg.Log.ErrorContext
	}
	log(r.Context(), "consent refused", "request_id", web.RequestID(r.Context()), "reason", refusal.Reason, "err", err)
}
