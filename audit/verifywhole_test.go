package audit

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// Lines come whole, however they arrive and however long they are.
func TestLineReader(t *testing.T) {
	long := strings.Repeat("x", 3*verifyAtOnce)
	for name, text := range map[string]string{
		"none": "", "one": "a\n", "empty": "\n\n", "long": "a\n" + long + "\nb\n", "many": strings.Repeat("0123456789\n", 2*verifyAtOnce/10),
	} {
		for _, in := range []io.Reader{strings.NewReader(text), iotest.HalfReader(strings.NewReader(text)), iotest.DataErrReader(strings.NewReader(text))} {
			r := lineReader{in: in}
			var got strings.Builder
			var err error
			for err == nil {
				var b []byte
				b, err = r.read(append(make([]byte, 0, verifyAtOnce), '\n'))
				if b[0] != '\n' || b[len(b)-1] != '\n' {
					t.Fatalf("%s: half a line", name)
				}
				got.Write(b[1:])
			}
			if err != io.EOF || got.String() != text {
				t.Errorf("%s: got %d bytes of %d, and %v", name, got.Len(), len(text), err)
			}
		}
	}
	for name, text := range map[string]string{"cut off": "a\nb", "too long": strings.Repeat("x", 4*maxLine)} {
		r := lineReader{in: strings.NewReader(text)}
		if _, err := r.read([]byte{'\n'}); err == nil || err == io.EOF {
			t.Errorf("%s: got %v", name, err)
		}
	}
	broken := errors.New("broken")
	r := lineReader{in: io.MultiReader(strings.NewReader("a\nb"), iotest.ErrReader(broken))}
	if b, err := r.read(make([]byte, 0, 64)); string(b) != "a\n" || err != broken {
		t.Errorf("got %q and %v, want the whole line and what is wrong", b, err)
	}
}

// A hash is written in one way only: not with line feeds in it either.
func TestHashWithLineFeeds(t *testing.T) {
	good := string(appendEntry(nil, 0, link{}, []byte(`"salt":"AAAAAAAAAAAAAAAAAAAAAA==","epoch":1,"kind":"issued","chain":""`)))
	if _, _, err := parseHead([]byte(good)); err != nil {
		t.Fatal(err)
	}
	at := strings.Index(good, `"prev":"`) + len(`"prev":"`)
	for _, feeds := range []string{"\n", "\r", "\r\n\r\n", strings.Repeat("\n", 44)} {
		bad := good[:at] + feeds + good[at+len(feeds):]
		if _, _, err := parseHead([]byte(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
		bad = good[:at] + feeds + good[at:]
		if _, _, err := parseHead([]byte(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}
