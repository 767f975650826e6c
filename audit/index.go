package audit

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

// An index is what searches look into. It follows the log, and gives way to it:
// filling it takes as much work as handing out a token does. A search first
// does what is left to do.
type index struct {
	log *Log
	db  *database.DB

	// far is how many records it may be behind for somebody to wait: more are
	// only missing when all of it is made anew.
	far int64

	// few is how many records one thing that is asked fits for it to be rare,
	// and step how many records one statement looks at otherwise: a database
	// ends one that takes long, and that two things which are common never met
	// is known only when all records of one have been looked at.
	few, look int64
}

const (
	indexFew  = 5000
	indexLook = 100_000
)

// indexFar takes some seconds.
const indexFar = 50_000

// indexAtOnce is how many records are added in one transaction at most: of an
// index that is behind each page is then written once for many records.
const indexAtOnce = 10_000

const (
	// indexBehind is how many records the index may be behind before it no
	// longer gives way: then a search would wait for seconds.
	indexBehind = 40_000

	// indexShare is how much of a processor the index takes until then: one
	// part in so many.
	indexShare = 10
)

// check empties an index of files if it is not of this log: of another one that
// was here before, or of this one before an older copy took its place. It is
// made anew then.
func (x *index) check(ctx context.Context) error {
	var next int64
	if err := x.db.QueryRow(ctx, `SELECT next FROM audit_indexed`).Scan(&next); err != nil || next == 0 {
		return err
	}
	if same, err := x.has(ctx, next-1); err != nil || same {
		return err
	}
	x.log.cfg.Log.Warn("audit log: the index that searches look into is of another log, and is made anew")
	return x.db.Tx(ctx, func(tx *database.Tx) error {
		_, err := tx.Exec(ctx, `DELETE FROM audit_index`)
		if err == nil {
			_, err = tx.Exec(ctx, `UPDATE audit_indexed SET next = 0 WHERE id = 1`)
		}
		return err
	})
}

// has reports whether what the index has of a record is of that record, by what
// is in the clear: keys of personal data may be out of reach.
func (x *index) has(ctx context.Context, i int64) (bool, error) {
	lines, err := x.log.store.read(ctx, i, 1)
	if err != nil || len(lines) == 0 {
		return false, err
	}
	var at int64
	var chain, request, fingerprint string
	err = x.db.QueryRow(ctx, `SELECT at, chain, request, fingerprint FROM audit_index WHERE idx = $1`, i).Scan(&at, &chain, &request, &fingerprint)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	r, failed := offlineRecord(lines[0].text)
	return failed == nil && chain == chainOf(&r) && at == r.Time.UnixMilli() && request == r.Request && fingerprint == r.Fingerprint, err
}

// pauseAfter is how long the index is left alone after a step that took so long
// and left so many records to do.
func pauseAfter(took time.Duration, left int64, err error) time.Duration {
	switch {
	case err != nil:
		return time.Second
	case left > indexBehind:
		return 0
	}
	return max(50*time.Millisecond, (indexShare-1)*took)
}

