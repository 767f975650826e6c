package web

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
)

// slowKeys is checkKeys with the tokens of encoding/json.
func slowKeys(body []byte) bool {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return false
	}
	if !slowObject(d) {
		return false
	}
	_, err := d.Token()
	return err == io.EOF
}

func slowObject(d *json.Decoder) bool {
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		name, ok := t.(string)
		if err != nil || !ok || seen[fold(name)] {
			return false
		}
		seen[fold(name)] = true
		if !slowValue(d) {
			return false
		}
	}
	_, err := d.Token()
	return err == nil
}

func slowValue(d *json.Decoder) bool {
	t, err := d.Token()
	switch {
	case err != nil:
		return false
	case t == json.Delim('{'):
		return slowObject(d)
	case t == json.Delim('['):
		for d.More() {
			if !slowValue(d) {
				return false
			}
		}
		_, err := d.Token()
		return err == nil
	}
	return true
}

// What encoding/json takes for a field is that field here too, whatever
// alphabet its case comes from: U+017F is an s, and U+212A a K.
func TestCheckKeysFoldsAsDecoderDoes(t *testing.T) {
	folded := ""
	for _, letter := range "sk" {
		for r := 'A'; r < 0x3000; r++ {
			var v struct {
				Field int `json:"risk"`
			}
			name := strings.Replace("risk", string(letter), string(r), 1)
			if json.Unmarshal([]byte(`{"`+name+`":1}`), &v) != nil || v.Field == 0 || r == letter {
				continue
			}
			folded += string(r)
			if checkKeys([]byte(`{"risk":1,"`+name+`":2}`)) == nil {
				t.Errorf("%q is the same field, and was not seen to be", name)
			}
		}
	}
	if folded != "S\u017fK\u212a" {
		t.Errorf("folded are %q", folded)
	}
}

func FuzzCheckKeys(f *testing.F) {
	var many []string
	for i := range 40 {
		many = append(many, fmt.Sprintf(`"k%d":%d`, i, i))
	}
	for _, s := range []string{
		`{}`, ` { "a" : [ 1 , { "b" : null } , "x\\"y" ] } `, `{"a":1,"A":2}`, `{"a":1,"\u0061":2}`, `{"a":{"b":1,"b":2}}`, `[{"a":1}]`, `{"a":1}{}`, `{"a":1,}`, ``,
		`{"a":[[],{},[{"c":1,"c":1}]]}`, `{"a":-1.5e3,"b":true}`, "{" + strings.Join(many, ",") + "}", "{" + strings.Join(many, ",") + `,"K39":1}`, "{" + strings.Join(many, ",") + `,"K3":1}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if got, want := checkKeys(body) == nil, json.Valid(body) && slowKeys(body); got != want {
			t.Errorf("%q: got %v, want %v", body, got, want)
		}
	})
}
