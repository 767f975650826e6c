package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/mandate-sam/mandate/emulator"
)

// emulatorCase is the emulator with many tenants beside the one with the
// built-in eight.
var emulatorCase = benchCase{
	rows: []string{"emulator/start", "emulator/start-json", "emulator/memory", "emulator/token"},
	run:  runEmulator,
}

const (
	fixturePartners  = 10_000
	fixtureCustomers = 100_000
)

func runEmulator(ctx context.Context, e *env) ([]row, error) {
	f := largeFixture(fixturePartners, fixtureCustomers)
	data, err := json.Marshal(f)
	if err != nil {
		return nil, err
	}
	starts, err := e.interleave(ctx, "emulator/start", choose(e, 5, 2),
		starting(func() (*emulator.Fixture, error) { return f, nil }),
		starting(func() (*emulator.Fixture, error) { return emulator.ParseFixture(data) }),
		starting(func() (*emulator.Fixture, error) { return nil, nil }))
	if err != nil {
		return nil, err
	}
	large, largeSize, err := newTenants(ctx, f, "admin@p0.example", fmt.Sprintf("admin@p%d.example", fixturePartners-1))
	if err != nil {
		return nil, err
	}
	defer large.close()
	small, smallSize, err := newTenants(ctx, nil, "admin@contoso.example", "admin@fabrikam.example")
	if err != nil {
		return nil, err
	}
	defer small.close()
	tokens, err := e.interleave(ctx, "emulator/token", choose(e, 15, 7), large.redeeming(200), small.redeeming(200))
	if err != nil {
		return nil, err
	}
	soon := &target{"value", "<=", 5}
	return []row{
		compare("emulator/start", "s", starts[0], starts[2]).judge(soon, "filling the directory takes too long"),
		compare("emulator/start-json", "s", starts[1], starts[2]).judge(soon, "reading the fixture takes too long"),
		row{Name: "emulator/memory", Value: number(largeSize), Unit: "MiB", Floor: number(smallSize), Ratio: number(largeSize / smallSize)}.report(),
		compare("emulator/token", "us", tokens[0], tokens[1]).judge(&target{"ratio", "<=", 1.2}, "a token takes longer, the more tenants there are"),
	}, nil
}

// largeFixture has partners with one administrator each, among whom the
// customers are dealt out. The application is consented everywhere.
func largeFixture(partners, customers int) *emulator.Fixture {
	app := emulator.FixtureApplication{
		ID: emulator.ApplicationID, Name: "Bench", Tenant: tenantN("2", 0),
		RedirectURIs: []string{callback}, Secrets: []string{emulator.ApplicationSecret},
		Access: map[string][]string{emulator.PartnerCenter: {"user_impersonation"}, emulator.Graph: {"User.Read"}},
	}
	f := &emulator.Fixture{Applications: []emulator.FixtureApplication{app}}
	for i := range partners {
		domain := fmt.Sprintf("p%d.example", i)
		f.Tenants = append(f.Tenants, emulator.FixtureTenant{
			ID: tenantN("2", i), Name: fmt.Sprint("Partner ", i), Domain: domain, Kind: "partner", Consented: []string{app.ID},
			Users: []emulator.FixtureUser{{ID: tenantN("6", i), UPN: "admin@" + domain, Name: "Ada Admin", Groups: []string{"AdminAgents"}, Admin: true}},
		})
	}
	for i := range customers {
		domain := fmt.Sprintf("c%d.example", i)
		f.Tenants = append(f.Tenants, emulator.FixtureTenant{ID: tenantN("3", i), Name: fmt.Sprint("Customer ", i), Domain: domain, Kind: "customer", Consented: []string{app.ID}})
		f.Tenants[i%partners].Customers = append(f.Tenants[i%partners].Customers, domain)
	}
	return f
}

func tenantN(kind string, n int) string {
	return fmt.Sprintf("%s0000000-0000-4000-9000-%012d", kind, n)
}

// starting measures the seconds until an emulator with the fixture listens.
func starting(read func() (*emulator.Fixture, error)) contender {
	return func(context.Context) (float64, error) {
		runtime.GC() // what the one before left is not this one's to clean up
		begin := time.Now()
		f, err := read()
		if err != nil {
			return 0, err
		}
		e, err := emulator.Open(emulator.Config{Fixture: f})
		if err != nil {
			return 0, err
		}
		took := time.Since(begin)
		return took.Seconds(), e.Close()
	}
}

// tenants are an emulator in which two administrators have signed in.
type tenants struct {
	emulator *emulator.Emulator
	http     *http.Client
	requests []tokenFor
}

// tokenFor is a redemption: a refresh token, and a tenant that it is good in.
type tokenFor struct{ tenant, refresh string }

// newTenants starts an emulator and returns also how many MiB it keeps.
func newTenants(ctx context.Context, f *emulator.Fixture, admins ...string) (t *tenants, size float64, err error) {
	before := heap()
	t = new(tenants)
	if t.emulator, err = emulator.Open(emulator.Config{Fixture: f}); err != nil {
		return nil, 0, err
	}
	size = heap() - before
	t.http = t.emulator.Client()
	t.emulator.Dial(func(d *emulator.Dials) {
		d.MFADemanded = map[string]bool{}
		for _, x := range t.emulator.Tenants() {
			if x.Kind == "partner" {
				d.MFADemanded[x.ID] = false
			}
		}
	})
	for _, name := range admins {
		if err := t.add(ctx, name); err != nil {
			t.close()
			return nil, 0, fmt.Errorf("sign %s in: %w", name, err)
		}
	}
	return t, size, nil
}

