package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
)

// fakeLife does nothing to grants, and remembers what it was asked to.
type fakeLife struct {
	err     error
	grants  []mandate.Grant
	done    []string
	by      mandate.By
	imports []mandate.Import
	secrets map[string]string // of a Key Vault, by name
}

var ada = mandate.Identity{Tenant: contosoID, Object: must(mandate.ParseObjectID("33333333-3333-3333-3333-333333333333"))}

// newLife has a partner whose grant is active, with a fall-back, and a
// candidate that waits.
func newLife() *fakeLife {
	in := func(d time.Duration) time.Time { return time.Now().Add(d) }
	g := mandate.Grant{
		Key: contoso.Key, User: ada, UserName: "ada@contoso.example", Consented: contoso.Created, Until: in(time.Hour), Redeemed: contoso.Created,
		Evidence: mandate.Evidence{PartnerCenter: true}, Refresh: mandate.NewSecret("refresh-" + canary),
	}
	generation := func(n int64, s mandate.State, fallback time.Time) mandate.Grant {
		out := g
		out.Generation, out.State, out.Fallback = n, s, fallback
		return out
	}
	active := generation(3, mandate.StateActive, time.Time{})
	active.Due, active.Attempted, active.Failures, active.LastFault = in(time.Hour), contoso.Created, 2, "grant fault"
	other := generation(9, mandate.StateActive, time.Time{})
	other.Key.Cloud = "elsewhere"
	return &fakeLife{
		grants: []mandate.Grant{
			other, generation(4, mandate.StateCandidate, in(time.Hour)), active, generation(2, mandate.StateFallback, in(time.Hour)), generation(1, mandate.StateReplaced, time.Time{}),
		},
		secrets: map[string]string{contosoID.String(): "rt-samples"},
	}
}

func (l *fakeLife) did(p mandate.Partner, by mandate.By, format string, args ...any) (mandate.Receipt, error) {
	l.done, l.by = append(l.done, fmt.Sprintf(format, args...)+" "+p.Name), by
	return mandate.Receipt{Index: 5, Hash: "abc"}, l.err
}

func (l *fakeLife) Suspend(_ context.Context, p mandate.Partner, by mandate.By) (mandate.Receipt, error) {
	return l.did(p, by, "suspend")
}

func (l *fakeLife) Resume(_ context.Context, p mandate.Partner, by mandate.By) (mandate.Receipt, error) {
	return l.did(p, by, "resume")
}

func (l *fakeLife) Rollback(_ context.Context, p mandate.Partner, by mandate.By) (mandate.Grant, mandate.Receipt, error) {
	r, err := l.did(p, by, "rollback")
	return mandate.Grant{}, r, err
}

func (l *fakeLife) Approve(_ context.Context, p mandate.Partner, n int64, by mandate.By) (mandate.Grant, mandate.Receipt, error) {
	r, err := l.did(p, by, "approve %d", n)
	return mandate.Grant{}, r, err
}

func (l *fakeLife) Discard(_ context.Context, p mandate.Partner, n int64, by mandate.By) (mandate.Receipt, error) {
	return l.did(p, by, "discard %d", n)
}

func (l *fakeLife) Withdraw(_ context.Context, p mandate.Partner, end bool, by mandate.By) (mandate.Withdrawal, error) {
	r, err := l.did(p, by, "withdraw %v", end)
	line := mandate.Line{Result: mandate.ResultNotAsked, Text: "Nothing.", Until: time.Now()}
	return mandate.Withdrawal{Generation: 3, User: ada, Local: line, Upstream: line, Tokens: line, Copies: line, Alive: 2, Record: r}, err
}

func (l *fakeLife) Import(_ context.Context, in mandate.Import) (mandate.Grant, mandate.Receipt, error) {
	r, err := l.did(in.Partner, in.By, "import")
	l.imports = append(l.imports, in)
	return mandate.Grant{Generation: 5, State: mandate.StateActive, User: ada, Until: in.Until, Origin: mandate.OriginImport}, r, err
}

