package keyvault

import (
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mandate-sam/mandate/emulator/fault"
)

// The documented number of requests passes, the next one waits for the window
// to end, and what was refused meanwhile is not counted.
func TestBudgets(t *testing.T) {
	for _, row := range []struct {
		name, method, path, body string
		prepare                  string // body that creates the key "k"
		limit                    int
	}{
		{"secrets", "GET", "/secrets", "", "", 4000},
		{"new secrets", "PUT", "/secrets/s", `{"value":"v"}`, "", 300},
		{"new keys", "POST", "/keys/n/create", `{"kty":"oct"}`, "", 20},
		{"new keys in an HSM", "POST", "/keys/n/create", `{"kty":"EC-HSM"}`, "", 10},
		{"rotation in an HSM", "POST", "/keys/k/rotate", "", `{"kty":"oct-HSM"}`, 10},
		{"EC", "GET", "/keys/k", "", `{"kty":"EC"}`, 4000},
		{"EC in an HSM", "GET", "/keys/k", "", `{"kty":"EC-HSM"}`, 2000},
		{"RSA 2048", "GET", "/keys/k", "", `{"kty":"RSA"}`, 4000},
		{"RSA 3072", "GET", "/keys/k", "", `{"kty":"RSA","key_size":3072}`, 1000},
		{"RSA 3072 in an HSM", "GET", "/keys/k", "", `{"kty":"RSA-HSM","key_size":3072}`, 500},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := newTester(t)
				if row.prepare != "" {
					x.want(200, "POST", "/keys/k/create", row.prepare)
					time.Sleep(window)
				}
				for i := range row.limit {
					if a := x.do(row.method, row.path+query, row.body); a.status != 200 {
						t.Fatalf("request %d: got %d %v", i+1, a.status, a.body)
					}
				}
				time.Sleep(2500 * time.Millisecond)
				for range 3 {
					a := x.want(429, row.method, row.path, row.body)
					if a.code() != "Throttled" || a.header.Get("Retry-After") != "8" {
						t.Errorf("got %s, Retry-After %q, want 8", a.code(), a.header.Get("Retry-After"))
					}
				}
				time.Sleep(7500 * time.Millisecond)
				x.want(200, row.method, row.path, row.body)
			})
		})
	}
}

// Weights add up: what one kind of key has spent is missing to another.
func TestBudgetIsASum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTester(t)
		x.want(200, "POST", "/keys/big/create", `{"kty":"RSA","key_size":3072}`)
		x.want(200, "POST", "/keys/small/create", `{"kty":"EC"}`)
		x.cfg.Dials.Set(func(d *fault.Dials) { d.KeyVault.Budgets = map[string]int{fault.BudgetKeys: 6} })
		x.want(200, "GET", "/keys/big", "")
		x.want(429, "GET", "/keys/big", "")
		x.want(200, "GET", "/keys/small", "")
		x.want(200, "GET", "/keys/small", "")
		x.want(429, "GET", "/keys/small", "")
		x.want(200, "GET", "/secrets", "")
		x.cfg.Dials.Set(func(d *fault.Dials) { d.KeyVault.Outage = []string{"Contoso-Vault"} })
		x.want(503, "GET", "/secrets", "")
		x.cfg.Dials.Set(func(d *fault.Dials) {
			*d = fault.Dials{Throttles: []fault.Throttle{{Service: "keyvault", RetryAfter: 3}, {Service: "keyvault", Status: 503}}}
		})
		if a := x.want(429, "GET", "/secrets", ""); a.header.Get("Retry-After") != "3" || a.code() != "Throttled" {
			t.Errorf("got %s, Retry-After %q", a.code(), a.header.Get("Retry-After"))
		}
		x.want(503, "GET", "/secrets", "")
		x.want(200, "GET", "/secrets", "")
	})
}

