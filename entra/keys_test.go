package entra

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/mandate-sam/mandate/internal/upstream"
)

func newTestKeys(f *fakeEntra) *keySet {
	return newKeySet(upstream.Direct(&http.Client{Transport: f}), authority+"/keys/discovery/")
}

func wantKey(t *testing.T, s *keySet, kid string, known bool) {
	t.Helper()
	if _, err := s.get(ctx(), kid); (err == nil) != known {
		t.Errorf("key %q: %v, want known %v", kid, err, known)
	}
}

// Tokens with made-up key ids do not make us ask Entra each time, whether they
// come one by one or at once, and whether Entra answers or not.
func TestUnknownKeysAskRarely(t *testing.T) {
	for name, fail := range map[string]error{"up": nil, "down": errors.New("down")} {
		f := newFake()
		f.keysErr = fail
		c := newClient(t, f, V2)
		var wg sync.WaitGroup
		for i := range 50 {
			raw := sign(fmt.Sprint("bad", i), jose.RS256, testKey(), idToken(nil))
			if i%2 == 0 {
				c.verify(ctx(), raw, partner)
				continue
			}
			wg.Go(func() { c.verify(ctx(), raw, partner) })
		}
		wg.Wait()
		if f.fetches > 2 {
			t.Errorf("%s: 50 bad tokens made %d requests for keys, want at most 2", name, f.fetches)
		}
	}
}

func TestKeysOverTime(t *testing.T) {
	testKey()
	otherKey()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		s := newTestKeys(f)
		after := func(d time.Duration, fetches int, what string) {
			t.Helper()
			if f.fetches != fetches {
				t.Errorf("%s: %d requests, want %d", what, f.fetches, fetches)
			}
			time.Sleep(d)
		}
		wantKey(t, s, "good", true)
		wantKey(t, s, "good", true)
		after(0, 1, "a known key")
		wantKey(t, s, "new", false)
		after(time.Minute-time.Second, 1, "an unknown key at once")
		wantKey(t, s, "new", false)
		after(time.Second, 1, "an unknown key within a minute")
		f.keySet = append(f.keySet, jwk("new", "", &testKey().PublicKey))
		wantKey(t, s, "new", true)
		after(keysLife-time.Second, 2, "an unknown key after a minute")
		wantKey(t, s, "good", true)
		after(time.Second, 2, "a known key within a day")

		f.keysErr = errors.New("down")
		wantKey(t, s, "good", true)
		after(0, 3, "a known key after a day, Entra down")
		wantKey(t, s, "good", true)
		after(time.Minute, 3, "a known key after a day, Entra still down")
		f.keysErr, f.keysBody = nil, `{"keys":[]}`
		wantKey(t, s, "good", true)
		after(time.Minute, 4, "a known key and an empty answer")
		f.keysBody = ""
		f.keySet = f.keySet[1:]
		wantKey(t, s, "good", false) // withdrawn
		after(0, 5, "a withdrawn key")
		wantKey(t, s, "new", true)
	})
}

// With no keys at all we ask again sooner, but not at once.
func TestFirstFetchFails(t *testing.T) {
	testKey()
	otherKey()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.keysErr = errors.New("down")
		s := newTestKeys(f)
		for range 5 {
			wantKey(t, s, "good", false)
		}
		if f.fetches != 1 {
			t.Errorf("%d requests, want 1", f.fetches)
		}
		f.keysErr = nil
		time.Sleep(5 * time.Second)
		wantKey(t, s, "good", true)
	})
}

// All who wait share one request, and one who hangs up harms nobody.
func TestKeysAreFetchedOnce(t *testing.T) {
	testKey()
	otherKey()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.keysHold = make(chan struct{})
		s := newTestKeys(f)
		first, hangUp := withCancel()
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := s.get(first, "good"); err == nil {
				t.Error("a caller who hung up got a key")
			}
		})
		synctest.Wait()
		for range 20 {
			wg.Go(func() { wantKey(t, s, "good", true) })
		}
		synctest.Wait()
		hangUp()
		synctest.Wait()
		close(f.keysHold)
		wg.Wait()
		if f.fetches != 1 {
			t.Errorf("%d requests, want 1", f.fetches)
		}
	})
}

// Keys are taken from a plain answer only.
func TestKeysAnswer(t *testing.T) {
	for name, spoil := range map[string]func(*fakeEntra){
		"status": func(f *fakeEntra) { f.keysCode = 500 },
		"type":   func(f *fakeEntra) { f.keysType = "text/html" },
	} {
		f := newFake()
		spoil(f)
		wantKey(t, newTestKeys(f), "good", false)
		if f.fetches != 1 {
			t.Errorf("%s: %d requests, want 1", name, f.fetches)
		}
	}
}

func TestParseKeys(t *testing.T) {
	good := `{"kty":"RSA","use":"sig","kid":"good","e":"AQAB","n":"` + jwk("", "", &testKey().PublicKey)["n"].(string) + `"}`
	small := `{"kty":"RSA","kid":"small","e":"AQAB","n":"` + strings.Repeat("_", 170) + `8"}`
	for _, tt := range []struct {
		name, key string
		known     bool
	}{
		{"good", good, true},
		{"for encryption", strings.Replace(good, `"sig"`, `"enc"`, 1), false},
		{"of another algorithm", strings.Replace(good, `"sig"`, `"sig","alg":"RS512"`, 1), false},
		{"of the right algorithm", strings.Replace(good, `"sig"`, `"sig","alg":"RS256"`, 1), true},
		{"without id", strings.Replace(good, `"kid":"good",`, "", 1), false},
		{"with an issuer that is no string", strings.Replace(good, `"sig"`, `"sig","issuer":1`, 1), false},
		{"symmetric", `{"kty":"oct","kid":"good","k":"AAAA"}`, false},
		{"of an unknown kind", `{"kty":"new","kid":"good"}`, false},
		{"too small", small, false},
		{"no key", `1`, false},
	} {
		keys, err := parseKeys([]byte(`{"keys":[` + tt.key + `]}`))
		if (err == nil) != tt.known || len(keys) != b2i(tt.known) {
			t.Errorf("key %s: %v, %v", tt.name, keys, err)
		}
		if !tt.known { // it does not take the others away
			if keys, err := parseKeys([]byte(`{"keys":[` + tt.key + `,` + good + `]}`)); err != nil || len(keys) != 1 {
				t.Errorf("key %s beside a good one: %v, %v", tt.name, keys, err)
			}
		}
	}
	for _, body := range []string{"", "{}", "[]", `{"keys":{}}`} {
		if _, err := parseKeys([]byte(body)); err == nil {
			t.Errorf("key set %q is accepted", body)
		}
	}
}
