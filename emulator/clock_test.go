package emulator_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mandate-sam/mandate/emulator"
)

const day = 24 * time.Hour

// advance moves the emulator's clock, forward or back.
func advance(e *emulator.Emulator, d time.Duration) {
	e.Dial(func(x *emulator.Dials) { x.ClockOffset += d })
}

// A refresh token lives for as long as it is used within 90 days, and dies
// when it is not.
func TestClockRefreshWindow(t *testing.T) {
	e := start(t)
	rt := consented(t, e, 2, "admin@contoso.example").str("refresh_token")
	for range 3 {
		advance(e, 89*day)
		if a := refresh(t, e, 2, "contoso.example", rt); a.status != 200 {
			t.Fatalf("used within the window: got %v", a.raw)
		}
	}
	advance(e, 90*day)
	refused(t, refresh(t, e, 2, "contoso.example", rt), 400, 700082, "invalid_grant", "bad_token")
	advance(e, -day)
	if a := refresh(t, e, 2, "contoso.example", rt); a.status != 200 {
		t.Errorf("after moving back: got %v", a.raw)
	}
}

func TestClockAccessToken(t *testing.T) {
	e := start(t)
	me := e.Endpoints().Graph + "/v1.0/me"
	advance(e, 1000*day)
	a := refresh(t, e, 2, "contoso.example", consented(t, e, 2, "admin@contoso.example").str("refresh_token"))
	issued := int64(claims(t, a.str("access_token"))["iat"].(float64))
	if d := e.Now().Unix() - issued; d < 0 || d > 60 {
		t.Errorf("issued %d s before the emulator's now", d)
	}
	for _, row := range []struct {
		name  string
		after time.Duration
		want  int
	}{
		{"at once", 0, 200},
		{"before it expires", 55 * time.Minute, 200},
		{"after it has expired", 40 * time.Minute, 401},
		{"back again", -40 * time.Minute, 200},
		{"before it begins", -65 * time.Minute, 401},
	} {
		advance(e, row.after)
		if got := call(t, e, me, a.str("access_token")); got.status != row.want {
			t.Errorf("%s: got %d, want %d", row.name, got.status, row.want)
		}
	}
}

// What is dated says what the emulator's clock says.
func TestClockDates(t *testing.T) {
	e := start(t)
	advance(e, -400*day)
	near := func(what, layout, got string) {
		t.Helper()
		at, err := time.Parse(layout, got)
		if d := e.Now().Sub(at); err != nil || d < -time.Minute || d > time.Minute {
			t.Errorf("%s: got %q, want about %v", what, got, e.Now())
		}
	}
	a := refresh(t, e, 2, "contoso.example", "none")
	near("Date", http.TimeFormat, a.header.Get("Date"))
	near("timestamp", "2006-01-02 15:04:05Z", a.str("timestamp"))
	_, stamp, _ := strings.Cut(a.str("error_description"), "Timestamp: ")
	near("error_description", "2006-01-02 15:04:05Z", stamp)
	near("the vault's Date", http.TimeFormat, call(t, e, e.Endpoints().KeyVault+"/secrets", "").header.Get("Date"))
	if got := e.TokenRequests()[0].Time; e.Now().Sub(got) > time.Minute {
		t.Errorf("the log says %v, want about %v", got, e.Now())
	}
}

// Codes and device codes lapse by the clock.
func TestClockCodes(t *testing.T) {
	e := start(t)
	p := newWalker(t, e).signIn(authorizeURL(e, 2, "contoso.example"), person{upn: "admin@contoso.example"})
	registerTool(t, e)
	d := deviceCode(t, e, 2, "contoso.example")
	advance(e, 10*time.Minute)
	refused(t, token(t, e, 2, "contoso.example", "authorization_code", "code", p.out.Get("code")), 400, 70008, "invalid_grant", "bad_token")
	advance(e, 5*time.Minute)
	refused(t, poll(t, e, 2, "contoso.example", d.str("device_code")), 400, 70020, "expired_token", "")
}

// A secret that was added through Graph begins and ends by the clock.
func TestClockCredential(t *testing.T) {
	e := start(t)
	graph, _ := writer(t, e)
	a := exchange(t, e, "POST", partnerAppURL(e)+"/addPassword", graph, `{"passwordCredential":{"displayName":"d"}}`)
	secret := a.str("secretText")
	if got := own(t, e, secret); got.status != 200 {
		t.Fatalf("new: got %v", got.raw)
	}
	advance(e, 729*day)
	if got := own(t, e, secret); got.status != 200 {
		t.Errorf("in its last days: got %v", got.raw)
	}
	advance(e, 3*day)
	refused(t, own(t, e, secret), 401, 7000222, "invalid_client", "")
	advance(e, -732*day)
	if got := own(t, e, secret); got.status != 200 {
		t.Errorf("after moving back: got %v", got.raw)
	}
}

// Revocation divides what was issued before from what was issued after, by
// the clock of the moment.
func TestClockRevocation(t *testing.T) {
	e := start(t)
	advance(e, 30*day)
	old := consented(t, e, 2, "admin@contoso.example").str("refresh_token")
	if err := e.Revoke("admin@contoso.example"); err != nil {
		t.Fatal(err)
	}
	refused(t, refresh(t, e, 2, "contoso.example", old), 400, 50173, "invalid_grant", "bad_token")
	if a := consented(t, e, 2, "admin@contoso.example"); a.status != 200 {
		t.Errorf("got %v", a.raw)
	}
}

