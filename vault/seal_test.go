package vault

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mandate-sam/mandate"
)

func TestKeyFileSeals(t *testing.T) {
	if err := CheckSealed(t.Context(), openKeys(t, filepath.Join(t.TempDir(), "keys"))); err != nil {
		t.Error(err)
	}
}

// A fake wrapper has dials for what a key wrapper must not be.
type fakeWrapper struct {
	id     string
	short  bool // wraps to nothing
	bare   bool // does not encrypt
	forget bool // unwraps to less
	any    bool // unwraps whatever it is given
	err    error
	held   [][]byte // what Wrap was given, not copied
}

func (w *fakeWrapper) Wrap(_ context.Context, plain []byte) (string, []byte, error) {
	w.held = append(w.held, plain)
	out := bytes.Clone(plain)
	if !w.bare {
		for i := range out {
			out[i] ^= 0x55
		}
	}
	if w.short {
		out = nil
	}
	return w.id, out, w.err
}

func (w *fakeWrapper) Unwrap(_ context.Context, keyID string, wrapped []byte) ([]byte, error) {
	if !w.any && keyID != w.id {
		return nil, errors.New("no such key")
	}
	out := bytes.Clone(wrapped)
	for i := range out {
		out[i] ^= 0x55
	}
	if w.forget {
		out = out[:len(out)/2]
	}
	w.held = append(w.held, out)
	return out, w.err
}

// TestSealingIsBoundByItself uses a wrapper that authenticates nothing, as RSA
// does not: the binding must not depend on it.
func TestSealingIsBoundByItself(t *testing.T) {
	if err := CheckSealed(t.Context(), &fakeWrapper{id: "k"}); err != nil {
		t.Error(err)
	}
}

func TestCheckSealedFindsBadWrappers(t *testing.T) {
	for name, w := range map[string]*fakeWrapper{
		"no key ID":       {},
		"does not wrap":   {id: "k", short: true},
		"plain":           {id: "k", bare: true},
		"forgets":         {id: "k", forget: true},
		"any key ID":      {id: "k", any: true},
		"fails":           {id: "k", err: errors.New("down")},
		"fails and wraps": {id: "k", err: errors.New("down"), bare: true},
	} {
		if err := CheckSealed(t.Context(), w); err == nil {
			t.Errorf("%s: CheckSealed found nothing wrong", name)
		}
	}
}

func TestWrappedHashIsChecked(t *testing.T) {
	labels, err := neighbours()
	if err != nil {
		t.Fatal(err)
	}
	w := &fakeWrapper{id: "k"}
	s, err := seal(t.Context(), w, labels[0], mandate.NewSecret(canary))
	if err != nil {
		t.Fatal(err)
	}
	s.wrapped[len(s.wrapped)-1] ^= 1 // in the hash; the data key is whole
	if _, err := s.open(t.Context(), w, labels[0]); !errors.Is(err, errMoved) {
		t.Errorf("got error %v, want %v", err, errMoved)
	}
}

func TestDataKeysAreFreshAndCleared(t *testing.T) {
	labels, err := neighbours()
	if err != nil {
		t.Fatal(err)
	}
	w := &fakeWrapper{id: "k"}
	var all []sealed
	for range 2 {
		s, err := seal(t.Context(), w, labels[0], mandate.NewSecret(canary))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.open(t.Context(), w, labels[0]); err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	if bytes.Equal(all[0].wrapped, all[1].wrapped) || bytes.Equal(all[0].box, all[1].box) {
		t.Error("the same secret was sealed with the same data key twice")
	}
	for i, plain := range w.held {
		if !bytes.Equal(plain, make([]byte, len(plain))) {
			t.Errorf("data key %d was not cleared after use", i)
		}
	}
}

func TestLabelsAreDistinct(t *testing.T) {
	labels, err := neighbours()
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]label)
	for _, l := range labels {
		if other, ok := seen[string(l.data(format))]; ok {
			t.Errorf("%+v and %+v have the same additional data", l, other)
		}
		seen[string(l.data(format))] = l
	}
}

func TestParseSealedErrors(t *testing.T) {
	for _, tt := range []struct {
		name string
		blob []byte
		want string
	}{
		{"nothing", nil, "cut short"},
		{"no length", []byte{format, 0}, "cut short"},
		{"another format", []byte{3, 0, 1, 'x'}, "format 3"},
		{"no wrapped key", []byte{format, 0, 0, 'x'}, "cut short"},
		{"half a wrapped key", []byte{format, 0, 2, 'x'}, "cut short"},
		{"a huge wrapped key", append([]byte{format, 0xff, 0xff}, make([]byte, 1<<16)...), "cut short"},
	} {
		if _, err := parseSealed("k", tt.blob); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got error %v, want %q in it", tt.name, err, tt.want)
		}
	}
}

func FuzzParseSealed(f *testing.F) {
	w := &fakeWrapper{id: "k"}
	l := label{key: contoso, kind: kindRefresh, generation: 1, version: 1}
	s, err := seal(f.Context(), w, l, mandate.NewSecret(canary))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(s.blob())
	f.Add([]byte{format, 0, 1, 'x'})
	f.Fuzz(func(t *testing.T, blob []byte) {
		s, err := parseSealed("k", blob)
		if err != nil {
			return
		}
		if !bytes.Equal(s.blob(), blob) {
			t.Errorf("%x is stored again as %x", blob, s.blob())
		}
		if got, err := s.open(t.Context(), w, l); err == nil && got.Reveal() != canary {
			t.Errorf("%x opens, and was never sealed", blob)
		}
	})
}
