package entra

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"github.com/mandate-sam/mandate"
)

func redeemCode(t *testing.T, v Version, f *fakeEntra, raw string) (*mandate.IDToken, error) {
	t.Helper()
	f.body = answerV2(map[string]any{"id_token": raw})
	got, err := newClient(t, f, v).RedeemCode(ctx(), codeRedemption())
	return got.User, err
}

func redeem(t *testing.T, v Version, f *fakeEntra, tenant mandate.TenantID, raw string) (*mandate.IDToken, error) {
	t.Helper()
	f.body = answerV2(map[string]any{"id_token": raw})
	got, err := newClient(t, f, v).Redeem(ctx(), redemption(tenant))
	return got.User, err
}

func TestIDToken(t *testing.T) {
	ada := mandate.IDToken{Identity: mandate.Identity{Tenant: partner, Object: must(mandate.ParseObjectID(userID))}, UserName: "ada@contoso.test", Name: "Ada"}
	with := func(change func(*mandate.IDToken)) *mandate.IDToken {
		u := ada
		change(&u)
		return &u
	}
	v1Key := func(f *fakeEntra) { f.keySet = []map[string]any{jwk("good", "", &testKey().PublicKey)} }
	asIs := func(*fakeEntra) {}
	for _, tt := range []struct {
		name    string
		version Version
		keys    func(*fakeEntra)
		claims  map[string]any
		want    *mandate.IDToken
	}{
		{"v2", V2, asIs, idToken(nil), &ada},
		{"v1", V1, v1Key, idTokenV1(nil), with(func(u *mandate.IDToken) { u.AMR = []string{"pwd", "mfa"} })},
		{"v1 with keys that name the v2 issuer", V1, asIs, idTokenV1(map[string]any{"amr": nil}), &ada},
		{"v2 with keys that name none", V2, v1Key, idToken(nil), &ada},
		{"auth_time", V2, asIs, idToken(map[string]any{"auth_time": 1700000000}), with(func(u *mandate.IDToken) { u.AuthTime = time.Unix(1700000000, 0) })},
		{"auth_time of nothing", V2, asIs, idToken(map[string]any{"auth_time": 0}), &ada},
		{"unique_name", V1, v1Key, idTokenV1(map[string]any{"upn": nil, "unique_name": "ada", "amr": nil}), with(func(u *mandate.IDToken) { u.UserName = "ada" })},
		{"clocks apart, early", V2, asIs, idToken(map[string]any{"iat": time.Now().Add(4 * time.Minute).Unix(), "nbf": time.Now().Add(4 * time.Minute).Unix()}), &ada},
		{"clocks apart, late", V2, asIs, idToken(map[string]any{"exp": time.Now().Add(-4 * time.Minute).Unix()}), &ada},
		{"no nbf", V2, asIs, idToken(map[string]any{"nbf": nil}), &ada},
		{"a name that acts on terminals", V2, asIs, idToken(map[string]any{"name": "A\x1bd\na"}), with(func(u *mandate.IDToken) { u.Name = "Ad a" })},
		{"guest", V2, asIs, idToken(map[string]any{"acct": 1}), with(func(u *mandate.IDToken) { u.Guest = true })},
		{"guest in a string", V2, asIs, idToken(map[string]any{"acct": "1"}), with(func(u *mandate.IDToken) { u.Guest = true })},
		{"member", V2, asIs, idToken(map[string]any{"acct": 0}), &ada},
		{"authenticated by another tenant", V2, asIs, idToken(map[string]any{"idp": "https://sts.test/" + customerID + "/"}), with(func(u *mandate.IDToken) { u.Guest = true })},
		{"authenticated by a personal account", V2, asIs, idToken(map[string]any{"idp": "live.com"}), with(func(u *mandate.IDToken) { u.Guest = true })},
		{"authenticated by the tenant, v1", V2, asIs, idToken(map[string]any{"idp": "https://STS.test/" + partnerID + "/"}), &ada},
		{"authenticated by the tenant, v2", V2, asIs, idToken(map[string]any{"idp": authority + "/" + partnerID + "/v2.0"}), &ada},
	} {
		f := newFake()
		tt.keys(f)
		got, err := redeemCode(t, tt.version, f, good(tt.claims))
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if d := cmp.Diff(tt.want, got, cmp.Comparer(func(a, b mandate.Identity) bool { return a == b })); d != "" {
			t.Errorf("%s: (-want +got)\n%s", tt.name, d)
		}
		keys := authority + "/common/discovery/v2.0/keys"
		if tt.version == V1 {
			keys = authority + "/common/discovery/keys"
		}
		if f.urls[1] != "GET "+keys {
			t.Errorf("%s: keys asked at %s, want %s", tt.name, f.urls[1], keys)
		}
	}
}

