package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
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

// A segment is a file of entries. Behind those of the last one are zeros, while
// the log is open.
type segment struct {
	first int64 // index of its first entry
	file  file
	size  int64 // bytes that are durable
}

// makeRoom sees to it that the last segment has room for n more bytes. Where
// there are zeros already, a batch changes nothing but bytes: a file that grows
// has a new length and new places on the disk too, which are written apart,
// together with whatever else waits there. That takes twice as long, and much
// longer beside somebody who writes other files.
//
// A disk that is too full for that may still have place for the batch, and for
// what others write: zeros that are of no use are not left there.
func (s *fileStore) makeRoom(g *segment, n int64) error {
	for s.room < g.size+n {
		from := max(s.room, g.size)
		if _, err := g.file.WriteAt(zeros[:], from); err != nil {
			return s.trim(g)
		}
		s.room = from + int64(len(zeros))
	}
	return nil
}

// zeros are what is written at once where there is no room, in bytes; see
// makeRoom.
var zeros [1 << 20]byte

// trim cuts off what is behind the entries of the last segment.
func (s *fileStore) trim(g *segment) error {
	if err := g.file.Truncate(g.size); err != nil {
		return err
	}
	s.room = 0
	return nil
}

// A fileStore is a log in a directory, for one server. The segments are the
// truth: entries, one a line. The files of leaves and of tiles are made of
// them again if they are missing, and so is the state, which only spares
// reading every segment at the start, and is not used if it does not fit the
// others.
type fileStore struct {
	dir      string
	epochNow func() (int64, error)
	openFile func(path string, flag int) (file, error)
	syncDir  func(path string) error
	rotate   int64 // segmentSize

	leafFile, tileFile file

	// room is how many bytes the last segment has, or 0 if that is not known.
	// It is of whoever writes.
	room int64

	// swap is held by who reads entries, and alone by who puts another file in
	// the place of a segment, whose offsets are other ones. It comes before mu.
	swap sync.RWMutex

	// write is called by one goroutine at a time, and changes the fields
	// below; mu guards them from those who read meanwhile.
	mu     sync.Mutex
	segs   []segment
	end    tail
	chains map[string]link
	seen   map[string]int64 // while loading: where the last record of each chain is
	broken bool             // what lies beyond the end may be something else than zeros
}

// openFiles opens the log in dir, creating it if there is none.
func openFiles(dir string, epochNow func() (int64, error), openFile func(string, int) (file, error)) (*fileStore, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	s := &fileStore{dir: dir, epochNow: epochNow, openFile: openFile, syncDir: syncDir, rotate: segmentSize, chains: make(map[string]link)}
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
func openPrivate(path string, flag int) (file, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|flag, 0o600)
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
	g.size += int64(len(p.text()))
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
		rows = appendLeafRow(rows, leaf, g.size+int64(p.starts[i]-1))
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
	if err := s.makeRoom(g, int64(len(p.text()))); err != nil {
		return err
	}
	if _, err := g.file.WriteAt(p.text(), g.size); err != nil {
		return err
	}
	return persist(g.file)
}

// repair cuts off what may have reached the disk of a batch that failed.
func (s *fileStore) repair() error {
	if !s.broken {
		return nil
	}
	if err := s.trim(&s.segs[len(s.segs)-1]); err != nil {
		return err
	}
	s.broken = false
	return nil
}

// turn begins the next segment, and saves the state at its beginning. Only the
// last segment has something behind its entries.
func (s *fileStore) turn() error {
	g := &s.segs[len(s.segs)-1]
	if err := errors.Join(s.leafFile.Sync(), s.tileFile.Sync(), s.trim(g), g.file.Sync()); err != nil {
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

// begin makes a segment and sees to it that its name survives a crash. One that
// it cannot use must not be found at the next start, when the one before has
// gone on.
func (s *fileStore) begin(first int64) error {
	f, err := s.openFile(s.path(first), writeThrough)
	if err != nil {
		return err
	}
	if err := s.syncDir(s.dir); err != nil {
		return errors.Join(err, f.Close(), os.Remove(s.path(first)))
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
	if n := len(s.segs); n > 0 && !s.broken {
		errs = append(errs, s.trim(&s.segs[n-1]))
	}
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
