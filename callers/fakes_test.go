package callers

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/mandate-sam/mandate"
)

const tokenURL = "https://mandate.example/v1/tokens"

var (
	rsaKey      = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	otherKey    = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	ecKey       = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })
	_, edKey, _ = ed25519.GenerateKey(rand.Reader)
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// directory is a Directory in memory.
type directory struct {
	mu    sync.Mutex // guards what follows
	all   []mandate.Caller
	epoch int64
	used  map[string]bool
}

func (d *directory) Registered() ([]mandate.Caller, int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.all, d.epoch, nil
}

func (d *directory) UseAssertion(_ context.Context, id mandate.CallerID, jti string, _ time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.used[string(id)+" "+jti] {
		return mandate.ErrUnauthenticated
	}
	d.used[string(id)+" "+jti] = true
	return nil
}

func (d *directory) change(all ...mandate.Caller) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all, d.epoch = all, d.epoch+1
}

// published is the key set of every fake issuer.
type published struct {
	fetches atomic.Int64
	body    atomic.Pointer[[]byte]
}

func (p *published) RoundTrip(r *http.Request) (*http.Response, error) {
	p.fetches.Add(1)
	return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(*p.body.Load())), Request: r}, nil
}

func (p *published) publish(keys ...map[string]any) {
	body := must(json.Marshal(map[string]any{"keys": keys}))
	p.body.Store(&body)
}

// jwk is a public key as an issuer publishes it.
func jwk(kid string, public any, more map[string]any) map[string]any {
	out := map[string]any{}
	text := must(jose.JSONWebKey{Key: public, KeyID: kid, Use: "sig"}.MarshalJSON())
	if err := json.Unmarshal(text, &out); err != nil {
		panic(err)
	}
	maps.Copy(out, more)
	return out
}

const (
	githubURL  = "https://token.actions.example"
	clusterURL = "https://cluster.example"
	tenantURL  = "https://login.example/11111111-1111-1111-1111-111111111111/v2.0"
	anyURL     = "https://issuer.example"
	audience   = "https://mandate.example/callers"
)

// world is an Authenticator and what it asks.
type world struct {
	*Authenticator
	dir  *directory
	keys *published
}

func newWorld(t *testing.T, all ...mandate.Caller) *world {
	t.Helper()
	w := &world{dir: &directory{all: all, epoch: 1, used: map[string]bool{}}, keys: new(published)}
	w.keys.publish(jwk("one", rsaKey().Public(), nil), jwk("ec", ecKey().Public(), nil))
	h := &http.Client{Transport: w.keys}
	var issuers []Issuer
	for kind, u := range map[string]string{KindGitHub: githubURL, KindKubernetes: clusterURL, KindEntra: tenantURL, KindOIDC: anyURL} {
		issuers = append(issuers, Issuer{Name: kind, Kind: kind, URL: u, Audience: audience, KeysURL: u + "/keys", HTTP: h})
	}
	var err error
	w.Authenticator, err = New(Config{Directory: w.dir, TokenURL: tokenURL, Issuers: issuers})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// sign signs claims.
func sign(alg jose.SignatureAlgorithm, key any, kid string, claims map[string]any) string {
	opts := (&jose.SignerOptions{}).WithType("JWT")
	if kid != "" {
		opts = opts.WithHeader("kid", kid)
	}
	s := must(jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, opts))
	return must(must(s.Sign(must(json.Marshal(claims)))).CompactSerialize())
}

var serial atomic.Int64

// own returns the claims of a good assertion, changed.
func own(changes map[string]any) map[string]any {
	now := time.Now().Unix()
	return changed(map[string]any{
		"iss": "deploy", "sub": "deploy", "aud": tokenURL, "jti": fmt.Sprint("j", serial.Add(1)), "iat": now, "nbf": now, "exp": now + 240,
	}, changes)
}

// githubs returns the claims of a good token of a workflow, changed.
func githubs(changes map[string]any) map[string]any {
	now := time.Now().Unix()
	return changed(map[string]any{
		"iss": githubURL, "sub": "repo:a/b:ref:refs/heads/main", "aud": audience, "iat": now, "nbf": now, "exp": now + 300,
		"repository_id": "1234", "environment": "production",
	}, changes)
}

func changed(claims, changes map[string]any) map[string]any {
	for k, v := range changes {
		if claims[k] = v; v == nil {
			delete(claims, k)
		}
	}
	return claims
}

func keyOf(public any) mandate.CallerCredential {
	text := must(jose.JSONWebKey{Key: public, KeyID: "", Use: "sig"}.MarshalJSON())
	return mandate.CallerCredential{ID: "k", Kind: mandate.CredentialKey, Key: string(text)}
}

func workloadOf(issuer string, claims map[string]string) mandate.CallerCredential {
	return mandate.CallerCredential{ID: "w", Kind: mandate.CredentialWorkload, Issuer: issuer, Claims: claims}
}

func caller(id string, c ...mandate.CallerCredential) mandate.Caller {
	return mandate.Caller{ID: mandate.CallerID(id), Credentials: c}
}
