package keyvault

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mandate-sam/mandate/emulator/directory"
	"github.com/mandate-sam/mandate/emulator/fault"
	"github.com/mandate-sam/mandate/emulator/internal/bearer"
	"github.com/mandate-sam/mandate/emulator/internal/seed"
	"github.com/mandate-sam/mandate/emulator/internal/token"
)

const (
	testHost = "localhost:8454"
	testOID  = "c0000000-0000-4000-8000-000000000001"
	testApp  = "c0000000-0000-4000-8000-000000000002"
	query    = "?api-version=2025-07-01"
)

// signingKey is made once: it takes a while, and tests do not change it.
var signingKey = sync.OnceValues(token.NewKey)

// A tester is a vault with somebody who asks.
type tester struct {
	testing.TB
	*Vault
	token string // sent with every request; empty: none
}

func newTester(t testing.TB) *tester {
	t.Helper()
	key, err := signingKey()
	if err != nil {
		t.Fatal(err)
	}
	seal, err := NewSeal()
	if err != nil {
		t.Fatal(err)
	}
	dials := &fault.Panel{}
	d := directory.New(dials.Now)
	if err := d.Load(); err != nil {
		t.Fatal(err)
	}
	v := New(Config{
		Config: bearer.Config{
			Login: "https://localhost:8450", Directory: d, Dials: dials, Key: key, Chance: seed.New(1), Log: slog.New(slog.DiscardHandler),
		},
		Name: "contoso-vault", Tenant: directory.ContosoTenant, URL: "https://" + testHost, Seal: seal,
	})
	x := &tester{TB: t, Vault: v}
	x.token = x.sign(nil)
	return x
}

// sign makes an application's token for the vault, with other claims.
func (x *tester) sign(change map[string]any) string {
	x.Helper()
	claims := map[string]any{
		"aud": Audience, "tid": directory.ContosoTenant, "appid": testApp, "oid": testOID, "idtyp": "app",
		"exp": time.Now().Add(1000 * time.Hour).Unix(), "xms_emulator_iat": time.Now().UnixMicro(),
	}
	maps.Copy(claims, change)
	raw, err := x.cfg.Key.Sign(claims, true)
	if err != nil {
		x.Fatal(err)
	}
	return raw
}

// An answer is what came back.
type answer struct {
	status int
	header http.Header
	body   map[string]any
}

// code is the code of an error, and its inner one.
func (a answer) code() string {
	e, _ := a.body["error"].(map[string]any)
	inner, _ := e["innererror"].(map[string]any)
	return strings.TrimSuffix(fmt.Sprint(e["code"], "/", inner["code"]), "/<nil>")
}

func (a answer) text() string {
	e, _ := a.body["error"].(map[string]any)
	return fmt.Sprint(e["message"])
}

