package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
	"github.com/mandate-sam/mandate/internal/pgtest"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

var contoso = mandate.GrantKey{
	Cloud: "global", Application: must(mandate.ParseAppID("aaaaaaaa-0000-0000-0000-00000000000a")),
	Partner: must(mandate.ParseTenantID("11111111-0000-0000-0000-000000000001")),
}

// fakeDirectory knows contoso's contacts.
type fakeDirectory struct {
	contacts []mandate.MailAddress
	err      error
}

func (f *fakeDirectory) Contacts(k mandate.GrantKey) (string, []mandate.MailAddress, error) {
	if k != contoso || f.err != nil {
		return "", nil, f.err
	}
	return "contoso", f.contacts, nil
}

// fakeWay keeps what it is given.
type fakeWay struct {
	mu   sync.Mutex // guards all
	sent []Message
	err  error
	hook func()
}

func (f *fakeWay) Send(_ context.Context, m Message) error {
	if f.hook != nil {
		f.hook()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return f.err
	}
	f.sent = append(f.sent, m)
	return nil
}

func (f *fakeWay) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *fakeWay) to() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for _, m := range f.sent {
		for _, a := range m.To {
			out = append(out, string(a))
		}
	}
	slices.Sort(out)
	return out
}

// fakeLog is an audit log, and its epoch.
type fakeLog struct {
	mu   sync.Mutex // guards both
	recs []mandate.Record
	err  error
}

func (f *fakeLog) Record(_ context.Context, r mandate.Record) (mandate.Receipt, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.recs = append(f.recs, r)
	return mandate.Receipt{}, f.err
}

func (f *fakeLog) Epoch() (int64, error) { return 7, nil }

type world struct {
	*Outbox
	db        *database.DB
	directory *fakeDirectory
	mail      *fakeWay
	hook      *fakeWay
	log       *fakeLog
}

func newWorld(t *testing.T, cfg database.Config, change ...func(*Config)) *world {
	t.Helper()
	cfg.Schemas = []database.Schema{Schema()}
	db, err := database.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	w := &world{db: db, mail: &fakeWay{}, hook: &fakeWay{}, log: &fakeLog{}, directory: &fakeDirectory{contacts: []mandate.MailAddress{"contact@contoso.example"}}}
	c := Config{DB: db, Directory: w.directory, Operators: []mandate.MailAddress{"ops@panels.example"}, Mail: w.mail, Webhook: w.hook,
		Record: w.log, Epoch: w.log, Log: slog.New(slog.DiscardHandler), Writer: Writer{Site: "https://consent.example"}}
	for _, f := range change {
		f(&c)
	}
	if w.Outbox, err = New(c); err != nil {
		t.Fatal(err)
	}
	return w
}

func sqlite(t *testing.T) database.Config {
	return database.Config{File: filepath.Join(t.TempDir(), "m.db")}
}

func mailOnly(c *Config) { c.Webhook = nil }

func staged() mandate.Notice {
	return mandate.Notice{Kind: mandate.NoticeStaged, Key: "k", Grant: &contoso, Partner: "contoso", Generation: 2, About: "mallory@contoso.example", Before: "ada@contoso.example", Also: []string{"ada@contoso.example"}}
}

