package openbao

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mandate-sam/mandate"
)

func TestFakeTransitAcrossRotation(t *testing.T) {
	f := newFake(t)
	k, plain, ctx := must(f.client(t).Transit("transit", "kek"))(t), bytes.Repeat([]byte{7}, 64), t.Context()
	first, one, err := k.Wrap(ctx, plain)
	if err != nil || first != "transit:transit/kek:v1" {
		t.Fatalf("got key %q, %v", first, err)
	}
	f.rotate("kek", true)
	second, two, err := k.Wrap(ctx, plain)
	if err != nil || second != "transit:transit/kek:v2" {
		t.Fatalf("after the rotation: key %q, %v", second, err)
	}
	for id, wrapped := range map[string][]byte{first: one, second: two} {
		if got, err := k.Unwrap(ctx, id, wrapped); err != nil || !bytes.Equal(got, plain) || !k.Has(id) {
			t.Errorf("unwrapped with %s: got %x, %v", id, got, err)
		}
	}
	for id, wrapped := range map[string][]byte{
		second: one, "transit:transit/other:v1": one, "transit:transit/kek:v": one, "": one, first: []byte("vault:v1:"),
		"transit:transit/kek:v1 ": one, "transit:transit/kek:v01": bytes.Replace(one, []byte("v1"), []byte("v01"), 1),
	} {
		if _, err := k.Unwrap(ctx, id, wrapped); err == nil || errors.Is(err, mandate.ErrInvalid) {
			t.Errorf("key %q for %.20s: got %v", id, wrapped, err)
		}
	}
	f.with(func() { f.keys["kek"].min = 2 })
	_, err = k.Unwrap(ctx, first, one)
	wantError(t, err, nil, "400", "lowers the key's min_decryption_version")
	one[20] ^= 1
	_, err = k.Unwrap(ctx, first, one)
	wantError(t, err, nil)
}

// What was encrypted with the same key for another purpose does not unwrap.
func TestFakeTransitAdditionalData(t *testing.T) {
	f := newFake(t)
	c, ctx := f.client(t), t.Context()
	k := must(c.Transit("transit", "kek"))(t)
	id, wrapped, err := k.Wrap(ctx, []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	other := must(c.Transit("transit", "kek"))(t)
	other.plain.Store(true)
	_, err = other.Unwrap(ctx, id, wrapped)
	wantError(t, err, nil, "unable to decrypt")

	f.rotate("rsa", false)
	r := must(c.Transit("transit", "rsa"))(t)
	for range 2 {
		id, wrapped, err = r.Wrap(ctx, []byte("x"))
		if err != nil {
			t.Fatal(err)
		}
	}
	fresh := must(c.Transit("transit", "rsa"))(t)
	if got, err := fresh.Unwrap(ctx, id, wrapped); err != nil || string(got) != "x" {
		t.Errorf("with an RSA key: got %q, %v", got, err)
	}
	if n := len(f.seen); n != 2+3+2 {
		t.Errorf("%d requests %v, want that a refusal of additional data is remembered", n, f.seen)
	}
}

func TestFakeTransitErrors(t *testing.T) {
	f := newFake(t)
	ctx := t.Context()
	k := must(f.client(t).Transit("transit", "absent"))(t)
	_, _, err := k.Wrap(ctx, []byte("CANARY"))
	wantError(t, err, nil, "wrap a data key with transit/absent at https://127.0.0.1", "400 for transit/encrypt/absent", "makes the key, or the operator corrects its name")
	f.forbid = []string{"POST transit/encrypt"}
	k = must(f.client(t).Transit("transit", "kek"))(t)
	_, _, err = k.Wrap(ctx, []byte("CANARY"))
	wantError(t, err, nil, "403", "must permit it to the token's policy")
	c := f.client(t, func(c *Config) { c.TokenFile = write(t, "CANARY-expired", 0o600) })
	_, _, err = must(c.Transit("transit", "kek"))(t).Wrap(ctx, []byte("CANARY"))
	wantError(t, err, nil, "403", "expired or was revoked")
}

// What may work a moment later is tried again, and what will not is told.
func TestFakeUnavailable(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		say  []answer
		says string // "" if it works in the end
		sent error
		n    int
	}{
		{"once busy", []answer{{429, "1", nil}}, "", nil, 2},
		{"behind", []answer{{412, "", []string{"required index state not present"}}}, "", nil, 2},
		{"standby", []answer{{473, "", nil}, {473, "", nil}}, "", nil, 3},
		{"sealed", slices.Repeat([]answer{{503, "", []string{"Vault is sealed"}}}, 4), "must unseal it", mandate.ErrUnavailable, 4},
		{"broken", slices.Repeat([]answer{{500, "", []string{"internal error CANARY-token"}}}, 4), "internal error [secret]", mandate.ErrUnavailable, 4},
		{"busy for long", []answer{{429, "3600", nil}}, "429", mandate.ErrUnavailable, 1},
		{"elsewhere", []answer{{307, "https://evil.test/", nil}}, "which is not followed with a token", nil, 1},
		{"not permitted", []answer{{403, "", nil}}, "403", nil, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			f.say = tt.say
			_, _, err := must(f.client(t).Transit("transit", "kek"))(t).Wrap(t.Context(), []byte("CANARY"))
			if tt.says == "" && err != nil {
				t.Error(err)
			}
			if tt.says != "" {
				wantError(t, err, tt.sent, tt.says)
			}
			if len(f.seen) != tt.n {
				t.Errorf("%d requests, want %d", len(f.seen), tt.n)
			}
		})
	}
	f := newFake(t)
	k := must(f.client(t).Transit("transit", "kek"))(t)
	f.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, _, err := k.Wrap(ctx, []byte("CANARY"))
	wantError(t, err, mandate.ErrUnavailable)
}

