package mandate

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"
)

// A NoticeKind says what people are told of.
type NoticeKind string

// The kinds of [Notice]. Whom each is for is in its comment: the contacts are
// the partner's, the operators' addresses are in the configuration.
const (
	NoticeStaged     NoticeKind = "consent_staged"      // contacts, operators: another consent waits for an operator
	NoticeActivated  NoticeKind = "consent_activated"   // contacts, operators: a consent took the place of the one before
	NoticeRenewed    NoticeKind = "consent_renewed"     // contacts, operators: the same user consented again
	NoticeWithdrawn  NoticeKind = "withdrawn"           // contacts, operators: everything of the partner's is destroyed
	NoticeDiscarded  NoticeKind = "consent_discarded"   // contacts, operators: a consent that waited was not wanted
	NoticeRolledBack NoticeKind = "consent_rolled_back" // contacts, operators: an operator put the consent before in force again
	NoticeGlass      NoticeKind = "glass_broken"        // operators: somebody did without signing in what needs it
	NoticeIdentity   NoticeKind = "identity_mismatch"   // contacts, operators: Entra answered for another user
	NoticeWanted     NoticeKind = "approval_wanted"     // operators: a second person is to say yes or no
	NoticeApproved   NoticeKind = "approval_given"      // operators: the second person said yes
	NoticeContacts   NoticeKind = "contacts_changed"    // contacts, those before too, operators
	NoticePeople     NoticeKind = "people_changed"      // contacts, operators: who may use the partner's pages
	NoticeFailing    NoticeKind = "grant_failing"       // contacts, operators: a grant is not kept alive, and a person must act
	NoticeRecovered  NoticeKind = "grant_recovered"     // contacts, operators: that is over
)

// NoticeKinds are all kinds, in that order.
var NoticeKinds = []NoticeKind{
	NoticeStaged, NoticeActivated, NoticeRenewed, NoticeWithdrawn, NoticeDiscarded, NoticeRolledBack, NoticeGlass, NoticeIdentity,
	NoticeWanted, NoticeApproved, NoticeContacts, NoticePeople, NoticeFailing, NoticeRecovered,
}

// OperatorsOnly reports whether notices of the kind are none of a partner's
// business.
func (k NoticeKind) OperatorsOnly() bool {
	return k == NoticeGlass || k == NoticeWanted || k == NoticeApproved
}

// A Notice tells people of something that they may not have wanted. It holds
// no secret, no token and no link: whoever can read it can do nothing with it.
// What is in it may come from outside, and is made fit to show where a text is
// made of it.
type Notice struct {
	Kind NoticeKind `json:"kind"`

	// Key tells a notice from others of its kind: what was recorded under
	// (Kind, Key) is not recorded again. Empty means that this is another one.
	Key string `json:"key,omitempty"`

	Partner    string    `json:"partner,omitempty"` // short name; "" if it is about none
	Grant      *GrantKey `json:"grant,omitempty"`
	Generation int64     `json:"generation,omitempty"`

	Who    string `json:"who,omitempty"`    // who did it, as people know them
	About  string `json:"about,omitempty"`  // what it was done to, in a few words: a user, an act, an address
	Before string `json:"before,omitempty"` // who or what was in its place
	Why    string `json:"why,omitempty"`    // the reason that was given or found

	Until time.Time `json:"until,omitzero"` // when what is wanted lapses

	// Also are addresses that are told beside those that the kind names, such
	// as whoever consented before. What is no mail address is left out.
	Also []string `json:"also,omitempty"`
}

// A Notifier tells people. Package notify has one. Its errors wrap
// [ErrUnavailable], and mean that a notice could not be recorded for delivery:
// whether one arrives is known only later, and to whoever lists them.
type Notifier interface {
	// Notify records n for delivery. When it returns nil n survives a crash,
	// and goes out until it is delivered or three days are over.
	Notify(ctx context.Context, n Notice) error

	// Announce records n, which has a Key, for an act that is about to happen.
	// Unless it is settled before, it goes out some minutes later, and says
	// that it is not known whether the act was completed.
	Announce(ctx context.Context, n Notice) error

	// Settle says of an announced notice whether its act happened. Then it goes
	// out at once, or is taken back.
	Settle(ctx context.Context, n Notice, happened bool) error
}

