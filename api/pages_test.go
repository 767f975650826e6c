package api

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/mandate-sam/mandate"
)

func collect(t *testing.T, w *world, in CallRequest) (items []string, err error) {
	t.Helper()
	for item, e := range w.operator.CallAll(t.Context(), in) {
		if err != nil {
			t.Error("there is a pair after the error")
		}
		if err = e; e == nil {
			items = append(items, string(item))
		}
	}
	return items, err
}

func TestPages(t *testing.T) {
	for _, tt := range []struct {
		name, audience, path string
		page                 func(base string, r *http.Request) string
		want                 string
	}{
		{"partner center", "partnercenter", "/v1/customers?size=2", func(_ string, r *http.Request) string {
			switch tok := r.Header.Get("MS-ContinuationToken"); {
			case r.URL.RawQuery == "size=2" && tok == "":
				return `{"items":[1,2],"links":{"next":{"uri":"/customers?size=2&seekOperation=Next","method":"GET","headers":[{"key":"MS-ContinuationToken","value":"t1"},{"key":"Authorization","value":"x"},{"key":"Host","value":"evil"}]}}}`
			case r.URL.Path == "/v1/customers" && r.URL.Query().Get("seekOperation") == "Next" && tok == "t1":
				return `{"items":[{"a":"<3>"}],"links":{"next":{"uri":"/customers?size=2&seekOperation=Next","method":"GET","headers":[{"key":"ms-continuationtoken","value":"t2"}]}}}`
			case tok == "t2" && r.Header.Get("Authorization") == "Bearer "+canary:
				return `{"items":[4],"links":{"self":{"uri":"/x"}}}`
			}
			return `{"unexpected":"` + r.RequestURI + `"}`
		}, `1 2 {"a":"\u003c3\u003e"} 4`},
		{"graph", "graph", "/v1.0/users", func(base string, r *http.Request) string {
			if r.URL.Query().Get("$skiptoken") == "" {
				return "\xef\xbb\xbf" + `{"value":["a"],"@odata.nextLink":"` + base + `/v1.0/users?$skiptoken=x"}`
			}
			return `{"value":["b"]}`
		}, `"a" "b"`},
		{"arm", "arm", "/subscriptions?api-version=1", func(base string, r *http.Request) string {
			if r.URL.Query().Get("t") == "" {
				return `{"value":[],"nextLink":"` + base + `/subscriptions?api-version=1&t=2"}`
			}
			return `{"value":[7],"nextLink":""}`
		}, "7"},
		{"a single empty page", "graph", "/v1.0/users", func(string, *http.Request) string { return `{"value":[]}` }, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.serve = func(rw http.ResponseWriter, r *http.Request) { io.WriteString(rw, tt.page(w.upstream.URL, r)) }
			in := goodCall
			in.Audience, in.Path = tt.audience, tt.path
			items, err := collect(t, w, in)
			if err != nil || strings.Join(items, " ") != tt.want {
				t.Errorf("got %s, %v, want %s", items, err, tt.want)
			}
		})
	}
}

// Whoever can write a link into a list cannot say where the token goes.
func TestPagesEvilLinks(t *testing.T) {
	for _, tt := range []struct{ first string }{
		{`{"value":[1],"@odata.nextLink":"https://evil.test/v1/users"}`},
		{`{"value":[1],"@odata.nextLink":"http://HOST/v1/users"}`},
		{`{"value":[1],"@odata.nextLink":"https://HOST@evil.test/v1/users"}`},
		{`{"value":[1],"@odata.nextLink":"https://HOST:1/v1/users"}`},
		{`{"value":[1],"@odata.nextLink":"https://HOST.evil.test/v1/users"}`},
		{`{"value":[1],"@odata.nextLink":"https://HOST/v2/users"}`},
		{`{"value":[1],"@odata.nextLink":"https://HOST/v1/../v2/users"}`},
		{`{"value":[1],"@odata.nextLink":"https://HOST/v1/%2e%2e/v2/users"}`},
		{`{"value":[1],"@odata.nextLink":"https://HOST/"}`},
		{`{"value":[1],"@odata.nextLink":"https://HOST/v1evil/users"}`},
		{`{"value":[1],"@odata.nextLink":"//evil.test/v1/users"}`},
		{`{"value":[1],"@odata.nextLink":"javascript:x"}`},
		{`{"value":[1],"nextLink":"https://evil.test/v1/users"}`},
		{`{"value":[1],"nextLink":"https://HOST/v1/$batch"}`},
		{`{"items":[1],"links":{"next":{"uri":"https://evil.test/v1/users"}}}`},
		{`{"items":[1],"links":{"next":{"uri":"/../x"}}}`},
		{`{"items":[1],"links":{"next":{"uri":"x"}}}`},
		{`{"items":[1],"links":{"next":{"uri":"/customers","method":"DELETE"}}}`},
		{`{"items":[1],"links":{"next":{"uri":"/customers","headers":[{"key":"MS-ContinuationToken","value":"a\r\nHost: evil"}]}}}`},
		{`{"items":[1],"links":{"next":{"uri":"/customers","headers":[{"key":"MS-ContinuationToken","value":"` + strings.Repeat("a", maxContinuation+1) + `"}]}}}`},
	} {
		w := newWorld(t)
		calls := 0
		w.serve = func(rw http.ResponseWriter, _ *http.Request) {
			calls++
			io.WriteString(rw, strings.ReplaceAll(tt.first, "HOST", strings.TrimPrefix(w.upstream.URL, "https://")))
		}
		items, err := collect(t, w, goodCall)
		if !errors.Is(err, mandate.ErrUpstream) || !strings.Contains(err.Error(), "link to the next page refused") || len(items) != 1 || calls != 1 {
			t.Errorf("%.120s: got %s, %v after %d calls, want one item and a refusal after one", tt.first, items, err, calls)
		}
		if n := len(w.broker.asked()); n != 1 {
			t.Errorf("%.120s: the broker was asked %d times, want once", tt.first, n)
		}
	}
}

