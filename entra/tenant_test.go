package entra

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/mandate-sam/mandate"
)

// metadata answers like Entra's published metadata.
type metadata struct {
	status      int
	kind, body  string
	err         error
	asked       string
	askedByBody bool
}

func (m *metadata) RoundTrip(r *http.Request) (*http.Response, error) {
	m.asked, m.askedByBody = r.Method+" "+r.URL.String(), r.Body != nil
	if m.err != nil {
		return nil, m.err
	}
	return &http.Response{
		StatusCode: m.status, Header: http.Header{"Content-Type": {m.kind}}, Body: io.NopCloser(strings.NewReader(m.body)), Request: r,
	}, nil
}

func tenantClient(t *testing.T, m *metadata) *Client {
	t.Helper()
	c, err := New(Config{Cloud: testCloud(), Application: app, Credential: must(NewSecret(mandate.NewSecret("canary"))), HTTP: &http.Client{Transport: m}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestTenant(t *testing.T) {
	const issuer = authority + "/" + partnerID + "/v2.0"
	for _, tt := range []struct {
		name  string
		m     metadata
		want  mandate.TenantID
		fault bool // instead of invalid
	}{
		{"found", metadata{200, "application/json", `{"issuer":"` + issuer + `"}`, nil, "", false}, partner, false},
		{"unknown", metadata{400, "application/json", `{"error":"invalid_tenant"}`, nil, "", false}, mandate.TenantID{}, false},
		{"unavailable", metadata{503, "text/html", "", nil, "", false}, mandate.TenantID{}, true},
		{"not JSON", metadata{200, "text/html", `{"issuer":"` + issuer + `"}`, nil, "", false}, mandate.TenantID{}, true},
		{"broken", metadata{200, "application/json", `{"issuer":`, nil, "", false}, mandate.TenantID{}, true},
		{"another cloud's", metadata{200, "application/json", `{"issuer":"https://login.elsewhere.test/` + partnerID + `/v2.0"}`, nil, "", false}, mandate.TenantID{}, true},
		{"no tenant in it", metadata{200, "application/json", `{"issuer":"` + authority + `/{tenantid}/v2.0"}`, nil, "", false}, mandate.TenantID{}, true},
		{"something behind it", metadata{200, "application/json", `{"issuer":"` + issuer + `/x"}`, nil, "", false}, mandate.TenantID{}, true},
		{"no answer", metadata{0, "", "", errors.New("down"), "", false}, mandate.TenantID{}, true},
	} {
		got, err := tenantClient(t, &tt.m).Tenant(ctx(), "Contoso.Example")
		if got != tt.want || (err == nil) != !tt.want.IsZero() {
			t.Errorf("%s: got %v, %v", tt.name, got, err)
		}
		if err != nil && tt.fault != errors.Is(err, mandate.ErrUpstream) || err != nil && !tt.fault != errors.Is(err, mandate.ErrInvalid) {
			t.Errorf("%s: got %v", tt.name, err)
		}
		if want := "GET " + authority + "/contoso.example/v2.0/.well-known/openid-configuration"; tt.m.asked != want || tt.m.askedByBody {
			t.Errorf("%s: asked %s, want %s", tt.name, tt.m.asked, want)
		}
	}
}

// What is no domain is not put into a URL.
func TestTenantOfNoDomain(t *testing.T) {
	for _, s := range []string{
		"", "contoso", "common", "../x.example", "a/b.example", "contoso.example/x", "contoso.example?x", "contoso..example",
		"-a.example", "a-.example", "contoso.example.", ".example", "1.2.3.4", "contoso.example\n", "cöntoso.example",
		strings.Repeat("a", 64) + ".example", strings.Repeat("a.", 130) + "example",
	} {
		m := &metadata{}
		if _, err := tenantClient(t, m).Tenant(ctx(), s); !errors.Is(err, mandate.ErrInvalid) || m.asked != "" {
			t.Errorf("%q: got %v, asked %q", s, err, m.asked)
		}
	}
}
