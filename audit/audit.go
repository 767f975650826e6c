// Package audit is the append-only log of what was decided and done.
//
// It is a file of JSON objects, one a line. A record is durable before
// whatever it speaks of happens: [Log.Record] returns only after the disk has
// it, and writers that arrive together share one flush. A line that was torn
// by a crash was never acknowledged, and is cut off when the log is opened.
package audit

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/mandate-sam/mandate"
)

// A file is what a Log needs of its [os.File]; a test gives one whose disk
// fills up.
type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Truncate(size int64) error
	Sync() error
}

// A Log is an open audit log. Its methods may be called concurrently.
type Log struct {
	emulated bool

	mu      sync.Mutex // guards the fields below
	file    file
	pending *batch // collects records while another batch is being written
	writing bool
	broken  bool          // what lies beyond size may be rubbish
	size    int64         // bytes that are durable
	next    int64         // index of the next record
	grown   chan struct{} // closed when size grows
}

// A batch is written and flushed as one.
type batch struct {
	bodies   [][]byte // records without their index, from the second byte on
	receipts []mandate.Receipt
	err      error
	done     chan struct{} // closed when receipts or err is set
	lead     chan struct{} // holds one token when the batch may be written
}

// Open opens the log at path, creating it with mode 0600 if it is absent, and
// cuts off a torn last line. If emulated, every record says so.
func Open(path string, emulated bool) (*Log, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open audit log: %w", err)
	}
	l, err := open(f, emulated)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open audit log %s: %w", path, err)
	}
	return l, nil
}

func open(f *os.File, emulated bool) (*Log, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if mode := st.Mode(); !mode.IsRegular() || mode.Perm()&0o077 != 0 {
		return nil, fmt.Errorf("its mode is %v; it must be a file that only its owner can read (0600)", mode)
	}
	l := &Log{emulated: emulated, file: f, grown: make(chan struct{})}
	if l.size, err = endOfLines(f, st.Size()); err != nil {
		return nil, err
	}
	if err := f.Truncate(l.size); err != nil {
		return nil, err
	}
	last, err := l.Last(1)
	if err != nil || len(last) == 0 {
		return l, err
	}
	var line struct {
		Index *int64 `json:"index"`
	}
	if err := json.Unmarshal(last[0], &line); err != nil || line.Index == nil {
		return nil, errors.New("its last line is not a record")
	}
	l.next = *line.Index + 1
	return l, nil
}

// Close closes the file. Nothing may be recorded any more.
func (l *Log) Close() error { return l.file.Close() }

// Record implements [mandate.Recorder]. Its errors wrap
// [mandate.ErrUnavailable]; after one, the next call tries the disk again.
//
// A record that was handed to the disk may turn out durable though ctx ended
// meanwhile; then it tells of something that did not happen, which is the safe
// side to err on.
func (l *Log) Record(ctx context.Context, r mandate.Record) (mandate.Receipt, error) {
	r.Time = time.Now().UTC()
	r.Emulated = l.emulated
	body, err := json.Marshal(r)
	if err != nil {
		return mandate.Receipt{}, fmt.Errorf("encode record: %w", err)
	}
	b, i := l.enqueue(body[1:])
	select {
	case <-b.lead:
		l.lead(b)
	case <-b.done:
	case <-ctx.Done():
		return mandate.Receipt{}, fmt.Errorf("record: %w", context.Cause(ctx))
	}
	if b.err != nil {
		return mandate.Receipt{}, fmt.Errorf("%w: audit log: %w", mandate.ErrUnavailable, b.err)
	}
	return b.receipts[i], nil
}

// enqueue adds a record to the pending batch. If no batch is being written,
// this one may be.
func (l *Log) enqueue(body []byte) (b *batch, i int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pending == nil {
		l.pending = &batch{done: make(chan struct{}), lead: make(chan struct{}, 1)}
		if !l.writing {
			l.writing = true
			l.pending.lead <- struct{}{}
		}
	}
	l.pending.bodies = append(l.pending.bodies, body)
	return l.pending, len(l.pending.bodies) - 1
}

// lead writes b, the pending batch, and lets one of those who arrived
// meanwhile write the next: a flush serves many, and nobody serves for ever.
func (l *Log) lead(b *batch) {
	l.mu.Lock()
	l.pending = nil
	l.mu.Unlock()
	b.err = l.write(b)
	close(b.done)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pending == nil {
		l.writing = false
		return
	}
	l.pending.lead <- struct{}{}
}

// write appends b. After an error nothing of it counts: what may have reached
// the disk is cut off before anything else is written.
func (l *Log) write(b *batch) error {
	if l.broken {
		if err := l.file.Truncate(l.size); err != nil {
			return err
		}
		l.broken = false
	}
	var buf bytes.Buffer
	for i, body := range b.bodies {
		start := buf.Len()
		buf.WriteString(`{"index":`)
		buf.WriteString(strconv.FormatInt(l.next+int64(i), 10))
		buf.WriteByte(',')
		buf.Write(body)
		sum := sha256.Sum256(buf.Bytes()[start:])
		buf.WriteByte('\n')
		b.receipts = append(b.receipts, mandate.Receipt{Index: l.next + int64(i), Hash: hex.EncodeToString(sum[:])})
	}
	if _, err := l.file.WriteAt(buf.Bytes(), l.size); err != nil {
		l.broken = true
		return err
	}
	if err := l.file.Sync(); err != nil {
		l.broken = true
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.size += int64(buf.Len())
	l.next += int64(len(b.bodies))
	close(l.grown)
	l.grown = make(chan struct{})
	return nil
}
