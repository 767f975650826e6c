package audit

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/mandate-sam/mandate"
)

// An evidence is what an auditor may have beside an export and the public key.
type evidence struct {
	kept     []byte // a checkpoint of 20 records, from a witness
	receipts []mandate.Receipt
}

// A forgery is an export that somebody has made of an honest one of 30
// records, and who can see that: the export alone, a checkpoint that was kept,
// a receipt that was kept. first is the record that must be named by the first
// of those who see it.
type forgery struct {
	name                 string
	forge                func(t *testing.T, honest []byte) []byte
	alone, kept, receipt bool
	first                int64
}

// entriesOf splits an export into what stands before the records, the records,
// and what stands behind.
func entriesOf(export []byte) (before, entries, after []string) {
	for line := range strings.Lines(string(export)) {
		switch {
		case strings.HasPrefix(line, `{"index":`):
			entries = append(entries, line)
		case len(entries) == 0:
			before = append(before, line)
		default:
			after = append(after, line)
		}
	}
	return before, entries, after
}

// edit makes a forgery that changes the list of records.
func edit(f func(entries []string) []string) func(*testing.T, []byte) []byte {
	return func(_ *testing.T, honest []byte) []byte {
		before, entries, after := entriesOf(honest)
		return []byte(strings.Join(slices.Concat(before, f(entries), after), ""))
	}
}

// changed changes the content of one record, in the clear.
func changed(entries []string, i int) []string {
	entries[i] = strings.Replace(entries[i], `"purpose":"invoice"`, `"purpose":"inv0ice"`, 1)
	return entries
}

// relinked makes numbers and chains right again after records were changed.
func relinked(entries []string) []string {
	links := make(map[string]link)
	out := make([]string, len(entries))
	for i, line := range entries {
		h, _, err := parseHead([]byte(strings.TrimSuffix(line, "\n")))
		if err != nil {
			panic(err)
		}
		_, body, _ := strings.Cut(line, `","salt":`)
		b := appendEntry(nil, int64(i), links[h.chain], []byte(`"salt":`+strings.TrimSuffix(body, "\n")))
		links[h.chain] = link{links[h.chain].seq + 1, tlog.RecordHash(b)}
		out[i] = string(b) + "\n"
	}
	return out
}

// traceOf is what is left of a record whose content was dropped.
func traceOf(entry string) string {
	v := lineOf(0, []byte(strings.TrimSuffix(entry, "\n")))
	h, _, err := parseHead(v.text)
	if err != nil {
		panic(err)
	}
	v.index = h.index
	return string(v.trace()) + "\n"
}

// ending makes a forgery that changes what stands behind the records.
func ending(f func(after []string) []string) func(*testing.T, []byte) []byte {
	return func(_ *testing.T, honest []byte) []byte {
		before, entries, after := entriesOf(honest)
		return []byte(strings.Join(slices.Concat(before, entries, f(after)), ""))
	}
}

// resigned is a whole export of other records, by somebody who has the key.
func resigned(signer note.Signer, f func(entries []string) []string) func(*testing.T, []byte) []byte {
	return func(t *testing.T, honest []byte) []byte {
		before, entries, _ := entriesOf(honest)
		entries = f(entries)
		var front frontier
		links := make(map[string]link)
		for _, line := range entries {
			b := []byte(strings.TrimSuffix(line, "\n"))
			h, _, err := parseHead(b)
			if err != nil {
				t.Fatal(err)
			}
			leaf := tlog.RecordHash(b)
			front.add(leaf)
			links[h.chain] = link{h.seq, leaf}
		}
		old, err := parseCheckpointLine([]byte(strings.TrimSpace(before[len(before)-1])))
		if err != nil {
			t.Fatal(err)
		}
		text, _, _ := strings.Cut(string(old), "\n\n")
		c := must(parseCheckpointText(text + "\n"))
		heads, leaves := chainHeads(links)
		c.Size, c.Root, c.Chains = front.size, front.root(), treeOf(leaves)
		signed := must(note.Sign(&note.Note{Text: c.text()}, signer))
		var b bytes.Buffer
		w := newLineWriter(&b)
		w.raw(checkpointLine(signed))
		return []byte(before[0] + flush(w, &b) + strings.Join(entries, "") + headsText(heads))
	}
}

func headsText(heads []ChainHead) string {
	var b bytes.Buffer
	w := newLineWriter(&b)
	w.heads(heads)
	return flush(w, &b)
}

