package yamlfile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

type doc struct {
	Listen string `yaml:"listen"`
	Portal struct {
		PublicURL string `yaml:"public_url"`
	} `yaml:"portal"`
	Rules []struct {
		Name    string   `yaml:"name"`
		Callers []string `yaml:"callers"`
	} `yaml:"rules"`
}

func TestDecode(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"good", "listen: a\nportal:\n  public_url: b\nrules:\n- name: c\n", ""},
		{"empty", "", ""},
		{"unknown", "listen: a\nportal:\n  publc_url: b\n", `f.yaml:3:3: unknown key "publc_url"; did you mean "public_url"?`},
		{"unknown, nothing near", "zebra: a\n", `f.yaml:1:1: unknown key "zebra"`},
		{"unknown in a list", "rules:\n- nam: x\n", `f.yaml:2:3: unknown key "nam"; did you mean "name"?`},
		{"twice", "listen: a\nlisten: b\n", `f.yaml:2:1: `},
		{"wrong type", "rules: 7\n", "f.yaml:1:8: "},
		{"two documents", "listen: a\n---\nlisten: b\n", "more than one YAML document"},
		{"not YAML", "listen: [", "f.yaml:1:"},
		{"a tag for a list, on which the parser panics", "listen: a\nrules:\n  - name: a\n    callers:\n      ! 0\nportal: {}\n", "f.yaml:5: cannot be read"},
		{"too long", strings.Repeat("#", MaxSize+1), "longer than"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var d doc
			err := Decode("f.yaml", []byte(tt.in), &d)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("Decode(%.40q) = %v, want %q", tt.in, err, tt.want)
			}
		})
	}
}

// A secret written into a configuration by mistake must not be repeated by
// the error about the line beside it.
func TestDecodeShowsNoSource(t *testing.T) {
	err := Decode("f", []byte("listen: canary-secret\nlitsen: canary-secret\n"), &doc{})
	if err == nil || strings.Contains(err.Error(), "canary") {
		t.Errorf("error %v, want one without the source", err)
	}
}

func TestRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	if err := Read(path, &doc{}); !os.IsNotExist(err) {
		t.Errorf("Read of a missing file = %v", err)
	}
	os.WriteFile(path, []byte("listen: x"), 0o600)
	var d doc
	if err := Read(path, &d); err != nil || d.Listen != "x" {
		t.Errorf("Read = %+v, %v", d, err)
	}
}

// A key is suggested if it is near, for the length of what was written.
func TestSuggestion(t *testing.T) {
	for in, want := range map[string]string{
		"listn": `; did you mean "listen"?`, "publicurl": `; did you mean "public_url"?`, "pblicurls": `; did you mean "public_url"?`, "nmae": "", "x": "",
	} {
		err := Decode("f", []byte(in+": a\n"), &doc{})
		if text := `f:1:1: unknown key "` + in + `"` + want; err == nil || err.Error() != text {
			t.Errorf("got %v, want %s", err, text)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("listen: a\nportal: {public_url: b}\n"))
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte("rules:\n  - name: a\n    callers:\n      ! 0"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var d doc
		Decode("f", data, &d)
	})
}

func TestLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.yaml")
	text := "a: 1\nb:\n  c:\n    d: x\n  list:\n    - e: 1\n      f: 2\n    - e: 3\n  flow: {g: 1, h: [2]}\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for field, want := range map[string]int{
		"a": 1, "b": 3, "b.c": 4, "b.c.d": 4, "b.c.d.z": 4, "b.c.z": 4, "b.list[0].e": 6, "b.list[0].f": 7, "b.list[1]": 8, "b.list[1].z": 8,
		"b.list[9]": 6, "b.flow.h": 9, "z": 0, "": 0, "..": 0, "b.list[x]": 6, "$": 0,
	} {
		if got := Line(path, field); got != want {
			t.Errorf("%q is on line %d, want %d", field, got, want)
		}
	}
	if got := Line(path+"x", "a"); got != 0 {
		t.Errorf("in an absent file: line %d", got)
	}
}
