package entra

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mandate-sam/mandate"
)

// The tenant in which a redemption failed, and then whom that concerns.
const (
	application = mandate.DomainApplication
	grant       = mandate.DomainGrant
	atCustomer  = mandate.DomainCustomer
	audience    = mandate.DomainAudience
	transient   = mandate.DomainTransient
)

var (
	remedies = map[byte]mandate.Remedy{
		'C': mandate.RemedyRenew, 'P': mandate.RemedyPreconsent, 'A': mandate.RemedyCredential,
		'F': mandate.RemedyConfigure, 'U': mandate.RemedyAdminister, 'R': mandate.RemedyRetry,
	}
)

// codeTable lists codes; whom they concern at the partner's own tenant and at a
// customer's; and whose move it is there: C the partner consents again, P
// pre-consent, A credential, F configuration, U administrator, R retry.
var codeTable = []struct {
	codes         []int
	own, customer mandate.Domain
	acts          string // own, customer
}{
	{[]int{65001, 90099, 90094, 90093, 65004}, audience, atCustomer, "CP"},
	{[]int{650051}, audience, atCustomer, "FP"},
	{[]int{650052, 650054, 500011, 50001}, audience, atCustomer, "FF"},
	{[]int{650056, 650057, 65005, 70011, 700022}, audience, audience, "FF"},
	{[]int{50076, 50079, 50074, 50072, 50078, 50158, 70043}, grant, atCustomer, "CC"},
	{[]int{50173, 50132, 50133, 50089, 70000, 700082, 70008, 54005, 70017, 70018, 70019}, grant, grant, "CC"},
	{[]int{501481, 50147, 700005}, grant, grant, "FF"},
	{[]int{53003, 53000, 53001, 53002, 53004, 530032, 530033, 530035, 53011, 530034, 50053, 50057, 50055, 50126, 50034, 51004, 16003,
		50020, 50105, 50177, 500212, 500213, 500021}, grant, atCustomer, "UU"},
	{[]int{700016}, grant, atCustomer, "FP"},
	{[]int{7000112, 70001, 90002, 900023, 5000224, 90072, 90038}, grant, atCustomer, "FF"},
	{[]int{7000215, 7000222, 700027, 700024, 700030, 50012, 50013, 500133, 50027, 50048}, application, application, "AA"},
	{[]int{7000218, 70002, 700025, 700084, 50011, 900971, 50146, 50194, 901002, 900144, 90014, 9002313, 90023}, application, application, "FF"},
	{[]int{90055, 90033, 90006, 90024, 90012, 50033, 50087, 90020, 50196, 70016}, transient, transient, "RR"},
}

// A code means the same whatever the endpoint's version calls the error, and
// whether it is in error_codes or only in the description.
func TestCodes(t *testing.T) {
	seen := 0
	for _, row := range codeTable {
		for _, code := range row.codes {
			seen++
			for _, body := range []string{
				fmt.Sprintf(`{"error":"interaction_required","error_description":"AADSTS%d: No. Trace ID: a Correlation ID: b Timestamp: c","error_codes":[%d]}`, code, code),
				fmt.Sprintf(`{"error":"invalid_grant","suberror":"message_only","error_description":"AADSTS%d: No.\r\nTrace ID: a\r\nCorrelation ID: b\r\nTimestamp: c"}`, code),
				fmt.Sprintf(`{"error":"invalid_client","suberror":"basic_action","error_codes":["%d"]}`, code),
			} {
				f := newFake()
				f.status, f.body = 400, body
				c := newClient(t, f, V2)
				for i, tenant := range []mandate.TenantID{partner, customer} {
					want := []mandate.Domain{row.own, row.customer}[i]
					_, err := c.Redeem(ctx(), redemption(tenant))
					got := wantFault(t, err)
					if got.Domain != want || got.Remedy != remedies[row.acts[i]] || got.Code() != code {
						t.Errorf("AADSTS%d at tenant %d: %s, %s, want %s, %s (%s)", code, i, got.Domain, got.Remedy, want, remedies[row.acts[i]], body)
					}
				}
			}
		}
	}
	if seen != len(verdicts) {
		t.Errorf("the table tests %d codes, and %d are known", seen, len(verdicts))
	}
}

