package notify

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/upstream"
)

// A Message is a notice as people read it.
type Message struct {
	ID      string // the same whenever it is sent again
	To      []mandate.MailAddress
	Subject string // one line
	Text    string // plain, in lines of words
	Created time.Time

	Notice    mandate.Notice // what it says
	Uncertain bool           // that what it says has happened
	Emulated  bool
}

// A Writer makes texts. Its fields are shown as they are.
type Writer struct {
	Site     string // where the service is: "https://consent.example.com"
	Contact  string // who is asked for help; "" if nobody is named
	Emulated bool   // everything is of an emulator

	// Application names the application of a grant. Nil names its ID alone.
	Application func(mandate.GrantKey) string
}

// What is in a notice and may come from outside is cut to so many bytes.
const (
	maxName  = 128
	maxWords = 300
)

// fit returns n with everything that may come from outside made fit to show:
// single lines, of a bounded length, in which nothing is followed by a click.
func fit(n mandate.Notice) mandate.Notice {
	n.Partner, n.Who, n.About, n.Before = show(n.Partner, maxName), show(n.Who, maxName), show(n.About, maxWords), show(n.Before, maxName)
	n.Why = show(n.Why, maxWords)
	n.Also = nil // whom it goes to is kept beside it
	return n
}

// show makes one line of s. The colon of a URL is set apart, so that no program
// makes a link of a name that somebody chose.
func show(s string, most int) string {
	return strings.ReplaceAll(upstream.Clean(s, most), "://", ": //")
}

// words are what a kind of notice says: what happened, whose move it is, and
// what to do if it was not them. In each, %A is what it is about, %W who did it,
// %B what was there before, and %P the partner.
type words struct{ subject, happened, move, wrong string }

const (
	revokeIt = "If nobody of yours did this, somebody has that user's account: have an administrator of your tenant end that user's sessions and reset the password now, and tell the service, which can stop everything at once."
	askThem  = "If you did not expect this, ask the service at once: only somebody who runs it can have done it."
	lookUp   = "If none of you did this, somebody has an account on the host or an operator's sign-in: begin with mandate lockdown, and look into the audit log."
)

var texts = map[mandate.NoticeKind]words{
	mandate.NoticeStaged: {
		"a consent waits for a decision",
		"%A consented for %P. That would take the place of the consent of %B, and is not in force: an operator of the service must decide on it.",
		"An operator decides: mandate grant approve, or mandate grant discard. Before, they should ask the partner on a way that they know already, not by answering this.",
		revokeIt,
	},
	mandate.NoticeActivated: {
		"a new consent is in force",
		"The consent of %A for %P is in force now. Before it: %B.",
		"Nobody has to do anything if this was agreed.",
		revokeIt,
	},
	mandate.NoticeRenewed: {
		"the consent was renewed",
		"%A renewed the consent for %P.",
		"Nobody has to do anything.",
		revokeIt,
	},
	mandate.NoticeWithdrawn: {
		"the consent was withdrawn",
		"The consent for %P, of %A, was withdrawn by %W. The service has destroyed its copies, and serves nothing for %P any more.",
		"Only a new consent brings %P back. What Entra still accepts, an administrator of the partner ends: Entra admin center, Enterprise applications.",
		"If nobody of yours wanted this, tell the service: nothing can be undone, and somebody has an account that they should not have.",
	},
	mandate.NoticeDiscarded: {
		"a consent was not accepted",
		"The consent of %A for %P, which waited for a decision, was discarded by %W. What was in force before stays as it is.",
		"Whoever consented can ask the operators why.",
		askThem,
	},
	mandate.NoticeRolledBack: {
		"the consent before is in force again",
		"The consent for %P was rolled back by %W to the one before, of %A. The later one is destroyed here.",
		"Nobody has to do anything if this was agreed. For something else than was consented to before, the partner renews.",
		askThem,
	},
	mandate.NoticeGlass: {
		"the glass was broken",
		"%W did at the socket what takes an operator who has signed in, or was held up otherwise: %A.",
		"An operator looks at what was done, now: mandate audit search.",
		lookUp,
	},
	mandate.NoticeIdentity: {
		"Entra answered for another user",
		"A redemption of the consent of %B for %P was answered for another user. Nothing of it was stored or handed out, and the consent serves nothing while that is so.",
		"An operator suspends the grant (mandate grant suspend) and finds out with the partner what happened to that user; then the partner renews.",
		"This is never expected. The partner's administrator looks at the sign-in log of the user in Entra.",
	},
	mandate.NoticeWanted: {
		"a second person is needed",
		"%W wants: %A.",
		"Another operator looks at it and says yes or no: mandate approval list.",
		lookUp,
	},
	mandate.NoticeApproved: {
		"a second person said yes",
		"%W approved: %A.",
		"Nobody has to do anything.",
		lookUp,
	},
	mandate.NoticeContacts: {
		"who is told has changed",
		"The addresses that are told what happens to the consent for %P were changed by %W: %A. Everybody who was told before is told this, too.",
		"Nobody has to do anything if this was agreed.",
		askThem,
	},
	mandate.NoticePeople: {
		"who may use the partner's pages has changed",
		"What somebody of %P may do on the partner's pages was changed by %W: %A.",
		"Nobody has to do anything if this was agreed.",
		askThem,
	},
	mandate.NoticeFailing: {
		"a consent is failing",
		"The consent of %A for %P cannot be kept alive.",
		"If it says so below, the partner renews it, on an invitation of an operator's (mandate partner invite); else an operator looks at it: mandate grant show.",
		"Until then requests for this partner fail; a consent that nobody redeems lapses in the end.",
	},
	mandate.NoticeRecovered: {
		"a consent works again",
		"The consent of %A for %P is kept alive again.",
		"Nobody has to do anything.",
		"You were told before that it was failing; that is over.",
	},
}

