package portal_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"html"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/portal"
	"github.com/mandate-sam/mandate/internal/web"
)

// must is for values that are right by construction.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

const (
	origin    = "https://consent.example.test"
	goodToken = "invitation-token-of-contoso"
	goodCode  = "0.AXcA-good-code"
	canary    = "canary-refresh-token"
)

var (
	global  = mandate.Clouds()["global"]
	tenant  = must(mandate.ParseTenantID("11111111-2222-3333-4444-555555555555"))
	adatum  = must(mandate.ParseTenantID("22222222-aaaa-bbbb-cccc-222222222222"))
	appID   = must(mandate.ParseAppID("aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"))
	object  = must(mandate.ParseObjectID("99999999-8888-7777-6666-555555555555"))
	contoso = mandate.Partner{
		Name: "contoso", DisplayName: "Contoso CSP",
		Key: mandate.GrantKey{Cloud: "global", Application: appID, Partner: tenant},
	}
)

func application(cloud mandate.Cloud) portal.Application {
	return portal.Application{
		ID: appID, Cloud: cloud, Name: "Fabrikam Marketplace", Publisher: "Fabrikam Inc.", Contact: "help@fabrikam.example",
		Permissions: []portal.Permission{
			{API: "partnercenter", Scope: "user_impersonation"},
			{API: "graph", Scope: "User.Read"},
			{API: "graph", Scope: "Directory.Read.All"},
			{API: "arm", Scope: "user_impersonation", Meaning: "Manage Azure as you <can>."},
		},
		Audiences: []mandate.Audience{cloud.Audiences["arm"].Resource, cloud.Audiences["graph"].Resource, cloud.Audiences["partnercenter"].Resource},
	}
}

// A signIn is a row of the fake store.
type signIn struct {
	portal.Start
	cookie  string
	began   time.Time
	used    bool
	outcome *portal.Outcome
}

// A fakeStore keeps invitations and sign-ins in memory.
type fakeStore struct {
	mu          sync.Mutex // guards all
	invitations map[string]portal.Invitation
	signIns     map[string]*signIn
	lookups     []string // cookies that a proof was derived from
	strange     []string // tokens and ids that the portal should have stopped
	changes     int      // calls that change something

	blank  bool  // Proof derives an empty state
	lax    bool  // Consume takes any proof and any age: the portal's own checks stand alone
	err    error // what every call returns
	begin  error
	finish error
}

func (s *fakeStore) Invitation(_ context.Context, token mandate.Secret) (portal.Invitation, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.check(token.Reveal())
	if s.err != nil {
		return portal.Invitation{}, s.err
	}
	inv, ok := s.invitations[token.Reveal()]
	if !ok {
		return inv, fmt.Errorf("find: %w", portal.ErrInvitationUnknown)
	}
	if inv.Expires.Before(time.Now()) {
		return inv, portal.ErrInvitationExpired
	}
	for _, tx := range s.signIns {
		if tx.Invitation.ID != inv.ID {
			continue
		}
		if tx.outcome != nil && tx.outcome.Receipt != nil {
			return inv, portal.ErrInvitationUsed
		}
		if !tx.used {
			inv.Unfinished = tx.began
		}
	}
	return inv, nil
}

func (s *fakeStore) Begin(_ context.Context, start portal.Start) (portal.Proof, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes++
	if err := errors.Join(s.err, s.begin); err != nil {
		return portal.Proof{}, err
	}
	id, cookie := rand.Text(), rand.Text()
	s.signIns[id] = &signIn{Start: start, cookie: cookie, began: time.Now()}
	return derive(id, cookie), nil
}

func derive(id, cookie string) portal.Proof {
	hash := func(label string) string {
		sum := sha256.Sum256([]byte(label + id + cookie))
		return hex.EncodeToString(sum[:])
	}
	return portal.Proof{ID: id, Cookie: mandate.NewSecret(cookie), State: mandate.NewSecret(hash("state")), Nonce: hash("nonce"), Verifier: mandate.NewSecret(hash("verifier"))}
}

func (s *fakeStore) Proof(id string, cookie mandate.Secret) (portal.Proof, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.check(id)
	s.lookups = append(s.lookups, cookie.Reveal())
	p := derive(id, cookie.Reveal())
	if s.blank {
		p.State = mandate.Secret{}
	}
	return p, nil
}

