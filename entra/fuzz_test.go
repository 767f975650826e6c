package entra

import (
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/mandate-sam/mandate"
)

var jsonHeader = http.Header{"Content-Type": {"application/json"}}

func testExchange() exchange {
	return exchange{id: "id", sent: time.Now(), audience: graph, own: true, censor: strings.NewReplacer()}
}

// checkText ends the test if a fault holds what would act on a terminal, or is
// too long.
func checkText(t *testing.T, f *mandate.Fault) {
	t.Helper()
	for _, s := range []string{f.OAuthError, f.Suberror, f.Description, f.CorrelationID, f.TraceID, f.Timestamp} {
		if len(s) > maxDescription || strings.ContainsFunc(s, unicode.IsControl) || !strings.EqualFold(s, strings.ToValidUTF8(s, "")) {
			t.Fatalf("fault %+v", f)
		}
	}
	if f.Domain == "" || f.Remedy == "" || len(f.Codes) > maxCodes || len(f.Claims) > maxChallenge || f.RetryAfter < 0 {
		t.Fatalf("fault %+v", f)
	}
}

func FuzzTokenResponse(f *testing.F) {
	f.Add([]byte(answerV2(nil)))
	f.Add([]byte(`{"token_type":"bearer","expires_in":"3600","expires_on":"1","access_token":"a.b.c","scope":"x y"}`))
	f.Add([]byte(`{"token_type":"Bearer","expires_in":null,"expires_on":99999999999999,"access_token":"x"}`))
	f.Add([]byte("null"))
	f.Fuzz(func(t *testing.T, body []byte) {
		x := testExchange()
		a, fault := x.read(200, jsonHeader, body)
		if fault != nil {
			checkText(t, fault)
			return
		}
		if life := a.Expires.Sub(x.sent); a.Access.IsZero() || life <= 0 || life > maxLife {
			t.Fatalf("accepted a token that lives %v", life)
		}
	})
}

func FuzzErrorBody(f *testing.F) {
	f.Add(400, []byte(`{"error":"invalid_grant","suberror":"bad_token","error_description":"AADSTS50173: No.\r\nTrace ID: a\r\nCorrelation ID: b\r\nTimestamp: c","error_codes":[50173],"claims":"{}"}`))
	f.Add(401, []byte(`{"error":"invalid_client","error_codes":["7000215",1e99,null]}`))
	f.Add(503, []byte(`{"error":1}`))
	f.Add(302, []byte("\xff"))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		if status != 200 {
			_, fault := testExchange().read(status, jsonHeader, body)
			checkText(t, fault)
		}
	})
}

func FuzzCallback(f *testing.F) {
	f.Add("access_denied", "AADSTS65004: User declined.\r\nTrace ID: a\r\nCorrelation ID: b\r\nTimestamp: c")
	f.Add("", " Trace ID:  Trace ID: x")
	f.Add("\xff\x1b[0m", "AADSTS999999999999 AADSTS1")
	f.Fuzz(func(t *testing.T, code, description string) {
		r := Callback(code, description)
		if r.Reason == "" {
			t.Fatal("no reason")
		}
		checkText(t, r.Fault)
	})
}

func FuzzKeys(f *testing.F) {
	f.Add([]byte(`{"keys":[{"kty":"RSA","kid":"k","n":"AQAB","e":"AQAB"}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		keys, err := parseKeys(body)
		if (len(keys) == 0) == (err == nil) {
			t.Fatalf("keys %v, error %v", keys, err)
		}
	})
}
