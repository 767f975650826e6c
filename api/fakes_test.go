package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/audit"
	"github.com/mandate-sam/mandate/internal/web"
)

// canary is the access token that no answer of /v1/call may ever show.
const canary = "eyJ0eXAiOiJKV1QifQ.canary-access-token.c2lnbmF0dXJl"

const rightSecret = "mdt_right"

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

var (
	contosoID = must(mandate.ParseTenantID("11111111-1111-1111-1111-111111111111"))
	adatumID  = must(mandate.ParseTenantID("22222222-2222-2222-2222-222222222222"))
	appID     = must(mandate.ParseAppID("aaaaaaaa-0000-0000-0000-00000000000a"))
	contoso   = mandate.Partner{Name: "contoso", DisplayName: "Contoso CSP", Created: time.Unix(1_700_000_000, 0).UTC(),
		Key: mandate.GrantKey{Cloud: "test", Application: appID, Partner: contosoID}}
)

// fakeBroker answers with one token or one error, and remembers what it was
// asked. It checks nothing, so that the server must.
type fakeBroker struct {
	mu   sync.Mutex // guards the fields below
	err  error
	asks []mandate.Request
	stop int // the ask from which on err counts

	number bool    // the tokens have numbers
	epochs []int64 // of the next tokens; then it is the present one
}

func (b *fakeBroker) Token(_ context.Context, r mandate.Request) (mandate.Token, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asks = append(b.asks, r)
	if b.err != nil && len(b.asks) > b.stop {
		return mandate.Token{}, b.err
	}
	access := canary
	if b.number {
		access += strconv.Itoa(len(b.asks))
	}
	epoch := int64(thisEpoch)
	if len(b.epochs) > 0 {
		epoch, b.epochs = b.epochs[0], b.epochs[1:]
	}
	return mandate.Token{
		Epoch: epoch, Fingerprint: fmt.Sprintf("fp-%d", len(b.asks)),
		Access: mandate.NewSecret(access), Expires: time.Now().Add(time.Hour), Tenant: r.Tenant, Audience: r.Audience,
		Scopes: []string{"User.Read"}, Generation: 3, Rule: "support", Receipt: mandate.Receipt{Index: int64(len(b.asks)), Hash: "abc"},
	}, nil
}

func (b *fakeBroker) set(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = err
}

func (b *fakeBroker) asked() []mandate.Request {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.asks)
}

// fakeStore is partners, callers, grants and secrets.
type fakeStore struct {
	err     error // of everything that can fail
	headErr error // of Head alone
	invited []Invitation
	added   []mandate.Caller
	events  *[]string // shared with the log, to see what came first
}

func (s *fakeStore) Authenticate(id, secret string) (mandate.CallerID, error) {
	switch {
	case s.err != nil:
		return "", s.err
	case secret == rightSecret && (id == "billing" || id == "other"):
		return mandate.CallerID(id), nil
	}
	return "", fmt.Errorf("%w: unknown caller or wrong secret", mandate.ErrUnauthenticated)
}

func (s *fakeStore) Partner(name string) (mandate.Partner, error) {
	switch {
	case s.err != nil:
		return mandate.Partner{}, s.err
	case name == contoso.Name || name == contosoID.String():
		return contoso, nil
	case name == "lost":
		return mandate.Partner{Name: "lost", Key: mandate.GrantKey{Cloud: "gone"}}, nil
	}
	return mandate.Partner{}, fmt.Errorf("%w: %q", mandate.ErrUnknownPartner, name)
}

func (s *fakeStore) Partners(context.Context) ([]mandate.Partner, error) {
	return []mandate.Partner{contoso}, s.err
}

func (s *fakeStore) Invite(_ context.Context, i Invitation) (mandate.Partner, mandate.Secret, error) {
	*s.events = append(*s.events, "invite "+i.Partner.Name)
	s.invited = append(s.invited, i)
	return i.Partner, mandate.NewSecret("https://consent.example/i/once"), s.err
}

// Tenant knows one domain.
func (s *fakeStore) Tenant(_ context.Context, k mandate.GrantKey, domain string) (mandate.TenantID, error) {
	if domain != "fabrikam.example" || k.Cloud == "" || k.Application.IsZero() {
		return mandate.TenantID{}, mandate.Invalid("tenant", "no tenant has the domain %s", domain)
	}
	return adatumID, nil
}