func TestFakeKV(t *testing.T) {
	f := newFake(t)
	k, ctx := must(f.client(t).KV("kv", "grants"))(t), t.Context()
	blobs := []string{"CANARY \x00\xff", strings.Repeat("x", 24<<10)}
	for i, b := range blobs {
		if ref, err := k.Put(ctx, "g-1", []byte(b)); err != nil || ref != []string{"1", "2"}[i] {
			t.Fatalf("got version %q, %v", ref, err)
		}
	}
	for i, b := range blobs {
		if got, err := k.Get(ctx, "g-1", []string{"1", "2"}[i]); err != nil || string(got) != b {
			t.Errorf("got %d bytes, %v", len(got), err)
		}
	}
	if want := []string{"GET /v1/kv/metadata/grants/g-1", "POST /v1/kv/data/grants/g-1", "POST /v1/kv/data/grants/g-1"}; !slices.Equal(f.seen[:3], want) {
		t.Errorf("asked %v, want %v", f.seen[:3], want)
	}
	if remains, until, err := k.Destroy(ctx, "g-1"); err != nil || remains != "" || !until.IsZero() || f.secrets["g-1"] != nil {
		t.Errorf("destroyed: %q until %v, %v", remains, until, err)
	}
	_, err := k.Get(ctx, "g-1", "2")
	wantError(t, err, mandate.ErrNotFound, "max_versions")
	if remains, _, err := k.Destroy(ctx, "g-1"); err != nil || remains != "" {
		t.Errorf("destroyed again: %q, %v", remains, err)
	}
	if ref, err := k.Put(ctx, "g-1", []byte("x")); err != nil || ref != "1" {
		t.Errorf("put again: version %q, %v", ref, err)
	}
}