// round delivers what is due.
func (w *world) round(t *testing.T) {
	t.Helper()
	if _, err := w.deliverDue(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// exec changes a row behind the outbox's back.
func (w *world) exec(t *testing.T, query string, args ...any) {
	t.Helper()
	if _, err := w.db.Exec(t.Context(), query, args...); err != nil {
		t.Fatal(err)
	}
}

func (w *world) only(t *testing.T) Notice {
	t.Helper()
	all, err := w.List(t.Context(), Query{})
	if err != nil || len(all) != 1 {
		t.Fatalf("got %+v, %v, want one notice", all, err)
	}
	return must(w.Show(t.Context(), all[0].ID))
}

// both runs a test on either engine.
func both(t *testing.T, test func(*testing.T, database.Config)) {
	t.Run("SQLite", func(t *testing.T) { t.Parallel(); test(t, sqlite(t)) })
	t.Run("PostgreSQL", func(t *testing.T) {
		t.Parallel()
		test(t, database.Config{URL: pgtest.Shared(t).Database(t)})
	})
}

// Whoever consented before, the contacts and the operators are told once,
// whatever is repeated, each by a mail of their own.
func TestNotify(t *testing.T) {
	both(t, func(t *testing.T, cfg database.Config) {
		w := newWorld(t, cfg)
		for range 3 {
			if err := w.Notify(t.Context(), staged()); err != nil {
				t.Fatal(err)
			}
			w.round(t)
		}
		if got, want := fmt.Sprint(w.mail.to()), "[ada@contoso.example contact@contoso.example ops@panels.example]"; got != want {
			t.Errorf("mail to %s, want %s", got, want)
		}
		if len(w.hook.sent) != 1 || len(w.hook.sent[0].To) != 3 {
			t.Errorf("webhook got %+v", w.hook.sent)
		}
		n := w.only(t)
		if n.State != StateDelivered || n.Partner != "contoso" || len(n.Deliveries) != 4 || !strings.Contains(n.Text, "mallory@contoso.example consented for contoso") {
			t.Errorf("got %+v", n)
		}
		if len(w.log.recs) != 4 || w.log.recs[0].Epoch != 7 || w.log.recs[0].Grant == nil || w.log.recs[0].Tenant != contoso.Partner {
			t.Errorf("records %+v", w.log.recs)
		}
		for _, r := range w.log.recs {
			if r.Kind != mandate.KindChanged || r.Caller != "mandate:notices" || strings.Contains(r.Detail, "@") || !strings.HasSuffix(r.Detail, ": delivered") {
				t.Errorf("record %+v", r)
			}
		}
		if s, err := w.Standing(t.Context()); err != nil || s != (Standing{}) {
			t.Errorf("standing %+v, %v", s, err)
		}
		var planned int
		if err := w.db.QueryRow(t.Context(), `SELECT count(*) FROM notice_deliveries`).Scan(&planned); err != nil || planned != 4 {
			t.Errorf("%d deliveries are stored, %v, want 4", planned, err)
		}
	})
}

func TestNotifyWhom(t *testing.T) {
	for _, tt := range []struct {
		name   string
		notice mandate.Notice
		want   string
	}{
		{"operators only", mandate.Notice{Kind: mandate.NoticeGlass, Grant: &contoso}, "[ops@panels.example]"},
		{"no partner", mandate.Notice{Kind: mandate.NoticeWithdrawn}, "[ops@panels.example]"},
		{"the same twice", mandate.Notice{Kind: mandate.NoticeWithdrawn, Grant: &contoso, Also: []string{"Contact@Contoso.example", "OPS@panels.example"}}, "[contact@contoso.example OPS@panels.example]"},
		{"what is no address", mandate.Notice{Kind: mandate.NoticeContacts, Also: []string{"", "ada", "a@b.example\r\nBcc: x@y.example", "new@contoso.example"}}, "[new@contoso.example ops@panels.example]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, sqlite(t))
			if err := w.Notify(t.Context(), tt.notice); err != nil {
				t.Fatal(err)
			}
			if n := w.only(t); fmt.Sprint(n.To) != tt.want {
				t.Errorf("got %v, want %s", n.To, tt.want)
			}
		})
	}
	w := newWorld(t, sqlite(t))
	w.directory.err = mandate.ErrUnavailable
	if err := w.Announce(t.Context(), staged()); !errors.Is(err, mandate.ErrUnavailable) {
		t.Errorf("nobody knows the contacts: got %v", err)
	}
	w.directory.err = nil
	var many []string
	for i := range 200 {
		many = append(many, fmt.Sprintf("a%d@contoso.example", i))
	}
	if err := w.Notify(t.Context(), mandate.Notice{Kind: mandate.NoticeWithdrawn, Also: many}); err != nil || len(w.only(t).To) != maxTold {
		t.Errorf("%v, told %d", err, len(w.only(t).To))
	}
}

// What came from outside is made fit before it is stored.
func TestNotifyUntrusted(t *testing.T) {
	w := newWorld(t, sqlite(t))
	n := staged()
	n.About, n.Why = "x\r\nBcc: eve@evil.example\r\n\r\nhttps://evil.example/"+strings.Repeat("y", 10_000), "\u202e\x1b[31mwhy"
	if err := w.Notify(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	got := w.only(t)
	if strings.ContainsAny(got.Text+got.Subject, "\r\x1b\u202e") || strings.Contains(got.Text, "\nBcc") || strings.Count(got.Text, "://") != 1 || len(got.Text) > 3000 {
		t.Errorf("got %q", got.Text)
	}
	var size int
	if err := w.db.QueryRow(t.Context(), `SELECT length(content) FROM notices`).Scan(&size); err != nil || size > 3000 {
		t.Errorf("%d bytes are stored, %v", size, err)
	}
	w.round(t)
	if m := w.hook.sent[0]; m.Notice.Also != nil || strings.Contains(m.Notice.About, "://") || len(m.Notice.About) > maxWords+100 {
		t.Errorf("the webhook got %+v", m.Notice)
	}
}

// An announced notice waits for its act.
func TestAnnounce(t *testing.T) {
	both(t, func(t *testing.T, cfg database.Config) {
		w := newWorld(t, cfg, mailOnly)
		ctx, n := t.Context(), staged()
		for _, happened := range []bool{false, true} {
			if err := w.Announce(ctx, n); err != nil {
				t.Fatal(err)
			}
			w.round(t)
			if got := w.mail.to(); len(got) != 0 || w.only(t).State != StateAnnounced {
				t.Fatalf("sent to %v before it was settled", got)
			}
			if err := w.Settle(ctx, n, happened); err != nil {
				t.Fatal(err)
			}
			if err := w.Settle(ctx, n, false); err != nil { // what is settled stays
				t.Fatal(err)
			}
			w.round(t)
			if got := w.mail.to(); happened != (len(got) == 3) {
				t.Errorf("happened %v: sent to %v", happened, got)
			}
			if all := must(w.List(ctx, Query{})); happened != (len(all) == 1) {
				t.Errorf("happened %v: kept %+v", happened, all)
			}
		}
		// What is settled stays.
		if err := w.Settle(ctx, n, false); err != nil || w.only(t).State != StateDelivered || strings.Contains(w.only(t).Text, "did not get to say") {
			t.Errorf("%v, %+v", err, w.only(t))
		}
		if err := w.Announce(ctx, mandate.Notice{Kind: mandate.NoticeWithdrawn}); err == nil {
			t.Error("announced without a key")
		}
	})
}

// What is settled is one notice, and no other of its kind or about the same; and
// what was tried to be delivered is not taken back, because somebody may have it.
func TestSettleOne(t *testing.T) {
	both(t, func(t *testing.T, cfg database.Config) {
		w := newWorld(t, cfg, mailOnly, func(c *Config) { c.Operators = nil })
		ctx := t.Context()
		note := func(k mandate.NoticeKind, key string) mandate.Notice {
			return mandate.Notice{Kind: k, Key: key, Grant: &contoso}
		}
		one, kind, key := note(mandate.NoticeStaged, "1"), note(mandate.NoticeStaged, "2"), note(mandate.NoticeWithdrawn, "1")
		states := func(want string) {
			t.Helper()
			got := ""
			for _, n := range []mandate.Notice{one, kind, key} {
				var due, all int64
				if err := w.db.QueryRow(ctx, `SELECT count(*), coalesce(sum(CASE WHEN d.due <= now_ms() THEN 1 ELSE 0 END), 0) FROM notice_deliveries d
					JOIN notices n ON n.id = d.notice WHERE n.kind = $1 AND n.key = $2`, string(n.Kind), n.Key).Scan(&all, &due); err != nil {
					t.Fatal(err)
				}
				got += fmt.Sprint(all, due, " ")
			}
			if got != want {
				t.Errorf("deliveries and how many are due: got %q, want %q", got, want)
			}
		}
		for _, happened := range []bool{true, false} {
			for _, n := range []mandate.Notice{one, kind, key} {
				if err := w.Announce(ctx, n); err != nil {
					t.Fatal(err)
				}
			}
			states("1 0 1 0 1 0 ")
			if err := w.Settle(ctx, one, happened); err != nil {
				t.Fatal(err)
			}
			if happened {
				states("1 1 1 0 1 0 ")
			} else {
				states("0 0 1 0 1 0 ")
			}
			for _, n := range []mandate.Notice{kind, key} {
				if err := w.Settle(ctx, n, true); err != nil {
					t.Fatal(err)
				}
			}
			w.exec(t, `DELETE FROM notice_deliveries`)
			w.exec(t, `DELETE FROM notices`)
		}
		if err := w.Announce(ctx, one); err != nil {
			t.Fatal(err)
		}
		w.exec(t, `UPDATE notice_deliveries SET due = 0`) // its time came before its act was done
		w.mail.fail(errors.New("busy"))
		w.round(t)
		if err := w.Settle(ctx, one, false); err != nil || w.only(t).Deliveries[0].Attempts != 1 {
			t.Errorf("%v: what was tried is %+v", err, w.only(t))
		}
		if err := w.Settle(ctx, one, true); err != nil || len(must(w.due(ctx))) != 0 {
			t.Errorf("%v: what was tried a moment ago is hurried", err)
		}
		if err := w.Notify(ctx, note(mandate.NoticeStaged, "\xff")); !errors.Is(err, mandate.ErrInvalid) {
			t.Errorf("a key that is no text: %v", err)
		}
	})
}

// What nobody can be told of yet is kept, unless it did not happen.
func TestSettleWithoutWay(t *testing.T) {
	w := newWorld(t, sqlite(t), func(c *Config) { c.Mail, c.Webhook = nil, nil })
	one := mandate.Notice{Kind: mandate.NoticeStaged, Key: "1"}
	for _, n := range []mandate.Notice{one, {Kind: mandate.NoticeStaged, Key: "2"}, {Kind: mandate.NoticeWithdrawn, Key: "1"}} {
		if err := w.Announce(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Settle(t.Context(), one, false); err != nil {
		t.Fatal(err)
	}
	if all := must(w.List(t.Context(), Query{})); len(all) != 2 {
		t.Errorf("one of three was taken back: kept %+v", all)
	}
	if err := errors.Join(w.Announce(t.Context(), one), w.Settle(t.Context(), one, true), w.Settle(t.Context(), one, false)); err != nil {
		t.Fatal(err)
	}
	if all := must(w.List(t.Context(), Query{})); len(all) != 3 {
		t.Errorf("what had happened was taken back: kept %+v", all)
	}
}

// A server that is killed between the notice and the act tells with its doubt.
func TestAnnounceAndDie(t *testing.T) {
	cfg := sqlite(t)
	w := newWorld(t, cfg, mailOnly)
	if err := w.Announce(t.Context(), staged()); err != nil {
		t.Fatal(err)
	}
	w.db.Close()
	w = newWorld(t, cfg, mailOnly)
	w.exec(t, `UPDATE notices SET created = created - $1`, hold.Milliseconds()+1)
	w.exec(t, `UPDATE notice_deliveries SET due = due - $1`, hold.Milliseconds()+1)
	w.round(t)
	if len(w.mail.sent) != 3 || !w.mail.sent[0].Uncertain || !strings.Contains(w.mail.sent[0].Text, "did not get to say whether it was completed") {
		t.Errorf("sent %+v", w.mail.sent)
	}
	if n := w.only(t); n.State != StateDelivered {
		t.Errorf("got %+v", n)
	}
}

// What fails is tried again, later each time, for three days.
func TestRetry(t *testing.T) {
	both(t, func(t *testing.T, cfg database.Config) {
		w := newWorld(t, cfg, mailOnly, func(c *Config) { c.Operators = nil })
		w.mail.fail(errors.New("mail by x: 451 not\r\nnow"))
		if err := w.Notify(t.Context(), mandate.Notice{Kind: mandate.NoticeWithdrawn, Grant: &contoso}); err != nil {
			t.Fatal(err)
		}
		var before time.Duration
		for i := int64(1); i < 15; i++ {
			w.round(t)
			n := w.only(t)
			d := n.Deliveries[0]
			if n.State != StateWaiting || d.Attempts != i || d.Fault != "mail by x: 451 not now" {
				t.Fatalf("attempt %d: %+v", i, n)
			}
			pause := d.Next.Sub(d.Changed)
			if pause < before || pause < firstPause*4/5 || pause > lastPause*6/5 {
				if before < lastPause*4/5 {
					t.Errorf("pause %d is %v after %v", i, pause, before)
				}
			}
			before = pause
			if w.round(t); w.only(t).Deliveries[0].Attempts != i {
				t.Fatal("tried before it was due")
			}
			w.exec(t, `UPDATE notice_deliveries SET due = 0`)
		}
		if s := must(w.Standing(t.Context())); s.Waiting != 1 || s.Oldest.IsZero() {
			t.Errorf("standing %+v", s)
		}
		w.exec(t, `UPDATE notice_deliveries SET ends = changed + $1`, time.Minute.Milliseconds())
		w.round(t)
		n := w.only(t)
		if n.State != StateFailed || len(w.log.recs) != 1 || w.log.recs[0].Kind != mandate.KindFailed || w.log.recs[0].Reason != "mail by x: 451 not now" {
			t.Errorf("got %+v, records %+v", n, w.log.recs)
		}
		if s := must(w.Standing(t.Context())); s.Waiting != 0 || s.Failed != 1 {
			t.Errorf("standing %+v", s)
		}
		w.round(t) // nothing more

		w.mail.fail(nil)
		if err := w.Outbox.Retry(t.Context(), n.ID); err != nil {
			t.Fatal(err)
		}
		w.round(t)
		if n := w.only(t); n.State != StateDelivered || n.Deliveries[0].Attempts != 1 || n.Deliveries[0].Fault != "" {
			t.Errorf("after retry: %+v", n)
		}
		if err := w.Outbox.Retry(t.Context(), n.ID); err != nil {
			t.Fatal(err)
		}
		if w.round(t); len(w.mail.sent) != 1 {
			t.Errorf("what was delivered was sent again: %+v", w.mail.sent)
		}
		for _, id := range []string{"x", "a\x00"} {
			if err := w.Outbox.Retry(t.Context(), id); !errors.Is(err, mandate.ErrNotFound) {
				t.Errorf("%q: got %v", id, err)
			}
			if _, err := w.Show(t.Context(), id); !errors.Is(err, mandate.ErrNotFound) {
				t.Errorf("%q: got %v", id, err)
			}
		}
	})
}

// Without a way a notice is kept, and goes out once there is one.
func TestNoWay(t *testing.T) {
	cfg := sqlite(t)
	w := newWorld(t, cfg, func(c *Config) { c.Mail, c.Webhook = nil, nil })
	if err := w.Notify(t.Context(), staged()); err != nil {
		t.Fatal(err)
	}
	if n := w.only(t); n.State != StateKept || len(n.To) != 3 || len(w.Ways()) != 0 {
		t.Errorf("got %+v", n)
	}
	w.db.Close()
	w = newWorld(t, cfg)
	if err := w.Outbox.Retry(t.Context(), w.only(t).ID); err != nil {
		t.Fatal(err)
	}
	w.round(t)
	if n := w.only(t); n.State != StateDelivered || len(w.mail.sent) != 3 || len(w.Ways()) != 2 {
		t.Errorf("got %+v", n)
	}
	// and the other way round
	if err := w.Notify(t.Context(), mandate.Notice{Kind: mandate.NoticeGlass}); err != nil {
		t.Fatal(err)
	}
	w.cfg.Mail = nil
	w.round(t)
	for _, n := range must(w.List(t.Context(), Query{State: StateWaiting})) {
		if d := must(w.Show(t.Context(), n.ID)).Deliveries[0]; d.Way != "mail" || !strings.Contains(d.Fault, "no way to deliver by mail any more") {
			t.Errorf("got %+v", d)
		}
	}
}

// What is due at one moment is delivered each by itself, by every way and to
// every address.
func TestDueTogether(t *testing.T) {
	both(t, func(t *testing.T, cfg database.Config) {
		w := newWorld(t, cfg)
		for i := range 3 {
			n := staged()
			n.Key = fmt.Sprint(i)
			if err := w.Notify(t.Context(), n); err != nil {
				t.Fatal(err)
			}
		}
		w.exec(t, `UPDATE notice_deliveries SET due = 0, ends = 0`) // what succeeds has not failed, however late
		w.round(t)
		if len(w.mail.sent) != 9 || len(w.hook.sent) != 3 {
			t.Errorf("%d mails and %d calls of the webhook, want 9 and 3", len(w.mail.sent), len(w.hook.sent))
		}
		if all := must(w.List(t.Context(), Query{State: StateDelivered})); len(all) != 3 {
			t.Errorf("delivered: %+v", all)
		}
	})
}

// Whoever asks for it has one notice tried at once, and one that was given up
// begins anew.
func TestRetryOne(t *testing.T) {
	both(t, func(t *testing.T, cfg database.Config) {
		w := newWorld(t, cfg, mailOnly, func(c *Config) { c.Operators = nil })
		w.mail.fail(errors.New("busy"))
		for _, key := range []string{"1", "2"} {
			if err := w.Notify(t.Context(), mandate.Notice{Kind: mandate.NoticeWithdrawn, Key: key, Grant: &contoso}); err != nil {
				t.Fatal(err)
			}
		}
		w.round(t)
		id := must(w.List(t.Context(), Query{}))[0].ID
		if err := w.Outbox.Retry(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if due := must(w.due(t.Context())); len(due) != 1 || due[0].notice != id {
			t.Errorf("due are %+v, want that of %s", due, id)
		}
		w.exec(t, `UPDATE notice_deliveries SET ends = 0`)
		if w.round(t); must(w.Show(t.Context(), id)).State != StateFailed {
			t.Errorf("after its term: %+v", must(w.Show(t.Context(), id)))
		}
		if err := w.Outbox.Retry(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if w.round(t); must(w.Show(t.Context(), id)).State != StateWaiting || must(w.Show(t.Context(), id)).Deliveries[0].Attempts != 1 {
			t.Errorf("begun anew: %+v", must(w.Show(t.Context(), id)))
		}
	})
}

// Two replicas deliver once, though both look at the same moment.
func TestReplicas(t *testing.T) {
	cfg := database.Config{URL: pgtest.Shared(t).Database(t)}
	one, two := newWorld(t, cfg, mailOnly), newWorld(t, cfg, mailOnly)
	two.Outbox.cfg.Mail = one.mail
	for i := range 20 {
		n := staged()
		n.Key = fmt.Sprint(i)
		if err := one.Notify(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	due := must(one.due(t.Context()))
	if len(due) != 50 {
		t.Fatalf("%d are due", len(due))
	}
	var wg sync.WaitGroup
	for _, w := range []*world{one, two, one, two} {
		wg.Go(func() {
			for _, d := range due {
				if err := w.deliver(t.Context(), d); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if len(one.mail.sent) != 50 {
		t.Errorf("sent %d times, want 50", len(one.mail.sent))
	}
}

// A replica that dies with a delivery leaves it to another; one that wakes up
// late does not undo what the other noted.
func TestClaimIsALease(t *testing.T) {
	w := newWorld(t, sqlite(t), mailOnly, func(c *Config) { c.Operators = nil })
	if err := w.Notify(t.Context(), mandate.Notice{Kind: mandate.NoticeWithdrawn, Grant: &contoso}); err != nil {
		t.Fatal(err)
	}
	dead := must(w.due(t.Context()))[0]
	if mine, err := w.claim(t.Context(), &dead); err != nil || !mine {
		t.Fatal(mine, err)
	}
	if w.round(t); len(w.mail.sent) != 0 {
		t.Fatal("somebody else's was delivered")
	}
	if err := w.Outbox.Retry(t.Context(), dead.notice); err != nil {
		t.Fatal(err)
	}
	if w.round(t); len(w.mail.sent) != 0 {
		t.Fatal("what is tried just now was hurried")
	}
	w.exec(t, `UPDATE notice_deliveries SET due = due - $1`, lease.Milliseconds())
	w.mail.hook = func() { // it wakes up while the other one tries
		for _, late := range []error{errors.New("late"), nil} {
			if err := w.note(t.Context(), &dead, late); err != nil {
				t.Error(err)
			}
			if d := w.only(t).Deliveries[0]; d.State != StateWaiting || d.Fault != "" {
				t.Errorf("the late one noted %+v", d)
			}
		}
	}
	w.round(t)
	if err := w.note(t.Context(), &dead, errors.New("late")); err != nil {
		t.Fatal(err)
	}
	if n := w.only(t); n.State != StateDelivered || n.Deliveries[0].Fault != "" || n.Deliveries[0].Attempts != 2 || len(w.mail.sent) != 1 {
		t.Errorf("got %+v", n)
	}
}

// Run delivers what is notified while it runs, and ends with its context.
func TestRun(t *testing.T) {
	w := newWorld(t, sqlite(t), mailOnly, func(c *Config) { c.Operators = nil })
	w.exec(t, `INSERT INTO notices (id, kind, key, partner, content, created, settled) VALUES ('old', 'k', 'k', '', '{}', 0, TRUE)`)
	sent := make(chan bool, 1)
	w.mail.hook = func() { sent <- true }
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	for i := range 3 {
		n := mandate.Notice{Kind: mandate.NoticeWithdrawn, Key: fmt.Sprint(i), Grant: &contoso}
		err := mandate.Tell(ctx, w, n, func() error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		<-sent
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, err := w.Show(t.Context(), "old"); !errors.Is(err, mandate.ErrNotFound) {
		t.Errorf("what is older than ninety days is kept while the server runs: %v", err)
	}
}

// A full outbox refuses what can wait, and never what tightens. One partner
// fills it for nobody else.
func TestBounded(t *testing.T) {
	both(t, func(t *testing.T, cfg database.Config) {
		w := newWorld(t, cfg, mailOnly)
		ctx := t.Context()
		if err := w.Notify(ctx, staged()); err != nil {
			t.Fatal(err)
		}
		fill := func(notice string, n int) {
			w.exec(t, `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < CAST($1 AS BIGINT))
				INSERT INTO notice_deliveries (notice, way, address, state, attempts, due, ends, claim, fault, changed)
				SELECT CAST($2 AS TEXT), 'mail', CAST(i AS TEXT), 'waiting', 0, 9000000000000000, 9000000000000000, '', '', 0 FROM n`, int64(n), notice)
		}
		other := mandate.Notice{Kind: mandate.NoticeGlass}
		fill(w.only(t).ID, maxOfPartner)
		n := staged()
		n.Key = "another"
		if err := w.Announce(ctx, n); !errors.Is(err, mandate.ErrRateLimited) {
			t.Errorf("the partner's outbox is full: got %v", err)
		}
		if err := w.Announce(ctx, mandate.Notice{Kind: mandate.NoticeStaged, Key: "another's", Partner: "fabrikam"}); err != nil {
			t.Errorf("another partner's: got %v", err)
		}
		w.exec(t, `UPDATE notice_deliveries SET state = 'delivered'`)
		if err := w.Announce(ctx, n); err != nil {
			t.Errorf("everything is delivered: got %v", err)
		}
		w.exec(t, `UPDATE notice_deliveries SET state = 'waiting'`)
		if err := w.Notify(ctx, other); err != nil {
			t.Errorf("of nobody's: got %v", err)
		}
		for _, n := range must(w.List(ctx, Query{})) {
			if n.Partner == "" {
				fill(n.ID, maxOfPartner)
			}
		}
		if err := w.Notify(ctx, other); err != nil {
			t.Errorf("of nobody's there is no bound but that of all: got %v", err)
		}
		fill("x", maxWaiting)
		if err := w.Notify(ctx, other); !errors.Is(err, mandate.ErrRateLimited) {
			t.Errorf("the outbox is full: got %v", err)
		}
		for _, k := range []mandate.NoticeKind{mandate.NoticeWithdrawn, mandate.NoticeDiscarded} {
			if err := w.Announce(ctx, mandate.Notice{Kind: k, Key: "k", Grant: &contoso}); err != nil {
				t.Errorf("%s: got %v", k, err)
			}
		}
	})
}

// What is old goes, unless it waits.
func TestSweep(t *testing.T) {
	both(t, func(t *testing.T, cfg database.Config) {
		w := newWorld(t, cfg, mailOnly)
		for _, key := range []string{"old and done", "old and waiting", "new"} {
			if err := w.Notify(t.Context(), mandate.Notice{Kind: mandate.NoticeGlass, Key: key}); err != nil {
				t.Fatal(err)
			}
		}
		w.round(t)
		w.exec(t, `UPDATE notice_deliveries SET state = 'waiting' WHERE notice = (SELECT id FROM notices WHERE key = 'old and waiting')`)
		w.exec(t, `UPDATE notices SET created = created - $1 WHERE key <> 'new'`, keep.Milliseconds()+1000)
		if err := w.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		var left int
		if err := w.db.QueryRow(t.Context(), `SELECT count(*) FROM notice_deliveries`).Scan(&left); err != nil {
			t.Fatal(err)
		}
		if all := must(w.List(t.Context(), Query{})); len(all) != 2 || left != 2 || len(must(w.List(t.Context(), Query{Partner: "x"}))) != 0 || len(must(w.List(t.Context(), Query{State: StateDelivered, Limit: 1000}))) != 1 {
			t.Errorf("kept %+v, %d deliveries", all, left)
		}
	})
}

// The database is gone: nothing is announced, so that nothing is done.
func TestDatabaseGone(t *testing.T) {
	w := newWorld(t, sqlite(t))
	w.db.Close()
	ctx, done := t.Context(), false
	if err := mandate.Tell(ctx, w, staged(), func() error { done = true; return nil }); !errors.Is(err, mandate.ErrUnavailable) || done {
		t.Errorf("got %v, done %v", err, done)
	}
	if err := w.Notify(ctx, staged()); !errors.Is(err, mandate.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	_, lerr := w.List(ctx, Query{})
	_, serr := w.Standing(ctx)
	if !errors.Is(lerr, mandate.ErrUnavailable) || !errors.Is(serr, mandate.ErrUnavailable) || !errors.Is(w.Outbox.Retry(ctx, "x"), mandate.ErrUnavailable) {
		t.Errorf("got %v, %v", lerr, serr)
	}
}
