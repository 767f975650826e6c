package policy

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// What the documentation shows is what works: its rules compile together, and
// its tests pass.
func TestPolicyDocumentation(t *testing.T) {
	text, err := os.ReadFile("../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := map[string][]string{}
	for _, m := range regexp.MustCompile("(?s)```(cedar|yaml)\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		blocks[m[1]] = append(blocks[m[1]], m[2])
	}
	if len(blocks["cedar"]) < 3 || len(blocks["yaml"]) != 2 {
		t.Fatalf("found %d blocks of Cedar and %d of YAML", len(blocks["cedar"]), len(blocks["yaml"]))
	}
	s, err := Compile(Source{{"docs.cedar", strings.Join(blocks["cedar"], "\n")}, {GroupsFile, blocks["yaml"][0]}}, clouds())
	if err != nil {
		t.Fatal(err)
	}
	path := t.TempDir() + "/docs_test.yaml"
	if err := os.WriteFile(path, []byte(blocks["yaml"][1]), 0o600); err != nil {
		t.Fatal(err)
	}
	results, err := s.Test(path, clouds())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if !r.OK {
			t.Errorf("%+v", r)
		}
	}
	for name := range annotations {
		if !strings.Contains(string(text), "`@"+name+"(") {
			t.Errorf("@%s is not documented", name)
		}
	}
	for name := range attributes {
		if !strings.Contains(string(text), "context."+name) {
			t.Errorf("context.%s is not documented", name)
		}
	}
}
