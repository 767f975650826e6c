package main

import (
	"bufio"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/mandate-sam/mandate/audit"
)

func TestBenchMetrics(t *testing.T) {
	const out = `goos: linux
BenchmarkCacheOther-2   1   9 ns/op   9 ratio
BenchmarkCache-2   	       1	 123456 ns/op	         0 cache-allocs	       290.5 cache-ns	       1.015 ratio
PASS
`
	m, err := benchMetrics(out, "BenchmarkCache", "cache-ns", "ratio", "cache-allocs")
	if err != nil || m["cache-ns"] != 290.5 || m["ratio"] != 1.015 || m["cache-allocs"] != 0 {
		t.Errorf("got %v and %v", m, err)
	}
	for name, out := range map[string]string{
		"no result":     "PASS\n",
		"a metric less": "BenchmarkCache 1 5 ns/op\n",
		"no number":     "BenchmarkCache 1 x ratio\n",
	} {
		if _, err := benchMetrics(out, "BenchmarkCache", "ratio"); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestReadAnswer(t *testing.T) {
	for name, tt := range map[string]struct {
		in   string
		size int // -1: refused
	}{
		"whole":     {"HTTP/1.1 200 OK\r\nContent-Type: x\r\nContent-Length: 3\r\n\r\nabc", 3},
		"denied":    {"HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nabc", -1},
		"no length": {"HTTP/1.1 200 OK\r\n\r\n", -1},
		"cut off":   {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", -1},
	} {
		c := &loadConn{in: bufio.NewReader(strings.NewReader(tt.in))}
		if n, err := c.read(); tt.size < 0 && err == nil || tt.size >= 0 && (err != nil || n != tt.size) {
			t.Errorf("%s: got %d and %v, want %d", name, n, err, tt.size)
		}
	}
}

// A hit is one, and the world's partners do not share directory IDs.
func TestWorld(t *testing.T) {
	recorder := new(memoryRecorder)
	w, err := newWorld(100, recorder)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.warm(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := w.entra.calls.Load(); n != 300 {
		t.Errorf("filling the cache took %d redemptions, want 300", n)
	}
	before := recorder.n.Load()
	if _, err := w.hits(t.Context(), 50); err != nil {
		t.Fatal(err)
	}
	if n := recorder.n.Load() - before; n != 50 {
		t.Errorf("50 hits left %d records, want 50", n)
	}
	if _, err := newFloor(w.requests).hits(50); err != nil {
		t.Error(err)
	}
}

func TestStampedes(t *testing.T) {
	s, err := newStampede(new(memoryRecorder))
	if err != nil {
		t.Fatal(err)
	}
	floor := new(flights)
	m, err := newMSAL()
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]contender{"broker": s.expired, "floor": floor.expired, "MSAL": m.expired} {
		if _, err := f(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if s.calls != 1 || floor.calls != 1 || m.calls < 1 {
		t.Errorf("upstream calls: broker %d, floor %d, MSAL %d; want 1, 1 and at least 1", s.calls, floor.calls, m.calls)
	}
	if harmed, err := s.cancelFirst(t.Context()); err != nil || harmed != 0 || s.entra.calls.Load() != 1 {
		t.Errorf("first caller cancelled: %d harmed, %d calls, %v; want 0, 1 and no error", harmed, s.entra.calls.Load(), err)
	}
}

func TestDoors(t *testing.T) {
	err := withAudit(func(log *audit.Log, dir string) error {
		d, err := newDoors(t.Context(), dir, log)
		if err != nil {
			return err
		}
		defer d.close()
		if err := d.connect(t.Context()); err != nil {
			return err
		}
		sizes := make([]int, len(d.loads))
		for i, l := range d.loads {
			if sizes[i], err = l.answerSize(); err != nil {
				return err
			}
			if n, err := l.during(20 * time.Millisecond)(t.Context()); err != nil || n <= 0 {
				t.Errorf("server %d: %v answers a second, %v", i, n, err)
			}
		}
		if sizes[0] != sizes[2] || sizes[0] < 1900 || sizes[0] > 2048 {
			t.Errorf("answers have %v bytes, want some 2,000, and the bare server's as many", sizes)
		}
		if log.Count() == 0 {
			t.Error("the API left no records on the disk")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestLoadRefusesWhatDoesNotListen(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if _, err := newLoad(t.Context(), l.Addr().String(), 2, []string{"x"}); err == nil {
		t.Error("connected to nobody")
	}
}

// Everybody in the large fixture can sign in and redeem.
func TestTenants(t *testing.T) {
	s, _, err := newTenants(t.Context(), largeFixture(3, 8), "admin@p0.example", "admin@p2.example")
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if len(s.requests) != 2+3+2 {
		t.Errorf("%d tenants to redeem in, want the two partners' own and their 5 customers'", len(s.requests))
	}
	if us, err := s.redeeming(3)(t.Context()); err != nil || us <= 0 {
		t.Errorf("got %v us, %v", us, err)
	}
}
