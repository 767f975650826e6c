package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/mod/sumdb/tlog"
)

// verifyAtOnce is how many lines are hashed together, in bytes.
const verifyAtOnce = 256 << 10

// A chunk is some lines on their way through verification.
type chunk struct {
	text  []byte // a line feed, then lines, each with its own
	err   error  // of reading
	lines []checked
	done  chan struct{} // gets a value when the lines are checked
}

// chunks are used again, so that verifying millions of records does not
// collect the memory of as many.
var chunks = sync.Pool{New: func() any {
	return &chunk{text: make([]byte, 0, verifyAtOnce+maxLine/16), done: make(chan struct{}, 1)}
}}

// A checked line has been hashed and taken apart.
type checked struct {
	text []byte
	kind lineKind
	leaf tlog.Hash
	head head
	gone trace
	err  error
}

type lineKind byte

const (
	lineEntry lineKind = iota
	lineTrace
	lineOther
)

// verifyWhole verifies the lines of a whole log. Hashing and parsing are done
// by as many as there are processors, and what depends on the order by one.
func verifyWhole(in io.Reader, v *Verification, verdict *Verdict) error {
	receipts, err := newReceiptBook(v.Receipts)
	if err != nil {
		return err
	}
	w := &wholeLog{v: v, verdict: verdict, receipts: receipts, seq: newSequence(), roots: make(map[int64]tlog.Hash), wanted: v.wantedSizes()}
	read, stop := readChunks(in)
	defer stop()
	for c := range read {
		<-c.done
		for i := range c.lines {
			if err := w.line(&c.lines[i]); err != nil {
				return err
			}
		}
		if c.err != nil {
			return c.err
		}
		if v.Progress != nil {
			v.Progress(w.front.size)
		}
		chunks.Put(c)
	}
	return w.finish()
}

// wantedSizes are those of checkpoints that are known beforehand.
func (v *Verification) wantedSizes() map[int64]bool {
	out := make(map[int64]bool)
	for _, signed := range v.Checkpoints {
		if c, err := ParseCheckpoint(signed, v.Key); err == nil {
			out[c.Size] = true
		}
	}
	return out
}

// readChunks reads lines, and has them checked. stop must be called.
func readChunks(in io.Reader) (<-chan *chunk, func()) {
	n := runtime.GOMAXPROCS(0)
	lines := lineReader{in: in}
	inOrder, work, quit := make(chan *chunk, 2*n), make(chan *chunk), make(chan struct{})
	var group sync.WaitGroup
	for range n {
		group.Go(func() {
			for c := range work {
				c.check()
				c.done <- struct{}{}
			}
		})
	}
	group.Go(func() {
		defer close(work)
		defer close(inOrder)
		for more := true; more; {
			c := chunks.Get().(*chunk)
			c.text, c.err = lines.read(append(c.text[:0], '\n'))
			more = c.err == nil
			if errors.Is(c.err, io.EOF) {
				c.err = nil
			}
			select {
			case inOrder <- c:
			case <-quit:
				return
			}
			select {
			case work <- c:
			case <-quit:
				return
			}
		}
	})
	return inOrder, func() { close(quit); group.Wait() }
}

// A lineReader reads many lines at once.
type lineReader struct {
	in   io.Reader
	rest []byte // the beginning of the next line
}

// read appends as many whole lines to buf as it has room for, and makes room
// for one at least. A last line without a line feed was cut off.
func (r *lineReader) read(buf []byte) ([]byte, error) {
	start := len(buf)
	buf = append(buf, r.rest...)
	for {
		n, err := io.ReadFull(r.in, buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		end := start + bytes.LastIndexByte(buf[start:], '\n') + 1
		r.rest = append(r.rest[:0], buf[end:]...)
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			if len(r.rest) > 0 {
				return buf[:end], wrong(-1, "its last line was cut off: %.60q", r.rest)
			}
			return buf[:end], io.EOF
		case err != nil || end > start:
			return buf[:end], err
		case len(buf)-start > maxLine:
			return buf[:end], fmt.Errorf("a line is longer than %d bytes", maxLine)
		}
		buf = slices.Grow(buf, len(buf))
	}
}

func (c *chunk) check() {
	c.lines = c.lines[:0]
	for at := 1; at < len(c.text); {
		n := bytes.IndexByte(c.text[at:], '\n')
		if n < 0 {
			return
		}
		c.lines = append(c.lines, checked{})
		c.lines[len(c.lines)-1].look(c.text[:at+n], at)
		at += n + 1
	}
}

// checkLine looks at a copy of a line.
func checkLine(b []byte) (l checked) {
	l.look(append([]byte{'\n'}, b...), 1)
	return l
}

// look looks at the line b[start:] by itself.
func (l *checked) look(b []byte, start int) {
	l.text = b[start:]
	if !bytes.HasPrefix(l.text, []byte(`{"index":`)) {
		l.kind = lineOther
		return
	}
	if t, err := parseTrace(l.text); err == nil {
		l.kind, l.gone, l.leaf = lineTrace, t, t.leaf
		return
	}
	var rest []byte
	if l.head, rest, l.err = parseHead(l.text); l.err == nil {
		_, l.err = parseRest(rest)
	}
	l.leaf = leafHash(b, start)
}

// A wholeLog is a log that is being verified from its first record on.
type wholeLog struct {
	v        *Verification
	verdict  *Verdict
	receipts receiptBook
	seq      *sequence
	front    frontier
	roots    map[int64]tlog.Hash // at the sizes of checkpoints
	wanted   map[int64]bool
	signed   [][]byte
	heads    []ChainHead
	ended    bool // by the heads
}

