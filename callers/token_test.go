package callers

import (
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/mandate-sam/mandate"
)

// wantRefused fails the test unless a token is refused.
func wantRefused(t *testing.T, w *world, what, raw string) {
	t.Helper()
	if id, err := w.Token(t.Context(), raw); !errors.Is(err, mandate.ErrUnauthenticated) {
		t.Errorf("%s: got caller %q, error %v, want %v", what, id, err, mandate.ErrUnauthenticated)
	} else if len(raw) > 40 && strings.Contains(err.Error(), raw[len(raw)-20:]) {
		t.Errorf("%s: the error holds a part of the token: %v", what, err)
	}
}

func wantCaller(t *testing.T, w *world, what, raw, want string) {
	t.Helper()
	if id, err := w.Token(t.Context(), raw); string(id) != want || err != nil {
		t.Errorf("%s: got caller %q, error %v, want %q", what, id, err, want)
	}
}

func TestCallerAssertion(t *testing.T) {
	w := newWorld(t, caller("deploy", keyOf(rsaKey().Public()), keyOf(ecKey().Public()), keyOf(edKey.Public())), caller("other", keyOf(otherKey().Public())))
	for alg, key := range map[jose.SignatureAlgorithm]any{jose.RS256: rsaKey(), jose.PS256: rsaKey(), jose.ES256: ecKey(), jose.EdDSA: edKey} {
		wantCaller(t, w, string(alg), sign(alg, key, "", own(nil)), "deploy")
	}
	once := sign(jose.RS256, rsaKey(), "", own(nil))
	wantCaller(t, w, "once", once, "deploy")
	wantRefused(t, w, "twice", once)
	now := time.Now().Unix()
	for what, changes := range map[string]map[string]any{
		"an audience list":        {"aud": []string{tokenURL}},
		"two audiences":           {"aud": []string{tokenURL, "https://other.example"}},
		"another audience":        {"aud": "https://mandate.example"},
		"no audience":             {"aud": nil},
		"another subject":         {"sub": "other"},
		"another caller's name":   {"iss": "other", "sub": "other"},
		"a caller that is not":    {"iss": "nobody", "sub": "nobody"},
		"a person's name":         {"iss": "uid:0", "sub": "uid:0"},
		"no issuer":               {"iss": nil},
		"an unknown issuer":       {"iss": "https://evil.example"},
		"no jti":                  {"jti": nil},
		"an endless jti":          {"jti": strings.Repeat("j", 300)},
		"a life of six minutes":   {"exp": now + 360},
		"a future":                {"iat": now + 600, "exp": now + 800, "nbf": nil},
		"a future nbf":            {"nbf": now + 200},
		"an end":                  {"iat": now - 400, "exp": now - 200, "nbf": nil},
		"no end":                  {"exp": nil},
		"no beginning":            {"iat": nil},
		"an end in words":         {"exp": "tomorrow"},
		"an end beyond all times": {"exp": 1e300},
		"more than a token needs": {"padding": strings.Repeat("p", 20<<10)},
	} {
		wantRefused(t, w, what, sign(jose.RS256, rsaKey(), "", own(changes)))
	}
	wantRefused(t, w, "another's key", sign(jose.RS256, otherKey(), "", own(nil)))
	wantCaller(t, w, "no nbf", sign(jose.RS256, rsaKey(), "", own(map[string]any{"nbf": nil})), "deploy")
	// Who is said to have failed is counted, so it must be a name.
	if id, _ := w.Token(t.Context(), sign(jose.RS256, rsaKey(), "", own(map[string]any{"iss": "de\nploy", "sub": "de\nploy"}))); id != "" {
		t.Errorf("it names %q", id)
	}
	// A server that takes no assertions has no audience that fits.
	w.cfg.TokenURL = ""
	wantRefused(t, w, "no audience, and none that is wanted", sign(jose.RS256, rsaKey(), "", own(map[string]any{"aud": ""})))
}

