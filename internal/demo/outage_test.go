package demo

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/emulator"
)

// A road is how the product reaches Entra: it can be jammed for one tenant or
// for all, it can be bad, and it counts who is on it.
type road struct {
	*httptest.Server

	mu   sync.Mutex    // guards what follows
	jam  chan struct{} // holds everybody up until it is closed
	only string        // tenant that the jam is for; "" for all
	bad  func(n int) bool
	n    int            // requests for tokens that came this way
	now  map[string]int // of them under way, by tenant
	most map[string]int
}

// outsideEntra brings a demonstration whose product is stopped to a road.
func (d *Demo) outsideEntra(t *testing.T) *road {
	t.Helper()
	login, err := url.Parse(d.Emulator.Endpoints().Login)
	if err != nil {
		t.Fatal(err)
	}
	r := &road{now: make(map[string]int), most: make(map[string]int)}
	entra := &httputil.ReverseProxy{
		Transport:    d.Emulator.Client().Transport,
		Rewrite:      func(p *httputil.ProxyRequest) { p.SetURL(login) },
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	r.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		tenant, path, _ := strings.Cut(strings.TrimPrefix(req.URL.Path, "/"), "/")
		if path == "oauth2/v2.0/token" {
			defer r.enter(tenant, req.Context().Done())()
		}
		entra.ServeHTTP(w, req)
	}))
	r.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	cert, err := d.Emulator.CA().Issue("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	r.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	r.StartTLS()
	t.Cleanup(func() { r.clear(); r.Close() })
	replaceIn(t, d.File("mandate.yaml"), "authority: "+login.String()+"\n", "authority: "+r.URL+"\n")
	return r
}

// enter lets a request pass, or not, and returns what ends it.
func (r *road) enter(tenant string, gone <-chan struct{}) (leave func()) {
	r.mu.Lock()
	r.n++
	r.now[tenant]++
	r.most[tenant] = max(r.most[tenant], r.now[tenant])
	jam, bad := r.jam, r.bad != nil && r.bad(r.n)
	if r.only != "" && r.only != tenant {
		jam = nil
	}
	r.mu.Unlock()
	leave = func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.now[tenant]--
	}
	if jam != nil {
		select {
		case <-jam:
		case <-gone:
			bad = true
		}
	}
	if bad {
		leave()
		panic(http.ErrAbortHandler)
	}
	return leave
}

// block jams the road for a tenant; "" is every one.
func (r *road) block(tenant string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.jam, r.only = make(chan struct{}), tenant
}

// spoil breaks off every request for which bad is true.
func (r *road) spoil(bad func(n int) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bad = bad
}

// clear makes all well.
func (r *road) clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.jam != nil {
		close(r.jam)
	}
	r.jam, r.bad = nil, nil
}

// came returns how many requests for tokens came this way, and how many of a
// tenant's there were at once.
func (r *road) came(tenant string) (n, most int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.n, r.most[tenant]
}

// on returns how many of a tenant's requests are under way.
func (r *road) on(tenant string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now[tenant]
}

// wants asks for a token.
func (d *Demo) wants(ctx context.Context, partner, audience string, scopes ...string) error {
	_, err := d.Operator.Token(ctx, api.TokenRequest{Partner: partner, Audience: audience, Scopes: scopes, Purpose: Purpose})
	return err
}

// steadily asks again and again for a token that is valid, until stop, which
// fails the test if it was ever refused.
func (d *Demo) steadily(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var n int
	var failed error
	var group sync.WaitGroup
	group.Go(func() {
		for ctx.Err() == nil {
			if err := d.wants(ctx, Partner, "graph"); err != nil && ctx.Err() == nil {
				failed = errors.Join(failed, err)
				return
			}
			n++
			time.Sleep(5 * time.Millisecond) // others want the machine, too
		}
	})
	return func() {
		t.Helper()
		cancel()
		if group.Wait(); failed != nil || n < 2 {
			t.Errorf("a valid token was handed out %d times, and then: %v", n, failed)
		}
	}
}

