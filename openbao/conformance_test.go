package openbao

import (
	"testing"

	"github.com/mandate-sam/mandate/vault"
)

// What package vault asks of whoever writes a key wrapper or a home.
func TestFakeConformance(t *testing.T) {
	c := newFake(t).client(t)
	if err := vault.CheckSealed(t.Context(), must(c.Transit("transit", "kek"))(t)); err != nil {
		t.Error(err)
	}
	if err := vault.CheckHome(t.Context(), must(c.KV("kv", "grants"))(t)); err != nil {
		t.Error(err)
	}
}