// Nothing is taken whose algorithm is not the key's own.
func TestCallerTokenAlgorithms(t *testing.T) {
	w := newWorld(t, caller("deploy", keyOf(rsaKey().Public())), caller("flow", workloadOf(KindGitHub, map[string]string{"repository_id": "1234"})))
	public := x509.MarshalPKCS1PublicKey(&rsaKey().PublicKey)
	spki := must(x509.MarshalPKIXPublicKey(rsaKey().Public()))
	for _, c := range []map[string]any{own(nil), githubs(nil)} {
		for _, secret := range [][]byte{public, spki, []byte(keyOf(rsaKey().Public()).Key)} {
			wantRefused(t, w, "HS256 with the public key", sign(jose.HS256, secret, "one", c))
		}
		wantRefused(t, w, "RS384", sign(jose.RS384, rsaKey(), "one", c))
		good := sign(jose.RS256, rsaKey(), "one", c)
		_, rest, _ := strings.Cut(good, ".")
		payload, _, _ := strings.Cut(rest, ".")
		for _, none := range []string{`{"alg":"none"}`, `{"alg":"None","kid":"one"}`, `{"alg":"","kid":"one"}`, `{"kid":"one"}`} {
			head := base64.RawURLEncoding.EncodeToString([]byte(none))
			wantRefused(t, w, none, head+"."+payload+".")
			wantRefused(t, w, none, head+"."+rest)
		}
		for _, raw := range []string{"", ".", "..", "a.b.c", good + ".x", " " + good, strings.Repeat("a", 1<<20), good + strings.Repeat("A", 1<<20)} {
			wantRefused(t, w, "no token", raw)
		}
	}
	twice := base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"` + githubURL + `","iss":"deploy"}`))
	head := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"RS256","kid":"one"}`))
	wantRefused(t, w, "a claim twice", head+"."+twice+".AAAA")
}

func TestCallerWorkload(t *testing.T) {
	const uid, tid, oid = "8d0c4a6e-0000-4000-8000-000000000001", "11111111-1111-1111-1111-111111111111", "8d0c4a6e-0000-4000-8000-000000000002"
	w := newWorld(t,
		caller("flow", workloadOf(KindGitHub, map[string]string{"repository_id": "1234", "environment": "production"})),
		caller("pod", workloadOf(KindKubernetes, map[string]string{serviceAccountUID: uid})),
		caller("daemon", workloadOf(KindEntra, map[string]string{"tid": tid, "oid": oid})),
		caller("any", workloadOf(KindOIDC, map[string]string{"sub": "robot"})),
		caller("nothing", workloadOf(KindOIDC, nil)),
	)
	rs := func(c map[string]any) string { return sign(jose.RS256, rsaKey(), "one", c) }
	pod := func(changes map[string]any) map[string]any {
		return changed(githubs(map[string]any{"iss": clusterURL, "aud": []string{audience}, "kubernetes.io": map[string]any{"serviceaccount": map[string]any{"name": "x", "uid": uid}}}), changes)
	}
	daemon := func(changes map[string]any) map[string]any {
		return changed(githubs(map[string]any{"iss": tenantURL, "tid": tid, "oid": oid, "idtyp": "app"}), changes)
	}
	wantCaller(t, w, "GitHub", rs(githubs(nil)), "flow")
	wantCaller(t, w, "ES256", sign(jose.ES256, ecKey(), "ec", githubs(nil)), "flow")
	wantCaller(t, w, "Kubernetes", rs(pod(nil)), "pod")
	wantCaller(t, w, "Entra", rs(daemon(nil)), "daemon")
	wantCaller(t, w, "any", rs(githubs(map[string]any{"iss": anyURL, "sub": "robot"})), "any")
	now := time.Now().Unix()
	for what, c := range map[string]map[string]any{
		"two audiences":              githubs(map[string]any{"aud": []string{audience, "https://other.example"}}),
		"another audience":           githubs(map[string]any{"aud": "https://github.com/a"}),
		"no audience":                githubs(map[string]any{"aud": nil}),
		"an empty list":              githubs(map[string]any{"aud": []string{}}),
		"another issuer":             githubs(map[string]any{"iss": githubURL + "/"}),
		"another repository":         githubs(map[string]any{"repository_id": "12345"}),
		"a repository as a number":   githubs(map[string]any{"repository_id": 1234}),
		"another environment":        githubs(map[string]any{"environment": "test"}),
		"a future nbf":               githubs(map[string]any{"nbf": now + 200}),
		"an end":                     githubs(map[string]any{"exp": now - 1}),
		"an end in 30,000 years":     githubs(map[string]any{"exp": 1e12}),
		"a beginning to come":        githubs(map[string]any{"iat": now + 200}),
		"a beginning before 1970":    githubs(map[string]any{"iat": -1}),
		"another account":            pod(map[string]any{"kubernetes.io": map[string]any{"serviceaccount": map[string]any{"uid": "x"}}}),
		"an account of another form": pod(map[string]any{"kubernetes.io": "x"}),
		"a user":                     daemon(map[string]any{"idtyp": "user"}),
		"no idtyp":                   daemon(map[string]any{"idtyp": nil}),
		"another tenant":             daemon(map[string]any{"tid": oid}),
		"another object":             daemon(map[string]any{"oid": tid}),
		"nobody in particular":       githubs(map[string]any{"iss": anyURL, "sub": "somebody"}),
	} {
		wantRefused(t, w, what, rs(c))
	}
	wantRefused(t, w, "no kid", sign(jose.RS256, rsaKey(), "", githubs(nil)))
	wantRefused(t, w, "another's key", sign(jose.RS256, otherKey(), "one", githubs(nil)))
	wantRefused(t, w, "another kind of key", sign(jose.RS256, rsaKey(), "ec", githubs(nil)))
}