// Tell does something that people are told of, and is [Notifier.Notify] for
// it. The notice is recorded first; if it cannot be, nothing is done. A nil
// Notifier tells nobody.
//
// If do fails nobody is told, unless the error wraps [ErrUnavailable], after
// which it is not certain that nothing was done: then the notice goes out a
// little later, with that doubt. So does one that cannot be settled after do
// has succeeded; Tell succeeds.
func Tell(ctx context.Context, to Notifier, n Notice, do func() error) error {
	if to == nil {
		return do()
	}
	if n.Key == "" {
		n.Key = rand.Text()
	}
	if err := to.Announce(ctx, n); err != nil {
		return fmt.Errorf("record the notice: %w", err)
	}
	err := do()
	if errors.Is(err, ErrUnavailable) {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	_ = to.Settle(ctx, n, err == nil) // else it goes out with its doubt
	return err
}

// tell is [Tell] for p's grant.
func (b *Broker) tell(ctx context.Context, p Partner, n Notice, do func() error) error {
	n.Partner, n.Grant = p.Name, &p.Key
	return Tell(ctx, b.cfg.Notifier, n, do)
}

// installing is the notice that g is about to be activated, or to be staged
// because of objection. Whoever consented before is told, too.
func (b *Broker) installing(ctx context.Context, g *Grant, objection *Refusal, by CallerID) (Notice, error) {
	n := Notice{Kind: NoticeActivated, Generation: g.Generation, Who: string(by), About: who(*g)}
	if b.cfg.Notifier == nil {
		return n, nil
	}
	last, err := b.predecessor(ctx, g.Key)
	if err != nil {
		return n, err
	}
	if last.Generation > 0 {
		n.Before, n.Also = who(last), []string{last.UserName}
	}
	switch {
	case objection != nil:
		n.Kind, n.Why, n.Until = NoticeStaged, objection.why(), g.Fallback
	case last.User == g.User:
		n.Kind = NoticeRenewed
	}
	return n, nil
}

// why is the reason in the words for people, where there are some.
func (r *Refusal) why() string {
	if r.Reason == ReasonSuspended {
		return "the active grant is suspended"
	}
	return cmp.Or(r.Detail, string(r.Reason))
}

// mismatch tells that Entra answered for another user than g's. The refusal
// stands whether or not that can be told.
func (b *Broker) mismatch(ctx context.Context, g *Grant) {
	if b.cfg.Notifier == nil {
		return
	}
	n := Notice{Kind: NoticeIdentity, Key: g.named(), Grant: &g.Key, Generation: g.Generation, Before: who(*g), Also: []string{g.UserName}}
	if err := b.cfg.Notifier.Notify(ctx, n); err != nil {
		b.cfg.Log.Error("nobody is told that Entra answered for another user", "partner", g.Key.Partner, "generation", g.Generation, "err", err)
	}
}

// named is a name for one generation of a grant.
func (g *Grant) named() string {
	return fmt.Sprintf("%s/%s/%s/%d", g.Key.Cloud, g.Key.Application, g.Key.Partner, g.Generation)
}

// tellAfter is how often in a row a grant has not been kept alive when people
// are told: what passes by itself has passed by then.
const tellAfter = 3

// tellAlive tells that g has not been kept alive tellAfter times, by failed,
// or that it was in the end. What was last kept alive at the same moment is
// told once.
func (b *Broker) tellAlive(ctx context.Context, g *Grant, failed error) {
	n := Notice{Kind: NoticeRecovered, Key: fmt.Sprintf("%s/%d", g.named(), g.Redeemed.UnixMilli()), Grant: &g.Key, Generation: g.Generation, About: who(*g), Also: []string{g.UserName}}
	switch {
	case b.cfg.Notifier == nil || failed == nil && g.Failures < tellAfter || failed != nil && g.Failures+1 != tellAfter:
		return
	case failed != nil:
		n.Kind, n.Why = NoticeFailing, failed.Error()
	}
	if err := b.cfg.Notifier.Notify(ctx, n); err != nil {
		b.cfg.Log.Error("nobody is told how a grant is kept alive", "partner", g.Key.Partner, "generation", g.Generation, "kind", n.Kind, "err", err)
	}
}
