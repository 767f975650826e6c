package emulator_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/mandate-sam/mandate/emulator"
)

func batch(t *testing.T, e *emulator.Emulator, tok string, steps ...string) answer {
	t.Helper()
	return exchange(t, e, "POST", e.Endpoints().Graph+"/v1.0/$batch", tok, `{"requests":[`+strings.Join(steps, ",")+`]}`)
}

// Each request of a batch has an answer of its own; what depends on a failed
// one is not done.
func TestBatch(t *testing.T) {
	e := start(t)
	tok, _ := writer(t, e)
	a := batch(t, e, tok,
		`{"id":"last","method":"PATCH","url":"/applications(appId='`+partnerApp+`')","headers":{"content-type":"application/json"},"body":{"displayName":"Renamed"},"dependsOn":["me"]}`,
		`{"id":"not","method":"DELETE","url":"applications(appId='`+partnerApp+`')","dependsOn":["missing"]}`,
		`{"id":"missing","method":"GET","url":"/users/nobody"}`,
		`{"id":"me","method":"get","url":"/me?$select=userPrincipalName"}`,
		`{"id":"made","method":"POST","url":"/applications","headers":{"Content-Type":"application/json"},"body":{"displayName":"Batched"}}`,
		`{"id":"absolute","method":"GET","url":"https://graph.microsoft.com/v1.0/me"}`,
		`{"id":"nested","method":"POST","url":"/$batch"}`,
		`{"id":"segment","method":"GET","url":"/nothing"}`,
		`{"id":"slashes","method":"GET","url":"///users//../me/"}`,
	)
	if a.status != 200 {
		t.Fatalf("got %d, %v", a.status, a.raw)
	}
	got := map[string]string{}
	for _, r := range a.raw["responses"].([]any) {
		m := r.(map[string]any)
		body, _ := json.Marshal(m["body"])
		got[m["id"].(string)] = fmt.Sprint(m["status"], " ", string(body))
	}
	for id, want := range map[string]string{
		"last": "204 null", "not": `424 {"error":{"code":"FailedDependency"`, "missing": `404 {"error":{"code":"Request_ResourceNotFound"`,
		"me": "200 {", "slashes": "200 {", "made": "201 {", "absolute": `400 {"error":{"code":"BadRequest"`, "nested": `400 {"error":{"code":"BadRequest"`, "segment": `400 {"error":{"code":"BadRequest"`,
	} {
		if !strings.HasPrefix(got[id], want) {
			t.Errorf("%s: got %q, want %q", id, got[id], want)
		}
	}
	if !strings.Contains(got["me"], `"userPrincipalName":"admin@contoso.example"`) {
		t.Errorf("got %s", got["me"])
	}
	if name := call(t, e, partnerAppURL(e), tok).str("displayName"); name != "Renamed" {
		t.Errorf("got name %q", name)
	}
}

// A batch that is none is refused as a whole.
func TestBatchRefuses(t *testing.T) {
	e := start(t)
	tok, _ := writer(t, e)
	me := func(i int) string { return fmt.Sprintf(`{"id":"%d","method":"GET","url":"/me"}`, i) }
	var many []string
	for i := range 21 {
		many = append(many, me(i))
	}
	for name, row := range map[string]struct {
		token string
		steps []string
		code  string
	}{
		"no token":        {"", []string{me(1)}, "InvalidAuthenticationToken"},
		"nothing":         {tok, nil, "BadRequest"},
		"too many":        {tok, many, "MaximumValueExceeded"},
		"same id":         {tok, []string{me(1), me(1)}, "BadRequest"},
		"no id":           {tok, []string{`{"method":"GET","url":"/me"}`}, "BadRequest"},
		"number as id":    {tok, []string{`{"id":1,"method":"GET","url":"/me"}`}, "BadRequest"},
		"cycle":           {tok, []string{`{"id":"1","method":"GET","url":"/me","dependsOn":["1"]}`}, "BadRequest"},
		"unknown":         {tok, []string{`{"id":"1","method":"GET","url":"/me","dependsOn":["2"]}`}, "BadRequest"},
		"no content type": {tok, []string{`{"id":"1","method":"POST","url":"/applications","body":{}}`}, "BadRequest"},
		"no JSON":         {tok, []string{`{`}, "BadRequest"},
	} {
		if a := batch(t, e, row.token, row.steps...); a.status < 400 || a.errorCode() != row.code {
			t.Errorf("%s: got %d, %v, want %s", name, a.status, a.raw, row.code)
		}
	}
	if a := batch(t, e, tok, many[:20]...); a.status != 200 || len(a.raw["responses"].([]any)) != 20 {
		t.Errorf("twenty: got %d", a.status)
	}
	e.Dial(func(d *emulator.Dials) { d.Throttles = []emulator.Throttle{{Service: "graph", RetryAfter: 7}} })
	a := batch(t, e, tok, me(1), me(2))
	last := a.raw["responses"].([]any)[1].(map[string]any)
	if a.status != 200 || last["status"] != 429.0 || last["headers"].(map[string]any)["Retry-After"] != "7" {
		t.Errorf("throttled: got %d, %v", a.status, a.raw)
	}
}
