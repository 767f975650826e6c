package demo

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/emulator"
	"github.com/mandate-sam/mandate/entra"
	"github.com/mandate-sam/mandate/vault"
)

// An attacker has files, this program's source, and the internet: the names of
// tenants and of the application are no secret, and neither is where Microsoft
// is. Nothing else is known.
type attacker struct {
	t     *testing.T
	world *Demo // where Microsoft is, and the product's API; asked over the network alone
	files map[string][]byte
	dir   string

	credentials map[string]entra.Credential
	keys        []*vault.KeyFile
	refresh     map[string]bool   // refresh tokens, in the clear
	access      map[string]string // access tokens, and what each is of
	tenants     map[string]bool
	clients     map[string]bool
	loot        loot
}

// A loot is what an attack has brought.
type loot struct {
	sealed int // sealed tokens that did not open
	opened int // refresh tokens that did
	found  int // secrets in the clear
	keys   int // key files
	shared int // access tokens that replicas share, opened

	// What answered about a partner or a customer: by what a partner has
	// consented to, and to the application by itself.
	delegated, appOnly []string
}

// What access tokens are of.
const (
	ofGrant       = "a grant"
	ofApplication = "an application"
)

// attack tries everything.
func (d *Demo) attack(t *testing.T, files map[string][]byte) loot {
	t.Helper()
	a := &attacker{t: t, world: d, files: files, dir: t.TempDir(), credentials: map[string]entra.Credential{},
		refresh: map[string]bool{}, access: map[string]string{}, clients: map[string]bool{emulator.ApplicationID: true},
		tenants: map[string]bool{emulator.ContosoTenant: true, emulator.FabrikamTenant: true, emulator.AdatumTenant: true, emulator.CPVTenant: true}}
	if err := os.Chmod(a.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range sortedKeys(files) {
		a.scan(name, files[name])
	}
	a.open()
	a.redeem()
	a.signIn()
	a.call()
	return a.loot
}

var (
	guids   = regexp.MustCompile(`[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}`)
	jwts    = regexp.MustCompile(`eyJ[\w-]+\.eyJ[\w-]+\.[\w-]+`)
	opaques = regexp.MustCompile(`[\w.~+/=-]{20,}`)
	callers = regexp.MustCompile(`mdt_[\w-]{20,}`)
)

// scan looks through all bytes of a file for what can be presented as it is.
func (a *attacker) scan(name string, data []byte) {
	for _, g := range guids.FindAll(data, -1) {
		a.identify(strings.ToLower(string(g)))
	}
	for _, j := range jwts.FindAll(data, -1) {
		a.access[string(j)] = ofGrant
		a.loot.found++
	}
	for _, s := range opaques.FindAll(data, -1) {
		if _, ok := a.world.Emulator.RefreshTokenNumber(string(s)); ok && !a.refresh[string(s)] {
			a.refresh[string(s)] = true
			a.loot.found++
		}
	}
	for _, s := range callers.FindAll(data, -1) {
		a.asCaller(string(s))
	}
	if bytes.Contains(data, []byte("mandate-keys 1")) {
		if k, err := vault.OpenKeyFile(a.write(fmt.Sprintf("key-%d", len(a.keys)), data)); err == nil {
			a.keys = append(a.keys, k)
			a.loot.keys++
		}
	}
	if block, _ := pem.Decode(data); block != nil {
		if c, err := entra.LoadCertificate(a.write(filepath.Base(name), data)); err == nil {
			a.credentials[name] = c
		}
	}
}

// identify notes an ID that is a tenant's or an application's, which anybody
// can find out.
func (a *attacker) identify(id string) {
	if slices.ContainsFunc(a.world.Emulator.Tenants(), func(t emulator.Tenant) bool { return t.ID == id }) {
		a.tenants[id] = true
	}
	if _, ok := a.world.Emulator.Application(id); ok {
		a.clients[id] = true
	}
}

func (a *attacker) write(name string, data []byte) string {
	path := filepath.Join(a.dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}

// asCaller tries a caller's secret at the product itself.
func (a *attacker) asCaller(secret string) {
	c, err := api.NewClient(a.world.API, a.world.Emulator.Client(), "demo-service", mandate.NewSecret(secret))
	if err != nil {
		return
	}
	if tok, err := c.Token(a.t.Context(), api.TokenRequest{Partner: Partner, Audience: "graph", Purpose: Purpose}); err == nil {
		a.access[tok.Access.Reveal()] = ofGrant
		a.loot.found++
	}
}

// redeem presents every refresh token, with every credential and with none, in
// every tenant, for every API.
func (a *attacker) redeem() {
	for refresh := range a.refresh {
		for _, tenant := range sortedKeys(a.tenants) {
			for _, resource := range a.resources() {
				form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}, "scope": {resource + "/.default"}}
				a.ask(tenant, emulator.ApplicationID, form, nil)
				for _, c := range a.credentials {
					a.ask(tenant, emulator.ApplicationID, form, c)
				}
			}
		}
	}
}