// unsigned returns a JWT without a signature, as v1 endpoints are documented to
// give.
func unsigned(alg string, claims map[string]any) string {
	enc := base64.RawURLEncoding
	return enc.EncodeToString([]byte(`{"typ":"JWT","alg":"`+alg+`"}`)) + "." + enc.EncodeToString(must(json.Marshal(claims))) + "."
}

// Each row is an ID token that is not to be accepted, and what it must say.
func TestBadIDTokens(t *testing.T) {
	pub := must(x509.MarshalPKIXPublicKey(&testKey().PublicKey))
	now := time.Now()
	ok := good(idToken(nil))
	parts := strings.Split(ok, ".")
	otherParts := strings.Split(good(idToken(map[string]any{"name": "Eve"})), ".")
	for _, tt := range []struct {
		name   string
		raw    string
		reason mandate.Reason
		says   string
	}{
		{"none", "", mandate.ReasonToken, "none came"},
		{"wrong audience", good(idToken(map[string]any{"aud": userID})), mandate.ReasonToken, "audience"},
		{"audience in other case", good(idToken(map[string]any{"aud": strings.ToUpper(appID)})), mandate.ReasonToken, "audience"},
		{"a list of audiences", good(idToken(map[string]any{"aud": []string{appID}})), mandate.ReasonToken, "malformed"},
		{"no audience", good(idToken(map[string]any{"aud": nil})), mandate.ReasonToken, "audience"},
		{"wrong issuer", good(idToken(map[string]any{"iss": "https://evil.test/" + partnerID + "/v2.0"})), mandate.ReasonToken, "issuer"},
		{"issuer of another tenant", good(idToken(map[string]any{"iss": authority + "/" + customerID + "/v2.0"})), mandate.ReasonToken, "issuer"},
		{"issuer of v1", good(idToken(map[string]any{"iss": "https://sts.test/" + partnerID + "/"})), mandate.ReasonToken, "issuer"},
		{"issuer template", good(idToken(map[string]any{"iss": authority + "/{tenantid}/v2.0"})), mandate.ReasonToken, "issuer"},
		{"no issuer", good(idToken(map[string]any{"iss": nil})), mandate.ReasonToken, "issuer"},
		{"key of personal accounts", sign("personal", jose.RS256, otherKey(), idToken(nil)), mandate.ReasonToken, "its key is for issuer"},
		{"wrong tenant", good(idToken(map[string]any{"tid": customerID, "iss": authority + "/" + customerID + "/v2.0"})), mandate.ReasonTenant, "tenant"},
		{"wrong tenant, right issuer", good(idToken(map[string]any{"tid": customerID})), mandate.ReasonTenant, "tenant"},
		{"no tenant", good(idToken(map[string]any{"tid": nil})), mandate.ReasonToken, "names no tenant"},
		{"no user", good(idToken(map[string]any{"oid": nil})), mandate.ReasonToken, "names no user"},
		{"nonce missing", good(idToken(map[string]any{"nonce": nil})), mandate.ReasonToken, "nonce"},
		{"nonce wrong", good(idToken(map[string]any{"nonce": "x"})), mandate.ReasonToken, "nonce"},
		{"nonce longer", good(idToken(map[string]any{"nonce": nonce + "x"})), mandate.ReasonToken, "nonce"},
		{"expired", good(idToken(map[string]any{"exp": now.Add(-leeway - time.Second).Unix()})), mandate.ReasonToken, "expired"},
		{"no exp", good(idToken(map[string]any{"exp": nil})), mandate.ReasonToken, "exp or iat is missing"},
		{"no iat", good(idToken(map[string]any{"iat": nil})), mandate.ReasonToken, "exp or iat is missing"},
		{"not valid yet", good(idToken(map[string]any{"nbf": now.Add(leeway + 5*time.Second).Unix()})), mandate.ReasonToken, "not valid before"},
		{"issued in the future", good(idToken(map[string]any{"iat": now.Add(leeway + 5*time.Second).Unix()})), mandate.ReasonToken, "issued in the future"},
		{"exp beyond numbers", good(idToken(map[string]any{"exp": 1e300})), mandate.ReasonToken, "malformed"},
		{"version 1", good(idToken(map[string]any{"ver": "1.0"})), mandate.ReasonToken, "version"},
		{"no version", good(idToken(map[string]any{"ver": nil})), mandate.ReasonToken, "version"},
		{"unsigned", unsigned("none", idToken(nil)), mandate.ReasonToken, "v2"},
		{"unsigned, spelt oddly", unsigned("NoNe", idToken(nil)), mandate.ReasonToken, "v2"},
		{"signature cut off", parts[0] + "." + parts[1] + ".", mandate.ReasonToken, "signature"},
		{"HS256 with the public key", sign("good", jose.HS256, pub, idToken(nil)), mandate.ReasonToken, "RS256"},
		{"PS256", sign("good", jose.PS256, testKey(), idToken(nil)), mandate.ReasonToken, "RS256"},
		{"unknown key", sign("unknown", jose.RS256, testKey(), idToken(nil)), mandate.ReasonToken, "not one that Entra publishes"},
		{"no key id", sign("", jose.RS256, testKey(), idToken(nil)), mandate.ReasonToken, "not one that Entra publishes"},
		{"signed with another key", sign("good", jose.RS256, otherKey(), idToken(nil)), mandate.ReasonToken, "signature"},
		{"signature of another token", parts[0] + "." + parts[1] + "." + otherParts[2], mandate.ReasonToken, "signature"},
		{"garbage", "x.y.z", mandate.ReasonToken, "not a JWT"},
		{"JSON serialisation", string(must(json.Marshal(map[string]any{"payload": parts[1], "protected": parts[0], "signature": parts[2]}))), mandate.ReasonToken, "not a JWT"},
	} {
		user, err := redeemCode(t, V2, newFake(), tt.raw)
		if r := wantRefusal(t, err, tt.reason); !strings.Contains(r.Detail, tt.says) {
			t.Errorf("%s: says %q, want %q", tt.name, r.Detail, tt.says)
		}
		if user != nil {
			t.Errorf("%s: a user is returned", tt.name)
		}
		if strings.HasPrefix(tt.name, "nonce") || tt.raw == "" { // no matter for refresh tokens
			continue
		}
		user, err = redeem(t, V2, newFake(), partner, tt.raw)
		want := faultApplication
		switch {
		case tt.reason == mandate.ReasonTenant:
			want = faultTenant
		case strings.Contains(tt.says, "publishes"):
			want = faultBusy
		}
		if f := wantFault(t, err); user != nil || f.Domain != want.own.domain || f.Remedy != want.own.remedy || f.Description == "" || f.CorrelationID == "" {
			t.Errorf("%s: Redeem gives %v, %+v", tt.name, user, f)
		}
	}
	_, err := redeemCode(t, V1, newFake(), good(idToken(nil)))
	wantRefusal(t, err, mandate.ReasonToken)
}