func (l *fakeLife) Grants(_ context.Context, t mandate.TenantID) ([]mandate.Grant, error) {
	return l.grants, l.err
}

func (l *fakeLife) Window() time.Duration { return 90 * 24 * time.Hour }

func (l *fakeLife) Forecast(context.Context) ([]mandate.Trouble, error) {
	return []mandate.Trouble{{Time: time.Now(), Kind: mandate.TroubleEnd, Partner: "contoso", What: "it ends", Move: mandate.MovePartner, Do: "renew"}}, l.err
}

func (l *fakeLife) Secret(_ context.Context, cloud string, k *KeyVaultSource, name string) (mandate.Secret, error) {
	if v, ok := l.secrets[name]; ok && k.URL == "https://vault.test" && k.Identity == "reader" && cloud == "test" {
		return mandate.NewSecret(v), nil
	}
	return mandate.Secret{}, fmt.Errorf("%w: no secret %q", mandate.ErrNotFound, name)
}

func (l *fakeLife) metrics(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	io.WriteString(w, "mandate_ready 1\n")
}

func grantScenes() []scene {
	fail := func(err error) func(*world) { return func(w *world) { w.life.err = err } }
	out := []scene{
		{op: "GET /v1/grants", status: "200"},
		{op: "GET /v1/grants", status: "503", damage: fail(mandate.ErrUnavailable)},
		{op: "GET /v1/grants/{partner}", status: "200", path: "/v1/grants/contoso"},
		{op: "GET /v1/grants/{partner}", status: "400", path: "/v1/grants/a%20b"},
		{op: "GET /v1/grants/{partner}", status: "404", path: "/v1/grants/nobody"},
		{op: "GET /v1/grants/{partner}", status: "503", path: "/v1/grants/contoso", damage: fail(mandate.ErrUnavailable)},
		{op: "GET /v1/forecast", status: "200"},
		{op: "GET /v1/forecast", status: "503", damage: fail(mandate.ErrUnavailable)},
		{op: "GET /metrics", status: "200"},
		{op: "GET /metrics", status: "404", damage: func(w *world) { w.server.cfg.Metrics = nil }},
	}
	refused := &mandate.Refusal{Reason: mandate.ReasonMFA, Detail: "no"}
	for act, errs := range map[string]map[string]error{
		"suspend": {"409": &mandate.NoGrantError{}}, "resume": {}, "rollback": {"422": refused}, "approve": {"422": refused},
		"discard": {}, "withdraw": {"409": &mandate.NoGrantError{}},
		"import": {"409": &mandate.NoGrantError{State: mandate.StateWithdrawn}, "422": refused},
	} {
		op, path, body := "POST /v1/grants/{partner}/"+act, "/v1/grants/contoso/"+act, `{"ticket":"T-1"}`
		switch act {
		case "approve", "discard":
			body = `{"generation":4}`
		case "import":
			body = `{"refresh_token":"rt"}`
		}
		out = append(out,
			scene{op: op, status: "200", path: path, body: body},
			scene{op: op, status: "400", path: path, body: `{"x":1}`},
			scene{op: op, status: "404", path: "/v1/grants/nobody/" + act, body: body},
			scene{op: op, status: "503", path: path, body: body, damage: fail(mandate.ErrUnavailable)})
		for status, err := range errs {
			out = append(out, scene{op: op, status: status, path: path, body: body, damage: fail(err)})
		}
	}
	return out
}

