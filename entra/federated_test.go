package entra

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
)

// fileToken returns what looks like a token of another issuer.
func fileToken(claims string) string {
	return "CANARY." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".CANARY"
}

func TestFederated(t *testing.T) {
	first := fileToken(fmt.Sprintf(`{"exp":%d}`, time.Now().Add(time.Hour).Unix()))
	path := file(t, 0o644, first, "\n")
	c := NewFederated(TokenFile(path))
	form := url.Values{}
	if err := c.Authenticate(ctx(), form, app, "u", time.Now()); err != nil || form.Get("client_assertion") != first || len(form) != 2 ||
		form.Get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" {
		t.Errorf("form %v, %v", form, err)
	}
	next := fileToken(fmt.Sprintf(`{"exp":%d.5}`, time.Now().Add(2*time.Hour).Unix()))
	if err := os.WriteFile(path, []byte(next), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := c.Authenticate(ctx(), form, app, "u", time.Now()); err != nil || form.Get("client_assertion") != next {
		t.Errorf("after the file changed: %v", err)
	}
}

func TestFederatedRefuses(t *testing.T) {
	good := fileToken(fmt.Sprintf(`{"exp":%d}`, time.Now().Add(time.Hour).Unix()))
	for _, tt := range []struct{ name, path, says string }{
		{"absent", "/nowhere", "no such file"},
		{"writable", file(t, 0o666, good), "chmod 644"},
		{"writable for the group", file(t, 0o664, good), "chmod 644"},
		{"empty", file(t, 0o600, ""), "no JWT"},
		{"no token", file(t, 0o600, "CANARY"), "no JWT"},
		{"no expiry", file(t, 0o600, fileToken(`{}`)), "no JWT with an expiry"},
		{"text for expiry", file(t, 0o600, fileToken(`{"exp":"x"}`)), "no JWT"},
		{"vast expiry", file(t, 0o600, fileToken(`{"exp":1e300}`)), "no JWT"},
		{"no JSON", file(t, 0o600, fileToken(`CANARY`)), "no JWT"},
		{"no base64", file(t, 0o600, "CANARY.!.CANARY"), "no JWT"},
		{"long", file(t, 0o600, strings.Repeat("CANARY", maxFederated)), "longer"},
		{"expired", file(t, 0o600, fileToken(`{"exp":951782400}`)), "expired at 2000-02-29T00:00:00Z: what renews that file"},
	} {
		err := NewFederated(TokenFile(tt.path)).Authenticate(ctx(), url.Values{}, app, "u", time.Now())
		if !errors.Is(err, mandate.ErrInvalid) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.says)
			continue
		}
		noCanary(t, err)
	}
	old := func(context.Context) (mandate.Secret, time.Time, error) {
		return mandate.NewSecret(good), time.Now(), nil
	}
	if err := NewFederated(old).Authenticate(ctx(), url.Values{}, app, "u", time.Now()); !errors.Is(err, mandate.ErrInvalid) {
		t.Errorf("a source with an old token: %v", err)
	}
}

// A permanent is an error that says that waiting does not help.
type permanent bool

func (p permanent) Error() string   { return "no permission" }
func (p permanent) Temporary() bool { return !bool(p) }

// Whose move it is depends on why there is no assertion.
func TestSourceFaults(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want mandate.Remedy
	}{
		{errors.New("no answer"), mandate.RemedyRetry}, {permanent(false), mandate.RemedyRetry},
		{permanent(true), mandate.RemedyConfigure}, {mandate.Invalid("token_file", "expired"), mandate.RemedyCredential},
	} {
		source := func(context.Context) (mandate.Secret, time.Time, error) { return mandate.Secret{}, time.Time{}, tt.err }
		c := must(New(Config{Cloud: testCloud(), Application: app, Credential: NewFederated(source), HTTP: &http.Client{Transport: newFake()}}))
		_, err := c.Redeem(ctx(), redemption(partner))
		if got := wantFault(t, err); got.Domain != application || got.Remedy != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("%v: got %s %s, want %s", tt.err, got.Domain, got.Remedy, tt.want)
		}
	}
}

// A federated token that Entra repeats is not told on.
func TestFederatedIsCensored(t *testing.T) {
	f := newFake()
	token := fileToken(fmt.Sprintf(`{"exp":%d}`, time.Now().Add(time.Hour).Unix()))
	f.status, f.body = 401, fmt.Sprintf(`{"error":"invalid_client","error_description":"AADSTS700211: %s"}`, token)
	c := must(New(Config{Cloud: testCloud(), Application: app, Credential: NewFederated(TokenFile(file(t, 0o600, token))), HTTP: &http.Client{Transport: f}}))
	_, err := c.Redeem(ctx(), redemption(partner))
	wantFault(t, err)
}

func FuzzExpiry(f *testing.F) {
	f.Add("a.eyJleHAiOjF9.b")
	f.Fuzz(func(t *testing.T, s string) {
		if until, ok := expiry(s); ok && (until.Unix() < 1 || until.Unix() > 1e11) {
			t.Errorf("expiry of %q: %v", s, until)
		}
	})
}