// A duplicate claim is refused: two readers might take different ones.
func TestDuplicateClaim(t *testing.T) {
	payload := strings.Replace(string(must(json.Marshal(idToken(nil)))), "{", `{"oid":"`+customerID+`",`, 1)
	s := must(jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: testKey()}, (&jose.SignerOptions{}).WithHeader("kid", "good")))
	raw := must(must(s.Sign([]byte(payload))).CompactSerialize())
	_, err := redeemCode(t, V2, newFake(), raw)
	wantRefusal(t, err, mandate.ReasonToken)
}

// A nonce that is missing on both sides is no match.
func TestNonceOnNeitherSide(t *testing.T) {
	r := codeRedemption()
	r.Nonce = ""
	user, err := newClient(t, newFake(), V2).verifyCode(ctx(), good(idToken(map[string]any{"nonce": nil})), r)
	if user != nil || err == nil {
		t.Errorf("got %+v, %v", user, err)
	}
}

// At a customer's tenant nothing that identifies the user is taken: neither an
// ID token nor a refresh token, though they came unasked.
func TestCustomerAnswer(t *testing.T) {
	f := newFake()
	f.body = answerV2(map[string]any{"id_token": "rubbish", "refresh_token": "of-the-customer"})
	got, err := newClient(t, f, V2).Redeem(ctx(), redemption(customer))
	if err != nil || got.User != nil || !got.Refresh.IsZero() || got.Access.IsZero() {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestPersonalTenant(t *testing.T) {
	f := newFake()
	msa := must(mandate.ParseTenantID(personal))
	iss := authority + "/" + personal + "/v2.0"
	f.body = answerV2(map[string]any{"id_token": sign("personal", jose.RS256, otherKey(), idToken(map[string]any{"tid": personal, "iss": iss}))})
	r := codeRedemption()
	r.Key.Partner = msa
	got, err := newClient(t, f, V2).RedeemCode(ctx(), r)
	if err != nil || !got.User.Guest {
		t.Errorf("got %+v, %v", got.User, err)
	}
}

// If Entra's keys cannot be had nothing is wrong with the token.
func TestNoKeys(t *testing.T) {
	f := newFake()
	f.keysErr = errors.New("down")
	for range 2 {
		_, err := redeemCode(t, V2, f, good(idToken(nil)))
		if got := wantFault(t, err); got.Domain != mandate.DomainTransient || got.Remedy != mandate.RemedyRetry {
			t.Errorf("got %+v", got)
		}
	}
}

func FuzzIDToken(f *testing.F) {
	fake := newFake()
	c := newClient(f, fake, V2)
	f.Add(good(idToken(nil)))
	f.Add(unsigned("none", idToken(nil)))
	f.Add(sign("personal", jose.RS256, otherKey(), idToken(nil)))
	f.Add("..")
	f.Add(`{"payload":"","signatures":[]}`)
	f.Fuzz(func(t *testing.T, raw string) {
		user, err := c.verifyCode(ctx(), raw, codeRedemption())
		if (user == nil) == (err == nil) {
			t.Fatalf("user %v, error %v", user, err)
		}
		if user == nil {
			return
		}
		// Whatever is accepted says what the only token signed here said.
		if user.Object.String() != userID || user.UserName != "ada@contoso.test" {
			t.Fatalf("accepted %+v", user)
		}
	})
}

func FuzzClaims(f *testing.F) {
	c := newClient(f, newFake(), V2)
	f.Add(string(must(json.Marshal(idToken(nil)))))
	f.Add(string(must(json.Marshal(idToken(map[string]any{"aud": []string{appID}})))))
	f.Add(`{"exp":-1,"iat":"1","amr":null}`)
	f.Add("null")
	s := must(jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: testKey()}, (&jose.SignerOptions{}).WithHeader("kid", "good")))
	f.Fuzz(func(t *testing.T, claims string) {
		user, err := c.verifyCode(ctx(), must(must(s.Sign([]byte(claims))).CompactSerialize()), codeRedemption())
		if err == nil && (user.Tenant != partner || user.Object.IsZero()) {
			t.Fatalf("accepted %+v", user)
		}
	})
}
