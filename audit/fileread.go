package audit

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

// at implements [store].
func (s *fileStore) at(context.Context) (tail, map[string]link, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return tail{s.end.front.clone(), s.end.epoch}, maps.Clone(s.chains), nil
}

// rows reads n rows of the file of leaves.
func (s *fileStore) rows(from, n int64) ([]byte, error) {
	buf := make([]byte, n*leafRow)
	_, err := s.leafFile.ReadAt(buf, from*leafRow)
	return buf, err
}

// leaves implements [hashes].
func (s *fileStore) leaves(_ context.Context, from, n int64) ([]tlog.Hash, error) {
	rows, err := s.rows(from, n)
	if err != nil {
		return nil, err
	}
	out := make([]tlog.Hash, 0, n)
	for row := range slices.Chunk(rows, leafRow) {
		out = append(out, tlog.Hash(row[:tlog.HashSize]))
	}
	return out, nil
}

// tiles implements [hashes].
func (s *fileStore) tiles(_ context.Context, from, n int64) ([]tlog.Hash, error) {
	buf := make([]byte, n*tlog.HashSize)
	if _, err := s.tileFile.ReadAt(buf, from*tlog.HashSize); err != nil {
		return nil, err
	}
	out := make([]tlog.Hash, 0, n)
	for h := range slices.Chunk(buf, tlog.HashSize) {
		out = append(out, tlog.Hash(h))
	}
	return out, nil
}

// maxRead bounds what is read at once, in bytes.
const maxRead = 4 << 20

// read implements [store]. It returns less than n where a segment ends, or
// where it would be too much at once.
func (s *fileStore) read(_ context.Context, from, n int64) ([]line, error) {
	s.swap.RLock()
	defer s.swap.RUnlock()
	s.mu.Lock()
	size, segs := s.end.front.size, slices.Clone(s.segs)
	s.mu.Unlock()
	if n = min(n, size-from); n <= 0 {
		return nil, nil
	}
	i := segmentOf(segs, from)
	g, end := segs[i], size
	if i+1 < len(segs) {
		end = segs[i+1].first
	}
	n = min(n, end-from)
	rows, err := s.rows(from, min(n+1, size-from))
	if err != nil {
		return nil, err
	}
	start := rowOffset(rows, 0)
	stop := g.size
	for ; n > 0; n-- {
		if from+n < end {
			stop = rowOffset(rows, n)
		} else {
			stop = g.size
		}
		if stop-start <= maxRead || n == 1 {
			break
		}
	}
	if start < 0 || start > stop || stop > g.size {
		return nil, s.misplaced(from)
	}
	buf := make([]byte, stop-start)
	if _, err := g.file.ReadAt(buf, start); err != nil {
		return nil, fmt.Errorf("%s: %w", s.path(g.first), err)
	}
	if int64(bytes.Count(buf, []byte("\n"))) != n || buf[len(buf)-1] != '\n' {
		return nil, s.misplaced(from)
	}
	return splitLines(buf, from, n), nil
}

// misplaced is the error for a record that is not where the file of leaves says.
func (s *fileStore) misplaced(index int64) error {
	return fmt.Errorf("record %d is not where the file of leaves says; stop the server, take %s and %s away, and start it: it makes both anew, or says which segment was changed",
		index, filepath.Join(s.dir, "leaves"), filepath.Join(s.dir, "state"))
}

func segmentOf(segs []segment, index int64) int {
	i, found := slices.BinarySearchFunc(segs, index, func(g segment, x int64) int { return int(min(1, max(-1, g.first-x))) })
	if !found {
		i--
	}
	// An empty segment begins where the one before it ends.
	return max(0, i)
}

func rowOffset(rows []byte, i int64) int64 {
	return int64(binary.BigEndian.Uint64(rows[i*leafRow+tlog.HashSize:]))
}

func splitLines(buf []byte, from, n int64) []line {
	out := make([]line, 0, n)
	for b := range bytes.Lines(buf) {
		out = append(out, lineOf(from+int64(len(out)), b[:len(b)-1]))
	}
	return out
}

