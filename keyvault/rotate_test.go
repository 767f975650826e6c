package keyvault_test

import (
	"bytes"
	"testing"
)

// After a rotation the new version wraps, and the old one still unwraps. That
// takes a permission which serving does not.
func TestRotate(t *testing.T) {
	w := start(t)
	w.makeKey("kek", 2048)
	k := must(w.open().Wrapper("kek"))(t)
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
	w.permit([]string{"wrapKey", "unwrapKey"}, nil)
	_, err = k.Rotate(t.Context())
	wantError(t, err, nil, "rotate key kek", "403", `"keys rotate"`)
}
