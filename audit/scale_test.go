package audit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

var (
	scale = flag.Int("scale", 1500, "how many records are searched")

	// scaleDir is kept, so that the same log can be searched again.
	scaleDir = flag.String("scaledir", "", "directory for the log in files of -scale; a later run searches what is there")

	// scaleURL too. It has the index alone: records are made when one is read.
	scaleURL = flag.String("scaleurl", "", "PostgreSQL database for the index of -scale records; a later run searches what is there")
)

// A generator makes a year of records: 500 partners, of which the first has
// every third record; one caller that is everywhere and one that was seen a
// few times, long ago; tokens that are handed out again and again.
type generator struct {
	all   int
	start time.Time
}

const scalePartners, scaleCustomers = 500, 20_000

func newGenerator(all int) *generator {
	return &generator{all: all, start: time.Now().UTC().AddDate(-1, 0, 0).Truncate(time.Hour)}
}

// at is when the i-th record was made.
func (g *generator) at(i int) time.Time {
	return g.start.Add(time.Duration(float64(i) / float64(g.all) * float64(360*24*time.Hour)))
}

func scaleID(kind, n int) string { return fmt.Sprintf("%08x-0000-4000-8000-%012x", kind, n) }

func scaleSum(kind string, n int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", kind, n))
	return hex.EncodeToString(sum[:])
}

// record returns the i-th.
func (g *generator) record(i int) mandate.Record {
	random := rand.New(rand.NewPCG(1, uint64(i)))
	p := 0
	if random.IntN(3) > 0 {
		p = random.IntN(scalePartners)
	}
	r := testRecord(p, "")
	r.Time = g.at(i)
	r.Request, r.Ticket, r.Detail, r.Reason, r.User = scaleSum("request", i)[:26], "", "", "allowed by rule billing", nil
	r.Partner = fmt.Sprintf("partner-%d", p)
	customer := p + scalePartners*random.IntN(scaleCustomers/scalePartners)
	if random.IntN(5) > 0 {
		r.Tenant = must(mandate.ParseTenantID(scaleID(7, customer)))
	}
	// Most purposes are of one API, and most callers have one.
	caller := (p + random.IntN(3)) % 40
	purpose, audience := caller%12, caller%4
	r.Caller = mandate.CallerID(fmt.Sprintf("caller-%d", caller))
	if random.IntN(2) == 0 {
		r.Caller, purpose = "everywhere", customer%12
		if audience = purpose % 4; purpose%2 == 0 {
			audience = random.IntN(4)
		}
	}
	r.Purpose, r.Audience = fmt.Sprintf("purpose-%d", purpose), mandate.Audience(fmt.Sprintf("https://api-%d.test", audience))
	token, correlation := i/10, i/10
	switch n := random.IntN(1000); {
	case n < 20:
		r.Kind = mandate.KindDenied
	case n < 100:
		r.Kind = mandate.KindDecided
	case n < 300: // the one token that is in memory all the time
		token, correlation = -1, 1<<40
	case n < 380: // what became of the one before
		r.Request = scaleSum("request", i-1)[:26]
	}
	if r.Kind != mandate.KindDenied {
		r.Fingerprint, r.UTI, r.Correlation = scaleSum("token", token), scaleSum("uti", token)[:22], scaleID(8, correlation)
	}
	if r.Kind == mandate.KindIssued {
		r.Granted = []mandate.Scope{"User.Read", fmt.Sprintf("Things.Read.%d", audience)}
	}
	if i%50 == 0 {
		r.Ticket = fmt.Sprintf("INC-%d", i)
	}
	if random.IntN(100) == 0 {
		r.User = &mandate.Identity{Tenant: r.Grant.Partner, Object: must(mandate.ParseObjectID(scaleID(9, random.IntN(50))))}
	}
	if i < g.all/50 && random.IntN(g.all/1000+1) == 0 || i == 10 {
		r.Caller, r.Purpose = "long-gone", "migration"
	}
	return r
}