// Whoever else writes makes versions of their own.
func TestFakeKVCheckAndSet(t *testing.T) {
	f := newFake(t)
	ctx := t.Context()
	var wg sync.WaitGroup
	var mu sync.Mutex
	refs := make(map[string]string)
	for i := range 3 {
		k := must(f.client(t).KV("kv", "grants"))(t)
		wg.Go(func() {
			for j := range 3 {
				blob := string(rune('a'+i)) + string(rune('0'+j))
				ref, err := k.Put(ctx, "g", []byte(blob))
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				refs[ref] = blob
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	k := must(f.client(t).KV("kv", "grants"))(t)
	for ref, blob := range refs {
		if got, err := k.Get(ctx, "g", ref); err != nil || string(got) != blob {
			t.Errorf("version %s: got %q, %v, want %q", ref, got, err, blob)
		}
	}
	if len(refs) != 9 {
		t.Errorf("%d versions, want 9", len(refs))
	}
	f.say = nil
	for range conflicts {
		f.say = append(f.say, answer{}, answer{400, "", []string{"check-and-set parameter did not match the current version"}})
	}
	k.forget("g")
	_, err := k.Put(ctx, "g", []byte("CANARY"))
	wantError(t, err, mandate.ErrUnavailable, "faster 8 times")
}

func TestFakeKVErrors(t *testing.T) {
	f := newFake(t)
	c := f.client(t)
	k, ctx := must(c.KV("kv", "grants"))(t), t.Context()
	if _, err := k.Put(ctx, "g", []byte("x")); err != nil {
		t.Fatal(err)
	}
	f.with(func() { f.secrets["g"].versions[1].deleted = true })
	_, err := k.Get(ctx, "g", "1")
	wantError(t, err, mandate.ErrNotFound, "administrator can undelete it")
	f.with(func() { f.secrets["g"].versions[1].destroyed = true })
	_, err = k.Get(ctx, "g", "1")
	wantError(t, err, mandate.ErrNotFound, "must consent again")
	f.with(func() { f.secrets["g"].versions[1] = &fakeVersion{data: map[string]any{"other": "x"}} })
	_, err = k.Get(ctx, "g", "1")
	wantError(t, err, nil, "not put there by this program")
	for _, name := range []string{"", "a/b", "..", ".", "a b", "a?x", "a%2fb", strings.Repeat("x", 301)} {
		_, err := k.Put(ctx, name, []byte("CANARY"))
		wantError(t, err, nil)
		_, err = k.Get(ctx, name, "1")
		wantError(t, err, nil)
		_, _, err = k.Destroy(ctx, name)
		wantError(t, err, nil)
	}
	for _, ref := range []string{"", "0", "-1", "01", "1&x", "x"} {
		_, err := k.Get(ctx, "g", ref)
		wantError(t, err, nil)
	}
	f.with(func() { f.lifetime = "2026-12-01T00:00:00Z" })
	_, err = k.Put(ctx, "g", []byte("CANARY"))
	wantError(t, err, nil, "delete_version_after")
	f.with(func() { f.forbid = []string{"POST kv/data"} })
	_, err = k.Put(ctx, "g", []byte("CANARY"))
	wantError(t, err, nil, "403")
}

// Without the right to remove a name its content is destroyed.
func TestFakeKVDestroyLeavesNames(t *testing.T) {
	f := newFake(t)
	k, ctx := must(f.client(t).KV("kv", "grants"))(t), t.Context()
	for range 2 {
		if _, err := k.Put(ctx, "g", []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	f.with(func() { f.forbid = []string{"DELETE kv/metadata"} })
	remains, until, err := k.Destroy(ctx, "g")
	if err != nil || !strings.Contains(remains, "the times of 2 version(s)") || !until.IsZero() {
		t.Errorf("got %q until %v, %v", remains, until, err)
	}
	for n, v := range f.secrets["g"].versions {
		if !v.destroyed {
			t.Errorf("version %d is still there", n)
		}
	}
	if remains, _, err := k.Destroy(ctx, "other"); err != nil || remains != "" {
		t.Errorf("what is not there: %q, %v", remains, err)
	}
	f.with(func() { f.forbid = append(f.forbid, "PUT kv/destroy") })
	_, _, err = k.Destroy(ctx, "g")
	wantError(t, err, nil, "nor can its versions be destroyed")
}

func TestFakeNamespaceAndTokenFile(t *testing.T) {
	f := newFake(t)
	path := write(t, "CANARY-token", 0o640)
	c := f.client(t, func(c *Config) { c.Namespace, c.TokenFile = "team/a", path })
	k, ctx := must(c.Transit("transit", "kek"))(t), t.Context()
	id, _, err := k.Wrap(ctx, []byte("x"))
	if err != nil || id != "transit:team/a/transit/kek:v1" {
		t.Fatalf("got key %q, %v", id, err)
	}
	if got := f.requests[0].Header.Get("X-Vault-Namespace"); got != "team/a" {
		t.Errorf("namespace %q", got)
	}
	f.with(func() { f.tokens = map[string]int64{"CANARY-next": 3600} })
	if err := os.WriteFile(path, []byte("CANARY-next\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := k.Wrap(ctx, []byte("x")); err != nil {
		t.Errorf("the file has another token: %v", err)
	}
	for name, tt := range map[string]struct{ path, says string }{
		"readable": {write(t, "CANARY-token", 0o644), "chmod 640"}, "writable": {write(t, "CANARY-token", 0o660), "chmod 640"},
		"empty": {write(t, "\n", 0o600), "not one token"}, "two": {write(t, "CANARY\nCANARY", 0o600), "not one token"},
		"long": {write(t, strings.Repeat("CANARY", maxToken), 0o600), "longer"}, "absent": {"/nowhere", "no such file"},
	} {
		k := must(f.client(t, func(c *Config) { c.TokenFile = tt.path }).Transit("transit", "kek"))(t)
		_, _, err := k.Wrap(ctx, []byte("x"))
		if err == nil || !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "CANARY") {
			t.Errorf("%s: got %v, want %q", name, err, tt.says)
		}
	}
}

func TestFakeLogin(t *testing.T) {
	f := newFake(t)
	ctx := t.Context()
	role := func(l Login) func(*Config) { return func(c *Config) { c.TokenFile, c.Login = "", &l } }
	k := must(f.client(t, role(Login{Mount: "approle", Role: "r", SecretFile: write(t, "CANARY-secret\n", 0o600)})).Transit("transit", "kek"))(t)
	for range 2 {
		if _, _, err := k.Wrap(ctx, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	f.with(func() { delete(f.tokens, "CANARY-login-1") })
	if _, _, err := k.Wrap(ctx, []byte("x")); err != nil {
		t.Errorf("after the token was revoked: %v", err)
	}
	if len(f.logins) != 2 || f.logins[0]["role_id"] != "r" || f.logins[0]["path"] != "auth/approle/login" {
		t.Errorf("logins %v, want 2", f.logins)
	}
	k = must(f.client(t, role(Login{Mount: "k8s", Role: "r", TokenFile: write(t, "CANARY-jwt", 0o644)})).Transit("transit", "kek"))(t)
	if _, _, err := k.Wrap(ctx, []byte("x")); err != nil || f.logins[2]["role"] != "r" {
		t.Errorf("Kubernetes: %v, %v", f.logins, err)
	}
	k = must(f.client(t, role(Login{Mount: "approle", Role: "r", SecretFile: write(t, "CANARY-wrong", 0o600)})).Transit("transit", "kek"))(t)
	_, _, err := k.Wrap(ctx, []byte("x"))
	wantError(t, err, nil, "log in as r", "[secret]")
	k = must(f.client(t, role(Login{Mount: "approle", Role: "r", SecretFile: write(t, "CANARY-secret", 0o644)})).Transit("transit", "kek"))(t)
	_, _, err = k.Wrap(ctx, []byte("x"))
	wantError(t, err, nil, "chmod 640")
	// A token that is never good enough is not asked for without end.
	f.with(func() { f.forbid = []string{"POST transit/"} })
	before := len(f.logins)
	k = must(f.client(t, role(Login{Mount: "approle", Role: "r", SecretFile: write(t, "CANARY-secret", 0o600)})).Transit("transit", "kek"))(t)
	_, _, err = k.Wrap(ctx, []byte("x"))
	wantError(t, err, nil, "403")
	if n := len(f.logins) - before; n != 2 {
		t.Errorf("%d logins, want 2", n)
	}
}

// A renewing is a server that only renews, in a bubble with its own time.
type renewing struct {
	f *fake
}

func (r renewing) RoundTrip(req *http.Request) (*http.Response, error) {
	return recorded(r.f, req), nil
}

func TestFakeRenewal(t *testing.T) {
	path := write(t, "CANARY-token", 0o600)
	synctest.Test(t, func(t *testing.T) {
		f := &fake{tokens: map[string]int64{"CANARY-token": 1, "CANARY-next": 1}, lease: 90}
		c := must(New(Config{Address: "https://bao.test", TokenFile: path, HTTP: &http.Client{Transport: renewing{f}}}))(t)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		time.Sleep(59 * time.Second)
		synctest.Wait()
		if len(f.renewals()) != 1 {
			t.Errorf("renewed %d times, want once at the start", len(f.renewals()))
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if len(f.renewals()) != 2 {
			t.Errorf("renewed %d times, want again after two thirds", len(f.renewals()))
		}
		if err := os.WriteFile(path, []byte("CANARY-next"), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(look + time.Second)
		synctest.Wait()
		if got := f.renewals(); len(got) != 3 || got[2] != "CANARY-next" {
			t.Errorf("renewed %v, want the new token soon", got)
		}
		f.with(func() { f.say = []answer{{503, "", nil}} })
		time.Sleep(60*time.Second + again)
		synctest.Wait()
		if n := len(f.renewals()); n != 4 {
			t.Errorf("renewed %d times, want once more after a failure", n)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A token for ever needs no renewal, and a failing file ends nothing.
func TestFakeRenewalOfLasting(t *testing.T) {
	path := write(t, "CANARY-token", 0o600)
	synctest.Test(t, func(t *testing.T) {
		f := &fake{tokens: map[string]int64{"CANARY-token": 1}}
		c := must(New(Config{Address: "https://bao.test", TokenFile: path, HTTP: &http.Client{Transport: renewing{f}}}))(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		go func() {
			time.Sleep(time.Minute)
			os.Remove(path)
		}()
		if err := c.Run(ctx); err != nil || len(f.renewed) != 1 {
			t.Errorf("renewed %d times, %v", len(f.renewed), err)
		}
	})
}

// A login's token near its end is replaced by a new login.
func TestFakeRenewalOfLogin(t *testing.T) {
	path := write(t, "CANARY-secret", 0o600)
	synctest.Test(t, func(t *testing.T) {
		f := &fake{tokens: map[string]int64{}, lease: 9}
		c := must(New(Config{Address: "https://bao.test", Login: &Login{Mount: "approle", Role: "r", SecretFile: path}, HTTP: &http.Client{Transport: renewing{f}}}))(t)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if err := c.Run(ctx); err != nil || len(f.logins) < 3 || len(f.logins) > 7 {
			t.Errorf("%d logins in 30 s with tokens for 9 s; %v", len(f.logins), err)
		}
	})
}

func TestNewRefuses(t *testing.T) {
	login := &Login{Mount: "approle", Role: "r", SecretFile: "f"}
	for _, c := range []Config{
		{}, {Address: "https://h", TokenFile: "f", Login: login}, {Address: "https://h"}, {Address: "http://bao.example", TokenFile: "f"},
		{Address: "https://h/v1", TokenFile: "f"}, {Address: "https://u:p@h", TokenFile: "f"}, {Address: "ftp://localhost", TokenFile: "f"},
		{Address: "https://h", TokenFile: "f", Namespace: "../x"}, {Address: "https://h", Login: &Login{Mount: "approle", Role: "r"}},
		{Address: "https://h", Login: &Login{Mount: "approle", Role: "r", SecretFile: "f", TokenFile: "g"}},
		{Address: "https://h", Login: &Login{Role: "r", SecretFile: "f"}}, {Address: "https://h", Login: &Login{Mount: "a", SecretFile: "f"}},
	} {
		if _, err := New(c); !errors.Is(err, mandate.ErrInvalid) {
			t.Errorf("%+v: got %v", c, err)
		}
	}
	for _, a := range []string{"http://127.0.0.1:8200", "http://localhost:8200/", "http://[::1]:8200", "https://bao.example:8200"} {
		c, err := New(Config{Address: a, TokenFile: "f", HTTP: http.DefaultClient})
		if err != nil {
			t.Errorf("%s: %v", a, err)
			continue
		}
		for _, mount := range []string{"", "/transit", "a//b", "..", "a/../b", "a b", "é"} {
			if _, err := c.Transit(mount, "kek"); !errors.Is(err, mandate.ErrInvalid) {
				t.Errorf("mount %q: %v", mount, err)
			}
			if _, err := c.KV(mount, "p"); !errors.Is(err, mandate.ErrInvalid) {
				t.Errorf("mount %q: %v", mount, err)
			}
		}
		if _, err := c.Transit("transit", "a/b"); !errors.Is(err, mandate.ErrInvalid) {
			t.Errorf("key a/b: %v", err)
		}
		if _, err := c.KV("kv", "/p"); !errors.Is(err, mandate.ErrInvalid) {
			t.Errorf("path /p: %v", err)
		}
	}
}
