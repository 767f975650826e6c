package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mandate-sam/mandate"
)

func TestPartners(t *testing.T) {
	w := newWorld(t)
	all, err := w.operator.Partners(t.Context())
	if err != nil || len(all) != 1 {
		t.Fatalf("%+v, %v", all, err)
	}
	p, err := w.operator.Partner(t.Context(), contosoID.String())
	if err != nil || p.Name != all[0].Name || p.Grant == nil || p.Grant.Evidence == nil {
		t.Fatalf("%+v, %v", p, err)
	}
	g := p.Grant
	if p.Tenant != contosoID || p.ApplicationName != "marketplace" || p.DisplayName != "Contoso CSP" || g.Generation != 3 ||
		g.State != mandate.StateActive || !g.Evidence.PartnerCenter || g.UserName != "ada@contoso.example" || g.Audiences[0].Scopes[0] != "User.Read" {
		t.Errorf("partner %+v with grant %+v", p, g)
	}
	_, _, body := send(t, w.operator, "GET", "/v1/partners/contoso", "")
	if strings.Contains(body, canary) {
		t.Errorf("the answer has the refresh token: %s", body)
	}
	if _, err := w.operator.Partner(t.Context(), "cntoso"); !errors.Is(err, mandate.ErrUnknownPartner) {
		t.Errorf("got %v, want ErrUnknownPartner", err)
	}
	if _, err := w.operator.Partner(t.Context(), "../callers"); !errors.Is(err, mandate.ErrInvalid) {
		t.Errorf("got %v, want ErrInvalid", err)
	}
	status, _, body := send(t, w.operator, "GET", "/v1/partners/a%20b", "")
	wantField(t, status, body, "partner")
}

