// Package yamlfile reads the YAML files that operators write, strictly: an
// unknown key, a key given twice or a value of the wrong type is refused with
// its line, and where a key looks misspelt the likely one is named.
package yamlfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"regexp"
	"sort"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/mandate-sam/mandate/internal/spelling"
)

// MaxSize is the largest file that is read, in bytes.
const MaxSize = 1 << 20

// Read decodes the file at path into v, as [Decode] does.
func Read(path string, v any) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return Decode(path, data, v)
}

// Decode decodes data into v, a pointer to a struct with yaml tags. Its errors
// begin with name and the line.
func Decode(name string, data []byte, v any) error {
	if len(data) > MaxSize {
		return fmt.Errorf("%s: longer than %d bytes", name, MaxSize)
	}
	d := yaml.NewDecoder(bytes.NewReader(data), yaml.Strict())
	panicked, err := decode(d, v)
	switch {
	case panicked:
		return fmt.Errorf("%s:%d: cannot be read as YAML", name, panicLine(data, v))
	case err != nil && !errors.Is(err, io.EOF):
		return describe(name, err, v)
	}
	if _, err := decode(d, new(any)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: has more than one YAML document", name)
	}
	return nil
}

// decode decodes one document. The parser panics on some texts that are no
// YAML, such as a tag where a list is wanted; a file must not end a server.
func decode(d *yaml.Decoder, v any) (panicked bool, err error) {
	defer func() {
		if recover() != nil {
			panicked = true
		}
	}()
	return false, d.Decode(v)
}

// panicLine returns the last line of the shortest beginning of data, in whole
// lines, on which the parser panics. That reads the file once for every
// doubling of its length, since what panics once goes on doing so.
func panicLine(data []byte, v any) int {
	lines := bytes.SplitAfter(data, []byte("\n"))
	return 1 + sort.Search(len(lines)-1, func(n int) bool {
		beginning := bytes.Join(lines[:n+1], nil)
		panicked, _ := decode(yaml.NewDecoder(bytes.NewReader(beginning), yaml.Strict()), reflect.New(reflect.TypeOf(v).Elem()).Interface())
		return panicked
	})
}

var unknownField = regexp.MustCompile(`unknown field "([^"]*)"`)

// describe rewrites goccy's error as "name:line:column: what", adding a
// suggestion for an unknown key. Source lines are left out: a secret that
// somebody wrote into a configuration must not end up in a log.
func describe(name string, err error, v any) error {
	msg := err.Error()
	var yerr yaml.Error
	if errors.As(err, &yerr) {
		msg = yerr.GetMessage()
		if tk := yerr.GetToken(); tk != nil && tk.Position != nil {
			name = fmt.Sprintf("%s:%d:%d", name, tk.Position.Line, tk.Position.Column)
		}
	}
	if m := unknownField.FindStringSubmatch(msg); m != nil {
		msg = fmt.Sprintf("unknown key %q", m[1])
		if s := spelling.Suggest(m[1], keys(reflect.TypeOf(v), nil)); s != "" {
			msg += fmt.Sprintf("; did you mean %q?", s)
		}
	}
	return fmt.Errorf("%s: %s", name, strings.TrimSpace(msg))
}

// keys lists the yaml keys of t and of what it contains.
func keys(t reflect.Type, seen []reflect.Type) []string {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		return keys(t.Elem(), seen)
	case reflect.Struct:
	default:
		return nil
	}
	for _, s := range seen {
		if s == t {
			return nil
		}
	}
	var out []string
	for f := range t.Fields() {
		if tag, _, _ := strings.Cut(f.Tag.Get("yaml"), ","); tag != "" && tag != "-" {
			out = append(out, tag)
		}
		out = append(out, keys(f.Type, append(seen, t))...)
	}
	return out
}

// Line returns the line in the file at path on which something is, by a path
// such as "grants.partners.contoso" or "keys[1].file"; or of the nearest thing
// above it that is there; or 0.
func Line(path, field string) int {
	data, err := os.ReadFile(path)
	if err != nil || len(data) > MaxSize {
		return 0
	}
	file, err := parser.ParseBytes(data, 0)
	if err != nil {
		return 0
	}
	for field != "" {
		if p, err := yaml.PathString("$." + field); err == nil {
			if node, err := p.FilterFile(file); err == nil && node != nil {
				return first(node)
			}
		}
		field = field[:max(strings.LastIndexAny(field, ".["), 0)]
	}
	return 0
}

// first returns the line on which a node begins. That of a mapping is found at
// its first key, since its own token is the colon behind that.
func first(node ast.Node) int {
	switch n := node.(type) {
	case *ast.MappingNode:
		if len(n.Values) > 0 {
			return first(n.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return first(n.Key)
	}
	if tk := node.GetToken(); tk != nil && tk.Position != nil {
		return tk.Position.Line
	}
	return 0
}
