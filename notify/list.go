package notify

import (
	"context"
	"fmt"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

// The states of a notice and of a delivery.
const (
	StateAnnounced = "announced" // its act is under way, or nobody knows
	StateWaiting   = "waiting"   // something of it is to be delivered yet
	StateDelivered = "delivered" // everything is delivered
	StateFailed    = "failed"    // something was given up, and nothing waits
	StateKept      = "kept"      // there was no way to deliver it
)

// A Notice is one as operators see it.
type Notice struct {
	ID      string             `json:"id"`
	Kind    mandate.NoticeKind `json:"kind"`
	State   string             `json:"state"`
	Created time.Time          `json:"created"`
	Partner string             `json:"partner,omitempty"`
	Subject string             `json:"subject"`

	// What follows is of [Outbox.Show] only.
	Text       string                `json:"text,omitempty"`
	To         []mandate.MailAddress `json:"to,omitempty"`
	Deliveries []Delivery            `json:"deliveries,omitempty"`
}

// A Delivery is one way to one address.
type Delivery struct {
	Way      string    `json:"way"` // mail, webhook
	Address  string    `json:"address,omitempty"`
	State    string    `json:"state"`
	Attempts int64     `json:"attempts"`
	Next     time.Time `json:"next,omitzero"` // attempt, while it waits
	Changed  time.Time `json:"changed"`
	Fault    string    `json:"fault,omitempty"` // of the last attempt
}

// A Query says which notices are listed.
type Query struct {
	State   string // one of the states; "" means any
	Partner string // short name; "" means any
	Limit   int    // at most 500; 0 means 50
}

// stateOf is the state of a notice, in SQL; hold in milliseconds is in it.
const stateOf = `CASE
	WHEN NOT n.settled AND n.created > now_ms() - 600000 THEN 'announced'
	WHEN EXISTS (SELECT 1 FROM notice_deliveries d WHERE d.notice = n.id AND d.state = 'waiting') THEN 'waiting'
	WHEN EXISTS (SELECT 1 FROM notice_deliveries d WHERE d.notice = n.id AND d.state = 'failed') THEN 'failed'
	WHEN EXISTS (SELECT 1 FROM notice_deliveries d WHERE d.notice = n.id) THEN 'delivered'
	ELSE 'kept' END`

// List returns notices, the newest first.
func (o *Outbox) List(ctx context.Context, q Query) ([]Notice, error) {
	if q.Limit <= 0 {
		q.Limit = 50
	}
	if !database.ValidText(q.State, q.Partner) {
		return nil, mandate.Invalid("state", "is no text")
	}
	rows, err := o.cfg.DB.Query(ctx, `SELECT s.id, s.content, s.created, s.settled, s.state FROM
		(SELECT n.id, n.content, n.created, n.settled, n.partner, `+stateOf+` AS state FROM notices n) s
		WHERE ($1 = '' OR s.state = $1) AND ($2 = '' OR s.partner = $2) ORDER BY s.created DESC, s.id LIMIT $3`,
		q.State, q.Partner, int64(min(q.Limit, 500)))
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	all := []Notice{}
	for rows.Next() {
		var state string
		s, err := scan(func(dest ...any) error { return rows.Scan(append(dest, &state)...) })
		if err != nil {
			return nil, err
		}
		all = append(all, o.view(s, state))
	}
	return all, unavailable(rows.Err())
}

func (o *Outbox) view(s stored, state string) Notice {
	return Notice{ID: s.id, Kind: s.content.Kind, State: state, Created: s.created.UTC(), Partner: s.content.Partner, Subject: o.cfg.Writer.message(s).Subject}
}

// Show returns a notice with its text and what became of each delivery. If
// there is none the error wraps [mandate.ErrNotFound].
func (o *Outbox) Show(ctx context.Context, id string) (out Notice, err error) {
	if !database.ValidText(id) {
		return out, fmt.Errorf("%w: there is no such notice", mandate.ErrNotFound)
	}
	var state string
	row := o.cfg.DB.QueryRow(ctx, `SELECT n.id, n.content, n.created, n.settled, `+stateOf+` FROM notices n WHERE n.id = $1`, id)
	s, err := scan(func(dest ...any) error { return row.Scan(append(dest, &state)...) })
	if err != nil {
		return out, err
	}
	out = o.view(s, state)
	out.Text, out.To = o.cfg.Writer.message(s).Text, s.content.To
	out.Deliveries, err = o.deliveries(ctx, id)
	return out, unavailable(err)
}

func (o *Outbox) deliveries(ctx context.Context, id string) ([]Delivery, error) {
	rows, err := o.cfg.DB.Query(ctx, `SELECT way, address, state, attempts, due, changed, fault FROM notice_deliveries WHERE notice = $1 ORDER BY way, address`, id)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []Delivery
	for rows.Next() {
		var d Delivery
		var due, changed int64
		if err := rows.Scan(&d.Way, &d.Address, &d.State, &d.Attempts, &due, &changed, &d.Fault); err != nil {
			return nil, err
		}
		d.Changed = time.UnixMilli(changed).UTC()
		if d.State == StateWaiting {
			d.Next = time.UnixMilli(due).UTC()
		}
		all = append(all, d)
	}
	return all, rows.Err()
}

// Retry tries again what was given up, and what had no way to be delivered by,
// and hurries what waits.
func (o *Outbox) Retry(ctx context.Context, id string) error {
	if !database.ValidText(id) {
		return fmt.Errorf("%w: there is no such notice", mandate.ErrNotFound)
	}
	err := o.cfg.DB.Tx(ctx, func(tx *database.Tx) error {
		s, err := scan(tx.QueryRow(ctx, `SELECT id, content, created, settled FROM notices WHERE id = $1`, id).Scan)
		if err != nil {
			return err
		}
		if err := o.plan(ctx, tx, id, s.content.To, 0); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `UPDATE notice_deliveries SET due = now_ms() WHERE notice = $1 AND state = 'waiting' AND due > now_ms() AND claim = ''`, id)
		return err
	})
	if err == nil {
		o.wake(ctx)
	}
	return unavailable(err)
}

