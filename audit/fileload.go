package audit

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

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
	if s.leafFile, err = s.openFile(filepath.Join(s.dir, "leaves"), 0); err != nil {
		return err
	}
	if s.tileFile, err = s.openFile(filepath.Join(s.dir, "tiles"), 0); err != nil {
		return err
	}
	if err := s.openSegments(); err != nil {
		return err
	}
	from := s.restore()
	if err := errors.Join(s.leafFile.Truncate(s.end.front.size*leafRow), s.tileFile.Truncate(s.end.front.size/tileWidth*tlog.HashSize)); err != nil {
		return err
	}
	s.seen = make(map[string]int64)
	defer func() { s.seen = nil }()
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
	names, err := segmentFiles(s.dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		first, err := strconv.ParseInt(strings.TrimSuffix(filepath.Base(name), segmentSuffix), 10, 64)
		if err != nil {
			return fmt.Errorf("%s is not a segment of this log", name)
		}
		f, err := s.openFile(name, writeThrough)
		if err != nil {
			return err
		}
		st, err := os.Stat(name)
		if err != nil {
			return err
		}
		s.segs = append(s.segs, segment{first: first, file: f, size: st.Size()})
	}
	return nil
}

// segmentFiles returns the segments in a directory, in their order.
func segmentFiles(dir string) (names []string, err error) {
	found, err := os.ReadDir(dir) // sorted; a pattern would mean something else where the directory's name has one in it
	for _, f := range found {
		if strings.HasSuffix(f.Name(), segmentSuffix) {
			names = append(names, filepath.Join(dir, f.Name()))
		}
	}
	return names, err
}

// restore takes over the saved state, and returns the segment to go on with:
// the first one if the state cannot be used, or if what it spares to read does
// not fit it. Then everything is read, which says what is wrong with which
// segment, and makes the other files anew.
func (s *fileStore) restore() int {
	data, err := os.ReadFile(filepath.Join(s.dir, "state"))
	var v saved
	if err != nil || json.Unmarshal(data, &v) != nil {
		return 0
	}
	front, err := parseFrontier(v.Size, v.Front)
	at := slices.IndexFunc(s.segs, func(g segment) bool { return g.first == v.Size })
	if err != nil || at <= 0 || !s.has(v.Size) || !s.joined(at) {
		return 0
	}
	if root, err := tlog.TreeHash(v.Size, reader{context.Background(), s}); err != nil || root != front.root() {
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

// joined reports whether the log begins with the first segment, and each one
// before the n-th ends with the record before that with which the next begins,
// as far as its last line says.
func (s *fileStore) joined(n int) bool {
	for i, g := range s.segs[:n] {
		if !s.endsWith(g, s.segs[i+1].first-1) {
			return false
		}
	}
	return s.segs[0].first == 0
}

// endsWith reports whether what is at the end of a segment, where the file of
// leaves says, is that record.
func (s *fileStore) endsWith(g segment, index int64) bool {
	row, err := s.rows(index, 1)
	if err != nil {
		return false
	}
	at := rowOffset(row, 0)
	b, err := io.ReadAll(io.NewSectionReader(g.file, at, g.size-at))
	end := len(b) - 1
	if err != nil || end < 0 || b[end] != '\n' {
		return false
	}
	v := lineOf(index, b[:end])
	return v.leaf == tlog.Hash(row[:tlog.HashSize])
}

// replay reads a segment, and writes its leaves and tiles. The last one may end
// in the middle of a batch, of which any part reached the disk, and the zeros
// that were there before are where the others are not. None of it was
// acknowledged, and it is left alone until the next batch is written: should it
// have been more than that, and something else that put a zero into a record,
// then the last checkpoint tells, and there is everything to look into.
func (s *fileStore) replay(g *segment, last bool) error {
	if g.first != s.end.front.size {
		return fmt.Errorf("it begins with record %d, and the log before it ends with %d records", g.first, s.end.front.size)
	}
	r := bufio.NewReaderSize(io.NewSectionReader(g.file, 0, g.size), 1<<20)
	w := &leafWriter{s: s, at: g.first}
	var off int64
	for {
		line, err := r.ReadBytes('\n')
		if last && len(line) > 0 && (err == io.EOF || err == nil && bytes.IndexByte(line, 0) >= 0) {
			g.size, s.broken = off, true
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
		s.chains[t.chain], s.seen[t.chain] = link{t.seq, t.leaf}, t.index
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
		if at, ok := s.seen[h.chain]; ok {
			return tlog.Hash{}, fmt.Errorf("it was not written after record %d, the one before it about the same partner, as that is now: that was changed, or another was put in its place", at)
		}
		return tlog.Hash{}, fmt.Errorf("it does not follow number %d of %q", last.seq, h.chain)
	}
	leaf := tlog.RecordHash(line)
	s.chains[h.chain], s.seen[h.chain] = link{h.seq, leaf}, h.index
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