// A deletion and a recovery take their time, if they are told to.
func TestSettling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTester(t)
		x.cfg.Dials.Set(func(d *fault.Dials) { d.KeyVault.SettleSeconds = 5 })
		step := func(status int, method, path, body, code string) {
			t.Helper()
			if a := x.want(status, method, path, body); status >= 400 && a.code() != code {
				t.Errorf("%s %s: got %s, want %s", method, path, a.code(), code)
			}
		}
		const set = `{"value":"v"}`
		step(200, "PUT", "/secrets/s", set, "")
		step(200, "DELETE", "/secrets/s", "", "")
		step(404, "GET", "/secrets/s", "", "SecretNotFound")
		step(404, "GET", "/deletedsecrets/s", "", "SecretNotFound")
		step(409, "PUT", "/secrets/s", set, "Conflict/ObjectIsBeingDeleted")
		step(409, "DELETE", "/secrets/s", "", "Conflict/ObjectIsBeingDeleted")
		step(409, "DELETE", "/deletedsecrets/s", "", "Conflict/ObjectIsBeingDeleted")
		step(409, "POST", "/deletedsecrets/s/recover", "", "Conflict/ObjectIsBeingDeleted")
		time.Sleep(5 * time.Second)
		step(200, "GET", "/deletedsecrets/s", "", "")
		step(200, "POST", "/deletedsecrets/s/recover", "", "")
		step(404, "GET", "/secrets/s", "", "SecretNotFound")
		step(404, "GET", "/deletedsecrets/s", "", "SecretNotFound")
		step(409, "PUT", "/secrets/s", set, "Conflict/ObjectIsBeingRecovered")
		time.Sleep(5 * time.Second)
		step(200, "GET", "/secrets/s", "", "")
	})
}

// After the retention a deleted object is gone, and its name is free.
func TestRetention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTester(t)
		x.want(200, "PUT", "/secrets/s", `{"value":"v"}`)
		x.want(200, "DELETE", "/secrets/s", "")
		time.Sleep(90*24*time.Hour - time.Second)
		x.token = x.sign(nil)
		x.want(409, "PUT", "/secrets/s", `{"value":"v"}`)
		time.Sleep(time.Second)
		if a := x.want(200, "GET", "/deletedsecrets", ""); len(a.body["value"].([]any)) != 0 {
			t.Errorf("got %v", a.body)
		}
		x.want(200, "PUT", "/secrets/s", `{"value":"w"}`)
	})
}

// Pages hold what they are asked to hold, and each object once.
func TestPages(t *testing.T) {
	x := newTester(t)
	for i := range 7 {
		x.want(200, "PUT", "/secrets/s"+strconv.Itoa(i), `{"value":"v"}`)
	}
	var names []string
	next := "/secrets" + query + "&maxresults=3"
	for n := 0; next != ""; n++ {
		if n == 3 {
			t.Fatal("the pages do not end")
		}
		a := x.do("GET", next, "")
		if a.status != 200 {
			t.Fatalf("%s: got %d %v", next, a.status, a.body)
		}
		for _, item := range a.body["value"].([]any) {
			id := item.(map[string]any)["id"].(string)
			names = append(names, strings.TrimPrefix(id, "https://"+testHost+"/secrets/"))
		}
		link, _ := a.body["nextLink"].(string)
		if next = strings.TrimPrefix(link, "https://"+testHost); link != "" && next == link {
			t.Fatalf("%s is not an absolute URL of this vault", link)
		}
	}
	if got := strings.Join(names, " "); got != "s0 s1 s2 s3 s4 s5 s6" {
		t.Errorf("got %q", got)
	}
}

// A key follows its rotation policy when somebody asks for it.
func TestKeyRotatesByItself(t *testing.T) {
	for name, trigger := range map[string]string{"after creation": `"timeAfterCreate":"P30D"`, "before the end": `"timeBeforeExpiry":"P60D"`} {
		t.Run(name, func(t *testing.T) {
			x := newTester(t)
			x.token = x.sign(map[string]any{"exp": time.Now().AddDate(1, 0, 0).Unix()})
			x.want(200, "POST", "/keys/k/create", `{"kty":"EC"}`)
			x.want(200, "PUT", "/keys/k/rotationpolicy", `{"lifetimeActions":[{"trigger":{`+trigger+`},"action":{"type":"Rotate"}}],"attributes":{"expiryTime":"P90D"}}`)
			x.want(200, "POST", "/keys/k/rotate", "") // only what is made under the policy has an end
			kid := func() any {
				return x.want(200, "GET", "/keys/k", "").body["key"].(map[string]any)["kid"]
			}
			first := kid()
			ahead := func(days int) {
				x.cfg.Dials.Set(func(d *fault.Dials) { d.ClockOffset = time.Duration(days) * 24 * time.Hour })
			}
			if ahead(29); kid() != first {
				t.Error("it rotates too early")
			}
			ahead(31)
			second := kid()
			if second == first || kid() != second {
				t.Error("it does not rotate, or more than once")
			}
			if ahead(62); kid() == second {
				t.Error("it does not rotate again")
			}
			if list := x.want(200, "GET", "/keys/k/versions", "").body["value"].([]any); len(list) != 4 {
				t.Errorf("got %d versions", len(list))
			}
		})
	}
}
