package entra

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/mandate-sam/mandate/emulator/directory"
	"github.com/mandate-sam/mandate/emulator/fault"
	"github.com/mandate-sam/mandate/emulator/internal/token"
)

// A device is a device authorization (RFC 8628): a device that waits for a
// person to sign in elsewhere. [Server.mu] guards all of it.
type device struct {
	request  *request
	userCode string
	issued   time.Time
	life     time.Duration
	polled   time.Time // last poll; zero: none yet

	decision *refusal // the person declined, or could not be signed in
	done     bool     // the person signed in, and what follows is set
	redeemed bool
	user     directory.User
	tenant   string
	signIn   token.SignIn
}

const (
	deviceLifetime = 15 * time.Minute
	deviceInterval = 5 * time.Second
)

// Names of the device code grant. The short one is older.
const (
	deviceGrant    = "urn:ietf:params:oauth:grant-type:device_code"
	oldDeviceGrant = "device_code"
)

func (d *device) expired(now time.Time) bool { return now.Sub(d.issued) >= d.life }

func (s *Server) routeDevice(mux *http.ServeMux) {
	v1 := func(w http.ResponseWriter, r *http.Request) { s.deviceCode(w, r, 1) }
	mux.HandleFunc("GET /{tenant}/oauth2/devicecode", v1)
	mux.HandleFunc("POST /{tenant}/oauth2/devicecode", v1)
	mux.HandleFunc("POST /{tenant}/oauth2/v2.0/devicecode", func(w http.ResponseWriter, r *http.Request) { s.deviceCode(w, r, 2) })
	mux.HandleFunc("GET /devicelogin", s.deviceLogin)
	mux.Handle("POST /devicelogin", s.protected(s.takeUserCode))
}

// deviceCode answers a device authorization request.
func (s *Server) deviceCode(w http.ResponseWriter, r *http.Request, version int) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	q := &request{version: version, trace: s.trace(r)}
	e := refuse(9002313)
	if r.ParseForm() == nil {
		e = s.parseDevice(q, r)
	}
	if e != nil {
		s.writeError(w, e, version, q.trace)
		return
	}
	id, d := s.newDevice(q)
	writeJSON(w, http.StatusOK, q.trace, s.deviceAnswer(id, d))
}

// parseDevice reads the request. The client needs no credential for it, nor
// does it have to be one that may use the code: that is found out later.
func (s *Server) parseDevice(q *request, r *http.Request) (e *refusal) {
	if t, ok := s.cfg.Dials.Throttled("login"); ok {
		return throttled(t)
	}
	f := r.PostForm
	if r.Method == http.MethodGet {
		f = r.URL.Query()
	}
	if q.tenant, e = s.resolve(r.PathValue("tenant")); e != nil {
		return e
	}
	if q.client, e = s.findClient(f, q.tenant); e != nil {
		return e
	}
	if e := q.parseClaims(f); e != nil {
		return e
	}
	if e := s.parseTargets(q, f); e != nil {
		return e
	}
	return s.refusedRequest(q, fault.EndpointDeviceCode, q.tenant, "")
}

// findClient returns the application that the form names, if it names
// everything once and the tenant may use it.
func (s *Server) findClient(f url.Values, tenant string) (directory.Application, *refusal) {
	for name, values := range f {
		if len(values) > 1 || len(values[0]) > maxParameter {
			return directory.Application{}, refuse(90023, short(name))
		}
	}
	id := f.Get("client_id")
	if id == "" {
		return directory.Application{}, refuse(900144, "client_id")
	}
	app, ok := s.cfg.Directory.Application(id)
	if !ok {
		return app, refuse(700016, short(id), s.tenantName(tenant))
	}
	return app, s.atHome(app, tenant)
}

// atHome refuses a single-tenant application outside its tenant.
func (s *Server) atHome(app directory.Application, tenant string) *refusal {
	switch {
	case !app.SingleTenant || tenant == app.Tenant:
		return nil
	case tenant == "":
		return refuse(50194)
	}
	return refuse(700016, app.ID, s.tenantName(tenant))
}

func (s *Server) newDevice(q *request) (string, *device) {
	q.prompt = "login" // who enters a code says who they are, whatever the browser remembers
	d := &device{request: q, issued: s.cfg.Dials.Now(), life: s.secondsOr(s.cfg.Dials.Dials().SignIn.DeviceCodeSeconds, deviceLifetime)}
	q.device = d
	id := s.cfg.Chance.Text(96)
	d.userCode = s.userCode()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire(d.issued)
	s.devices[id], s.userCodes[d.userCode] = d, d
	return id, d
}

// userCode makes up what the person types: nine letters and digits that are
// not mistaken for each other and make no words.
func (s *Server) userCode() string {
	const alphabet = "BCDFGHJKLMNPQRSTVWXZ23456789"
	b := make([]byte, 9)
	for i := range b {
		b[i] = alphabet[s.cfg.Chance.Intn(len(alphabet))]
	}
	return string(b)
}

func (s *Server) secondsOr(n int, otherwise time.Duration) time.Duration {
	if n > 0 {
		return time.Duration(n) * time.Second
	}
	return otherwise
}

