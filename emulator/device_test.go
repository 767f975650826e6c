package emulator_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/mandate-sam/mandate/emulator"
)

// tool is a command line tool: a public client.
const tool = "b0000000-0000-4000-8000-000000000002"

func registerTool(t *testing.T, e *emulator.Emulator) {
	t.Helper()
	register(t, e, emulator.Application{
		ID: tool, Name: "Tool", Tenant: emulator.CPVTenant, Public: true, RedirectURIs: []string{redirect},
		Access: []emulator.Access{{Resource: emulator.Graph, Scopes: []string{"User.Read"}}},
	})
}

func register(t *testing.T, e *emulator.Emulator, a emulator.Application) {
	t.Helper()
	if err := e.Register(a); err != nil {
		t.Fatal(err)
	}
}

// deviceCode asks for a device code as the tool, changed by pairs of names
// and values.
func deviceCode(t *testing.T, e *emulator.Emulator, version int, tenant string, change ...string) answer {
	t.Helper()
	f := url.Values{"client_id": {tool}}
	path := "/oauth2/v2.0/devicecode"
	if version == 1 {
		path = "/oauth2/devicecode"
		f.Set("resource", "https://graph.microsoft.com")
	} else {
		f.Set("scope", "User.Read openid offline_access profile")
	}
	set(f, change...)
	res, err := e.Client().PostForm(e.Endpoints().Login+"/"+tenant+path, f)
	if err != nil {
		t.Fatal(err)
	}
	return readAnswer(t, res)
}

// poll asks for the tokens of a device code as the tool.
func poll(t *testing.T, e *emulator.Emulator, version int, tenant, value string, change ...string) answer {
	t.Helper()
	grant, name := "urn:ietf:params:oauth:grant-type:device_code", "device_code"
	if version == 1 {
		grant, name = "device_code", "code"
	}
	return token(t, e, version, tenant, grant, append([]string{"client_id", tool, "client_secret", "", name, value}, change...)...)
}

// enter types the user code and walks through what follows.
func (w *walker) enter(userCode string, who person) page {
	w.t.Helper()
	p := w.post(w.get(w.login+"/devicelogin"), url.Values{"user_code": {userCode}})
	return w.walk(p, who)
}

func TestDeviceCode(t *testing.T) {
	e := start(t)
	for _, version := range []int{1, 2} {
		for _, tenant := range []string{"contoso.example", "organizations"} {
			t.Run(fmt.Sprintf("v%d %s", version, tenant), func(t *testing.T) {
				reset(t, e)
				registerTool(t, e)
				d := deviceCode(t, e, version, tenant)
				checkDeviceAnswer(t, e, version, d)
				refused(t, poll(t, e, version, tenant, d.str("device_code")), 400, 70016, "authorization_pending", "")
				w := newWalker(t, e)
				if p := w.enter(strings.ToLower(d.str("user_code")), person{upn: "admin@contoso.example"}); p.id != "device_done" {
					t.Fatalf("got page %q: %s", p.id, p.body)
				}
				a := poll(t, e, version, tenant, d.str("device_code"), "client_info", "1")
				if a.status != 200 || a.str("refresh_token") == "" || a.str("id_token") == "" || a.str("client_info") == "" {
					t.Fatalf("got %v", a.raw)
				}
				c := claims(t, a.str("access_token"))
				if c["upn"] != "admin@contoso.example" || c["appid"] != tool || c["appidacr"] != "0" || fmt.Sprint(c["amr"]) != "[pwd mfa]" {
					t.Errorf("got claims %v", c)
				}
				refused(t, poll(t, e, version, tenant, d.str("device_code")), 400, 70000, "invalid_grant", "bad_token")
				rt := token(t, e, 2, "contoso.example", "refresh_token", "client_id", tool, "client_secret", "", "refresh_token", a.str("refresh_token"), "scope", "User.Read")
				if rt.status != 200 {
					t.Errorf("a public client's refresh token: %v", rt.raw)
				}
			})
		}
	}
}