func TestGrants(t *testing.T) {
	w := newWorld(t)
	all, err := w.operator.Grants(t.Context())
	if err != nil || len(all) != 1 {
		t.Fatalf("%+v, %v", all, err)
	}
	p := all[0]
	if p.Partner != "contoso" || p.Grant.Generation != 3 || p.Candidate.Generation != 4 || p.Fallback.Generation != 2 || p.Grant.Failures != 2 || !p.Grant.Deadline.IsZero() {
		t.Errorf("%+v", p)
	}
	if want := contoso.Created.Add(90 * 24 * time.Hour); !p.Grant.Lapses.Equal(want) {
		t.Errorf("lapses %v, want %v", p.Grant.Lapses, want)
	}
	h, err := w.operator.History(t.Context(), "contoso")
	if err != nil || len(h.Generations) != 4 || h.Generations[3].State != mandate.StateReplaced || !h.Generations[3].Lapses.IsZero() {
		t.Errorf("%+v, %v", h, err)
	}
	_, _, body := send(t, w.operator, "GET", "/v1/grants/contoso", "")
	if strings.Contains(body, canary) {
		t.Errorf("the answer has the refresh token: %s", body)
	}
}

// What waited too long is not shown as waiting.
func TestGrantsOver(t *testing.T) {
	w := newWorld(t)
	for i := range w.life.grants {
		w.life.grants[i].Fallback = time.Now().Add(-time.Second)
		if w.life.grants[i].State == mandate.StateActive {
			w.life.grants[i].State = mandate.StateWithdrawn
		}
	}
	all, err := w.operator.Grants(t.Context())
	if err != nil || all[0].Candidate != nil || all[0].Fallback != nil || all[0].Grant.State != mandate.StateWithdrawn {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestActs(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	for _, act := range []string{"suspend", "resume", "rollback"} {
		if a, err := w.operator.Act(ctx, "contoso", act, ActRequest{Ticket: "T-1"}); err != nil || a.Partner.Grant.Generation != 3 || a.Record.Index != 5 {
			t.Errorf("%s: %+v, %v", act, a, err)
		}
	}
	for _, act := range []string{"approve", "discard"} {
		if _, err := w.operator.Decide(ctx, "contoso", act, DecideRequest{Generation: 4, Ticket: "T-1"}); err != nil {
			t.Errorf("%s: %v", act, err)
		}
	}
	r, err := w.operator.Withdraw(ctx, "contoso", WithdrawRequest{EndSessions: true, Ticket: "T-1"})
	if err != nil || r.Report.Alive != 2 || r.Report.Local.Result != mandate.ResultNotAsked {
		t.Errorf("%+v, %v", r, err)
	}
	want := []string{"suspend contoso", "resume contoso", "rollback contoso", "approve 4 contoso", "discard 4 contoso", "withdraw true contoso"}
	if !slices.Equal(w.life.done, want) || w.life.by != (mandate.By{Caller: ownCaller(), Ticket: "T-1"}) {
		t.Errorf("did %q by %+v", w.life.done, w.life.by)
	}
	for path, body := range map[string]string{"suspend": `{"ticket":"a\nb"}`, "approve": `{}`, "import": `{}`} {
		status, _, answer := post(t, w.operator, "/v1/grants/contoso/"+path, body)
		wantField(t, status, answer, map[string]string{"suspend": "ticket", "approve": "generation", "import": "refresh_token"}[path])
	}
}

func TestImport(t *testing.T) {
	w := newWorld(t)
	out, err := w.operator.Import(t.Context(), "contoso", ImportRequest{RefreshToken: "rt-" + canary, User: "ada@contoso.example", Term: 86400, DryRun: true})
	if err != nil || out.Grant.Generation != 5 || !out.DryRun || out.Waits != "" {
		t.Fatalf("%+v, %v", out, err)
	}
	in := w.life.imports[0]
	if in.Refresh.Reveal() != "rt-"+canary || in.User != "ada@contoso.example" || !in.DryRun || len(in.Audiences) != 2 || time.Until(in.Until) > 24*time.Hour || in.From != "standard input" {
		t.Errorf("import %+v", in)
	}
	w.life.err = &mandate.Refusal{Reason: mandate.ReasonWeaker, Detail: "it replaces the active one", Staged: 4}
	if _, err = w.operator.Import(t.Context(), "contoso", ImportRequest{RefreshToken: "rt"}); err == nil {
		t.Error("the grants cannot be read, and yet there is an answer")
	}
	for _, token := range []string{"a b", "a\nb", strings.Repeat("x", maxRefresh+1)} {
		if _, err := w.operator.Import(t.Context(), "contoso", ImportRequest{RefreshToken: token}); !errors.Is(err, mandate.ErrInvalid) || strings.Contains(err.Error(), "a b") {
			t.Errorf("%.10q: %v", token, err)
		}
	}
	if strings.Contains(w.logged.String(), canary) {
		t.Error("the refresh token is in the log")
	}
}

func TestImportWaits(t *testing.T) {
	w := newWorld(t)
	w.server.cfg.Life = stagingLife{w.life}
	out, err := w.operator.Import(t.Context(), "contoso", ImportRequest{RefreshToken: "rt"})
	if err != nil || out.Grant.Generation != 4 || out.Grant.State != mandate.StateCandidate || !strings.Contains(out.Waits, "replaces") {
		t.Errorf("%+v, %v", out, err)
	}
}

// stagingLife lets imports wait.
type stagingLife struct{ *fakeLife }

func (l stagingLife) Import(context.Context, mandate.Import) (mandate.Grant, mandate.Receipt, error) {
	return mandate.Grant{}, mandate.Receipt{}, &mandate.Refusal{Reason: mandate.ReasonWeaker, Detail: "it replaces the active one", Staged: 4}
}

func TestImportFromKeyVault(t *testing.T) {
	const other = "22222222-2222-2222-2222-222222222222"
	cipp := func(app, tenant string) map[string]string {
		return map[string]string{"ApplicationID": app, "TenantID": tenant, "RefreshToken": "rt-cipp", contosoID.String(): "rt-named"}
	}
	for name, tt := range map[string]struct {
		layout  string
		secrets map[string]string
		want    string // the refresh token
		err     error
	}{
		"samples":                   {"", nil, "rt-samples", nil},
		"samples, none":             {"samples", map[string]string{}, "", mandate.ErrNotFound},
		"CIPP, its own":             {"cipp", cipp(strings.ToUpper(appID.String()), contosoID.String()), "rt-cipp", nil},
		"CIPP, another's":           {"cipp", cipp(appID.String(), other), "rt-named", nil},
		"CIPP, other application":   {"cipp", cipp(other, contosoID.String()), "", mandate.ErrInvalid},
		"CIPP, not one of CIPP's":   {"cipp", nil, "", mandate.ErrNotFound},
		"a layout that is nobody's": {"x", nil, "", mandate.ErrInvalid},
	} {
		w := newWorld(t)
		if tt.secrets != nil {
			w.life.secrets = tt.secrets
		}
		_, err := w.operator.Import(t.Context(), "contoso", ImportRequest{KeyVault: &KeyVaultSource{URL: "https://vault.test", Layout: tt.layout, Identity: "reader"}})
		if !errors.Is(err, tt.err) {
			t.Errorf("%s: got %v, want %v", name, err, tt.err)
		}
		if tt.want != "" && (len(w.life.imports) != 1 || w.life.imports[0].Refresh.Reveal() != tt.want || !strings.Contains(w.life.imports[0].From, "vault.test")) {
			t.Errorf("%s: imported %+v", name, w.life.imports)
		}
	}
	w := newWorld(t, func(c *Config) { c.Secrets = nil })
	if _, err := w.operator.Import(t.Context(), "contoso", ImportRequest{KeyVault: &KeyVaultSource{URL: "https://vault.test"}}); !errors.Is(err, mandate.ErrInvalid) {
		t.Errorf("without an identity: %v", err)
	}
}

func TestForecast(t *testing.T) {
	w := newWorld(t)
	all, err := w.operator.Forecast(t.Context())
	if err != nil || len(all) != 1 || all[0].Kind != mandate.TroubleEnd {
		t.Errorf("%+v, %v", all, err)
	}
}