func TestClassifyWithoutKnownCode(t *testing.T) {
	for _, tt := range []struct {
		fault         mandate.Fault
		own, customer mandate.Domain
		acts          string
	}{
		{mandate.Fault{Codes: []int{70002, 70008}}, grant, grant, "CC"},
		{mandate.Fault{Codes: []int{70002, 50012}}, application, application, "AA"},
		{mandate.Fault{Codes: []int{70008, 1}}, grant, grant, "CC"},
		{mandate.Fault{Codes: []int{50173}, Suberror: "message_only", OAuthError: "invalid_client", Status: 503}, grant, grant, "CC"},
		{mandate.Fault{Codes: []int{1}, Suberror: "bad_token", OAuthError: "invalid_client"}, grant, grant, "CC"},
		{mandate.Fault{Suberror: "basic_action", OAuthError: "invalid_client"}, grant, atCustomer, "CC"},
		{mandate.Fault{Suberror: "additional_action"}, grant, atCustomer, "CC"},
		{mandate.Fault{Suberror: "message_only"}, grant, atCustomer, "UU"},
		{mandate.Fault{Suberror: "user_password_expired"}, grant, atCustomer, "UU"},
		{mandate.Fault{Suberror: "protection_policy_required"}, grant, atCustomer, "UU"},
		{mandate.Fault{Suberror: "consent_required"}, audience, atCustomer, "CP"},
		{mandate.Fault{Suberror: "token_expired"}, grant, grant, "CC"},
		{mandate.Fault{Suberror: "client_mismatch"}, grant, grant, "FF"},
		{mandate.Fault{OAuthError: "invalid_grant"}, grant, atCustomer, "CC"},
		{mandate.Fault{OAuthError: "invalid_grant", Suberror: "new_thing"}, grant, atCustomer, "CC"},
		{mandate.Fault{OAuthError: "interaction_required"}, grant, atCustomer, "CC"},
		{mandate.Fault{OAuthError: "login_required"}, grant, atCustomer, "CC"},
		{mandate.Fault{OAuthError: "consent_required"}, audience, atCustomer, "CP"},
		{mandate.Fault{OAuthError: "access_denied"}, grant, atCustomer, "UU"},
		{mandate.Fault{OAuthError: "invalid_client"}, application, application, "AA"},
		{mandate.Fault{OAuthError: "unauthorized_client"}, grant, atCustomer, "FF"},
		{mandate.Fault{OAuthError: "invalid_request"}, grant, atCustomer, "FF"},
		{mandate.Fault{OAuthError: "unsupported_grant_type"}, application, application, "FF"},
		{mandate.Fault{OAuthError: "unsupported_response_type"}, application, application, "FF"},
		{mandate.Fault{OAuthError: "invalid_scope"}, audience, audience, "FF"},
		{mandate.Fault{OAuthError: "invalid_resource"}, audience, audience, "FF"},
		{mandate.Fault{OAuthError: "invalid_target"}, audience, audience, "FF"},
		{mandate.Fault{OAuthError: "invalid_tenant"}, grant, atCustomer, "FF"},
		{mandate.Fault{OAuthError: "temporarily_unavailable"}, transient, transient, "RR"},
		{mandate.Fault{OAuthError: "server_error"}, transient, transient, "RR"},
		{mandate.Fault{OAuthError: "invalid_grant", Status: 429}, transient, transient, "RR"},
		{mandate.Fault{OAuthError: "invalid_request", Status: 503}, transient, transient, "RR"},
		{mandate.Fault{OAuthError: "something_new", Status: 400}, transient, transient, "RR"},
	} {
		for i, own := range []bool{true, false} {
			want := []mandate.Domain{tt.own, tt.customer}[i]
			d, r := classify(&tt.fault, own)
			if d != want || r != remedies[tt.acts[i]] {
				t.Errorf("classify(%+v, %v) = %s, %s, want %s, %s", tt.fault, own, d, r, want, remedies[tt.acts[i]])
			}
		}
	}
}

