package audit

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// Whatever is in an export, verifying it ends with a verdict or an error; and
// what it takes for whole is what the log has signed.
func FuzzVerify(f *testing.F) {
	dir := f.TempDir()
	if err := WriteKey(filepath.Join(dir, "key"), testOrigin); err != nil {
		f.Fatal(err)
	}
	signer, public, err := ReadKey(filepath.Join(dir, "key"))
	if err != nil {
		f.Fatal(err)
	}
	cfg := testConfig(f)
	cfg.Signer, cfg.Public = signer, public
	l := openLog(f, cfg)
	fill(f, l, 7)
	whole, partner := export(f, l, Export{Whole: true}), export(f, l, Export{Chain: chainOfPartner(1), Since: []int64{3}})
	f.Add(whole)
	f.Add(partner)
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := Verify(bytes.NewReader(data), Verification{Key: public})
		if err != nil || !v.OK {
			return
		}
		// The first line is not signed, but for the name and the chain.
		_, rest, _ := bytes.Cut(data, []byte("\n"))
		_, a, _ := bytes.Cut(whole, []byte("\n"))
		if v.Chain == "" && !sameRecords(rest, a) {
			t.Errorf("an export that is not the log's holds:\n%s", data)
		}
	})
}

// sameRecords reports whether two exports have the same records.
func sameRecords(a, b []byte) bool {
	records := func(export []byte) (out [][]byte) {
		for line := range bytes.Lines(export) {
			if bytes.HasPrefix(line, []byte(`{"index":`)) {
				out = append(out, line)
			}
		}
		return out
	}
	x, y := records(a), records(b)
	if len(x) != len(y) {
		return false
	}
	for i := range x {
		if l := checkLine(bytes.TrimSpace(x[i])); l.leaf != checkLine(bytes.TrimSpace(y[i])).leaf {
			return false
		}
	}
	return true
}

// What is read as an entry is written again as the same bytes.
func FuzzEntry(f *testing.F) {
	f.Add([]byte(`{"index":0,"seq":1,"prev":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","salt":"AAAAAAAAAAAAAAAAAAAAAA==","epoch":1,"kind":"issued","chain":"a/b","time":"2026-11-21T00:00:00Z","record":{"a":"}"},"month":"2026-11","sealed":"AA=="}`))
	f.Add([]byte(`{"index":3,"leaf":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","seq":2,"chain":""}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if tr, err := parseTrace(b); err == nil && !bytes.Equal(tr.line(), b) {
			t.Errorf("%s is read, and written as %s", b, tr.line())
		}
		h, rest, err := parseHead(b)
		if err != nil {
			return
		}
		p, err := parseRest(rest)
		if err != nil {
			return
		}
		at := bytes.Index(b, []byte(`"salt":`))
		if again := appendEntry(nil, h.index, link{h.seq - 1, h.prev}, b[at:]); !bytes.Equal(again, b) {
			t.Errorf("%s is read, and written as %s", b, again)
		}
		if !balanced(p.record) {
			t.Errorf("the record %s is not one object", p.record)
		}
	})
}

func FuzzCheckpoint(f *testing.F) {
	f.Add("log.test/audit\n3\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\nepoch 1\ntime 2026-11-21T00:00:00Z\nchains AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n")
	f.Fuzz(func(t *testing.T, s string) {
		if c, err := parseCheckpointText(s); err == nil && c.text() != s {
			t.Errorf("%q is read, and written as %q", s, c.text())
		}
	})
}

func FuzzAddCheckpoint(f *testing.F) {
	cfg := testConfig(f)
	l := openLog(f, cfg)
	fill(f, l, 5)
	signed := must(l.Checkpoint(f.Context()))
	f.Add(append([]byte("old 0\n\n"), signed...))
	f.Add([]byte("old 3\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\nx"))
	f.Fuzz(func(t *testing.T, body []byte) {
		dir := t.TempDir()
		c := must(NewCosigner(dir, filepath.Join(dir, "k"), "w", cfg.Public))
		if _, err := c.add(body); err == nil {
			seen := must(os.ReadFile(c.path(testOrigin)))
			if p, err := ParseCheckpoint(seen, cfg.Public); err != nil || p.Size != 5 {
				t.Errorf("cosigned %q", body)
			}
		}
	})
}