// keep implements [store].
func (s *fileStore) keep(_ context.Context, c stamped) error {
	if err := replaceFile(filepath.Join(s.dir, "checkpoint"), c.note); err != nil {
		return err
	}
	if c.history {
		return appendLine(filepath.Join(s.dir, "checkpoints"), checkpointLine(c.note))
	}
	return nil
}

// latest implements [store].
func (s *fileStore) latest(context.Context) ([]byte, error) {
	note, err := os.ReadFile(filepath.Join(s.dir, "checkpoint"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return note, err
}

// history implements [store].
func (s *fileStore) history(context.Context) ([][]byte, error) {
	data, err := os.ReadFile(filepath.Join(s.dir, "checkpoints"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var out [][]byte
	for b := range bytes.Lines(data) {
		note, err := parseCheckpointLine(bytes.TrimSuffix(b, []byte("\n")))
		if err != nil {
			continue // torn by a crash; it is in the history of the witnesses
		}
		out = append(out, note)
	}
	return out, err
}

// appendLine appends a line to a file and waits until the disk has it.
func appendLine(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	return errors.Join(err, f.Sync(), f.Close())
}

// drop implements [store]. Whole segments lose their content: those whose
// successor begins before the time.
func (s *fileStore) drop(ctx context.Context, before time.Time) (n int64, err error) {
	s.mu.Lock()
	segs := slices.Clone(s.segs)
	s.mu.Unlock()
	for i := 0; i+1 < len(segs); i++ {
		next, err := s.read(ctx, segs[i+1].first, 1)
		if err != nil {
			return n, err
		}
		if len(next) == 0 || !next[0].dropped && !timeOf(next[0].text).Before(before) {
			break
		}
		dropped, err := s.empty(ctx, i)
		if n += dropped; err != nil {
			return n, err
		}
	}
	return n, nil
}

// empty replaces a segment by one that has only hashes.
func (s *fileStore) empty(ctx context.Context, i int) (n int64, err error) {
	s.mu.Lock()
	first, end := s.segs[i].first, s.segs[i+1].first
	s.mu.Unlock()
	var text, rows []byte
	for at := first; at < end; {
		lines, err := s.read(ctx, at, 1000)
		if err != nil {
			return 0, err
		}
		for _, v := range lines {
			if !v.dropped {
				n++
			}
			rows = appendLeafRow(rows, v.leaf, int64(len(text)))
			text = append(append(text, v.trace()...), '\n')
		}
		at += int64(len(lines))
	}
	if n == 0 {
		return 0, nil
	}
	// Readers wait: for a moment the offsets fit neither file.
	s.swap.Lock()
	defer s.swap.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	// Should this process end in between, everything is read anew.
	if err := os.Remove(filepath.Join(s.dir, "state")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, err
	}
	if err := replaceFile(s.path(first), text); err != nil {
		return 0, err
	}
	f, err := s.openFile(s.path(first), writeThrough)
	if err != nil {
		return 0, err
	}
	s.segs[i].file.Close()
	s.segs[i].file, s.segs[i].size = f, int64(len(text))
	_, err = s.leafFile.WriteAt(rows, first*leafRow)
	return n, err
}

// lineOf says what a line of the log is.
func lineOf(index int64, text []byte) line {
	if t, err := parseTrace(text); err == nil {
		return line{index, text, t.leaf, true}
	}
	return line{index, text, tlog.RecordHash(text), false}
}

// trace returns what is left of the line when its content is dropped.
func (v *line) trace() []byte {
	if v.dropped {
		return v.text
	}
	h, _, err := parseHead(v.text)
	if err != nil {
		return v.text // what was tampered with is not tidied away
	}
	t := trace{v.index, v.leaf, h.seq, h.chain}
	return t.line()
}

// timeOf returns when an entry was made.
func timeOf(entry []byte) time.Time {
	_, rest, err := parseHead(entry)
	if err != nil {
		return time.Time{}
	}
	c := cursor{b: rest}
	c.word(`,"time":"`)
	t, _ := time.Parse(time.RFC3339Nano, string(c.text()))
	return t
}
