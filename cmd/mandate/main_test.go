package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/internal/web"
)

func TestMain(m *testing.M) {
	syscall.Umask(0o022) // a configuration that a group can write is refused
	testscript.Main(m, map[string]func(){"mandate": main, "mandate-demo": fakeDemo})
}

// Each script runs against an operator socket of its own.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			dir, err := os.MkdirTemp("", "m")
			if err != nil {
				return err
			}
			e.Defer(func() { os.RemoveAll(dir) })
			socket := filepath.Join(dir, "s")
			stop, err := serve(socket)
			if err != nil {
				return err
			}
			e.Defer(stop)
			e.Setenv("MANDATE_SOCKET", socket)
			e.Setenv("TZ", "UTC")
			e.Setenv("UID", fmt.Sprint(os.Getuid()))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
	})
}

// exits runs a command and wants an exit status: exits 3 mandate token …
func exits(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	if err != nil || neg || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS COMMAND...")
	}
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	got := 0
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

// serve serves a small world at socket until stop is called.
func serve(socket string) (stop func(), err error) {
	w := &smallWorld{grown: make(chan struct{})}
	log := slog.New(slog.DiscardHandler)
	archive, end, err := openArchive()
	if err != nil {
		return nil, err
	}
	notices := &someNotices{}
	endpoint := func(name string) mandate.Endpoint {
		return mandate.Endpoint{Resource: mandate.Audience("https://" + name + ".test"), URL: "https://" + name + ".test"}
	}
	s, err := api.New(api.Config{
		Broker: w, Authenticator: w, Partners: w, Registry: registry{w}, Tenants: registry{w}, Callers: w, Grants: w, Life: w, Forecaster: w, Secrets: w, Audit: w, Archive: archive, Credentials: someCredentials{}, Customers: w, PartnerUsers: w, Recorder: w, Epoch: w,
		Clouds: map[string]mandate.Cloud{"test": {Name: "test", Audiences: map[string]mandate.Endpoint{
			"partnercenter": endpoint("pc"), "graph": endpoint("graph"), "arm": endpoint("arm"),
		}}},
		Applications: []api.Application{{Name: "marketplace", Cloud: "test", ID: appID, Audiences: []mandate.Audience{"https://pc.test", "https://graph.test"}}},
		Transport:    w, Version: "v9", Log: log, Policies: somePolicies{}, Approvals: newApprovals(), SecondPerson: []string{"revoke lift"}, Revoker: &someRevocations{}, Notices: notices, Contacts: notices,
	})
	if err != nil {
		return nil, err
	}
	l, err := api.ListenSocket(socket)
	if err != nil {
		return nil, err
	}
	srv := web.NewServer(s.Operator(), log)
	srv.ConnContext = api.ConnContext
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	return func() { srv.Close(); <-done; end() }, nil
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

var (
	tenant  = must(mandate.ParseTenantID("11111111-1111-1111-1111-111111111111"))
	appID   = must(mandate.ParseAppID("aaaaaaaa-0000-0000-0000-00000000000a"))
	contoso = mandate.Partner{Name: "contoso", DisplayName: "Contoso\x1b[31m CSP", Created: time.Unix(1_700_000_000, 0).UTC(),
		Key: mandate.GrantKey{Cloud: "test", Application: appID, Partner: tenant}}
	fabrikam = mandate.Partner{Name: "fabrikam", Created: contoso.Created,
		Key: mandate.GrantKey{Cloud: "test", Application: appID, Partner: must(mandate.ParseTenantID("22222222-2222-2222-2222-222222222222"))}}
)

// A smallWorld is everything behind an operator socket. What a request's
// purpose says decides how it ends.
type smallWorld struct {
	mu    sync.Mutex // guards the fields below
	lines []json.RawMessage
	grown chan struct{}
	users []mandate.PartnerUser
}

var outcomes = map[string]error{
	"forbidden": &mandate.DeniedError{Decision: mandate.Decision{Reason: "no rule names this purpose", Policy: "p1"}},
	"revoked":   &mandate.DeniedError{Decision: mandate.Decision{Reason: "partner contoso was revoked", Rule: "revocation abc"}},
	"wide":      &mandate.WiderError{Rule: "r", Allowed: []string{"a"}, Granted: []string{"a", "b"}},
	"gone":      &mandate.NoGrantError{Generation: 2, State: mandate.StateWithdrawn},
	"mfa":       &mandate.Fault{Domain: mandate.DomainGrant, Remedy: mandate.RemedyRenew, OAuthError: "invalid_grant", Codes: []int{50076}, Description: "MFA needed.", CorrelationID: "corr-1"},
	"busy":      &mandate.Fault{Domain: mandate.DomainTransient, Remedy: mandate.RemedyRetry, Description: "Busy."},
	"down":      mandate.ErrUnavailable,
	"broken":    errors.New("a fault of the server"),
}

func (w *smallWorld) Token(ctx context.Context, r mandate.Request) (mandate.Token, error) {
	if err := outcomes[r.Purpose]; err != nil {
		return mandate.Token{}, err
	}
	receipt, err := w.Record(ctx, mandate.Record{
		Kind: mandate.KindIssued, Caller: r.Caller, Use: r.Use, Partner: r.Partner.Name, Tenant: r.Tenant, Grant: &r.Partner.Key,
		Audience: r.Audience, Purpose: r.Purpose, Ticket: r.Ticket, Detail: r.Detail, Rule: "support", Asked: r.Scopes,
	})
	return mandate.Token{
		Access: mandate.NewSecret("the-access-token"), Expires: time.Now().Add(time.Hour), Tenant: r.Tenant, Audience: r.Audience,
		Scopes: []string{"User.Read"}, Generation: 3, Epoch: 1, Rule: "support", Receipt: receipt,
	}, err
}

func (w *smallWorld) Authenticate(string, string) (mandate.CallerID, error) {
	return "", mandate.ErrUnauthenticated
}

func (w *smallWorld) Partner(name string) (mandate.Partner, error) {
	for _, p := range []mandate.Partner{contoso, fabrikam} {
		if name == p.Name || name == p.Key.Partner.String() {
			return p, nil
		}
	}
	return mandate.Partner{}, fmt.Errorf("%w: %q; did you mean %q?", mandate.ErrUnknownPartner, name, "contoso")
}

// A registry is the world as it lists partners.
type registry struct{ *smallWorld }

func (registry) Partners(context.Context) ([]mandate.Partner, error) {
	return []mandate.Partner{contoso, fabrikam}, nil
}

func (registry) Invite(_ context.Context, i api.Invitation) (mandate.Partner, mandate.Secret, error) {
	if i.Partner.Name == "contoso" && i.Partner.Key != contoso.Key {
		return mandate.Partner{}, mandate.Secret{}, fmt.Errorf("%w: contoso is another tenant", mandate.ErrExists)
	}
	return i.Partner, mandate.NewSecret(fmt.Sprintf("https://consent.test/i/%s-%v-%s", i.Partner.Name, i.Term, i.User)), nil
}

func (registry) Tenant(_ context.Context, _ mandate.GrantKey, domain string) (mandate.TenantID, error) {
	if domain == "fabrikam.example" {
		return fabrikam.Key.Partner, nil
	}
	return mandate.TenantID{}, mandate.Invalid("tenant", "Entra knows no tenant that has the domain %s", domain)
}

func (w *smallWorld) Head(_ context.Context, k mandate.GrantKey) (mandate.Grant, error) {
	if k != contoso.Key {
		return mandate.Grant{}, &mandate.NoGrantError{}
	}
	return mandate.Grant{
		Key: k, Generation: 3, State: mandate.StateActive, UserName: "ada@contoso.test", Consented: contoso.Created, Redeemed: contoso.Created,
		User:      mandate.Identity{Tenant: tenant, Object: must(mandate.ParseObjectID("33333333-3333-3333-3333-333333333333"))},
		Until:     time.Date(2999, 1, 2, 0, 0, 0, 0, time.UTC),
		Evidence:  mandate.Evidence{PartnerCenter: true, AMR: []mandate.TokenAMR{{Token: "id_token", Methods: []string{"pwd", "mfa"}}}},
		Audiences: []mandate.GrantedAudience{{Audience: "https://graph.test", Scopes: []string{"User.Read"}}}, AgentGroups: []string{"AdminAgents"},
	}, nil
}

func (w *smallWorld) Epoch() (int64, error) { return 1, nil }

func (w *smallWorld) Record(_ context.Context, r mandate.Record) (mandate.Receipt, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r.Time = contoso.Created
	n := int64(len(w.lines))
	w.lines = append(w.lines, must(json.Marshal(struct {
		Index int64 `json:"index"`
		mandate.Record
	}{n, r})))
	close(w.grown)
	w.grown = make(chan struct{})
	return mandate.Receipt{Index: n, Hash: "abc"}, nil
}

func (w *smallWorld) Last(n int) ([]json.RawMessage, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lines[max(0, len(w.lines)-n):], nil
}

func (w *smallWorld) Count() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return int64(len(w.lines))
}

