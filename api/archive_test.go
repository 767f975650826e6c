package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/audit"
)

// A fakeArchive finds one record, and remembers what it was asked.
type fakeArchive struct {
	err   error
	query audit.Query
	did   []string
	half  bool // an export breaks off

	mu   sync.Mutex // guards made: a request that breaks off is sent again
	made audit.Export
}

func (f *fakeArchive) Search(_ context.Context, q audit.Query) ([]audit.Entry, error) {
	f.query = q
	k := contoso.Key
	return []audit.Entry{{Index: 7, Leaf: "ab", Chain: q.Chain, Seq: 3, Record: mandate.Record{Kind: mandate.KindIssued, Grant: &k, Time: contoso.Created}}}, f.err
}

func (f *fakeArchive) Each(_ context.Context, q audit.Query) iter.Seq2[audit.Entry, error] {
	f.query = q
	k := contoso.Key
	return func(yield func(audit.Entry, error) bool) {
		yield(audit.Entry{Record: mandate.Record{
			Kind: mandate.KindIssued, Grant: &k, Time: time.Now().Add(-time.Hour), Use: mandate.UseCall, Tenant: adatumID, Caller: "desk", Purpose: "support",
			Audience: "https://pc.test", Granted: []string{"user_impersonation"}, Detail: "GET /v1/customers",
		}}, f.err)
	}
}

func (f *fakeArchive) Report(_ context.Context, q audit.Query) ([]audit.Usage, error) {
	f.query = q
	return []audit.Usage{{Chain: "test/x", Partner: "contoso", Caller: "billing", Purpose: "invoice", Issued: 2, Scopes: []string{"a"}}}, f.err
}

func (f *fakeArchive) Export(_ context.Context, w io.Writer, x audit.Export) error {
	f.mu.Lock()
	f.made = x
	f.mu.Unlock()
	if f.half {
		io.WriteString(w, "{}\n")
		return errors.New("the disk is gone")
	}
	if f.err == nil {
		fmt.Fprintf(w, "{\"export\":%q}\n", x.Chain)
	}
	return f.err
}

func (f *fakeArchive) PersonalKeys(_ context.Context, w io.Writer, chain string) error {
	_, err := fmt.Fprintf(w, "{\"personal\":%q}\n", chain)
	return err
}

func (f *fakeArchive) WriteCSV(_ context.Context, w io.Writer, q audit.Query) error {
	_, err := io.WriteString(w, "index\n")
	return err
}

func (f *fakeArchive) WriteOCSF(_ context.Context, w io.Writer, q audit.Query) error {
	_, err := io.WriteString(w, "{\"class_uid\":3003}\n")
	return err
}

func (f *fakeArchive) Checkpoint(context.Context) ([]byte, error) { return []byte("signed"), f.err }
func (f *fakeArchive) Key() string                                { return "key" }
func (f *fakeArchive) Witnesses() []audit.WitnessStatus {
	return []audit.WitnessStatus{{Name: "w", Size: 3, Time: contoso.Created, Behind: 1}}
}

func (f *fakeArchive) Erase(_ context.Context, chain, month string) error {
	f.did = append(f.did, "erase "+chain+" "+month)
	return f.err
}

func (f *fakeArchive) Drop(_ context.Context, before time.Time) (int64, error) {
	f.did = append(f.did, "drop "+before.Format(time.DateOnly))
	return 12, f.err
}

func archiveScenes() []scene {
	down := func(w *world) { w.archive.err = mandate.ErrUnavailable }
	nothing := func(w *world) { w.archive.err = mandate.ErrNotFound }
	unrecorded := func(w *world) { w.log.err = errors.New("full") }
	erase, drop := `{"partner":"contoso","month":"2020-01"}`, `{"before":"2020-01-01T00:00:00Z"}`
	out := []scene{
		{op: "GET /v1/audit/state", status: "200"},
		{op: "GET /v1/audit/state", status: "503", damage: down},
		{op: "POST /v1/audit/erase", status: "200", body: erase},
		{op: "POST /v1/audit/erase", status: "400", body: `{"partner":"contoso","month":"2999-01"}`},
		{op: "POST /v1/audit/erase", status: "400", body: `{"partner":"","month":"2020-01"}`},
		{op: "POST /v1/audit/erase", status: "404", body: erase, damage: nothing},
		{op: "POST /v1/audit/erase", status: "503", body: erase, damage: unrecorded},
		{op: "POST /v1/audit/drop", status: "200", body: drop},
		{op: "POST /v1/audit/drop", status: "400", body: `{"before":"2999-01-01T00:00:00Z"}`},
		{op: "POST /v1/audit/drop", status: "503", body: drop, damage: unrecorded},
	}
	const use, contosos = "GET /v1/partners/{partner}/usage", "/v1/partners/contoso/usage"
	out = append(out,
		scene{op: use, status: "200", path: contosos, query: "?days=30&customer=" + adatumID.String()},
		scene{op: use, status: "400", path: contosos, query: "?days=31"},
		scene{op: use, status: "404", path: "/v1/partners/nobody/usage"},
		scene{op: use, status: "409", path: contosos, damage: func(w *world) { w.store.headErr = &mandate.NoGrantError{} }},
		scene{op: use, status: "503", path: contosos, damage: down})
	for _, op := range []string{"GET /v1/audit/search", "GET /v1/audit/report", "GET /v1/audit/export"} {
		out = append(out,
			scene{op: op, status: "200", query: "?partner=contoso"},
			scene{op: op, status: "400", query: "?from=yesterday"},
			scene{op: op, status: "404", query: "?partner=nobody"},
			scene{op: op, status: "503", damage: down})
	}
	return out
}

