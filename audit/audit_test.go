package audit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/mandate-sam/mandate"
)

func openTest(t *testing.T) (*Log, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	l, err := Open(path, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, path
}

func index(t *testing.T, line []byte) int64 {
	t.Helper()
	var v struct{ Index int64 }
	if err := json.Unmarshal(line, &v); err != nil {
		t.Fatalf("line %q: %v", line, err)
	}
	return v.Index
}

func TestRecord(t *testing.T) {
	l, path := openTest(t)
	const writers, each = 20, 50
	receipts := make([][]mandate.Receipt, writers)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				r, err := l.Record(t.Context(), mandate.Record{Kind: mandate.KindIssued, Purpose: fmt.Sprintf("w%d-%d", w, i)})
				if err != nil {
					t.Error(err)
				}
				receipts[w] = append(receipts[w], r)
			}
		})
	}
	wg.Wait()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
	if len(lines) != writers*each {
		t.Fatalf("%d lines, want %d", len(lines), writers*each)
	}
	for w := range receipts {
		for i, r := range receipts[w] {
			line := lines[r.Index]
			sum := sha256.Sum256([]byte(line))
			if hex.EncodeToString(sum[:]) != r.Hash || index(t, []byte(line)) != r.Index || !strings.Contains(line, fmt.Sprintf(`"w%d-%d"`, w, i)) {
				t.Fatalf("receipt %+v does not fit line %q", r, line)
			}
		}
	}
	if !strings.Contains(lines[0], `"emulated":true`) {
		t.Errorf("line %q does not say that it is emulated", lines[0])
	}
}

func TestReopen(t *testing.T) {
	for _, tail := range []string{"", `{"index":2,"ki`, strings.Repeat("x", 3*block)} {
		l, path := openTest(t)
		for range 2 {
			if _, err := l.Record(t.Context(), mandate.Record{Kind: mandate.KindIssued}); err != nil {
				t.Fatal(err)
			}
		}
		l.Close()
		f, _ := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		f.WriteString(tail)
		f.Close()
		l, err := Open(path, false)
		if err != nil {
			t.Fatal(err)
		}
		r, err := l.Record(t.Context(), mandate.Record{Kind: mandate.KindDenied})
		if err != nil || r.Index != 2 {
			t.Errorf("after a torn tail of %d bytes: receipt %+v, %v, want index 2", len(tail), r, err)
		}
		all, err := l.Last(10)
		if err != nil || len(all) != 3 {
			t.Errorf("after a torn tail: %d records, %v, want 3", len(all), err)
		}
		l.Close()
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	wide := filepath.Join(dir, "wide")
	os.WriteFile(wide, nil, 0o600)
	os.Chmod(wide, 0o640)
	junk := filepath.Join(dir, "junk")
	os.WriteFile(junk, []byte("hello\n"), 0o600)
	for path, want := range map[string]string{wide: "0600", junk: "not a record", dir: "directory"} {
		if _, err := Open(path, false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open(%s) = %v, want an error with %q", filepath.Base(path), err, want)
		}
	}
}

func TestLast(t *testing.T) {
	l, _ := openTest(t)
	long := strings.Repeat("x", 1000)
	for i := range 300 { // some 300 kB: several blocks
		if _, err := l.Record(t.Context(), mandate.Record{Kind: mandate.KindChanged, Detail: fmt.Sprint(i, long)}); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []int{0, 1, 5, 70, 299, 300, 1000} {
		got, err := l.Last(n)
		if err != nil || len(got) != min(n, 300) {
			t.Fatalf("Last(%d) = %d records, %v", n, len(got), err)
		}
		for i, line := range got {
			if want := int64(300 - len(got) + i); index(t, line) != want {
				t.Fatalf("Last(%d)[%d] has index %d, want %d", n, i, index(t, line), want)
			}
		}
	}
}

func TestWait(t *testing.T) {
	l, _ := openTest(t)
	done := make(chan error, 1)
	go func() { done <- l.Wait(t.Context(), 0) }()
	if _, err := l.Record(t.Context(), mandate.Record{}); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Wait(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait on an ended context = %v", err)
	}
}

// Whoever gives up while its batch waits leaves it to the next to write.
func TestRecordAbandoned(t *testing.T) {
	l, _ := openTest(t)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for range 50 { // select picks at random among what is ready
		l.Record(gone, mandate.Record{Purpose: "abandoned"})
		if _, err := l.Record(t.Context(), mandate.Record{Purpose: "kept"}); err != nil {
			t.Fatal(err)
		}
	}
}

// fullDisk fails while full is set, after writing half of what it was given.
type fullDisk struct {
	file
	full, noSync atomic.Bool
}

func (d *fullDisk) WriteAt(p []byte, off int64) (int, error) {
	if d.full.Load() {
		n, _ := d.file.WriteAt(p[:len(p)/2], off)
		return n, syscall.ENOSPC
	}
	return d.file.WriteAt(p, off)
}

func (d *fullDisk) Sync() error {
	if d.noSync.Load() {
		return syscall.EIO
	}
	return d.file.Sync()
}

func TestDiskFullRecovers(t *testing.T) {
	l, path := openTest(t)
	d := &fullDisk{file: l.file}
	l.file = d
	for range 3 {
		if _, err := l.Record(t.Context(), mandate.Record{Purpose: "good"}); err != nil {
			t.Fatal(err)
		}
		for _, dial := range []*atomic.Bool{&d.full, &d.noSync} {
			dial.Store(true)
			_, err := l.Record(t.Context(), mandate.Record{Purpose: "lost-and-longer-than-the-others"})
			if !errors.Is(err, mandate.ErrUnavailable) {
				t.Fatalf("Record on a failing disk = %v, want ErrUnavailable", err)
			}
			dial.Store(false)
		}
	}
	if _, err := l.Record(t.Context(), mandate.Record{Purpose: "good"}); err != nil {
		t.Fatal(err)
	}
	data, _ := os.ReadFile(path)
	lines := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
	if len(lines) != 4 || strings.Contains(string(data), "lost") {
		t.Fatalf("log after a full disk:\n%s", data)
	}
	for i, line := range lines {
		if index(t, []byte(line)) != int64(i) {
			t.Errorf("line %d is %q", i, line)
		}
	}
}

func BenchmarkRecord(b *testing.B) {
	l, err := Open(filepath.Join(b.TempDir(), "a"), false)
	if err != nil {
		b.Fatal(err)
	}
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			l.Record(b.Context(), mandate.Record{Kind: mandate.KindIssued, Purpose: "p"})
		}
	})
}
