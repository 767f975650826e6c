package keyvault

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"software.sslmate.com/src/go-pkcs12"

	"github.com/mandate-sam/mandate/emulator/fault"
)

// selfSigned is a certificate with its key, made outside of the vault.
func selfSigned(t testing.TB, key crypto.Signer) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "client"}, NotBefore: time.Unix(1_750_000_000, 0), NotAfter: time.Unix(1_850_000_000, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	crt, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return crt
}

func rsaKey(t testing.TB) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func asPEM(t testing.TB, key crypto.Signer, crt *x509.Certificate) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})) + string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: crt.Raw}))
}

func asPFX(t testing.TB, key crypto.Signer, crt *x509.Certificate, password string) string {
	t.Helper()
	b, err := pkcs12.Modern2023.Encode(key, crt, nil, password)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(b)
}

func jsonOf(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}

// A certificate is imported, and what its key signs verifies with it.
func TestImportedCertificateSigns(t *testing.T) {
	x := newTester(t)
	key := rsaKey(t)
	crt := selfSigned(t, key)
	a := x.want(200, "POST", "/certificates/client/import", jsonOf(map[string]any{
		"value": asPFX(t, key, crt, "pw"), "pwd": "pw", "tags": map[string]string{"a": "b"}, "attributes": map[string]any{"exp": 1},
	}))
	if got := a.body["cer"]; got != base64.StdEncoding.EncodeToString(crt.Raw) {
		t.Errorf("got cer %v", got)
	}
	attributes := a.body["attributes"].(map[string]any)
	if attributes["exp"] != 1_850_000_000.0 || attributes["nbf"] != 1_750_000_000.0 || attributes["enabled"] != true {
		t.Errorf("got %v, want the certificate's own dates", attributes)
	}
	policy := a.body["policy"].(map[string]any)
	if policy["issuer"].(map[string]any)["name"] != "Unknown" || policy["x509_props"].(map[string]any)["subject"] != "CN=client" {
		t.Errorf("got policy %v", policy)
	}
	kid := a.body["kid"].(string)
	at := strings.TrimPrefix(kid, "https://"+testHost)
	if !strings.HasPrefix(at, "/keys/client/") {
		t.Fatalf("got kid %s", kid)
	}
	sum := sha256.Sum256([]byte("to be signed"))
	for _, alg := range []string{"RS256", "PS256"} {
		signed := x.want(200, "POST", at+"/sign", `{"alg":"`+alg+`","value":"`+base64.RawURLEncoding.EncodeToString(sum[:])+`"}`)
		sig, err := base64.RawURLEncoding.DecodeString(signed.body["value"].(string))
		if err != nil {
			t.Fatal(err)
		}
		public := crt.PublicKey.(*rsa.PublicKey)
		if alg == "RS256" {
			err = rsa.VerifyPKCS1v15(public, crypto.SHA256, sum[:], sig)
		} else {
			err = rsa.VerifyPSS(public, crypto.SHA256, sum[:], sig, nil)
		}
		if err != nil {
			t.Errorf("%s: %v", alg, err)
		}
	}
	secret := x.want(200, "GET", strings.TrimPrefix(a.body["sid"].(string), "https://"+testHost), "")
	pfx, err := base64.StdEncoding.DecodeString(secret.body["value"].(string))
	if err != nil {
		t.Fatal(err)
	}
	if private, out, err := pkcs12.Decode(pfx, ""); err != nil || !bytes.Equal(out.Raw, crt.Raw) || !key.Equal(private) {
		t.Errorf("the secret is not the certificate with its key: %v", err)
	}
	if secret.body["managed"] != true || secret.body["contentType"] != "application/x-pkcs12" {
		t.Errorf("got %v", secret.body)
	}
	for path, property := range map[string]string{"/certificates": "x5t", "/certificates/client/versions": "x5t", "/keys": "kid"} {
		list := x.want(200, "GET", path, "").body["value"].([]any)
		if len(list) != 1 || list[0].(map[string]any)[property] == nil {
			t.Errorf("%s: got %v", path, list)
		}
	}
}