// check notes what cannot be a token or an id.
func (s *fakeStore) check(v string) {
	if len(v) < 8 || len(v) > 128 || strings.ContainsAny(v, "!. ;=") {
		s.strange = append(s.strange, v)
	}
}

func (s *fakeStore) Consume(_ context.Context, p portal.Proof) (portal.Transaction, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes++
	if s.err != nil {
		return portal.Transaction{}, s.err
	}
	tx := s.signIns[p.ID]
	if tx == nil || !s.lax && (tx.cookie != p.Cookie.Reveal() || tx.used || time.Since(tx.began) > 10*time.Minute) {
		return portal.Transaction{}, fmt.Errorf("consume: %w", portal.ErrTransaction)
	}
	tx.used = true
	return portal.Transaction{
		Partner: tx.Invitation.Partner, SignIn: tx.SignIn, To: tx.To, Renewal: tx.Renewal, User: tx.Invitation.User, Authority: tx.Authority, RedirectURI: tx.RedirectURI,
		Began: tx.began, Until: tx.Until, Audiences: tx.Audiences,
	}, nil
}

func (s *fakeStore) Finish(_ context.Context, id string, o portal.Outcome) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes++
	if s.finish != nil {
		return s.finish
	}
	s.signIns[id].outcome = &o
	return nil
}

func (s *fakeStore) Outcome(_ context.Context, p portal.Proof) (portal.Outcome, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return portal.Outcome{}, s.err
	}
	tx := s.signIns[p.ID]
	if tx == nil || tx.outcome == nil || tx.cookie != p.Cookie.Reveal() {
		return portal.Outcome{}, mandate.ErrNotFound
	}
	return *tx.outcome, nil
}

// A fakeBroker accepts goodCode and records what it was asked.
type fakeBroker struct {
	mu       sync.Mutex // guards consents and refusals
	consents []mandate.Consent
	refusals []mandate.Reason
	partners []string // of refusals
	err      error    // instead of a grant
	broken   error    // of the record
	grant    func(*mandate.Grant)
	before   func(context.Context)
	panics   bool
}

func (b *fakeBroker) Consent(ctx context.Context, c mandate.Consent) (mandate.Grant, mandate.Receipt, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.consents = append(b.consents, c)
	if b.before != nil {
		b.before(ctx)
	}
	if b.panics {
		panic("boom")
	}
	if b.err != nil {
		return mandate.Grant{}, mandate.Receipt{}, b.err
	}
	if c.Code.Reveal() != goodCode {
		return mandate.Grant{}, mandate.Receipt{}, &mandate.Refusal{Reason: mandate.ReasonToken, Detail: "detail-for-the-operator"}
	}
	g := mandate.Grant{
		Key: c.Partner.Key, Generation: 1, Until: c.Until, Consented: time.Now(),
		User: mandate.Identity{Tenant: tenant, Object: object}, UserName: "alice@contoso.example",
		Evidence:    mandate.Evidence{PartnerCenter: true, AMR: []mandate.TokenAMR{{Token: "https://graph.microsoft.com", Methods: []string{"pwd", "mfa"}}}},
		AgentGroups: []string{"AdminAgents"}, Refresh: mandate.NewSecret(canary),
	}
	for _, a := range c.Audiences {
		g.Audiences = append(g.Audiences, mandate.GrantedAudience{Audience: a, Scopes: []string{"Scope.Of." + string(a)[8:13]}})
	}
	if b.grant != nil {
		b.grant(&g)
	}
	return g, mandate.Receipt{Index: 41, Hash: strings.Repeat("c0ffee", 10) + "cafe"}, nil
}

func (b *fakeBroker) Refuse(_ context.Context, p mandate.Partner, r *mandate.Refusal, _ string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refusals = append(b.refusals, r.Reason)
	b.partners = append(b.partners, p.Name)
	if b.broken != nil {
		return errors.Join(r, b.broken)
	}
	return r
}

// A site is a portal behind a real TLS server, with a browser.
type site struct {
	t      testing.TB
	store  *fakeStore
	broker *fakeBroker
	asked  []portal.AuthorizeRequest
	server *httptest.Server
	client *http.Client
	log    *strings.Builder
}

