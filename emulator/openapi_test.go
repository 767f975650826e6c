package emulator_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mandate-sam/mandate/emulator"
)

// A schema is as much of JSON Schema as the description of the admin API uses.
type schema struct {
	Ref                  string `json:"$ref"`
	AllOf                []*schema
	Type                 any
	Format               string
	Enum                 []any
	Properties           map[string]*schema
	Required             []string
	Items                *schema
	AdditionalProperties any
}

// description is the document that the admin API serves.
type description struct {
	Paths map[string]map[string]struct {
		Responses map[string]struct {
			Content map[string]struct{ Schema *schema }
		}
	}
	Components struct{ Schemas map[string]*schema }
}

func readDescription(t *testing.T) *description {
	t.Helper()
	data, err := os.ReadFile("openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	d := new(description)
	if err := json.Unmarshal(data, d); err != nil {
		t.Fatal(err)
	}
	return d
}

// resolve follows a reference.
func (d *description) resolve(s *schema) *schema {
	if len(s.AllOf) == 1 {
		s = s.AllOf[0]
	}
	if name, ok := strings.CutPrefix(s.Ref, "#/components/schemas/"); ok {
		return d.Components.Schemas[name]
	}
	return s
}

// check returns what is wrong with a value.
func (d *description) check(at string, v any, s *schema) error {
	if s = d.resolve(s); s == nil {
		return fmt.Errorf("%s: its schema is missing", at)
	}
	kind := map[bool]string{true: "null"}[v == nil]
	switch v := v.(type) {
	case bool:
		kind = "boolean"
	case string:
		kind = "string"
	case float64:
		kind = "integer"
	case []any:
		kind = "array"
		for i, x := range v {
			if err := d.check(fmt.Sprintf("%s[%d]", at, i), x, s.Items); err != nil {
				return err
			}
		}
	case map[string]any:
		kind = "object"
		if err := d.checkObject(at, v, s); err != nil {
			return err
		}
	}
	if allowed, ok := s.Type.([]any); ok && slices.Contains(allowed, any(kind)) || s.Type == kind {
		if s.Enum == nil || slices.Contains(s.Enum, v) {
			return nil
		}
	}
	return fmt.Errorf("%s: %v is not what its schema says", at, v)
}

func (d *description) checkObject(at string, v map[string]any, s *schema) error {
	for _, name := range s.Required {
		if _, ok := v[name]; !ok {
			return fmt.Errorf("%s: %q is missing", at, name)
		}
	}
	for name, x := range v {
		p := s.Properties[name]
		if p == nil && s.AdditionalProperties == false {
			return fmt.Errorf("%s: %q is not described", at, name)
		}
		if p == nil {
			continue
		}
		if err := d.check(at+"."+name, x, p); err != nil {
			return err
		}
	}
	return nil
}

// What the admin API shows is what its description says.
func TestAnswersAreDescribed(t *testing.T) {
	e := start(t)
	d := readDescription(t)
	rt := consented(t, e, 2, "admin@contoso.example").str("refresh_token")
	refresh(t, e, 2, "contoso.example", "x")
	refresh(t, e, 2, "contoso.example", rt)
	e.Dial(func(d *emulator.Dials) {
		d.Refusals = []emulator.Refusal{{Code: 53003, Tenant: "x"}}
		d.MFADemanded = map[string]bool{"x": false}
		d.TokenLatency, d.IDToken.Guest = time.Nanosecond, true
	})
	if err := e.SetVaultPolicies(emulator.DefaultVault, emulator.VaultPolicy{Principal: "admin@contoso.example", Keys: []string{"get"}}); err != nil {
		t.Fatal(err)
	}
	for path, methods := range d.Paths {
		answer, ok := methods["get"].Responses["200"].Content["application/json"]
		if !ok || path == "/emulator/openapi.json" {
			continue
		}
		code, body := admin(t, e, "GET", path, "")
		var v any
		if err := json.Unmarshal([]byte(body), &v); code != 200 || err != nil {
			t.Errorf("%s: status %d, %v", path, code, err)
			continue
		}
		if err := d.check(path, v, answer.Schema); err != nil {
			t.Error(err)
		}
	}
}

var capital = regexp.MustCompile(`([A-Za-z])([A-Z][a-z])`)

// Every dial is described, with its type, and no other is. A dial that is a
// duration has a name of its own in JSON.
func TestDialsAreDescribed(t *testing.T) {
	d := readDescription(t)
	compare(t, d, reflect.TypeFor[emulator.Dials]())
}

// compare holds a struct against the schema of its name.
func compare(t *testing.T, d *description, typ reflect.Type) {
	t.Helper()
	s := d.Components.Schemas[typ.Name()]
	if s == nil {
		t.Errorf("the type %s is not described", typ.Name())
		return
	}
	left := maps.Clone(s.Properties)
	for f := range typ.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" && f.Type.Kind() == reflect.Chan {
			continue // only in process
		}
		if name == "-" {
			name = strings.ToLower(capital.ReplaceAllString(f.Name, "${1}_$2"))
		}
		p := left[name]
		if p == nil {
			t.Errorf("%s.%s is not described as %q", typ.Name(), f.Name, name)
			continue
		}
		delete(left, name)
		compareType(t, d, typ.Name()+"."+name, f.Type, p)
	}
	for name := range left {
		t.Errorf("%s.%s is described, and not there", typ.Name(), name)
	}
}