func TestPartnerWithoutGrant(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct {
		head error
		want *Grant
	}{
		{&mandate.NoGrantError{}, nil},
		{&mandate.NoGrantError{Generation: 2, State: mandate.StateWithdrawn}, &Grant{Generation: 2, State: mandate.StateWithdrawn}},
	} {
		w.store.headErr = tt.head
		p, err := w.operator.Partner(t.Context(), "contoso")
		if err != nil || !cmp.Equal(p.Grant, tt.want, cmp.Comparer(func(a, b mandate.TenantID) bool { return a == b }), cmp.Comparer(func(a, b mandate.ObjectID) bool { return a == b })) {
			t.Errorf("%v: got %+v, %v, want %+v", tt.head, p.Grant, err, tt.want)
		}
	}
	w.store.headErr = fmt.Errorf("%w: database", mandate.ErrUnavailable)
	if _, err := w.operator.Partners(t.Context()); !errors.Is(err, mandate.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
}

var goodInvite = InviteRequest{Name: "fabrikam", Tenant: adatumID.String(), User: "ada@fabrikam.example", Term: 86400, Expires: 3600}

const goodInviteJSON = `{"name":"fabrikam","tenant":"22222222-2222-2222-2222-222222222222","user":"ada@fabrikam.example"}`

func TestInvite(t *testing.T) {
	w := newWorld(t)
	w.store.headErr = &mandate.NoGrantError{}
	out, err := w.operator.Invite(t.Context(), goodInvite)
	if err != nil || out.Link != "https://consent.example/i/once" || out.Partner.Name != "fabrikam" || out.Partner.Grant != nil {
		t.Fatalf("%+v, %v", out, err)
	}
	if left := time.Until(out.Expires); left < 59*time.Minute || left > time.Hour {
		t.Errorf("the link works for %v, want an hour", left)
	}
	i := w.store.invited[0]
	if i.Partner.Key != (mandate.GrantKey{Cloud: "test", Application: appID, Partner: adatumID}) || i.Partner.DisplayName != "fabrikam" ||
		i.User != "ada@fabrikam.example" || i.Term != 24*time.Hour || i.Expires != time.Hour || i.By != ownCaller() {
		t.Errorf("invitation %+v", i)
	}
	want := []string{"changed invite partner fabrikam: a named user, for 1 days", "invite fabrikam"}
	if diff := cmp.Diff(want, w.events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	var r mandate.Record
	if err := json.Unmarshal(w.log.lines[0], &r); err != nil || r.Caller != ownCaller() || r.Epoch != 7 || r.Partner != "fabrikam" || r.Tenant != adatumID || r.Grant.Partner != adatumID {
		t.Errorf("record %+v, %v", r, err)
	}
	status, _, body := post(t, w.operator, "/v1/partners", `{"name":"x","tenant":"22222222-2222-2222-2222-222222222222","any_user":true,"compromised":true}`)
	i = w.store.invited[1]
	if status != 201 || i.User != "" || i.Term != 365*24*time.Hour || i.Expires != 72*time.Hour || !i.Compromised ||
		!strings.Contains(w.events[2], "any user, for 365 days, because the user's account was compromised") {
		t.Errorf("%d %s: invitation %+v, events %q", status, body, i, w.events)
	}
	if strings.Contains(w.logged.String()+fmt.Sprint(w.log.lines), "i/once") {
		t.Error("the link is in a log")
	}
}

// A domain is looked up in the application's cloud, and the answer shows what
// it stands for.
func TestInviteByDomain(t *testing.T) {
	w := newWorld(t)
	in := goodInvite
	in.Tenant = "fabrikam.example"
	out, err := w.operator.Invite(t.Context(), in)
	if err != nil || out.Partner.Tenant != adatumID || w.store.invited[0].Partner.Key.Partner != adatumID {
		t.Errorf("got %+v, %v", out, err)
	}
}

func TestInviteApplications(t *testing.T) {
	other := must(mandate.ParseAppID("bbbbbbbb-0000-0000-0000-00000000000b"))
	w := newWorld(t, func(c *Config) { c.Applications = append(c.Applications, Application{"second", "test", other, nil}) })
	for _, tt := range []struct {
		name string
		want mandate.AppID
	}{{"marketplace", appID}, {"second", other}, {strings.ToUpper(other.String()), other}, {"", mandate.AppID{}}, {"third", mandate.AppID{}}} {
		in := goodInvite
		in.Application = tt.name
		_, err := w.operator.Invite(t.Context(), in)
		if tt.want.IsZero() {
			var invalid *mandate.InvalidError
			if !errors.As(err, &invalid) || invalid.Field != "application" || !strings.Contains(err.Error(), "marketplace, second") {
				t.Errorf("%q: got %v, want a refusal that lists the applications", tt.name, err)
			}
			continue
		}
		if got := w.store.invited[len(w.store.invited)-1].Partner.Key.Application; err != nil || got != tt.want {
			t.Errorf("%q: got %v, %v, want %v", tt.name, got, err, tt.want)
		}
	}
}

func TestInviteFields(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct {
		field string
		value any
	}{
		{"name", nil}, {"name", "Contoso"}, {"name", "a b"}, {"name", "uid:0"}, {"name", "-a"}, {"name", strings.Repeat("a", 64)}, {"name", contosoID.String()},
		{"tenant", nil}, {"tenant", "contoso.example"},
		{"application", "x"},
		{"display_name", strings.Repeat("a", 129)}, {"display_name", "a\nb"}, {"display_name", "a\x1b[31mb"}, {"display_name", "a\u202eb"},
		{"user", nil}, {"user", "ada"}, {"user", "ada@x"}, {"user", "@x.y"}, {"user", "a@b@c.d"}, {"user", "a b@c.d"}, {"user", "a@c d.e"},
		{"user", "a\n@c.d"}, {"user", strings.Repeat("a", 250) + "@contoso.example"}, {"user", "00000000-0000-0000-0000-000000000000"},
		{"term", -1}, {"term", 86399}, {"term", 366*86400 + 1}, {"term", int64(1) << 62}, {"term", "1y"},
		{"expires", 1}, {"expires", 299}, {"expires", 30*86400 + 1}, {"expires", -3600},
		{"state", "active"},
	} {
		status, _, body := post(t, w.operator, "/v1/partners", merge(goodInviteJSON, map[string]any{tt.field: tt.value}))
		wantField(t, status, body, tt.field)
	}
	status, _, body := post(t, w.operator, "/v1/partners", merge(goodInviteJSON, map[string]any{"any_user": true}))
	wantField(t, status, body, "user")
	_, _, body = post(t, w.operator, "/v1/partners", merge(goodInviteJSON, map[string]any{"user": nil}))
	if !strings.Contains(body, "set any_user") {
		t.Errorf("without a user: %s, want to read how to allow any", body)
	}
	if len(w.events) != 0 {
		t.Errorf("something happened: %q", w.events)
	}
}

func TestCallers(t *testing.T) {
	w := newWorld(t)
	all, err := w.operator.Callers(t.Context())
	if err != nil || len(all) != 1 || all[0].ID != "billing" {
		t.Fatalf("%+v, %v", all, err)
	}
	secret, err := w.operator.AddCaller(t.Context(), "reports")
	if err != nil || secret.Reveal() != "mdt_new" {
		t.Fatalf("%v, %v", secret, err)
	}
	if diff := cmp.Diff([]string{"changed add caller reports", "add reports"}, w.events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if strings.Contains(w.logged.String()+fmt.Sprint(w.log.lines), "mdt_new") {
		t.Error("the secret is in a log")
	}
	for _, id := range []string{"", "uid:0", "a:b", "a b", strings.Repeat("a", 65), "<x>"} {
		status, _, body := post(t, w.operator, "/v1/callers", merge(`{}`, map[string]any{"id": id}))
		wantField(t, status, body, "id")
	}
	status, _, body := post(t, w.operator, "/v1/callers", `{"id":"x","secret":"chosen"}`)
	wantField(t, status, body, "secret")
	if len(w.store.added) != 1 {
		t.Errorf("added %q", w.store.added)
	}
}

// What cannot be recorded is not done.
func TestChangeNotRecordedNotMade(t *testing.T) {
	for name, breakIt := range map[string]func(*world){
		"log":   func(w *world) { w.log.err = errors.New("disk full") },
		"epoch": func(w *world) { w.epoch.err = mandate.ErrUnavailable },
	} {
		w := newWorld(t)
		breakIt(w)
		if _, err := w.operator.AddCaller(t.Context(), "x"); !errors.Is(err, mandate.ErrUnavailable) {
			t.Errorf("%s: add caller: got %v, want ErrUnavailable", name, err)
		}
		if _, err := w.operator.Invite(t.Context(), goodInvite); !errors.Is(err, mandate.ErrUnavailable) {
			t.Errorf("%s: invite: got %v, want ErrUnavailable", name, err)
		}
		if len(w.events) != 0 {
			t.Errorf("%s: something happened all the same: %q", name, w.events)
		}
	}
}

// What was recorded and then failed is recorded as failed.
func TestChangeFailed(t *testing.T) {
	w := newWorld(t)
	w.store.err = fmt.Errorf("%w: a caller named x", mandate.ErrExists)
	if _, err := w.operator.AddCaller(t.Context(), "x"); !errors.Is(err, mandate.ErrExists) {
		t.Errorf("got %v, want ErrExists", err)
	}
	if diff := cmp.Diff([]string{"changed add caller x", "add x", "failed add caller x"}, w.events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

// Only users on the list come in, and nobody whose user id is not known.
func TestPeer(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Operators = []int{1 << 30} })
	open := httptest.NewServer(w.server.Operator())
	defer open.Close()
	nobody := must(NewClient(open.URL, nil, "billing", mandate.NewSecret(rightSecret)))
	for _, rt := range slices.Concat(callerRoutes, operatorRoutes) {
		path := strings.Replace(rt.path, "{partner}", "contoso", 1)
		if status, _, body := send(t, w.operator, rt.method, path, goodToken); status != 403 || !strings.Contains(body, string(ownCaller())) {
			t.Errorf("%s %s as a stranger: got %d %s, want 403 that names the user", rt.method, rt.path, status, body)
		}
		if status, _, body := send(t, nobody, rt.method, path, goodToken); status != 401 {
			t.Errorf("%s %s without a user id: got %d %s, want 401", rt.method, rt.path, status, body)
		}
	}
	if len(w.broker.asked()) != 0 || len(w.events) != 0 {
		t.Error("something happened")
	}
	if _, ok := PeerCaller(t.Context()); ok {
		t.Error("a context of no connection has a peer")
	}
}

// Why the server can do nothing is for those who run it, and for them alone.
func TestWhyUnavailable(t *testing.T) {
	w := newWorld(t)
	w.store.err = fmt.Errorf("%w: 10.1.2.3 does not answer", mandate.ErrUnavailable)
	w.broker.set(w.store.err)
	if _, err := w.operator.Callers(t.Context()); !errors.Is(err, mandate.ErrUnavailable) || !strings.Contains(err.Error(), "10.1.2.3 does not answer") {
		t.Errorf("over the socket: %v", err)
	}
	w.store.err = nil
	ask := TokenRequest{Partner: "contoso", Audience: "graph", Purpose: "support"}
	if _, err := w.operator.Token(t.Context(), ask); !errors.Is(err, mandate.ErrUnavailable) || !strings.Contains(err.Error(), "10.1.2.3 does not answer") {
		t.Errorf("over the socket: %v", err)
	}
	if _, err := w.caller.Token(t.Context(), ask); !errors.Is(err, mandate.ErrUnavailable) || strings.Contains(err.Error(), "10.1.2.3") || !strings.Contains(err.Error(), "(request ") {
		t.Errorf("a caller: %v", err)
	}
	strangers := newWorld(t, func(c *Config) {
		c.Operators = []int{1 << 30}
		c.Ready = func(context.Context) error { return errors.New("10.1.2.3 does not answer") }
	})
	if status, _, body := send(t, strangers.operator, "GET", "/readyz", ""); strings.Contains(body, "10.1.2.3") {
		t.Errorf("somebody else at the socket: %d %s", status, body)
	}
}

// An operator's token needs what anybody's does.
func TestOperatorToken(t *testing.T) {
	w := newWorld(t)
	if _, err := w.operator.Token(t.Context(), TokenRequest{Partner: "contoso", Audience: "graph", Purpose: "support"}); err != nil {
		t.Fatal(err)
	}
	if r := w.broker.asked()[0]; r.Caller != ownCaller() || r.Use != mandate.UseToken || r.Address.IsValid() {
		t.Errorf("the broker was asked %+v", r)
	}
	if _, err := w.operator.Token(t.Context(), TokenRequest{Partner: "contoso", Audience: "graph"}); !errors.Is(err, mandate.ErrInvalid) {
		t.Errorf("without a purpose: %v", err)
	}
}

func TestStatus(t *testing.T) {
	w := newWorld(t)
	st, err := w.operator.Status(t.Context())
	if err != nil || st.Version != "v1.2.3" || st.Caller != ownCaller() || !st.Ready || time.Since(st.Started) > time.Minute ||
		strings.Join(st.Audiences, " ") != "arm graph nowhere partnercenter" || strings.Join(st.Applications, " ") != "marketplace" {
		t.Errorf("%+v, %v", st, err)
	}
}

func TestNewRequires(t *testing.T) {
	good := newWorld(t).server.cfg
	for name, remove := range map[string]func(*Config){
		"Broker": func(c *Config) { c.Broker = nil }, "Authenticator": func(c *Config) { c.Authenticator = nil },
		"Partners": func(c *Config) { c.Partners = nil }, "Registry": func(c *Config) { c.Registry = nil }, "Tenants": func(c *Config) { c.Tenants = nil },
		"Callers": func(c *Config) { c.Callers = nil }, "Grants": func(c *Config) { c.Grants = nil },
		"Audit": func(c *Config) { c.Audit = nil }, "Recorder": func(c *Config) { c.Recorder = nil },
		"Epoch": func(c *Config) { c.Epoch = nil }, "Log": func(c *Config) { c.Log = nil },
		"Applications": func(c *Config) { c.Applications = nil }, "Clouds": func(c *Config) { c.Clouds = nil },
	} {
		cfg := good
		remove(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("without %s: no error", name)
		}
	}
	good.Log, good.Operators = slog.New(slog.DiscardHandler), nil
	if s, err := New(good); err != nil || len(s.cfg.Operators) != 1 {
		t.Errorf("%v; operators by default %v, want this user", err, s.cfg.Operators)
	}
}