// The dial has a place in the admin API, and Reset puts the clock right.
func TestClockDial(t *testing.T) {
	e := start(t)
	if status, body := admin(t, e, "PATCH", "/emulator/dials", `{"clock_offset":"-720h"}`); status != 200 || !strings.Contains(body, `"clock_offset":"-720h0m0s"`) {
		t.Errorf("got %d %s", status, body)
	}
	if d := time.Until(e.Now()); d > -719*time.Hour {
		t.Errorf("the clock is ahead by %v", d)
	}
	if err := e.Reset(); err != nil {
		t.Fatal(err)
	}
	if d := time.Until(e.Now()).Abs(); d > time.Minute {
		t.Errorf("after Reset the clock is wrong by %v", d)
	}
}

// A vault's objects are dated by the clock, and their nbf and exp go by it.
func TestClockVault(t *testing.T) {
	e := start(t)
	consented(t, e, 2, "admin@contoso.example") // installs the application
	advance(e, 100*day)
	vault, api := e.Endpoints().KeyVault, "?api-version=7.4"
	raw := func() string { return appToken(t, e, "contoso.example", "https://vault.azure.net") }
	at := func(d time.Duration) string { return strconv.FormatInt(e.Now().Add(d).Unix(), 10) }
	times := `"attributes":{"nbf":` + at(day) + `,"exp":` + at(3*day) + `}`
	s := exchange(t, e, "PUT", vault+"/secrets/s"+api, raw(), `{"value":"v",`+times+`}`)
	created, _ := s.raw["attributes"].(map[string]any)["created"].(float64)
	if d := e.Now().Unix() - int64(created); d < 0 || d > 60 {
		t.Errorf("the secret was created %d s ago by the emulator's clock", d)
	}
	exchange(t, e, "POST", vault+"/keys/k/create"+api, raw(), `{"kty":"EC",`+times+`}`)
	for _, row := range []struct {
		after time.Duration
		want  int
	}{{0, 403}, {2 * day, 200}, {2 * day, 403}, {-2 * day, 200}} {
		advance(e, row.after)
		body := `{"alg":"ES256","value":"` + strings.Repeat("A", 43) + `"}`
		if a := exchange(t, e, "POST", vault+"/keys/k/sign"+api, raw(), body); a.status != row.want {
			t.Errorf("after %v: got %v, want %d", row.after, a.raw, row.want)
		}
		// A secret can be read outside its window, as the documents say.
		if a := call(t, e, vault+"/secrets/s"+api, raw()); a.status != 200 {
			t.Errorf("secret after %v: got %v", row.after, a.raw)
		}
	}
	exchange(t, e, "DELETE", vault+"/secrets/s"+api, raw(), "")
	advance(e, -day)
	if a := call(t, e, vault+"/deletedsecrets/s"+api, raw()); a.status != 200 {
		t.Errorf("deleted, and the clock put back: got %v", a.raw)
	}
	advance(e, 92*day)
	if a := call(t, e, vault+"/deletedsecrets/s"+api, raw()); a.status != 404 {
		t.Errorf("after the retention: got %v", a.raw)
	}
}

// The two kinds of token have lifetimes of their own.
func TestEachTokenItsLifetime(t *testing.T) {
	e := start(t)
	life := func(raw string) time.Duration {
		c := claims(t, raw)
		return time.Duration(c["exp"].(float64)-c["iat"].(float64)) * time.Second
	}
	for _, row := range []struct {
		access, id           time.Duration // dials
		least, most, idToken time.Duration
	}{
		{0, 0, time.Hour, 90 * time.Minute, time.Hour},
		{time.Second, 0, time.Second, time.Second, time.Hour},
		{0, time.Second, time.Hour, 90 * time.Minute, time.Second},
		{2 * time.Hour, 3 * time.Hour, 2 * time.Hour, 2 * time.Hour, 3 * time.Hour},
	} {
		e.Dial(func(d *emulator.Dials) { d.AccessTokenLifetime, d.IDTokenLifetime = row.access, row.id })
		for _, version := range []int{1, 2} {
			a := consented(t, e, version, "admin@contoso.example")
			if got := life(a.str("access_token")); got < row.least || got > row.most {
				t.Errorf("dials %v, %v: v%d access token lives %v", row.access, row.id, version, got)
			}
			if got := life(a.str("id_token")); got != row.idToken {
				t.Errorf("dials %v, %v: v%d ID token lives %v", row.access, row.id, version, got)
			}
		}
	}
	for _, name := range []string{"access_token_lifetime", "id_token_lifetime", "code_lifetime"} {
		if status, body := admin(t, e, "PATCH", "/emulator/dials", `{"`+name+`":"1s"}`); status != 200 || !strings.Contains(body, `"`+name+`":"1s"`) {
			t.Errorf("%s: got %d %s", name, status, body)
		}
		if status, _ := admin(t, e, "PATCH", "/emulator/dials", `{"`+name+`":"-1s"}`); status != 400 {
			t.Errorf("%s of -1s: got %d", name, status)
		}
	}
}

// However far the clock is moved, a sign-in works and its tokens are good.
func TestClockExtremes(t *testing.T) {
	e := start(t)
	for _, offset := range []time.Duration{1<<63 - 1, -1 << 63} {
		e.Dial(func(d *emulator.Dials) { d.ClockOffset = offset })
		rt := consented(t, e, 2, "admin@contoso.example").str("refresh_token")
		a := refresh(t, e, 2, "contoso.example", rt)
		if got := call(t, e, e.Endpoints().Graph+"/v1.0/me", a.str("access_token")); got.status != 200 {
			t.Errorf("offset %v: got %v", offset, got.raw)
		}
	}
}