// transient fails the test unless err is a fault that passes by itself.
func transient(t *testing.T, err error) {
	t.Helper()
	var f *mandate.Fault
	if !errors.As(err, &f) || f.Domain != mandate.DomainTransient || f.Remedy != mandate.RemedyRetry {
		t.Fatalf("got %v, want a transient fault", err)
	}
}

// measure returns a number that the product tells Prometheus.
func (d *Demo) measure(t *testing.T, at, name string) int {
	t.Helper()
	resp, err := http.Get("http://" + at + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindSubmatch(text)
	if m == nil {
		t.Fatalf("there is no %s in %s", name, text)
	}
	n, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		t.Fatal(err)
	}
	return int(n)
}

// Entra is down, cannot be reached, is slow, comes and goes. All that time a token that
// is valid is handed out; one that must be redeemed is refused at once and for
// what it is, and hardly ever asked for; and when Entra is back all goes on by
// itself.
func TestOutageEntra(t *testing.T) {
	t.Parallel()
	d, _ := begin(t, Config{Secret: true}) // an assertion would be for the end of the road
	d.consent(t)
	d.stopProduct(t)
	r := d.outsideEntra(t)
	d.launch(t)
	if err := d.wants(t.Context(), Partner, "graph"); err != nil {
		t.Fatal(err)
	}
	for _, weather := range []struct {
		name, audience string
		begin, end     func()
	}{
		{"down", "arm", func() { d.Emulator.Dial(func(d *emulator.Dials) { d.Outage = []string{"login"} }) }, func() { d.Emulator.Dial(func(d *emulator.Dials) { d.Outage = nil }) }},
		{"unreachable", "partnercenter", func() { r.spoil(func(int) bool { return true }) }, r.clear},
	} {
		stop := d.steadily(t)
		weather.begin()
		before, _ := r.came("")
		for range 100 {
			transient(t, d.wants(t.Context(), Partner, weather.audience))
		}
		if n, _ := r.came(""); n-before > 5 {
			t.Errorf("%s: 100 requests asked Entra %d times", weather.name, n-before)
		}
		weather.end()
		within(t, 30*time.Second, weather.name+": service", func() bool { return d.wants(t.Context(), Partner, weather.audience) == nil })
		stop()
	}
	stop := d.steadily(t)
	slow := func(millis int) {
		d.Emulator.Dial(func(d *emulator.Dials) { d.LatencyMillis = map[string]int{"login": millis} })
	}
	slow(2000)
	if err := d.wants(t.Context(), Partner, "graph", "DelegatedAdminRelationship.Read.All"); err != nil {
		t.Errorf("slow: %v", err)
	}
	slow(0)
	r.spoil(func(n int) bool { return n%2 == 1 })
	for _, scope := range []string{"User.Read", "Directory.Read.All"} {
		within(t, 30*time.Second, "a token from an Entra that comes and goes", func() bool { return d.wants(t.Context(), Partner, "graph", scope) == nil })
	}
	r.clear()
	stop()
}

