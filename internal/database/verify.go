package database

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// A head is what the head row says.
type head struct {
	epoch   int64
	guarded sql.NullInt64
	digest  sql.NullString
	mac     []byte
}

func readHead(ctx context.Context, tx *Tx) (h head, err error) {
	err = tx.QueryRow(ctx, `SELECT epoch, guarded, digest, mac FROM head`).Scan(&h.epoch, &h.guarded, &h.digest, &h.mac)
	return h, err
}

// check returns what the head row proves, if its MAC is ours.
func (g *guard) check(h *head) (spec, map[string][sha256.Size]byte, error) {
	switch {
	case !h.guarded.Valid || !h.digest.Valid || h.mac == nil:
		return nil, nil, altered("its MAC was removed")
	case !hmac.Equal(h.mac, g.mac(h.guarded.Int64, h.digest.String)):
		return nil, nil, altered("the row of head was changed: the MAC is not that of epoch %d", h.guarded.Int64)
	}
	s, sums, err := parseDigest(h.digest.String)
	if err != nil {
		return nil, nil, altered("%v", err)
	}
	return s, sums, nil
}

// Verify verifies all of security state as tx sees it. Whoever reads it in the
// same transaction then knows that it is as this program left it. Without
// [DB.Guard] it does nothing.
func (d *DB) Verify(ctx context.Context, tx *Tx) error {
	g := d.guard.Load()
	if g == nil {
		return nil
	}
	h, err := readHead(ctx, tx)
	if err != nil {
		return fmt.Errorf("read head: %w", err)
	}
	spec, sums, err := g.check(&h)
	if err == nil && h.guarded.Int64 != h.epoch {
		err = altered("the row of head was changed: epoch %d has the MAC of epoch %d", h.epoch, h.guarded.Int64)
	}
	if err != nil {
		return d.finally(err)
	}
	s := &state{epoch: h.epoch, spec: spec, tables: make(map[string]*tableSum)}
	for i := range spec {
		t, err := g.verifyTable(ctx, tx, &spec[i], sums[spec[i].Table])
		if err != nil {
			return d.finally(err)
		}
		s.tables[spec[i].Table] = t
	}
	g.adopt(s)
	return nil
}

// finally has nothing served any more, if err is that something was altered.
func (d *DB) finally(err error) error {
	if errors.Is(err, ErrAltered) {
		d.doubts(err)
	}
	return err
}

// verifyTable reads a table whose rows must have that hash.
func (g *guard) verifyTable(ctx context.Context, tx *Tx, table *Guarded, want [sha256.Size]byte) (*tableSum, error) {
	t, err := readSums(ctx, tx, table)
	if err != nil || t.sum == want {
		return t, err
	}
	before := g.known(table)
	if before == nil {
		return nil, altered("rows of %s; which ones cannot be told, because this process has not seen them before", table.Table)
	}
	what := before.differences(t, table.Table, g.wasThere)
	if before.sum != want {
		what += " (some of which may be changes that this replica has not seen)"
	}
	return nil, altered("%s", what)
}

// known returns what was verified last of a table with the same columns, or nil.
func (g *guard) known(table *Guarded) *tableSum {
	s := g.current()
	if s == nil {
		return nil
	}
	if t := s.spec.table(table.Table); t == nil || !slices.Equal(t.columns(), table.columns()) {
		return nil
	}
	return s.tables[table.Table]
}

// errAgain: the row was read in another state than the one that was verified.
var errAgain = errors.New("the row is not as it was verified a moment ago")

// genuineTries bounds how often a row is read that changes all the time.
const genuineTries = 5

// Genuine reads a row of security state by itself, and sees that it is as it
// was when all was verified, in the current epoch. read returns the values of
// the guarded columns, or nil if there is no row; it is called again if the
// row has just been changed.
func (d *DB) Genuine(ctx context.Context, table string, read func() (map[string]any, error)) error {
	for range genuineTries {
		row, err := read()
		if err != nil || row == nil || !d.Guarded() {
			return err
		}
		ok, err := d.genuine(ctx, table, row)
		if err != nil || ok {
			return err
		}
		// It may be of a later epoch than was verified.
		if err := d.View(ctx, func(tx *Tx) error { return d.Verify(ctx, tx) }); err != nil {
			return err
		}
		if ok, err = d.genuine(ctx, table, row); err != nil || ok {
			return err
		}
	}
	return fmt.Errorf("table %s: %w", table, errAgain)
}

