package audit

import (
	"bytes"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
)

// The index gives way to the log, but not for ever.
func TestIndexPauses(t *testing.T) {
	for _, tt := range []struct {
		took time.Duration
		left int64
		err  error
		want time.Duration
	}{
		{time.Millisecond, 0, nil, 50 * time.Millisecond},
		{time.Second, 0, nil, 9 * time.Second},
		{time.Second, indexBehind, nil, 9 * time.Second},
		{time.Second, indexBehind + 1, nil, 0},
		{time.Second, indexBehind + 1, errors.New("gone"), time.Second},
	} {
		if got := pauseAfter(tt.took, tt.left, tt.err); got != tt.want {
			t.Errorf("after %v, %d left, %v: got %v, want %v", tt.took, tt.left, tt.err, got, tt.want)
		}
	}
}

// found returns how many records of tokens a search finds.
func found(t *testing.T, l *Log) int {
	t.Helper()
	entries, err := l.Search(t.Context(), Query{Kind: mandate.KindIssued, Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// An index that another log has left behind, longer or shorter than this one,
// is made anew, and one that is of this log is not.
func TestAuditIndexOfAnotherLog(t *testing.T) {
	for _, before := range []int{3, 7} {
		cfg := testConfig(t)
		other := openLog(t, cfg)
		fill(t, other, before)
		if found(t, other) != before {
			t.Fatal("the other log has no index")
		}
		other.Close()
		own := cfg
		own.Dir, own.Index = filepath.Join(t.TempDir(), "own"), openDB(t, filepath.Join(t.TempDir(), "index"))
		l := openLog(t, own)
		fill(t, l, 5)
		l.Close()
		var told bytes.Buffer
		own.Index, own.Log = nil, slog.New(slog.NewTextHandler(&told, nil))
		for range 2 {
			l = openLog(t, own)
			if got := found(t, l); got != 5 {
				t.Errorf("an index of %d: %d records are found, want 5", before, got)
			}
			for e, err := range l.entries(t.Context(), 0, 5) {
				if page, failed := l.Search(t.Context(), Query{Fingerprint: e.Fingerprint}); err != nil || failed != nil || len(page) != 1 || page[0].Leaf != e.Leaf {
					t.Errorf("an index of %d: record %d is found as %+v, %v", before, e.Index, page, failed)
				}
			}
			l.Close()
		}
		if n := strings.Count(told.String(), "is made anew"); n != 1 {
			t.Errorf("made anew %d times, want once", n)
		}
		if _, err := own.DB.Exec(t.Context(), `DELETE FROM audit_index WHERE idx = 4`); err != nil {
			t.Fatal(err)
		}
		if got := found(t, openLog(t, own)); got != 5 {
			t.Errorf("an index without its last row: %d records are found, want 5", got)
		}
	}
}

// What is old enough and keeps its content, because it is in a file with what
// is not, is found as before.
func TestAuditDropFindsTheRest(t *testing.T) {
	cfg := testConfig(t)
	l := openLog(t, cfg)
	l.store.(*fileStore).rotate = 4000
	fill(t, l, 15)
	if found(t, l) != 15 {
		t.Fatal("there is no index")
	}
	n, err := l.Drop(t.Context(), time.Now().Add(time.Hour))
	if err != nil || n == 0 || n == 15 {
		t.Fatalf("dropped %d, %v", n, err)
	}
	if got := found(t, l); got != 15-int(n) {
		t.Errorf("%d of 15 were dropped, and %d are found", n, got)
	}
}