// Entra does not answer for one partner. That partner's valid token is handed
// out, and of its other requests so many wait as may, and no more; the other
// partner notices nothing. When Entra answers, all who waited get what there
// is, and nothing of them is left.
func TestOutageOfOneTenant(t *testing.T) {
	t.Parallel()
	d, _ := begin(t, Config{Secret: true})
	d.consent(t)
	in, err := d.Operator.Invite(t.Context(), api.InviteRequest{Name: second, Tenant: emulator.FabrikamTenant, User: secondAdmin})
	if err != nil {
		t.Fatal(err)
	}
	if page := d.follow(t, in.Link, attempt{user: secondAdmin}); contains(page.Text(), "Consent stored and active") != nil {
		t.Fatal(page.Text())
	}
	d.stopProduct(t)
	r := d.outsideEntra(t)
	metrics := d.listenMetrics(t)
	d.launch(t)
	if err := d.wants(t.Context(), Partner, "graph"); err != nil {
		t.Fatal(err)
	}
	idle := d.measure(t, metrics, "go_goroutines")
	stop := d.steadily(t)
	r.block(emulator.ContosoTenant)
	const waiting, width = 300, 32
	var group sync.WaitGroup
	var mu sync.Mutex // guards other
	var other []error
	for i := range waiting {
		group.Go(func() {
			err := d.wants(t.Context(), Partner, "arm", fmt.Sprintf("Made.Up.%d", i))
			var f *mandate.Fault
			if err != nil && !errors.As(err, &f) && !errors.Is(err, mandate.ErrRateLimited) {
				mu.Lock()
				defer mu.Unlock()
				other = append(other, err)
			}
		})
	}
	within(t, 20*time.Second, "the jam", func() bool { return r.on(emulator.ContosoTenant) == width })
	for _, audience := range []string{"graph", "arm", "partnercenter"} {
		if err := d.wants(t.Context(), second, audience); err != nil {
			t.Errorf("the other partner, %s: %v", audience, err)
		}
	}
	if n := r.on(emulator.ContosoTenant); n != width {
		t.Errorf("%d redemptions are under way at once, want %d", n, width)
	}
	// A request that waits costs a handful of goroutines, and no more.
	if n := d.measure(t, metrics, "go_goroutines"); n > idle+10*waiting {
		t.Errorf("%d goroutines, and %d were there before %d requests", n, idle, waiting)
	}
	stop()
	r.clear()
	group.Wait()
	if len(other) > 0 {
		t.Errorf("%d of those who waited were refused in another way: %v", len(other), other[0])
	}
	if _, most := r.came(emulator.ContosoTenant); most != width {
		t.Errorf("there were %d redemptions at once, want %d", most, width)
	}
	within(t, 30*time.Second, "service", func() bool { return d.wants(t.Context(), Partner, "partnercenter") == nil })
	within(t, 30*time.Second, "the end of all that waited", func() bool { return d.measure(t, metrics, "go_goroutines") < idle+waiting/2 })
}

// listenMetrics has the product tell Prometheus, and returns where.
func (d *Demo) listenMetrics(t *testing.T) (address string) {
	t.Helper()
	ports, err := (&Demo{}).ports()
	if err != nil {
		t.Fatal(err)
	}
	address = "127.0.0.1:" + ports.API
	replaceIn(t, d.File("mandate.yaml"), "socket: mandate.sock\n", "socket: mandate.sock\nmetrics: {listen: "+address+"}\n")
	return address
}

