package audit

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
)

var _ mandate.Issued = (*Log)(nil)

func TestAlive(t *testing.T) {
	l, _ := openTest(t)
	tenant := func(s string) mandate.TenantID {
		id, err := mandate.ParseTenantID(s + "-0000-0000-0000-000000000001")
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	k := mandate.GrantKey{Cloud: "test", Partner: tenant("11111111")}
	other := mandate.GrantKey{Cloud: "test", Partner: tenant("22222222")}
	elsewhere := k
	elsewhere.Cloud = "other"
	now := time.Now()
	in := func(d time.Duration) time.Time { return now.Add(d) }
	for _, r := range []mandate.Record{
		{Kind: mandate.KindIssued, Use: mandate.UseToken, Grant: &k, Fingerprint: "a", Expires: in(time.Hour)},
		{Kind: mandate.KindIssued, Use: mandate.UseToken, Grant: &k, Fingerprint: "a", Expires: in(time.Hour)}, // handed out twice
		{Kind: mandate.KindIssued, Use: mandate.UseToken, Grant: &k, Fingerprint: "b", Expires: in(2 * time.Hour), Generation: 2},
		{Kind: mandate.KindIssued, Use: mandate.UseToken, Grant: &k, Fingerprint: "c", Expires: in(-time.Second)},
		{Kind: mandate.KindIssued, Use: mandate.UseCall, Grant: &k, Fingerprint: "d", Expires: in(3 * time.Hour)},
		{Kind: mandate.KindRefreshed, Grant: &k, Fingerprint: "e", Expires: in(3 * time.Hour)},
		{Kind: mandate.KindIssued, Use: mandate.UseToken, Grant: &other, Fingerprint: "f", Expires: in(3 * time.Hour), Tenant: k.Partner},
		{Kind: mandate.KindIssued, Use: mandate.UseToken, Grant: &elsewhere, Fingerprint: "g", Expires: in(3 * time.Hour)},
		{Kind: mandate.KindChanged, Detail: "x"},
	} {
		if _, err := l.Record(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	n, until, err := l.Alive(t.Context(), k, now)
	if err != nil || n != 2 || !until.Equal(in(2*time.Hour).Round(0)) {
		t.Errorf("got %d until %v, %v, want 2 until %v", n, until, err, in(2*time.Hour))
	}
	// Beyond the longest life of a token nothing is looked at.
	if n, _, err := l.Alive(t.Context(), k, now.Add(30*time.Hour)); err != nil || n != 0 {
		t.Errorf("a day later: %d, %v", n, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := l.Alive(ctx, k, now); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
}
