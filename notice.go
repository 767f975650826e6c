package mandate

import (
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
	NoticeStaged     NoticeKind = "consent_staged"    // contacts, operators: another consent waits for an operator
	NoticeActivated  NoticeKind = "consent_activated" // contacts, operators: a consent took the place of the one before
	NoticeRenewed    NoticeKind = "consent_renewed"   // contacts, operators: the same user consented again
	NoticeWithdrawn  NoticeKind = "withdrawn"         // contacts, operators: everything of the partner's is destroyed
	NoticeDiscarded  NoticeKind = "consent_discarded" // contacts, operators: a consent that waited was not wanted
	NoticeGlass      NoticeKind = "glass_broken"      // operators: somebody did without signing in what needs it
	NoticeIdentity   NoticeKind = "identity_mismatch" // contacts, operators: Entra answered for another user
	NoticeWanted     NoticeKind = "approval_wanted"   // operators: a second person is to say yes or no
	NoticeApproved   NoticeKind = "approval_given"    // operators: the second person said yes
	NoticeContacts   NoticeKind = "contacts_changed"  // contacts, those before too, operators
	NoticePeople     NoticeKind = "people_changed"    // contacts, operators: who may use the partner's pages
	NoticeFailing    NoticeKind = "grant_failing"     // contacts, operators: a grant is not kept alive, and a person must act
	NoticeRecovering NoticeKind = "grant_recovered"   // contacts, operators: that is over
)

// NoticeKinds are all kinds, in that order.
var NoticeKinds = []NoticeKind{
	NoticeStaged, NoticeActivated, NoticeRenewed, NoticeWithdrawn, NoticeDiscarded, NoticeGlass, NoticeIdentity,
	NoticeWanted, NoticeApproved, NoticeContacts, NoticePeople, NoticeFailing, NoticeRecovering,
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

	Who   string `json:"who,omitempty"`   // who did it, as people know them
	About string `json:"about,omitempty"` // what it was done to, in a few words: a user, an act, an address
	Why   string `json:"why,omitempty"`   // the reason that was given or found

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
	// Unless it is settled before, it goes out in a minute, and says that it
	// is not known whether the act was completed.
	Announce(ctx context.Context, n Notice) error

	// Settle says of an announced notice whether its act happened. Then it goes
	// out at once, or is taken back.
	Settle(ctx context.Context, n Notice, happened bool) error
}

// Tell does something that people are told of, and is [Notifier.Notify] for
// it. The notice is recorded first; if it cannot be, nothing is done. A nil
// Notifier tells nobody.
//
// When do has failed, nobody is told. When do has succeeded and that cannot be
// recorded, the notice goes out a little later, with its doubt; Tell succeeds.
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
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	serr := to.Settle(ctx, n, err == nil)
	if err != nil {
		return errors.Join(err, serr)
	}
	return nil
}
