package notify

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/upstream"
)

const (
	// look is how often what is due is looked for, unless somebody says that
	// there is something.
	look = 15 * time.Second

	// lease is how long a delivery is left to whoever claimed it, which is
	// longer than one attempt takes.
	lease = 2 * time.Minute

	// attempt bounds one attempt.
	attempt = 45 * time.Second

	// After the first failure a delivery is tried again in firstPause, then in
	// twice that, and so on up to lastPause.
	firstPause = 30 * time.Second
	lastPause  = 4 * time.Hour

	atOnce    = 4   // deliveries of one replica
	page      = 50  // that are looked at together
	maxFault  = 300 // bytes of a fault that are kept
	sweepTime = time.Hour
	outcome   = 10 * time.Second // for storing what became of an attempt
)

// Run delivers what is due until ctx is done. Several replicas may run.
func (o *Outbox) Run(ctx context.Context) error {
	woken, cancel := o.cfg.DB.Subscribe(topic)
	defer cancel()
	swept := time.Time{}
	for {
		more, err := o.deliverDue(ctx)
		if time.Since(swept) > sweepTime {
			swept, err = time.Now(), errors.Join(err, o.Sweep(ctx))
		}
		if err != nil && ctx.Err() == nil {
			o.cfg.Log.Warn("deliver notices", "err", err)
		}
		if more && err == nil && ctx.Err() == nil {
			continue
		}
		select {
		case <-woken:
		case <-time.After(jitter(look)):
		case <-ctx.Done():
			return nil
		}
	}
}

// a delivery is one row that is due.
type delivery struct {
	notice, way, address string
	due, attempts        int64
	claim                string
}

// deliverDue tries what is due once, and reports whether there may be more.
func (o *Outbox) deliverDue(ctx context.Context) (more bool, err error) {
	all, err := o.due(ctx)
	if err != nil {
		return false, unavailable(err)
	}
	var group errgroup.Group
	group.SetLimit(atOnce)
	for _, d := range all {
		group.Go(func() error { return o.deliver(ctx, d) })
	}
	return len(all) == page, group.Wait()
}

func (o *Outbox) due(ctx context.Context) ([]delivery, error) {
	rows, err := o.cfg.DB.Query(ctx, `SELECT notice, way, address, due, attempts FROM notice_deliveries
		WHERE state = 'waiting' AND due <= (SELECT now_ms()) ORDER BY due, notice, way, address LIMIT 50`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []delivery
	for rows.Next() {
		var d delivery
		if err := rows.Scan(&d.notice, &d.way, &d.address, &d.due, &d.attempts); err != nil {
			return nil, err
		}
		all = append(all, d)
	}
	return all, rows.Err()
}

// deliver tries one delivery, unless another replica has claimed it.
func (o *Outbox) deliver(ctx context.Context, d delivery) error {
	mine, err := o.claim(ctx, &d)
	if err != nil || !mine {
		return err
	}
	sent := o.send(ctx, &d)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), outcome)
	defer cancel()
	return o.note(ctx, &d, sent)
}

// claim takes a delivery by moving it on. The condition is on the very row that
// was read, so that of several replicas one gets it; whoever dies with it leaves
// it due again.
func (o *Outbox) claim(ctx context.Context, d *delivery) (bool, error) {
	d.claim = newID()
	n, err := o.cfg.DB.Exec(ctx, `UPDATE notice_deliveries SET due = now_ms() + $1, attempts = attempts + 1, claim = $2, changed = now_ms()
		WHERE notice = $3 AND way = $4 AND address = $5 AND state = 'waiting' AND due = $6 AND attempts = $7`,
		lease.Milliseconds(), d.claim, d.notice, d.way, d.address, d.due, d.attempts)
	d.attempts++
	return n == 1, unavailable(err)
}

