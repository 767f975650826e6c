package api

import (
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/mandate-sam/mandate/internal/web"
)

// genericRequest decodes a body as all other requests are decoded.
func genericRequest(body string) (TokenRequest, error) {
	r := httptest.NewRequest("POST", "/", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	return web.Read[TokenRequest](httptest.NewRecorder(), r)
}

func TestQuickRequest(t *testing.T) {
	for body, want := range map[string]bool{
		`{"partner":"a","audience":"graph","purpose":"invoice"}`:            true,
		`{"partner":"a","tenant":"b","ticket":"c","audience":"<&>"}` + "\n": true,
		`{}`:                            false,
		`{"partner":"a","partner":"b"}`: false,
		`{"partner":"","partner":"b"}`:  false,
		`{"partner":"a","Partner":"b"}`: false,
		`{"partner":"a","other":"b"}`:   false,
		`{"partner":"a"`:                false,
		`{"partner":"a"}}`:              false,
		`{"partner":"a",}`:              false,
		`{"partner":"\u0061"}`:          false,
		`{"partner":"a","scopes":[]}`:   false,
		``:                              false,
	} {
		if _, ok := quickRequest([]byte(body)); ok != want {
			t.Errorf("%s: got %v, want %v", body, ok, want)
		}
	}
}

// FuzzQuickRequest looks for a body that is read otherwise than encoding/json
// and the checks around it would.
func FuzzQuickRequest(f *testing.F) {
	f.Add(`{"partner":"a","audience":"graph","purpose":"invoice"}`)
	f.Add(`{"partner":"a","partner":"b"}`)
	f.Add(`{"ticket":"<\u00fc>","tenant":""}` + "\n")
	f.Fuzz(func(t *testing.T, body string) {
		got, ok := quickRequest([]byte(body))
		if !ok {
			if !reflect.DeepEqual(got, TokenRequest{}) {
				t.Errorf("%q: got %+v of what is left to others", body, got)
			}
			return
		}
		if want, err := genericRequest(body); len(body) < 1000 && (err != nil || !reflect.DeepEqual(got, want)) {
			t.Errorf("%q: got %+v, want %+v and %v", body, got, want, err)
		}
	})
}
