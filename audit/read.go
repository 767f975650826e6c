package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"iter"
	"slices"
)

// block is how much is read at a time from the end of the file, in bytes.
const block = 64 << 10

// Last returns the last n records as written, oldest first; fewer if there are
// fewer.
func (l *Log) Last(n int) ([]json.RawMessage, error) {
	var out []json.RawMessage
	for line, err := range l.Backwards() {
		if len(out) >= n {
			break
		}
		if err != nil {
			return nil, err
		}
		out = append(out, line)
	}
	slices.Reverse(out)
	return out, nil
}

// Backwards returns the records as written, the newest first, without those
// that are added meanwhile. The last pair has an error if the rest cannot be
// read.
func (l *Log) Backwards() iter.Seq2[json.RawMessage, error] {
	return func(yield func(json.RawMessage, error) bool) {
		l.mu.Lock()
		end := l.size
		l.mu.Unlock()
		var rest []byte // the beginning of a line whose end was already read
		for end > 0 {
			start := max(0, end-block)
			buf := make([]byte, end-start, int(end-start)+len(rest))
			if _, err := l.file.ReadAt(buf, start); err != nil && err != io.EOF {
				yield(nil, err)
				return
			}
			buf = append(buf, rest...)
			lines := bytes.Split(bytes.TrimSuffix(buf, []byte("\n")), []byte("\n"))
			rest = nil
			if start > 0 { // the first line may have begun earlier
				rest = append(slices.Clone(lines[0]), '\n')
				lines = lines[1:]
			}
			for _, line := range slices.Backward(lines) {
				if !yield(json.RawMessage(line), nil) {
					return
				}
			}
			end = start
		}
	}
}

// Count returns how many records there are.
func (l *Log) Count() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.next
}

// Wait returns when there are more than count records, or with ctx's error.
func (l *Log) Wait(ctx context.Context, count int64) error {
	for {
		l.mu.Lock()
		grown, next := l.grown, l.next
		l.mu.Unlock()
		if next > count {
			return nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// endOfLines returns the offset behind the last line feed in the first size
// bytes of f.
func endOfLines(f io.ReaderAt, size int64) (int64, error) {
	for end := size; end > 0; {
		start := max(0, end-block)
		buf := make([]byte, end-start)
		if _, err := f.ReadAt(buf, start); err != nil && err != io.EOF {
			return 0, err
		}
		if i := bytes.LastIndexByte(buf, '\n'); i >= 0 {
			return start + int64(i) + 1, nil
		}
		end = start
	}
	return 0, nil
}
