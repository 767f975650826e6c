package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"
)

// msalCase is the stampede of G8 with MSAL for Go, which is what one would use
// without a broker.
var msalCase = benchCase{
	rows: []string{"G8/msal-upstream-calls", "G8/msal-waiters-p99"},
	run:  runMSAL,
}

const (
	msalTenant   = "11111111-0000-4000-8000-000000000001"
	msalHost     = "login.example.test"
	msalRedirect = "https://app.example.test/callback"
	msalScope    = "https://api.example.test/user_impersonation"
)

func runMSAL(ctx context.Context, e *env) ([]row, error) {
	m, err := newMSAL()
	if err != nil {
		return nil, err
	}
	floor := new(flights)
	v, err := e.interleave(ctx, "G8/msal", choose(e, 7, 3), m.expired, floor.expired)
	if err != nil {
		return nil, err
	}
	calls := row{
		Name: "G8/msal-upstream-calls", Value: number(m.calls), Unit: "calls",
		Floor: number(floor.calls), Ratio: number(m.calls) / number(floor.calls), Note: notOurs,
	}
	late := compare("G8/msal-waiters-p99", "ms", v[0], v[1])
	late.Note = notOurs
	return []row{calls.report(), late.report()}, nil
}

const notOurs = "not ours, for comparison"

// msal is a confidential client whose network is a [msalEntra].
type msal struct {
	client confidential.Client
	entra  *msalEntra
	round  int
	calls  int64 // upstream, the most in any round
}

func newMSAL(more ...confidential.Option) (*msal, error) {
	m := &msal{entra: new(msalEntra)}
	cred, err := confidential.NewCredFromSecret("secret")
	if err != nil {
		return nil, err
	}
	options := append(more, confidential.WithHTTPClient(m.entra), confidential.WithInstanceDiscovery(false))
	m.client, err = confidential.New("https://"+msalHost+"/"+msalTenant, appID.String(), cred, options...)
	return m, err
}

// expired signs in another user, whose token ends at once, and then lets
// everybody ask for that user's.
func (m *msal) expired(ctx context.Context) (float64, error) {
	m.round++
	m.entra.delay.Store(0)
	account, err := m.signIn(ctx, fmt.Sprintf("user-%d", m.round), msalScope)
	if err != nil {
		return 0, err
	}
	m.entra.delay.Store(int64(upstreamDelay))
	m.entra.redeemed.Store(0)
	late, err := wait(upstreamDelay, func() error { return m.silent(ctx, account, msalScope, msalTenant) })
	m.calls = max(m.calls, m.entra.redeemed.Load())
	return late, err
}

// msalEntra answers MSAL in memory: discovery, authorization codes with
// tokens that end after a second or after codeLife, and refresh tokens, after a
// delay, with tokens that live an hour.
type msalEntra struct {
	delay    atomic.Int64 // nanoseconds
	codeLife atomic.Int64 // nanoseconds
	requests atomic.Int64
	redeemed atomic.Int64 // refresh tokens
}

// CloseIdleConnections is part of what MSAL wants of a client.
func (e *msalEntra) CloseIdleConnections() {}

// Do answers a request.
func (e *msalEntra) Do(r *http.Request) (*http.Response, error) {
	e.requests.Add(1)
	tenant, _, _ := strings.Cut(r.URL.Path[1:], "/")
	base := "https://" + msalHost + "/" + tenant
	if r.Body == nil || r.Method != http.MethodPost {
		return answer(map[string]any{
			"authorization_endpoint": base + "/oauth2/v2.0/authorize", "token_endpoint": base + "/oauth2/v2.0/token", "issuer": base + "/v2.0",
		})
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, err
	}
	user, life := strings.TrimPrefix(form.Get("refresh_token"), "rt-"), time.Hour
	if form.Get("grant_type") == "authorization_code" {
		user, life = form.Get("code"), max(time.Second, time.Duration(e.codeLife.Load()))
	} else {
		e.redeemed.Add(1)
	}
	if err := sleep(r.Context(), time.Duration(e.delay.Load())); err != nil {
		return nil, err
	}
	return answer(map[string]any{
		"token_type": "Bearer", "scope": scopeOf(form), "expires_in": int(life.Seconds()),
		"access_token": strings.Repeat("a", tokenSize), "refresh_token": "rt-" + user,
		"client_info": encode(map[string]any{"uid": user, "utid": msalTenant}),
		"id_token": encode(map[string]any{"alg": "none"}) + "." + encode(map[string]any{
			"oid": user, "sub": user, "tid": msalTenant, "preferred_username": user, "iss": base + "/v2.0", "aud": appID.String(),
			"exp": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Unix(),
		}) + ".",
	})
}

// scopeOf returns the permission that is asked for beside OpenID Connect's.
func scopeOf(form url.Values) string {
	for _, s := range strings.Fields(form.Get("scope")) {
		if strings.HasPrefix(s, "https://") {
			return s
		}
	}
	return msalScope
}

func answer(v any) (*http.Response, error) {
	data, err := json.Marshal(v)
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(strings.NewReader(string(data))),
	}, err
}

// encode is how JSON goes into a token.
func encode(v any) string {
	return base64.RawURLEncoding.EncodeToString(must(json.Marshal(v)))
}
