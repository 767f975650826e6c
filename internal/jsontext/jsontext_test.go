package jsontext_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/mandate-sam/mandate/internal/jsontext"
)

// Every byte in every place, and what encoding/json writes in a way of its own.
func TestAppendString(t *testing.T) {
	for _, s := range []string{"", "plain", strings.Repeat("eyJ0", 500), "naïve", "\u2028\u2029", "\xff\xfe", "<&>", `a"b\c`, "\x7f"} {
		check(t, s)
	}
	for c := range 256 {
		for at := range 17 {
			s := []byte("a plain sentence.")
			s[at] = byte(c)
			check(t, string(s))
		}
	}
}

// What is plain is copied, and nothing is allocated for it.
func TestAppendStringCopies(t *testing.T) {
	s, b := strings.Repeat("eyJ0eXAiOiJKV1QiLCJh-_.~ !", 50), make([]byte, 0, 2000)
	if n := testing.AllocsPerRun(100, func() { b = jsontext.AppendString(b[:0], s) }); n != 0 {
		t.Errorf("got %v allocations", n)
	}
}

func FuzzAppendString(f *testing.F) {
	f.Add("plain")
	f.Add("<\x00é\xff>")
	f.Fuzz(func(t *testing.T, s string) { check(t, s) })
}

func check(t *testing.T, s string) {
	t.Helper()
	want, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(jsontext.AppendString([]byte("before"), s)); got != "before"+string(want) {
		t.Errorf("%q: got %s, want %s", s, got, want)
	}
}

func BenchmarkAppendString(b *testing.B) {
	s, buf := strings.Repeat("eyJ0eXAi", 200), make([]byte, 0, 2048)
	for b.Loop() {
		buf = jsontext.AppendString(buf[:0], s)
	}
}