func (w *smallWorld) Wait(ctx context.Context, count int64) error {
	for w.Count() <= count {
		w.mu.Lock()
		grown := w.grown
		w.mu.Unlock()
		select {
		case <-grown:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// RoundTrip is every API there is.
func (w *smallWorld) RoundTrip(r *http.Request) (*http.Response, error) {
	status, body := 200, `{"id":"`+r.URL.Path+`"}`
	switch r.URL.Path {
	case "/v1/customers":
		body = `{"items":[{"id":1},{"id":2}],"links":{"next":{"uri":"/customers/more"}}}`
	case "/v1/customers/more":
		body = `{"items":[{"id":3}]}`
	case "/v1/evil":
		body = `{"items":[{"name":"` + "\u009b2J" + `"}]}`
	case "/v1/broken":
		body = `{"items":[{"id":1}],"links":{"next":{"uri":"https://evil.test/"}}}`
	case "/v1/missing":
		status, body = 404, `{"code":"60003","description":"The tenant was not found."}`
	case "/v1/echo":
		sent, _ := io.ReadAll(r.Body)
		body = fmt.Sprintf(`{"method":%q,"body":%q,"if-match":%q}`+"\n", r.Method, sent, r.Header.Get("If-Match"))
	case "/v1/text":
		body = "plain \x1b[31mtext"
	case "/v1/nothing":
		status, body = 204, ""
	}
	return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

// Every command has help with an example.
func TestHelp(t *testing.T) {
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Short == "" || cmd.Long == "" || !strings.Contains(cmd.Example, "mandate ") || cmd.Long == cmd.Short {
			t.Errorf("%s: help is not whole", cmd.CommandPath())
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk((&cli{}).root())
}

// No flag takes a secret. The key that verifies an export is public, and
// "mandate audit verify" takes no other.
func TestNoSecretFlags(t *testing.T) {
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		for _, word := range []string{"secret", "password", "token", "key", "credential"} {
			if cmd.CommandPath() == "mandate audit verify" && word == "key" {
				continue
			}
			if cmd.Flags().Lookup(word) != nil || cmd.PersistentFlags().Lookup(word) != nil {
				t.Errorf("%s has a flag --%s", cmd.CommandPath(), word)
			}
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk((&cli{}).root())
}

func TestVerdict(t *testing.T) {
	for _, tt := range []struct {
		err  error
		exit int
		code string
	}{
		{errors.New("x"), 1, "failed"},
		{usage("x"), 2, "usage"},
		{mandate.Invalid("a", "b"), 2, "invalid"},
		{mandate.ErrDenied, 3, "denied"},
		{mandate.ErrWiderThanRule, 3, "wider_than_rule"},
		{mandate.ErrUnauthenticated, 3, "unauthenticated"},
		{fmt.Errorf("%w: x", api.ErrUnreachable), 4, "unreachable"},
		{mandate.ErrNoGrant, 5, "no_grant"},
		{&mandate.Fault{Domain: mandate.DomainCustomer}, 5, "upstream"},
		{&mandate.Fault{Domain: mandate.DomainTransient}, 6, "upstream"},
		{mandate.ErrUpstream, 1, "upstream"},
		{mandate.ErrUnavailable, 6, "unavailable"},
		{mandate.ErrRateLimited, 6, "rate_limited"},
		{mandate.ErrUnknownPartner, 1, "unknown_partner"},
		{mandate.ErrExists, 1, "exists"},
		{&mandate.Refusal{Reason: mandate.ReasonMFA}, 5, "refused"},
		{&api.CallError{Answer: &api.CallAnswer{Status: 404}}, 1, "api"},
		{context.Canceled, 1, "interrupted"},
	} {
		if exit, code := verdict(tt.err); exit != tt.exit || code != tt.code {
			t.Errorf("%v: got %d %s, want %d %s", tt.err, exit, code, tt.exit, tt.code)
		}
	}
}

func TestParsePeriod(t *testing.T) {
	for in, want := range map[string]time.Duration{"365d": 365 * 24 * time.Hour, "72h": 72 * time.Hour, "90m": 90 * time.Minute, "1h30m": 90 * time.Minute} {
		if got, err := parsePeriod("term", in); err != nil || got != want {
			t.Errorf("%q: got %v, %v, want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "d", "1", "-1h", "0s", "-3d", "99999999999d", "1y", "1.5d"} {
		if got, err := parsePeriod("term", in); err == nil {
			t.Errorf("%q: got %v, want an error", in, got)
		}
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		`say "hi" é`: `say "hi" é`, "a\x1b[31mb": `a\x1b[31mb`, "a\nb": `a\nb`, "a\xffb": `a\xffb`, "a\u202eb": `a\u202eb`, "q\"\n": `q"\n`,
	} {
		if got := clean(in); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}

// JSON forbids only a part of what acts on a terminal. The rest is escaped, and
// means the same.
func TestHarmless(t *testing.T) {
	const evil = "\u009b2J\u007f\u202e\u2028\U000e0001"
	for in, want := range map[string]string{
		`{"a":"say \"hi\" é` + "\U0001f600" + `"}` + "\n": `{"a":"say \"hi\" é` + "\U0001f600" + `"}` + "\n",
		`{"a":"` + evil + `"}`:                            `{"a":"\u009b2J\u007f\u202e\u2028\udb40\udc01"}`,
		"\"a\xffb\ufffd\"":                                `"a\ufffdb` + "\ufffd" + `"`,
	} {
		got := harmless([]byte(in))
		if string(got) != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
		var before, after any
		if json.Unmarshal([]byte(in), &before) != nil || json.Unmarshal(got, &after) != nil || !reflect.DeepEqual(before, after) {
			t.Errorf("%q means something else now: %s", in, got)
		}
	}
	var out bytes.Buffer
	c := &cli{stdio: stdio{out: &out}, json: true}
	for what, err := range map[string]error{
		"an object": c.printJSON(map[string]string{"a": evil}), "a record": c.printRecord(json.RawMessage(`{"detail":"` + evil + `"}`)),
		"an answer": c.printJSON(answerJSON(&api.CallAnswer{Body: []byte(`{"a":"` + evil + `"}`)})),
	} {
		if err != nil || strings.ContainsAny(out.String(), "\u009b\u007f\u202e") {
			t.Errorf("%s: %q, %v", what, out.String(), err)
		}
	}
	for in, want := range map[string]string{
		`{"a":"` + evil + `"}` + "\r\n": "{\n  \"a\": \"\\u009b2J\\u007f\\u202e\\u2028\\udb40\\udc01\"\n}\n",
		"not JSON \x1b[2J\r\nmore\n":    "not JSON \\x1b[2J\nmore\n",
	} {
		if got := string(legible([]byte(in))); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestConsentState(t *testing.T) {
	now := time.Now()
	for want, g := range map[string]*api.Grant{
		"not yet": nil, "suspended": {State: mandate.StateSuspended}, "ended": {State: mandate.StateActive, Until: now},
		"ends soon": {State: mandate.StateActive, Until: now.Add(29 * 24 * time.Hour)}, "active": {State: mandate.StateActive, Until: now.Add(31 * 24 * time.Hour)},
	} {
		if got := consentState(g, now).text; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
