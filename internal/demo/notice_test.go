package demo

import (
	"context"
	"crypto/tls"
	"io"
	"mime/quotedprintable"
	"net/http"
	"net/http/httptest"
	"net/mail"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/internal/mailtest"
	"github.com/mandate-sam/mandate/notify"
)

// toldDemo is a demonstration that tells people.
type toldDemo struct {
	*Demo
	mail  *mailtest.Server
	hooks chan string // what the webhook got
	down  atomic.Bool // the webhook answers 500
	log   *logbook
}

// beginTold starts a demonstration that tells people, by mail and webhook.
func beginTold(t *testing.T) *toldDemo {
	t.Helper()
	d, log := begin(t, Config{Idle: true})
	certificate, err := d.Emulator.CA().Issue("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	server := mailtest.Start(t, mailtest.Config{Password: "smtp-password-canary", TLS: &tls.Config{Certificates: []tls.Certificate{certificate}}})
	told := &toldDemo{Demo: d, mail: server, hooks: make(chan string, 100), log: log}
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		if told.down.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
		told.hooks <- string(b)
	}))
	t.Cleanup(hook.Close)
	for name, text := range map[string]string{"smtp.password": "smtp-password-canary\n", "webhook.key": "whsec_d2ViaG9vay1rZXktY2FuYXJ5LTAxMjM0NTY3\n"} {
		if err := os.WriteFile(d.File(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	replaceIn(t, d.File("mandate.yaml"), "applications:\n", `notices:
  operators: [ops@northwind.example]
  mail: {server: "`+server.Addr+`", from: mandate@northwind.example, username: mandate, password_file: smtp.password, roots: ca.pem}
  webhook: {url: "`+hook.URL+`/webhook-path-canary", key_file: webhook.key}
applications:
`)
	if err := d.serve(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	return told
}

// told waits for n mails and returns them by whom they went to, with the
// subject in front.
func told(t *testing.T, s *mailtest.Server, n int) map[string]string {
	t.Helper()
	out := make(map[string]string)
	for range n {
		m := s.Next(t)
		if !m.Encrypted || m.User != "mandate" {
			t.Errorf("got %+v", m)
		}
		got, err := mail.ReadMessage(strings.NewReader(m.Data))
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(quotedprintable.NewReader(got.Body))
		if err != nil {
			t.Fatal(err)
		}
		out[strings.Trim(got.Header.Get("To"), "<>")] = got.Header.Get("Subject") + "\n" + strings.ReplaceAll(string(text), "\r\n", "\n")
	}
	return out
}

// Whoever consented before, the partner's contacts and the operators are told
// that another user consented, before anybody has decided; and of what is
// decided. No secret is in what they are told, nor a link.
func TestNoticeOfAnotherUser(t *testing.T) {
	t.Parallel()
	d := beginTold(t)
	ctx := t.Context()
	if p := d.attempt(t, attempt{invited: User, user: User}); contains(p.Text(), "Consent") != nil {
		t.Fatalf("%q", p.Text())
	}
	var seen strings.Builder
	check := func(what string, want ...string) {
		t.Helper()
		got := told(t, d.mail, len(want))
		for _, to := range want {
			if contains(got[to], what) != nil {
				t.Errorf("%s was told %q, want %q; told: %v", to, got[to], what, got)
			}
			seen.WriteString(got[to])
		}
		body := <-d.hooks
		if contains(body, what) != nil {
			t.Errorf("the webhook got %s, want %q", body, what)
		}
		seen.WriteString(body)
	}
	const ops, contact = "ops@northwind.example", "security@contoso.example"
	check("a new consent is in force", ops)
	if _, err := d.Operator.AddContact(ctx, Partner, api.ContactRequest{Address: contact}); err != nil {
		t.Fatal(err)
	}
	check(contact+" was added", ops, contact)

	if p := d.attempt(t, attempt{user: secondUser}); contains(p.Text(), "Proven, and waiting") != nil {
		t.Fatalf("the second user's page: %q", p.Text())
	}
	check(secondUser+" consented for contoso", ops, contact, User)
	if _, err := d.Operator.Decide(ctx, Partner, "approve", api.DecideRequest{Generation: 2}); err != nil {
		t.Fatal(err)
	}
	check("Before it: "+User, ops, contact, User)
	if _, err := d.Operator.RemoveContact(ctx, Partner, api.ContactRequest{Address: contact}); err != nil {
		t.Fatal(err)
	}
	check(contact+" was removed", ops, contact)
	if _, err := d.Operator.Withdraw(ctx, Partner, api.WithdrawRequest{}); err != nil {
		t.Fatal(err)
	}
	check("the consent was withdrawn", ops, secondUser)

	all, err := d.Operator.Notices(ctx, notify.Query{})
	if err != nil || len(all.Notices) != 6 || !slices.Equal(all.Ways, []string{"mail", "webhook"}) {
		t.Fatalf("listed %+v, %v", all, err)
	}
	for _, n := range all.Notices {
		if n, err := d.Operator.Notice(ctx, n.ID); err != nil || n.Partner != Partner || !strings.HasPrefix(n.Subject, "[emulator] contoso: ") {
			t.Errorf("%+v, %v", n, err)
		}
	}
	d.stopProduct(t)
	text := seen.String()
	if strings.Contains(strings.ReplaceAll(text, d.Portal+".", ""), "://") {
		t.Errorf("a link is in what people were told: %s", text)
	}
	d.search(t, append(d.fileCanaries(t, Config{}), canary{"mail password", "smtp-password-canary", "smtp.password"},
		canary{"webhook key", "d2ViaG9vay1rZXktY2FuYXJ5LTAxMjM0NTY3", "webhook.key"}, canary{"webhook's path", "webhook-path-canary", "mandate.yaml"}), d.log.String(), text)
}

// What could not be delivered before the server was stopped is delivered by the
// next one, and what was delivered is not told again.
func TestNoticeAcrossRestart(t *testing.T) {
	t.Parallel()
	d := beginTold(t)
	d.down.Store(true)
	if p := d.attempt(t, attempt{invited: User, user: User}); contains(p.Text(), "Consent") != nil {
		t.Fatalf("%q", p.Text())
	}
	first := <-d.hooks
	within(t, time.Minute, "the mail delivered, and the webhook's answer noted", func() bool {
		all, err := d.Operator.Notices(t.Context(), notify.Query{})
		if err != nil || len(all.Notices) != 1 {
			t.Fatalf("%+v, %v", all, err)
		}
		n, err := d.Operator.Notice(t.Context(), all.Notices[0].ID)
		return err == nil && n.Deliveries[0].State == notify.StateDelivered && n.Deliveries[1].Fault != ""
	})
	d.stopProduct(t)
	<-d.Done
	d.down.Store(false)
	if err := d.serve(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	all, err := d.Operator.Notices(t.Context(), notify.Query{State: notify.StateWaiting})
	if err != nil || len(all.Notices) != 1 {
		t.Fatalf("waiting: %+v, %v", all, err)
	}
	n, err := d.Operator.RetryNotice(t.Context(), all.Notices[0].ID, api.ActRequest{})
	if err != nil || n.Deliveries[1].Way != "webhook" || n.Deliveries[1].Attempts < 1 || !strings.Contains(n.Deliveries[1].Fault, "answered 500") {
		t.Fatalf("got %+v, %v", n, err)
	}
	if again := <-d.hooks; again != first {
		t.Errorf("told %s, and before %s", again, first)
	}
	if mails := d.mail.Mails(); len(mails) != 1 {
		t.Errorf("%d mails, want the one of before", len(mails))
	}
}
