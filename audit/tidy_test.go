package audit

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

// recordIn records r as if it were another time.
func recordIn(t *testing.T, l *Log, r mandate.Record, at time.Time) int64 {
	t.Helper()
	r.Time = at
	k := must(l.keys.get(t.Context(), chainOf(&r), monthOf(at), true))
	b := &batch{items: []*item{{kind: r.Kind, chain: chainOf(&r), epoch: r.Epoch, body: must(body(&r, chainOf(&r), monthOf(at), newSalt(), k.aead))}}}
	size, err := l.store.write(t.Context(), b)
	if err != nil || b.items[0].err != nil {
		t.Fatal(err, b.items[0].err)
	}
	l.grew(size)
	return b.items[0].index
}

// Erasing makes personal data of one partner and month unreadable, and nothing
// else; the log and earlier exports verify as before.
func TestAuditErase(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config) {
		l := openLog(t, cfg)
		then := time.Now().AddDate(0, -2, 0)
		old := recordIn(t, l, testRecord(0, "/users/ada"), then)
		other := recordIn(t, l, testRecord(1, "/users/bob"), then)
		now := record(t, l, testRecord(0, "/users/eve")).Index
		if got, err := l.Search(t.Context(), Query{Ticket: "T-/users/ada"}); err != nil || len(got) != 1 {
			t.Fatalf("before: %+v, %v", got, err)
		}
		stored := export(t, l, Export{Whole: true})
		for _, secret := range []string{"T-", "192.0.2.7", "dddddddd-", "because"} {
			if bytes.Contains(stored, []byte(secret)) {
				t.Errorf("%q is in the log in the clear", secret)
			}
		}
		if err := l.Erase(t.Context(), chainOfPartner(0), monthOf(then)); err != nil {
			t.Fatal(err)
		}
		l.keys.learn(keyName{chainOfPartner(0), monthOf(then)}, &key{plain: make([]byte, 32)}) // who has read it before
		for index, erased := range map[int64]bool{old: true, other: false, now: false} {
			e, err := l.Entry(t.Context(), index)
			if err != nil || e.Erased != erased || (e.User == nil) != erased || (e.Ticket == "") != erased || (e.Detail == "") != erased || e.Purpose != "invoice" {
				t.Errorf("record %d: %+v, %v, want erased %v", index, e, err, erased)
			}
		}
		if got, err := l.Search(t.Context(), Query{Ticket: "T-/users/ada"}); err != nil || len(got) != 0 {
			t.Errorf("its ticket is still found: %+v, %v", got, err)
		}
		l.keys.forget()
		if e, err := l.Entry(t.Context(), old); err != nil || !e.Erased {
			t.Errorf("read again: %+v, %v", e, err)
		}
		holds(t, cfg, l, 3)
		if !verify(t, stored, Verification{Key: cfg.Public}).OK {
			t.Error("the export of before does not hold any more")
		}
		for _, tt := range []struct {
			chain, month string
			want         error
		}{{chainOfPartner(0), monthOf(time.Now()), mandate.ErrInvalid}, {chainOfPartner(0), "x", mandate.ErrInvalid}, {chainOfPartner(0), monthOf(then), mandate.ErrNotFound}, {"test/nobody", "2020-01", mandate.ErrNotFound}} {
			if err := l.Erase(t.Context(), tt.chain, tt.month); !errors.Is(err, tt.want) {
				t.Errorf("Erase(%s, %s) = %v, want %v", tt.chain, tt.month, err, tt.want)
			}
		}
	})
}