func compareType(t *testing.T, d *description, at string, typ reflect.Type, p *schema) {
	t.Helper()
	want := map[reflect.Kind]string{reflect.Bool: "boolean", reflect.Int: "integer", reflect.String: "string", reflect.Slice: "array", reflect.Map: "object", reflect.Struct: "object"}[typ.Kind()]
	if typ == reflect.TypeFor[time.Duration]() {
		if want = "string"; p.Format != "duration" {
			t.Errorf("%s is not described as a duration", at)
		}
	}
	resolved := d.resolve(p)
	if resolved == nil || resolved.Type != want {
		t.Errorf("%s is not described as %s", at, want)
		return
	}
	switch {
	case typ.Kind() == reflect.Struct:
		compare(t, d, typ)
	case typ.Kind() == reflect.Slice && typ.Elem().Kind() == reflect.Struct:
		if p.Items.Ref != "#/components/schemas/"+typ.Elem().Name() {
			t.Errorf("%s: its elements are described as %q", at, p.Items.Ref)
		}
		compare(t, d, typ.Elem())
	}
}

// A dial's positions are those that the description lists.
func TestPositionsOfDials(t *testing.T) {
	e := start(t)
	d := readDescription(t)
	n := 0
	var walk func(s *schema, wrap func(value any) any)
	walk = func(s *schema, wrap func(any) any) {
		s = d.resolve(s)
		for _, v := range s.Enum {
			body, _ := json.Marshal(wrap(v))
			if code, answer := admin(t, e, "PATCH", "/emulator/dials", string(body)); code != 200 {
				t.Errorf("%s: %d: %s", body, code, answer)
			}
			n++
		}
		if s.Enum != nil {
			body, _ := json.Marshal(wrap("nonsense"))
			if code, _ := admin(t, e, "PATCH", "/emulator/dials", string(body)); code != 400 {
				t.Errorf("%s: %d, want 400", body, code)
			}
		}
		for name, p := range s.Properties {
			walk(p, func(v any) any { return wrap(map[string]any{name: v}) })
		}
		if s.Items != nil && d.resolve(s.Items).Properties["code"] == nil { // a code is required, and has no list
			walk(s.Items, func(v any) any { return wrap([]any{v}) })
		}
	}
	walk(d.Components.Schemas["Dials"], func(v any) any { return v })
	if n < 20 {
		t.Errorf("only %d positions are described", n)
	}
}