// deviceAnswer is the JSON of the answer. v1 writes numbers as strings and
// says URL where v2 says URI.
func (s *Server) deviceAnswer(id string, d *device) map[string]any {
	page := s.cfg.URL + "/devicelogin"
	life := int(d.life / time.Second)
	interval := int(s.secondsOr(s.cfg.Dials.Dials().SignIn.DeviceIntervalSeconds, deviceInterval) / time.Second)
	a := map[string]any{
		"device_code": id, "user_code": d.userCode,
		"message": fmt.Sprintf("To sign in, use a web browser to open the page %s and enter the code %s to authenticate.", page, d.userCode),
	}
	if d.request.version == 1 {
		a["verification_url"], a["expires_in"], a["interval"] = page, strconv.Itoa(life), strconv.Itoa(interval)
		return a
	}
	a["verification_uri"], a["expires_in"], a["interval"] = page, life, interval
	return a
}

// deviceLogin shows the page on which the person types the code.
func (s *Server) deviceLogin(w http.ResponseWriter, r *http.Request) { s.devicePage(w, "") }

func (s *Server) devicePage(w http.ResponseWriter, notice string) {
	s.render(w, http.StatusOK, "device", view{ID: "page-device", Title: "Enter code", Notice: notice, Action: "/devicelogin"}, "")
}

// takeUserCode starts the sign-in that the code stands for.
func (s *Server) takeUserCode(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	if err := r.ParseForm(); err != nil {
		s.errorPage(w, r, refuse(9002313))
		return
	}
	typed := strings.ToUpper(strings.NewReplacer(" ", "", "-", "").Replace(r.PostForm.Get("user_code")))
	s.mu.Lock()
	d, ok := s.userCodes[typed]
	stale := ok && (d.expired(s.cfg.Dials.Now()) || d.done || d.decision != nil)
	s.mu.Unlock()
	switch {
	case !ok:
		s.devicePage(w, refuse(70018).text())
	case stale:
		s.devicePage(w, refuse(70019).text())
	default:
		s.begin(w, r, d.request)
	}
}

// decide ends a device's wait, once: the person of the interaction signed in,
// or e says why not.
func (s *Server) decide(w http.ResponseWriter, d *device, ix *interaction, e *refusal) {
	s.mu.Lock()
	open := !d.done && d.decision == nil && !d.expired(s.cfg.Dials.Now())
	switch {
	case open && e != nil:
		d.decision = e
	case open:
		d.done, d.user, d.tenant, d.signIn = true, ix.user, ix.tenant, ix.signIn()
	}
	s.mu.Unlock()
	v := view{ID: "page-device_done", Title: "You have signed in on your device", Text: "You may close this window.", App: d.request.client.Name}
	switch {
	case !open:
		v.ID, v.Title, v.Text = "page-device_declined", "The code is no longer good", refuse(70019).text()
	case e != nil:
		v.ID, v.Title, v.Text = "page-device_declined", "Your device is not signed in", e.text()
	}
	s.render(w, http.StatusOK, "device_end", v, "")
}

// redeemDevice is the device code grant. The device asks again and again
// until the person has signed in.
func (s *Server) redeemDevice(a *attempt) (any, *refusal) {
	value := cmp.Or(a.form.Get("device_code"), a.form.Get("code"))
	if value == "" {
		return nil, refuse(900144, map[int]string{1: "code", 2: "device_code"}[a.version])
	}
	d, e := s.takeDevice(a, value)
	if e != nil {
		return nil, e
	}
	u, ok := s.cfg.Directory.UserByID(d.user.ID)
	if !ok {
		return nil, refuse(50034, d.user.UPN, s.tenantName(d.tenant))
	}
	if e := fresh(d.issued, u); e != nil {
		return nil, e
	}
	want, e := s.wantedByDevice(a, d)
	if e != nil {
		return nil, e
	}
	in := d.signIn
	in.Public = a.public()
	return s.issue(a, issuance{user: u, tenant: d.tenant, signIn: in, ask: want, fromCode: true})
}

// takeDevice says how far the person has come, and uses the code up if they
// are done.
func (s *Server) takeDevice(a *attempt, value string) (*device, *refusal) {
	now := s.cfg.Dials.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	d, ok := s.devices[value]
	if !ok || d.request.client.ID != a.client.ID {
		return nil, refuse(70018)
	}
	last := d.polled
	d.polled = now
	interval := s.cfg.Dials.Dials().SignIn.DeviceIntervalSeconds
	switch {
	case d.redeemed:
		return nil, refuse(70000)
	case d.expired(now):
		return nil, refuse(70020)
	case d.decision != nil:
		return nil, refuse(d.decision.code, d.decision.args...).as("authorization_declined")
	case !last.IsZero() && now.Sub(last) < time.Duration(interval)*time.Second:
		return nil, refuse(70016).as("slow_down")
	case !d.done:
		return nil, refuse(70016)
	case a.tenant != "" && a.tenant != d.tenant:
		return nil, refuse(700005)
	}
	d.redeemed = true
	a.log.User = d.user.ID
	return d, nil
}

// wantedByDevice is what the device's first request asked for. v1 devices say
// it again.
func (s *Server) wantedByDevice(a *attempt, d *device) (ask, *refusal) {
	name := a.form.Get("resource")
	if a.version == 2 || name == "" || d.request.version == 2 {
		return d.request.asAsk(s)
	}
	t, e := s.parseResource(name, s.tenantName(d.tenant))
	if e != nil {
		return ask{}, e
	}
	if r, ok := s.cfg.Directory.Resource(d.request.resource); ok && r.ID != t.resource.ID {
		return ask{}, refuse(90023, "resource")
	}
	return v1Ask(t), nil
}
