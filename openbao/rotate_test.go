package openbao

import (
	"bytes"
	"testing"

	"github.com/mandate-sam/mandate"
)

// After a rotation the new version wraps, and the old one still unwraps.
func TestFakeRotate(t *testing.T) {
	f := newFake(t)
	k := must(f.client(t).Transit("transit", "kek"))(t)
	plain := bytes.Repeat([]byte("k"), 64)
	old, wrapped, err := k.Wrap(t.Context(), plain)
	if err != nil {
		t.Fatal(err)
	}
	id := must(k.Rotate(t.Context()))(t)
	now, _, err := k.Wrap(t.Context(), plain)
	if err != nil || id == old || now != id || !k.Has(id) {
		t.Errorf("rotated from %q to %q, and %q wraps, %v", old, id, now, err)
	}
	if got, err := k.Unwrap(t.Context(), old, wrapped); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("what was wrapped before: %v", err)
	}
	missing := must(f.client(t).Transit("transit", "missing"))(t)
	_, err = missing.Rotate(t.Context())
	wantError(t, err, mandate.ErrNotFound, "rotate transit/missing", "404")
}
