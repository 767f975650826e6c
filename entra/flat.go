package entra

import "bytes"

// maxMembers is how many members [flat] reads. Entra's answers and ID tokens
// have a third of that.
const maxMembers = 32

// A field is where the value of one member goes: as a string, or as a number,
// which may also be written as a string.
type field struct {
	name   string
	text   *string
	number **number
}

// flat reads a JSON object whose members are plain: strings of printable ASCII
// without escapes, whole numbers, true and false. That is what Entra's answers
// are, and reading them in general takes ten times as long, which is most of
// the time that a redemption takes here.
//
// It is for nothing about which two readers could disagree. Of anything else,
// such as a name that comes twice, it reports false, and then the fields may
// have been set and mean nothing: whoever calls it reads the whole in general.
func flat(b []byte, fields []field) bool {
	names := make([][]byte, 0, maxMembers)
	r := flatReader{b}
	if !r.next('{') {
		return false
	}
	for {
		name, ok := r.text()
		if !ok || len(names) == maxMembers || !r.next(':') {
			return false
		}
		for _, n := range names {
			if bytes.Equal(n, name) {
				return false
			}
		}
		names = append(names, name)
		if !r.value(fieldOf(fields, name)) {
			return false
		}
		if r.next(',') {
			continue
		}
		return r.next('}') && len(r.space()) == 0
	}
}

func fieldOf(fields []field, name []byte) *field {
	for i := range fields {
		if fields[i].name == string(name) {
			return &fields[i]
		}
	}
	return nil
}

// A flatReader is what is left to be read.
type flatReader struct{ b []byte }

// space skips white space, and returns the rest.
func (r *flatReader) space() []byte {
	r.b = bytes.TrimLeft(r.b, " \t\r\n")
	return r.b
}

// next skips c and the white space before it, if c comes next.
func (r *flatReader) next(c byte) bool {
	if b := r.space(); len(b) == 0 || b[0] != c {
		return false
	}
	r.b = r.b[1:]
	return true
}

// text reads a plain string.
func (r *flatReader) text() ([]byte, bool) {
	if !r.next('"') {
		return nil, false
	}
	end := bytes.IndexByte(r.b, '"')
	if end < 0 {
		return nil, false
	}
	s := r.b[:end]
	for _, c := range s {
		if c < ' ' || c > '~' || c == '\\' {
			return nil, false
		}
	}
	r.b = r.b[end+1:]
	return s, true
}

// value reads a plain value into f, or into nothing if f is nil.
func (r *flatReader) value(f *field) bool {
	if b := r.space(); len(b) > 0 && b[0] == '"' {
		s, ok := r.text()
		if !ok || f == nil {
			return ok
		}
		if f.text != nil {
			*f.text = string(s)
			return true
		}
		return f.set(s)
	}
	word := r.word()
	switch {
	case f != nil && f.number != nil:
		return plainNumber(word) && f.set(word)
	case f != nil:
		return false
	}
	return plainNumber(word) || string(word) == "true" || string(word) == "false"
}

// word reads letters and digits.
func (r *flatReader) word() []byte {
	n := 0
	for n < len(r.b) && (r.b[n] >= '0' && r.b[n] <= '9' || r.b[n] >= 'a' && r.b[n] <= 'z') {
		n++
	}
	w := r.b[:n]
	r.b = r.b[n:]
	return w
}

// plainNumber reports whether w is a whole number as JSON writes it.
func plainNumber(w []byte) bool {
	for _, c := range w {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(w) > 0 && (w[0] != '0' || len(w) == 1)
}

// set reads a number that may have been in a string.
func (f *field) set(digits []byte) bool {
	n := new(number)
	if !plainNumber(digits) || n.UnmarshalJSON(digits) != nil {
		return false
	}
	*f.number = n
	return true
}