// A month that was erased stays erased when an older copy of the database, in
// which its key was, takes the place of the newer.
func TestAuditErasedAgain(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config) {
		cfg.Erasures = filepath.Join(t.TempDir(), "erased")
		if err := os.WriteFile(cfg.Erasures, []byte(`{"chain":"torn`), 0o600); err != nil {
			t.Fatal(err)
		}
		l := openLog(t, cfg)
		then := time.Now().AddDate(0, -2, 0)
		old := recordIn(t, l, testRecord(0, "/users/ada"), then)
		other := recordIn(t, l, testRecord(1, "/users/bob"), then)
		if _, err := cfg.DB.Exec(t.Context(), `CREATE TABLE old_keys AS SELECT * FROM audit_keys`); err != nil {
			t.Fatal(err)
		}
		if err := l.Erase(t.Context(), chainOfPartner(0), monthOf(then)); err != nil {
			t.Fatal(err)
		}
		l.Close()
		for _, query := range []string{`DELETE FROM audit_keys`, `INSERT INTO audit_keys SELECT * FROM old_keys`} {
			if _, err := cfg.DB.Exec(t.Context(), query); err != nil {
				t.Fatal(err)
			}
		}
		again := openLog(t, cfg)
		for index, erased := range map[int64]bool{old: true, other: false} {
			if e, err := again.Entry(t.Context(), index); err != nil || e.Erased != erased || (e.User == nil) != erased {
				t.Errorf("record %d: %+v, %v, want erased %v", index, e, err, erased)
			}
		}
	})
}

// A server that was restored into an empty database has its log, and other
// keys: what is in the clear is found and shown, and new records are whole.
func TestAuditOtherKeys(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config) {
		l := openLog(t, cfg)
		record(t, l, testRecord(0, "before"))
		l.Close()
		if _, err := cfg.DB.Exec(t.Context(), `DELETE FROM audit_keys`); err != nil {
			t.Fatal(err)
		}
		l = openLog(t, cfg)
		record(t, l, testRecord(0, "after"))
		found, err := l.Search(t.Context(), Query{Purpose: "invoice"})
		if err != nil || len(found) != 2 || found[0].Erased || found[0].Ticket != "T-after" || !found[1].Erased || found[1].Ticket != "" || found[1].Fingerprint != "fp-before" {
			t.Errorf("got %+v, %v", found, err)
		}
		if last, err := l.Last(2); err != nil || len(last) != 2 {
			t.Errorf("the last: %s, %v", last, err)
		}
		holds(t, cfg, l, 2)
	})
}

// Dropping takes the content of old records; the whole log, each partner's
// export, and what is written afterwards verify as before, also after a
// restart without any file that can be made again.
func TestAuditDrop(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config) {
		l := openLog(t, cfg)
		if s, ok := l.store.(*fileStore); ok {
			s.rotate = 4000
		}
		fill(t, l, 40)
		if s, ok := l.store.(*sqlStore); ok {
			if _, err := s.db.Exec(t.Context(), `UPDATE audit_entries SET at = 0 WHERE idx < 30`); err != nil {
				t.Fatal(err)
			}
		}
		must(l.Checkpoint(t.Context()))
		if err := l.index.settled(t.Context()); err != nil {
			t.Fatal(err)
		}
		n, err := l.Drop(t.Context(), time.Now().Add(-time.Hour))
		if cfg.Dir != "" {
			n, err = l.Drop(t.Context(), time.Now().Add(time.Hour)) // whole segments, but the last
		}
		if err != nil || n < 20 || n > 39 {
			t.Fatalf("dropped %d, %v", n, err)
		}
		if again, err := l.Drop(t.Context(), time.Now().Add(-time.Hour)); err != nil || again != 0 {
			t.Errorf("dropped %d again, %v", again, err)
		}
		check := func(l *Log, records int64) {
			t.Helper()
			got := verify(t, export(t, l, Export{Whole: true}), Verification{Key: cfg.Public})
			if !got.OK || got.Records != records || got.Dropped != n {
				t.Errorf("got %+v, want %d of %d dropped", got, n, records)
			}
			if e, err := l.Entry(t.Context(), 0); err != nil || !e.Dropped || e.Purpose != "" {
				t.Errorf("record 0: %+v, %v", e, err)
			}
			for p := range 3 {
				if got := verify(t, export(t, l, Export{Chain: chainOfPartner(p)}), Verification{Key: cfg.Public}); !got.OK {
					t.Errorf("partner %d: %+v", p, got)
				}
			}
		}
		check(l, 40)
		l.Close()
		again := openLog(t, cfg)
		fill(t, again, 3)
		check(again, 43)
	})
}

// What a spreadsheet or a terminal would act on is harmless in a CSV file, and
// OCSF is JSON whatever is in a record.
func TestAuditForms(t *testing.T) {
	cfg := testConfig(t)
	l := openLog(t, cfg)
	nasty := []string{"=1+1", "+1", "-1", "@x", "  =1", "'=1", "|calc", "%x", "a\x1b[31m", "a\nb", "a\u202eb", "\u2028", "ok", "ünï", `","`}
	for _, s := range nasty {
		r := testRecord(0, s)
		r.Reason = s
		record(t, l, r)
	}
	var b bytes.Buffer
	if err := l.WriteCSV(t.Context(), &b, Query{}); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(&b).ReadAll()
	if err != nil || len(rows) != len(nasty)+1 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	for _, row := range rows[1:] {
		for i, cell := range row {
			if strings.ContainsAny(cell, "\x1b\n\r\t\u202e\u2028") || cell != "" && strings.ContainsAny(cell[:1], "=+-@|%") || strings.HasPrefix(strings.TrimLeft(cell, " "), "=") {
				t.Errorf("%s is %q", csvHead[i], cell)
			}
		}
	}
	b.Reset()
	if err := l.WriteOCSF(t.Context(), &b, Query{}); err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range bytes.Lines(b.Bytes()) {
		var v ocsfEvent
		if err := json.Unmarshal(line, &v); err != nil || v.Class != 3003 || v.Type != 300301 || v.Metadata.UID == "" || v.Actor.App != "billing" || v.User == nil || v.Detail == "" {
			t.Errorf("%s: %v", line, err)
		}
		if bytes.ContainsFunc(bytes.TrimSuffix(line, []byte("\n")), acts) || bytes.Contains(line, []byte("\u202e")) {
			t.Errorf("%q is not escaped", line)
		}
		n++
	}
	if n != len(nasty) {
		t.Errorf("%d events", n)
	}
	var keys bytes.Buffer
	if err := l.PersonalKeys(t.Context(), &keys, chainOfPartner(0)); err != nil || strings.Count(keys.String(), `"secret"`) != 1 {
		t.Errorf("keys: %s, %v", keys.String(), err)
	}
}

// Every field of a record is in every form of export, also one that is added
// some day.
func TestAuditFormsHaveEverything(t *testing.T) {
	cfg := testConfig(t)
	l := openLog(t, cfg)
	full := fullRecord("a", 1)
	full.Kind, full.User.Object = mandate.KindDenied, must(mandate.ParseObjectID("dddddddd-0000-0000-0000-00000000000d"))
	record(t, l, full)
	var table, events bytes.Buffer
	if err := errors.Join(l.WriteCSV(t.Context(), &table, Query{}), l.WriteOCSF(t.Context(), &events, Query{})); err != nil {
		t.Fatal(err)
	}
	rows := must(csv.NewReader(&table).ReadAll())
	got := make(map[string]string)
	for i, name := range rows[0] {
		got[name] = rows[1][i]
	}
	var rest, event, unmapped map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal([]byte(got["more"]), &rest), json.Unmarshal(events.Bytes(), &event), json.Unmarshal(event["unmapped"], &unmapped)); err != nil {
		t.Fatal(err)
	}
	elsewhere := map[string]string{"time": "time", "kind": "metadata", "caller": "actor", "reason": "status_detail", "address": "src_endpoint", "user": "actor", "granted": "privileges"}
	for f := range reflect.TypeFor[mandate.Record]().Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name != "grant" && name != "emulated" && got[name] == "" && rest[name] == nil {
			t.Errorf("a CSV export does not have %s", name)
		}
		if name != "emulated" && unmapped[name] == nil && event[elsewhere[name]] == nil {
			t.Errorf("an OCSF export does not have %s", name)
		}
	}
}

// A report counts uses, names partners that some of their records do not name,
// says which scopes tokens carried, and what was allowed and has no end: also
// if that is later than what is asked for, or of a token from memory. It reads
// few of the records.
func TestAuditReport(t *testing.T) {
	cfg := testConfig(t)
	l := openLog(t, cfg)
	ago := time.Now().Add(-time.Hour)
	errand := testRecord(0, "")
	errand.Caller, errand.Partner, errand.Kind, errand.Request = "mandate:customers", "", mandate.KindDecided, "e"
	recordIn(t, l, errand, ago)
	for i := range 20 {
		rec := testRecord(0, "")
		rec.Caller, rec.Partner, rec.Granted = "reader", "contoso", [][]mandate.Scope{{"A", "B"}, {"B", "A"}, {"B", "C"}}[i%3]
		recordIn(t, l, rec, ago.Add(time.Duration(i)*time.Second))
	}
	for i, r := range []struct {
		kind, request string
		at            time.Time
	}{
		{mandate.KindDecided, "a", ago}, {mandate.KindIssued, "a", ago}, {mandate.KindDecided, "b", ago}, {mandate.KindFailed, "b", ago},
		{mandate.KindDecided, "lost", ago}, {mandate.KindDenied, "c", ago}, {mandate.KindChanged, "", ago}, {mandate.KindDecided, "under way", time.Now()},
	} {
		rec := testRecord(0, fmt.Sprint(i))
		rec.Kind, rec.Request = r.kind, r.request
		if rec.Partner = "contoso"; r.kind == mandate.KindChanged {
			rec.Caller, rec.Partner = "uid:0", ""
		}
		recordIn(t, l, rec, r.at)
	}
	errand.Kind, errand.Cached = mandate.KindIssued, true
	recordIn(t, l, errand, time.Now().Add(time.Second))
	act := testRecord(0, "")
	act.Kind, act.Caller, act.Audience, act.Purpose = mandate.KindFailed, "uid:0", "", ""
	recordIn(t, l, act, time.Now())
	if err := l.index.settled(t.Context()); err != nil {
		t.Fatal(err)
	}
	reads := &countedReads{store: l.store}
	l.store = reads
	moment := func(at time.Time) time.Time { return at.UTC().Truncate(time.Millisecond) }
	uses, err := l.Report(t.Context(), Query{})
	if err != nil || len(uses) != 3 || reads.n > 4 {
		t.Fatalf("got %+v, %v, having read %d records", uses, err, reads.n)
	}
	for i, want := range []Usage{
		{Caller: "reader", Issued: 20, First: moment(ago), Last: moment(ago.Add(19 * time.Second)), Scopes: []mandate.Scope{"A", "B", "C"}},
		{Caller: "mandate:customers", Issued: 1, First: moment(ago), Last: uses[1].Last},
		{Caller: "billing", Issued: 1, Denied: 1, Failed: 1, Possibly: 1, First: moment(ago), Last: uses[2].Last},
	} {
		want.Chain, want.Partner, want.Purpose, want.Tenant, want.Audience = chainOfPartner(0), "contoso", "invoice", partnerKey(0).Partner, "https://graph.test"
		if !reflect.DeepEqual(uses[i], want) {
			t.Errorf("got %+v, want %+v", uses[i], want)
		}
	}
	// The errand was allowed before this, and what came of it is later.
	if uses, err := l.Report(t.Context(), Query{Caller: "mandate:customers", To: ago.Add(time.Minute)}); err != nil || len(uses) != 1 || uses[0].Possibly != 0 || uses[0].Issued != 0 {
		t.Errorf("of an hour ago: %+v, %v", uses, err)
	}
}

// countedReads counts what is read of the log.
type countedReads struct {
	store
	n int
}

func (s *countedReads) read(ctx context.Context, from, n int64) ([]line, error) {
	s.n++
	return s.store.read(ctx, from, n)
}

// A time finds all of its records, though several are of the same moment and
// others are out of order, at either end of the log.
func TestAuditSearchTimes(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config) {
		l := openLog(t, cfg)
		noon := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
		for i, at := range []time.Duration{0, -10, 0, -20, time.Duration(3 * slack / time.Second), 300, 290, 300, 300, 280} {
			recordIn(t, l, testRecord(0, fmt.Sprint(i)), noon.Add(at*time.Second))
		}
		for _, tt := range []struct{ from, to, want int }{
			{-30, 400, 10}, {-30, 300, 7}, {-20, 281, 6}, {-15, 1, 3}, {0, 181, 3}, {280, 300, 2}, {281, 301, 4}, {300, 400, 3}, {301, 400, 0}, {-90, -20, 0},
		} {
			q := Query{From: noon.Add(time.Duration(tt.from) * time.Second), To: noon.Add(time.Duration(tt.to) * time.Second)}
			if got, err := l.Search(t.Context(), q); err != nil || len(got) != tt.want {
				t.Errorf("from %d to %d: %d records, %v, want %d", tt.from, tt.to, len(got), err, tt.want)
			}
			if got, err := l.Search(t.Context(), Query{From: q.From}); err != nil || len(got) < tt.want {
				t.Errorf("from %d: %d records, %v", tt.from, len(got), err)
			}
		}
	})
}

// Searches look into an index of their own, whatever they are for; EXPLAIN
// says so in both databases. Of several things that are asked it is the index
// of the rarest, in this log and not on the average.
func TestAuditSearchUsesIndexes(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config) {
		l := openLog(t, cfg)
		fill(t, l, 30)
		gone := testRecord(0, "gone")
		gone.Kind, gone.Caller, gone.Purpose, gone.Correlation, gone.UTI, gone.Request = mandate.KindDenied, "gone", "migration", "c", "u", "r"
		record(t, l, gone)
		planned := explainer(t, cfg)
		if err := l.index.settled(t.Context()); err != nil {
			t.Fatal(err)
		}
		enlarge(t, cfg)
		for name, tt := range map[string]struct {
			q     Query
			index string
			want  int
		}{
			"chain": {Query{Chain: chainOfPartner(1)}, "chain", 10}, "kind": {Query{Kind: mandate.KindIssued}, "kind", 30}, "caller": {Query{Caller: "billing"}, "caller", 30},
			"tenant": {Query{Tenant: partnerKey(2).Partner.String()}, "tenant", 10}, "fingerprint": {Query{Fingerprint: "fp-7"}, "fingerprint", 1}, "ticket": {Query{Ticket: "T-7"}, "ticket", 1},
			"person": {Query{Person: "dddddddd-0000-0000-0000-00000000000d"}, "person", 31}, "request": {Query{Request: "r"}, "request", 1}, "uti": {Query{UTI: "u"}, "uti", 1},
			"correlation": {Query{Correlation: "c"}, "correlation", 1}, "purpose": {Query{Purpose: "migration"}, "purpose", 1}, "audience": {Query{Audience: "https://graph.test"}, "audience", 31},
			"rare caller":          {Query{Caller: "gone", Chain: chainOfPartner(0), Kind: mandate.KindDenied}, "caller", 1},
			"rare kind":            {Query{Caller: "billing", Kind: mandate.KindDenied}, "kind", 0},
			"rare purpose, and at": {Query{Caller: "billing", Purpose: "migration", From: time.Now().Add(-time.Hour)}, "purpose", 0},
			"rare ticket":          {Query{Ticket: "T-7", Person: "dddddddd-0000-0000-0000-00000000000d"}, "ticket", 1},
		} {
			got, err := l.Search(t.Context(), tt.q)
			if err != nil || len(got) != tt.want {
				t.Errorf("%s: %d records, %v, want %d", name, len(got), err, tt.want)
			}
			f, err := l.index.lookup(t.Context(), tt.q)
			if err != nil {
				t.Fatal(err)
			}
			if plan := planned(f.newest(100), append(f.args, f.first-enlarged, f.end)); !strings.Contains(plan, "audit_index_"+tt.index) {
				t.Errorf("%s: the index of %s is not used:\n%s", name, tt.index, plan)
			}
		}
		some := condition{column: "ticket"}
		for n := range int64(200) {
			some.values = append(some.values, n*100)
		}
		f := must(l.index.lookFor(t.Context(), Query{}, []condition{some}))
		if plan := planned(f.newest(100), append(f.args, f.first-enlarged, f.end)); !strings.Contains(plan, "audit_index_ticket") {
			t.Errorf("a ticket of many partners is looked for without its index:\n%.500s", plan)
		}
		if plan := planned(spanned, []any{int64(19_000), int64(19_100)}); strings.Count(plan, "audit_index_at") != 2 {
			t.Errorf("times are looked for without an index:\n%s", plan)
		}
		if plan := planned(alive, []any{int64(19_000), "", "", "", "", ""}); !strings.Contains(plan, "audit_index_alive") && !strings.Contains(plan, "audit_index_handed") {
			t.Errorf("tokens that are alive are looked for without an index:\n%s", plan)
		}
		page, err := l.Search(t.Context(), Query{Limit: 7, Before: 20})
		if err != nil || len(page) != 7 || page[0].Index != 19 {
			t.Errorf("a page: %d, %v", len(page), err)
		}
		n := 0
		for _, err := range l.Each(t.Context(), Query{Chain: chainOfPartner(0)}) {
			if n++; err != nil {
				t.Fatal(err)
			}
		}
		if n != 11 {
			t.Errorf("Each found %d", n)
		}
	})
}

// A search does not wait for an index that is made anew; it says how far that is.
func TestAuditSearchFarBehind(t *testing.T) {
	l := openLog(t, testConfig(t))
	fill(t, l, 12)
	l.index.far = 10
	if _, err := l.Search(t.Context(), Query{}); !errors.Is(err, mandate.ErrUnavailable) || !strings.Contains(err.Error(), "0 of 12") {
		t.Errorf("got %v", err)
	}
	if n, err := l.index.step(t.Context()); n != 12 || err != nil {
		t.Fatal(n, err)
	}
	if found, err := l.Search(t.Context(), Query{}); err != nil || len(found) != 12 {
		t.Errorf("got %d, %v", len(found), err)
	}
}

// explainer returns a function that tells the plan of a query, as for a large
// table.
func explainer(t *testing.T, cfg Config) func(query string, args []any) string {
	t.Helper()
	prefix := "EXPLAIN QUERY PLAN "
	if cfg.Dir == "" {
		prefix = "EXPLAIN "
	}
	return func(query string, args []any) string {
		var b strings.Builder
		err := cfg.DB.View(t.Context(), func(tx *database.Tx) error {
			rows, err := tx.Query(t.Context(), prefix+query, args...)
			if err != nil {
				return err
			}
			defer rows.Close()
			columns, _ := rows.Columns()
			for rows.Next() {
				cells := make([]any, len(columns))
				for i := range cells {
					cells[i] = new(any)
				}
				if err := rows.Scan(cells...); err != nil {
					return err
				}
				fmt.Fprintln(&b, *cells[len(cells)-1].(*any))
			}
			return rows.Err()
		})
		if err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
}

// enlarged is how many rows enlarge adds.
const enlarged = 20_000

// enlarge makes a table in PostgreSQL look large: what is not in an index must
// not look free. The rows that it adds are found by none of the test's queries
// but that for times.
func enlarge(t *testing.T, cfg Config) {
	t.Helper()
	if cfg.Dir != "" {
		return
	}
	for _, query := range []string{
		`INSERT INTO audit_index (idx, at, kind, chain, application, caller, tenant, audience, purpose, request, fingerprint, uti, correlation, handed, ticket, person)
			SELECT -n, n, 'k' || n % 9, 'c' || n % 500, '', 'w' || n % 100, 't' || n % 900, 'a' || n % 9, 'p' || n % 9, 'r' || n, 'f' || n, 'u' || n, 'c' || n, CASE WHEN n % 50 = 0 THEN n ELSE 0 END, n, n
			FROM generate_series(1, 20000) n`,
		`ANALYZE audit_index`,
	} {
		if _, err := cfg.DB.Exec(t.Context(), query); err != nil {
			t.Fatal(err)
		}
	}
}
