package emulator_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/mandate-sam/mandate/emulator"
)

func order(e *emulator.Emulator, r ...emulator.Refusal) {
	e.Dial(func(d *emulator.Dials) { d.Refusals = r })
}

// Every code can be ordered at every endpoint, and comes out in a shape that
// the client of that endpoint can read.
func TestEveryErrorByDialElsewhere(t *testing.T) {
	e := start(t)
	registerTool(t, e)
	for _, row := range emulator.Errors() {
		order(e, emulator.Refusal{Endpoint: "authorize", Code: row.Code})
		for _, version := range []int{1, 2} {
			p := newWalker(t, e).get(authorizeURL(e, version, "contoso.example"))
			want := fmt.Sprintf("AADSTS%d: ", row.Code)
			switch name := p.out.Get("error"); {
			case p.id == "error":
				if m := code.FindStringSubmatch(p.body); m == nil || m[1] != fmt.Sprint(row.Code) || p.status != 400 {
					t.Errorf("%d: got a page with code %v", row.Code, m)
				}
			case name == "" || name == "invalid_grant" || p.out.Get("state") != "a state" || !strings.HasPrefix(p.out.Get("error_description"), want):
				t.Errorf("%d: got %v", row.Code, p.out)
			}
		}
		order(e, emulator.Refusal{Endpoint: "devicecode", Code: row.Code})
		refused(t, deviceCode(t, e, 1, "contoso.example"), row.Status, row.Code, row.V1, row.Suberror)
		refused(t, deviceCode(t, e, 2, "contoso.example"), row.Status, row.Code, row.V2, row.Suberror)
	}
}

func TestRefusalsAtAuthorize(t *testing.T) {
	e := start(t)
	const upn = "admin@contoso.example"
	for _, row := range []struct {
		name    string
		refusal emulator.Refusal
		pages   int    // how many the person saw
		want    string // error at the client; "" if the sign-in succeeds, "page" for an error page
	}{
		{"blocked", emulator.Refusal{Code: 53003}, 0, "interaction_required"},
		{"no consent", emulator.Refusal{Code: 65001}, 0, "consent_required"},
		{"session", emulator.Refusal{Code: 50173}, 0, "login_required"},
		{"risk", emulator.Refusal{Code: 530034}, 0, "access_denied"},
		{"outage", emulator.Refusal{Code: 90033}, 0, "temporarily_unavailable"},
		{"application", emulator.Refusal{Code: 700016}, 0, "page"},
		{"user", emulator.Refusal{Code: 53003, User: upn}, 4, "interaction_required"},
		{"user not assigned", emulator.Refusal{Code: 50105, User: upn}, 4, "page"},
		{"tenant at common", emulator.Refusal{Code: 53003, Tenant: emulator.ContosoTenant}, 4, "interaction_required"},
		{"resource", emulator.Refusal{Code: 53003, Resource: emulator.PartnerCenter}, 0, "interaction_required"},
		{"other user", emulator.Refusal{Code: 53003, User: "sales@contoso.example"}, 4, ""},
		{"other tenant", emulator.Refusal{Code: 53003, Tenant: emulator.AdatumTenant}, 4, ""},
		{"other resource", emulator.Refusal{Code: 53003, Resource: emulator.ARM}, 4, ""},
		{"a grant", emulator.Refusal{Code: 53003, Grant: "authorization_code"}, 4, ""},
	} {
		for _, version := range []int{1, 2} {
			t.Run(fmt.Sprintf("%s v%d", row.name, version), func(t *testing.T) {
				reset(t, e)
				row.refusal.Endpoint, row.refusal.Times = "authorize", 1
				order(e, row.refusal)
				tenant := "contoso.example"
				if row.refusal.Tenant != "" {
					tenant = "common"
				}
				w := newWalker(t, e)
				p := w.signIn(authorizeURL(e, version, tenant), person{upn: upn})
				got := p.out.Get("error")
				if p.id == "error" {
					got = "page"
				}
				if got != row.want || (row.want == "") != (p.out.Get("code") != "") {
					t.Errorf("got %q, %v, want %q", got, p.out, row.want)
				}
				if n := len(w.pages); row.want != "page" && n != row.pages {
					t.Errorf("got pages %q, want %d", w.pages, row.pages)
				}
				if row.want != "" {
					if p := newWalker(t, e).signIn(authorizeURL(e, version, tenant), person{upn: upn}); p.out.Get("code") == "" {
						t.Errorf("the second time: got page %s, %v", p.id, p.out)
					}
				}
			})
		}
	}
}

// A refusal is for one endpoint; without a name, for the token endpoint.
func TestRefusalsStayAtTheirEndpoint(t *testing.T) {
	e := start(t)
	registerTool(t, e)
	rt := consented(t, e, 2, "admin@contoso.example").str("refresh_token")
	for _, endpoint := range []string{"", "token", "authorize", "devicecode"} {
		order(e, emulator.Refusal{Endpoint: endpoint, Code: 53003})
		for at, got := range map[string]bool{
			"token":      refresh(t, e, 2, "contoso.example", rt).code() == 53003,
			"authorize":  newWalker(t, e).get(authorizeURL(e, 2, "contoso.example")).out.Get("error") != "",
			"devicecode": deviceCode(t, e, 2, "contoso.example").code() == 53003,
		} {
			if want := at == endpoint || at == "token" && endpoint == ""; got != want {
				t.Errorf("refusal for %q: %s refuses: %v", endpoint, at, got)
			}
		}
	}
	order(e, emulator.Refusal{Endpoint: "devicecode", Code: 53003, Resource: emulator.ARM})
	if a := deviceCode(t, e, 2, "contoso.example"); a.status != 200 {
		t.Errorf("another resource: got %v", a.raw)
	}
	if status, _ := admin(t, e, "PATCH", "/emulator/dials", `{"refusals":[{"endpoint":"logout","code":1}]}`); status != 400 {
		t.Errorf("an endpoint that does not refuse: got %d", status)
	}
}
