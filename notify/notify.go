// Package notify tells people what they may not have wanted: that somebody
// else consented, that a consent was withdrawn, that the glass was broken.
//
// A notice is first of all a row in the database, written before the act that
// it is about is done; an [Outbox] that runs delivers it by mail, by a webhook,
// or both, at least once, whichever replica gets to it, and tries for three
// days. Its text is made when it is sent, of what happened and of names that
// were made fit to show. It holds no secret and no link: whoever reads it can do
// nothing with it, and whoever forges one can ask for nothing.
package notify

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Schema is the tables of an [Outbox], with which the database must be opened.
func Schema() database.Schema { return database.Schema{Package: "notify", Files: migrations} }

// Tables returns what moves to another database: every notice, and what became
// of it.
func Tables() []database.Table {
	return []database.Table{
		{Name: "notices", Order: "id", Columns: []string{"id", "kind", "key", "partner", "content", "created", "settled"}},
		{Name: "notice_deliveries", Order: "notice, way, address", Columns: []string{"notice", "way", "address", "state", "attempts", "due", "ends", "claim", "fault", "changed"}},
	}
}

const (
	// Term is how long a notice is tried to be delivered.
	Term = 72 * time.Hour

	// hold is after what time an announced notice goes out whose act nobody
	// has settled: longer than any act takes.
	hold = 10 * time.Minute

	// keep is how long a notice is kept that nobody is to be told of any more.
	keep = 90 * 24 * time.Hour

	// maxWaiting bounds the deliveries that wait, and maxOfPartner those that
	// are about one partner.
	maxWaiting   = 10_000
	maxOfPartner = 1_000

	// maxTold bounds how many addresses one notice goes to.
	maxTold = 50
)

// A Directory knows whom a partner wants to be told.
type Directory interface {
	// Contacts returns a partner's name and its contacts. Of a partner that
	// is not known it returns neither.
	Contacts(mandate.GrantKey) (name string, contacts []mandate.MailAddress, err error)
}

// A Way carries messages to people; [Mail] and [Webhook] are two.
type Way interface {
	// Send hands a message over. When it returns nil somebody else has it; an
	// error is text for operators, without a secret in it.
	Send(context.Context, Message) error
}

// Config is whom an [Outbox] tells, and how.
type Config struct {
	DB        *database.DB // opened with [Schema]
	Directory Directory    // required
	Operators []mandate.MailAddress
	Mail      Way // to each address by itself; nil sends no mail
	Webhook   Way // to one place, for all addresses; nil has none
	Writer    Writer

	// Record takes a record of each delivery, and of each that is given up.
	Record mandate.Recorder
	Epoch  mandate.Epoch

	// Log takes what goes wrong. Nil discards it.
	Log *slog.Logger
}

// An Outbox keeps notices and delivers them. It is a [mandate.Notifier]. Its
// methods may be called concurrently. Their errors wrap
// [mandate.ErrUnavailable] if the database did not answer.
type Outbox struct{ cfg Config }

// New returns an outbox. It delivers while [Outbox.Run] runs.
func New(cfg Config) (*Outbox, error) {
	if cfg.DB == nil || cfg.Directory == nil || cfg.Record == nil || cfg.Epoch == nil {
		return nil, errors.New("notify.New: DB, Directory, Record and Epoch are required")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Outbox{cfg}, nil
}

// content is what is stored of a notice.
type content struct {
	mandate.Notice
	To []mandate.MailAddress `json:"to"`
}

// Notify implements [mandate.Notifier].
func (o *Outbox) Notify(ctx context.Context, n mandate.Notice) error {
	if n.Key == "" {
		n.Key = newID()
	}
	if err := o.put(ctx, n, true); err != nil {
		return fmt.Errorf("notify: %w", err)
	}
	o.wake(ctx)
	return nil
}

// Announce implements [mandate.Notifier].
func (o *Outbox) Announce(ctx context.Context, n mandate.Notice) error {
	if n.Key == "" {
		return errors.New("announce: a notice that is to be settled needs a key")
	}
	if err := o.put(ctx, n, false); err != nil {
		return fmt.Errorf("announce: %w", err)
	}
	return nil
}

// Settle implements [mandate.Notifier].
func (o *Outbox) Settle(ctx context.Context, n mandate.Notice, happened bool) error {
	do := o.release
	if !happened {
		do = o.takeBack
	}
	if err := do(ctx, n); err != nil {
		return fmt.Errorf("settle notice: %w", unavailable(err))
	}
	o.wake(ctx)
	return nil
}

// address finds out who is to be told.
func (o *Outbox) address(n mandate.Notice) (content, error) {
	c := content{Notice: fit(n)}
	add := func(all ...mandate.MailAddress) {
		for _, a := range all {
			same := func(b mandate.MailAddress) bool { return strings.EqualFold(string(a), string(b)) }
			if !slices.ContainsFunc(c.To, same) && len(c.To) < maxTold {
				c.To = append(c.To, a)
			}
		}
	}
	if n.Grant != nil && !n.Kind.OperatorsOnly() {
		name, contacts, err := o.cfg.Directory.Contacts(*n.Grant)
		if err != nil {
			return c, err
		}
		if c.Partner == "" {
			c.Partner = name
		}
		add(contacts...)
	}
	for _, s := range n.Also {
		if a, err := mandate.ParseMailAddress(s); err == nil {
			add(a)
		}
	}
	add(o.cfg.Operators...)
	return c, nil
}

// marshal is the stored form.
func (c *content) marshal() (string, error) {
	b, err := json.Marshal(c)
	return string(b), err
}

// unavailable says of an error of the database that it is one.
func unavailable(err error) error {
	if err == nil || errors.Is(err, mandate.ErrNotFound) || errors.Is(err, mandate.ErrInvalid) || errors.Is(err, mandate.ErrRateLimited) || errors.Is(err, mandate.ErrUnavailable) {
		return err
	}
	return fmt.Errorf("%w: %w", mandate.ErrUnavailable, err)
}