// send hands one message over.
func (o *Outbox) send(ctx context.Context, d *delivery) error {
	n, err := o.load(ctx, d.notice)
	if err != nil {
		return err
	}
	way := o.cfg.Mail
	if d.way == wayWebhook {
		way = o.cfg.Webhook
	}
	if way == nil {
		return fmt.Errorf("this server has no way to deliver by %s any more: see notices in the configuration", d.way)
	}
	m := o.cfg.Writer.message(n)
	m.ID, m.To = d.notice+"."+d.way, n.content.To
	if d.way == wayMail {
		m.To = []mandate.MailAddress{mandate.MailAddress(d.address)}
	}
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	return way.Send(ctx, m)
}

// note stores what became of an attempt, unless somebody else has claimed the
// delivery meanwhile. That it is over is recorded.
func (o *Outbox) note(ctx context.Context, d *delivery, sent error) error {
	state, fault := "delivered", ""
	if sent != nil {
		state, fault = "waiting", upstream.Clean(sent.Error(), maxFault)
	}
	pause := jitter(min(firstPause<<min(d.attempts-1, 20), lastPause))
	err := o.cfg.DB.Returning(ctx, []any{&state}, `UPDATE notice_deliveries SET changed = now_ms(), fault = $1, claim = '', due = now_ms() + $2,
		state = CASE WHEN CAST($3 AS TEXT) = 'waiting' AND now_ms() + $2 >= ends THEN 'failed' ELSE CAST($3 AS TEXT) END
		WHERE notice = $4 AND way = $5 AND address = $6 AND claim = $7 AND state = 'waiting' RETURNING state`,
		fault, pause.Milliseconds(), state, d.notice, d.way, d.address, d.claim)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return unavailable(err)
	}
	if sent != nil {
		o.cfg.Log.Warn("a notice was not delivered", "notice", d.notice, "way", d.way, "attempts", d.attempts, "state", state, "err", fault)
	}
	if state == "waiting" {
		return nil
	}
	return o.record(ctx, d, state, fault)
}

// caller is who delivers, in records.
const caller mandate.CallerID = "mandate:notices"

// record records that a delivery is over. To whom it went is not in it: a record
// is for ever, and an address is somebody's.
func (o *Outbox) record(ctx context.Context, d *delivery, state, fault string) error {
	n, err := o.load(ctx, d.notice)
	if err != nil {
		return err
	}
	r := mandate.Record{Kind: mandate.KindChanged, Caller: caller, Partner: n.content.Partner, Grant: n.content.Grant,
		Generation: n.content.Generation, Detail: fmt.Sprintf("notice %s (%s) by %s: %s", d.notice, n.content.Kind, d.way, state)}
	if state == "failed" {
		r.Kind, r.Reason = mandate.KindFailed, fault
	}
	if n.content.Grant != nil {
		r.Tenant = n.content.Grant.Partner
	}
	if r.Epoch, err = o.cfg.Epoch.Epoch(); err == nil {
		_, err = o.cfg.Record.Record(ctx, r)
	}
	if err != nil {
		return fmt.Errorf("record the delivery of notice %s: %w", d.notice, err)
	}
	return nil
}

// stored is a notice as it is stored.
type stored struct {
	id      string
	content content
	created time.Time
	settled bool
}

func (o *Outbox) load(ctx context.Context, id string) (s stored, err error) {
	return scan(o.cfg.DB.QueryRow(ctx, `SELECT id, content, created, settled FROM notices WHERE id = $1`, id).Scan)
}

func scan(from func(...any) error) (s stored, err error) {
	var text string
	var created int64
	err = from(&s.id, &text, &created, &s.settled)
	if errors.Is(err, sql.ErrNoRows) {
		return s, fmt.Errorf("%w: there is no such notice", mandate.ErrNotFound)
	}
	if err != nil {
		return s, unavailable(err)
	}
	s.created = time.UnixMilli(created)
	if err := json.Unmarshal([]byte(text), &s.content); err != nil {
		return s, fmt.Errorf("notice %s: %v", s.id, err)
	}
	return s, nil
}

// jitter is d, a fifth more or less.
func jitter(d time.Duration) time.Duration { return d*4/5 + rand.N(d*2/5+1) }