func flush(w *lineWriter, b *bytes.Buffer) string {
	if err := w.end(); err != nil {
		panic(err)
	}
	return b.String()
}

// forgeries are what somebody may do who can write the export, or the
// database; those at the end have stolen the log's key as well.
func forgeries(signer, stranger note.Signer, older []byte) []forgery {
	drop := func(entries []string, i int) []string { return slices.Delete(entries, i, i+1) }
	return []forgery{
		{"a record is changed", edit(func(e []string) []string { return changed(e, 7) }), true, true, true, 7},
		{"the last record of a partner is changed", edit(func(e []string) []string { return changed(e, 28) }), true, true, true, 28},
		{"a record is changed, and the chain made to fit", edit(func(e []string) []string { return relinked(changed(e, 7)) }), true, true, true, -1},
		{"a record is deleted", edit(func(e []string) []string { return drop(e, 7) }), true, true, true, 7},
		{"a record is deleted, and the rest renumbered", edit(func(e []string) []string { return relinked(drop(e, 7)) }), true, true, true, -1},
		{"a record is inserted", edit(func(e []string) []string { return slices.Insert(e, 7, e[3]) }), true, true, true, 7},
		{"a record is inserted, and the rest renumbered", edit(func(e []string) []string { return relinked(slices.Insert(e, 7, e[3])) }), true, true, true, -1},
		{"two records change places", edit(func(e []string) []string { e[7], e[8] = e[8], e[7]; return e }), true, true, true, 7},
		{"the content of a record is taken out", edit(func(e []string) []string { e[7] = traceOf(e[7]); return e }), true, true, true, 7},
		{"the list of last records is changed", ending(func(a []string) []string { return []string{strings.Replace(a[0], `"seq":10,`, `"seq":11,`, 1)} }), true, true, true, -1},
		{"the list of last records is left out", ending(func([]string) []string { return nil }), true, true, true, -1},
		{"the list of last records stands before them", func(_ *testing.T, b []byte) []byte {
			before, entries, after := entriesOf(b)
			return []byte(strings.Join(slices.Concat(before, after, entries), ""))
		}, true, true, true, 0},
		{"the last records are cut off", edit(func(e []string) []string { return e[:25] }), true, true, true, 25},
		{"a record is cut off in the middle", func(_ *testing.T, b []byte) []byte { return b[:len(b)-len(b)/3] }, true, true, true, -1},
		{"the checkpoint is signed by somebody else", resigned(stranger, func(e []string) []string { return e }), true, true, true, -1},
		{"an older export, or an older database, takes its place", func(*testing.T, []byte) []byte { return older }, false, true, true, 15},
		{"with the stolen key, a record is changed and all is signed anew", resigned(signer, func(e []string) []string { return relinked(changed(e, 7)) }), false, true, true, -1},
		{"with the stolen key, a record is left out and all is signed anew", resigned(signer, func(e []string) []string { return relinked(drop(e, 7)) }), false, true, true, -1},
		{"with the stolen key, the newest record is left out, before a witness saw it", resigned(signer, func(e []string) []string { return e[:29] }), false, false, true, 29},
		{"two partners are shown different logs", resigned(signer, func(e []string) []string { return relinked(changed(e, 12)) }), false, true, true, -1},
	}
}

// Every way to change the log is detected by an export alone, by a checkpoint
// that a witness kept, or by a receipt; and the table says which needs what.
func TestTamperExport(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config) {
		signer, public, _ := signing(t)
		cfg.Signer, cfg.Public = signer, public
		stranger, _, _ := signing(t)
		l := openLog(t, cfg)
		e := evidence{receipts: fill(t, l, 15)}
		older := export(t, l, Export{Whole: true})
		e.receipts = append(e.receipts, fill(t, l, 5)...)
		e.kept = must(l.Checkpoint(t.Context()))
		e.receipts = append(e.receipts, fill(t, l, 10)...)
		honest := export(t, l, Export{Whole: true})
		for _, v := range []Verification{{Key: public}, {Key: public, Checkpoints: [][]byte{e.kept}}, {Key: public, Receipts: e.receipts}} {
			if got := verify(t, honest, v); !got.OK || got.Records != 30 || got.Size != 30 {
				t.Fatalf("the honest export: %+v", got)
			}
		}
		t.Logf("%-76s %-7s %-11s %-8s %s", "what was done", "export", "checkpoint", "receipt", "what is said first")
		for _, f := range forgeries(signer, stranger, older) {
			forged := f.forge(t, bytes.Clone(honest))
			alone := verify(t, forged, Verification{Key: public})
			kept := verify(t, forged, Verification{Key: public, Checkpoints: [][]byte{e.kept}})
			receipt := verify(t, forged, Verification{Key: public, Receipts: e.receipts})
			first := alone
			for _, v := range []Verdict{kept, receipt} {
				if first.OK {
					first = v
				}
			}
			t.Logf("%-76s %-7s %-11s %-8s %s", f.name, seen(alone), seen(kept), seen(receipt), first.Problem)
			if alone.OK == f.alone || kept.OK == f.kept || receipt.OK == f.receipt {
				t.Errorf("%s: detected by export %v, checkpoint %v, receipt %v; want %v, %v, %v", f.name, !alone.OK, !kept.OK, !receipt.OK, f.alone, f.kept, f.receipt)
			}
			if f.first >= 0 && first.First != f.first {
				t.Errorf("%s: names record %d, want %d: %s", f.name, first.First, f.first, first.Problem)
			}
		}
	})
}

