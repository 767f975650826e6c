package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
)

func record(t *testing.T, w *world, detail string) {
	t.Helper()
	if _, err := w.log.Record(t.Context(), mandate.Record{Kind: mandate.KindIssued, Detail: detail}); err != nil {
		t.Fatal(err)
	}
}

func details(lines []json.RawMessage) string {
	var out []string
	for _, l := range lines {
		var r mandate.Record
		json.Unmarshal(l, &r)
		out = append(out, r.Detail)
	}
	return strings.Join(out, " ")
}

func TestAudit(t *testing.T) {
	w := newWorld(t)
	for i := range 30 {
		record(t, w, fmt.Sprint(i))
	}
	lines, err := w.operator.Audit(t.Context(), 3)
	if err != nil || details(lines) != "27 28 29" {
		t.Errorf("got %s, %v", details(lines), err)
	}
	if _, _, body := send(t, w.operator, "GET", "/v1/audit", ""); strings.Count(body, `"index"`) != defaultLast {
		t.Errorf("by default there are %d records, want %d", strings.Count(body, `"index"`), defaultLast)
	}
	for query, field := range map[string]string{
		"last=-1": "last", "last=10001": "last", "last=x": "last", "last=": "last", "last=1&last=2": "last",
		"follow=yes": "follow", "follow=1&follow=1": "follow", "lst=1": "lst", "a=%": "query", "a;b": "query",
	} {
		status, _, body := send(t, w.operator, "GET", "/v1/audit?"+query, "")
		wantField(t, status, body, field)
	}
}

func TestAuditFollow(t *testing.T) {
	w := newWorld(t)
	for i := range 5 {
		record(t, w, fmt.Sprint(i))
	}
	for last, want := range map[int]string{2: "3 4 a b", 0: "a b", 100: "0 1 2 3 4 a b"} {
		w.log.mu.Lock()
		w.log.lines = w.log.lines[:5]
		w.log.mu.Unlock()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		var got []json.RawMessage
		go func() {
			time.Sleep(50 * time.Millisecond)
			record(t, w, "a")
			time.Sleep(20 * time.Millisecond)
			record(t, w, "b")
		}()
		for line, err := range w.operator.FollowAudit(ctx, last) {
			if err != nil {
				t.Fatal(err)
			}
			if got = append(got, line); strings.HasSuffix(details(got), "b") {
				break
			}
		}
		cancel()
		if details(got) != want {
			t.Errorf("the last %d and on: got %q, want %q", last, details(got), want)
		}
	}
}

// endingSignIns is one person whose session ends, or whose role is taken away.
type endingSignIns struct {
	*fakeSignIns
	asked, over, stripped atomic.Int64
	expires               time.Time
}

func (f *endingSignIns) Session(ctx context.Context, s mandate.Secret) (Operator, error) {
	f.asked.Add(1)
	o, err := f.fakeSignIns.Session(ctx, s)
	if f.over.Load() > 0 {
		err = mandate.ErrUnauthenticated
	}
	if f.stripped.Load() > 0 {
		o.Roles = nil
	}
	if !f.expires.IsZero() {
		o.Expires = f.expires
	}
	return o, err
}

// movingEpoch is raised by a test.
type movingEpoch struct{ now, fails atomic.Int64 }

func (e *movingEpoch) Epoch() (int64, error) {
	if e.fails.Load() > 0 {
		return 0, mandate.ErrUnavailable
	}
	return e.now.Load(), nil
}

// Who listens to new records hears none after the session, or its last role,
// has ended. While nothing changes nobody is asked.
func TestAuditFollowEndsWithSession(t *testing.T) {
	for what, end := range map[string]func(*endingSignIns, *movingEpoch){
		"signed out":           func(f *endingSignIns, e *movingEpoch) { f.over.Store(1); e.now.Add(1) },
		"no role any more":     func(f *endingSignIns, e *movingEpoch) { f.stripped.Store(1); e.now.Add(1) },
		"expired":              func(f *endingSignIns, _ *movingEpoch) { f.over.Store(1) },
		"nobody knows what is": func(_ *endingSignIns, e *movingEpoch) { e.fails.Store(1) },
	} {
		f, e := &endingSignIns{fakeSignIns: &fakeSignIns{roles: []string{RoleViewer}, at: time.Now()}}, &movingEpoch{}
		if what == "expired" {
			f.expires = time.Now().Add(-time.Second)
		}
		w := newWorld(t, func(c *Config) { c.SignIns, c.Epoch = f, e })
		person := must(NewOpenClient(w.tls.URL, w.tls.Client())).WithSession(mandate.NewSecret("mds_good"))
		heard, at := "", int64(0)
		record(t, w, "a")
		for line, err := range person.FollowAudit(t.Context(), 1) {
			if err != nil {
				break
			}
			switch heard += details([]json.RawMessage{line}); heard {
			case "a":
				at = f.asked.Load()
				record(t, w, "b")
			case "ab":
				if n := f.asked.Load() - at; n != 0 && what != "expired" {
					t.Errorf("%s: while nothing changed the session was asked for %d times", what, n)
				}
				end(f, e)
				record(t, w, "c")
			}
		}
		if heard != "ab" {
			t.Errorf("%s: heard %q", what, heard)
		}
	}
}

// A burst of records between two reads loses none and repeats none.
func TestAuditFollowBurst(t *testing.T) {
	w := newWorld(t)
	const n = 3000
	go func() {
		for i := range n {
			w.log.Record(context.Background(), mandate.Record{Detail: fmt.Sprint(i)})
		}
	}()
	next := int64(0)
	for line, err := range w.operator.FollowAudit(t.Context(), 10_000) {
		if err != nil {
			t.Fatal(err)
		}
		if i := must(indexOf(line)); i != next {
			t.Fatalf("got record %d, want %d", i, next)
		}
		if next++; next == n {
			break
		}
	}
}

// racingLog grows between Count and Last, as a real one does.
type racingLog struct{ *fakeLog }

func (l racingLog) Last(n int) ([]json.RawMessage, error) {
	l.Record(context.Background(), mandate.Record{Detail: "late"})
	return l.fakeLog.Last(n)
}

func TestAuditSinceRace(t *testing.T) {
	events := []string{}
	l := racingLog{&fakeLog{grown: make(chan struct{}), events: &events}}
	for range 4 {
		l.Record(t.Context(), mandate.Record{})
	}
	s := &Server{cfg: Config{Audit: l}}
	got, err := s.since(2)
	if err != nil || len(got) == 0 || must(indexOf(got[0])) != 2 {
		t.Errorf("got %s, %v, want records from 2 on", got, err)
	}
}

func TestAuditFollowServerEnds(t *testing.T) {
	w := newWorld(t)
	broken := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { io.WriteString(rw, "{}\n") }))
	defer broken.Close()
	c := must(NewClient(broken.URL, nil, "billing", mandate.NewSecret("x")))
	var last error
	for _, err := range c.FollowAudit(t.Context(), 1) {
		last = err
	}
	if !errors.Is(last, io.ErrUnexpectedEOF) {
		t.Errorf("got %v, want ErrUnexpectedEOF", last)
	}
	w.broker.set(nil)
}
