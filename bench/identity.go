package main

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/entra"
)

// An identity is a token endpoint as fast as one can be: for the real client
// of package entra, what it answers is ready but for the refresh token, which
// is another each time. It counts every request that reaches it.
type identity struct {
	server   *httptest.Server
	cloud    mandate.Cloud
	keys     string
	answers  map[string][2]string // by tenant, what is before and after the refresh token; "" is every other tenant's
	requests atomic.Int64
}

// newIdentity serves TLS on loopback for some partners in whose own tenants
// there are ID tokens. Its access tokens live that long.
func newIdentity(partners []mandate.Partner, life time.Duration) (*identity, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	d := &identity{answers: make(map[string][2]string), cloud: global}
	d.server = httptest.NewTLSServer(d)
	d.cloud.Authority = d.server.URL
	d.cloud.IssuerV2 = d.server.URL + "/{tenantid}/v2.0"
	d.keys = fmt.Sprintf(`{"keys":[{"kty":"RSA","use":"sig","kid":"k","issuer":%q,"n":%q,"e":%q}]}`, d.cloud.IssuerV2,
		base64.RawURLEncoding.EncodeToString(key.N.Bytes()), base64.RawURLEncoding.EncodeToString(big.NewInt(int64(key.E)).Bytes()))
	access := encode(map[string]any{"typ": "JWT"}) + "." + encode(map[string]any{"uti": "0123456789abcdefghijkl", "x": strings.Repeat("x", 1000)}) + ".c2ln"
	begin := fmt.Sprintf(`{"token_type":"Bearer","expires_in":%d,"scope":"https://graph.microsoft.com/User.Read","access_token":%q`, int(life.Seconds()), access)
	d.answers[""] = [2]string{begin, `}`}
	for _, p := range partners {
		tenant := p.Key.Partner.String()
		id, err := d.sign(key, tenant)
		if err != nil {
			d.server.Close()
			return nil, err
		}
		d.answers[tenant] = [2]string{begin + `,"id_token":"` + id + `","refresh_token":"`, `"}`}
	}
	return d, nil
}

// sign returns the ID token of the user of a tenant.
func (d *identity) sign(key *rsa.PrivateKey, tenant string) (string, error) {
	now := time.Now().Unix()
	text := encode(map[string]any{"typ": "JWT", "alg": "RS256", "kid": "k"}) + "." + encode(map[string]any{
		"iss": strings.Replace(d.cloud.IssuerV2, "{tenantid}", tenant, 1), "aud": appID, "tid": tenant, "oid": userID, "ver": "2.0",
		"iat": now, "nbf": now, "exp": now + 7200, "preferred_username": "ada@example.test",
	})
	sum := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])
	return text + "." + base64.RawURLEncoding.EncodeToString(signature), err
}

// ServeHTTP implements [http.Handler].
func (d *identity) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := d.requests.Add(1)
	w.Header().Set("Content-Type", "application/json")
	if strings.HasSuffix(r.URL.Path, "/keys") {
		fmt.Fprint(w, d.keys)
		return
	}
	tenant, _, _ := strings.Cut(r.URL.Path[1:], "/")
	a, own := d.answers[tenant]
	if !own {
		a = d.answers[""]
		fmt.Fprint(w, a[0], a[1])
		return
	}
	fmt.Fprint(w, a[0], strconv.FormatInt(n, 10)+longRefresh, a[1])
}

// client returns an HTTP client that trusts d and keeps its connections.
func (d *identity) client() *http.Client {
	c := d.server.Client()
	t := c.Transport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost, t.MaxIdleConns = callers, callers
	return &http.Client{Transport: t, Timeout: stuck}
}

// authority returns the real client for d.
func (d *identity) authority() (*entra.Client, error) {
	secret, err := entra.NewSecret(mandate.NewSecret("the application's own secret"))
	if err != nil {
		return nil, err
	}
	return entra.New(entra.Config{Cloud: d.cloud, Application: appID, Credential: secret, HTTP: d.client()})
}

// longRefresh is as long as Entra's refresh tokens are.
var longRefresh = strings.Repeat("r", 1400)

func formRequest(ctx context.Context, address string, form url.Values) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(form.Encode()))
	if err == nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return req, err
}