func seen(v Verdict) string {
	if v.OK {
		return "-"
	}
	return "sees"
}

// What was done to the files or tables of a log is refused at the next start,
// or seen in the next export, and the first record that is wrong is named: by
// files, and by tables. Where all numbers and chains were made to fit, none
// can be.
func TestTamperStored(t *testing.T) {
	for name, tt := range map[string]struct {
		change        func(lines []string) []string
		files, tables string
	}{
		"changed":          {func(e []string) []string { return changed(e, 7) }, "after record 7", "record 7"},
		"the last changed": {func(e []string) []string { return changed(e, 29) }, "one of the first 30", "record 29"},
		"deleted":          {func(e []string) []string { return slices.Delete(e, 7, 8) }, "record 7", "record 29 is missing"}, // all others moved up
		"inserted":         {func(e []string) []string { return slices.Insert(e, 7, e[3]) }, "record 7", "record 7"},
		"reordered":        {func(e []string) []string { e[7], e[8] = e[8], e[7]; return e }, "record 7", "record 7"},
		"truncated":        {func(e []string) []string { return e[:25] }, "there are 25", "record 25 is missing"},
		"relinked":         {func(e []string) []string { return relinked(changed(e, 7)) }, "one of the first 30", "record"},
	} {
		t.Run(name, func(t *testing.T) {
			engines(t, func(t *testing.T, cfg Config) {
				want := tt.tables
				if cfg.Dir != "" {
					want = tt.files
				}
				l := openLog(t, cfg)
				fill(t, l, 30)
				must(l.Checkpoint(t.Context()))
				rewrite(t, cfg, l, tt.change)
				l.Close()
				if got := whatIsSaid(t, cfg); !strings.Contains(got, want) {
					t.Errorf("%q is said, want %q", got, want)
				}
			})
		})
	}
}

// whatIsSaid opens a log, exports and verifies it, and returns what is wrong
// with it, or "".
func whatIsSaid(t *testing.T, cfg Config) string {
	t.Helper()
	l, err := Open(t.Context(), cfg)
	if err != nil {
		return "at the start: " + err.Error()
	}
	defer l.Close()
	var b bytes.Buffer
	if err := l.Export(t.Context(), &b, Export{Whole: true}); err != nil {
		return "at the export: " + err.Error()
	}
	got := verify(t, b.Bytes(), Verification{Key: cfg.Public})
	if got.OK {
		return ""
	}
	return fmt.Sprintf("in the export: record %d: %s", got.First, got.Problem)
}

// The checkpoint that is kept with the log is exchanged: for that of another
// log, of another key, or for one that is older, which alone proves nothing.
func TestTamperCheckpoint(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config) {
		other := testConfig(t)
		other.Signer, other.Public = cfg.Signer, cfg.Public
		sameKey := openLog(t, other)
		fill(t, sameKey, 12)
		stranger := openLog(t, testConfig(t))
		fill(t, stranger, 12)
		cfg.Memory = filepath.Join(t.TempDir(), "memory")
		l := openLog(t, cfg)
		fill(t, l, 10)
		older := must(l.Checkpoint(t.Context()))
		fill(t, l, 5)
		newest := must(l.Checkpoint(t.Context()))
		l.Close()
		for name, tt := range map[string]struct {
			note []byte
			want string
		}{
			"of another log":     {must(sameKey.Checkpoint(t.Context())), "one of the first 12 records"},
			"of another key":     {must(stranger.Checkpoint(t.Context())), "the last checkpoint"},
			"with another size":  {bytes.Replace(newest, []byte("\n15\n"), []byte("\n14\n"), 1), "the last checkpoint"},
			"cut off":            {newest[:len(newest)/2], "the last checkpoint"},
			"empty":              {[]byte{}, "the last checkpoint"},
			"older, and no harm": {older, ""},
		} {
			exchange(t, cfg, newest, tt.note)
			got := whatIsSaid(t, cfg)
			if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
				t.Errorf("%s: %q is said, want %q", name, got, tt.want)
			}
			exchange(t, cfg, tt.note, newest)
		}
	})
}