// signIn presents every credential as every application's own, in every tenant.
func (a *attacker) signIn() {
	for _, c := range a.credentials {
		for _, tenant := range sortedKeys(a.tenants) {
			for _, client := range sortedKeys(a.clients) {
				for _, resource := range a.resources() {
					form := url.Values{"grant_type": {"client_credentials"}, "scope": {resource + "/.default"}}
					if !a.ask(tenant, client, form, c) && client != emulator.ApplicationID {
						break // it is none of that application's
					}
				}
			}
		}
	}
}

func (a *attacker) resources() []string {
	e := a.world.Emulator.Endpoints()
	return []string{e.Graph, e.PartnerCenter, e.ARM, "https://vault.azure.net"}
}

// ask asks the token endpoint, and keeps the access token that it gives.
func (a *attacker) ask(tenant, client string, form url.Values, c entra.Credential) bool {
	form = clone(form)
	form.Set("client_id", client)
	to := a.world.Emulator.Endpoints().Login + "/" + tenant + "/oauth2/v2.0/token"
	if c != nil {
		id, err := mandate.ParseAppID(client)
		if err != nil || c.Authenticate(a.t.Context(), form, id, to, time.Now()) != nil {
			return false
		}
	}
	r, err := a.world.Emulator.Client().PostForm(to, form)
	if err != nil {
		a.t.Fatal(err)
	}
	defer r.Body.Close()
	var out struct {
		Access string `json:"access_token"`
	}
	if json.NewDecoder(r.Body).Decode(&out) != nil || out.Access == "" {
		return false
	}
	a.access[out.Access] = ofGrant
	if form.Get("grant_type") == "client_credentials" {
		a.access[out.Access] = ofApplication
	}
	return true
}

func clone(form url.Values) url.Values {
	out := make(url.Values)
	for k, v := range form {
		out[k] = slices.Clone(v)
	}
	return out
}

// call calls every API with every access token.
func (a *attacker) call() {
	e := a.world.Emulator.Endpoints()
	for _, at := range []string{
		e.PartnerCenter + "/v1/customers", e.PartnerCenter + "/v1/customers/" + emulator.AdatumTenant + "/users", e.PartnerCenter + "/v1/customers/" + emulator.AdatumTenant + "/orders",
		e.Graph + "/v1.0/me", e.Graph + "/v1.0/users", e.Graph + "/v1.0/organization", e.Graph + "/v1.0/tenantRelationships/delegatedAdminRelationships",
		e.ARM + "/subscriptions?api-version=2022-12-01", e.ARM + "/tenants?api-version=2022-12-01",
		e.KeyVault + "/secrets?api-version=7.4", e.KeyVault + "/keys?api-version=7.4",
	} {
		told := make(map[string]bool)
		for token, of := range a.access {
			if !told[of] && a.answers(at, token) {
				told[of] = true
			}
		}
		u, err := url.Parse(at)
		if err != nil {
			a.t.Fatal(err)
		}
		if told[ofGrant] {
			a.loot.delegated = append(a.loot.delegated, u.Path)
		}
		if told[ofApplication] {
			a.loot.appOnly = append(a.loot.appOnly, u.Path)
		}
	}
}

// answers reports whether an API tells something: an empty list is nothing.
func (a *attacker) answers(at, token string) bool {
	r, err := http.NewRequestWithContext(a.t.Context(), "GET", at, nil)
	if err != nil {
		a.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	resp, err := a.world.Emulator.Client().Do(r)
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	var list struct{ Value, Items []json.RawMessage }
	body = bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))
	empty := json.Unmarshal(body, &list) == nil && (list.Value != nil && len(list.Value) == 0 || list.Items != nil && len(list.Items) == 0)
	return resp.StatusCode/100 == 2 && !empty
}