// Key Vault, which has the key that opens grants and the application's, is down,
// slow, or does not answer at all. A token that is valid is handed out all the
// time; one that must be redeemed is not, and Entra is not asked again and again
// for what cannot be stored; and when the vault is back all goes on by itself.
func TestOutageKeyVault(t *testing.T) {
	t.Parallel()
	d, _ := begin(t, Config{Idle: true})
	d.raise(t)
	d.launch(t)
	var err error
	if d.Operator, err = api.NewSocketClient(d.Socket); err != nil {
		t.Fatal(err)
	}
	d.consent(t)
	if err := d.wants(t.Context(), Partner, "graph"); err != nil {
		t.Fatal(err)
	}
	outage := func(vaults ...string) func(*emulator.Dials) {
		return func(d *emulator.Dials) { d.KeyVault.Outage = vaults }
	}
	slow := func(millis int) func(*emulator.Dials) {
		return func(d *emulator.Dials) { d.LatencyMillis = map[string]int{"keyvault": millis} }
	}
	for _, weather := range []struct {
		name, audience string
		begin, end     func(*emulator.Dials)
	}{
		{"down", "arm", outage("*"), outage()},
		{"silent", "partnercenter", slow(60_000), slow(0)},
	} {
		stop := d.steadily(t)
		d.Emulator.Dial(weather.begin)
		before := len(d.Emulator.TokenRequests())
		for range 50 {
			if err := d.wants(t.Context(), Partner, weather.audience); !errors.Is(err, mandate.ErrUnavailable) {
				t.Fatalf("%s: %v", weather.name, err)
			}
		}
		if n := d.redemptions(before); n > 3 {
			t.Errorf("%s: 50 requests redeemed %d times", weather.name, n)
		}
		if why := d.lastFailure(t); contains(why, "transient fault", "the key that opens it", "localhost") != nil {
			t.Errorf("%s: recorded %q", weather.name, why)
		}
		d.Emulator.Dial(weather.end)
		within(t, 60*time.Second, weather.name+": service", func() bool { return d.wants(t.Context(), Partner, weather.audience) == nil })
		stop()
	}
	// It is slow, and comes and goes.
	stop := d.steadily(t)
	d.Emulator.Dial(slow(200))
	for n, scope := range []string{"User.Read", "Directory.Read.All"} {
		d.Emulator.Dial(outage("*"))
		first := d.wants(t.Context(), Partner, "graph", scope)
		d.Emulator.Dial(outage())
		if first == nil {
			t.Errorf("token %d was stored without a key", n)
		}
		within(t, 60*time.Second, "a token while the vault comes and goes", func() bool { return d.wants(t.Context(), Partner, "graph", scope) == nil })
	}
	stop()
}

// lastFailure returns the reason in the last record of a failure.
func (d *Demo) lastFailure(t *testing.T) (reason string) {
	t.Helper()
	lines, err := d.Operator.Audit(t.Context(), 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range lines {
		var r mandate.Record
		if unmarshal(t, line, &r); r.Kind == mandate.KindFailed {
			reason = r.Reason
		}
	}
	return reason
}

// redemptions returns how often a refresh token was presented since the request
// n.
func (d *Demo) redemptions(n int) (times int) {
	for _, r := range d.Emulator.TokenRequests()[n:] {
		if r.Grant == "refresh_token" {
			times++
		}
	}
	return times
}

// Without its database a replica hands out nothing, not even what it has in
// memory: neither could be recorded, nor a revocation be heard. It says so,
// with when to ask again and whose move it is, and goes on by itself.
func TestOutageDatabase(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1)
	socket := f.File("0.sock")
	c := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	defer c.CloseIdleConnections()
	answer := func(path string) (*http.Response, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), "GET", "http://mandate"+path, nil)
		if path == "/v1/tokens" {
			req, err = http.NewRequestWithContext(t.Context(), "POST", "http://mandate"+path, strings.NewReader(`{"partner":"`+Partner+`","audience":"graph","purpose":"`+Purpose+`"}`))
		}
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, string(body)
	}
	if resp, body := answer("/v1/tokens"); resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status, body)
	}
	redeemed := len(f.Emulator.TokenRequests())
	for range 2 {
		f.pg.Stop(t)
		within(t, 5*time.Second, "not ready", func() bool { resp, _ := answer("/readyz"); return resp.StatusCode == http.StatusServiceUnavailable })
		for range 20 {
			resp, body := answer("/v1/tokens")
			if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); resp.StatusCode != http.StatusServiceUnavailable || err != nil || seconds < 1 ||
				contains(body, `"code":"unavailable"`, "see that PostgreSQL runs") != nil || contains(body, "access_token") == nil {
				t.Fatal(resp.Status, resp.Header, body)
			}
		}
		f.pg.StartAgain(t)
		within(t, 30*time.Second, "service", func() bool { resp, _ := answer("/v1/tokens"); return resp.StatusCode == http.StatusOK })
		within(t, 5*time.Second, "ready", func() bool { resp, _ := answer("/readyz"); return resp.StatusCode == http.StatusOK })
	}
	if n := len(f.Emulator.TokenRequests()); n != redeemed {
		t.Errorf("Entra was asked %d times for a token that is valid", n-redeemed)
	}
}