// A Standing is how the outbox is.
type Standing struct {
	Waiting int64     // deliveries
	Failed  int64     // that were given up
	Oldest  time.Time // since when the oldest that waits has waited; zero if none does
}

// Standing tells how the outbox is.
func (o *Outbox) Standing(ctx context.Context) (out Standing, err error) {
	var oldest int64
	err = o.cfg.DB.QueryRow(ctx, `SELECT CAST(coalesce(sum(CASE WHEN d.state = 'waiting' THEN 1 ELSE 0 END), 0) AS BIGINT),
		CAST(coalesce(sum(CASE WHEN d.state = 'failed' THEN 1 ELSE 0 END), 0) AS BIGINT),
		coalesce(min(CASE WHEN d.state = 'waiting' THEN n.created END), 0)
		FROM notice_deliveries d JOIN notices n ON n.id = d.notice`).Scan(&out.Waiting, &out.Failed, &oldest)
	if oldest > 0 {
		out.Oldest = time.UnixMilli(oldest)
	}
	return out, unavailable(err)
}

// Measure is [Outbox.Standing] as numbers.
func (o *Outbox) Measure(ctx context.Context) (waiting, failed int64, oldest time.Time, err error) {
	s, err := o.Standing(ctx)
	return s.Waiting, s.Failed, s.Oldest, err
}

// Ways names what the outbox delivers by: none, if nothing is configured.
func (o *Outbox) Ways() []string {
	var out []string
	if o.cfg.Mail != nil {
		out = append(out, wayMail)
	}
	if o.cfg.Webhook != nil {
		out = append(out, wayWebhook)
	}
	return out
}