// A token that two callers are registered for is nobody's.
func TestConfusedDeputyTwoCallersOfOneToken(t *testing.T) {
	w := newWorld(t, caller("a", workloadOf(KindGitHub, map[string]string{"repository_id": "1234"})),
		caller("b", workloadOf(KindGitHub, map[string]string{"repository_id": "1234", "environment": "production"})))
	wantRefused(t, w, "both", sign(jose.RS256, rsaKey(), "one", githubs(nil)))
	wantCaller(t, w, "one of them", sign(jose.RS256, rsaKey(), "one", githubs(map[string]any{"environment": "test"})), "a")
}

// Entra's keys say for which tenants they sign.
func TestCallerKeyOfAnotherIssuer(t *testing.T) {
	const tid = "11111111-1111-1111-1111-111111111111"
	w := newWorld(t, caller("daemon", workloadOf(KindEntra, map[string]string{"tid": tid, "oid": "o"})))
	w.keys.publish(jwk("one", rsaKey().Public(), map[string]any{"issuer": "https://login.example/{tenantid}/v2.0"}),
		jwk("two", otherKey().Public(), map[string]any{"issuer": "https://login.example/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0"}))
	c := githubs(map[string]any{"iss": tenantURL, "tid": tid, "oid": "o", "idtyp": "app"})
	wantCaller(t, w, "its own", sign(jose.RS256, rsaKey(), "one", c), "daemon")
	wantRefused(t, w, "the other's", sign(jose.RS256, otherKey(), "two", c))
}

// Tokens with made-up key ids do not make us ask an issuer each time.
func TestCallerUnknownKeyFlood(t *testing.T) {
	w := newWorld(t, caller("flow", workloadOf(KindGitHub, map[string]string{"repository_id": "1234"})))
	wantCaller(t, w, "before", sign(jose.RS256, rsaKey(), "one", githubs(nil)), "flow")
	var wg sync.WaitGroup
	for i := range 200 {
		raw := sign(jose.RS256, rsaKey(), fmt.Sprint("made-up-", i), githubs(nil))
		wg.Go(func() { wantRefused(t, w, "made up", raw) })
	}
	wg.Wait()
	if n := w.keys.fetches.Load(); n > 2 {
		t.Errorf("200 tokens with made-up keys made %d requests, want at most 2", n)
	}
	wantCaller(t, w, "after", sign(jose.RS256, rsaKey(), "one", githubs(nil)), "flow")
}