// open starts a site whose configuration change may alter.
func open(t testing.TB, change ...func(*portal.Config)) *site {
	t.Helper()
	s := &site{t: t, broker: &fakeBroker{}, log: &strings.Builder{}, store: &fakeStore{
		signIns: map[string]*signIn{},
		invitations: map[string]portal.Invitation{
			goodToken:               {ID: "1", Partner: contoso, User: "alice@contoso.example", Term: 90 * 24 * time.Hour, Expires: time.Now().Add(time.Hour)},
			"expired-token-contoso": {ID: "2", Partner: contoso, Term: time.Hour, Expires: time.Now().Add(-time.Hour)},
		},
	}}
	cfg := portal.Config{
		PublicURL: origin, Applications: []portal.Application{application(global)},
		Invitations: s.store, Transactions: s.store, Outcomes: s.store, Consenter: s.broker,
		Authorize: func(r portal.AuthorizeRequest) (string, error) {
			s.asked = append(s.asked, r)
			return mandate.Clouds()[r.Cloud].Authority + "/" + r.Tenant.String() + "/oauth2/v2.0/authorize?state=" + url.QueryEscape(r.State), nil
		},
		Callback: func(code, description string) *mandate.Refusal {
			if code == "access_denied" {
				return &mandate.Refusal{Reason: mandate.ReasonDeclined, Fault: &mandate.Fault{Codes: []int{65004}, Description: description, CorrelationID: "corr-1"}}
			}
			return nil
		},
		Limit: web.Limit{Every: time.Nanosecond, Burst: 1000},
		Log:   slog.New(slog.NewTextHandler(&locked{w: s.log}, nil)),
	}
	for _, f := range change {
		f(&cfg)
	}
	p, err := portal.New(cfg)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	s.server = httptest.NewTLSServer(p.Handler())
	t.Cleanup(s.server.Close)
	s.client = s.server.Client()
	s.client.Jar = must(cookiejar.New(nil))
	s.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return s
}

type locked struct {
	mu sync.Mutex // guards w
	w  io.Writer
}

func (l *locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

// A reply is a response that was read.
type reply struct {
	*http.Response
	text string
}

func (s *site) do(r *http.Request) reply {
	s.t.Helper()
	res, err := s.client.Do(r)
	if err != nil {
		s.t.Fatalf("%s %s: %v", r.Method, r.URL, err)
	}
	defer res.Body.Close()
	return reply{res, string(must(io.ReadAll(res.Body)))}
}

func (s *site) request(method, path, body string) *http.Request {
	r := must(http.NewRequest(method, s.server.URL+path, strings.NewReader(body)))
	if body != "" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return r
}

func (s *site) get(path string) reply { s.t.Helper(); return s.do(s.request("GET", path, "")) }
func (s *site) post(path string, form url.Values) reply {
	s.t.Helper()
	return s.do(s.request("POST", path, form.Encode()))
}

var hidden = regexp.MustCompile(`name="(\w+)" value="([^"]*)"`)

// form returns the hidden fields of the invitation's page.
func (s *site) form() url.Values {
	s.t.Helper()
	form := url.Values{}
	for _, m := range hidden.FindAllStringSubmatch(s.get("/i/"+goodToken).text, -1) {
		form.Set(m[1], m[2])
	}
	return form
}

// begin goes from the invitation to Entra and returns the sign-in's id and
// the answer of a user who consents.
func (s *site) begin() (id string, answer url.Values) {
	s.t.Helper()
	res := s.post("/consent", s.form())
	target, ok := strings.CutPrefix(res.Header.Get("Refresh"), "0;url=")
	if res.StatusCode != http.StatusOK || !ok || !strings.Contains(res.text, html.EscapeString(target)) {
		s.t.Fatalf("POST /consent: %d, Refresh %q\n%s", res.StatusCode, res.Header.Get("Refresh"), res.text)
	}
	state := must(url.Parse(target)).Query().Get("state")
	id, _, _ = strings.Cut(state, ".")
	return id, url.Values{"state": {state}, "code": {goodCode}, "session_state": {"x"}}
}

var reasonOf = regexp.MustCompile(`<dt>Reason</dt><dd class="id">(\w+)</dd>`)

// reason returns the reason that a refusal page shows, or "".
func (r reply) reason() mandate.Reason {
	if m := reasonOf.FindStringSubmatch(r.text); m != nil {
		return mandate.Reason(m[1])
	}
	return ""
}