func (w *wholeLog) line(l *checked) error {
	if l.kind == lineOther {
		return w.other(l.text)
	}
	index := w.front.size
	if w.ended {
		return wrong(index, "a record comes after the end of the log")
	}
	err := l.err
	switch {
	case err != nil:
		err = wrong(index, "record %d: %v", index, err)
	case l.kind == lineTrace && l.gone.index != index, l.kind == lineEntry && l.head.index != index:
		err = wrong(index, "in the place of record %d is one that says that it is %d", index, max(l.gone.index, l.head.index))
	case l.kind == lineTrace:
		w.verdict.Dropped++
		err = w.seq.skip(&l.gone)
	default:
		err = w.seq.follow(&l.head, l.leaf)
	}
	if err == nil {
		err = w.receipts.see(index, l.leaf)
	}
	if err != nil {
		return err
	}
	w.front.add(l.leaf)
	w.verdict.Records++
	if w.wanted[w.front.size] {
		w.roots[w.front.size] = w.front.root()
	}
	return nil
}

// other takes in a line that is not a record.
func (w *wholeLog) other(b []byte) error {
	if signed, err := parseCheckpointLine(b); err == nil {
		// Those of the past come before the records, so that their sizes are
		// known in time.
		w.signed = append(w.signed, signed)
		if c, err := ParseCheckpoint(signed, w.v.Key); err == nil {
			w.wanted[c.Size] = true
			if c.Size == w.front.size {
				w.roots[c.Size] = w.front.root()
			}
		}
		return nil
	}
	if heads, err := parseHeadsLine(b); err == nil {
		w.heads, w.ended = append(w.heads, heads...), true
		return nil
	}
	return wrong(w.front.size, "%s is a line that is none of an export's: %.60q", behind(w.front.size-1), b)
}

// finish holds all that was read against what was signed.
func (w *wholeLog) finish() error {
	all, err := w.v.sightings(w.signed)
	if err != nil {
		return err
	}
	slices.SortStableFunc(all, func(a, b sighting) int { return int(min(1, max(-1, a.Size-b.Size))) })
	if len(all) == 0 {
		return wrong(-1, "there is no checkpoint: nothing says what the log should be")
	}
	last := all[len(all)-1]
	headsErr := w.checkHeads(last)
	good := int64(0)
	for _, s := range all {
		root, ok := w.roots[s.Size]
		switch {
		case s.Size > w.front.size:
			return wrong(w.front.size, "record %d is missing: a checkpoint of %s in %s speaks of %d records, and there are %d; if the export was made before that, make a new one",
				w.front.size, s.Time.Format("2006-01-02 15:04:05"), s.from, s.Size, w.front.size)
		case !ok && s.Size > 0:
			return wrong(-1, "a checkpoint of %d records stands after them in the export", s.Size)
		case s.Size > 0 && root != s.Root:
			var p *problem
			if errors.As(headsErr, &p) && p.first >= good {
				return headsErr
			}
			return wrong(good, "record %d, or one of those up to %d, is not what was signed at %s, in %s", good, s.Size-1, s.Time.Format("2006-01-02 15:04:05"), s.from)
		}
		good = s.Size
	}
	if headsErr != nil {
		return headsErr
	}
	if last.Size != w.front.size {
		return wrong(last.Size, "record %d and those behind it are under no checkpoint", last.Size)
	}
	if w.seq.epoch > last.Epoch {
		return wrong(w.seq.since, "record %d is of epoch %d, and the checkpoint of %d", w.seq.since, w.seq.epoch, last.Epoch)
	}
	if err := w.receipts.rest("the log"); err != nil {
		return err
	}
	w.verdict.Size, w.verdict.Root, w.verdict.Time, w.verdict.Chains = last.Size, last.Root.String(), last.Time.Format("2006-01-02T15:04:05Z"), len(w.seq.links)
	return w.v.witnessed(all, w.verdict)
}

// checkHeads holds the last records of the chains against the tree of chains
// that was signed. It can name a record that no other follows.
func (w *wholeLog) checkHeads(last sighting) error {
	heads, leaves := chainHeads(w.seq.heads())
	switch signed := treeOf(leaves) == last.Chains; {
	case signed && !slices.Equal(heads, w.heads):
		return wrong(-1, "the list of the partners' last records, with which the export ends, is missing or wrong")
	case signed:
		return nil
	}
	signed := make([]tlog.Hash, len(w.heads))
	for i := range w.heads {
		signed[i] = w.heads[i].leaf()
	}
	if treeOf(signed) != last.Chains {
		return wrong(-1, "the last records of the partners are not those that were signed at %s", last.Time.Format("2006-01-02 15:04:05"))
	}
	for _, h := range w.heads {
		i, ok := slices.BinarySearchFunc(heads, h.Chain, func(a ChainHead, b string) int { return strings.Compare(a.Chain, b) })
		switch {
		case !ok:
			return wrong(-1, "all %d records about %s are missing", h.Seq, chainName(h.Chain))
		case heads[i].Seq < h.Seq:
			return wrong(w.seq.links[h.Chain].index+1, "behind record %d, %d records about %s are missing", w.seq.links[h.Chain].index, h.Seq-heads[i].Seq, chainName(h.Chain))
		case heads[i] != h:
			return wrong(w.seq.links[h.Chain].index, "record %d is not the one that was signed: it was changed, or one before it was, and those behind made to fit", w.seq.links[h.Chain].index)
		}
	}
	return wrong(-1, "there are records about partners that the checkpoint does not know")
}