func TestAuditSearch(t *testing.T) {
	w := newWorld(t)
	chain := audit.Chain("test", contosoID)
	q := url.Values{"partner": {"contoso"}, "ticket": {"T-1"}, "user": {adaID.String()}, "from": {"2026-01-02T00:00:00Z"}, "limit": {"5"}, "before": {"99"}, "kind": {"denied"}}
	got, err := w.operator.SearchAudit(t.Context(), q)
	if err != nil || len(got) != 1 || got[0].Index != 7 || got[0].Kind != mandate.KindIssued {
		t.Errorf("got %+v, %v", got, err)
	}
	want := audit.Query{Chain: chain, Ticket: "T-1", Person: adaID.String(), From: time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC), Limit: 5, Before: 99, Kind: "denied"}
	if w.archive.query != want {
		t.Errorf("asked %+v, want %+v", w.archive.query, want)
	}
	for query, field := range map[string]string{"limit=0": "limit", "limit=1001": "limit", "before=0": "before", "before=-1": "before", "x=1": "x", "format=pdf": "format", "kind=a&kind=b": "kind",
		"since=1,x": "since", "ticket=" + strings.Repeat("x", 300): "ticket", "%": "query"} {
		status, _, body := send(t, w.operator, "GET", "/v1/audit/search?"+query, "")
		wantField(t, status, body, field)
	}
}

func TestAuditExport(t *testing.T) {
	w := newWorld(t)
	for format, want := range map[string]string{"": `{"export":""}`, "jsonl": `{"export":""}`, "csv": "index", "ocsf": `{"class_uid":3003}`, "keys": `{"personal":""}`} {
		var b bytes.Buffer
		q := url.Values{"format": {format}}
		if format == "" {
			q = nil
		}
		if err := w.operator.ExportAudit(t.Context(), &b, q); err != nil || strings.TrimSpace(b.String()) != want {
			t.Errorf("%s: got %q, %v, want %q", format, b.String(), err, want)
		}
	}
	var b bytes.Buffer
	if err := w.operator.ExportAudit(t.Context(), &b, url.Values{"partner": {"contoso"}, "since": {"3,4"}}); err != nil || w.archive.made.Whole || len(w.archive.made.Since) != 2 {
		t.Errorf("%+v, %v", w.archive.made, err)
	}
	w.archive.half = true
	if err := w.operator.ExportAudit(t.Context(), &b, nil); err == nil {
		t.Errorf("half an export: %v", err)
	}
}

// What is erased or dropped is recorded before.
func TestAuditTidy(t *testing.T) {
	w := newWorld(t)
	if _, err := w.operator.EraseAudit(t.Context(), EraseRequest{"contoso", "2020-01"}); err != nil {
		t.Error(err)
	}
	got, err := w.operator.DropAudit(t.Context(), DropRequest{time.Now().AddDate(-1, 0, 0)})
	if err != nil || got.Records != 12 || len(w.archive.did) != 2 {
		t.Errorf("%+v, %v, %v", got, err, w.archive.did)
	}
	if d := details(w.log.lines); !strings.Contains(d, "erase personal data of 2020-01") || !strings.Contains(d, "drop records before") {
		t.Errorf("recorded %q", d)
	}
	w.log.err = errors.New("full")
	if _, err := w.operator.EraseAudit(t.Context(), EraseRequest{"contoso", "2020-01"}); err == nil || len(w.archive.did) != 2 {
		t.Errorf("erased without a record: %v, %v", err, w.archive.did)
	}
	if s, err := w.operator.AuditState(t.Context()); err != nil || s.Key != "key" || len(s.Witnesses) != 1 {
		t.Errorf("%+v, %v", s, err)
	}
}
