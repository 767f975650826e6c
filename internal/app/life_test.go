package app

import (
	"strings"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/store"
)

func TestMetricsAndSecretExpiry(t *testing.T) {
	const (
		metrics  = "# metrics: {listen: 127.0.0.1:9464}"
		cert     = "      certificate: keys/marketplace.pem"
		expiring = "      secret: keys/marketplace.secret\n      secret_expires: "
	)
	for _, tt := range []struct{ old, new, want string }{
		{metrics, "metrics: {listen: 127.0.0.1:9464}", ""},
		{metrics, "metrics: {listen: 0.0.0.0:9464}", "metrics.listen"},
		{metrics, "metrics: {listen: 9464}", "metrics.listen"},
		{metrics, "metrics: {tls: {certificate: a.pem, key: a.key}}", "metrics.listen"},
		{cert, expiring + "2027-01-31", ""},
		{cert, expiring + "soon", "secret_expires"},
		{cert, cert + "\n      secret_expires: 2027-01-31", "goes with secret"},
	} {
		text := strings.Replace(Example(), tt.old, tt.new, 1)
		if text == Example() {
			t.Fatalf("the example has no %q", tt.old)
		}
		c, err := load(t, text)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.new, err, tt.want)
		}
		if at := c.Applications[0].Credential.expires(); tt.want == "" && tt.old == cert && !at.Equal(time.Date(2027, 1, 31, 0, 0, 0, 0, time.UTC)) {
			t.Errorf("%s: expires %v", tt.new, at)
		}
	}
}

// aCertificate ends when it says.
type aCertificate struct{ at time.Time }

func (c aCertificate) NotAfter() time.Time { return c.at }

func TestCredentialTrouble(t *testing.T) {
	now := time.Now()
	u := new(upstream)
	u.note("a", aCertificate{now.Add(time.Hour)}, time.Time{})
	u.note("b", struct{}{}, now.Add(-time.Hour))
	u.note("c", struct{}{}, time.Time{}) // nobody knows
	if len(u.ends) != 2 {
		t.Fatalf("%d ends, want 2", len(u.ends))
	}
	first, second := u.ends[0].trouble(now), u.ends[1].trouble(now)
	if !first.Time.Equal(now.Add(time.Hour)) || first.Kind != mandate.TroubleCredential || first.Move != mandate.MoveOperator || !strings.Contains(first.What, "application a ends") {
		t.Errorf("%+v", first)
	}
	if !strings.Contains(second.What, "application b has ended") {
		t.Errorf("%+v", second)
	}
}

// Of several invitations of a partner only the last to end is worth a word.
func TestLastInvitations(t *testing.T) {
	invitation := func(id, partner string) store.Invitation {
		return store.Invitation{ID: id, Partner: mandate.Partner{Name: partner}}
	}
	var ids []string
	for _, i := range last([]store.Invitation{invitation("1", "a"), invitation("2", "b"), invitation("3", "a"), invitation("4", "c")}) {
		ids = append(ids, i.ID)
	}
	if got := strings.Join(ids, " "); got != "2 3 4" {
		t.Errorf("got %s, want 2 3 4", got)
	}
}
