package mandate

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Sessions ends the sessions of users.
type Sessions interface {
	// EndSessions asks Entra to accept none of the refresh tokens and cookies
	// that the token's user has, for whatever application. The error is a
	// [*Fault], with status 403 if that is not permitted.
	EndSessions(ctx context.Context, key GrantKey, token Secret) error
}

// Issued knows which tokens were handed out.
type Issued interface {
	// Alive returns how many tokens of a grant were handed out that live
	// longer than now, whatever its generation, and when the last of them
	// expires.
	Alive(ctx context.Context, k GrantKey, now time.Time) (n int, until time.Time, err error)
}

// A Result says what became of one part of a withdrawal.
type Result string

// The results.
const (
	ResultDone         Result = "done"
	ResultFailed       Result = "failed"
	ResultNotPermitted Result = "not permitted" // by Microsoft, or by how things are
	ResultNotAsked     Result = "not asked"
)

// A Line is one line of the report on a withdrawal.
type Line struct {
	Result Result    `json:"result"`
	Text   string    `json:"text"` // whole sentences, for people
	Until  time.Time `json:"until,omitzero"`
}

// A Withdrawal reports what withdrawing a grant did and what it could not do.
type Withdrawal struct {
	Generation int64    `json:"generation"` // that was active or suspended; 0 if none was
	User       Identity `json:"user,omitzero"`
	UserName   string   `json:"user_name,omitempty"`

	Local    Line `json:"local"`    // the copy in our own store
	Upstream Line `json:"upstream"` // what Entra would still do with the refresh token
	Tokens   Line `json:"tokens"`   // access tokens that were handed out and are still alive
	Copies   Line `json:"copies"`   // copies that are out of reach

	// Alive is how many of those access tokens there are.
	Alive int `json:"alive"`

	// Revoked is set only if Entra refused the refresh token afterwards. Until
	// then "revoked" is not the word for anything.
	Revoked bool `json:"revoked"`

	Record Receipt `json:"record"` // of this report
}

// refreshLife is how long a refresh token that nobody redeems stays good at
// most.
const refreshLife = 90 * 24 * time.Hour

// probeAfter are the waits before each try to redeem a token that was revoked:
// Entra's parts do not learn of it at the same moment.
var probeAfter = []time.Duration{0, time.Second, 3 * time.Second}

// Withdraw destroys a partner's grant for good. If endSessions, Entra is also
// asked to end the sessions of the user who consented, which signs that user
// out everywhere and of everything.
//
// What is within our reach comes first, so that nothing is served any more
// whatever else fails; the refresh token stays in memory for what comes after.
// The error is nil if the local copy is destroyed; what else failed is in the
// report, which is recorded.
func (b *Broker) Withdraw(ctx context.Context, p Partner, endSessions bool, by By) (Withdrawal, error) {
	ctx = context.WithoutCancel(ctx)
	g, held := b.cfg.Custody.Held(ctx, p.Key)
	w := Withdrawal{Generation: g.Generation, User: g.User, UserName: g.UserName}
	rec := Record{Detail: "withdraw the grant", Generation: g.Generation}
	if held == nil {
		rec.User = &g.User
	}
	if endSessions {
		rec.Detail += ", and end the sessions of who consented"
	}
	n := Notice{Kind: NoticeWithdrawn, Generation: g.Generation, Who: by.who()}
	if held == nil {
		n.About, n.Also = who(g), []string{g.UserName}
	}
	var remnants []Remnant
	if err := b.tell(ctx, p, n, func() error {
		_, err := b.change(ctx, p, by, rec, func() (err error) {
			remnants, err = b.cfg.Custody.Withdraw(ctx, p.Key)
			return err
		})
		return err
	}); err != nil {
		return w, err
	}
	w.Local = Line{Result: ResultDone, Text: "The refresh tokens of all generations are destroyed here, for good. Only a new consent brings the partner back."}
	w.Upstream = b.withdrawUpstream(ctx, &w, g, held, endSessions)
	w.Tokens = b.tokensAlive(ctx, &w, p.Key)
	w.Copies = copiesLeft(&w, g, remnants)
	receipt, err := b.recordWithdrawal(ctx, p, by, &w)
	w.Record = receipt
	return w, err
}

// withdrawUpstream ends sessions if that is asked, and says what Entra would
// still do with the refresh token.
func (b *Broker) withdrawUpstream(ctx context.Context, w *Withdrawal, g Grant, held error, endSessions bool) Line {
	const byPartner = " An administrator of the partner ends that by removing the application's consent, or its service principal, from their tenant: Entra admin center, Enterprise applications."
	switch {
	case !endSessions:
		return Line{ResultNotAsked, "Entra was told nothing, and would go on accepting the token that was destroyed here if somebody else had it." + byPartner, lapse(g)}
	case held != nil:
		return Line{ResultFailed, "The stored token could not be opened, so that nothing could be asked of Entra with it: " + said(held) + "." + byPartner, lapse(g)}
	case b.cfg.Sessions == nil || len(g.Audiences) < 2:
		return Line{ResultNotPermitted, "This server has no way to end sessions with this grant." + byPartner, lapse(g)}
	}
	if err := b.endSessions(ctx, g); err != nil {
		var f *Fault
		if refusesToken(err) {
			w.Revoked = true
			return Line{ResultDone, "Entra refuses the refresh token already: it is revoked or has lapsed. Other sessions of " + who(g) + " were not ended: only a token that is good can ask for that. Entra said: " + said(err), time.Time{}}
		}
		result := ResultFailed
		if errors.As(err, &f) && f.Status == 403 {
			result = ResultNotPermitted
		}
		return Line{result, "The sessions of " + who(g) + " were not ended: " + said(err) + "." + byPartner, lapse(g)}
	}
	ended := "Entra took the request to end the sessions of " + who(g) + "; that user is signed out everywhere."
	refused, err := b.refusedByEntra(ctx, g)
	switch {
	case refused:
		w.Revoked = true
		return Line{ResultDone, ended + " A redemption of the refresh token was refused afterwards: it is revoked. Entra said: " + said(err), time.Time{}}
	case err != nil:
		return Line{ResultFailed, ended + " Whether the refresh token is refused is not known: " + said(err) + ".", lapse(g)}
	}
	return Line{ResultFailed, ended + " But the refresh token was still accepted afterwards; it may take Entra some minutes." + byPartner, lapse(g)}
}