// exchange puts a checkpoint in the place of another.
func exchange(t *testing.T, cfg Config, old, note []byte) {
	t.Helper()
	var err error
	if cfg.Dir != "" {
		err = os.WriteFile(filepath.Join(cfg.Dir, "checkpoint"), note, 0o600)
	} else {
		_, err = cfg.DB.Exec(t.Context(), `UPDATE audit_checkpoints SET note = $1 WHERE note = $2`, string(note), string(old))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// rewrite changes the stored entries, as somebody would who has the disk or
// the database, and does not know how to make hashes fit.
func rewrite(t *testing.T, cfg Config, l *Log, f func([]string) []string) {
	t.Helper()
	var lines []string
	for v, err := range l.lines(t.Context(), 0, l.Count()) {
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, string(v.text)+"\n")
	}
	after := f(slices.Clone(lines))
	if cfg.Dir != "" {
		if err := os.WriteFile(filepath.Join(cfg.Dir, fmt.Sprintf("%020d.log", 0)), []byte(strings.Join(after, "")), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	for i := range max(len(lines), len(after)) {
		var err error
		switch {
		case i >= len(after):
			_, err = cfg.DB.Exec(t.Context(), `DELETE FROM audit_entries WHERE idx = $1`, int64(i))
		case i >= len(lines):
			_, err = cfg.DB.Exec(t.Context(), `INSERT INTO audit_entries (idx, at, leaf, entry) VALUES ($1, 0, $2, $3)`, int64(i), make([]byte, 32), []byte(strings.TrimSpace(after[i])))
		default:
			_, err = cfg.DB.Exec(t.Context(), `UPDATE audit_entries SET entry = $2 WHERE idx = $1`, int64(i), []byte(strings.TrimSpace(after[i])))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A copy of the database, or of the directory, from before is whole in itself.
// The file outside of it remembers more.
func TestTamperOlderDatabase(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config) {
		cfg.Memory = filepath.Join(t.TempDir(), "memory")
		l := openLog(t, cfg)
		fill(t, l, 20)
		must(l.Checkpoint(t.Context()))
		restore := backup(t, cfg)
		fill(t, l, 10)
		must(l.Checkpoint(t.Context()))
		if cfg.Dir == "" {
			restore()
			if _, err := l.Record(t.Context(), testRecord(0, "x")); !errors.Is(err, mandate.ErrUnavailable) {
				t.Errorf("a replica that runs: %v", err)
			}
		}
		l.Close()
		restore()
		_, err := Open(t.Context(), cfg)
		if !errors.Is(err, ErrChanged) || !strings.Contains(err.Error(), "30 records, and there are 20") {
			t.Errorf("got %v", err)
		}
		cfg.Memory = ""
		if _, err := Open(t.Context(), cfg); err != nil {
			t.Errorf("without the file nobody here can know: %v", err)
		}
	})
}

// backup copies what is stored, and returns a function that puts it back.
func backup(t *testing.T, cfg Config) func() {
	t.Helper()
	if cfg.Dir != "" {
		copied := t.TempDir()
		if err := os.CopyFS(filepath.Join(copied, "a"), os.DirFS(cfg.Dir)); err != nil {
			t.Fatal(err)
		}
		return func() {
			os.RemoveAll(cfg.Dir)
			if err := os.CopyFS(cfg.Dir, os.DirFS(filepath.Join(copied, "a"))); err != nil {
				t.Fatal(err)
			}
			names, _ := filepath.Glob(filepath.Join(cfg.Dir, "*"))
			for _, name := range names {
				os.Chmod(name, 0o600)
			}
		}
	}
	tables := []string{"audit_end", "audit_entries", "audit_chains", "audit_checkpoints"}
	run := func(format string) {
		for _, table := range tables {
			if _, err := cfg.DB.Exec(t.Context(), fmt.Sprintf(format, table)); err != nil {
				t.Fatal(err)
			}
		}
	}
	run(`CREATE TABLE old_%[1]s AS SELECT * FROM %[1]s`)
	return func() {
		run(`DELETE FROM %[1]s`)
		run(`INSERT INTO %[1]s SELECT * FROM old_%[1]s`)
	}
}

// The records of one partner, cut, changed or mixed with another's.
func TestTamperPartner(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config) {
		l := openLog(t, cfg)
		receipts := fill(t, l, 31)
		chain := chainOfPartner(1) // records 1, 4, … 28
		honest := export(t, l, Export{Chain: chain})
		if got := verify(t, honest, Verification{Key: cfg.Public, Receipts: receipts[28:29]}); !got.OK || got.Records != 10 {
			t.Fatalf("the honest export: %+v", got)
		}
		if strings.Contains(string(honest), partnerKey(0).Partner.String()) || strings.Contains(string(honest), partnerKey(2).Partner.String()) {
			t.Error("it names another partner")
		}
		other := export(t, l, Export{Chain: chainOfPartner(2)})
		lines := func() []string { return strings.SplitAfter(string(honest), "\n") }
		at := slices.IndexFunc(lines(), func(s string) bool { return strings.HasPrefix(s, `{"index":1,`) })
		for name, f := range map[string]func(l []string) []string{
			"a record left out":             func(l []string) []string { return slices.Delete(l, at+4, at+6) },
			"the last left out":             func(l []string) []string { return slices.Delete(l, at+18, at+20) },
			"the first left out":            func(l []string) []string { return slices.Delete(l, at, at+2) },
			"the end left out":              func(l []string) []string { return l[:at+20] },
			"the last and the end left out": func(l []string) []string { return l[:at+18] },
			"a record changed":              func(l []string) []string { l[at+4] = strings.Replace(l[at+4], "invoice", "inv0ice", 1); return l },
			"the last changed":              func(l []string) []string { l[at+18] = strings.Replace(l[at+18], "invoice", "inv0ice", 1); return l },
			"reordered":                     func(l []string) []string { l[at], l[at+2] = l[at+2], l[at]; return l },
			"a record's content taken out":  func(l []string) []string { l[at+4] = traceOf(l[at+4]); return l },
			"a line in between":             func(l []string) []string { return slices.Insert(l, at, "{}\n") },
			"a space behind a record":       func(l []string) []string { l[at+4] = strings.Replace(l[at+4], "\n", " \n", 1); return l },
			"a proof left out":              func(l []string) []string { return slices.Delete(l, at+5, at+6) },
			"another's record": func(l []string) []string {
				return slices.Insert(l, at, strings.SplitAfter(string(other), "\n")[at:at+2]...)
			},
		} {
			if got := verify(t, []byte(strings.Join(f(lines()), "")), Verification{Key: cfg.Public}); got.OK {
				t.Errorf("%s: nobody sees it", name)
			} else if name == "a space behind a record" && got.First != 7 {
				t.Errorf("%s: names record %d, want 7", name, got.First)
			} else {
				t.Logf("%s: record %d: %s", name, got.First, got.Problem)
			}
		}
	})
}

// With the stolen key, a partner is shown an end that is not the end: records
// come behind it.
func TestTamperPartnerEnd(t *testing.T) {
	cfg := testConfig(t)
	l := openLog(t, cfg)
	fill(t, l, 9)
	chain := chainOfPartner(1) // records 1, 4 and 7
	lines := strings.SplitAfter(string(export(t, l, Export{Chain: chain})), "\n")
	at := slices.IndexFunc(lines, func(s string) bool { return strings.HasPrefix(s, `{"index":1,`) })
	_, c, links, err := l.checkpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	links[chain] = link{2, lineOf(4, []byte(strings.TrimSuffix(lines[at+2], "\n"))).leaf}
	heads, leaves := chainHeads(links)
	c.Chains = treeOf(leaves)
	signed := must(note.Sign(&note.Note{Text: c.text()}, cfg.Signer))
	place, of := int64(1), int64(len(heads))
	var b bytes.Buffer
	w := newLineWriter(&b)
	w.raw(checkpointLine(signed))
	begin := lines[0] + flush(w, &b) + strings.Join(lines[at:at+4], "")
	b.Reset()
	w.json(proofLine{Proof: full(must(tlog.ProveRecord(of, place, reader{t.Context(), memory(leaves)}))), Index: &place, Of: &of, Head: &heads[place]})
	begin += flush(w, &b)
	if got := verify(t, []byte(begin), Verification{Key: cfg.Public}); !got.OK || got.Records != 2 {
		t.Fatalf("the forged end: %+v", got)
	}
	if got := verify(t, []byte(begin+lines[at+4]+lines[at+5]), Verification{Key: cfg.Public}); got.OK || got.First != 7 {
		t.Errorf("a record behind it: %+v, want record 7 named", got)
	}
}

// An export of many partners verifies, and is read, like one of few.
func TestAuditManyPartners(t *testing.T) {
	signer, public, _ := signing(t)
	const partners = 20_000
	links, c := make(map[string]link, partners), Checkpoint{Origin: testOrigin}
	var front frontier
	var entries bytes.Buffer
	for n := range partners {
		chain := chainOfPartner(n)
		line := appendEntry(nil, int64(n), link{}, []byte(`"salt":"AAAAAAAAAAAAAAAAAAAAAA==","epoch":0,"kind":"denied","chain":"`+chain+`","time":"2026-11-21T14:00:00Z","record":{},"month":"2026-11","sealed":""}`))
		entries.Write(append(line, '\n'))
		links[chain] = link{1, tlog.RecordHash(line)}
		front.add(links[chain].hash)
	}
	heads, leaves := chainHeads(links)
	c.Size, c.Root, c.Chains = front.size, front.root(), treeOf(leaves)
	var b bytes.Buffer
	w := newLineWriter(&b)
	w.json(exportHeader{Form: exportForm, Origin: testOrigin, Whole: true})
	w.raw(checkpointLine(must(note.Sign(&note.Note{Text: c.text()}, signer))))
	path := filepath.Join(t.TempDir(), "export")
	if err := os.WriteFile(path, []byte(flush(w, &b)+entries.String()+headsText(heads)), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := verify(t, must(os.ReadFile(path)), Verification{Key: public}); !got.OK || got.Chains != partners {
		t.Errorf("got %+v", got)
	}
	n := 0
	for _, err := range Offline(path) {
		if n++; err != nil {
			t.Fatal(err)
		}
	}
	if n != partners {
		t.Errorf("%d records offline, want %d", n, partners)
	}
}

// What an export is held against must be what it is taken for, or it would hold
// for nothing: a receipt of a record that cannot be, and a checkpoint that the
// log did not sign.
func TestAuditHeldAgainst(t *testing.T) {
	cfg := testConfig(t)
	l := openLog(t, cfg)
	receipts := fill(t, l, 3)
	other, _, _ := signing(t)
	kept := must(note.Sign(&note.Note{Text: (&Checkpoint{Origin: testOrigin}).text()}, other))
	for _, x := range []Export{{Whole: true}, {Chain: chainOfPartner(0)}} {
		data := export(t, l, x)
		for _, r := range []mandate.Receipt{{Index: -1, Hash: receipts[0].Hash}, {Index: 9, Hash: receipts[0].Hash}} {
			if got := verify(t, data, Verification{Key: cfg.Public, Receipts: []mandate.Receipt{receipts[0], r}}); got.OK || got.First != r.Index {
				t.Errorf("a receipt of record %d: %+v", r.Index, got)
			}
		}
		for what, signed := range map[string][]byte{"of another key": kept, "empty": {}} {
			if got, err := Verify(bytes.NewReader(data), Verification{Key: cfg.Public, Checkpoints: [][]byte{signed}}); err == nil || got.OK || got.Problem != "" {
				t.Errorf("a kept checkpoint %s: %+v, %v", what, got, err)
			}
		}
	}
}

// An export of the whole log does not pass for one partner's.
func TestTamperExportHeader(t *testing.T) {
	cfg := testConfig(t)
	l := openLog(t, cfg)
	fill(t, l, 3)
	data := bytes.Replace(export(t, l, Export{Whole: true}), []byte(`"chain":""`), []byte(`"chain":"`+chainOfPartner(0)+`"`), 1)
	if got, err := Verify(bytes.NewReader(data), Verification{Key: cfg.Public}); err == nil {
		t.Errorf("got %+v", got)
	}
}

// A key has a name that can stand in a signature.
func TestAuditKeyNames(t *testing.T) {
	for _, name := range []string{"", "a b", "a+b", "a\nb", "a\"b", "straße"} {
		if err := WriteKey(filepath.Join(t.TempDir(), "key"), name); err == nil {
			t.Errorf("%q is the name of a key", name)
		}
	}
}