// write appends records, many to a flush.
func (g *generator) write(t *testing.T, l *Log, from, to int) {
	t.Helper()
	for from < to {
		b := &batch{}
		for ; from < to && len(b.items) < 5000; from++ {
			r := g.record(from)
			month := monthOf(r.Time)
			k := must(l.keys.get(t.Context(), chainOf(&r), month, true))
			b.items = append(b.items, &item{kind: r.Kind, chain: chainOf(&r), epoch: r.Epoch, body: must(body(&r, chainOf(&r), month, newSalt(), k.aead))})
		}
		size, err := l.store.write(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		l.grew(size)
		if from%500_000 == 0 {
			t.Logf("%s: %d records", time.Now().Format(time.TimeOnly), from)
		}
	}
}

// Every filter finds what the records say, newest first, from a page to the
// next while records are added, and a report counts what it should. With -scale
// 10000000 the log says how long each takes. To fill PostgreSQL is minutes; a
// log in files, an hour.
//
//	go test ./audit -run TestAuditSearchAtScale/files -scale 10000000 -scaledir /somewhere -timeout 3h -v
//	go test ./audit -run TestAuditSearchAtScale/PostgreSQL -scale 10000000 -scaleurl postgres://… -timeout 1h -v
func TestAuditSearchAtScale(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config) {
		if *scaleDir != "" && cfg.Dir != "" {
			cfg = scaleConfig(t, *scaleDir)
		}
		if *scaleURL != "" && cfg.Dir == "" {
			cfg.DB = openPG(t, *scaleURL)
		}
		l := openLog(t, cfg)
		g := newGenerator(*scale)
		began := time.Now()
		if *scaleURL != "" && cfg.Dir == "" {
			g.fillIndex(t, l, *scaleURL)
		} else if l.Count() == 0 {
			g.write(t, l, 0, *scale)
			t.Logf("%d records written in %v", *scale, time.Since(began))
		}
		indexAll(t, l)
		searches := scaleSearches(g)
		for _, name := range slices.Sorted(maps.Keys(searches)) {
			s := searches[name]
			s.q.Limit = 50
			began := time.Now()
			page, err := l.Search(t.Context(), s.q)
			took := time.Since(began)
			if err != nil || len(page) == 0 && !s.none {
				t.Errorf("%s: %d records, %v", name, len(page), err)
			}
			for i := range page {
				if !s.fits(&page[i]) || i > 0 && page[i].Index >= page[i-1].Index {
					t.Errorf("%s finds %+v", name, page[i])
				}
			}
			t.Logf("%-32s %3d records %v", name, len(page), took.Round(100*time.Microsecond))
			if g.all < 100_000 {
				inSteps(l, func() {
					again, err := l.Search(t.Context(), s.q)
					if err != nil || !reflect.DeepEqual(again, page) {
						t.Errorf("%s finds %d records in steps, %v, want %d", name, len(again), err, len(page))
					}
				})
			}
		}
		scaleReports(t, l, g)
		if _, made := l.store.(*madeStore); !made {
			stablePages(t, l, g)
		}
	})
}

// inSteps calls f while nothing is rare and a statement looks at few records.
func inSteps(l *Log, f func()) {
	few, look := l.index.few, l.index.look
	defer func() { l.index.few, l.index.look = few, look }()
	l.index.few, l.index.look = 2, 97
	f()
}

// scaleReports makes reports, and counts the records itself if they are few.
func scaleReports(t *testing.T, l *Log, g *generator) {
	t.Helper()
	month := g.at(g.all).AddDate(0, 0, -30)
	for _, tt := range []struct {
		name string
		q    Query
	}{{"30 days", Query{From: month}}, {"30 days of the largest partner", Query{From: month, Chain: chainOfPartner(0)}}, {"30 days of a small partner", Query{From: month, Chain: chainOfPartner(77)}},
		{"all of the largest partner", Query{Chain: chainOfPartner(0)}}, {"all of a small partner", Query{Chain: chainOfPartner(77)}}, {"a user", Query{Person: scaleID(9, 3)}}, {"everything", Query{}}} {
		began := time.Now()
		uses, err := l.Report(t.Context(), tt.q)
		took := time.Since(began)
		if err != nil {
			t.Errorf("report of %s: %v", tt.name, err)
		}
		var got, want Usage
		for _, u := range uses {
			got.Issued, got.Denied, got.Possibly = got.Issued+u.Issued, got.Denied+u.Denied, got.Possibly+u.Possibly
			if u.Partner == "" || u.Issued > 0 && len(u.Scopes) < 2 || u.First.After(u.Last) {
				t.Errorf("report of %s: %+v", tt.name, u)
			}
		}
		t.Logf("report of %-32s %7d lines of %d tokens %v", tt.name, len(uses), got.Issued, took.Round(time.Millisecond))
		for i := 0; i < g.all && g.all < 100_000; i++ {
			switch r := g.record(i); {
			case !tt.q.From.IsZero() && r.Time.Before(tt.q.From) || tt.q.Chain != "" && tt.q.Chain != chainOf(&r),
				tt.q.Person != "" && (r.User == nil || r.User.Object.String() != tt.q.Person):
			case r.Kind == mandate.KindIssued:
				want.Issued++
			case r.Kind == mandate.KindDenied:
				want.Denied++
			case g.record(i+1).Request != r.Request:
				want.Possibly++
			}
		}
		if g.all < 100_000 {
			inSteps(l, func() {
				if again, err := l.Report(t.Context(), tt.q); err != nil || !reflect.DeepEqual(again, uses) {
					t.Errorf("report of %s in steps: %d lines, %v, want %d", tt.name, len(again), err, len(uses))
				}
			})
		}
		if g.all < 100_000 && (got.Issued != want.Issued || got.Denied != want.Denied || got.Possibly != want.Possibly) {
			t.Errorf("report of %s: got %+v, want %+v", tt.name, got, want)
		}
	}
}

// A madeStore makes records when they are read.
type madeStore struct {
	store
	log *Log
	g   *generator
}

func (s *madeStore) read(ctx context.Context, from, n int64) (out []line, err error) {
	for i := from; i < min(from+n, from+1000, int64(s.g.all)); i++ {
		r := s.g.record(int(i))
		k, err := s.log.keys.get(ctx, chainOf(&r), monthOf(r.Time), true)
		if err != nil {
			return nil, err
		}
		b, err := body(&r, chainOf(&r), monthOf(r.Time), newSalt(), k.aead)
		if err != nil {
			return nil, err
		}
		out = append(out, lineOf(i, appendEntry(nil, i, link{}, b)))
	}
	return out, nil
}

// fillIndex fills the index in PostgreSQL, if it is empty, as a dump is loaded:
// its own indexes come last.
func (g *generator) fillIndex(t *testing.T, l *Log, url string) {
	t.Helper()
	l.store = &madeStore{l.store, l, g}
	l.grew(int64(g.all))
	c, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.WithoutCancel(t.Context()))
	var next int64
	if err := c.QueryRow(t.Context(), `SELECT next FROM audit_indexed`).Scan(&next); err != nil {
		t.Fatal(err)
	}
	if next == int64(g.all) {
		return
	}
	exec := func(statement string, args ...any) {
		t.Helper()
		if _, err := c.Exec(t.Context(), statement, args...); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
		t.Logf("%s %.100s", time.Now().Format(time.TimeOnly), statement)
	}
	rows, err := c.Query(t.Context(), `SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'audit_index' AND indexname <> 'audit_index_pkey' ORDER BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	type named struct{ Name, Definition string }
	indexes, err := pgx.CollectRows(rows, pgx.RowToStructByPos[named])
	if err != nil {
		t.Fatal(err)
	}
	exec(`TRUNCATE audit_index`)
	for _, x := range indexes {
		exec(`DROP INDEX ` + x.Name)
	}
	columns := []string{"idx", "at", "kind", "chain", "application", "caller", "tenant", "audience", "purpose", "request", "fingerprint", "uti", "correlation", "handed", "granted", "ticket", "person"}
	i := 0
	_, err = c.CopyFrom(t.Context(), pgx.Identifier{"audit_index"}, columns, pgx.CopyFromFunc(func() ([]any, error) {
		if i == g.all {
			return nil, nil
		}
		r := g.record(i)
		e := Entry{Index: int64(i), Chain: chainOf(&r), Record: r}
		if _, err := l.keys.get(t.Context(), e.Chain, monthOf(r.Time), true); err != nil {
			return nil, err
		}
		if i++; i%500_000 == 0 {
			t.Logf("%s %d records", time.Now().Format(time.TimeOnly), i)
		}
		return l.index.columns(t.Context(), &e), nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	exec(`SET maintenance_work_mem = '1GB'`)
	for _, x := range indexes {
		exec(x.Definition)
	}
	exec(`VACUUM ANALYZE audit_index`)
	exec(`UPDATE audit_indexed SET next = ` + strconv.Itoa(g.all))
}

// indexAll fills the index.
func indexAll(t *testing.T, l *Log) {
	t.Helper()
	began, all := time.Now(), int64(0)
	for {
		end, err := l.index.step(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if end == all {
			break
		}
		if all = end; all%500_000 == 0 {
			t.Logf("%s: %d indexed", time.Now().Format(time.TimeOnly), all)
		}
	}
	t.Logf("%d indexed in %v", all, time.Since(began))
}

// scaleConfig is a log in files that stays.
func scaleConfig(t *testing.T, dir string) Config {
	t.Helper()
	key := filepath.Join(dir, "key")
	if _, err := os.Stat(key); err != nil {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := WriteKey(key, testOrigin); err != nil {
			t.Fatal(err)
		}
	}
	cfg := Config{Dir: filepath.Join(dir, "audit"), DB: openDB(t, filepath.Join(dir, "db")), Keys: &plainWrapper{}, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	index, err := database.Open(t.Context(), database.Config{File: filepath.Join(dir, "index.db"), Derived: true, Schemas: []database.Schema{Schema()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { index.Close() })
	cfg.Index = index
	if cfg.Signer, cfg.Public, err = ReadKey(key); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// A scaleSearch is a search, and what is true of all that it finds.
type scaleSearch struct {
	q    Query
	fits func(*Entry) bool
	none bool // may find nothing
}

func scaleSearches(g *generator) map[string]scaleSearch {
	middle := g.at(g.all / 2)
	tenant, person := scaleID(7, 4), scaleID(9, 3)
	ticket := fmt.Sprintf("INC-%d", g.all/100*50)
	hot, uti, correlation, cold := scaleSum("token", -1), scaleSum("uti", -1)[:22], scaleID(8, 1<<40), scaleSum("token", 5)
	return map[string]scaleSearch{
		"nothing":                         {Query{}, func(*Entry) bool { return true }, false},
		"partner, large":                  {Query{Chain: chainOfPartner(0)}, func(e *Entry) bool { return e.Chain == chainOfPartner(0) }, false},
		"partner, small":                  {Query{Chain: chainOfPartner(77)}, func(e *Entry) bool { return e.Chain == chainOfPartner(77) }, g.all < 10_000},
		"customer":                        {Query{Tenant: tenant}, func(e *Entry) bool { return e.Tenant.String() == tenant }, g.all < 1_000_000},
		"kind, rare":                      {Query{Kind: mandate.KindDenied}, func(e *Entry) bool { return e.Kind == mandate.KindDenied }, false},
		"kind, common":                    {Query{Kind: mandate.KindIssued}, func(e *Entry) bool { return e.Kind == mandate.KindIssued }, false},
		"caller, everywhere":              {Query{Caller: "everywhere"}, func(e *Entry) bool { return e.Caller == "everywhere" }, false},
		"caller, long gone":               {Query{Caller: "long-gone"}, func(e *Entry) bool { return e.Caller == "long-gone" }, false},
		"purpose, common":                 {Query{Purpose: "purpose-3"}, func(e *Entry) bool { return e.Purpose == "purpose-3" }, false},
		"purpose, long gone":              {Query{Purpose: "migration"}, func(e *Entry) bool { return e.Purpose == "migration" }, false},
		"audience":                        {Query{Audience: "https://api-2.test"}, func(e *Entry) bool { return e.Audience == "https://api-2.test" }, false},
		"request":                         {Query{Request: scaleSum("request", g.all/3)[:26]}, func(e *Entry) bool { return e.Request == scaleSum("request", g.all/3)[:26] }, false},
		"fingerprint, everywhere":         {Query{Fingerprint: hot}, func(e *Entry) bool { return e.Fingerprint == hot }, false},
		"fingerprint, of one hour":        {Query{Fingerprint: cold}, func(e *Entry) bool { return e.Fingerprint == cold }, true},
		"uti, everywhere":                 {Query{UTI: uti}, func(e *Entry) bool { return e.UTI == uti }, false},
		"correlation, everywhere":         {Query{Correlation: correlation}, func(e *Entry) bool { return e.Correlation == correlation }, false},
		"ticket, of all partners":         {Query{Ticket: ticket}, func(e *Entry) bool { return e.Ticket == ticket }, false},
		"ticket that is nowhere":          {Query{Ticket: "INC-none", Chain: chainOfPartner(0)}, func(*Entry) bool { return false }, true},
		"user, of all partners":           {Query{Person: person}, func(e *Entry) bool { return e.User.Object.String() == person }, g.all < 100_000},
		"user, of one partner":            {Query{Person: person, Chain: chainOfPartner(0)}, func(e *Entry) bool { return e.User.Object.String() == person }, g.all < 100_000},
		"from the middle on":              {Query{From: middle}, func(e *Entry) bool { return !e.Time.Before(middle) }, false},
		"before the middle":               {Query{To: middle}, func(e *Entry) bool { return e.Time.Before(middle) }, false},
		"a day in the middle":             {Query{From: middle, To: middle.AddDate(0, 0, 1)}, func(e *Entry) bool { return !e.Time.Before(middle) && e.Time.Before(middle.AddDate(0, 0, 1)) }, false},
		"a day and a partner":             {Query{Chain: chainOfPartner(0), From: middle, To: middle.AddDate(0, 0, 1)}, func(e *Entry) bool { return e.Chain == chainOfPartner(0) && e.Time.Before(middle.AddDate(0, 0, 1)) }, g.all < 10_000},
		"before the middle, and a caller": {Query{Caller: "everywhere", To: middle}, func(e *Entry) bool { return e.Caller == "everywhere" && e.Time.Before(middle) }, false},
		"partner and kind":                {Query{Chain: chainOfPartner(0), Kind: mandate.KindDenied}, func(e *Entry) bool { return e.Chain == chainOfPartner(0) && e.Kind == mandate.KindDenied }, false},
		"common kind, rare caller":        {Query{Kind: mandate.KindIssued, Caller: "long-gone"}, func(e *Entry) bool { return e.Caller == "long-gone" }, true},
		"two that never met":              {Query{Purpose: "migration", Caller: "everywhere"}, func(*Entry) bool { return false }, true},
		"two common that never met":       {Query{Kind: mandate.KindDenied, Fingerprint: hot}, func(*Entry) bool { return false }, true},
		"purpose and API that never met":  {Query{Purpose: "purpose-5", Audience: "https://api-2.test"}, func(*Entry) bool { return false }, true},
		"partner, caller, purpose, API":   {Query{Chain: chainOfPartner(0), Caller: "everywhere", Purpose: "purpose-4", Audience: "https://api-2.test"}, func(e *Entry) bool { return e.Caller == "everywhere" && e.Purpose == "purpose-4" }, g.all < 10_000},
	}
}

// stablePages reads pages while records are added: what was there is found
// once, and nothing that came later.
func stablePages(t *testing.T, l *Log, g *generator) {
	t.Helper()
	const pages, each = 30, 20
	q := Query{Caller: "everywhere", Limit: each}
	all, err := l.Search(t.Context(), Query{Caller: "everywhere", Limit: pages * each})
	if err != nil {
		t.Fatal(err)
	}
	from := int(l.Count())
	var paged []Entry
	for i := range pages {
		page, err := l.Search(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		paged = append(paged, page...)
		if len(page) < each {
			break
		}
		q.Before = page[each-1].Index
		g.write(t, l, from+100*i, from+100*(i+1))
	}
	if !slices.EqualFunc(all, paged, func(a, b Entry) bool { return a.Index == b.Index }) {
		t.Errorf("%d records in pages, %d at once", len(paged), len(all))
	}
}