// A verification counts for a minute, and not beyond a change of registrations,
// of keys, or the token's end.
func TestCallerVerificationIsRemembered(t *testing.T) {
	rsaKey()
	otherKey()
	ecKey()
	synctest.Test(t, func(t *testing.T) {
		flow := caller("flow", workloadOf(KindGitHub, map[string]string{"repository_id": "1234"}))
		w := newWorld(t, flow)
		raw := sign(jose.RS256, rsaKey(), "one", githubs(nil))
		for range 3 {
			wantCaller(t, w, "at first", raw, "flow")
		}
		if len(w.cached) != 1 {
			t.Errorf("%d verifications are remembered, want 1", len(w.cached))
		}
		w.dir.change()
		wantRefused(t, w, "after the caller was removed", raw)
		w.dir.change(flow)
		wantCaller(t, w, "after it came back", raw, "flow")
		// Another unknown key makes us fetch; the old one is gone by then.
		time.Sleep(61 * time.Second)
		w.keys.publish(jwk("two", otherKey().Public(), nil))
		wantCaller(t, w, "while the keys are remembered", raw, "flow")
		wantRefused(t, w, "an unknown key", sign(jose.RS256, rsaKey(), "three", githubs(nil)))
		wantRefused(t, w, "after its key was withdrawn", raw)
		w.keys.publish(jwk("one", rsaKey().Public(), nil))
		time.Sleep(61 * time.Second)
		wantCaller(t, w, "with its key again", raw, "flow")
		time.Sleep(5 * time.Minute)
		wantRefused(t, w, "after its end", raw)
	})
}

func TestCallerCredentialExpires(t *testing.T) {
	rsaKey()
	ecKey()
	synctest.Test(t, func(t *testing.T) {
		k, wl := keyOf(rsaKey().Public()), workloadOf(KindGitHub, map[string]string{"repository_id": "1234"})
		k.Expires, wl.Expires = time.Now().Add(30*time.Second), time.Now().Add(30*time.Second)
		w := newWorld(t, caller("deploy", k), caller("flow", wl))
		raw := sign(jose.RS256, rsaKey(), "one", githubs(nil))
		wantCaller(t, w, "before", raw, "flow")
		wantCaller(t, w, "before", sign(jose.RS256, rsaKey(), "", own(nil)), "deploy")
		time.Sleep(31 * time.Second)
		wantRefused(t, w, "after", raw)
		wantRefused(t, w, "after", sign(jose.RS256, rsaKey(), "", own(nil)))
	})
}

// A token counts until its own end, though its registration goes on, and a
// verification for a minute at most. What is remembered is bounded.
func TestCallerVerificationEnds(t *testing.T) {
	rsaKey()
	ecKey()
	synctest.Test(t, func(t *testing.T) {
		wl := workloadOf(KindGitHub, map[string]string{"repository_id": "1234"})
		wl.Expires = time.Now().Add(time.Hour)
		w := newWorld(t, caller("flow", wl))
		raw := sign(jose.RS256, rsaKey(), "one", githubs(map[string]any{"exp": time.Now().Unix() + 10}))
		wantCaller(t, w, "before", raw, "flow")
		time.Sleep(11 * time.Second)
		wantRefused(t, w, "after", raw)
		for i := range maxCached + 1 {
			w.remember([32]byte{byte(i), byte(i >> 8)}, verified{until: time.Now().Add(time.Hour)}, time.Now())
		}
		if len(w.cached) > maxCached {
			t.Errorf("%d verifications are remembered", len(w.cached))
		}
		for _, v := range w.cached {
			if v.until.After(time.Now().Add(cacheLife)) {
				t.Fatalf("a verification counts until %v", v.until)
			}
		}
	})
}

