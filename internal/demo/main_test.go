package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/emulator"
	"github.com/mandate-sam/mandate/internal/app"
)

// serveVariable makes the test binary the product instead: it names the
// configuration to serve. A drill that kills the product needs it to be a
// process of its own.
const serveVariable = "MANDATE_TEST_SERVE"

// clockVariable says how far ahead the clock of such a process is.
const clockVariable = "MANDATE_TEST_CLOCK"

func TestMain(m *testing.M) {
	if config := os.Getenv(serveVariable); config != "" {
		if err := errors.Join(setClock(), serve(config)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func setClock() error {
	text := os.Getenv(clockVariable)
	if text == "" {
		return nil
	}
	ahead, err := time.ParseDuration(text)
	if err != nil {
		return err
	}
	return moveClock(ahead)
}

func serve(path string) error {
	c, err := app.LoadConfig(path)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return app.Run(ctx, c, app.Options{Ready: func(*app.App) {
		if exposed() {
			fmt.Println("others may read the memory")
			return
		}
		fmt.Println("ready")
	}})
}

// A logbook takes the logs of a test.
type logbook struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// begin starts a demonstration that ends with the test.
func begin(t *testing.T, cfg Config) (*Demo, *logbook) {
	t.Helper()
	log := new(logbook)
	cfg.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	d, err := Start(context.WithoutCancel(t.Context()), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("log:\n%s", log)
		}
	})
	return d, log
}

// quiet is a Progress that the test's own output is enough for.
type quiet struct{ t *testing.T }

func (q quiet) Begin(step string) { q.t.Log(step) }
func (q quiet) End(note string)   { q.t.Log("    " + note) }
func (q quiet) Fail(err error)    { q.t.Log("    failed: ", err) }

// attempt is one try of a consent: whom the invitation is for, who signs in,
// and what that person does.
type attempt struct {
	invited string // "" for any user
	user    string
	decline bool
}

// consent goes through the pages, and returns the one that the site ends on.
func (d *Demo) attempt(t *testing.T, a attempt) *Page {
	t.Helper()
	in, err := d.Operator.Invite(t.Context(), api.InviteRequest{
		Name: Partner, Tenant: emulator.ContosoTenant, DisplayName: "Contoso CSP", User: a.invited, AnyUser: a.invited == "",
	})
	if err != nil {
		t.Fatal(err)
	}
	return d.follow(t, in.Link, a)
}

func (d *Demo) follow(t *testing.T, link string, a attempt) *Page {
	t.Helper()
	b := NewBrowser(d.Emulator.Client().Transport)
	p, err := b.Open(t.Context(), link)
	if err != nil {
		t.Fatal(err)
	}
	if p.find("form", "") == nil {
		return p
	}
	if p, err = b.Submit(t.Context(), p, "", "", ""); err != nil {
		t.Fatal(err)
	}
	decision := "accept"
	if a.decline {
		decision = "cancel"
	}
	p, err = b.signIn(t.Context(), p, d.Emulator.Endpoints().Login, a.user, decision, func(s string) { t.Log("    " + s) })
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// records returns the kinds of the audit records, and the reason of the last.
func (d *Demo) records(t *testing.T) (kinds []string, last mandate.Record) {
	t.Helper()
	s, err := d.Operator.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	lines, err := d.Operator.Audit(t.Context(), int(s.Records))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range lines {
		last = mandate.Record{}
		unmarshal(t, line, &last)
		kinds = append(kinds, last.Kind)
	}
	return kinds, last
}

// within waits for cond, asking now and then. It is for what happens in
// another process.
func within(t *testing.T, limit time.Duration, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !cond(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, limit)
		}
		time.Sleep(time.Millisecond)
	}
}

func contains(s string, all ...string) error {
	for _, want := range all {
		if !strings.Contains(s, want) {
			return fmt.Errorf("there is no %q in %q", want, s)
		}
	}
	return nil
}