// endSessions redeems the refresh token for Graph, once more and for the last
// time, and asks there.
func (b *Broker) endSessions(ctx context.Context, g Grant) error {
	r, err := b.probeAudience(ctx, &g, g.Audiences[1].Audience)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Timeout)
	defer cancel()
	return b.cfg.Sessions.EndSessions(ctx, g.Key, r.Access)
}

// refusedByEntra redeems the refresh token until Entra refuses it, a few times
// at most. That a policy wants more of a sign-in is no revocation, and neither
// is an Entra that does not answer: then the error says what it is.
func (b *Broker) refusedByEntra(ctx context.Context, g Grant) (bool, error) {
	var last error
	for _, wait := range probeAfter {
		time.Sleep(wait)
		_, err := b.probeAudience(ctx, &g, g.Audiences[0].Audience)
		if refusesToken(err) {
			return true, err
		}
		last = err
	}
	return false, last
}

// refusesToken reports whether err is Entra's word that a refresh token is
// dead.
func refusesToken(err error) bool {
	var f *Fault
	return errors.As(err, &f) && f.Domain == DomainGrant && f.OAuthError == "invalid_grant" && !f.MFA() && !f.ConditionalAccess()
}

// tokensAlive says how many access tokens outlive the grant.
func (b *Broker) tokensAlive(ctx context.Context, w *Withdrawal, k GrantKey) Line {
	if b.cfg.Issued == nil {
		return Line{Result: ResultFailed, Text: "How many access tokens are still alive is not known."}
	}
	n, until, err := b.cfg.Issued.Alive(ctx, k, time.Now())
	switch {
	case err != nil:
		return Line{Result: ResultFailed, Text: "How many access tokens are still alive is not known: " + err.Error() + "."}
	case n == 0:
		return Line{Result: ResultDone, Text: "No access token that was handed out is still alive."}
	}
	w.Alive = n
	return Line{ResultNotPermitted, fmt.Sprintf("%d access token(s) that were handed out stay good until they expire, the last on %s. Nothing takes an access token back.", n, stamp(until)), until}
}

// copiesLeft says what is out of reach, and from when it is harmless.
func copiesLeft(w *Withdrawal, g Grant, remnants []Remnant) Line {
	var text strings.Builder
	text.WriteString("Backups of the database may have the sealed token, which opens with the key alone.")
	last := lapse(g)
	for _, r := range remnants {
		fmt.Fprintf(&text, " Beside them: %s", r.What)
		if !r.Until.IsZero() {
			fmt.Fprintf(&text, " (until %s)", stamp(r.Until))
		}
		text.WriteString(".")
	}
	switch {
	case w.Revoked:
		return Line{ResultDone, text.String() + " They are harmless now, because Entra refuses the token that is in them.", time.Time{}}
	case last.IsZero():
		return Line{Result: ResultNotPermitted, Text: text.String() + " When they are harmless is not known."}
	}
	return Line{ResultNotPermitted, text.String() + " They are harmless from " + stamp(last) + ", when the token has lapsed if nobody redeems it until then, or as soon as Entra refuses it.", last}
}

// lapse is when a refresh token that nobody redeems any more is dead.
func lapse(g Grant) time.Time {
	if g.Redeemed.IsZero() {
		return time.Time{}
	}
	return g.Redeemed.Add(refreshLife)
}

// recordWithdrawal records the report: what was promised to whom is looked for
// there.
func (b *Broker) recordWithdrawal(ctx context.Context, p Partner, by By, w *Withdrawal) (Receipt, error) {
	rec := Record{
		Kind: KindChanged, Caller: by.Caller, Address: by.Address, Ticket: by.Ticket,
		Partner: p.Name, Grant: &p.Key, Generation: w.Generation, Tenant: p.Key.Partner,
		Detail: fmt.Sprintf("withdrawn: local %s, upstream %s, tokens %s (%d alive), copies %s", w.Local.Result, w.Upstream.Result, w.Tokens.Result, w.Alive, w.Copies.Result),
	}
	if w.Revoked {
		rec.Detail += "; revoked at Entra"
	}
	var err error
	if rec.Epoch, err = b.cfg.Epoch.Epoch(); err != nil {
		return Receipt{}, fmt.Errorf("the grant is withdrawn; record report: %w", err)
	}
	receipt, err := b.cfg.Audit.Record(ctx, rec)
	if err != nil {
		return receipt, fmt.Errorf("the grant is withdrawn; record report: %w", err)
	}
	return receipt, nil
}

// said is what Entra or Graph said, if it was one of them, without what was
// put around it for a consent.
func said(err error) string {
	var f *Fault
	if errors.As(err, &f) {
		return f.Error()
	}
	return err.Error()
}

// who names the user of a grant for people.
func who(g Grant) string {
	if g.UserName != "" {
		return g.UserName
	}
	return "user " + g.User.Object.String()
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }
