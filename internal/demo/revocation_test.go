package demo

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/internal/pgtest"
)

// promised is how long after a revocation was acknowledged anybody may still
// get a token.
const promised = time.Second

// A wire is a TCP proxy which can be cut: it goes on accepting, and forwards
// nothing, as a network does that has lost its way.
type wire struct {
	net.Listener
	to  string
	cut atomic.Bool
}

func newWire(t *testing.T, to string) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	w := &wire{Listener: l, to: to}
	go func() {
		for {
			a, err := l.Accept()
			if err != nil {
				return
			}
			b, err := net.Dial("tcp", to)
			if err != nil {
				a.Close()
				continue
			}
			go w.carry(a, b)
			go w.carry(b, a)
		}
	}()
	return w
}

func (w *wire) carry(from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		for w.cut.Load() {
			time.Sleep(5 * time.Millisecond)
		}
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

// newRevocationFleet is three replicas: one hears notices, one has only
// polling, because its listen URL leads nowhere, and one is behind a wire.
func newRevocationFleet(t *testing.T) (*fleet, *wire) {
	t.Helper()
	f := newFleet(t, 3)
	u, err := url.Parse(f.pg.TCP(f.url))
	if err != nil {
		t.Fatal(err)
	}
	w := newWire(t, u.Host)
	u.Host, u.User = w.Addr().String(), url.User(u.User.Username())
	if err := os.WriteFile(f.File("keys/password"), []byte(pgtest.Password), 0o600); err != nil {
		t.Fatal(err)
	}
	for i, database := range []string{1: fmt.Sprintf("url: %q, listen_url: \"postgres://nobody@127.0.0.1:1/none\"", f.url),
		2: fmt.Sprintf("url: %q, password_file: keys/password", u)} {
		if database == "" {
			continue
		}
		r := f.replicas[i]
		r.kill()
		replaceIn(t, r.config, fmt.Sprintf("url: %q", f.url), database)
		r.launch(t)
	}
	return f, w
}

// An answers is when callers of each replica last got a token.
type answers struct {
	mu   sync.Mutex // guards last
	last []time.Time
}

// load asks every replica for tokens until ctx is done.
func (f *fleet) load(ctx context.Context, group *sync.WaitGroup) *answers {
	a := &answers{last: make([]time.Time, len(f.replicas))}
	for i, r := range f.replicas {
		for range 3 {
			group.Go(func() {
				for ctx.Err() == nil {
					if _, err := r.ask(ctx, "graph", ""); err == nil {
						a.mu.Lock()
						a.last[i] = time.Now()
						a.mu.Unlock()
					}
					time.Sleep(time.Millisecond)
				}
			})
		}
	}
	return a
}

// serving waits until every replica hands out tokens.
func (f *fleet) serving(t *testing.T) {
	t.Helper()
	for _, r := range f.replicas {
		within(t, 30*time.Second, r.name+" to serve", func() bool { _, err := r.ask(t.Context(), "graph", ""); return err == nil })
	}
}

// Nobody gets a token from any replica later than a second after a revocation
// was acknowledged: not from one that hears no notices, not from one that is
// parted from PostgreSQL, and not from one that stood still between its
// decision and its answer. What counts is when the caller had the answer.
func TestRevocationDrill(t *testing.T) {
	f, w := newRevocationFleet(t)
	took := make(map[string][]time.Duration)
	for round := range *rounds {
		f.serving(t)
		ctx, cancel := context.WithCancel(t.Context())
		var group sync.WaitGroup
		a := f.load(ctx, &group)
		time.Sleep(50*time.Millisecond + rand.N(100*time.Millisecond))
		trouble, stopped := []string{"none", "cut", "stopped"}[round%3], f.replicas[1+rand.N(2)]
		switch trouble {
		case "cut":
			w.cut.Store(true)
		case "stopped":
			stopped.freeze()
		}
		time.Sleep(rand.N(50 * time.Millisecond))
		in := []api.RevokeRequest{{Everything: true, Reason: "drill"}, {Partner: Partner, Reason: "drill"}, {Audience: "graph", Reason: "drill"}}[rand.N(3)]
		begun := time.Now()
		out, err := f.replicas[0].client.Revoke(t.Context(), in)
		acknowledged := time.Now()
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(promised + rand.N(300*time.Millisecond))
		stopped.thaw()
		time.Sleep(300 * time.Millisecond)
		cancel()
		group.Wait()
		w.cut.Store(false)
		for i, last := range a.last {
			late := max(0, last.Sub(acknowledged))
			took[trouble] = append(took[trouble], max(0, last.Sub(begun)))
			if last.IsZero() {
				t.Errorf("round %d, %s: %s served nothing before the revocation, so the round shows nothing", round, trouble, f.replicas[i].name)
			}
			if late > promised {
				t.Errorf("round %d, %s: %s handed out a token %v after the revocation was acknowledged", round, trouble, f.replicas[i].name, late)
			}
		}
		within(t, 30*time.Second, "the revocation to be lifted", func() bool { return f.replicas[0].client.Lift(t.Context(), out.ID) == nil })
	}
	var report []string
	for trouble, all := range took {
		slices.Sort(all)
		report = append(report, fmt.Sprintf("%s: median %v, p99 %v, longest %v", trouble, all[len(all)/2], all[len(all)*99/100], all[len(all)-1]))
	}
	slices.Sort(report)
	fmt.Printf("drill: %d revocations over three replicas under load; the last token after the revocation was begun: %s\n", *rounds, strings.Join(report, "; "))
}
