package web

import (
	"bytes"
	"encoding/json"
	"io"
	"slices"
	"strings"

	"github.com/mandate-sam/mandate"
)

// checkKeys reports a body that is not exactly one JSON object, or that has a
// key twice in any object. Keys that differ only in case are the same to
// encoding/json, and so here.
//
// It runs on every request, so what is valid is walked once, without making
// tokens of it; why something is not is for encoding/json to say.
func checkKeys(body []byte) error {
	if trimmed := bytes.TrimLeft(body, " \t\r\n"); len(trimmed) == 0 || trimmed[0] != '{' {
		return mandate.Invalid("body", "must be a JSON object")
	}
	if !json.Valid(body) {
		return invalidJSON(body)
	}
	w := walker{rest: body}
	w.value()
	if w.twice != "" {
		return mandate.Invalid(w.twice, "is given twice")
	}
	return nil
}

// invalidJSON says what is wrong with a body that is not one JSON object.
func invalidJSON(body []byte) error {
	d := json.NewDecoder(bytes.NewReader(body))
	var v json.RawMessage
	if err := d.Decode(&v); err != nil {
		return fieldError(err)
	}
	if _, err := d.Token(); err != io.EOF {
		return mandate.Invalid("body", "has something after the JSON object")
	}
	return mandate.Invalid("body", "must be a JSON object")
}

// A walker goes through valid JSON.
type walker struct {
	rest  []byte
	twice string // the first key that was there twice in an object
}

// next returns the next byte that is not space.
func (w *walker) next() byte {
	w.rest = bytes.TrimLeft(w.rest, " \t\r\n")
	return w.rest[0]
}

// skip takes one byte away, and what space is before it.
func (w *walker) skip() {
	w.next()
	w.rest = w.rest[1:]
}

// value goes through one value of any kind.
func (w *walker) value() {
	switch w.next() {
	case '{':
		w.object()
	case '[':
		w.skip()
		for w.next() != ']' {
			if w.value(); w.next() == ',' {
				w.skip()
			}
		}
		w.skip()
	case '"':
		w.text()
	default: // a number or a word, which ends where something else begins
		end := bytes.IndexAny(w.rest, ",]} \t\r\n")
		if end < 0 {
			end = len(w.rest)
		}
		w.rest = w.rest[end:]
	}
}

// object goes through an object whose brace is next.
func (w *walker) object() {
	var few [16]string // most objects have no more keys
	seen := few[:0]
	var many map[string]bool // where looking through seen would take too long
	w.skip()
	for w.next() != '}' {
		name := unquote(w.text())
		key := fold(name)
		if (many[key] || slices.Contains(seen, key)) && w.twice == "" {
			w.twice = name
		}
		if len(seen) < len(few) {
			seen = append(seen, key)
		} else if many == nil {
			many = map[string]bool{key: true}
		} else {
			many[key] = true
		}
		w.skip() // the colon
		if w.value(); w.next() == ',' {
			w.skip()
		}
	}
	w.skip()
}

// text goes through a string and returns it with its quotes.
func (w *walker) text() []byte {
	w.next()
	for i := 1; ; i++ {
		switch w.rest[i] {
		case '\\':
			i++
		case '"':
			out := w.rest[:i+1]
			w.rest = w.rest[i+1:]
			return out
		}
	}
}

func unquote(quoted []byte) string {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return string(quoted[1 : len(quoted)-1])
	}
	var s string
	_ = json.Unmarshal(quoted, &s) // it is valid
	return s
}

// fold makes names equal that differ only in case.
func fold(name string) string { return strings.ToLower(strings.ToUpper(name)) }