func (s *fakeStore) Head(context.Context, mandate.GrantKey) (mandate.Grant, error) {
	if s.headErr != nil {
		return mandate.Grant{}, s.headErr
	}
	return mandate.Grant{
		Key: contoso.Key, Generation: 3, State: mandate.StateActive, UserName: "ada@contoso.example",
		User:      mandate.Identity{Tenant: contosoID, Object: must(mandate.ParseObjectID("33333333-3333-3333-3333-333333333333"))},
		Consented: contoso.Created, Until: time.Now().Add(100 * 24 * time.Hour), Redeemed: contoso.Created,
		Evidence:    mandate.Evidence{PartnerCenter: true, AMR: []mandate.TokenAMR{{Token: "id_token", Methods: []string{"pwd", "mfa"}}}, AuthTime: contoso.Created},
		Audiences:   []mandate.GrantedAudience{{Audience: "https://graph.test", Scopes: []string{"User.Read"}}},
		AgentGroups: []string{"AdminAgents"}, Refresh: mandate.NewSecret("refresh-" + canary),
	}, nil
}

// fakeLog is an audit log in memory.
type fakeLog struct {
	mu     sync.Mutex // guards the fields below
	err    error
	lines  []json.RawMessage
	grown  chan struct{}
	events *[]string
}

func (l *fakeLog) Record(_ context.Context, r mandate.Record) (mandate.Receipt, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return mandate.Receipt{}, fmt.Errorf("%w: %w", mandate.ErrUnavailable, l.err)
	}
	*l.events = append(*l.events, r.Kind+" "+r.Detail)
	r.Time = contoso.Created
	line := must(json.Marshal(audit.Entry{Index: int64(len(l.lines)), Leaf: "abc", Record: r}))
	l.lines = append(l.lines, line)
	close(l.grown)
	l.grown = make(chan struct{})
	return mandate.Receipt{Index: int64(len(l.lines)) - 1, Hash: "abc"}, nil
}

func (l *fakeLog) Last(n int) ([]json.RawMessage, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.lines[max(0, len(l.lines)-n):]), nil
}

func (l *fakeLog) Count() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return int64(len(l.lines))
}

