package keyvault_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/emulator"
	"github.com/mandate-sam/mandate/keyvault"
)

func TestWrapAcrossRotation(t *testing.T) {
	w := start(t)
	w.makeKey("kek", 2048)
	w.permit([]string{"wrapKey", "unwrapKey"}, nil)
	k, plain, ctx := must(w.open().Wrapper("kek"))(t), bytes.Repeat([]byte{7}, 64), t.Context()
	first, one, err := k.Wrap(ctx, plain)
	if err != nil || !strings.HasPrefix(first, w.e.Endpoints().KeyVault+"/keys/kek/") {
		t.Fatalf("got key %q, %v", first, err)
	}
	must(w.keys().RotateKey(ctx, "kek", nil))(t)
	second, two, err := k.Wrap(ctx, plain)
	if err != nil || first == second {
		t.Fatalf("after the rotation: key %s, before %s; %v", second, first, err)
	}
	for _, tt := range []struct {
		id      string
		wrapped []byte
	}{{first, one}, {second, two}} {
		if got, err := k.Unwrap(ctx, tt.id, tt.wrapped); err != nil || !bytes.Equal(got, plain) || !k.Has(tt.id) {
			t.Errorf("unwrapped with %s: got %x, %v", tt.id, got, err)
		}
	}
	if got, err := k.Unwrap(ctx, second, one); err == nil || bytes.Equal(got, plain) {
		t.Errorf("unwrapped with another version than wrapped: %v", err)
	}
}

// What is stored leads nowhere but to the configured key.
func TestUnwrapRefusesOtherKeys(t *testing.T) {
	w := start(t)
	k := must(w.open().Wrapper("kek"))(t)
	u := w.e.Endpoints().KeyVault
	for _, id := range []string{
		"", u + "/keys/kek/", u + "/keys/kek2/0123456789abcdef", u + "/keys/kek", u + "/keys/kek/a/b", u + "/keys/kek/..", u + "/keys/kek/a?x",
		u + "/secrets/kek/0123456789abcdef", "https://evil.test/keys/kek/0123456789abcdef", u + ".evil.test/keys/kek/0123456789abcdef",
	} {
		if _, err := k.Unwrap(t.Context(), id, []byte("x")); err == nil || errors.Is(err, mandate.ErrInvalid) || k.Has(id) {
			t.Errorf("key %q: got %v", id, err)
		}
	}
	if n := len(w.e.TokenRequests()); n != 0 {
		t.Errorf("%d sign-ins for what is refused", n)
	}
	for _, name := range []string{"", "a_b", "a/b", strings.Repeat("x", 128)} {
		if _, err := w.open().Wrapper(name); !errors.Is(err, mandate.ErrInvalid) {
			t.Errorf("key named %q: %v", name, err)
		}
	}
}

func TestWrapErrors(t *testing.T) {
	w := start(t)
	w.makeKey("kek", 2048)
	k, ctx := must(w.open().Wrapper("kek"))(t), t.Context()
	id, wrapped, err := k.Wrap(ctx, []byte("plain"))
	if err != nil {
		t.Fatal(err)
	}
	absent := must(w.open().Wrapper("absent"))(t)
	_, _, err = absent.Wrap(ctx, []byte("CANARY"))
	wantError(t, err, mandate.ErrNotFound, "key absent", "404 KeyNotFound", "request id ")
	if e, ok := errors.AsType[*keyvault.Error](err); !ok || len(e.RequestID) != 36 {
		t.Errorf("got %#v, want Microsoft's request id", err)
	}

	w.permit([]string{"get"}, nil)
	_, err = k.Unwrap(ctx, id, wrapped)
	wantError(t, err, nil, "403 Forbidden", `give application `+ours+` the permission "keys unwrapKey"`)
	_, _, err = k.Wrap(ctx, []byte("CANARY"))
	wantError(t, err, nil, `"keys wrapKey"`)

	w.permit([]string{"all"}, nil)
	must(w.keys().UpdateKey(ctx, "kek", "", azkeys.UpdateKeyParameters{KeyAttributes: &azkeys.KeyAttributes{Enabled: ptr(false)}}, nil))(t)
	_, err = k.Unwrap(ctx, id, wrapped)
	wantError(t, err, nil, "KeyDisabled", "whoever disabled it in the vault must enable it again")

	gone, hangUp := context.WithCancel(ctx)
	hangUp()
	_, _, err = k.Wrap(gone, []byte("CANARY"))
	if !errors.Is(err, context.Canceled) || errors.Is(err, mandate.ErrUnavailable) {
		t.Errorf("a caller that gave up: got %v", err)
	}
}

// A vault that is down, throttled or out of reach may be back later.
func TestWrapUnavailable(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.makeKey("kek", 2048)
	ctx := t.Context()
	k := must(w.open().Wrapper("kek"))(t)
	if _, _, err := k.Wrap(ctx, []byte("x")); err != nil {
		t.Fatal(err)
	}
	w.e.Dial(func(d *emulator.Dials) { d.KeyVault.Outage = []string{"*"} })
	_, _, err := k.Wrap(ctx, []byte("CANARY"))
	wantError(t, err, mandate.ErrUnavailable, "503", "tried again later", "request id")

	unreachable := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("no route to host")
	}}}
	k = must(w.open(func(c *keyvault.Config) { c.HTTP = unreachable }).Wrapper("kek"))(t)
	_, _, err = k.Wrap(short(t), []byte("CANARY"))
	wantError(t, err, mandate.ErrUnavailable)
}

// A throttled vault is waited for as long as it says, but not for too long.
func TestWrapThrottled(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.makeKey("kek", 2048)
	k, ctx := must(w.open().Wrapper("kek"))(t), t.Context()
	w.e.Dial(func(d *emulator.Dials) { d.KeyVault.Budgets, d.KeyVault.WindowSeconds = map[string]int{"keys": 1}, 1 })
	for range 3 {
		if _, _, err := k.Wrap(ctx, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	w.e.Dial(func(d *emulator.Dials) {
		d.KeyVault.Budgets, d.KeyVault.WindowSeconds = map[string]int{"keys": 0}, 3600
	})
	_, _, err := k.Wrap(short(t), []byte("CANARY"))
	wantError(t, err, mandate.ErrUnavailable, "429 Throttled", "request id")
}
