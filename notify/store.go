package notify

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

// topic wakes every replica's [Outbox.Run].
const topic = "notices"

// The ways.
const (
	wayMail    = "mail"
	wayWebhook = "webhook"
)

func newID() string { return strings.ToLower(rand.Text()[:16]) }

// wake has whoever runs look now and not at the next tick.
func (o *Outbox) wake(ctx context.Context) { _ = o.cfg.DB.Notify(ctx, topic, "") }

// tightens reports whether a notice is about an act that is never held up, not
// even by an outbox that is full.
func tightens(k mandate.NoticeKind) bool {
	return k == mandate.NoticeWithdrawn || k == mandate.NoticeDiscarded
}

// put stores a notice, unless it is there already, with its deliveries: due at
// once if it is settled.
func (o *Outbox) put(ctx context.Context, n mandate.Notice, settled bool) error {
	if !database.ValidText(string(n.Kind), n.Key) {
		return mandate.Invalid("key", "is no text")
	}
	c, err := o.address(n)
	if err != nil {
		return err
	}
	text, err := c.marshal()
	if err != nil {
		return err
	}
	wait := hold
	if settled {
		wait = 0
	}
	id := newID()
	return unavailable(o.cfg.DB.Tx(ctx, func(tx *database.Tx) error {
		if err := bounded(ctx, tx, n.Kind, c.Partner); err != nil {
			return err
		}
		added, err := tx.Exec(ctx, `INSERT INTO notices (id, kind, key, partner, content, created, settled)
			VALUES ($1, $2, $3, $4, $5, now_ms(), $6) ON CONFLICT DO NOTHING`, id, string(n.Kind), n.Key, c.Partner, text, settled)
		if err != nil || added == 0 {
			return err
		}
		return o.plan(ctx, tx, id, c.To, wait)
	}))
}

// bounded refuses a notice for which there is no room any more: in all, or for
// one partner, whose people could fill the outbox for others.
func bounded(ctx context.Context, tx *database.Tx, k mandate.NoticeKind, partner string) error {
	if tightens(k) {
		return nil
	}
	var all, its int64
	err := tx.QueryRow(ctx, `SELECT count(*), CAST(coalesce(sum(CASE WHEN n.partner = $1 THEN 1 ELSE 0 END), 0) AS BIGINT)
		FROM notice_deliveries d LEFT JOIN notices n ON n.id = d.notice WHERE d.state = 'waiting'`, partner).Scan(&all, &its)
	if err == nil && (all >= maxWaiting || partner != "" && its >= maxOfPartner) {
		err = fmt.Errorf("%w: %d notices wait to be delivered already: see mandate notice list --state waiting", mandate.ErrRateLimited, all)
	}
	return err
}

// plan stores the deliveries of a notice by the ways that there are. Those that
// are given up begin anew; others stay as they are.
func (o *Outbox) plan(ctx context.Context, tx *database.Tx, id string, to []mandate.MailAddress, wait time.Duration) error {
	const insert = `INSERT INTO notice_deliveries (notice, way, address, state, attempts, due, ends, claim, fault, changed)
		VALUES ($1, $2, $3, 'waiting', 0, now_ms() + $4, now_ms() + $4 + $5, '', '', now_ms())
		ON CONFLICT (notice, way, address) DO UPDATE SET state = 'waiting', attempts = 0, due = excluded.due, ends = excluded.ends, changed = excluded.changed
		WHERE notice_deliveries.state = 'failed'`
	if o.cfg.Webhook != nil {
		if _, err := tx.Exec(ctx, insert, id, wayWebhook, "", wait.Milliseconds(), Term.Milliseconds()); err != nil {
			return err
		}
	}
	if o.cfg.Mail == nil {
		return nil
	}
	for _, a := range to {
		if _, err := tx.Exec(ctx, insert, id, wayMail, string(a), wait.Milliseconds(), Term.Milliseconds()); err != nil {
			return err
		}
	}
	return nil
}

// release lets an announced notice go out.
func (o *Outbox) release(ctx context.Context, n mandate.Notice) error {
	return o.cfg.DB.Tx(ctx, func(tx *database.Tx) error {
		if _, err := tx.Exec(ctx, `UPDATE notice_deliveries SET due = now_ms(), changed = now_ms() WHERE attempts = 0 AND state = 'waiting'
			AND notice IN (SELECT id FROM notices WHERE kind = $1 AND key = $2 AND NOT settled)`, string(n.Kind), n.Key); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `UPDATE notices SET settled = TRUE WHERE kind = $1 AND key = $2`, string(n.Kind), n.Key)
		return err
	})
}

// takeBack removes an announced notice of what did not happen. One that is on
// its way already has its doubt in it.
func (o *Outbox) takeBack(ctx context.Context, n mandate.Notice) error {
	return o.cfg.DB.Tx(ctx, func(tx *database.Tx) error {
		const mine = `(SELECT id FROM notices WHERE kind = $1 AND key = $2 AND NOT settled)`
		if _, err := tx.Exec(ctx, `DELETE FROM notice_deliveries WHERE attempts = 0 AND notice IN `+mine, string(n.Kind), n.Key); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `DELETE FROM notices WHERE kind = $1 AND key = $2 AND NOT settled
			AND NOT EXISTS (SELECT 1 FROM notice_deliveries d WHERE d.notice = notices.id)`, string(n.Kind), n.Key)
		return err
	})
}

// Sweep forgets notices that are older than ninety days and of which nothing
// waits.
func (o *Outbox) Sweep(ctx context.Context) error {
	return unavailable(o.cfg.DB.Tx(ctx, func(tx *database.Tx) error {
		const old = `(SELECT id FROM notices WHERE created < now_ms() - CAST($1 AS BIGINT)
			AND NOT EXISTS (SELECT 1 FROM notice_deliveries w WHERE w.notice = notices.id AND w.state = 'waiting'))`
		if _, err := tx.Exec(ctx, `DELETE FROM notice_deliveries WHERE notice IN `+old, keep.Milliseconds()); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `DELETE FROM notices WHERE id IN `+old, keep.Milliseconds())
		return err
	}))
}