// run fills the index until ctx is done.
func (x *index) run(ctx context.Context) {
	told := false
	for {
		start := time.Now()
		end, err := x.step(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil && !told {
			x.log.cfg.Log.Error("audit log: searching is behind", "error", err)
		}
		told = err != nil
		select {
		case <-time.After(pauseAfter(time.Since(start), x.log.Count()-end, err)):
		case <-ctx.Done():
			return
		}
	}
}

// errElsewhere: another replica has indexed the same records meanwhile.
var errElsewhere = errors.New("indexed elsewhere")

// step indexes what is next, and returns what comes after that.
func (x *index) step(ctx context.Context) (int64, error) {
	var next int64
	if err := x.db.QueryRow(ctx, `SELECT next FROM audit_indexed`).Scan(&next); err != nil {
		return 0, err
	}
	end := next
	var rows []any
	for end < next+indexAtOnce {
		lines, err := x.log.store.read(ctx, end, next+indexAtOnce-end)
		if err != nil {
			return 0, err
		}
		if len(lines) == 0 {
			break
		}
		for i := range lines {
			row, err := x.row(ctx, &lines[i])
			if err != nil {
				return 0, err
			}
			rows = append(rows, row...)
		}
		end += int64(len(lines))
	}
	if end == next {
		return end, nil
	}
	err := x.db.Tx(ctx, func(tx *database.Tx) error {
		n, err := tx.Exec(ctx, `UPDATE audit_indexed SET next = $1 WHERE id = 1 AND next = $2`, end, next)
		if err != nil {
			return err
		}
		if n == 0 {
			return errElsewhere
		}
		return tx.InsertRows(ctx, `INSERT INTO audit_index (idx, at, kind, chain, application, caller, tenant, audience, purpose, request, fingerprint, uti, correlation, handed, granted, ticket, person)`,
			`ON CONFLICT (idx) DO NOTHING`, indexColumns, rows)
	})
	if errors.Is(err, errElsewhere) {
		err = nil
	}
	return end, err
}

const indexColumns = 17

// row returns the columns of a line.
func (x *index) row(ctx context.Context, v *line) ([]any, error) {
	e, err := x.log.entry(ctx, v)
	if err != nil && !errors.Is(err, errNotEntry) {
		return nil, err
	}
	if err != nil {
		// What was tampered with is not found, but what comes after is;
		// verifying names it.
		x.log.cfg.Log.Error("audit log: a record cannot be read", "index", v.index, "error", err)
		return nil, nil
	}
	return x.columns(ctx, &e), nil
}

// columns returns what the index has of a record.
func (x *index) columns(ctx context.Context, e *Entry) []any {
	if e.Dropped {
		return []any{e.Index, int64(0), "", e.Chain, "", "", "", "", "", "", "", "", "", int64(0), int64(0), nil, nil}
	}
	r := &e.Record
	application, handed := "", int64(0)
	if r.Grant != nil {
		application = r.Grant.Application.String()
	}
	if r.Kind == mandate.KindIssued && r.Use == mandate.UseToken {
		handed = r.Expires.UnixMilli()
	}
	var ticket, person any
	if k, err := x.log.keys.get(ctx, e.Chain, monthOf(r.Time), false); err == nil {
		if r.Ticket != "" {
			ticket = k.tag("ticket", r.Ticket)
		}
		if r.User != nil {
			person = k.tag("person", r.User.Object.String())
		}
	}
	tenant := ""
	if !r.Tenant.IsZero() {
		tenant = r.Tenant.String()
	}
	return []any{e.Index, r.Time.UnixMilli(), r.Kind, e.Chain, application, string(r.Caller), tenant, string(r.Audience), r.Purpose,
		r.Request, r.Fingerprint, r.UTI, r.Correlation, handed, scopesTag(r.Granted), ticket, person}
}

// scopesTag tells lists of scopes apart, in whatever order they are: of all
// records with the same, one says which they are. Zero is of none.
func scopesTag(scopes []mandate.Scope) int64 {
	if len(scopes) == 0 {
		return 0
	}
	sum := sha256.Sum256([]byte(strings.Join(slices.Sorted(slices.Values(scopes)), " ")))
	return int64(binary.BigEndian.Uint64(sum[:]))
}

// settled waits until the index has all records that there are now.
func (x *index) settled(ctx context.Context) error {
	end := x.log.Count()
	for {
		var next int64
		if err := x.db.QueryRow(ctx, `SELECT next FROM audit_indexed`).Scan(&next); err != nil {
			return fmt.Errorf("%w: audit log: %w", mandate.ErrUnavailable, err)
		}
		if next >= end {
			return nil
		}
		if _, err := x.step(ctx); err != nil {
			return fmt.Errorf("%w: audit log: %w", mandate.ErrUnavailable, err)
		}
	}
}

// near is settled, but for an index that is far behind it returns an error that
// says how far.
func (x *index) near(ctx context.Context) error {
	var next int64
	if err := x.db.QueryRow(ctx, `SELECT next FROM audit_indexed`).Scan(&next); err != nil {
		return fmt.Errorf("%w: audit log: %w", mandate.ErrUnavailable, err)
	}
	if all := x.log.Count(); all-next > x.far {
		return fmt.Errorf("%w: the index that searches look into is being made anew, and has %d of %d records; everything else works, also mandate audit tail", mandate.ErrUnavailable, next, all)
	}
	return x.settled(ctx)
}

// An Entry is a record with its place in the log.
type Entry struct {
	Index   int64  `json:"index"`
	Leaf    string `json:"leaf"` // hex, as in the receipt
	Chain   string `json:"chain,omitempty"`
	Seq     int64  `json:"seq,omitempty"`
	Erased  bool   `json:"erased,omitempty"`  // its personal data is gone; see [Log.Erase]
	Dropped bool   `json:"dropped,omitempty"` // its content is gone
	mandate.Record
}

// entry decodes a line, and decrypts what is about persons.
func (l *Log) entry(ctx context.Context, v *line) (Entry, error) {
	e := Entry{Index: v.index, Leaf: fmt.Sprintf("%x", v.leaf[:])}
	if v.dropped {
		t, err := parseTrace(v.text)
		e.Chain, e.Seq, e.Dropped, e.Erased = t.chain, t.seq, true, true
		return e, err
	}
	h, rest, err := parseHead(v.text)
	if err != nil {
		return e, err
	}
	p, err := parseRest(rest)
	if err != nil {
		return e, err
	}
	e.Chain, e.Seq = h.chain, h.seq
	if err := decodeRecord(&e.Record, &h, &p); err != nil {
		return e, err
	}
	k, err := l.keys.get(ctx, h.chain, string(p.month), false)
	if errors.Is(err, errErased) {
		e.Erased = true
		return e, nil
	}
	if err != nil {
		return e, err
	}
	// A database that was restored has another key for the same month, and this
	// is of the one before. It may also be that the record was changed: reading
	// does not tell, verifying does.
	e.Erased = k.reveal(&e.Record, &h, &p) != nil
	return e, nil
}

// decodeRecord decodes what is in the clear.
func decodeRecord(r *mandate.Record, h *head, p *parts) (err error) {
	if err := json.Unmarshal(p.record, r); err != nil {
		return errNotEntry
	}
	r.Kind, r.Epoch = h.kind, h.epoch
	if r.Time, err = time.Parse(time.RFC3339Nano, string(p.time)); err != nil {
		return errNotEntry
	}
	return nil
}

// reveal decrypts the rest.
func (k *key) reveal(r *mandate.Record, h *head, p *parts) error {
	plain, err := k.open(h, p)
	if err != nil {
		return fmt.Errorf("%w: its personal data does not decrypt", errNotEntry)
	}
	var hidden personal
	if err := json.Unmarshal(plain, &hidden); err != nil {
		return fmt.Errorf("%w: its personal data", errNotEntry)
	}
	r.Address, r.Ticket, r.Reason, r.User = hidden.Address, hidden.Ticket, hidden.Reason, hidden.User
	if hidden.Detail != "" {
		r.Detail = hidden.Detail
	}
	return nil
}
