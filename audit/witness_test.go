package audit

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// cosigner returns a witness of ours that serves.
func cosigner(t *testing.T, dir string, logs ...note.Verifier) (*Cosigner, *httptest.Server) {
	t.Helper()
	c, err := NewCosigner(filepath.Join(dir, "seen"), filepath.Join(dir, "key"), "witness.test", logs...)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(c)
	t.Cleanup(s.Close)
	return c, s
}

func offer(t *testing.T, l *Log) WitnessStatus {
	t.Helper()
	must(l.Checkpoint(t.Context()))
	l.witnesses[0].offer(t.Context(), l)
	return l.Witnesses()[0]
}

// A cosigner follows the log, also when it has lost an answer or the log has
// been restarted, and its signature is on the checkpoints of exports.
func TestAuditCosigner(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config) {
		dir := t.TempDir()
		c, s := cosigner(t, dir, cfg.Public)
		key := must(ParseWitnessKey(c.Key()))
		cfg.Witnesses = []WitnessConfig{{Name: "w", Cosigner: s.URL, Key: key}}
		l := openLog(t, cfg)
		for size := int64(5); size <= 15; size += 5 {
			fill(t, l, 5)
			if got := offer(t, l); got.Size != size || got.Error != "" || got.Behind != 0 {
				t.Errorf("got %+v", got)
			}
		}
		v := Verification{Key: cfg.Public, Witnesses: []note.Verifier{key}}
		if got := verify(t, export(t, l, Export{Whole: true}), v); !got.OK || got.Witness[0] != 15 {
			t.Errorf("got %+v", got)
		}
		fill(t, l, 3) // not witnessed yet
		if got := verify(t, export(t, l, Export{Chain: chainOfPartner(0)}), v); !got.OK || got.Witness[0] != 15 {
			t.Errorf("got %+v", got)
		}
		l.Close()
		again := openLog(t, cfg)
		fill(t, again, 1)
		if got := offer(t, again); got.Size != 19 {
			t.Errorf("after a restart: %+v", got)
		}
	})
}

// With the stolen key somebody signs another history. The witness that has
// seen the first one refuses, and remembers across a restart.
func TestTamperFork(t *testing.T) {
	dir := t.TempDir()
	cfg := testConfig(t)
	c, s := cosigner(t, dir, cfg.Public)
	cfg.Witnesses = []WitnessConfig{{Name: "w", Cosigner: s.URL, Key: must(ParseWitnessKey(c.Key()))}}
	l := openLog(t, cfg)
	fill(t, l, 10)
	offer(t, l)
	for n, want := range map[int]string{5: "has seen 10 records", 10: "another checkpoint of 10 records", 12: "does not fit"} {
		fork := testConfig(t)
		fork.Signer, fork.Public, fork.Witnesses = cfg.Signer, cfg.Public, cfg.Witnesses
		other := openLog(t, fork)
		fill(t, other, n)
		if got := offer(t, other); !got.Changed || !strings.Contains(got.Error, want) {
			t.Errorf("a fork of %d records: %+v, want %q", n, got, want)
		}
	}
	_, s2 := cosigner(t, dir, cfg.Public)
	cfg.Witnesses[0].Cosigner = s2.URL
	fork := testConfig(t)
	fork.Signer, fork.Public, fork.Witnesses = cfg.Signer, cfg.Public, cfg.Witnesses
	other := openLog(t, fork)
	fill(t, other, 12)
	if got := offer(t, other); got.Error == "" || got.Size != 0 {
		t.Errorf("after the witness was restarted: %+v", got)
	}
}