const revoked = `The provided grant has expired due to it being revoked, a fresh auth token is needed. The user might have changed or reset their password. The grant was issued on '2021-10-29T17:06:26.4084709Z' and the TokensValidFrom date (before which tokens are not valid) for this user is '2021-10-29T17:16:00.0000000Z'.`

func TestFaultFields(t *testing.T) {
	body := func(sep string) string {
		return string(must(json.Marshal(map[string]any{
			"error": "invalid_grant", "suberror": "bad_token", "error_codes": []int{50173},
			"error_description": "AADSTS50173: " + revoked + sep + "Trace ID: 47a2" + sep + "Correlation ID: 14bf" + sep + "Timestamp: 2021-10-29 17:16:31Z",
			"timestamp":         "2021-10-29 17:16:31Z", "trace_id": "47a2", "correlation_id": "14bf",
			"error_uri": "https://login.microsoftonline.com/error?code=50173",
		})))
	}
	want := &mandate.Fault{
		Domain: grant, Remedy: mandate.RemedyRenew, OAuthError: "invalid_grant", Suberror: "bad_token", Codes: []int{50173},
		Description: "AADSTS50173: " + revoked, CorrelationID: "14bf", TraceID: "47a2", Timestamp: "2021-10-29 17:16:31Z", Status: 400,
	}
	bare := *want
	bare.Suberror = ""
	for name, tt := range map[string]struct {
		body string
		want *mandate.Fault
	}{
		"lines":  {body("\r\n"), want},
		"spaces": {body(" "), want},
		"ids only in the description": {string(must(json.Marshal(map[string]any{"error": "invalid_grant",
			"error_description": "AADSTS50173: " + revoked + " Trace ID: 47a2 Correlation ID: 14bf Timestamp: 2021-10-29 17:16:31Z"}))), &bare},
	} {
		f := newFake()
		f.status, f.body = 400, tt.body
		_, err := newClient(t, f, V2).Redeem(ctx(), redemption(partner))
		if d := cmp.Diff(tt.want, wantFault(t, err)); d != "" {
			t.Errorf("%s: (-want +got)\n%s", name, d)
		}
	}
}

func TestFaultDetails(t *testing.T) {
	challenge := `{"access_token":{"capolids":{"essential":true,"values":["x"]}}}`
	fault := func(status int, h http.Header, body map[string]any) *mandate.Fault {
		f := newFake()
		f.status, f.header, f.body = status, h, string(must(json.Marshal(body)))
		_, err := newClient(t, f, V1).Redeem(ctx(), redemption(customer))
		return wantFault(t, err)
	}
	f := fault(400, nil, map[string]any{"error": "interaction_required", "error_codes": []any{53003, "x", -1, 1e12}, "claims": challenge})
	if f.Claims != challenge || !slices.Equal(f.Codes, []int{53003}) {
		t.Errorf("got %+v", f)
	}
	if f.CorrelationID == "" {
		t.Error("the id that was sent is not kept")
	}
	for _, bad := range []string{"{", `{"a":"` + strings.Repeat("x", maxChallenge) + `"}`} {
		if f := fault(400, nil, map[string]any{"error": "invalid_grant", "claims": bad}); f.Claims != "" {
			t.Errorf("claims %.40q are kept", bad)
		}
	}
	h := http.Header{"Client-Request-Id": {"header"}, "X-Ms-Request-Id": {"trace"}, "Retry-After": {"7"}}
	if f := fault(429, h, map[string]any{"error": "temporarily_unavailable"}); f.CorrelationID != "header" || f.TraceID != "trace" || f.RetryAfter != 7*time.Second {
		t.Errorf("got %+v", f)
	}
	f = fault(400, nil, map[string]any{"error": "invalid_grant", "error_description": "a\x1b[31m\u202eb\nc\x00" + strings.Repeat("é", 600)})
	if !strings.HasPrefix(f.Description, "a[31mb cé") || len(f.Description) > maxDescription || strings.ContainsRune(f.Description, '\ufffd') {
		t.Errorf("description %q", f.Description)
	}
	f = fault(400, nil, map[string]any{"error": strings.Repeat("e", 999), "suberror": strings.Repeat("s", 999), "error_codes": slices.Repeat([]int{1}, 999)})
	if len(f.OAuthError) > maxID || len(f.Suberror) > maxID || len(f.Codes) > maxCodes {
		t.Errorf("unbounded: %+v", f)
	}
	if f := fault(503, http.Header{"Content-Type": {"text/html"}, "Retry-After": {"9"}}, nil); f.RetryAfter != 9*time.Second || f.Domain != transient {
		t.Errorf("got %+v", f)
	}
}