func (x *tester) do(method, target, body string, headers ...string) answer {
	x.Helper()
	r := httptest.NewRequest(method, "https://"+testHost+target, strings.NewReader(body))
	if x.token != "" {
		r.Header.Set("Authorization", "Bearer "+x.token)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	x.Handler().ServeHTTP(w, r)
	a := answer{status: w.Code, header: w.Header()}
	if w.Body.Len() > 0 {
		if err := json.Unmarshal(w.Body.Bytes(), &a.body); err != nil {
			x.Fatalf("%s %s: %q is no JSON: %v", method, target, w.Body, err)
		}
	}
	return a
}

// want does a request that must have that status.
func (x *tester) want(status int, method, target, body string) answer {
	x.Helper()
	a := x.do(method, target+query, body)
	if a.status != status {
		x.Fatalf("%s %s: got %d %v, want %d", method, target, a.status, a.body, status)
	}
	return a
}

// filled has one object of every sort.
func filled(t testing.TB) *tester {
	t.Helper()
	x := newTester(t)
	x.want(200, "PUT", "/secrets/live", `{"value":"v"}`)
	x.want(200, "PUT", "/secrets/off", `{"value":"v","attributes":{"enabled":false}}`)
	x.want(200, "PUT", "/secrets/gone", `{"value":"v"}`)
	x.want(200, "DELETE", "/secrets/gone", "")
	x.want(200, "POST", "/keys/ec/create", `{"kty":"EC"}`)
	x.want(200, "POST", "/keys/oct/create", `{"kty":"oct"}`)
	x.want(200, "POST", "/keys/off/create", `{"kty":"oct","attributes":{"enabled":false}}`)
	x.want(200, "POST", "/keys/old/create", `{"kty":"oct","attributes":{"exp":1}}`)
	x.want(200, "POST", "/keys/new/create", `{"kty":"oct","attributes":{"nbf":99999999999}}`)
	x.want(200, "POST", "/keys/gone/create", `{"kty":"oct"}`)
	x.want(200, "DELETE", "/keys/gone", "")
	return x
}

// Every error that the vault knows, with its shape.
func TestErrors(t *testing.T) {
	x := filled(t)
	good := x.token
	bad := map[string]string{
		"none": "", "garbage": "x.y.z",
		"expired":  x.sign(map[string]any{"exp": time.Now().Add(-time.Hour).Unix()}),
		"tenant":   x.sign(map[string]any{"tid": directory.FabrikamTenant}),
		"audience": x.sign(map[string]any{"aud": "https://graph.microsoft.com"}),
	}
	long, huge := strings.Repeat("a", 128), strings.Repeat("x", maxValue+1)
	const wrap = `{"alg":"A256KW","value":"AAAAAAAAAAAAAAAAAAAAAA"}`
	for _, row := range []struct {
		method, path, body string
		token              string
		status             int
		code, text         string
	}{
		{"GET", "/secrets/live", "", "none", 401, "Unauthorized", "AKV10000: Request is missing a Bearer or PoP token."},
		{"GET", "/secrets/live", "", "garbage", 401, "Unauthorized", "AKV10046: "},
		{"GET", "/secrets/live", "", "expired", 401, "Unauthorized", "[TokenExpired] "},
		{"GET", "/secrets/live", "", "tenant", 401, "Unauthorized", "AKV10032: Invalid issuer. Expected one of https://sts.windows.net/" + directory.ContosoTenant + "/, found https://sts.windows.net/" + directory.FabrikamTenant + "/."},
		{"GET", "/secrets/live", "", "audience", 401, "Unauthorized", "AKV10022: Invalid audience. "},
		{"GET", "/shoes", "", "", 404, "NotFound", ""},
		{"GET", "/", "", "", 404, "NotFound", ""},
		{"GET", "/secrets/live/x/y", "", "", 404, "NotFound", ""},
		{"GET", "/storage", "", "", 501, "NotImplemented", ""},
		{"GET", "/secrets/live/backup/", "", "", 404, "SecretNotFound", ""},
		{"GET", "/deletedsecrets/gone/recover", "", "", 405, "BadParameter", "Method GET does not allow operation 'recover'"},
		{"PUT", "/secrets/a_b", `{"value":""}`, "", 400, "BadParameter", "The request URI contains an invalid name: a_b"},
		{"PUT", "/secrets/" + long, `{"value":""}`, "", 400, "BadParameter", ""},
		{"PUT", "/secrets/a", "", "", 400, "BadParameter", "Request body not specified"},
		{"PUT", "/secrets/a", `{"value":`, "", 400, "BadParameter", "The request body is not valid JSON"},
		{"PUT", "/secrets/a", `{"value":1}`, "", 400, "BadParameter", "The request body is not valid JSON"},
		{"PUT", "/secrets/a", `{}`, "", 400, "BadParameter", ""},
		{"PUT", "/secrets/a", `{"value":"` + huge + `"}`, "", 400, "BadParameter", "The secret value is too large."},
		{"PUT", "/secrets/a", `{"value":"` + strings.Repeat(huge, 42) + `"}`, "", 413, "RequestEntityTooLarge", ""},
		{"PUT", "/secrets/a", `{"value":"","contentType":"` + huge[:256] + `"}`, "", 400, "BadParameter", ""},
		{"PUT", "/secrets/a", `{"value":"","tags":{"` + huge[:513] + `":""}}`, "", 400, "BadParameter", ""},
		{"PUT", "/secrets/a", `{"value":"","tags":{"1":"","2":"","3":"","4":"","5":"","6":"","7":"","8":"","9":"","10":"","11":"","12":"","13":"","14":"","15":"","16":""}}`, "", 400, "BadParameter", ""},
		{"PUT", "/secrets/a", `{"value":"","attributes":{"exp":-1}}`, "", 400, "BadParameter", ""},
		{"GET", "/secrets/none", "", "", 404, "SecretNotFound", "A secret with (name/id) none was not found in this key vault. If you recently deleted this secret"},
		{"GET", "/secrets/live/00000000000000000000000000000000", "", "", 404, "SecretNotFound", ""},
		{"GET", "/secrets/gone", "", "", 404, "SecretNotFound", ""},
		{"DELETE", "/secrets/gone", "", "", 404, "SecretNotFound", ""},
		{"GET", "/deletedsecrets/live", "", "", 404, "SecretNotFound", "Deleted Secret not found: live"},
		{"DELETE", "/deletedsecrets/live", "", "", 404, "SecretNotFound", ""},
		{"POST", "/deletedsecrets/live/recover", "", "", 404, "SecretNotFound", ""},
		{"GET", "/secrets/off", "", "", 403, "Forbidden/SecretDisabled", "Operation get is not allowed on a disabled secret."},
		{"PUT", "/secrets/gone", `{"value":""}`, "", 409, "Conflict/ObjectIsDeletedButRecoverable", "Secret gone is currently in a deleted but recoverable state, and its name cannot be reused; in this state, the secret can only be recovered or purged."},
		{"POST", "/secrets/restore", `{"value":"AAAA"}`, "", 400, "BadParameter", "Backup blob is corrupted"},
		{"GET", "/secrets?maxresults=26&x=", "", "", 400, "BadParameter", ""},
		{"GET", "/secrets?maxresults=0&x=", "", "", 400, "BadParameter", ""},
		{"GET", "/secrets?$skiptoken=%25&x=", "", "", 400, "BadParameter", ""},
		{"GET", "/keys/none", "", "", 404, "KeyNotFound", "A key with (name/id) none was not found"},
		{"GET", "/keys/off", "", "", 403, "Forbidden/KeyDisabled", "Operation get is not allowed on a disabled key."},
		{"POST", "/keys/off/wrapkey", wrap, "", 403, "Forbidden/KeyDisabled", ""},
		{"POST", "/keys/old/wrapkey", wrap, "", 403, "Forbidden/KeyExpired", ""},
		{"POST", "/keys/new/wrapkey", wrap, "", 403, "Forbidden/KeyNotYetValid", ""},
		{"POST", "/keys/ec/encrypt", wrap, "", 403, "Forbidden/KeyOperationForbidden", "Operation encrypt is not permitted on this key."},
		{"POST", "/keys/oct/wrapkey", `{"alg":"RSA-OAEP","value":"AA"}`, "", 400, "BadParameter", "Algorithm"},
		{"POST", "/keys/oct/wrapkey", `{"alg":"A256KW","value":"AA"}`, "", 400, "BadParameter", ""},
		{"POST", "/keys/oct/wrapkey", `{"alg":"A256KW","value":"!"}`, "", 400, "BadParameter", "The request body is not valid JSON"},
		{"POST", "/keys/oct/unwrapkey", `{"alg":"A256KW","value":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}`, "", 400, "BadParameter", "The value could not be decrypted"},
		{"POST", "/keys/oct/decrypt", `{"alg":"A256GCM","value":"AA"}`, "", 400, "BadParameter", ""},
		{"POST", "/keys/ec/sign", `{"alg":"ES256","value":"AA"}`, "", 400, "BadParameter", "Invalid length of the digest for ES256"},
		{"POST", "/keys/ec/sign", `{"alg":"RS256","value":"AA"}`, "", 400, "BadParameter", "Algorithm"},
		{"POST", "/keys/a/create", `{"kty":"shoe"}`, "", 400, "BadParameter", "Property kty"},
		{"POST", "/keys/a/create", `{"kty":"RSA","key_size":1024}`, "", 400, "BadParameter", ""},
		{"POST", "/keys/a/create", `{"kty":"EC","crv":"P-256K"}`, "", 400, "BadParameter", ""},
		{"POST", "/keys/a/create", `{"kty":"EC","key_ops":["encrypt"]}`, "", 400, "BadParameter", "Property key_ops"},
		{"PUT", "/keys/a", `{"key":{"kty":"EC","crv":"P-256","d":"AQ","x":"AQ","y":"AQ"}}`, "", 400, "BadParameter", "The EC key is not valid"},
		{"POST", "/keys/gone/create", `{"kty":"EC"}`, "", 409, "Conflict/ObjectIsDeletedButRecoverable", "Key gone is currently"},
		{"PUT", "/keys/ec/rotationpolicy", `{"attributes":{"expiryTime":"90 days"}}`, "", 400, "BadParameter", ""},
		{"POST", "/rng", `{"count":129}`, "", 400, "BadParameter", ""},
	} {
		t.Run(row.method+" "+row.path[:min(len(row.path), 40)]+" "+row.token, func(t *testing.T) {
			x.token = good
			if row.token != "" {
				x.token = bad[row.token]
			}
			q := query
			if strings.Contains(row.path, "?") {
				q = "&" + query[1:]
			}
			a := x.do(row.method, row.path+q, row.body, "x-ms-client-request-id", "r-1")
			if a.status != row.status || a.code() != row.code || !strings.HasPrefix(a.text(), row.text) {
				t.Errorf("got %d %s %q, want %d %s %q", a.status, a.code(), a.text(), row.status, row.code, row.text)
			}
			outer, _, _ := strings.Cut(row.code, "/")
			if got := a.header.Get("x-ms-error-code"); got != outer {
				t.Errorf("got x-ms-error-code %q, want %q", got, outer)
			}
			if got := a.header.Get("WWW-Authenticate") != ""; got != (row.status == 401) {
				t.Errorf("WWW-Authenticate: %q", a.header.Get("WWW-Authenticate"))
			}
			for _, name := range []string{"x-ms-keyvault-region", "x-ms-client-request-id", "x-ms-request-id", "x-ms-keyvault-service-version", "x-ms-keyvault-network-info"} {
				if a.header.Get(name) == "" {
					t.Errorf("no header %s", name)
				}
			}
		})
	}
}

// Places that are the same, and what a vault is asked in roundabout ways.
func TestPaths(t *testing.T) {
	x := filled(t)
	for _, row := range []struct {
		method, target, override string
		status                   int
	}{
		{"GET", "/secrets/live" + query, "", 200},
		{"GET", "/secrets/live/" + query, "", 200},
		{"GET", "/SECRETS/Live/" + query, "", 200},
		{"GET", "/secrets/live?api%2Dversion=7.4", "", 200},
		{"GET", "/secrets/live", "", 400},
		{"GET", "/secrets/live?api-version=", "", 400},
		{"GET", "/secrets/" + query, "", 200},
		{"GET", "/secrets/live/Versions/" + query, "", 200},
		{"POST", "/keys/ec//SIGN" + query, "", 400},
		{"POST", "/secrets/live" + query, "get", 200},
		{"POST", "/secrets/live" + query, "PATCH", 400},
		{"POST", "/secrets/live" + query, "BREW", 400},
		{"GET", "/secrets/live" + query, "DELETE", 200},
		{"POST", "/secrets/live" + query, "DELETE", 200},
		{"GET", "/secrets/live" + query, "", 404},
		{"POST", "/deletedsecrets/live" + query, "DELETE", 204},
	} {
		if a := x.do(row.method, row.target, "", "X-HTTP-METHOD", row.override); a.status != row.status {
			t.Errorf("%s %s, override %q: got %d %v, want %d", row.method, row.target, row.override, a.status, a.body, row.status)
		}
	}
}

// How each client reads the challenge, as far as it differs from the others:
// the tenant, and the scope that it then asks for.
var parsers = map[string]func(header string) (tenant, scope string){
	"Go": func(h string) (string, string) {
		vals := map[string]string{}
		for _, part := range strings.Split(strings.ReplaceAll(h, "Bearer ", ""), " ") {
			if kv := strings.Split(part, "="); len(kv) == 2 {
				vals[kv[0]] = strings.TrimSuffix(strings.ReplaceAll(kv[1], `"`, ""), ",")
			}
		}
		return strings.Split(vals["authorization"], "/")[3], vals["resource"] + "/.default"
	},
	"JavaScript": func(h string) (string, string) {
		vals := map[string]string{}
		for _, part := range strings.FieldsFunc(strings.TrimPrefix(h, "Bearer "), func(r rune) bool { return r == ',' || r == ' ' }) {
			k, v, _ := strings.Cut(part, `="`)
			vals[k] = strings.TrimSuffix(v, `"`)
		}
		u, err := url.Parse(vals["authorization"])
		if err != nil {
			return "", ""
		}
		return strings.TrimPrefix(u.Path, "/"), vals["resource"] + "/.default"
	},
	"Python": func(h string) (string, string) {
		vals := map[string]string{}
		for _, part := range strings.Split(strings.TrimPrefix(h, "Bearer "), ",") {
			if kv := strings.Split(strings.TrimSpace(part), "="); len(kv) == 2 {
				vals[kv[0]] = strings.Trim(kv[1], `"`)
			}
		}
		a := vals["authorization"]
		return a[strings.LastIndex(a, "/")+1:], vals["resource"] + "/.default"
	},
	"Java": func(h string) (string, string) {
		vals := map[string]string{}
		for _, part := range strings.Split(strings.TrimPrefix(strings.ToLower(h), "bearer "), ", ") {
			k, v, _ := strings.Cut(part, "=")
			vals[k] = strings.ReplaceAll(v, `"`, "")
		}
		u, err := url.Parse(vals["authorization"])
		if err != nil {
			return "", ""
		}
		return strings.Split(u.Path, "/")[1], vals["resource"] + "/.default"
	},
}

// Go and Python compare the resource's host with the vault's including the
// port, JavaScript and Java without; see resource.
func TestChallenge(t *testing.T) {
	x := newTester(t)
	for _, row := range []struct {
		host, resource string
		verified       bool
	}{
		{"localhost:8454", "https://vault.azure.net", false},
		{"127.0.0.1:8454", "https://vault.azure.net", false},
		{"contoso-vault.vault.localhost:8454", "https://vault.localhost:8454", true},
		{"Contoso-Vault.Vault.LOCALHOST:8454", "https://vault.localhost:8454", true},
		{"vault.localhost:8454", "https://vault.azure.net", false},
		{"contoso-vault.evil.example:8454", "https://vault.azure.net", false},
		{"contoso-vault.vault.localhost:8455", "https://vault.azure.net", false},
	} {
		r := httptest.NewRequest("GET", "https://x/secrets/s"+query, nil)
		r.Host = row.host
		w := httptest.NewRecorder()
		x.Handler().ServeHTTP(w, r)
		header := w.Header().Get("WWW-Authenticate")
		if want := `Bearer authorization="https://localhost:8450/` + directory.ContosoTenant + `", resource="` + row.resource + `"`; header != want {
			t.Errorf("%s: got %s, want %s", row.host, header, want)
		}
		for name, parse := range parsers {
			if tenant, scope := parse(header); tenant != directory.ContosoTenant || scope != row.resource+"/.default" {
				t.Errorf("%s: %s reads %q and %q", row.host, name, tenant, scope)
			}
		}
		u, err := url.Parse(row.resource)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.HasSuffix(strings.ToLower(row.host), "."+u.Host); got != row.verified {
			t.Errorf("%s: a client that checks says %v, want %v", row.host, got, row.verified)
		}
		x.token = x.sign(map[string]any{"aud": row.resource + "/"})
		if a := x.do("GET", "/secrets"+query, ""); a.status != 200 {
			t.Errorf("%s: a token for the resource of the challenge: got %d %v", row.host, a.status, a.body)
		}
	}
}

// A revoked token is answered with a claims challenge if the client can answer
// that, and like any other bad token if not.
func TestRevoked(t *testing.T) {
	x := newTester(t)
	u, ok := x.cfg.Directory.User(directory.ContosoTenant, "admin@contoso.example")
	if !ok {
		t.Fatal("no admin")
	}
	able, unable := x.sign(map[string]any{"oid": u.ID, "idtyp": "user", "xms_cc": []string{"CP1"}}), x.sign(map[string]any{"oid": u.ID, "idtyp": "user"})
	x.token = able
	x.want(200, "GET", "/secrets", "")
	x.cfg.Directory.Revoke(u.ID, time.Now().Add(time.Second))
	for raw, want := range map[string]string{able: `error="insufficient_claims", claims="`, unable: `resource="https://vault.azure.net"`} {
		x.token = raw
		if h := x.want(401, "GET", "/secrets", "").header.Get("WWW-Authenticate"); !strings.Contains(h, want) {
			t.Errorf("got %s, want %s", h, want)
		}
	}
}

func TestPolicies(t *testing.T) {
	x := filled(t)
	for _, row := range []struct {
		name   string
		policy Policy
		method string
		path   string
		status int
	}{
		{"by object id", Policy{Principal: testOID, Secrets: []string{"get"}}, "GET", "/secrets/live", 200},
		{"by client id", Policy{Principal: strings.ToUpper(testApp), Secrets: []string{"GET"}}, "GET", "/secrets/live", 200},
		{"somebody else's", Policy{Principal: "x", Secrets: []string{"get"}}, "GET", "/secrets/live", 403},
		{"the other kind's", Policy{Principal: testOID, Keys: []string{"get"}}, "GET", "/secrets/live", 403},
		{"another permission", Policy{Principal: testOID, Secrets: []string{"list"}}, "GET", "/secrets/live", 403},
		{"before it is known whether it exists", Policy{Principal: testOID, Secrets: []string{"list"}}, "GET", "/secrets/none", 403},
		{"on keys", Policy{Principal: testOID, Keys: []string{"get"}}, "GET", "/keys/ec", 200},
		{"on secrets, not on keys", Policy{Principal: testOID, Secrets: []string{"get"}}, "GET", "/keys/ec", 403},
		{"all", Policy{Principal: testOID, Secrets: []string{"all"}}, "GET", "/secrets/live", 200},
		{"all is not purge", Policy{Principal: testOID, Secrets: []string{"all"}}, "DELETE", "/deletedsecrets/gone", 403},
		{"purge", Policy{Principal: testOID, Secrets: []string{"purge"}}, "DELETE", "/deletedsecrets/gone", 204},
	} {
		if err := x.SetPolicies(row.policy); err != nil {
			t.Fatal(err)
		}
		a := x.do(row.method, row.path+query, "")
		if a.status != row.status || a.status == 403 && a.code() != "Forbidden/AccessDenied" {
			t.Errorf("%s: got %d %s, want %d", row.name, a.status, a.code(), row.status)
		}
	}
	a := x.want(403, "GET", "/secrets/live", "")
	if want := "The user, group or application 'appid=" + testApp + ";oid=" + testOID + ";iss=https://sts.windows.net/" + directory.ContosoTenant + "/' does not have secrets get permission on key vault 'contoso-vault;location=eastus'. "; !strings.HasPrefix(a.text(), want) {
		t.Errorf("got %q", a.text())
	}
	u, _ := x.cfg.Directory.User(directory.ContosoTenant, "admin@contoso.example")
	x.token = x.sign(map[string]any{"oid": u.ID, "idtyp": "user"})
	if err := x.SetPolicies(Policy{Principal: testApp, Secrets: []string{"get"}}); err != nil {
		t.Fatal(err)
	}
	x.want(403, "GET", "/secrets/live", "") // what the application may do, its users may not
	for _, p := range []Policy{{Secrets: []string{"get"}}, {Principal: "x", Secrets: []string{"sign"}}, {Principal: "x", Keys: []string{"shoe"}}} {
		if x.SetPolicies(p) == nil {
			t.Errorf("%+v was accepted", p)
		}
	}
}
