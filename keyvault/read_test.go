package keyvault_test

import (
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"

	"github.com/mandate-sam/mandate"
)

func TestRead(t *testing.T) {
	w := start(t)
	v, ctx := w.open(), t.Context()
	w.permit(nil, nil)
	_, err := v.Read(ctx, "RefreshToken")
	wantError(t, err, nil, "secrets get") // says which permission is missing
	w.permit(nil, []string{"get"})
	_, err = v.Read(ctx, "RefreshToken")
	wantError(t, err, mandate.ErrNotFound)
	for _, value := range []string{"first", "second CANARY"} {
		if _, err := w.secrets().SetSecret(ctx, "RefreshToken", azsecrets.SetSecretParameters{Value: &value}, nil); err != nil {
			t.Fatal(err)
		}
		if got, err := v.Read(ctx, "RefreshToken"); err != nil || got.Reveal() != value {
			t.Errorf("got %q, %v, want %q", got.Reveal(), err, value)
		}
	}
	_, err = v.Read(ctx, "a/b")
	wantError(t, err, mandate.ErrInvalid, "letters, digits and '-'")
}
