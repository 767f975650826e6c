package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
)

// fakeSignIns has one person, with the roles of the test.
type fakeSignIns struct {
	roles []string
	at    time.Time
	err   error
	ended []string
}

var adaID = must(mandate.ParseObjectID("33333333-3333-3333-3333-333333333333"))

func (f *fakeSignIns) operator() Operator {
	return Operator{Issuer: "https://login.test/x", User: mandate.Identity{Tenant: contosoID, Object: adaID}, UserName: "ada", Roles: f.roles, SignedIn: f.at, Expires: time.Now().Add(time.Hour)}
}

func (f *fakeSignIns) Begin(context.Context) (SignInStart, error) {
	return SignInStart{AuthorizeURL: "https://login.test/a", TokenURL: "https://login.test/t", ClientID: "c", Scope: "openid", Nonce: "n"}, f.err
}

func (f *fakeSignIns) Finish(_ context.Context, idToken string) (Operator, mandate.Secret, error) {
	switch {
	case f.err != nil:
		return Operator{}, mandate.Secret{}, f.err
	case idToken != "good":
		return Operator{}, mandate.Secret{}, mandate.ErrUnauthenticated
	case len(f.roles) == 0:
		return f.operator(), mandate.Secret{}, forbid("no role")
	}
	return f.operator(), mandate.NewSecret("mds_good"), nil
}

func (f *fakeSignIns) Session(_ context.Context, s mandate.Secret) (Operator, error) {
	if s.Reveal() != "mds_good" {
		return Operator{}, mandate.ErrUnauthenticated
	}
	return f.operator(), f.err
}

func (f *fakeSignIns) End(_ context.Context, s mandate.Secret) error {
	f.ended = append(f.ended, s.Reveal())
	return f.err
}

// peopled returns a world in which people sign in, and a client of one.
func peopled(t *testing.T, roles ...string) (*world, *fakeSignIns, *Client) {
	f := &fakeSignIns{roles: roles, at: time.Now()}
	w := newWorld(t, func(c *Config) { c.SignIns = f })
	return w, f, must(NewOpenClient(w.tls.URL, w.tls.Client())).WithSession(mandate.NewSecret("mds_good"))
}

// signInScenes make the documented statuses of sign-ins happen.
func signInScenes() []scene {
	with := func(f *fakeSignIns) func(*world) { return func(w *world) { w.server.cfg.SignIns = f } }
	good := with(&fakeSignIns{roles: []string{RoleViewer}})
	down := with(&fakeSignIns{roles: []string{RoleViewer}, err: mandate.ErrUnavailable})
	session := func(w *world) *Client { return w.operator.WithSession(mandate.NewSecret("mds_good")) }
	return []scene{
		{op: "POST /v1/signin", status: "200", body: `{}`, damage: good},
		{op: "POST /v1/signin", status: "400", body: `{"x":1}`, damage: good},
		{op: "POST /v1/signin", status: "404", body: `{}`},
		{op: "POST /v1/signin", status: "503", body: `{}`, damage: down},
		{op: "POST /v1/signin/finish", status: "201", body: `{"id_token":"good"}`, damage: good},
		{op: "POST /v1/signin/finish", status: "400", body: `{"x":1}`, damage: good},
		{op: "POST /v1/signin/finish", status: "401", body: `{"id_token":"bad"}`, damage: good},
		{op: "POST /v1/signin/finish", status: "403", body: `{"id_token":"good"}`, damage: with(&fakeSignIns{})},
		{op: "POST /v1/signin/finish", status: "404", body: `{"id_token":"good"}`},
		{op: "POST /v1/signin/finish", status: "503", body: `{"id_token":"good"}`, damage: down},
		{op: "POST /v1/signin/end", status: "200", body: `{}`, damage: good, who: session},
		{op: "POST /v1/signin/end", status: "400", body: `{"x":1}`, damage: good, who: session},
		{op: "POST /v1/signin/end", status: "401", body: `{}`, damage: good},
		{op: "POST /v1/signin/end", status: "404", body: `{}`},
		{op: "POST /v1/signin/end", status: "503", body: `{}`, damage: down, who: session},
	}
}

// Every operation has a right, and nothing has one that is not an operation.
func TestOperatorRightsComplete(t *testing.T) {
	seen := map[string]bool{}
	for _, rt := range slices.Concat(callerRoutes, operators()) {
		op := rt.method + " " + rt.path
		need, ok := rights[op]
		if seen[op] = true; !ok {
			t.Errorf("%s has no right", op)
		}
		if rt.method == "GET" && need != views && op != "GET /v1/backup" {
			t.Errorf("%s needs more than to look", op)
		}
	}
	for op := range rights {
		if !seen[op] {
			t.Errorf("%s has a right, and is not served", op)
		}
	}
}

// Who may do what, for each role and each operation.
func TestOperatorRoles(t *testing.T) {
	for _, role := range []string{"", RoleViewer, RoleOperator, RoleSecurity} {
		w, f, c := peopled(t, strings.Fields(role)...)
		for _, rt := range operators() {
			need := rights[rt.method+" "+rt.path]
			path := strings.NewReplacer("{partner}", "contoso", "{caller}", "billing").Replace(rt.path)
			for _, age := range []time.Duration{0, 9 * time.Minute, 11 * time.Minute, -1} {
				if f.at = time.Now().Add(-age); age < 0 {
					f.at = time.Time{}
				}
				want := map[string]bool{RoleViewer: need == views, RoleOperator: need != loosens, RoleSecurity: need != loosens || age == 0 || age == 9*time.Minute}[role]
				if err := (&Operator{Roles: f.roles, SignedIn: f.at}).check(need, time.Now()); (err == nil) != want {
					t.Errorf("%q, %s, signed in %v ago: got %v, want allowed %v", role, path, age, err, want)
				}
			}
			f.at = time.Time{}
			if need == loosens || role == "" {
				if status, _, body := send(t, c, rt.method, path, `{}`); status != 403 {
					t.Errorf("%q %s %s: got %d %s, want 403", role, rt.method, path, status, body)
				}
			}
		}
		w.tls.Close()
	}
}