// message writes what people read. What is stored was made fit already; whoever
// can write the database shall have no other lines sent in our name.
func (w Writer) message(s stored) Message {
	n := fit(s.content.Notice)
	s.content.Notice = n
	t := texts[n.Kind]
	say := strings.NewReplacer("%A", cmp.Or(n.About, "an unknown user"), "%W", known(n.Who),
		"%B", cmp.Or(n.Before, "none"), "%P", cmp.Or(n.Partner, "the partner")).Replace
	m := Message{Created: s.created, Notice: n, Uncertain: !s.settled, Emulated: w.Emulated}
	m.Subject = cmp.Or(t.subject, string(n.Kind))
	if n.Partner != "" {
		m.Subject = n.Partner + ": " + m.Subject
	}
	if w.Emulated {
		m.Subject = "[emulator] " + m.Subject
	}
	paragraphs := []string{say(t.happened)}
	if m.Uncertain {
		paragraphs = append(paragraphs, "This was begun, and the server did not get to say whether it was completed. Look before you rely on either.")
	}
	if n.Why != "" {
		paragraphs = append(paragraphs, "Reason: "+n.Why)
	}
	paragraphs = append(paragraphs, say(t.move), say(t.wrong), w.facts(s), w.foot())
	m.Text = strings.Join(paragraphs, "\n\n") + "\n"
	return m
}

// known is who did something, in words: an account of the host, or an object
// ID, is nobody whom people know.
func known(who string) string {
	switch {
	case who == "":
		return "the service"
	case strings.HasPrefix(who, "uid:") || strings.HasPrefix(who, "oid:"):
		return "an operator of the service (" + who + ")"
	}
	return who
}

// facts are the particulars, one a line.
func (w Writer) facts(s stored) string {
	n := s.content.Notice
	lines := []string{"When: " + moment(s.created)}
	if n.Who != "" {
		lines = append(lines, "By: "+known(n.Who))
	}
	if !n.Until.IsZero() {
		lines = append(lines, "Until: "+moment(n.Until))
	}
	if n.Partner != "" {
		lines = append(lines, "Partner: "+n.Partner)
	}
	if k := n.Grant; k != nil {
		lines = append(lines, "Tenant: "+k.Partner.String())
		application := k.Application.String()
		if w.Application != nil {
			application = strings.TrimSpace(show(w.Application(*k), maxName) + " " + application)
		}
		lines = append(lines, "Application: "+application)
	}
	if n.Generation > 0 {
		lines = append(lines, fmt.Sprintf("Generation: %d", n.Generation))
	}
	return strings.Join(append(lines, "Notice: "+s.id), "\n")
}

func (w Writer) foot() string {
	foot := "Sent by the consent service at " + w.Site + ". It never asks for a password, and nothing happens by answering."
	if w.Emulated {
		foot += " Everything here is of an emulator."
	}
	if w.Contact != "" {
		foot += " Questions: " + w.Contact
	}
	return foot
}

func moment(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }
