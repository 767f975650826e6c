package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/mandate-sam/mandate"
)

var (
	_ mandate.Recorder = (*Log)(nil)
	_ mandate.Issued   = (*Log)(nil)
)

// Many who write at once get receipts of their own records, and an export of
// all of them holds.
func TestAuditRecord(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config) {
		cfg.Emulated = true
		l := openLog(t, cfg)
		const writers, each = 20, 30
		receipts := make([][]mandate.Receipt, writers)
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				for i := range each {
					r, err := l.Record(t.Context(), testRecord(w%5, fmt.Sprintf("w%d-%d", w, i)))
					if err != nil {
						t.Error(err)
					}
					receipts[w] = append(receipts[w], r)
				}
			})
		}
		wg.Wait()
		v := Verification{Key: cfg.Public}
		for w := range receipts {
			for i, r := range receipts[w] {
				e, err := l.Entry(t.Context(), r.Index)
				if err != nil || e.Leaf != r.Hash || e.Detail != fmt.Sprintf("w%d-%d", w, i) || !e.Emulated || e.Reason != "because <&>" {
					t.Fatalf("receipt %+v is of %+v, %v", r, e, err)
				}
				v.Receipts = append(v.Receipts, r)
			}
		}
		got := verify(t, export(t, l, Export{Whole: true}), v)
		if !got.OK || got.Records != writers*each || got.Chains != 5 {
			t.Errorf("got %+v", got)
		}
		for n := range 5 {
			v.Receipts = nil
			for w := n; w < writers; w += 5 {
				v.Receipts = append(v.Receipts, receipts[w]...)
			}
			if got := verify(t, export(t, l, Export{Chain: chainOfPartner(n)}), v); !got.OK || got.Records != writers*each/5 {
				t.Errorf("partner %d: %+v", n, got)
			}
		}
	})
}

// What was recorded comes back whole, in and out of the log's own form.
func TestAuditEntryRoundTrip(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config) {
		l := openLog(t, cfg)
		want := testRecord(0, `quote " and \ and ünï and }]`)
		want.Granted, want.Expires, want.Cached = []string{"User.Read"}, time.Now().Add(time.Hour).UTC(), true
		want.Evidence = &mandate.Evidence{PartnerCenter: true, AMR: []mandate.TokenAMR{{Token: "id_token", Methods: []string{"mfa"}}}}
		receipt := record(t, l, want)
		got, err := l.Entry(t.Context(), receipt.Index)
		if err != nil {
			t.Fatal(err)
		}
		want.Time = got.Time
		if !reflect.DeepEqual(want, got.Record) {
			t.Errorf("got %+v, want %+v", got.Record, want)
		}
		lines, err := l.Last(5)
		if err != nil || len(lines) != 1 || !strings.HasPrefix(string(lines[0]), `{"index":0,`) {
			t.Errorf("%s, %v", lines, err)
		}
		var back mandate.Record
		if err := json.Unmarshal(lines[0], &back); err != nil || back.Ticket != want.Ticket {
			t.Errorf("%+v, %v", back, err)
		}
	})
}

// A token that was decided before the last change of security state is not
// recorded; everything else in the batch is.
func TestAuditSuperseded(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config) {
		epoch := &epochAt{now: 1}
		cfg.Epoch = epoch
		l := openLog(t, cfg)
		raise := func() {
			epoch.now++
			if cfg.Dir == "" {
				if err := cfg.DB.Change(t.Context(), noChange); err != nil {
					t.Fatal(err)
				}
			}
		}
		if cfg.Dir == "" {
			epoch.now = must(cfg.DB.Epoch())
		}
		old := testRecord(0, "old")
		old.Epoch = epoch.now
		record(t, l, old)
		raise()
		if _, err := l.Record(t.Context(), old); !errors.Is(err, mandate.ErrSuperseded) {
			t.Errorf("in an epoch that no record speaks of yet: got %v", err)
		}
		now := old
		now.Epoch = epoch.now
		denied := old
		denied.Kind = mandate.KindDenied
		refreshed := old
		refreshed.Kind = mandate.KindRefreshed
		b := &batch{}
		for _, r := range []mandate.Record{old, now, denied, refreshed} {
			b.items = append(b.items, &item{kind: r.Kind, chain: chainOf(&r), epoch: r.Epoch, body: must(bodyFor(t, l, r))})
		}
		if _, err := l.store.write(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		if !errors.Is(b.items[0].err, mandate.ErrSuperseded) || b.items[1].err != nil || b.items[2].err != nil || !errors.Is(b.items[3].err, mandate.ErrSuperseded) {
			t.Errorf("got %v, %v, %v, %v", b.items[0].err, b.items[1].err, b.items[2].err, b.items[3].err)
		}
		if _, err := l.Record(t.Context(), old); !errors.Is(err, mandate.ErrSuperseded) {
			t.Errorf("got %v", err)
		}
		if got := verify(t, export(t, l, Export{Whole: true}), Verification{Key: cfg.Public}); !got.OK || got.Records != 3 {
			t.Errorf("got %+v", got)
		}
	})
}

func bodyFor(t testing.TB, l *Log, r mandate.Record) ([]byte, error) {
	r.Time = time.Now().UTC()
	k, err := l.keys.get(t.Context(), chainOf(&r), monthOf(r.Time), true)
	if err != nil {
		return nil, err
	}
	return body(&r, chainOf(&r), monthOf(r.Time), newSalt(), k.aead)
}

func TestAuditEpochUnknown(t *testing.T) {
	cfg := testConfig(t)
	epoch := &epochAt{now: 1}
	cfg.Epoch = epoch
	l := openLog(t, cfg)
	epoch.err = fmt.Errorf("%w: cut off", mandate.ErrUnavailable)
	if _, err := l.Record(t.Context(), testRecord(0, "x")); !errors.Is(err, mandate.ErrUnavailable) {
		t.Errorf("a token while the epoch is unknown: %v", err)
	}
	if _, err := l.Record(t.Context(), mandate.Record{Kind: mandate.KindDenied}); err != nil {
		t.Errorf("a refusal while the epoch is unknown: %v", err)
	}
}

func TestAuditLast(t *testing.T) {
	cfg := testConfig(t)
	l := openLog(t, cfg)
	fill(t, l, 300)
	for _, n := range []int{0, 1, 5, 299, 300, 1000} {
		got, err := l.Last(n)
		if err != nil || len(got) != min(n, 300) {
			t.Fatalf("Last(%d) = %d records, %v", n, len(got), err)
		}
		for i, line := range got {
			if want := fmt.Sprintf(`{"index":%d,`, 300-len(got)+i); !strings.HasPrefix(string(line), want) {
				t.Fatalf("Last(%d)[%d] is %.40s", n, i, line)
			}
		}
	}
}

func TestAuditWait(t *testing.T) {
	l := openLog(t, testConfig(t))
	done := make(chan error, 1)
	go func() { done <- l.Wait(t.Context(), 0) }()
	record(t, l, testRecord(0, ""))
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
func TestAuditAbandoned(t *testing.T) {
	l := openLog(t, testConfig(t))
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for range 50 { // select picks at random among what is ready
		l.Record(gone, testRecord(0, "abandoned"))
		record(t, l, testRecord(0, "kept"))
	}
}

func TestAuditAlive(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config) {
		l := openLog(t, cfg)
		k, other, elsewhere := partnerKey(0), partnerKey(1), partnerKey(0)
		elsewhere.Application = must(mandate.ParseAppID("bbbbbbbb-0000-0000-0000-00000000000a"))
		now := time.Now()
		in := func(d time.Duration) time.Time { return now.Add(d) }
		for _, r := range []mandate.Record{
			{Kind: mandate.KindIssued, Use: mandate.UseToken, Grant: k, Fingerprint: "a", Expires: in(time.Hour)},
			{Kind: mandate.KindIssued, Use: mandate.UseToken, Grant: k, Fingerprint: "a", Expires: in(time.Hour)}, // handed out twice
			{Kind: mandate.KindIssued, Use: mandate.UseToken, Grant: k, Fingerprint: "b", Expires: in(2 * time.Hour), Generation: 2},
			{Kind: mandate.KindIssued, Use: mandate.UseToken, Grant: k, Fingerprint: "c", Expires: in(-time.Second)},
			{Kind: mandate.KindIssued, Use: mandate.UseCall, Grant: k, Fingerprint: "d", Expires: in(3 * time.Hour)},
			{Kind: mandate.KindRefreshed, Grant: k, Fingerprint: "e", Expires: in(3 * time.Hour)},
			{Kind: mandate.KindIssued, Use: mandate.UseToken, Grant: other, Fingerprint: "f", Expires: in(3 * time.Hour)},
			{Kind: mandate.KindIssued, Use: mandate.UseToken, Grant: elsewhere, Fingerprint: "g", Expires: in(3 * time.Hour)},
			{Kind: mandate.KindChanged, Detail: "x"},
		} {
			r.Epoch = 1
			record(t, l, r)
		}
		n, until, err := l.Alive(t.Context(), *k, now)
		if err != nil || n != 2 || until.Sub(in(2*time.Hour)).Abs() > time.Millisecond {
			t.Errorf("got %d until %v, %v, want 2 until %v", n, until, err, in(2*time.Hour))
		}
		if n, _, err := l.Alive(t.Context(), *k, now.Add(30*time.Hour)); err != nil || n != 0 {
			t.Errorf("a day later: %d, %v", n, err)
		}
	})
}

// An export of a log without records holds, and one that cannot be made now is
// asked for again later.
func TestAuditExportOfNothing(t *testing.T) {
	cfg := testConfig(t)
	cfg.Memory = filepath.Join(t.TempDir(), "no", "memory")
	l := openLog(t, cfg)
	if err := l.Export(t.Context(), io.Discard, Export{Whole: true}); !errors.Is(err, mandate.ErrUnavailable) {
		t.Errorf("an export whose checkpoint cannot be kept: %v, want %v", err, mandate.ErrUnavailable)
	}
	if err := os.Mkdir(filepath.Dir(cfg.Memory), 0o700); err != nil {
		t.Fatal(err)
	}
	holds(t, cfg, l, 0)
	record(t, l, testRecord(0, "x"))
	exchange(t, cfg, nil, must(note.Sign(&note.Note{Text: (&Checkpoint{Origin: testOrigin, Size: 9}).text()}, cfg.Signer)))
	if err := l.Export(t.Context(), io.Discard, Export{Whole: true}); !errors.Is(err, ErrChanged) || errors.Is(err, mandate.ErrUnavailable) {
		t.Errorf("an export of a log that was cut: %v, want %v", err, ErrChanged)
	}
}
