package audit

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/mandate-sam/mandate/internal/database"
)

//go:embed migrations/*.sql
var files embed.FS

// Schema is the log's tables: the log itself where it is in the database, and
// everywhere the keys of personal data and what searching needs.
func Schema() database.Schema { return database.Schema{Package: "audit", Files: files} }

// A sqlStore is a log in tables, to which several replicas append.
type sqlStore struct {
	db *database.DB

	mu sync.Mutex // guards the fields below

	// known and links are the end as this replica wrote it; they hold for as
	// long as nobody else has written.
	known tail
	links map[string]link

	most int64 // the largest size seen
}

// errShrunk: an older copy of the database has taken its place.
var errShrunk = errors.New("the log in the database is shorter than it was: an older copy was put in its place; start the server again to see what is wrong with it")

// write implements [store]. The transaction locks the end of the log first, so
// that all who append come one after the other, and reads the epoch with a
// lock that no change of security state overtakes: what was acknowledged as
// revoked before has no token's record after it.
func (s *sqlStore) write(ctx context.Context, b *batch) (size int64, err error) {
	var p *place
	err = s.db.Tx(ctx, func(tx *database.Tx) error {
		for _, it := range b.items {
			it.err = nil // the transaction may run again
		}
		end, err := lockEnd(ctx, tx)
		if err != nil {
			return err
		}
		if err := s.notShrunk(end.front.size); err != nil {
			return err
		}
		var now int64
		if err := tx.QueryRow(ctx, `SELECT epoch FROM head FOR SHARE`).Scan(&now); err != nil {
			return fmt.Errorf("read epoch: %w", err)
		}
		links, err := s.linksOf(ctx, tx, end, b)
		if err != nil {
			return err
		}
		p = b.put(end, now, nil, func(chain string) link { return links[chain] })
		if len(p.leaves) == 0 {
			return nil
		}
		return insertPlace(ctx, tx, end.front.size, p)
	})
	if err != nil {
		return 0, err
	}
	s.remember(p)
	return p.front.size, nil
}

func lockEnd(ctx context.Context, tx *database.Tx) (t tail, err error) {
	var size int64
	var front []byte
	if err := tx.QueryRow(ctx, `SELECT size, front, epoch FROM audit_end FOR UPDATE`).Scan(&size, &front, &t.epoch); err != nil {
		return t, fmt.Errorf("read the end of the log: %w", err)
	}
	t.front, err = parseFrontier(size, front)
	return t, err
}

func (s *sqlStore) notShrunk(size int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if size < s.most {
		return errShrunk
	}
	s.most = size
	return nil
}

// linksOf returns the last records of the chains that the batch adds to, from
// memory if nobody else has written since this replica did.
func (s *sqlStore) linksOf(ctx context.Context, tx *database.Tx, end tail, b *batch) (map[string]link, error) {
	s.mu.Lock()
	if s.links == nil || s.known.front.size != end.front.size || s.known.front.root() != end.front.root() {
		s.links = make(map[string]link)
	}
	links := s.links
	s.known = end
	s.mu.Unlock()
	var missing []any
	asked := make(map[string]bool)
	for _, it := range b.items {
		if _, ok := links[it.chain]; !ok && !asked[it.chain] {
			asked[it.chain] = true
			missing = append(missing, it.chain)
		}
	}
	if len(missing) == 0 {
		return links, nil
	}
	rows, err := tx.Query(ctx, `SELECT chain, seq, hash FROM audit_chains WHERE chain IN (`+placeholders(1, len(missing))+`)`, missing...)
	if err != nil {
		return nil, fmt.Errorf("read chains: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var chain string
		var k link
		var hash []byte
		if err := rows.Scan(&chain, &k.seq, &hash); err != nil || len(hash) != tlog.HashSize {
			return nil, fmt.Errorf("read chains: a row of %d bytes: %w", len(hash), err)
		}
		k.hash = tlog.Hash(hash)
		links[chain] = k
	}
	return links, rows.Err()
}

// remember keeps what was written for the next batch.
func (s *sqlStore) remember(p *place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known = p.tail
	for chain, k := range p.links {
		s.links[chain] = k
	}
	s.most = max(s.most, p.front.size)
}

// placeholders returns "$from, …", n of them.
func placeholders(from, n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteByte('$')
		b.WriteString(strconv.Itoa(from + i))
	}
	return b.String()
}

// insert writes rows with statements of at most some rows each.
func insert(ctx context.Context, tx *database.Tx, into, after string, columns int, values []any) error {
	const most = 1000 // of PostgreSQL's 65,535 parameters, and of SQLite's 32,766
	for step := most / columns * columns; len(values) > 0; {
		n := min(step, len(values))
		var b strings.Builder
		b.WriteString(into + " VALUES ")
		for i := 0; i < n; i += columns {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString("(" + placeholders(i+1, columns) + ")")
		}
		if _, err := tx.Exec(ctx, b.String()+after, values[:n]...); err != nil {
			return err
		}
		values = values[n:]
	}
	return nil
}

func insertPlace(ctx context.Context, tx *database.Tx, from int64, p *place) error {
	now := time.Now().UnixMilli()
	var entries, tiles, chains []any
	for i := range p.leaves {
		entries = append(entries, from+int64(i), now, p.leaves[i][:], p.line(i))
	}
	for i := range p.tiles {
		tiles = append(tiles, from/tileWidth+int64(i), p.tiles[i][:])
	}
	for chain, k := range p.links {
		chains = append(chains, chain, k.seq, k.hash[:])
	}
	if err := insert(ctx, tx, `INSERT INTO audit_entries (idx, at, leaf, entry)`, "", 4, entries); err != nil {
		return fmt.Errorf("store entries: %w", err)
	}
	if err := insert(ctx, tx, `INSERT INTO audit_tiles (idx, hash)`, "", 2, tiles); err != nil {
		return fmt.Errorf("store hashes: %w", err)
	}
	if err := insert(ctx, tx, `INSERT INTO audit_chains (chain, seq, hash)`, ` ON CONFLICT (chain) DO UPDATE SET seq = excluded.seq, hash = excluded.hash`, 3, chains); err != nil {
		return fmt.Errorf("store chains: %w", err)
	}
	n, err := tx.Exec(ctx, `UPDATE audit_end SET size = $1, front = $2, epoch = $3 WHERE id = 1`, p.front.size, p.front.bytes(), p.epoch)
	if err == nil && n != 1 {
		err = fmt.Errorf("%d rows", n)
	}
	if err != nil {
		return fmt.Errorf("store the end of the log: %w", err)
	}
	return nil
}

// at implements [store].
func (s *sqlStore) at(ctx context.Context) (t tail, chains map[string]link, err error) {
	err = s.db.View(ctx, func(tx *database.Tx) error {
		var size int64
		var front []byte
		if err := tx.QueryRow(ctx, `SELECT size, front, epoch FROM audit_end`).Scan(&size, &front, &t.epoch); err != nil {
			return err
		}
		if t.front, err = parseFrontier(size, front); err != nil {
			return err
		}
		chains = make(map[string]link)
		rows, err := tx.Query(ctx, `SELECT chain, seq, hash FROM audit_chains`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var chain string
			var k link
			var hash []byte
			if err := rows.Scan(&chain, &k.seq, &hash); err != nil {
				return err
			}
			copy(k.hash[:], hash)
			chains[chain] = k
		}
		return rows.Err()
	})
	if err != nil {
		return t, nil, fmt.Errorf("read the end of the log: %w", err)
	}
	return t, chains, nil
}
