package demo

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/emulator"
	"github.com/mandate-sam/mandate/internal/rotation"
)

// rotate rotates the credential of the application, and returns all that was
// told.
func (d *Demo) rotate(t *testing.T, in api.CredentialRequest) ([]api.CredentialLine, error) {
	t.Helper()
	in.Application = "marketplace"
	var all []api.CredentialLine
	err := d.Operator.RotateCredential(t.Context(), in, func(l api.CredentialLine) {
		t.Log("    ", l.Step, l.Text, l.Error)
		all = append(all, l)
	})
	return all, err
}

// briskly is how tests wait for Entra.
var briskly = rotation.Pace{Every: 50 * time.Millisecond, Times: 4, Limit: 10 * time.Second, Fleet: 2 * time.Second}

// credential is what is known of the application's.
func (d *Demo) credential(t *testing.T) api.CredentialStatus {
	t.Helper()
	all, err := d.Operator.Credentials(t.Context(), "marketplace")
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	return all[0]
}

// A shopper asks for fresh tokens all the time, each of which is redeemed with
// the application's credential, and never fails. It asks again if it is told
// to: a rotation changes security state several times, and on a busy machine a
// request may find that it did so each time that it was decided.
type shopper struct {
	asked atomic.Int64
	stop  func()
}

func (d *Demo) shop(t *testing.T) *shopper {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	s := new(shopper)
	var wg sync.WaitGroup
	wg.Go(func() {
		// Answers are born nearly expired, so that none comes from memory.
		for n := 0; ctx.Err() == nil; n++ {
			audience := []string{"graph", "arm", "partnercenter"}[n%3]
			ask := func() error {
				_, err := d.Operator.Token(ctx, api.TokenRequest{Partner: Partner, Audience: audience, Purpose: Purpose})
				return err
			}
			err := ask()
			for again := 0; again < 3 && errors.Is(err, mandate.ErrUnavailable); again++ {
				err = ask()
			}
			if err != nil && ctx.Err() == nil {
				t.Errorf("while the credential is replaced: %v", err)
				return
			}
			s.asked.Add(1)
			time.Sleep(20 * time.Millisecond)
		}
	})
	s.stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(s.stop)
	return s
}

// fleeting makes every token one that must be redeemed anew.
func (d *Demo) fleeting() {
	d.Emulator.Dial(func(d *emulator.Dials) { d.AccessTokenLifetime = 61 * time.Second })
}

// settledCredential checks that just one credential is left at Entra, and that
// nothing of the rotation lies about.
func (d *Demo) settledCredential(t *testing.T, file string) api.CredentialStatus {
	t.Helper()
	st := d.credential(t)
	if st.Rotation != nil || st.Unasked != "" || len(st.Entra) != 1 || st.Entra[0].Ours != "in use" {
		t.Errorf("%+v", st)
	}
	for _, suffix := range []string{".next", ".old", ".writing"} {
		if _, err := os.Stat(d.File(file + suffix)); !os.IsNotExist(err) {
			t.Errorf("%s%s: %v", file, suffix, err)
		}
	}
	if info, err := os.Stat(d.File(file)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	return st
}

// A certificate and a secret are replaced while tokens are served, though Entra
// takes its time to know of it; the grant stays as it is.
func TestRotateCredential(t *testing.T) {
	t.Parallel()
	for _, secret := range []bool{false, true} {
		t.Run(map[bool]string{false: "certificate", true: "secret"}[secret], func(t *testing.T) {
			file := map[bool]string{false: "application.pem", true: "application.secret"}[secret]
			d, _ := begin(t, Config{Secret: secret, Pace: briskly})
			d.consent(t)
			d.fleeting()
			d.Emulator.Dial(func(d *emulator.Dials) { d.ReplicationDelay = 1500 * time.Millisecond })
			before := d.settledCredential(t, file)
			old, err := os.ReadFile(d.File(file))
			if err != nil {
				t.Fatal(err)
			}
			s := d.shop(t)
			lines, err := d.rotate(t, api.CredentialRequest{Compromised: true})
			if err != nil {
				t.Fatal(err)
			}
			s.stop()
			if s.asked.Load() < 20 {
				t.Errorf("only %d tokens meanwhile", s.asked.Load())
			}
			after := d.settledCredential(t, file)
			if now, _ := os.ReadFile(d.File(file)); string(now) == string(old) || after.ID == before.ID || after.Entra[0].KeyID == before.Entra[0].KeyID {
				t.Errorf("before %+v, after %+v", before, after)
			}
			d.grantToRenew(t, lines)
			d.recorded(t, "make a new credential", "register it", "put it to use", "remove the old one", "destroy the copy")
			if err := d.ask(t); err != nil {
				t.Error(err)
			}
		})
	}
}

// grantToRenew checks that the one grant is listed as one to renew, and is as
// it was.
func (d *Demo) grantToRenew(t *testing.T, lines []api.CredentialLine) {
	t.Helper()
	n := 0
	for _, l := range lines {
		if l.Grant != nil {
			n++
			if l.Grant.Partner != Partner || !l.Grant.Renew || l.Grant.State != string(mandate.StateActive) || l.Grant.Generation != 1 {
				t.Errorf("%+v", l.Grant)
			}
		}
	}
	if n != 1 {
		t.Errorf("%d grants are listed", n)
	}
}

// recorded checks that what was done is in the audit log, in that order.
func (d *Demo) recorded(t *testing.T, details ...string) {
	t.Helper()
	s, err := d.Operator.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	records, err := d.Operator.Audit(t.Context(), int(s.Records))
	if err != nil {
		t.Fatal(err)
	}
	var text string
	for _, r := range records {
		text += string(r) + "\n"
	}
	for _, want := range details {
		_, after, found := strings.Cut(text, want)
		if !found {
			t.Fatalf("%q is not recorded, or not in its place", want)
		}
		text = after
	}
}
