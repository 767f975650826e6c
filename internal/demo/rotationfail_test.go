package demo

import (
	"context"
	"encoding/pem"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/emulator"
)

// What Graph refuses is undone, what it postpones is waited for, and what Entra
// never comes to know of is taken back; a stranger at Entra is warned of, and so
// are implicit grants. All the while tokens are served.
func TestRotateCredentialRefused(t *testing.T) {
	t.Parallel()
	pace := briskly
	pace.Limit = 3 * time.Second
	d, _ := begin(t, Config{Pace: pace})
	d.consent(t)
	d.fleeting()
	s := d.shop(t)
	before := d.settledCredential(t, "application.pem")
	e := d.Emulator

	if err := e.RemoveRoles(emulator.CPVTenant, emulator.ApplicationID, emulator.Graph); err != nil {
		t.Fatal(err)
	}
	if _, err := d.rotate(t, api.CredentialRequest{}); err == nil || contains(err.Error(), "Application.ReadWrite.OwnedBy", "undone") != nil {
		t.Errorf("without the role: %v", err)
	}
	if st := d.credential(t); contains(st.Unasked, "Application.ReadWrite.OwnedBy") != nil || st.Rotation != nil || st.ID != before.ID {
		t.Errorf("without the role: %+v", st)
	}
	if err := e.AssignRoles(emulator.CPVTenant, emulator.ApplicationID, emulator.Graph, "Application.ReadWrite.OwnedBy"); err != nil {
		t.Fatal(err)
	}

	e.Dial(func(d *emulator.Dials) { d.ReplicationDelay = time.Hour })
	if _, err := d.rotate(t, api.CredentialRequest{}); err == nil || contains(err.Error(), "not come to know", "undone") != nil {
		t.Errorf("never known: %v", err)
	}
	e.Dial(func(d *emulator.Dials) { d.ReplicationDelay = 0 })
	if st := d.settledCredential(t, "application.pem"); st.ID != before.ID {
		t.Errorf("never known: %+v", st)
	}

	e.Dial(func(d *emulator.Dials) {
		d.Throttles = []emulator.Throttle{{Service: "graph", Times: 2, Status: 429, RetryAfter: 1}}
	})
	if _, err := d.rotate(t, api.CredentialRequest{}); err != nil {
		t.Errorf("while Graph is busy: %v", err)
	}
	if st := d.settledCredential(t, "application.pem"); st.ID == before.ID {
		t.Errorf("while Graph was busy: %+v", st)
	}
	s.stop()

	a, _ := e.Application(emulator.ApplicationID)
	if st := d.credential(t); st.Implicit != nil {
		t.Errorf("without implicit grants: %+v", st)
	}
	a.Secrets, a.IssueAccessTokens, a.IssueIDTokens = []string{"an-attacker-s-own-secret"}, true, true
	if err := e.Register(a); err != nil {
		t.Fatal(err)
	}
	st := d.credential(t)
	if st.Strangers() != 1 || contains(strings.Join(st.Warnings, " "), "1 credential(s) at Entra are not known here") != nil {
		t.Errorf("a stranger: %+v", st)
	}
	if !slices.Equal(st.Implicit, []string{"access tokens", "ID tokens"}) || contains(strings.Join(st.Warnings, " "), "access tokens and ID tokens without a code") != nil {
		t.Errorf("implicit grants: %+v", st)
	}
}

// The old one is kept if that is asked for, and then either taken back or
// removed; what is of no kind that was asked for, or of nobody, is refused.
func TestRotateCredentialKept(t *testing.T) {
	t.Parallel()
	d, _ := begin(t, Config{Pace: briskly})
	d.consent(t)
	before := d.credential(t)
	for _, in := range []api.CredentialRequest{{Kind: "secret"}, {Compromised: true, KeepOldSecs: 1}, {Undo: true}} {
		if _, err := d.rotate(t, in); err == nil {
			t.Errorf("%+v: no error", in)
		}
	}
	lines, err := d.rotate(t, api.CredentialRequest{KeepOldSecs: 3600})
	if err != nil || !lines[len(lines)-1].Kept {
		t.Fatalf("%v, %+v", err, lines)
	}
	st := d.credential(t)
	if st.ID == before.ID || len(st.Entra) != 2 || st.Rotation == nil || st.Rotation.Done != "switch" {
		t.Errorf("kept: %+v", st)
	}
	if lines, err = d.rotate(t, api.CredentialRequest{Undo: true}); err != nil || !lines[len(lines)-1].Undone {
		t.Errorf("%v, %+v", err, lines)
	}
	if st := d.settledCredential(t, "application.pem"); st.ID != before.ID {
		t.Errorf("undone: %+v", st)
	}
	if err := d.ask(t); err != nil {
		t.Error(err)
	}
}

// A product that is killed at any moment of a rotation begins again with a
// credential that works, and ends what was begun.
func TestRotateCredentialKilled(t *testing.T) {
	t.Parallel()
	for _, secret := range []bool{false, true} {
		d, _ := begin(t, Config{Idle: true, Secret: secret})
		p := d.launch(t)
		var err error
		if d.Operator, err = api.NewSocketClient(d.Socket); err != nil {
			t.Fatal(err)
		}
		d.consent(t)
		d.fleeting()
		for _, step := range []string{"make", "register", "prove", "switch", "remove", "refuse"} {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			err := d.Operator.RotateCredential(ctx, api.CredentialRequest{Application: "marketplace"}, func(l api.CredentialLine) {
				if l.Step == step {
					p.kill()
				}
			})
			cancel()
			if err == nil {
				t.Fatalf("%s: it was not killed", step)
			}
			os.Remove(d.Socket)
			p = d.launch(t)
			if err := d.ask(t); err != nil {
				t.Errorf("secret %v, killed in %s: %v", secret, step, err)
			}
		}
		if _, err := d.rotate(t, api.CredentialRequest{}); err != nil {
			t.Errorf("secret %v: %v", secret, err)
		}
		d.settledCredential(t, map[bool]string{false: "application.pem", true: "application.secret"}[secret])
		if err := d.ask(t); err != nil && !errors.Is(err, mandate.ErrUnavailable) {
			t.Error(err)
		}
		p.kill()
	}
}

// By hand: the server says what to do in the portal, and waits until it works,
// and until the old one does not.
func TestRotateCredentialByHand(t *testing.T) {
	t.Parallel()
	d, _ := begin(t, Config{Pace: briskly})
	d.consent(t)
	before := d.credential(t)
	portal := func(change func(ders [][]byte) [][]byte) {
		a, _ := d.Emulator.Application(emulator.ApplicationID)
		a.Certificates = change(a.Certificates)
		if err := d.Emulator.Register(a); err != nil {
			t.Error(err)
		}
	}
	err := d.Operator.RotateCredential(t.Context(), api.CredentialRequest{Application: "marketplace", ByHand: true}, func(l api.CredentialLine) {
		if block, _ := pem.Decode([]byte(l.Text[max(strings.Index(l.Text, "-----BEGIN"), 0):])); block != nil {
			portal(func(ders [][]byte) [][]byte { return append(ders, block.Bytes) })
		}
		if strings.Contains(l.Text, "in the portal, remove the credential "+before.ID) {
			portal(func(ders [][]byte) [][]byte { return ders[1:] })
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if st := d.settledCredential(t, "application.pem"); st.ID == before.ID {
		t.Errorf("%+v", st)
	}
	if err := d.ask(t); err != nil {
		t.Error(err)
	}
}