func (l *fakeLog) Wait(ctx context.Context, count int64) error {
	for {
		l.mu.Lock()
		n, grown := int64(len(l.lines)), l.grown
		l.mu.Unlock()
		if n > count {
			return nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// fakeEpoch is an epoch, or an error; a later one when it was asked for so
// often.
type fakeEpoch struct {
	err   error
	later int64 // 0: never
	asked atomic.Int64
}

const thisEpoch = 7

func (e *fakeEpoch) Epoch() (int64, error) {
	if n := e.asked.Add(1); e.later > 0 && n > e.later {
		return thisEpoch + 1, e.err
	}
	return thisEpoch, e.err
}

// A world is a server behind both its doors, with clients, and an API for it
// to call.
type world struct {
	server       *Server
	broker       *fakeBroker
	store        *fakeStore
	log          *fakeLog
	epoch        *fakeEpoch
	life         *fakeLife
	custodian    *fakeCustodian
	revoker      fakeRevoker
	approvals    fakeApprovals
	credentials  *fakeCredentials
	policies     *fakePolicies
	archive      *fakeArchive
	customers    *fakeCustomers
	partnerUsers *fakePartnerUsers
	notices      *fakeNotices
	logged       *lockedBuffer // the server's log
	events       []string
	upstream     *httptest.Server
	serve        http.HandlerFunc // what the API answers
	tls          *httptest.Server
	open         *httptest.Server // the operators' door without a socket; nil unless a test sets it
	socket       string
	caller       *Client // as "billing", over TLS
	operator     *Client // over the socket
}

// lockedBuffer is a buffer for several goroutines.
type lockedBuffer struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func newWorld(t *testing.T, change ...func(*Config)) *world {
	t.Helper()
	w := &world{broker: &fakeBroker{}, epoch: &fakeEpoch{}, logged: &lockedBuffer{}}
	w.store, w.log = &fakeStore{events: &w.events}, &fakeLog{grown: make(chan struct{}), events: &w.events}
	w.serve = func(rw http.ResponseWriter, _ *http.Request) { io.WriteString(rw, `{"ok":true}`) }
	w.upstream = httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { w.serve(rw, r) }))
	t.Cleanup(w.upstream.Close)
	w.customers, w.partnerUsers, w.notices = &fakeCustomers{}, &fakePartnerUsers{}, newNotices()
	w.life, w.custodian, w.policies, w.archive, w.credentials = newLife(), &fakeCustodian{}, &fakePolicies{}, &fakeArchive{}, &fakeCredentials{}
	cfg := Config{
		Broker: w.broker, Authenticator: w.store, Partners: w.store, Registry: w.store, Tenants: w.store, Callers: w.store, Grants: w.store,
		Notices: w.notices, Contacts: w.notices, Notifier: w.notices,
		Customers: w.customers, PartnerUsers: w.partnerUsers, Archive: w.archive, Custodian: w.custodian, Revoker: &w.revoker, Approvals: &w.approvals, Credentials: w.credentials, Policies: w.policies, Life: w.life, Forecaster: w.life, Secrets: w.life, Metrics: http.HandlerFunc(w.life.metrics),
		Audit: w.log, Recorder: w.log, Epoch: w.epoch, Applications: []Application{{"marketplace", "test", appID, []mandate.Audience{"https://pc.test", "https://graph.test"}}},
		Clouds: map[string]mandate.Cloud{"test": {Name: "test", Audiences: map[string]mandate.Endpoint{
			"partnercenter": {Resource: "https://pc.test", URL: w.upstream.URL},
			"graph":         {Resource: "https://graph.test", URL: w.upstream.URL},
			"arm":           {Resource: "https://arm.test/", URL: w.upstream.URL},
			"nowhere":       {Resource: "https://nowhere.test"},
		}}},
		Transport: w.upstream.Client().Transport, Version: "v1.2.3",
		Log: slog.New(slog.NewTextHandler(w.logged, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, f := range change {
		f(&cfg)
	}
	w.server = must(New(cfg))
	w.tls = httptest.NewTLSServer(w.server.Handler())
	t.Cleanup(w.tls.Close)
	w.caller = must(NewClient(w.tls.URL, w.tls.Client(), "billing", mandate.NewSecret(rightSecret)))
	w.socket = filepath.Join(shortDir(t), "run", "mandate.sock")
	l, err := ListenSocket(w.socket)
	if err != nil {
		t.Fatal(err)
	}
	serveSocket(t, w.server, l)
	w.operator = must(NewSocketClient(w.socket))
	return w
}

// serveSocket serves the operator's door on l.
func serveSocket(t *testing.T, s *Server, l net.Listener) {
	srv := web.NewServer(s.Operator(), slog.New(slog.DiscardHandler))
	srv.ConnContext = ConnContext
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(l) }()
	t.Cleanup(func() { srv.Close(); <-done })
}

// shortDir returns a folder whose path leaves room for a socket's.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "m")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// post sends a raw body to one of the doors and returns status, header and
// answer.
func post(t *testing.T, c *Client, path, body string) (int, http.Header, string) {
	t.Helper()
	return send(t, c, "POST", path, body)
}

func send(t *testing.T, c *Client, method, path, body string) (int, http.Header, string) {
	t.Helper()
	req := must(http.NewRequestWithContext(t.Context(), method, c.base+path, strings.NewReader(body)))
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.id != "" {
		req.SetBasicAuth(c.id, c.secret.Reveal())
	}
	if !c.session.IsZero() {
		req.Header.Set("Authorization", "Bearer "+c.session.Reveal())
	}
	resp, err := c.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(data)
}

// merge returns good with the fields of change instead of its own; a nil
// value removes the field.
func merge(good string, change map[string]any) string {
	var m map[string]any
	if err := json.Unmarshal([]byte(good), &m); err != nil {
		panic(err)
	}
	for k, v := range change {
		if m[k] = v; v == nil {
			delete(m, k)
		}
	}
	return string(must(json.Marshal(m)))
}

func wantField(t *testing.T, status int, body, field string) {
	t.Helper()
	var doc struct{ Error web.Problem }
	if err := json.Unmarshal([]byte(body), &doc); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	if status != 400 || doc.Error.Code != "invalid" || doc.Error.Field != field {
		t.Errorf("got %d %s about field %q (%s), want 400 invalid about %q", status, doc.Error.Code, doc.Error.Field, doc.Error.Message, field)
	}
}

// ownCaller is what this process is on the socket.
func ownCaller() mandate.CallerID { return uidCaller(os.Getuid()) }