// What is for operators is served over the network only to them.
func TestOperatorDoorOverNetwork(t *testing.T) {
	w, _, c := peopled(t, RoleSecurity)
	ctx := t.Context()
	if all, err := c.Callers(ctx); err != nil || len(all) != 1 {
		t.Errorf("%v, %v", all, err)
	}
	if _, err := c.AddCaller(ctx, "x"); err != nil {
		t.Error(err)
	}
	if got := w.store.added[0].Owner; got != "https://login.test/x "+adaID.String() {
		t.Errorf("owner %q", got)
	}
	if !strings.Contains(fmt.Sprintf("%s", w.log.lines), `"caller":"oid:`+adaID.String()) {
		t.Errorf("records: %s", w.log.lines)
	}
	// A token needs a rule for the person: the broker is asked as anybody's.
	if _, err := c.Token(ctx, TokenRequest{Partner: "contoso", Audience: "graph", Purpose: "support"}); err != nil {
		t.Error(err)
	}
	if asked := w.broker.asked(); len(asked) != 1 || asked[0].Caller != mandate.CallerID("oid:"+adaID.String()) {
		t.Errorf("asked %+v", asked)
	}
	for what, client := range map[string]*Client{"a caller": w.caller, "nobody": must(NewOpenClient(w.tls.URL, w.tls.Client())), "another session": c.WithSession(mandate.NewSecret("mds_bad"))} {
		if _, err := client.Callers(ctx); !errors.Is(err, mandate.ErrUnauthenticated) {
			t.Errorf("%s: got %v, want %v", what, err, mandate.ErrUnauthenticated)
		}
	}
	closed := newWorld(t)
	if _, err := closed.caller.Callers(ctx); !errors.Is(err, mandate.ErrNotFound) {
		t.Errorf("where nobody signs in: got %v, want %v", err, mandate.ErrNotFound)
	}
}

// Once people can sign in, the socket makes nothing looser without a reason,
// which is recorded and told; tightening is never held up.
func TestOperatorBreakGlass(t *testing.T) {
	w, _, _ := peopled(t, RoleSecurity)
	ctx := t.Context()
	if _, err := w.operator.AddCaller(ctx, "x"); !errors.Is(err, mandate.ErrDenied) || !strings.Contains(err.Error(), "--break-glass") {
		t.Errorf("got %v, want it denied", err)
	}
	if len(w.store.added) != 0 {
		t.Error("the caller was added all the same")
	}
	if err := w.operator.RemoveCaller(ctx, "billing"); err != nil {
		t.Errorf("tightening: %v", err)
	}
	if _, err := w.operator.BreakGlass("the issuer is down").AddCaller(ctx, "x"); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%s", w.log.lines); !strings.Contains(got, "break glass for POST /v1/callers: the issuer is down") {
		t.Errorf("records: %s", got)
	}
	if got := w.logged.String(); !strings.Contains(got, `level=ERROR msg="the glass was broken"`) {
		t.Errorf("the log says nothing: %s", got)
	}
	if _, err := w.operator.BreakGlass(strings.Repeat("x", 300)).AddCaller(ctx, "y"); !errors.Is(err, mandate.ErrInvalid) {
		t.Errorf("an endless reason: %v", err)
	}
	w.log.err = errors.New("full")
	if _, err := w.operator.BreakGlass("x").AddCaller(ctx, "y"); !errors.Is(err, mandate.ErrUnavailable) {
		t.Errorf("without a record: %v", err)
	}
}

func TestOperatorSignIn(t *testing.T) {
	w, f, c := peopled(t, RoleViewer)
	ctx := t.Context()
	if start, err := c.BeginSignIn(ctx); err != nil || start.Nonce != "n" {
		t.Errorf("%+v, %v", start, err)
	}
	in, err := c.FinishSignIn(ctx, mandate.NewSecret("good"))
	if err != nil || in.Session != "mds_good" || in.Caller != mandate.CallerID("oid:"+adaID.String()) {
		t.Fatalf("%+v, %v", in, err)
	}
	if err := c.EndSignIn(ctx); err != nil || len(f.ended) != 1 {
		t.Error(err)
	}
	// What cannot be recorded is no session.
	w.log.err = errors.New("full")
	if _, err := c.FinishSignIn(ctx, mandate.NewSecret("good")); !errors.Is(err, mandate.ErrUnavailable) || len(f.ended) != 2 {
		t.Errorf("got %v, %d sessions ended", err, len(f.ended))
	}
	if strings.Contains(w.logged.String()+fmt.Sprintf("%s", w.log.lines), "mds_good") {
		t.Error("a session is in a log")
	}
}

// Of two Authorization headers somebody on the way may have read the other.
func TestOperatorShowsOneSession(t *testing.T) {
	w, _, _ := peopled(t, RoleViewer)
	for shown, want := range map[string]int{"Bearer mds_good": http.StatusOK, "Bearer mds_good|Bearer mds_good": http.StatusUnauthorized, "Bearer mds_good|Basic Yjpj": http.StatusUnauthorized} {
		r := must(http.NewRequestWithContext(t.Context(), http.MethodGet, w.tls.URL+"/v1/partners", nil))
		r.Header["Authorization"] = strings.Split(shown, "|")
		resp, err := w.tls.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: got %d, want %d", shown, resp.StatusCode, want)
		}
	}
}
