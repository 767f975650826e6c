package keyvault

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"math/big"
	"testing"
)

// A backup brings back what was there, as what it was, and in no other place.
func TestBackup(t *testing.T) {
	x := newTester(t)
	x.want(200, "PUT", "/secrets/s", `{"value":"one","contentType":"text/plain","tags":{"a":"b"}}`)
	x.want(200, "PUT", "/secrets/s", `{"value":"two"}`)
	for name, body := range map[string]string{"rsa": `{"kty":"RSA"}`, "ec": `{"kty":"EC-HSM","crv":"P-521"}`, "oct": `{"kty":"oct","key_size":128}`} {
		x.want(200, "POST", "/keys/"+name+"/create", body)
	}
	twin := newTester(t)
	twin.cfg.Seal = x.cfg.Seal
	stranger := newTester(t)
	for _, path := range []string{"/secrets/s", "/keys/rsa", "/keys/ec", "/keys/oct"} {
		collection, wrong := "/secrets", "/keys"
		if path != "/secrets/s" {
			collection, wrong = wrong, collection
		}
		blob, err := json.Marshal(x.want(200, "POST", path+"/backup", "").body)
		if err != nil {
			t.Fatal(err)
		}
		twin.want(400, "POST", wrong+"/restore", string(blob))
		stranger.want(400, "POST", collection+"/restore", string(blob))
		twin.want(200, "POST", collection+"/restore", string(blob))
		if a := twin.want(409, "POST", collection+"/restore", string(blob)); a.code() != "Conflict" {
			t.Errorf("%s: got %s", path, a.code())
		}
		was, err := json.Marshal(x.want(200, "GET", path, "").body)
		if err != nil {
			t.Fatal(err)
		}
		is, err := json.Marshal(twin.want(200, "GET", path, "").body)
		if err != nil {
			t.Fatal(err)
		}
		if string(is) != string(was) {
			t.Errorf("got %s, want %s", is, was)
		}
	}
	if a := twin.want(200, "GET", "/secrets/s/versions", ""); len(a.body["value"].([]any)) != 2 {
		t.Errorf("got %v, want both versions", a.body)
	}
}

// A new key may be used for everything, unless it is said for what. To say
// nothing, some clients write an empty list; whoever changes a key means it.
func TestKeyOperations(t *testing.T) {
	x := newTester(t)
	ops := func(a answer) string { return fmt.Sprint(a.body["key"].(map[string]any)["key_ops"]) }
	for body, want := range map[string]string{
		`{"kty":"EC"}`: "[sign verify]", `{"kty":"EC","key_ops":[]}`: "[sign verify]", `{"kty":"EC","key_ops":["SIGN"]}`: "[sign]",
	} {
		if got := ops(x.want(200, "POST", "/keys/k/create", body)); got != want {
			t.Errorf("%s: got %s, want %s", body, got, want)
		}
	}
	if got := ops(x.want(200, "PATCH", "/keys/k/", `{"key_ops":[]}`)); got != "[]" {
		t.Errorf("changed: got %s, want none", got)
	}
}

// The parts of a key that is brought along must belong together.
func TestImport(t *testing.T) {
	x := newTester(t)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		d      *big.Int
		q      *big.Int
		status int
	}{
		"good":    {key.D, key.Primes[1], 200},
		"wrong d": {new(big.Int).Sub(key.D, big.NewInt(2)), key.Primes[1], 400},
		"wrong q": {key.D, key.Primes[0], 400},
		"no q":    {key.D, new(big.Int), 400},
	} {
		body, err := json.Marshal(map[string]any{"key": map[string]any{
			"kty": "RSA", "n": octets(key.N.Bytes()), "e": "AQAB", "d": octets(row.d.Bytes()), "p": octets(key.Primes[0].Bytes()), "q": octets(row.q.Bytes()),
		}})
		if err != nil {
			t.Fatal(err)
		}
		if a := x.do("PUT", "/keys/own"+query, string(body)); a.status != row.status {
			t.Errorf("%s: got %d %v, want %d", name, a.status, a.body, row.status)
		}
	}
}
