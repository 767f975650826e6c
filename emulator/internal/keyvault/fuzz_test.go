package keyvault

import (
	"bytes"
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/mandate-sam/mandate/emulator/fault"
)

// Whatever is asked for, the answer is the API's: JSON with a code that is in
// the header too, never a fault of the server.
func FuzzRequest(f *testing.F) {
	x := filled(f)
	x.cfg.Dials.Set(func(d *fault.Dials) {
		d.KeyVault.Budgets = map[string]int{fault.BudgetSecrets: 1 << 30, fault.BudgetSecretCreates: 1 << 30, fault.BudgetKeys: 1 << 30, fault.BudgetKeyCreates: 1000}
	})
	h := x.Handler()
	for _, s := range []struct{ method, path, query, body string }{
		{"PUT", "/secrets/s", "api-version=7.4", `{"value":"v","tags":{"a":null},"attributes":{"exp":1e3}}`},
		{"PATCH", "/secrets/live/", "api%2Dversion=7.4", `{"contentType":"x","attributes":null}`},
		{"GET", "/secrets//", "api-version=7.4&$skiptoken=_w&maxresults=1", ""},
		{"POST", "/secrets/restore", "api-version=7.4", `{"value":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}`},
		{"POST", "/keys/oct//encrypt", "api-version=7.4", `{"alg":"A128CBCPAD","value":"","iv":""}`},
		{"POST", "/keys/oct/decrypt", "api-version=7.4", `{"alg":"A256CBC","value":"","iv":"AAAAAAAAAAAAAAAAAAAAAA"}`},
		{"POST", "/keys/ec/verify", "api-version=7.4", `{"alg":"ES256","digest":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","value":""}`},
		{"PUT", "/keys/i", "api-version=7.4", `{"key":{"kty":"EC","crv":"P-256","d":"AQ","x":"axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY","y":"T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU"}}`},
		{"PUT", "/keys/i", "api-version=7.4", `{"key":{"kty":"RSA","n":"","e":"AQAB"},"hsm":true}`},
		{"PUT", "/keys/ec/rotationpolicy", "api-version=7.4", `{"lifetimeActions":[{"trigger":{"timeAfterCreate":"P1Y2M3D"},"action":{"type":"rotate"}}]}`},
		{"POST", "/rng", "api-version=7.4", `{"count":1}`},
		{"DELETE", "/deletedkeys/gone", "api-version=7.4", ""},
		{"POST", "/certificates/c/import", "api-version=7.4", `{"value":"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"}`},
		{"POST", "/certificates/c/import", "api-version=7.4", `{"value":"MAA=","pwd":"x"}`},
		{"POST", "/certificates/c/create", "api-version=7.4", `{"policy":{"issuer":{"name":"Self"},"key_props":{"kty":"EC"},"x509_props":{"subject":"CN=c, C=US","validity_months":1}}}`},
		{"PATCH", "/certificates/c/policy", "api-version=7.4", `{"issuer":null,"key_props":7}`},
		{"POST", "/certificates/restore", "api-version=7.4", `{"value":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}`},
		{"POST", "/deletedcertificates/c/recover", "api-version=7.4", ""},
	} {
		f.Add(s.method, s.path, s.query, s.body)
	}
	f.Fuzz(func(t *testing.T, method, path, query, body string) {
		if !strings.HasPrefix(path, "/") || !strings.Contains(" GET PUT POST PATCH DELETE HEAD BREW ", " "+method+" ") {
			return // the HTTP server does not let it pass
		}
		r := httptest.NewRequest(method, "https://"+testHost+"/", bytes.NewReader([]byte(body)))
		r.URL.Path, r.URL.RawQuery = path, query
		r.Header.Set("Authorization", "Bearer "+x.token)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code == 204 || (w.Code == 200 || w.Code == 202) && json.Valid(w.Body.Bytes()) {
			return
		}
		var e struct {
			Error struct{ Code, Message string }
		}
		if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || e.Error.Code == "" || e.Error.Code != w.Header().Get("x-ms-error-code") {
			t.Fatalf("got %d %s, %v", w.Code, w.Body, err)
		}
		if w.Code < 400 || w.Code == 500 || strings.Contains(e.Error.Message, "%!") || strings.Contains(e.Error.Message, "json:") {
			t.Errorf("got %d %s", w.Code, w.Body)
		}
	})
}