// v1 writes strings and verification_url, v2 numbers and verification_uri.
func checkDeviceAnswer(t *testing.T, e *emulator.Emulator, version int, d answer) {
	t.Helper()
	page := e.Endpoints().Login + "/devicelogin"
	want := map[string]any{"expires_in": 900.0, "interval": 5.0, "verification_uri": page, "verification_url": nil}
	if version == 1 {
		want = map[string]any{"expires_in": "900", "interval": "5", "verification_uri": nil, "verification_url": page}
	}
	for name, v := range want {
		if d.raw[name] != v {
			t.Errorf("got %s %v (%T), want %v", name, d.raw[name], d.raw[name], v)
		}
	}
	if m := d.str("message"); len(d.str("user_code")) != 9 || !strings.Contains(m, d.str("user_code")) || !strings.Contains(m, page) {
		t.Errorf("got user code %q and message %q", d.str("user_code"), m)
	}
}

func TestDeviceCodeByGET(t *testing.T) {
	e := start(t)
	registerTool(t, e)
	d := call(t, e, e.Endpoints().Login+"/common/oauth2/devicecode?resource=https%3A%2F%2Fgraph.microsoft.com&client_id="+tool, "")
	checkDeviceAnswer(t, e, 1, d)
	refused(t, poll(t, e, 2, "common", d.str("device_code")), 400, 70016, "authorization_pending", "")
}

// A client that does not say what it posts, posts a form.
func TestPostWithoutContentType(t *testing.T) {
	e := start(t)
	registerTool(t, e)
	post := func(path, form string) answer {
		req, err := http.NewRequest("POST", e.Endpoints().Login+"/northwind.example"+path, strings.NewReader(form))
		if err != nil {
			t.Fatal(err)
		}
		res, err := e.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		return readAnswer(t, res)
	}
	if a := post("/oauth2/v2.0/devicecode", "client_id="+tool+"&scope=User.Read"); a.status != 200 || a.str("device_code") == "" {
		t.Errorf("device code: got %v", a.raw)
	}
	form := "grant_type=client_credentials&client_id=" + emulator.ApplicationID + "&client_secret=" + emulator.ApplicationSecret + "&resource=" + emulator.Graph
	if a := post("/oauth2/token", form); a.status != 200 || a.str("access_token") == "" {
		t.Errorf("token: got %v", a.raw)
	}
}

// Either name of the grant and of the code does, at either endpoint.
func TestDeviceGrantNames(t *testing.T) {
	e := start(t)
	registerTool(t, e)
	for _, grant := range []string{"device_code", "urn:ietf:params:oauth:grant-type:device_code"} {
		for _, name := range []string{"code", "device_code"} {
			d := deviceCode(t, e, 2, "common")
			a := token(t, e, 2, "common", grant, "client_id", tool, "client_secret", "", name, d.str("device_code"))
			refused(t, a, 400, 70016, "authorization_pending", "")
		}
	}
}

func TestDeviceRefusals(t *testing.T) {
	e := start(t)
	registerTool(t, e)
	for _, row := range []struct {
		name    string
		version int
		change  []string
		status  int
		code    int
		err     string
	}{
		{"no client", 2, []string{"client_id", ""}, 400, 900144, "invalid_request"},
		{"unknown client", 2, []string{"client_id", "x"}, 400, 700016, "unauthorized_client"},
		{"no scope", 2, []string{"scope", ""}, 400, 900144, "invalid_request"},
		{"unknown scope", 2, []string{"scope", "Fly"}, 400, 70011, "invalid_scope"},
		{"resource on v2", 2, []string{"resource", "x"}, 400, 901002, "invalid_request"},
		{"unknown resource", 1, []string{"resource", "https://nothing.example"}, 400, 500011, "invalid_resource"},
		{"bad claims", 1, []string{"claims", "{"}, 400, 90023, "invalid_request"},
	} {
		refused(t, deviceCode(t, e, row.version, "common", row.change...), row.status, row.code, row.err, "")
	}
	refused(t, deviceCode(t, e, 2, "nobody.example"), 400, 90002, "invalid_request", "")
	d := deviceCode(t, e, 2, "common").str("device_code")
	for _, version := range []int{1, 2} {
		refused(t, poll(t, e, version, "common", "x"), 400, 70018, "bad_verification_code", "")
		refused(t, poll(t, e, version, "common", ""), 400, 900144, "invalid_request", "")
		refused(t, poll(t, e, version, "common", d, "client_id", emulator.ApplicationID), 401, 7000218, "invalid_client", "")
		refused(t, poll(t, e, version, "common", d, "client_id", emulator.ApplicationID, "client_secret", emulator.ApplicationSecret), 400, 70018, "bad_verification_code", "")
		refused(t, poll(t, e, version, "common", d, "client_secret", "made up"), 401, 700025, "invalid_client", "")
	}
}