// The same in PEM, and with a key on a curve; a second version, in base64 as
// some clients send it, replaces the first as the latest one.
func TestImportPEM(t *testing.T) {
	x := newTester(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	text := asPEM(t, key, selfSigned(t, key))
	first := x.want(200, "POST", "/certificates/c/import", jsonOf(map[string]any{"value": text, "policy": map[string]any{"secret_props": map[string]any{"contentType": "application/x-pem-file"}}}))
	encoded := base64.StdEncoding.EncodeToString([]byte(asPEM(t, key, selfSigned(t, key))))
	second := x.want(200, "POST", "/certificates/C/import", jsonOf(map[string]any{"value": encoded, "policy": map[string]any{"secret_props": map[string]any{"contentType": "application/x-pem-file"}}}))
	if x.want(200, "GET", "/certificates/c/", "").body["id"] != second.body["id"] {
		t.Error("the latest version is not the last one")
	}
	if got := x.want(200, "GET", strings.TrimPrefix(first.body["id"].(string), "https://"+testHost), "").body["x5t"]; got != first.body["x5t"] {
		t.Errorf("got %v", got)
	}
	if got := x.want(200, "GET", strings.TrimPrefix(first.body["sid"].(string), "https://"+testHost), "").body["value"]; got != text {
		t.Errorf("got %v", got)
	}
	if got := x.want(200, "GET", "/keys/c", "").body["key"].(map[string]any)["crv"]; got != "P-256" {
		t.Errorf("got %v", got)
	}
}

// A certificate, its key and its secret live and die together.
func TestCertificateIsOneThing(t *testing.T) {
	x := newTester(t)
	key := rsaKey(t)
	body := jsonOf(map[string]any{"value": asPEM(t, key, selfSigned(t, key))})
	x.want(200, "POST", "/certificates/one/import", body)
	for _, row := range []struct{ method, path, body string }{
		{"DELETE", "/keys/one", ""}, {"DELETE", "/secrets/one", ""}, {"PUT", "/secrets/one", `{"value":"x"}`}, {"POST", "/keys/one/create", `{"kty":"EC"}`},
		{"POST", "/keys/one/rotate", ""}, {"POST", "/keys/one/backup", ""},
	} {
		x.want(403, row.method, row.path, row.body)
	}
	x.want(200, "PATCH", "/certificates/one", `{"attributes":{"enabled":false,"exp":5},"tags":{"k":"v"}}`)
	if a := x.do("POST", "/keys/one/sign"+query, `{"alg":"RS256","value":""}`); a.code() != "Forbidden/KeyDisabled" {
		t.Errorf("got %s", a.code())
	}
	if got := x.want(200, "GET", "/certificates/one", "").body; got["attributes"].(map[string]any)["exp"] == 5.0 || got["tags"].(map[string]any)["k"] != "v" {
		t.Errorf("got %v", got)
	}
	x.want(200, "PATCH", "/certificates/one/policy", `{"issuer":{"name":"Other"}}`)
	if got := x.want(200, "GET", "/certificates/one/policy", "").body["issuer"].(map[string]any)["name"]; got != "Other" {
		t.Errorf("got %v", got)
	}
	backup := x.want(200, "POST", "/certificates/one/backup", "").body["value"].(string)
	gone := x.want(200, "DELETE", "/certificates/one", "")
	if !strings.HasSuffix(gone.body["recoveryId"].(string), "/deletedcertificates/one") {
		t.Errorf("got %v", gone.body)
	}
	for _, path := range []string{"/certificates/one", "/keys/one", "/secrets/one"} {
		x.want(404, "GET", path, "")
	}
	x.want(403, "DELETE", "/deletedkeys/one", "")
	x.want(403, "POST", "/deletedsecrets/one/recover", "")
	x.want(409, "POST", "/certificates/one/import", body)
	x.want(200, "POST", "/deletedcertificates/one/recover", "")
	x.want(200, "GET", "/certificates/one", "")
	x.want(409, "POST", "/certificates/restore", `{"value":"`+backup+`"}`)
	x.want(200, "DELETE", "/certificates/one", "")
	if list := x.want(200, "GET", "/deletedcertificates", "").body["value"].([]any); len(list) != 1 {
		t.Errorf("got %v", list)
	}
	x.want(204, "DELETE", "/deletedcertificates/one", "")
	for _, path := range []string{"/deletedcertificates/one", "/deletedkeys/one", "/deletedsecrets/one"} {
		x.want(404, "GET", path, "")
	}
	x.want(200, "POST", "/certificates/restore", `{"value":"`+backup+`"}`)
	x.want(200, "PATCH", "/certificates/one", `{"attributes":{"enabled":true}}`)
	sum := sha256.Sum256(nil)
	x.want(200, "POST", "/keys/one/sign", `{"alg":"RS256","value":"`+base64.RawURLEncoding.EncodeToString(sum[:])+`"}`)
	x.want(200, "PUT", "/secrets/mine", `{"value":"x"}`)
	x.want(409, "POST", "/certificates/mine/import", body)
}

// A vault makes a certificate that signs itself, in two steps.
func TestCreateCertificate(t *testing.T) {
	x := newTester(t)
	a := x.want(202, "POST", "/certificates/made/create", `{"policy":{"issuer":{"name":"Self"},"key_props":{"kty":"EC","crv":"P-256"},"x509_props":{"subject":"CN=made,O=Contoso","validity_months":3}}}`)
	if a.body["status"] != "inProgress" || a.body["csr"] == "" {
		t.Errorf("got %v", a.body)
	}
	a = x.want(200, "GET", "/certificates/made/pending", "")
	if a.body["status"] != "completed" || a.body["target"] != "https://"+testHost+"/certificates/made" {
		t.Errorf("got %v", a.body)
	}
	der, err := base64.StdEncoding.DecodeString(x.want(200, "GET", "/certificates/made", "").body["cer"].(string))
	if err != nil {
		t.Fatal(err)
	}
	crt, err := x509.ParseCertificate(der)
	if err != nil || crt.Subject.String() != "CN=made,O=Contoso" || crt.CheckSignatureFrom(crt) == nil && crt.IsCA {
		t.Errorf("got %v, %v", crt.Subject, err)
	}
	for _, policy := range []string{
		`{}`, `{"issuer":{"name":"DigiCert"}}`, `{"issuer":{"name":"Self"}}`, `{"issuer":{"name":"Self"},"x509_props":{"subject":"made"}}`,
		`{"issuer":{"name":"Self"},"x509_props":{"subject":"CN=x","validity_months":0}}`, `{"issuer":{"name":"Self"},"x509_props":{"subject":"CN=x"},"key_props":{"kty":"oct"}}`,
		`{"issuer":{"name":"Self"},"x509_props":{"subject":"CN=x"},"secret_props":{"contentType":"text/plain"}}`,
	} {
		if a := x.do("POST", "/certificates/bad/create"+query, `{"policy":`+policy+`}`); a.code() != "BadParameter" {
			t.Errorf("%s: got %d %v", policy, a.status, a.body)
		}
	}
}

func TestImportRefuses(t *testing.T) {
	x := newTester(t)
	key, other := rsaKey(t), rsaKey(t)
	crt := selfSigned(t, key)
	text := asPEM(t, key, crt)
	_, only, _ := strings.Cut(text, "-----END PRIVATE KEY-----\n")
	for name, body := range map[string]map[string]any{
		"nothing":             {},
		"no base64":           {"value": "%"},
		"no PFX":              {"value": "AAAA"},
		"wrong password":      {"value": asPFX(t, key, crt, "pw"), "pwd": "x"},
		"no key":              {"value": only},
		"another's key":       {"value": asPEM(t, other, crt)},
		"key in PKCS#1":       {"value": string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})) + only},
		"another type":        {"value": text, "policy": map[string]any{"secret_props": map[string]any{"contentType": "application/x-pkcs12"}}},
		"policy is no object": {"value": text, "policy": 1},
	} {
		if a := x.do("POST", "/certificates/c/import"+query, jsonOf(body)); a.code() != "BadParameter" {
			t.Errorf("%s: got %d %v", name, a.status, a.body)
		}
	}
	x.want(404, "GET", "/certificates/c", "")
	x.want(404, "GET", "/certificates/c/pending", "")
	if err := x.SetPolicies(Policy{Principal: testOID, Certificates: []string{"Get"}}); err != nil {
		t.Fatal(err)
	}
	if a := x.do("POST", "/certificates/c/import"+query, `{}`); a.code() != "Forbidden/AccessDenied" || !strings.Contains(a.text(), "certificates import permission") {
		t.Errorf("got %v", a.body)
	}
	x.want(404, "GET", "/certificates/c", "")
}

// With purge protection what is deleted stays until its time has come.
func TestPurgeProtection(t *testing.T) {
	x := newTester(t)
	x.cfg.Dials.Set(func(d *fault.Dials) { d.KeyVault.PurgeProtected = []string{"CONTOSO-vault"} })
	key := rsaKey(t)
	x.want(200, "POST", "/certificates/c/import", jsonOf(map[string]any{"value": asPEM(t, key, selfSigned(t, key))}))
	a := x.want(200, "PUT", "/secrets/s", `{"value":"v"}`)
	if got := a.body["attributes"].(map[string]any)["recoveryLevel"]; got != "Recoverable" {
		t.Errorf("got recoveryLevel %v", got)
	}
	for _, path := range []string{"secrets/s", "certificates/c"} {
		x.want(200, "DELETE", "/"+path, "")
		x.want(403, "DELETE", "/deleted"+path, "")
		x.want(200, "GET", "/deleted"+path, "")
	}
	x.cfg.Dials.Set(func(d *fault.Dials) { d.KeyVault.PurgeProtected = nil })
	x.want(204, "DELETE", "/deletedcertificates/c", "")
}
