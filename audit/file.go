package audit

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/mod/sumdb/tlog"
)

// A file is what a log needs of its [os.File]; a test gives one whose disk
// fills up.
type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Truncate(size int64) error
	Sync() error
}

const (
	// segmentSize is how long a segment gets before the next is begun.
	segmentSize = 64 << 20

	// leafRow is what the file of leaves has for each record: the hash, and
	// where the entry is in its segment.
	leafRow = tlog.HashSize + 8

	segmentSuffix = ".log"
)

// A segment is a file of entries.
type segment struct {
	first int64 // index of its first entry
	file  file
	size  int64 // bytes that are durable
}

// A fileStore is a log in a directory, for one server. The segments are the
// truth: entries, one a line. The files of leaves and of tiles are made of
// them again if they are missing or damaged, and so is the state, which only
// spares reading every segment at the start.
type fileStore struct {
	dir      string
	epochNow func() (int64, error)
	openFile func(path string) (file, error)
	rotate   int64 // segmentSize

	leafFile, tileFile file

	// write is called by one goroutine at a time, and changes the fields
	// below; mu guards them from those who read meanwhile.
	mu     sync.Mutex
	segs   []segment
	end    tail
	chains map[string]link
	broken bool // what lies beyond the end may be rubbish
}

// openFiles opens the log in dir, creating it if there is none.
func openFiles(dir string, epochNow func() (int64, error), openFile func(string) (file, error)) (*fileStore, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	s := &fileStore{dir: dir, epochNow: epochNow, openFile: openFile, rotate: segmentSize, chains: make(map[string]link)}
	if s.openFile == nil {
		s.openFile = openPrivate
	}
	if err := s.load(); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// openPrivate opens a file that only its owner can read.
func openPrivate(path string) (file, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && (!st.Mode().IsRegular() || st.Mode().Perm()&0o077 != 0) {
		err = fmt.Errorf("%s: its mode is %v; it must be a file that only its owner can read (0600)", path, st.Mode())
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// saved is the state at the beginning of a segment.
type saved struct {
	Size   int64                `json:"size"`
	Front  []byte               `json:"front"`
	Epoch  int64                `json:"epoch"`
	Chains map[string]savedLink `json:"chains"`
}

type savedLink struct {
	Seq  int64  `json:"seq"`
	Hash []byte `json:"hash"`
}

func (s *fileStore) load() (err error) {
	if s.leafFile, err = s.openFile(filepath.Join(s.dir, "leaves")); err != nil {
		return err
	}
	if s.tileFile, err = s.openFile(filepath.Join(s.dir, "tiles")); err != nil {
		return err
	}
	if err := s.openSegments(); err != nil {
		return err
	}
	from := s.restore()
	if err := errors.Join(s.leafFile.Truncate(s.end.front.size*leafRow), s.tileFile.Truncate(s.end.front.size/tileWidth*tlog.HashSize)); err != nil {
		return err
	}
	for i := from; i < len(s.segs); i++ {
		if err := s.replay(&s.segs[i], i == len(s.segs)-1); err != nil {
			return fmt.Errorf("%s: %w", s.path(s.segs[i].first), err)
		}
	}
	if len(s.segs) == 0 {
		return s.begin(0)
	}
	return nil
}

func (s *fileStore) path(first int64) string {
	return filepath.Join(s.dir, fmt.Sprintf("%020d", first)+segmentSuffix)
}

func (s *fileStore) openSegments() error {
	names, err := filepath.Glob(filepath.Join(s.dir, "*"+segmentSuffix))
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		first, err := strconv.ParseInt(strings.TrimSuffix(filepath.Base(name), segmentSuffix), 10, 64)
		if err != nil {
			return fmt.Errorf("%s is not a segment of this log", name)
		}
		f, err := s.openFile(name)
		if err != nil {
			return err
		}
		st, err := os.Stat(name)
		if err != nil {
			return err
		}
		s.segs = append(s.segs, segment{first, f, st.Size()})
	}
	return nil
}

// restore takes over the saved state, and returns the segment to go on with:
// the first one if the state cannot be used.
func (s *fileStore) restore() int {
	data, err := os.ReadFile(filepath.Join(s.dir, "state"))
	var v saved
	if err != nil || json.Unmarshal(data, &v) != nil {
		return 0
	}
	front, err := parseFrontier(v.Size, v.Front)
	at := slices.IndexFunc(s.segs, func(g segment) bool { return g.first == v.Size })
	if err != nil || at < 0 || !s.has(v.Size) {
		return 0
	}
	for chain, k := range v.Chains {
		if len(k.Hash) != tlog.HashSize {
			clear(s.chains)
			return 0
		}
		s.chains[chain] = link{k.Seq, tlog.Hash(k.Hash)}
	}
	s.end = tail{front, v.Epoch}
	return at
}

// has reports whether the files of leaves and tiles are long enough for that
// many records.
func (s *fileStore) has(size int64) bool {
	var b [1]byte
	ends := func(f file, n int64) bool {
		_, err := f.ReadAt(b[:], n-1)
		return n == 0 || err == nil
	}
	return ends(s.leafFile, size*leafRow) && ends(s.tileFile, size/tileWidth*tlog.HashSize)
}

// replay reads a segment, and writes its leaves and tiles. A torn end of the
// last one was never acknowledged and is cut off.
func (s *fileStore) replay(g *segment, last bool) error {
	if g.first != s.end.front.size {
		return fmt.Errorf("it begins with record %d, and the log before it ends with %d records", g.first, s.end.front.size)
	}
	r := bufio.NewReaderSize(io.NewSectionReader(g.file, 0, g.size), 1<<20)
	w := &leafWriter{s: s, at: g.first}
	var off int64
	for {
		line, err := r.ReadBytes('\n')
		if err == io.EOF && len(line) > 0 && last {
			g.size = off
			if err := g.file.Truncate(off); err != nil {
				return err
			}
			break
		}
		if err == io.EOF && len(line) == 0 {
			break
		}
		if err != nil {
			return fmt.Errorf("after record %d: %w", s.end.front.size-1, err)
		}
		leaf, err := s.follow(line[:len(line)-1])
		if err != nil {
			return fmt.Errorf("record %d, %d bytes into the file: %w", s.end.front.size, off, err)
		}
		if err := w.add(leaf, off); err != nil {
			return err
		}
		off += int64(len(line))
	}
	return w.flush()
}

// follow takes a line of a segment for the next record.
func (s *fileStore) follow(line []byte) (tlog.Hash, error) {
	if t, err := parseTrace(line); err == nil {
		if t.index != s.end.front.size {
			return t.leaf, fmt.Errorf("it says that it is %d", t.index)
		}
		s.chains[t.chain] = link{t.seq, t.leaf}
		return t.leaf, nil
	}
	h, _, err := parseHead(line)
	if err != nil {
		return tlog.Hash{}, err
	}
	last, known := s.chains[h.chain]
	switch {
	case h.index != s.end.front.size:
		return tlog.Hash{}, fmt.Errorf("it says that it is %d", h.index)
	case known && (h.seq != last.seq+1 || h.prev != last.hash):
		return tlog.Hash{}, fmt.Errorf("it does not follow record %d of %q", last.seq, h.chain)
	}
	leaf := tlog.RecordHash(line)
	s.chains[h.chain] = link{h.seq, leaf}
	s.end.epoch = max(s.end.epoch, h.epoch)
	return leaf, nil
}

// A leafWriter writes leaves and tiles while segments are read.
type leafWriter struct {
	s    *fileStore
	at   int64
	rows []byte
}

func (w *leafWriter) add(leaf tlog.Hash, off int64) error {
	n := w.s.end.front.size
	w.rows = appendLeafRow(w.rows, leaf, off)
	if tile, full := w.s.end.front.add(leaf); full {
		if _, err := w.s.tileFile.WriteAt(tile[:], n/tileWidth*tlog.HashSize); err != nil {
			return err
		}
	}
	if len(w.rows) < 1<<20 {
		return nil
	}
	return w.flush()
}

func (w *leafWriter) flush() error {
	_, err := w.s.leafFile.WriteAt(w.rows, w.at*leafRow)
	w.at += int64(len(w.rows) / leafRow)
	w.rows = w.rows[:0]
	return err
}

func appendLeafRow(b []byte, leaf tlog.Hash, off int64) []byte {
	return binary.BigEndian.AppendUint64(append(b, leaf[:]...), uint64(off))
}

// write implements [store].
func (s *fileStore) write(_ context.Context, b *batch) (int64, error) {
	if err := s.repair(); err != nil {
		return 0, err
	}
	now, why := s.epochNow()
	g := &s.segs[len(s.segs)-1]
	p := b.put(s.end, now, why, func(chain string) link { return s.chains[chain] })
	if err := s.append(g, p); err != nil {
		s.broken = true
		return 0, err
	}
	s.mu.Lock()
	s.end = p.tail
	maps.Copy(s.chains, p.links)
	g.size += int64(len(p.lines))
	full := g.size >= s.rotate
	s.mu.Unlock()
	if full {
		// What was to be written is written; a disk without room for another
		// segment shows at the next record.
		_ = s.turn()
	}
	return p.front.size, nil
}

// append hands a batch to the disk and waits until it has it. The files that
// can be made again are written first, so that no acknowledged record is
// missing from them while the process lives.
func (s *fileStore) append(g *segment, p *place) error {
	if len(p.leaves) == 0 {
		return nil
	}
	rows := make([]byte, 0, len(p.leaves)*leafRow)
	for i, leaf := range p.leaves {
		rows = appendLeafRow(rows, leaf, g.size+int64(p.starts[i]))
	}
	size := s.end.front.size
	if _, err := s.leafFile.WriteAt(rows, size*leafRow); err != nil {
		return err
	}
	for i := range p.tiles {
		if _, err := s.tileFile.WriteAt(p.tiles[i][:], (size/tileWidth+int64(i))*tlog.HashSize); err != nil {
			return err
		}
	}
	if _, err := g.file.WriteAt(p.lines, g.size); err != nil {
		return err
	}
	return g.file.Sync()
}

// repair cuts off what may have reached the disk of a batch that failed.
func (s *fileStore) repair() error {
	if !s.broken {
		return nil
	}
	g := &s.segs[len(s.segs)-1]
	if err := g.file.Truncate(g.size); err != nil {
		return err
	}
	s.broken = false
	return nil
}

// turn begins the next segment, and saves the state at its beginning.
func (s *fileStore) turn() error {
	if err := errors.Join(s.leafFile.Sync(), s.tileFile.Sync()); err != nil {
		return err
	}
	if err := s.begin(s.end.front.size); err != nil {
		return err
	}
	v := saved{Size: s.end.front.size, Front: s.end.front.bytes(), Epoch: s.end.epoch, Chains: make(map[string]savedLink)}
	for chain, k := range s.chains {
		v.Chains[chain] = savedLink{k.seq, k.hash[:]}
	}
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(s.dir, "state"), data)
}

// begin makes a segment and sees to it that its name survives a crash.
func (s *fileStore) begin(first int64) error {
	f, err := s.openFile(s.path(first))
	if err != nil {
		return err
	}
	if err := syncDir(s.dir); err != nil {
		f.Close()
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.segs = append(s.segs, segment{first: first, file: f})
	return nil
}

func (s *fileStore) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, f := range append([]file{s.leafFile, s.tileFile}, openSegmentFiles(s.segs)...) {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

func openSegmentFiles(segs []segment) (out []file) {
	for _, g := range segs {
		out = append(out, g.file)
	}
	return out
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// replaceFile puts data in the place of a file, all of it or nothing.
func replaceFile(path string, data []byte) error {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// A trace is what is left of an entry whose content was dropped: its hash, for
// the tree, and its place in its chain.
type trace struct {
	index int64
	leaf  tlog.Hash
	seq   int64
	chain string
}

func (t *trace) line() []byte {
	b := strconv.AppendInt([]byte(`{"index":`), t.index, 10)
	b = append(b, `,"leaf":"`...)
	b = base64.StdEncoding.AppendEncode(b, t.leaf[:])
	b = append(b, `","seq":`...)
	b = strconv.AppendInt(b, t.seq, 10)
	b = append(b, `,"chain":"`...)
	b = append(b, t.chain...)
	return append(b, `"}`...)
}

// parseTrace reverses line.
func parseTrace(line []byte) (t trace, err error) {
	c := cursor{b: line}
	c.word(`{"index":`)
	t.index = c.number()
	c.word(`,"leaf":"`)
	c.bytes(t.leaf[:])
	c.word(`","seq":`)
	t.seq = c.number()
	c.word(`,"chain":"`)
	t.chain = string(c.text())
	c.word(`}`)
	if c.bad || len(c.b) > 0 {
		err = errNotEntry
	}
	return t, err
}
