package audit

import (
	"context"
	"database/sql"
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
// revoked before has no token's record after it. PostgreSQL is asked twice:
// for these two, and to store what follows from them and commit.
func (s *sqlStore) write(ctx context.Context, b *batch) (size int64, err error) {
	var p *place
	err = s.db.Pipe(ctx, func(tx *database.Pipe) error {
		for _, it := range b.items {
			it.err = nil // the transaction may run again
		}
		end, now, err := lockEnd(ctx, tx)
		if err != nil {
			return err
		}
		if err := s.notShrunk(end.front.size); err != nil {
			return err
		}
		links, err := s.linksOf(ctx, tx, end, b)
		if err != nil {
			return err
		}
		p = b.put(end, now, nil, func(chain string) link { return links[chain] })
		insertPlace(tx, end.front.size, p)
		return nil
	})
	if err != nil {
		return 0, err
	}
	s.remember(p)
	return p.front.size, nil
}

// lockEnd returns the end of the log and the epoch, neither of which changes
// until the transaction ends.
func lockEnd(ctx context.Context, tx *database.Pipe) (t tail, now int64, err error) {
	var size, rows int64
	var front []byte
	tx.Query(func(scan func(...any) error) error {
		rows++
		return scan(&size, &front, &t.epoch)
	}, `SELECT size, front, epoch FROM audit_end FOR UPDATE`)
	tx.Query(func(scan func(...any) error) error {
		rows++
		return scan(&now)
	}, `SELECT epoch FROM head FOR SHARE`)
	if err = tx.Wait(ctx); err == nil && rows != 2 {
		err = sql.ErrNoRows
	}
	if err != nil {
		return t, 0, fmt.Errorf("read the end of the log and the epoch: %w", err)
	}
	t.front, err = parseFrontier(size, front)
	return t, now, err
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
func (s *sqlStore) linksOf(ctx context.Context, tx *database.Pipe, end tail, b *batch) (map[string]link, error) {
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
	tx.Query(func(scan func(...any) error) error {
		var chain string
		var k link
		var hash []byte
		if err := scan(&chain, &k.seq, &hash); err != nil || len(hash) != tlog.HashSize {
			return fmt.Errorf("a row of %d bytes: %w", len(hash), err)
		}
		k.hash = tlog.Hash(hash)
		links[chain] = k
		return nil
	}, `SELECT chain, seq, hash FROM audit_chains WHERE chain IN (`+placeholders(1, len(missing))+`)`, missing...)
	if err := tx.Wait(ctx); err != nil {
		return nil, fmt.Errorf("read chains: %w", err)
	}
	return links, nil
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

// insertPlace stores a batch, which begins at from, and the end of the log
// after it. That row is there: the transaction has locked it.
func insertPlace(tx *database.Pipe, from int64, p *place) {
	n := len(p.leaves)
	if n == 0 {
		return
	}
	index, at, leaves, entries := make([]int64, n), make([]int64, n), make([][]byte, n), make([][]byte, n)
	for i, now := 0, time.Now().UnixMilli(); i < n; i++ {
		index[i], at[i], leaves[i], entries[i] = from+int64(i), now, p.leaves[i][:], p.line(i)
	}
	tx.Insert(`INSERT INTO audit_entries (idx, at, leaf, entry)`, "", index, at, leaves, entries)
	if n := len(p.tiles); n > 0 {
		index, hashes := make([]int64, n), make([][]byte, n)
		for i := range n {
			index[i], hashes[i] = from/tileWidth+int64(i), p.tiles[i][:]
		}
		tx.Insert(`INSERT INTO audit_tiles (idx, hash)`, "", index, hashes)
	}
	chains, seqs, hashes := make([]string, 0, len(p.links)), make([]int64, 0, len(p.links)), make([][]byte, 0, len(p.links))
	for chain, k := range p.links {
		chains, seqs, hashes = append(chains, chain), append(seqs, k.seq), append(hashes, k.hash[:])
	}
	tx.Insert(`INSERT INTO audit_chains (chain, seq, hash)`, `ON CONFLICT (chain) DO UPDATE SET seq = excluded.seq, hash = excluded.hash`, chains, seqs, hashes)
	tx.Exec(`UPDATE audit_end SET size = $1, front = $2, epoch = $3 WHERE id = 1`, p.front.size, p.front.bytes(), p.epoch)
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