// A request id is for retries of one request, and every page is another.
func TestPagesRequestID(t *testing.T) {
	w := newWorld(t)
	var ids, correlations []string
	w.serve = func(rw http.ResponseWriter, r *http.Request) {
		ids, correlations = append(ids, r.Header.Get("MS-RequestId")), append(correlations, r.Header.Get("MS-CorrelationId"))
		next := ""
		if len(ids) < 3 {
			next = `,"links":{"next":{"uri":"/customers"}}`
		}
		io.WriteString(rw, `{"items":[1]`+next+`}`)
	}
	in := goodCall
	in.Headers = map[string]string{"MS-RequestId": "mine"}
	if _, err := collect(t, w, in); err != nil || ids[0] != "mine" || ids[1] == "mine" || ids[1] == ids[2] || correlations[0] != correlations[2] {
		t.Errorf("%v: request ids %q, correlation ids %q", err, ids, correlations)
	}
}

func TestPagesBounded(t *testing.T) {
	w := newWorld(t)
	calls := 0
	w.serve = func(rw http.ResponseWriter, _ *http.Request) {
		calls++
		io.WriteString(rw, `{"value":[`+strconv.Itoa(calls)+`],"@odata.nextLink":"`+w.upstream.URL+`/v1/customers?p=`+strconv.Itoa(calls)+`"}`)
	}
	items, err := collect(t, w, goodCall)
	if !errors.Is(err, mandate.ErrUpstream) || calls != maxPages || len(items) != maxPages {
		t.Errorf("got %d items and %v after %d calls, want a refusal after %d", len(items), err, calls, maxPages)
	}
}

// Every page is decided: a revocation ends the list, and the reader is told.
func TestPagesRevokedBetween(t *testing.T) {
	w := newWorld(t)
	w.broker.err, w.broker.stop = &mandate.DeniedError{Decision: mandate.Decision{Reason: "revoked"}}, 2
	w.serve = func(rw http.ResponseWriter, r *http.Request) {
		io.WriteString(rw, `{"value":[1],"@odata.nextLink":"`+w.upstream.URL+`/v1/customers?p=x`+r.URL.Query().Get("p")+`"}`)
	}
	items, err := collect(t, w, goodCall)
	var denied *mandate.DeniedError
	if !errors.As(err, &denied) || denied.Decision.Reason != "revoked" || len(items) != 2 {
		t.Errorf("got %s and %v, want two items and a denial", items, err)
	}
	if asks := w.broker.asked(); len(asks) != 3 || asks[2].Detail != "GET /v1/customers" {
		t.Errorf("the broker was asked %+v", asks)
	}
}

func TestPagesBreakOff(t *testing.T) {
	for _, tt := range []struct {
		name   string
		second string
		status int
		want   error
	}{
		{"an error", `{"error":{"code":"x"}}`, 500, mandate.ErrUpstream},
		{"not a list", `{"id":1}`, 200, mandate.ErrInvalid},
		{"not JSON", `<html>`, 200, mandate.ErrInvalid},
	} {
		w := newWorld(t)
		w.serve = func(rw http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Get("p") == "" {
				io.WriteString(rw, `{"value":[1],"@odata.nextLink":"`+w.upstream.URL+`/v1/customers?p=2"}`)
				return
			}
			rw.WriteHeader(tt.status)
			io.WriteString(rw, tt.second)
		}
		if items, err := collect(t, w, goodCall); !errors.Is(err, tt.want) || len(items) != 1 {
			t.Errorf("%s: got %s and %v, want one item and %v", tt.name, items, err, tt.want)
		}
	}
}

func TestPagesFirst(t *testing.T) {
	w := newWorld(t)
	w.serve = func(rw http.ResponseWriter, _ *http.Request) {
		http.Error(rw, `{"code":"1002","description":"No."}`, http.StatusUnauthorized)
	}
	var answered *CallError
	if _, err := collect(t, w, goodCall); !errors.As(err, &answered) || answered.Code != "1002" || answered.Answer.Status != 401 {
		t.Errorf("got %v, want the API's own error", err)
	}
	w.serve = func(rw http.ResponseWriter, _ *http.Request) { io.WriteString(rw, `{"id":"x"}`) }
	var invalid *mandate.InvalidError
	if _, err := collect(t, w, goodCall); !errors.As(err, &invalid) || invalid.Field != "all" {
		t.Errorf("got %v, want a refusal of all", err)
	}
	w.broker.set(mandate.ErrUnavailable)
	if _, err := collect(t, w, goodCall); !errors.Is(err, mandate.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
}

// A list that ends without saying so is not whole.
func TestItemsTruncated(t *testing.T) {
	for _, in := range []string{"", `{"item":1}` + "\n", `{"item":1}` + "\n" + `{"end":{}}`, "{\n"} {
		err := items(strings.NewReader(in), func(json.RawMessage, error) bool { return true })
		if err == nil {
			t.Errorf("%q: no error", in)
		}
	}
	if err := items(strings.NewReader(`{"item":1}`+"\n"+`{"end":{}}`+"\n"), func(json.RawMessage, error) bool { return true }); err != nil {
		t.Errorf("a whole list: %v", err)
	}
}
