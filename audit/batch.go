package audit

import (
	"context"
	"fmt"
	"runtime"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/mandate-sam/mandate"
)

// A link is the last record of a chain: what the next one follows.
type link struct {
	seq  int64
	hash tlog.Hash
}

// A tail is the end of a log: all that the next batch needs to know.
type tail struct {
	front frontier
	epoch int64 // the highest that was seen
}

// An item is one record that waits to be written.
type item struct {
	kind, chain string
	epoch       int64
	body        []byte
	index       int64     // set when it has a place
	leaf        tlog.Hash // likewise
	err         error
}

// ofToken reports whether the record says that somebody got a token, or that
// this server did. Such a record is not written in a later epoch than the
// decision.
func ofToken(kind string) bool { return kind == mandate.KindIssued || kind == mandate.KindRefreshed }

// A batch is written and flushed as one.
type batch struct {
	items []*item
	err   error         // of all of them
	done  chan struct{} // closed when every receipt or error is set
}

// A place is what becomes of the log with a batch in it. Nothing of the log
// itself has changed until the store says so.
type place struct {
	tail
	lines  []byte // a line feed, then entries, each with its own
	starts []int  // of each entry in lines
	leaves []tlog.Hash
	tiles  []tlog.Hash
	links  map[string]link // of the chains that have grown
}

// put gives every record of the batch its place behind t. A record of a token
// that was decided in an older epoch than now gets [mandate.ErrSuperseded]
// and no place; if the epoch is not known, why is its error. links returns
// the last record of a chain.
//
// A record of a later epoch than now raises it: so no record of a token comes
// after any of a later epoch, which verifying checks.
func (b *batch) put(t tail, now int64, why error, links func(chain string) link) *place {
	p := newPlace(tail{t.front.clone(), max(t.epoch, now)}, b.items)
	for _, it := range b.items {
		switch {
		case !ofToken(it.kind):
		case why != nil:
			it.err = why
			continue
		case it.epoch < p.epoch:
			it.err = fmt.Errorf("audit log: %w: epoch %d, and now it is %d", mandate.ErrSuperseded, it.epoch, p.epoch)
			continue
		}
		last, ok := p.links[it.chain]
		if !ok {
			last = links(it.chain)
		}
		p.add(it, last)
	}
	return p
}

// newPlace returns a place with room for as many records, in no epoch earlier
// than any of theirs.
func newPlace(t tail, items []*item) *place {
	room := 1
	for _, it := range items {
		t.epoch = max(t.epoch, it.epoch)
		room += len(it.body) + entryPlace
	}
	return &place{
		tail: t, lines: append(make([]byte, 0, room), '\n'), starts: make([]int, 0, len(items)),
		leaves: make([]tlog.Hash, 0, len(items)), links: make(map[string]link),
	}
}

func (p *place) add(it *item, last link) {
	index := p.front.size
	start := len(p.lines)
	p.starts = append(p.starts, start)
	p.lines = appendEntry(p.lines, index, last, it.body)
	leaf := leafHash(p.lines, start)
	p.lines = append(p.lines, '\n')
	p.leaves = append(p.leaves, leaf)
	if tile, full := p.front.add(leaf); full {
		p.tiles = append(p.tiles, tile)
	}
	p.links[it.chain] = link{last.seq + 1, leaf}
	it.index, it.leaf = index, leaf
}

// text returns all entries, each with its line feed.
func (p *place) text() []byte { return p.lines[1:] }

// line returns the i-th entry without its line feed.
func (p *place) line(i int) []byte {
	end := len(p.lines)
	if i+1 < len(p.starts) {
		end = p.starts[i+1]
	}
	return p.lines[p.starts[i] : end-1]
}

// enqueue adds a record to the pending batch, and sees to it that somebody
// writes it.
func (l *Log) enqueue(it *item) *batch {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pending == nil {
		l.pending = &batch{done: make(chan struct{})}
	}
	l.pending.items = append(l.pending.items, it)
	if !l.writing {
		l.writing = true
		go l.writeAll()
	}
	return l.pending
}

// writeAll writes one batch after the other until nobody waits. While one is
// flushed, the next collects.
func (l *Log) writeAll() {
	for {
		l.gather()
		l.mu.Lock()
		b := l.pending
		l.pending = nil
		l.writing = b != nil
		l.mu.Unlock()
		if b == nil {
			return
		}
		l.write(b)
	}
}

// write writes a batch. That is everybody's, so that it does not end when one
// of them gives up.
func (l *Log) write(b *batch) {
	ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
	defer cancel()
	size, err := l.store.write(ctx, b)
	if b.err = err; err == nil {
		l.grew(size) // first: who has a receipt finds the record
	}
	close(b.done)
}

// enough is how many records do not wait for more.
const enough = 1024

// gather lets those run who are ready to, for as long as that brings records
// in. When a flush ends, all who waited for it come back at once: without this
// the first of them would have the disk to itself, and the others would wait
// for two flushes. It waits for nobody who is not ready.
func (l *Log) gather() {
	for before := -1; ; {
		l.mu.Lock()
		now := 0
		if l.pending != nil {
			now = len(l.pending.items)
		}
		l.mu.Unlock()
		if now == before || now >= enough {
			return
		}
		before = now
		runtime.Gosched()
	}
}

// grew notes that there are as many records.
func (l *Log) grew(size int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if size <= l.size {
		return
	}
	l.size = size
	close(l.grown)
	l.grown = make(chan struct{})
}