// heap returns the MiB that are in use after cleaning up.
func heap() float64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / (1 << 20)
}

func (t *tenants) close() { t.emulator.Close() }

// add signs the administrator in, and will redeem the refresh token in their
// tenant and in those of its customers.
func (t *tenants) add(ctx context.Context, name string) error {
	u, _ := t.emulator.User(name)
	code, err := t.signIn(ctx, name)
	if err != nil {
		return err
	}
	refresh, err := t.redeem(ctx, u.Tenant, url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {callback}})
	if err != nil {
		return err
	}
	t.requests = append(t.requests, tokenFor{u.Tenant, refresh})
	for _, c := range t.emulator.Customers(u.Tenant) {
		x := tokenFor{c.ID, refresh}
		if _, err := t.redeem(ctx, x.tenant, x.form()); err == nil { // in Wingtip the application is not consented
			t.requests = append(t.requests, x)
		}
	}
	return nil
}

func (x tokenFor) form() url.Values {
	return url.Values{"grant_type": {"refresh_token"}, "refresh_token": {x.refresh}, "scope": {"https://graph.microsoft.com/.default offline_access"}}
}

const callback = "https://127.0.0.1:8443/callback"

var shown = regexp.MustCompile(`<main id="page-([a-z_]+)">(?s:.*?)<form id="[a-z_-]+" method="post" action="([^"]+)"`)

// signIn goes through the pages of a sign-in and returns the code.
func (t *tenants) signIn(ctx context.Context, name string) (string, error) {
	c := t.emulator.Client()
	c.Jar, _ = cookiejar.New(nil) // without options it cannot fail
	login := t.emulator.Endpoints().Login
	at := login + "/organizations/oauth2/v2.0/authorize?" + url.Values{
		"client_id": {emulator.ApplicationID}, "response_type": {"code"}, "redirect_uri": {callback},
		"scope": {"https://graph.microsoft.com/.default offline_access"}, "state": {"s"}, "nonce": {"n"},
	}.Encode()
	var form url.Values
	for range 20 {
		next, page, err := visit(ctx, c, at, form)
		if err != nil {
			return "", err
		}
		form = nil
		switch found := shown.FindStringSubmatch(page); {
		case strings.HasPrefix(next, callback):
			u, err := url.Parse(next)
			if err != nil || u.Query().Get("code") == "" {
				return "", fmt.Errorf("the sign-in ended at %s", next)
			}
			return u.Query().Get("code"), nil
		case next != "":
			at = next
		case found == nil:
			return "", fmt.Errorf("a page that asks nothing: %s", page)
		default:
			form = url.Values{"account": {name}, "signin": {"yes"}, "skip": {"yes"}, "decision": {"accept"}}
			if at = found[2]; strings.HasPrefix(at, "/") {
				at = login + at
			}
		}
	}
	return "", fmt.Errorf("the sign-in does not end")
}

// visit follows a link, or submits a form, and returns the page, or where it
// leads to.
func visit(ctx context.Context, c *http.Client, at string, form url.Values) (next, page string, err error) {
	method, body := http.MethodGet, io.Reader(nil)
	if form != nil {
		method, body = http.MethodPost, strings.NewReader(form.Encode())
	}
	req, err := http.NewRequestWithContext(ctx, method, at, body)
	if err != nil {
		return "", "", err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := c.Do(req)
	if err != nil {
		return "", "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.Header.Get("Location") == "" {
		return "", string(b), err
	}
	u, err := req.URL.Parse(res.Header.Get("Location"))
	if err != nil {
		return "", "", err
	}
	return u.String(), "", nil
}

// redeem posts the form to the tenant's token endpoint and returns the refresh
// token of the answer.
func (t *tenants) redeem(ctx context.Context, tenant string, form url.Values) (string, error) {
	form.Set("client_id", emulator.ApplicationID)
	form.Set("client_secret", emulator.ApplicationSecret)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.emulator.Endpoints().Login+"/"+tenant+"/oauth2/v2.0/token", strings.NewReader(form.Encode()))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := t.http.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	var a struct {
		Refresh string `json:"refresh_token"`
		Error   string `json:"error_description"`
	}
	if err := json.NewDecoder(res.Body).Decode(&a); err != nil {
		return "", err
	}
	if a.Refresh == "" {
		return "", fmt.Errorf("no refresh token: %s", a.Error)
	}
	return a.Refresh, nil
}

// redeeming redeems n times, in tenants picked at random, one after the other,
// and returns the microseconds that one takes.
func (t *tenants) redeeming(n int) contender {
	return func(ctx context.Context) (float64, error) {
		start := time.Now()
		for range n {
			x := t.requests[rand.IntN(len(t.requests))]
			if _, err := t.redeem(ctx, x.tenant, x.form()); err != nil {
				return 0, err
			}
		}
		return perOperation(time.Since(start), n), nil
	}
}