func TestDeviceDeclined(t *testing.T) {
	e := start(t)
	registerTool(t, e)
	d := deviceCode(t, e, 2, "common")
	w := newWalker(t, e)
	if p := w.enter(d.str("user_code"), person{upn: "admin@contoso.example", decline: true}); p.id != "device_declined" {
		t.Errorf("got page %q", p.id)
	}
	refused(t, poll(t, e, 2, "common", d.str("device_code")), 400, 65004, "authorization_declined", "")
	if p := w.enter(d.str("user_code"), person{}); p.id != "device" || !strings.Contains(p.body, "AADSTS70019") {
		t.Errorf("the code again: got page %q", p.id)
	}
	if p := w.enter("WRONG", person{}); p.id != "device" || !strings.Contains(p.body, "AADSTS70018") {
		t.Errorf("a wrong code: got page %q", p.id)
	}
}

func TestDeviceDials(t *testing.T) {
	e := start(t)
	registerTool(t, e)
	e.Dial(func(d *emulator.Dials) { d.SignIn.DeviceIntervalSeconds = 60 })
	d := deviceCode(t, e, 2, "common")
	if d.raw["interval"] != 60.0 {
		t.Errorf("got interval %v, want 60", d.raw["interval"])
	}
	refused(t, poll(t, e, 2, "common", d.str("device_code")), 400, 70016, "authorization_pending", "")
	refused(t, poll(t, e, 2, "common", d.str("device_code")), 400, 70016, "slow_down", "")
	e.Dial(func(d *emulator.Dials) { d.SignIn.DeviceCodeSeconds = 1 })
	d = deviceCode(t, e, 1, "common")
	advance(e, time.Second)
	refused(t, poll(t, e, 1, "common", d.str("device_code")), 400, 70020, "expired_token", "")
	if p := newWalker(t, e).enter(d.str("user_code"), person{}); !strings.Contains(p.body, "AADSTS70019") {
		t.Errorf("got page %q: %s", p.id, p.body)
	}
}

// Who enters a code has to say who they are, even if the browser remembers.
func TestDeviceAsksWho(t *testing.T) {
	e := start(t)
	registerTool(t, e)
	w := newWalker(t, e)
	w.signIn(authorizeURL(e, 2, "contoso.example"), person{upn: "admin@contoso.example"})
	p := w.post(w.get(w.login+"/devicelogin"), url.Values{"user_code": {deviceCode(t, e, 2, "common").str("user_code")}})
	if p.id != "account" {
		t.Errorf("got page %q, want the account picker", p.id)
	}
}

// What is no address here, or not for such a request, is answered in a shape
// that the caller can read.
func TestElsewhere(t *testing.T) {
	e := start(t)
	login := e.Endpoints().Login
	refused(t, call(t, e, login+"/common/oauth2/v2.0/token", ""), 400, 9002313, "invalid_request", "")
	refused(t, call(t, e, login+"/common/oauth2/v2.0/devicecode", ""), 400, 9002313, "invalid_request", "")
	for _, path := range []string{"/common/nothing", "/signin/", "/signin/x/y", "/error?code=1"} {
		if p := newWalker(t, e).get(login + path); p.id != "error" || p.status != http.StatusNotFound {
			t.Errorf("%s: got page %q with status %d", path, p.id, p.status)
		}
	}
}

// The first decision counts, and the code is the tenant's in which it fell.
func TestDeviceDecidedOnce(t *testing.T) {
	e := start(t)
	registerTool(t, e)
	d := deviceCode(t, e, 2, "organizations")
	first, second := newWalker(t, e), newWalker(t, e)
	late := second.post(second.get(second.login+"/devicelogin"), url.Values{"user_code": {d.str("user_code")}})
	first.enter(d.str("user_code"), person{upn: "admin@contoso.example"})
	if p := second.walk(late, person{upn: "admin2@contoso.example"}); p.id != "device_declined" {
		t.Errorf("the second got page %q", p.id)
	}
	refused(t, poll(t, e, 2, "fabrikam.example", d.str("device_code")), 400, 700005, "invalid_grant", "")
	a := poll(t, e, 2, "contoso.example", d.str("device_code"))
	if c := claims(t, a.str("access_token")); c["upn"] != "admin@contoso.example" {
		t.Errorf("got a token of %v", c["upn"])
	}
}