func (d *DB) genuine(ctx context.Context, table string, row map[string]any) (bool, error) {
	if epoch := d.epoch.Load(); d.guard.Load().current().epoch < epoch {
		if err := d.View(ctx, func(tx *Tx) error { return d.Verify(ctx, tx) }); err != nil {
			return false, err
		}
	}
	s := d.guard.Load().current()
	g := s.spec.table(table)
	if g == nil {
		return true, nil
	}
	var values []any
	for _, c := range g.columns() {
		v, ok := row[c]
		if !ok {
			return false, fmt.Errorf("column %s of %s is guarded, and was not read", c, table)
		}
		values = append(values, v)
	}
	r, _, err := sumRow(g, values, nil)
	if err != nil {
		return false, err
	}
	sum, ok := s.tables[table].byID()[r.id]
	return ok && sum == r.sum, nil
}

// A guardedChange is what a change does to what is guarded.
type guardedChange struct {
	guard   *guard
	spec    spec
	before  *state // what was verified
	anew    bool   // nothing is believed, and all is read
	touched map[string]bool
	err     error
}

// beginGuarded verifies the head row that a change begins with. The epoch has
// been raised already, and the MAC is still that of the one before.
func (d *DB) beginGuarded(ctx context.Context, tx *Tx, g *guard, least int64) error {
	h, err := readHead(ctx, tx)
	if err != nil {
		return err
	}
	if g == nil {
		if h.mac != nil {
			return ErrGuarded
		}
		return nil
	}
	c := &guardedChange{guard: g, touched: make(map[string]bool)}
	if tx.change = c; g != d.guard.Load() {
		return nil // it is being made; see newGuard
	}
	spec, sums, err := g.check(&h)
	if err == nil && least == 0 && h.guarded.Int64 != h.epoch-1 {
		err = altered("the row of head was changed: epoch %d has the MAC of epoch %d", h.epoch-1, h.guarded.Int64)
	}
	if err != nil {
		return d.finally(err)
	}
	c.spec = spec
	if s := g.current(); s != nil && s.epoch == h.guarded.Int64 && s.digest() == h.digest.String {
		c.before = s
		return nil
	}
	s := &state{epoch: h.guarded.Int64, spec: spec, tables: make(map[string]*tableSum)}
	for i := range spec {
		if s.tables[spec[i].Table], err = g.verifyTable(ctx, tx, &spec[i], sums[spec[i].Table]); err != nil {
			return d.finally(err)
		}
	}
	c.before = s
	return nil
}

// writes matches the beginning of statements that change one table.
var writes = regexp.MustCompile(`(?i)^\s*(?:INSERT\s+INTO|UPDATE|DELETE\s+FROM)\s+([a-z_0-9]+)`)

// touch verifies a table before the first statement that writes to it: what a
// change leaves of what somebody else did there it would vouch for. What is
// not written needs no reading.
func (t *Tx) touch(ctx context.Context, query string) {
	c := t.change
	if c == nil || c.anew || c.err != nil || strings.HasPrefix(strings.TrimSpace(query), "SELECT") {
		return
	}
	m := writes.FindStringSubmatch(query)
	for i := range c.spec {
		g := &c.spec[i]
		if c.touched[g.Table] || m != nil && !strings.EqualFold(m[1], g.Table) {
			continue
		}
		c.touched[g.Table] = true
		if _, err := c.guard.verifyTable(ctx, t, g, c.before.tables[g.Table].sum); err != nil {
			c.err = t.db.finally(err)
		}
	}
}

// alteration is what a change found altered, whatever else it failed for.
func (t *Tx) alteration() error {
	if t.change == nil {
		return nil
	}
	return t.change.err
}

// endGuarded stores the MAC of what the change has made.
func (t *Tx) endGuarded(ctx context.Context, epoch int64) (*state, error) {
	c := t.change
	if c == nil {
		return nil, nil
	}
	if c.err != nil {
		return nil, c.err
	}
	t.change = nil
	s := &state{epoch: epoch, spec: c.spec, tables: make(map[string]*tableSum)}
	for i := range c.spec {
		g := &c.spec[i]
		if c.unchanged(g) {
			s.tables[g.Table] = c.before.tables[g.Table]
			continue
		}
		var err error
		if s.tables[g.Table], err = readSums(ctx, t, g); err != nil {
			return nil, err
		}
	}
	digest := s.digest()
	_, err := t.Exec(ctx, `UPDATE head SET guarded = $1, digest = $2, mac = $3`, epoch, digest, c.guard.mac(epoch, digest))
	return s, err
}

// unchanged reports whether a table's hashes are those of before.
func (c *guardedChange) unchanged(g *Guarded) bool {
	if c.anew || c.touched[g.Table] {
		return false
	}
	before := c.before.spec.table(g.Table)
	return before != nil && slices.Equal(before.Columns, g.Columns)
}
