package audit

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/mandate-sam/mandate"
)

// shown is what [appendShown] writes, in the words of encoding/json. The fields
// below the record hide those of the same name in it.
type shown struct {
	mandate.Record
	Time   *struct{} `json:"time,omitempty"`
	Kind   *struct{} `json:"kind,omitempty"`
	Epoch  *struct{} `json:"epoch,omitempty"`
	Ticket *struct{} `json:"ticket,omitempty"`
	Addr   *struct{} `json:"address,omitempty"`
	Reason *struct{} `json:"reason,omitempty"`
	User   *struct{} `json:"user,omitempty"`
}

// sameAsGeneric fails if what is written by hand is not what encoding/json
// writes.
func sameAsGeneric(t *testing.T, r mandate.Record) {
	t.Helper()
	secret, rest := personal{r.Address, r.Ticket, "", r.Reason, r.User}, r
	if r.Use != "" {
		secret.Detail, rest.Detail = r.Detail, ""
	}
	if got, want := appendPersonal(nil, &r), must(json.Marshal(secret)); !bytes.Equal(got, want) {
		t.Errorf("got personal data\n%s, want\n%s", got, want)
	}
	want, wantErr := json.Marshal(shown{Record: rest})
	got, err := appendShown(nil, &r)
	if (err == nil) != (wantErr == nil) || err == nil && !bytes.Equal(got, want) {
		t.Errorf("got record\n%s (%v), want\n%s (%v)", got, err, want, wantErr)
	}
}

// Every field of a record is written, each by itself and all together.
func TestEncodeFields(t *testing.T) {
	full := fullRecord("a", 1)
	sameAsGeneric(t, full)
	sameAsGeneric(t, mandate.Record{})
	noUse := full
	noUse.Use = ""
	sameAsGeneric(t, noUse)
	b := must(appendShown(nil, &noUse))
	b = append(b, appendPersonal(nil, &full)...)
	var all map[string]json.RawMessage
	if err := json.Unmarshal(must(json.Marshal(full)), &all); err != nil || len(all) != reflect.TypeFor[mandate.Record]().NumField() {
		t.Fatalf("got %d fields and %v: does fullRecord fill every field of a record?", len(all), err)
	}
	for name := range all {
		if strings.Contains(" time kind epoch use ", " "+name+" ") {
			continue // use was left out above; the others stand in the head
		}
		if !bytes.Contains(b, []byte(`"`+name+`":`)) {
			t.Errorf("field %s is not written", name)
		}
	}
}

func FuzzEncode(f *testing.F) {
	f.Add("billing", int64(1), int64(1_800_000_000))
	f.Add("<&>\u2028\u00fc\x00\x7f\"\\\xff", int64(-1), int64(0))
	f.Add("", int64(0), int64(1)<<60)
	f.Fuzz(func(t *testing.T, s string, n, at int64) {
		r := fullRecord(s, n)
		r.Expires, r.MFATime = time.Unix(at, n%1e9), time.Unix(at/2, 0).In(time.FixedZone("", int(n%100_000)))
		sameAsGeneric(t, r)
		r.Use, r.Grant, r.User, r.Evidence, r.Tenant = "", nil, nil, nil, mandate.TenantID{}
		sameAsGeneric(t, r)
	})
}

// fullRecord returns a record with all fields filled, with s where text is.
func fullRecord(s string, n int64) mandate.Record {
	tenant := must(mandate.ParseTenantID("aaaaaaaa-0000-4000-8000-00000000000a"))
	app := must(mandate.ParseAppID("bbbbbbbb-0000-4000-8000-00000000000b"))
	list := []string{s, "b", s}
	return mandate.Record{
		Time: time.Unix(1_800_000_000, 0), Kind: mandate.KindIssued, Request: s, Epoch: n, Emulated: true, Caller: mandate.CallerID(s), Address: s,
		Use: mandate.UseCall, Purpose: s, Ticket: s, Partner: s, Grant: &mandate.GrantKey{Cloud: s, Application: app, Partner: tenant}, Generation: n,
		Tenant: tenant, Audience: mandate.Audience(s), Asked: list, Granted: list[:1], Rule: s, Policy: s, Shadow: list, Reason: s, Fingerprint: s,
		UTI: s, Correlation: s, Expires: time.Unix(1_800_000_001, 5), Cached: true, User: &mandate.Identity{Tenant: tenant},
		Evidence: &mandate.Evidence{PartnerCenter: true}, Detail: s, Bound: list, MFATime: time.Unix(1_800_000_002, 0), Approval: "k" + s,
	}
}

func TestLeafHash(t *testing.T) {
	b := []byte("\n{entry}")
	if got, want := leafHash(b, 1), tlog.RecordHash(b[1:]); got != want || string(b) != "\n{entry}" {
		t.Errorf("got %v of %q, want %v", got, b, want)
	}
}

func BenchmarkBody(b *testing.B) {
	r := fullRecord("billing", 1)
	r.Evidence = nil
	k := must(newKey(make([]byte, 32)))
	b.ReportAllocs()
	for b.Loop() {
		must(body(&r, "global/p", "2026-11", newSalt(), k.aead))
	}
}
