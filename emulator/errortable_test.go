package emulator_test

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/mandate-sam/mandate/emulator"
)

var update = flag.Bool("update", false, "rewrite docs/emulator-errors.md")

const errorTablePath = "../docs/emulator-errors.md"

// The table in the documentation is that of the code.
// go test ./emulator -run ErrorTable -update rewrites it.
func TestErrorTable(t *testing.T) {
	want := errorTable(emulator.Errors())
	if *update {
		if err := os.WriteFile(errorTablePath, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(errorTablePath)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is not what the code says; run go test ./emulator -run ErrorTable -update", errorTablePath)
	}
}

func errorTable(rows []emulator.ErrorEntry) string {
	var b strings.Builder
	b.WriteString(`# Errors of the emulated identity platform

Generated from the code by ` + "`go test ./emulator -run ErrorTable -update`" + `. Do not edit.

Each of these can be ordered with the dial ` + "`refusals`" + `, for instance

    PATCH /emulator/dials    {"refusals": [{"code": 53003, "resource": "https://graph.microsoft.com", "times": 2}]}

and then comes out of the token endpoint as the table says: *v1* is the value of ` + "`error`" + ` at /oauth2/token, *v2* at /oauth2/v2.0/token. Where *claims* names a claim, a challenge for it comes along. With ` + "`\"endpoint\": \"authorize\"`" + ` or ` + "`\"devicecode\"`" + ` it comes out there instead. A dash in a text stands for what the emulator fills in when it refuses by itself. ` + "`error_codes`" + ` holds the code as a number, and ` + "`error_description`" + ` begins with AADSTS and the code, then the text.

| code | v1 | v2 | suberror | status | claims | text |
|---:|---|---|---|---:|---|---|
`)
	for _, r := range rows {
		text := strings.TrimPrefix(r.Text, fmt.Sprintf("AADSTS%d: ", r.Code))
		fmt.Fprintf(&b, "| %d | %s | %s | %s | %d | %s | %s |\n", r.Code, r.V1, r.V2, r.Suberror, r.Status, claimOf(r.Claims), strings.ReplaceAll(text, "|", `\|`))
	}
	return b.String()
}

// claimOf is the name of the claim that a challenge is for.
func claimOf(challenge string) string {
	for _, name := range []string{"capolids", "polids"} {
		if strings.Contains(challenge, `"`+name+`"`) {
			return name
		}
	}
	return challenge
}

// Every code that such a system meets is in the table.
func TestErrorTableIsComplete(t *testing.T) {
	known := map[int]bool{}
	for _, r := range emulator.Errors() {
		known[r.Code] = true
	}
	for _, code := range slices.Concat(
		[]int{65001, 90099, 650051, 650052, 650054, 650056, 650057, 65005, 90094, 90093, 65004},
		[]int{50076, 50079, 50074, 50072, 50078, 50158, 50173, 50132, 50133, 50089, 70000, 700082, 70008, 700084, 70043},
		[]int{54005, 501481, 50147, 700005, 53000, 53001, 53002, 53003, 53004, 530032, 530033, 530034, 530035, 53011},
		[]int{50053, 50057, 50055, 50126, 50034, 51004, 16003, 50020, 50105, 50177, 500212, 500213, 500021},
		[]int{700016, 7000112, 70001, 7000215, 7000222, 7000218, 70002, 700025, 700027, 700024, 700030, 50012, 50013, 500133, 50027, 50048},
		[]int{50011, 900971, 50146, 500011, 50001, 70011, 700022, 901002, 900144, 90014, 9002313, 90023},
		[]int{90002, 900023, 5000224, 90072, 50194, 90038, 70016, 70017, 70018, 70019, 70020, 50196},
		[]int{90055, 90033, 90006, 90024, 90012, 50033, 50087, 90020},
	) {
		if !known[code] {
			t.Errorf("%d is not in the table", code)
		}
	}
}

// The pairs that were seen on real wires.
func TestErrorPairs(t *testing.T) {
	want := map[int]emulator.ErrorEntry{
		50173:   {V1: "invalid_grant", V2: "invalid_grant", Suberror: "bad_token", Status: 400},
		50034:   {V1: "invalid_grant", V2: "invalid_grant", Suberror: "bad_token", Status: 400},
		50076:   {V1: "interaction_required", V2: "invalid_grant", Suberror: "basic_action", Status: 400},
		53003:   {V1: "interaction_required", V2: "invalid_grant", Suberror: "message_only", Status: 400},
		7000222: {V1: "invalid_client", V2: "invalid_client", Status: 401},
		700027:  {V1: "invalid_client", V2: "invalid_client", Status: 401},
		500011:  {V1: "invalid_resource", V2: "invalid_resource", Status: 400},
		700016:  {V1: "unauthorized_client", V2: "unauthorized_client", Status: 400},
		90002:   {V1: "invalid_request", V2: "invalid_request", Status: 400},
		70011:   {V1: "invalid_scope", V2: "invalid_scope", Status: 400},
	}
	for _, r := range emulator.Errors() {
		w, ok := want[r.Code]
		if got := (emulator.ErrorEntry{V1: r.V1, V2: r.V2, Suberror: r.Suberror, Status: r.Status}); ok && got != w {
			t.Errorf("%d: got %+v, want %+v", r.Code, got, w)
		}
	}
}

// Claims challenges come along with both versions, as a string of JSON.
func TestErrorClaims(t *testing.T) {
	e := start(t)
	rt := consented(t, e, 2, "admin@contoso.example").str("refresh_token")
	for _, row := range emulator.Errors() {
		if row.Claims == "" {
			continue
		}
		e.Dial(func(d *emulator.Dials) { d.Refusals = []emulator.Refusal{{Code: row.Code}} })
		for _, version := range []int{1, 2} {
			if a := refresh(t, e, version, "contoso.example", rt); a.str("claims") != row.Claims {
				t.Errorf("%d, v%d: got claims %q, want %q", row.Code, version, a.str("claims"), row.Claims)
			}
		}
	}
}

// Older answers have lines; some chain two codes.
func TestErrorTextShapes(t *testing.T) {
	e := start(t)
	rt := consented(t, e, 2, "admin@contoso.example").str("refresh_token")
	e.Dial(func(d *emulator.Dials) {
		d.Refusals = []emulator.Refusal{{Code: 70002, Cause: 70008}}
		d.SignIn.OldErrorText = true
	})
	a := refresh(t, e, 1, "contoso.example", rt)
	d := a.str("error_description")
	if got := fmt.Sprint(a.raw["error_codes"]); got != "[70002 70008]" || !strings.HasPrefix(d, "AADSTS70002: ") || !strings.Contains(d, " AADSTS70008: ") {
		t.Errorf("got codes %s, description %q", got, d)
	}
	if n := strings.Count(d, "\r\n"); n != 3 || !strings.Contains(d, "\r\nTrace ID: ") || !strings.Contains(d, "\r\nTimestamp: ") {
		t.Errorf("got %d lines in %q", n+1, d)
	}
}
