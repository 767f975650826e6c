package api

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/notify"
)

// fakeNotices has one notice, and keeps contacts in memory. It is a notifier,
// too.
type fakeNotices struct {
	err      error
	full     error // of Announce
	notices  []notify.Notice
	retried  []string
	asked    notify.Query
	contacts []mandate.Contact
	told     []mandate.Notice
	settled  []bool
}

func newNotices() *fakeNotices {
	now := time.Unix(1e9, 0).UTC()
	return &fakeNotices{
		notices: []notify.Notice{{ID: "n1", Kind: mandate.NoticeStaged, State: notify.StateWaiting, Created: now, Partner: "contoso", Subject: "s", Text: "t",
			To: []mandate.MailAddress{"ada@contoso.example"}, Deliveries: []notify.Delivery{{Way: "mail", Address: "ada@contoso.example", State: "waiting", Attempts: 2, Next: now, Changed: now, Fault: "451"}}}},
		contacts: []mandate.Contact{{Address: "ada@contoso.example", Added: now, By: "uid:0"}},
	}
}

func (f *fakeNotices) List(_ context.Context, q notify.Query) ([]notify.Notice, error) {
	f.asked = q
	return f.notices, f.err
}

func (f *fakeNotices) Show(_ context.Context, id string) (notify.Notice, error) {
	if id != "n1" {
		return notify.Notice{}, mandate.ErrNotFound
	}
	return f.notices[0], f.err
}

func (f *fakeNotices) Retry(_ context.Context, id string) error {
	if id != "n1" {
		return mandate.ErrNotFound
	}
	f.retried = append(f.retried, id)
	return f.err
}

func (f *fakeNotices) Ways() []string { return []string{"mail"} }

func (f *fakeNotices) Contacts(partner string) ([]mandate.Contact, error) {
	if partner != "contoso" {
		return nil, errors.New("asked of another partner")
	}
	return f.contacts, f.err
}

func (f *fakeNotices) AddContact(_ context.Context, _ string, a mandate.MailAddress, by mandate.CallerID) error {
	if f.err == nil && slices.ContainsFunc(f.contacts, func(c mandate.Contact) bool { return c.Address == a }) {
		return mandate.ErrExists
	}
	f.contacts = append(f.contacts, mandate.Contact{Address: a, By: by})
	return f.err
}

func (f *fakeNotices) RemoveContact(_ context.Context, _ string, a mandate.MailAddress) error {
	n := len(f.contacts)
	f.contacts = slices.DeleteFunc(f.contacts, func(c mandate.Contact) bool { return c.Address == a })
	if f.err == nil && n == len(f.contacts) {
		return mandate.ErrNotFound
	}
	return f.err
}

func (f *fakeNotices) Notify(_ context.Context, n mandate.Notice) error {
	f.told = append(f.told, n)
	return f.full
}

func (f *fakeNotices) Announce(ctx context.Context, n mandate.Notice) error { return f.Notify(ctx, n) }

func (f *fakeNotices) Settle(_ context.Context, _ mandate.Notice, happened bool) error {
	f.settled = append(f.settled, happened)
	return nil
}

func noticeScenes() []scene {
	down := func(w *world) { w.notices.err = mandate.ErrUnavailable }
	full := func(w *world) { w.notices.full = mandate.ErrRateLimited }
	none := func(w *world) { w.server.cfg.Notices, w.server.cfg.Contacts = nil, nil }
	const list, show, retry = "GET /v1/notices", "GET /v1/notices/{id}", "POST /v1/notices/{id}/retry"
	const contacts, add, remove = "GET /v1/partners/{partner}/contacts", "POST /v1/partners/{partner}/contacts", "POST /v1/partners/{partner}/contacts/remove"
	const path, bob, ada = "/v1/partners/contoso/contacts", `{"address":"bob@contoso.example","ticket":"T-1"}`, `{"address":"ada@contoso.example"}`
	return []scene{
		{op: list, status: "200", query: "?state=waiting&partner=contoso&limit=5"},
		{op: list, status: "400", query: "?state=lost"},
		{op: list, status: "400", query: "?limit=0"},
		{op: list, status: "400", query: "?limit=501"},
		{op: list, status: "400", query: "?partner=a%20b"},
		{op: list, status: "404", damage: none},
		{op: list, status: "503", damage: down},
		{op: show, status: "200", path: "/v1/notices/n1"},
		{op: show, status: "400", path: "/v1/notices/a%20b"},
		{op: show, status: "404", path: "/v1/notices/n2"},
		{op: show, status: "503", path: "/v1/notices/n1", damage: down},
		{op: retry, status: "200", path: "/v1/notices/n1/retry", body: `{}`},
		{op: retry, status: "400", path: "/v1/notices/n1/retry", body: `{"x":1}`},
		{op: retry, status: "400", path: "/v1/notices/a%20b/retry", body: `{}`},
		{op: retry, status: "404", path: "/v1/notices/n2/retry", body: `{}`},
		{op: retry, status: "503", path: "/v1/notices/n1/retry", body: `{}`, damage: down},
		{op: contacts, status: "200", path: path},
		{op: contacts, status: "400", path: "/v1/partners/a%20b/contacts"},
		{op: contacts, status: "404", path: "/v1/partners/nobody/contacts"},
		{op: contacts, status: "503", path: path, damage: down},
		{op: add, status: "200", path: path, body: bob},
		{op: add, status: "400", path: path, body: `{"address":"Ada <ada@contoso.example>"}`},
		{op: add, status: "404", path: path, body: bob, damage: none},
		{op: add, status: "409", path: path, body: ada},
		{op: add, status: "429", path: path, body: bob, damage: full},
		{op: add, status: "503", path: path, body: bob, damage: func(w *world) { w.log.err = errors.New("full") }},
		{op: remove, status: "200", path: path + "/remove", body: ada},
		{op: remove, status: "400", path: path + "/remove", body: `{}`},
		{op: remove, status: "404", path: path + "/remove", body: bob},
		{op: remove, status: "429", path: path + "/remove", body: ada, damage: full},
		{op: remove, status: "503", path: path + "/remove", body: ada, damage: down},
	}
}

