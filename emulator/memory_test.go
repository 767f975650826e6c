package emulator_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mandate-sam/mandate/emulator"
)

// Three lines make a cloud for a test.
func TestStart(t *testing.T) {
	e := emulator.Start(t)
	resp, err := e.Client().Get(e.Endpoints().Login + "/common/v2.0/.well-known/openid-configuration")
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("got %v, %v", resp, err)
	}
	resp.Body.Close()
}

// On the usual port there is no port in URLs and issuers: clients leave it out,
// too, and some know no other.
func TestUsualPort(t *testing.T) {
	e := emulator.Start(t, emulator.Config{InMemory: true, Ports: emulator.Ports{Login: 443}})
	if got := e.Endpoints().Login; got != "https://localhost" {
		t.Fatalf("login is at %s, want https://localhost", got)
	}
	resp, err := e.Client().Get("https://localhost/contoso.example/v2.0/.well-known/openid-configuration")
	if err != nil {
		t.Fatal(err)
	}
	if a := readAnswer(t, resp); a.str("issuer") != "https://localhost/"+emulator.ContosoTenant+"/v2.0" {
		t.Errorf("got issuer %q", a.str("issuer"))
	}
}

// failing is a test that notes that it failed.
type failing struct {
	*testing.T
	why []any
}

func (f *failing) Fatal(args ...any) { f.why = args; panic(f) }

func TestStartFails(t *testing.T) {
	f := &failing{T: t}
	defer func() {
		if recover() != f || len(f.why) == 0 {
			t.Errorf("the test did not fail: %v", f.why)
		}
	}()
	emulator.Start(f, emulator.Config{Vaults: []string{"!"}})
}

// In memory the whole cloud works inside a bubble of synctest, where hours pass
// in no time: no port, no goroutine of a server, no real clock.
func TestInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := emulator.Start(t, emulator.Config{InMemory: true})
		app, _ := e.Application(emulator.ApplicationID)
		app.Secrets = []string{"a secret of the test"}
		if err := e.Register(app); err != nil {
			t.Fatal(err)
		}
		e.Dial(func(d *emulator.Dials) { d.AccessTokenLifetime = time.Hour })
		ask := func() (string, int) {
			form := url.Values{"grant_type": {"client_credentials"}, "client_id": {app.ID}, "client_secret": app.Secrets, "scope": {"https://graph.microsoft.com/.default"}}
			resp, err := e.Client().PostForm(e.Endpoints().Login+"/"+emulator.CPVTenant+"/oauth2/v2.0/token", form)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			var answer struct {
				AccessToken string `json:"access_token"`
			}
			if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || answer.AccessToken == "" {
				t.Fatalf("%d: %v, %+v", resp.StatusCode, err, answer)
			}
			return answer.AccessToken, resp.StatusCode
		}
		call := func(token string) int {
			r, _ := http.NewRequestWithContext(t.Context(), "GET", e.Endpoints().Graph+"/v1.0/organization", nil)
			r.Header.Set("Authorization", "Bearer "+token)
			resp, err := e.Client().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			return resp.StatusCode
		}
		token, _ := ask()
		before := call(token)
		time.Sleep(70 * time.Minute)
		if after := call(token); before == http.StatusUnauthorized || after != http.StatusUnauthorized {
			t.Errorf("Graph answered %d, and %d after 70 minutes", before, after)
		}
	})
}

// A service that is slow, or that is not there, is so in memory too.
func TestInMemoryFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := emulator.Start(t, emulator.Config{InMemory: true})
		e.Dial(func(d *emulator.Dials) { d.LatencyMillis = map[string]int{"login": 10_000} })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		r, _ := http.NewRequestWithContext(ctx, "GET", e.Endpoints().Login+"/common/v2.0/.well-known/openid-configuration", nil)
		if resp, err := e.Client().Do(r); err == nil {
			t.Errorf("a slow service answered %s", resp.Status)
		}
		if resp, err := e.Client().Get("https://localhost:1/"); err == nil || !strings.Contains(err.Error(), "nothing is there") {
			t.Errorf("nobody answered: %v, %v", resp, err)
		}
		if u, err := e.AddVault("another-vault"); err != nil {
			t.Error(err)
		} else if resp, err := e.Client().Get(u + "/secrets"); err != nil || resp.StatusCode == http.StatusOK {
			t.Errorf("the added vault: %v, %v", resp, err)
		}
	})
}