func TestCallback(t *testing.T) {
	for _, tt := range []struct {
		err, description string
		want             mandate.Reason
	}{
		{"access_denied", "AADSTS65004: User declined to consent to access the app.\r\nTrace ID: a", mandate.ReasonDeclined},
		{"access_denied", "", mandate.ReasonDeclined},
		{"consent_required", "AADSTS65004: The resource owner denied it.", mandate.ReasonDeclined},
		{"access_denied", "AADSTS90094: Admin consent is required.", mandate.ReasonAdmin},
		{"consent_required", "AADSTS90093: x", mandate.ReasonAdmin},
		{"consent_required", "AADSTS65001: x", mandate.ReasonAdmin},
		{"consent_required", "", mandate.ReasonAdmin},
		{"invalid_request", "AADSTS50020: User account from identity provider does not exist in tenant", mandate.ReasonTenant},
		{"x", "AADSTS50034: x", mandate.ReasonTenant},
		{"x", "AADSTS51004: x", mandate.ReasonTenant},
		{"x", "AADSTS16003: x", mandate.ReasonTenant},
		{"x", "AADSTS90072: x", mandate.ReasonTenant},
		{"x", "AADSTS50105: x", mandate.ReasonUser},
		{"x", "AADSTS50057: x", mandate.ReasonUser},
		{"interaction_required", "AADSTS50076: x", mandate.ReasonMFA},
		{"access_denied", "AADSTS53003: Access has been blocked by Conditional Access policies.", mandate.ReasonConditional},
		{"access_denied", "AADSTS530032: x", mandate.ReasonConditional},
		{"access_denied", "AADSTS500212: x", mandate.ReasonConditional},
		{"access_denied", "AADSTS99999: x", mandate.ReasonEntra},
		{"temporarily_unavailable", "", mandate.ReasonUnavailable},
		{"server_error", "AADSTS1: x", mandate.ReasonUnavailable},
		{"x", "AADSTS90033: x", mandate.ReasonUnavailable},
		{"invalid_client", "AADSTS650052: x", mandate.ReasonEntra},
		{"", "", mandate.ReasonEntra},
		{"<script>", "AADSTS: \x00", mandate.ReasonEntra},
	} {
		if got := Callback(tt.err, tt.description); got.Reason != tt.want || got.Fault == nil {
			t.Errorf("Callback(%q, %q) = %v, want %s", tt.err, tt.description, got, tt.want)
		}
	}
	r := Callback("access_denied", "AADSTS53003: Blocked.\r\nTrace ID: 47a2\r\nCorrelation ID: 14bf\r\nTimestamp: 2021-10-29 17:16:31Z")
	want := &mandate.Fault{Domain: grant, Remedy: mandate.RemedyAdminister, OAuthError: "access_denied", Codes: []int{53003},
		Description: "AADSTS53003: Blocked.", TraceID: "47a2", CorrelationID: "14bf", Timestamp: "2021-10-29 17:16:31Z"}
	if d := cmp.Diff(want, r.Fault); d != "" {
		t.Errorf("fault (-want +got)\n%s", d)
	}
}
