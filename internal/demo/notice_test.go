package demo

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
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

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/emulator"
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
	told := d.telling(t)
	told.log = log
	if err := d.serve(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	return told
}

// telling configures a product, which does not run, to tell people.
func (d *Demo) telling(t *testing.T) *toldDemo {
	t.Helper()
	certificate, err := d.Emulator.CA().Issue("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	server := mailtest.Start(t, mailtest.Config{Password: "smtp-password-canary", TLS: &tls.Config{Certificates: []tls.Certificate{certificate}}})
	told := &toldDemo{Demo: d, mail: server, hooks: make(chan string, 100)}
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
	return told
}

const (
	ops     = "ops@northwind.example"
	contact = "security@contoso.example"
)

// tells checks that these addresses, the webhook and nobody else were told the
// same next, and returns it.
func (d *toldDemo) tells(t *testing.T, what []string, to ...string) string {
	t.Helper()
	got := told(t, d.mail, len(to))
	var seen strings.Builder
	for _, to := range to {
		if err := contains(got[to], what...); err != nil {
			t.Errorf("%s was told: %v; told: %v", to, err, got)
		}
		seen.WriteString(got[to])
	}
	body := <-d.hooks
	if err := contains(body, what...); err != nil {
		t.Errorf("the webhook got: %v", err)
	}
	return seen.String() + body
}

// toldOnly fails the test unless there were so many notices in all, and so many
// mails.
func (d *toldDemo) toldOnly(t *testing.T, notices, mails int) {
	t.Helper()
	all, err := d.Operator.Notices(t.Context(), notify.Query{})
	if err != nil || len(all.Notices) != notices || len(d.mail.Mails()) != mails || len(d.hooks) != 0 {
		t.Errorf("%d notices and %d mails, want %d and %d: %+v, %v", len(all.Notices), len(d.mail.Mails()), notices, mails, all.Notices, err)
	}
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
		seen.WriteString(d.tells(t, []string{what}, want...))
	}
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

// What a partner's people do on its own pages is told to its contacts, to
// whoever consented, and to the operators; and that an operator rolled back.
func TestNoticeOfPartnersActs(t *testing.T) {
	t.Parallel()
	d := beginTold(t)
	d.consent(t)
	d.tells(t, []string{"a new consent is in force"}, ops)
	if _, err := d.Operator.AddContact(t.Context(), Partner, api.ContactRequest{Address: contact}); err != nil {
		t.Fatal(err)
	}
	d.tells(t, []string{contact + " was added"}, ops, contact)

	renew := func() {
		t.Helper()
		d.visit(t, User, emulator.ContosoTenant).open("/partner/renew").submit("confirm", Partner).microsoft().reads("Consent stored and active")
		d.tells(t, []string{"the consent was renewed", User + " renewed the consent"}, ops, contact, User)
	}
	renew()
	if _, err := d.Operator.Act(t.Context(), Partner, "rollback", api.ActRequest{}); err != nil {
		t.Fatal(err)
	}
	d.tells(t, []string{"rolled back by an operator", "to the one before, of " + User, "Generation: 1"}, ops, contact, User)
	for _, verb := range []string{"suspend", "resume"} {
		if _, err := d.Operator.Act(t.Context(), Partner, verb, api.ActRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	renew()
	d.visit(t, secondUser, emulator.ContosoTenant).open("/partner/withdraw").submit("confirm", Partner).reads("Withdrawn")
	d.tells(t, []string{"the consent was withdrawn", "of " + User + ", was withdrawn by " + secondUser}, ops, contact, User)
	d.toldOnly(t, 6, 1+2+4*3)
}

// Broken glass, a second person who is wanted, and a yes are told to the
// operators, about whatever partner, and to nobody else; what was refused, and
// the use of a yes, are no news.
func TestNoticeOfOperatorsActs(t *testing.T) {
	t.Parallel()
	const nora, dev = "admin@northwind.example", "dev@northwind.example"
	p, redirect, came := beginPeopled(t, fmt.Sprintf(`{object: %s, roles: [security]}, {object: %s, roles: [security]}]
  second_person: [grant resume`, objectOf(t, nora), objectOf(t, dev)))
	p.stopProduct(t)
	d := p.telling(t)
	d.again(t)
	ctx := t.Context()
	d.consent(t)
	d.tells(t, []string{"a new consent is in force"}, ops)
	one, two := d.signedIn(t, redirect, came, nora), d.signedIn(t, redirect, came, dev)
	if _, err := one.AddContact(ctx, Partner, api.ContactRequest{Address: contact}); err != nil {
		t.Fatal(err)
	}
	d.tells(t, []string{contact + " was added"}, ops, contact)

	resume := func(c *api.Client) error {
		t.Helper()
		if _, err := d.Operator.Act(ctx, Partner, "suspend", api.ActRequest{}); err != nil {
			t.Fatal(err)
		}
		_, err := c.Act(ctx, Partner, "resume", api.ActRequest{})
		return err
	}
	if err := resume(d.Operator); !errors.Is(err, mandate.ErrDenied) {
		t.Fatalf("the glass is whole: %v", err)
	}
	who := fmt.Sprintf("(uid:%d)", os.Getuid())
	if _, err := d.Operator.BreakGlass("the issuer is down").Act(ctx, Partner, "resume", api.ActRequest{}); err != nil {
		t.Fatal(err)
	}
	d.tells(t, []string{"the glass was broken", who, "grant resume (POST /v1/grants/contoso/resume)", "the issuer is down"}, ops)

	var denied *mandate.DeniedError
	if err := resume(one); !errors.As(err, &denied) || denied.Decision.Approval == "" {
		t.Fatalf("got %v, want that a second person is asked", err)
	}
	d.tells(t, []string{"a second person is needed", "oid:" + objectOf(t, nora), "grant resume"}, ops)
	if _, err := one.GiveApproval(ctx, denied.Decision.Approval); !errors.Is(err, mandate.ErrDenied) {
		t.Fatalf("one's own act: %v", err)
	}
	if _, err := two.GiveApproval(ctx, denied.Decision.Approval); err != nil {
		t.Fatal(err)
	}
	d.tells(t, []string{"a second person said yes", "oid:" + objectOf(t, dev), "grant resume"}, ops)
	if _, err := one.Act(ctx, Partner, "resume", api.ActRequest{}); err != nil {
		t.Fatal(err)
	}
	d.toldOnly(t, 5, 6)
}
