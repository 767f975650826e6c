package entra

import (
	"reflect"
	"testing"

	"github.com/go-jose/go-jose/v4/json"
)

// plain are objects that [flat] reads, and not are those that it leaves to the
// general reader, which refuses some of them.
var (
	plain = []string{
		`{"token_type":"Bearer","scope":"a b","expires_in":3599,"ext_expires_in":3599,"access_token":"x.y.z","refresh_token":"0.r","id_token":"i"}`,
		" {\r\n\t\"expires_in\" : \"3599\" , \"expires_on\":0 ,\"x\":true,\"y\":false}\n",
		`{"iss":"https://i","exp":1,"iat":2,"nbf":3,"acct":0,"name":"","Exp":7,"EXPIRES_IN":"x"}`,
	}
	not = []string{
		``, `{`, `{}`, `[]`, `null`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{"a":1}x`, `{"a":1}{}`, `{a:1}`, `{"a" "b"}`, `{"a":"b"`, `{"a":"b}`,
		`{"scope":"a","scope":"b"}`, `{"x":1,"x":1}`, `{"sc\u006fpe":"a"}`, `{"scope":"\n"}`, `{"scope":"é"}`, "{\"scope\":\"\xff\"}", "{\"scope\":\"\x00\"}",
		`{"scope":1}`, `{"scope":null}`, `{"scope":true}`, `{"expires_in":null}`, `{"expires_in":1.5}`, `{"expires_in":-1}`, `{"expires_in":1e3}`,
		`{"expires_in":"1x"}`, `{"expires_in":""}`, `{"expires_in":01}`, `{"expires_in":"01"}`, `{"expires_in":true}`,
		`{"expires_in":99999999999999999999}`, `{"x":{}}`, `{"x":[1]}`, `{"x":nul}`, `{"x":0x1}`, `{"amr":["mfa"]}`, `{"x":-0}`,
	}
)

func TestFlat(t *testing.T) {
	for _, s := range plain {
		if !flat([]byte(s), nil) {
			t.Errorf("%s is not read as it is", s)
		}
		agree(t, s)
	}
	for _, s := range not {
		var c success
		if flat([]byte(s), []field{{name: "scope", text: &c.Scope}, {name: "expires_in", number: &c.ExpiresIn}}) {
			t.Errorf("%s is read as plain", s)
		}
		agree(t, s)
	}
}

// FuzzFlat: reading what is plain gives what reading in general gives.
func FuzzFlat(f *testing.F) {
	for _, s := range append(plain, not...) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) { agree(t, s) })
}

// agree finds out whether both ways of reading s give the same.
func agree(t *testing.T, s string) {
	t.Helper()
	var a, b success
	errA, errB := a.read([]byte(s)), json.Unmarshal([]byte(s), &b)
	if (errA == nil) != (errB == nil) || errA == nil && !reflect.DeepEqual(a, b) {
		t.Errorf("an answer %q: got %+v, error %v; want %+v, error %v", s, a, errA, b, errB)
	}
	var c, d idClaims
	errC, errD := c.read([]byte(s)), json.Unmarshal([]byte(s), &d)
	if (errC == nil) != (errD == nil) || errC == nil && !reflect.DeepEqual(c, d) {
		t.Errorf("claims %q: got %+v, error %v; want %+v, error %v", s, c, errC, d, errD)
	}
}