func TestCallerIssuers(t *testing.T) {
	good := Issuer{Name: "x", Kind: KindOIDC, URL: anyURL, Audience: audience, KeysURL: anyURL + "/keys", HTTP: newWorld(t).names[KindOIDC].HTTP}
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(*Issuer){
		"Entra's exchange":     func(i *Issuer) { i.Audience = "api://AzureADTokenExchange" },
		"a cluster's default":  func(i *Issuer) { i.Audience = "https://kubernetes.default.svc.cluster.local" },
		"the issuer":           func(i *Issuer) { i.Audience = anyURL + "/" },
		"GitHub's default":     func(i *Issuer) { i.Audience = "https://github.com/octo" },
		"no audience":          func(i *Issuer) { i.Audience = "" },
		"plain http":           func(i *Issuer) { i.KeysURL = "http://issuer.example/keys" },
		"every tenant":         func(i *Issuer) { i.URL = "https://login.example/common/v2.0" },
		"a template":           func(i *Issuer) { i.URL = "https://login.example/{tenantid}/v2.0" },
		"an unknown kind":      func(i *Issuer) { i.Kind = "saml" },
		"a name with a space":  func(i *Issuer) { i.Name = "a b" },
		"another API's":        func(i *Issuer) { i.Audience = "https://graph.microsoft.com/" },
		"Entra's exchange, US": func(i *Issuer) { i.Audience = "api://AzureADTokenExchangeUSGov" },
	} {
		bad := good
		change(&bad)
		if err := bad.Check(); !errors.Is(err, mandate.ErrInvalid) {
			t.Errorf("%s: got error %v, want %v", what, err, mandate.ErrInvalid)
		}
	}
	for what, change := range map[string]func(*Issuer){"name": func(i *Issuer) { i.URL += "/x" }, "url": func(i *Issuer) { i.Name = "y" }} {
		other := good
		change(&other)
		if _, err := New(Config{Directory: &directory{}, Issuers: []Issuer{good, other}}); !errors.Is(err, mandate.ErrInvalid) {
			t.Errorf("the same %s twice: got error %v", what, err)
		}
	}
}

func TestCallerCheck(t *testing.T) {
	w := newWorld(t)
	pinned := map[string]string{"tid": "t", "oid": "o"}
	for _, c := range []mandate.CallerCredential{
		keyOf(rsaKey().Public()), workloadOf(KindEntra, pinned), {Kind: mandate.CredentialSecret}, {Kind: mandate.CredentialCertificate, Certificate: strings.Repeat("ab", 32)},
	} {
		if err := w.Check(&c); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
	without := maps.Clone(pinned)
	delete(without, "oid")
	for _, c := range []mandate.CallerCredential{
		workloadOf(KindEntra, without), workloadOf("nowhere", pinned), workloadOf(KindGitHub, map[string]string{"repository": "a/b"}),
		workloadOf(KindOIDC, map[string]string{"sub": ""}), {Kind: mandate.CredentialKey, Key: "{}"}, {Kind: mandate.CredentialCertificate, Certificate: "ab"},
		{Kind: mandate.CredentialSPIFFE, SPIFFE: "spiffe://a/b"}, {Kind: "password"},
	} {
		if err := w.Check(&c); !errors.Is(err, mandate.ErrInvalid) {
			t.Errorf("%+v: got error %v, want %v", c, err, mandate.ErrInvalid)
		}
	}
}

func FuzzCallerToken(f *testing.F) {
	d := &directory{all: []mandate.Caller{caller("deploy", keyOf(rsaKey().Public()))}, epoch: 1, used: map[string]bool{}}
	a := must(New(Config{Directory: d, TokenURL: tokenURL}))
	f.Add(sign(jose.RS256, otherKey(), "", own(nil)))
	f.Add("e30.e30.")
	f.Fuzz(func(t *testing.T, raw string) {
		if id, err := a.Token(t.Context(), raw); err == nil {
			t.Errorf("%q stands for %s", raw, id)
		}
	})
}
