package keyvault_test

import (
	"testing"

	"github.com/mandate-sam/mandate/keyvault"
	"github.com/mandate-sam/mandate/vault"
)

// What package vault asks of whoever writes a key wrapper or a home.
func TestConformance(t *testing.T) {
	w := start(t)
	w.makeKey("kek", 2048)
	v := w.open(func(c *keyvault.Config) { c.Rate = 10_000 }) // whose budget is not what is tested
	t.Run("wrapper", func(t *testing.T) {
		t.Parallel()
		if err := vault.CheckSealed(t.Context(), must(v.Wrapper("kek"))(t)); err != nil {
			t.Error(err)
		}
	})
	t.Run("home", func(t *testing.T) {
		t.Parallel()
		if err := vault.CheckHome(t.Context(), v.Secrets()); err != nil {
			t.Error(err)
		}
	})
}