func TestNotices(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	all, err := w.operator.Notices(ctx, notify.Query{State: "failed", Partner: "contoso", Limit: 7})
	if err != nil || len(all.Notices) != 1 || all.Ways[0] != "mail" || w.notices.asked != (notify.Query{State: "failed", Partner: "contoso", Limit: 7}) {
		t.Errorf("got %+v, %v, asked %+v", all, err, w.notices.asked)
	}
	if _, err := w.operator.Notices(ctx, notify.Query{}); err != nil || w.notices.asked.Limit != 50 {
		t.Errorf("%v, asked %+v", err, w.notices.asked)
	}
	if n, err := w.operator.Notice(ctx, "n1"); err != nil || n.Deliveries[0].Fault != "451" {
		t.Errorf("got %+v, %v", n, err)
	}
	if n, err := w.operator.RetryNotice(ctx, "n1", ActRequest{Ticket: "T-1"}); err != nil || n.ID != "n1" || len(w.notices.retried) != 1 {
		t.Errorf("got %+v, %v", n, err)
	}
	if last := string(must(w.log.Last(1))[0]); !strings.Contains(last, "deliver notice n1 again") || !strings.Contains(last, "T-1") {
		t.Errorf("record %s", last)
	}
	w.log.err = errors.New("full")
	if _, err := w.operator.RetryNotice(ctx, "n1", ActRequest{}); err == nil || len(w.notices.retried) != 1 {
		t.Errorf("retried without a record: %v", err)
	}
}

// A change of who is told is told first, to those of before and to whom it is
// about, and recorded; if it cannot be told nothing is changed.
func TestContacts(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	out, err := w.operator.AddContact(ctx, contosoID.String(), ContactRequest{Address: "bob@contoso.example", Ticket: "T-1"})
	if err != nil || out.Partner != "contoso" || len(out.Contacts) != 2 || !strings.HasPrefix(string(out.Contacts[1].By), "uid:") {
		t.Fatalf("got %+v, %v", out, err)
	}
	if out, err = w.operator.RemoveContact(ctx, "contoso", ContactRequest{Address: "ada@contoso.example"}); err != nil || len(out.Contacts) != 1 {
		t.Fatalf("got %+v, %v", out, err)
	}
	for i, want := range []string{"bob@contoso.example", "ada@contoso.example"} {
		n := w.notices.told[i]
		if n.Kind != mandate.NoticeContacts || n.Grant == nil || *n.Grant != contoso.Key || !slices.Equal(n.Also, []string{want}) || !strings.Contains(n.About, want) || n.Who == "" || !w.notices.settled[i] {
			t.Errorf("told %+v, settled %v", n, w.notices.settled)
		}
	}
	if last := string(must(w.log.Last(1))[0]); !strings.Contains(last, `"detail":"a contact was removed"`) || !strings.Contains(last, `"reason":"ada@contoso.example"`) {
		t.Errorf("record %s", last)
	}
	for what, fail := range map[string]func(){"told": func() { w.notices.full = mandate.ErrUnavailable }, "recorded": func() { w.notices.full, w.log.err = nil, errors.New("full") }} {
		w.notices.full, w.log.err = nil, nil
		fail()
		if _, err := w.operator.AddContact(ctx, "contoso", ContactRequest{Address: "eve@evil.example"}); err == nil || len(w.notices.contacts) != 1 {
			t.Errorf("what cannot be %s was done: %v", what, err)
		}
	}
	if _, err := w.operator.Contacts(ctx, "../x"); !errors.Is(err, mandate.ErrInvalid) {
		t.Errorf("got %v", err)
	}
	for _, act := range []string{"", "/remove"} {
		if rights["POST /v1/partners/{partner}/contacts"+act] != loosens {
			t.Error("who can redirect notices can hide an attack: it must loosen")
		}
	}
}
