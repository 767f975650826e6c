package mandate

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

// recorded says in which field of a record each field of a request is.
var recorded = map[string]string{
	"Caller": "caller", "Use": "use", "Partner": "partner grant", "Tenant": "tenant", "Audience": "audience", "Scopes": "asked", "Purpose": "purpose", "Ticket": "ticket",
	"Address": "address", "Detail": "detail", "User": "user", "Bound": "bound", "Method": "detail", "Path": "detail", "MFATime": "mfa_time",
}

// unseen are fields that no policy looks at, and why.
var unseen = map[string]string{
	"ID":          "it is a random name",
	"Claims":      "they go to Entra, which answers for them",
	"MinLifetime": "it says which of two tokens is handed out, not whether",
	"Refused":     "so does this",
}

// Whatever a policy may look at in a request is in its records: a field that
// is added to a request without a place in the record fails here.
func TestAuditEveryInputIsRecorded(t *testing.T) {
	full := Request{
		ID: "i", Caller: "billing", Use: UseCall, Partner: Partner{Name: "contoso", Key: testKey}, Tenant: testKey.Partner, Audience: "https://graph.test", Scopes: []Scope{"a"}, Purpose: "p",
		Ticket: "t", Claims: "{}", MinLifetime: 1, Refused: "f", Address: netip.MustParseAddr("192.0.2.7"), Detail: "d", User: &adele, Bound: []string{"purpose"},
		Method: "GET", Path: "/v1", MFATime: time.Unix(1_800_000_000, 0),
	}
	all := fieldsOf(t, full)
	v := reflect.ValueOf(full)
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		if v.Field(i).IsZero() {
			t.Fatalf("this test does not set %s", name)
		}
		if unseen[name] != "" {
			continue
		}
		if recorded[name] == "" {
			t.Errorf("no field of a record has %s, which a policy can look at", name)
		}
		without := full
		if name == "Detail" {
			without.Method, without.Path = "", "" // which hide it
		}
		before := fieldsOf(t, without)
		reflect.ValueOf(&without).Elem().Field(i).SetZero()
		after := fieldsOf(t, without)
		for field := range strings.FieldsSeq(recorded[name]) {
			if all[field] == "" || before[field] == after[field] {
				t.Errorf("%s is not in the record's %s: %s", name, field, all[field])
			}
		}
	}
}

// fieldsOf returns the JSON of each field of a request's record.
func fieldsOf(t *testing.T, r Request) map[string]string {
	t.Helper()
	a := attempt{Broker: new(Broker), req: &r}
	b, err := json.Marshal(a.newRecord(KindDecided))
	if err != nil {
		t.Fatal(err)
	}
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(b, &raw); err != nil {
		t.Fatal(err)
	}
	out := make(map[string]string)
	for name, v := range raw {
		out[name] = string(v)
	}
	return out
}