// A cosigner refuses what is not in order, each with the status that C2SP
// tlog-witness has for it.
func TestAuditCosignerRefuses(t *testing.T) {
	cfg := testConfig(t)
	stranger := testConfig(t)
	dir := t.TempDir()
	_, s := cosigner(t, dir, cfg.Public)
	if _, err := NewCosigner(filepath.Join(dir, "seen"), filepath.Join(dir, "key"), "another.test", cfg.Public); err == nil || !strings.Contains(err.Error(), "not of \"another.test\"") {
		t.Errorf("with another's name: %v", err)
	}
	l, other := openLog(t, cfg), openLog(t, stranger)
	fill(t, l, 4)
	first := must(l.Checkpoint(t.Context()))
	fill(t, other, 4)
	foreign := must(other.Checkpoint(t.Context()))
	unknown := bytes.Replace(first, []byte(testOrigin), []byte("elsewhere"), 1)
	post := func(body string) int {
		resp, err := http.Post(s.URL+"/add-checkpoint", "text/plain", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		answer, _ := io.ReadAll(resp.Body)
		if resp.StatusCode == 409 && (resp.Header.Get("Content-Type") != "text/x.tlog.size" || string(answer) != "0\n" && string(answer) != "4\n") {
			t.Errorf("409 with %q", answer)
		}
		return resp.StatusCode
	}
	for _, tt := range []struct {
		name, body string
		want       int
	}{
		{"junk", "hello", 400}, {"no size", "old x\n\n" + string(first), 400}, {"size too large", "old 9\n\n" + string(first), 400},
		{"unknown log", "old 0\n\n" + string(unknown), 404}, {"another's key", "old 0\n\n" + string(foreign), 403},
		{"wrong size", "old 2\n\n" + string(first), 409}, {"good", "old 0\n\n" + string(first), 200}, {"again", "old 4\n\n" + string(first), 200},
		{"back to 0", "old 0\n\n" + string(first), 409}, {"a needless proof", "old 4\n" + strings.Repeat("A", 43) + "=\n\n" + string(first), 400},
	} {
		if got := post(tt.body); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

// blobs is a container whose blobs cannot be replaced.
type blobs struct {
	mu   sync.Mutex
	all  map[string][]byte
	down atomic.Bool
	read atomic.Int64 // the status of whoever reads; 0 lets them
}

func (b *blobs) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.down.Load():
		w.WriteHeader(503)
	case r.Method == "GET" && b.read.Load() != 0:
		w.WriteHeader(int(b.read.Load()))
	case r.Method == "GET" && b.all[r.URL.Path] != nil:
		w.Write(b.all[r.URL.Path])
	case r.Method != "PUT" || r.Header.Get("If-None-Match") != "*" || r.Header.Get("x-ms-blob-type") != "BlockBlob" || r.URL.Query().Get("sig") != "s3cr3t":
		w.WriteHeader(400)
	case b.all[r.URL.Path] != nil:
		w.WriteHeader(409)
	default:
		b.all[r.URL.Path], _ = io.ReadAll(r.Body)
		w.WriteHeader(201)
	}
}

// witnessedByBlobs gives a log a store of blobs for a witness.
func witnessedByBlobs(t *testing.T, cfg *Config) (*blobs, *httptest.Server) {
	t.Helper()
	b := &blobs{all: make(map[string][]byte)}
	s := httptest.NewServer(b)
	t.Cleanup(s.Close)
	cfg.Witnesses = []WitnessConfig{{Name: "worm", URL: s.URL + "/c?sig=s3cr3t"}}
	return b, s
}

// A witness that cannot be reached stops nothing, is told of, and catches up.
func TestAuditWitnessDown(t *testing.T) {
	cfg := testConfig(t)
	b, s := witnessedByBlobs(t, &cfg)
	l := openLog(t, cfg)
	fill(t, l, 3)
	if got := offer(t, l); got.Size != 3 || len(b.all) != 1 {
		t.Errorf("got %+v and %d blobs", got, len(b.all))
	}
	if c, err := ParseCheckpoint(b.all["/c/00000000000000000003"], cfg.Public); err != nil || c.Size != 3 {
		t.Errorf("the blob: %+v, %v", c, err)
	}
	b.down.Store(true)
	fill(t, l, 4)
	got := offer(t, l)
	if got.Size != 3 || got.Behind != 4 || got.Error == "" || got.Since.IsZero() || strings.Contains(got.Error, "s3cr3t") {
		t.Errorf("while it is down: %+v", got)
	}
	b.down.Store(false)
	if got := offer(t, l); got.Size != 7 || got.Behind != 0 || got.Error != "" {
		t.Errorf("when it is back: %+v", got)
	}
	s.Close()
	fill(t, l, 1)
	if got := offer(t, l); got.Error == "" || strings.Contains(got.Error, "s3cr3t") {
		t.Errorf("when it is gone: %+v", got)
	}
}

// A checkpoint that is there already is another replica's, or of another log:
// the log was set back, and has come to the same size again.
func TestTamperBlob(t *testing.T) {
	cfg := testConfig(t)
	b, _ := witnessedByBlobs(t, &cfg)
	l := openLog(t, cfg)
	fill(t, l, 3)
	offer(t, l)
	l.witnesses[0].status = WitnessStatus{Name: "worm"} // as after a restart
	if got := offer(t, l); got.Size != 3 || got.Error != "" {
		t.Errorf("its own: %+v", got)
	}
	fork := testConfig(t)
	var log bytes.Buffer
	fork.Signer, fork.Public, fork.Witnesses, fork.Log = cfg.Signer, cfg.Public, cfg.Witnesses, slog.New(slog.NewTextHandler(&log, nil))
	other := openLog(t, fork)
	fill(t, other, 3)
	b.down.Store(true)
	if got := offer(t, other); got.Changed || got.Size != 0 {
		t.Errorf("while it is down: %+v", got)
	}
	b.down.Store(false)
	for status, want := range map[int64]string{0: "another checkpoint of 3 records", 404: "answered 404"} {
		b.read.Store(status)
		if got := offer(t, other); got.Size != 0 || !strings.Contains(got.Error, want) {
			t.Errorf("another log's, read with %d: %+v", status, got)
		}
	}
	if got := other.Witnesses()[0]; !got.Changed || strings.Count(log.String(), "set back or rewritten") != 1 {
		t.Errorf("%+v is logged as %s", got, &log)
	}
	b.read.Store(403) // for writing only
	if got := offer(t, other); got.Size != 3 || got.Error != "" || got.Changed {
		t.Errorf("what may not be read: %+v", got)
	}
	b.read.Store(0)
	b.all["/c/00000000000000000004"] = []byte("junk")
	fill(t, other, 1)
	if got := offer(t, other); got.Size != 3 || got.Changed || !strings.Contains(got.Error, "checkpoint") {
		t.Errorf("junk: %+v", got)
	}
}

// A witness's file that a full disk has torn is gone on with on a new line, and
// the log is held against the last whole one; one that is gone is missed.
func TestTamperWitnessFile(t *testing.T) {
	kept := filepath.Join(t.TempDir(), "elsewhere")
	cfg := testConfig(t)
	cfg.Witnesses = []WitnessConfig{{Name: "file", File: kept}}
	l := openLog(t, cfg)
	tear := func() {
		if err := os.WriteFile(kept, append(must(os.ReadFile(kept)), `{"checkpoint":"to`...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	fill(t, l, 5)
	offer(t, l)
	tear()
	fill(t, l, 5)
	if got := offer(t, l); got.Size != 10 || got.Error != "" {
		t.Errorf("after a torn line: %+v", got)
	}
	data := must(os.ReadFile(kept))
	if lines := bytes.Split(data, []byte("\n")); len(lines) != 4 || must(ParseCheckpoint(must(parseCheckpointLine(lines[2])), cfg.Public)).Size != 10 {
		t.Errorf("the file has %q", lines)
	}
	if _, err := SplitCheckpoints(data); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("got %v", err)
	}
	tear()
	for n, want := range map[int]string{8: "speaks of 10 records, and there are 8", 12: "first 10 records"} {
		fork := testConfig(t)
		fork.Signer, fork.Public, fork.Witnesses = cfg.Signer, cfg.Public, cfg.Witnesses
		other := openLog(t, fork)
		fill(t, other, n)
		if got := offer(t, other); !got.Changed || !strings.Contains(got.Error, want) {
			t.Errorf("another log of %d records: %+v", n, got)
		}
	}
	if err := os.Remove(kept); err != nil {
		t.Fatal(err)
	}
	fill(t, l, 1)
	if got := offer(t, l); got.Size != 10 || !strings.Contains(got.Error, "is gone") {
		t.Errorf("without the file: %+v", got)
	}
	if err := os.WriteFile(kept, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := offer(t, l); got.Size != 11 || got.Error != "" {
		t.Errorf("with an empty one: %+v", got)
	}
}

// Run signs within a second or so, and tells witnesses; what it leaves in a
// file elsewhere shows that an older log is not this one.
func TestAuditRun(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config) {
		kept := filepath.Join(t.TempDir(), "elsewhere")
		cfg.Witnesses = []WitnessConfig{{Name: "file", File: kept}}
		l := openLog(t, cfg)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- l.Run(ctx) }()
		fill(t, l, 5)
		for deadline := time.Now().Add(20 * time.Second); l.Witnesses()[0].Size < 5; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("no checkpoint: %+v", l.Witnesses())
			}
		}
		fill(t, l, 2)
		stop()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if got := l.Witnesses()[0]; got.Size != 7 {
			t.Errorf("after the end: %+v", got)
		}
		var signed [][]byte
		data := must(os.ReadFile(kept))
		for line := range bytes.Lines(data) {
			signed = append(signed, must(parseCheckpointLine(bytes.TrimSpace(line))))
		}
		if got := verify(t, export(t, l, Export{Whole: true}), Verification{Key: cfg.Public, Checkpoints: signed}); !got.OK {
			t.Errorf("got %+v", got)
		}
		fork := testConfig(t)
		fork.Signer, fork.Public, fork.Witnesses = cfg.Signer, cfg.Public, cfg.Witnesses
		other := openLog(t, fork)
		fill(t, other, 9)
		must(other.Checkpoint(t.Context()))
		if got := offer(t, other); !strings.Contains(got.Error, ErrChanged.Error()) {
			t.Errorf("another log of that name: %+v", got)
		}
	})
}
