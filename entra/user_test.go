package entra

import (
	"errors"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/mandate-sam/mandate"
)

func TestVerifyUser(t *testing.T) {
	c := newClient(t, newFake(), V2)
	good := sign("good", jose.RS256, testKey(), idToken(nil))
	if u, err := c.VerifyUser(ctx(), good, partner, nil); err != nil || u.Tenant != partner {
		t.Fatalf("%+v, %v", u, err)
	}
	for what, raw := range map[string]string{
		"a guest":          sign("good", jose.RS256, testKey(), idToken(map[string]any{"acct": 1})),
		"another audience": sign("good", jose.RS256, testKey(), idToken(map[string]any{"aud": "99999999-9999-9999-9999-999999999999"})),
		"too long":         good + strings.Repeat("A", 1<<20),
		"nothing":          "",
	} {
		if u, err := c.VerifyUser(ctx(), raw, partner, nil); err == nil || errors.Is(err, mandate.ErrUnavailable) {
			t.Errorf("%s: got %+v, %v", what, u, err)
		}
	}
	elsewhere := sign("good", jose.RS256, testKey(), idToken(map[string]any{"aud": "99999999-9999-9999-9999-999999999999"}))
	id, err := mandate.ParseAppID("99999999-9999-9999-9999-999999999999")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.VerifyUser(ctx(), elsewhere, partner, []mandate.AppID{id}); err != nil {
		t.Errorf("a client that is configured: %v", err)
	}
}
