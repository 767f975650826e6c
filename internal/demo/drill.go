package demo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/emulator"
	"github.com/mandate-sam/mandate/emulator/fault"
)

// A Drill rehearses that the credential of the application has leaked: a
// partner has consented, a thief redeems with a copy of the credential, and it
// is replaced while a service asks for tokens all the time. The first attempt
// cannot be completed, and is taken back; in the second Entra takes its time,
// and Graph is busy.
type Drill struct {
	*Demo
	Progress Progress
	Report   DrillReport

	thief thief
}

// A DrillReport is what came of a drill.
type DrillReport struct {
	OK      bool                  `json:"ok"`
	Steps   []DrillStep           `json:"steps"`
	Tokens  int                   `json:"tokens"`  // that the service got meanwhile
	Old     string                `json:"old"`     // the credential that leaked
	New     string                `json:"new"`     // the one in its place
	Undone  string                `json:"undone"`  // why the first attempt was taken back
	Refused string                `json:"refused"` // what Entra said to a redemption with the old one
	Touched []api.CredentialGrant `json:"touched"` // grants that whoever had the old one may have redeemed
	Error   string                `json:"error,omitempty"`
}

// A DrillStep is one step of it.
type DrillStep struct {
	Name   string `json:"name"`
	TookMS int64  `json:"took_ms"`
	OK     bool   `json:"ok"`
	Note   string `json:"note,omitempty"`
}

// Run rehearses, and stops at the first step that fails.
func (d *Drill) Run(ctx context.Context) error {
	d.Report = DrillReport{Steps: []DrillStep{}, Touched: []api.CredentialGrant{}}
	w := Walk{Demo: d.Demo, Progress: d.Progress, browser: NewBrowser(d.Emulator.Client().Transport)}
	for _, s := range []struct {
		name string
		do   func(context.Context) (string, error)
	}{
		{"the operator invites the partner", w.invite},
		{"the partner opens the invitation and reads it", w.read},
		{"the partner signs in with MFA and accepts", w.consent},
		{"a thief has a copy of the credential and a refresh token, and redeems it", d.steal},
		{"the operator looks at the credential", d.inspectOld},
		{"Entra will not take a new one, and everything is as it was", d.rollBack},
		{"Entra becomes slow to learn, and Graph busy", d.trouble},
		{"the credential is replaced, as one that has leaked, while a service asks for tokens", d.replace},
		{"nothing but the new credential is left", d.inspectNew},
		{"the thief's refresh token is refused with the old credential", d.refuse},
		{"the grants that the leak has touched are listed", d.list},
		{"a new token is redeemed with the new credential", d.redeem},
	} {
		if err := d.step(ctx, s.name, s.do); err != nil {
			d.Report.Error = err.Error()
			return err
		}
	}
	d.Report.OK = true
	return nil
}

func (d *Drill) step(ctx context.Context, name string, do func(context.Context) (string, error)) error {
	d.Progress.Begin(name)
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	begun := time.Now()
	note, err := do(ctx)
	s := DrillStep{Name: name, TookMS: time.Since(begun).Milliseconds(), OK: err == nil, Note: note}
	if err != nil {
		s.Note = err.Error()
		d.Progress.Fail(err)
		err = fmt.Errorf("%s: %w", name, err)
	} else {
		d.Progress.End(note)
	}
	d.Report.Steps = append(d.Report.Steps, s)
	return err
}

// inspect wants one credential at Entra, ours, and returns its ID.
func (d *Drill) inspect(ctx context.Context) (id, note string, err error) {
	all, err := d.Operator.Credentials(ctx, "marketplace")
	if err != nil {
		return "", "", err
	}
	st := all[0]
	if st.Unasked != "" || st.Rotation != nil || len(st.Entra) != 1 || st.Entra[0].Ours != "in use" {
		return "", "", fmt.Errorf("at Entra are %d credentials %s", len(st.Entra), st.Unasked+strings.Join(st.Warnings, "; "))
	}
	return st.ID, fmt.Sprintf("%s %s, and Entra has that one alone", st.Kind, st.ID), nil
}

func (d *Drill) inspectOld(ctx context.Context) (note string, err error) {
	d.Report.Old, note, err = d.inspect(ctx)
	return note, err
}

func (d *Drill) inspectNew(ctx context.Context) (note string, err error) {
	if d.Report.New, note, err = d.inspect(ctx); err == nil && d.Report.New == d.Report.Old {
		err = fmt.Errorf("it is the old one: %s", note)
	}
	return note, err
}

// steal makes a thief of whoever reads the files of the application.
func (d *Drill) steal(ctx context.Context) (string, error) {
	var err error
	if d.thief.credential, err = d.copied(); err != nil {
		return "", err
	}
	if d.thief.refresh, err = d.obtain(ctx, emulator.ContosoTenant, User, d.thief.credential); err != nil {
		return "", err
	}
	if refused, err := d.thief.redeem(ctx, d.Demo); err != nil || refused != "" {
		return "", errors.Join(err, errors.New(refused))
	}
	return "Entra gives the thief a token for Graph, of " + User, nil
}

// refuse wants the thief to get nothing any more, because of the credential.
func (d *Drill) refuse(ctx context.Context) (string, error) {
	refused, err := d.thief.redeem(ctx, d.Demo)
	if err == nil && !strings.HasPrefix(refused, "AADSTS700027:") && !strings.HasPrefix(refused, "AADSTS7000215:") {
		err = fmt.Errorf("this does not refuse the credential: %q", refused)
	}
	d.Report.Refused = refused
	return "Entra says " + refused, err
}

// rollBack has Entra refuse the new credential once it is registered, by a
// policy, which no waiting helps against.
func (d *Drill) rollBack(ctx context.Context) (string, error) {
	err := d.Operator.RotateCredential(ctx, api.CredentialRequest{Application: "marketplace", Compromised: true}, func(l api.CredentialLine) {
		if l.Step == "register" && l.TookMS > 0 {
			d.Emulator.Dial(func(d *emulator.Dials) {
				d.Refusals = []fault.Refusal{{Code: 53003, Grant: "client_credentials", Times: 1}}
			})
		}
	})
	d.Emulator.Dial(func(d *emulator.Dials) { d.Refusals = nil })
	if err == nil {
		return "", errors.New("it was replaced")
	}
	d.Report.Undone = err.Error()
	id, _, ierr := d.inspect(ctx)
	if ierr != nil || id != d.Report.Old || !strings.Contains(err.Error(), "undone") {
		return "", errors.Join(err, ierr, fmt.Errorf("the credential is %s", id))
	}
	return "AADSTS53003, a conditional access policy: the new one is removed again, and Entra has the old one alone", nil
}

func (d *Drill) trouble(context.Context) (string, error) {
	d.Emulator.Dial(func(d *emulator.Dials) {
		d.AccessTokenLifetime = 61 * time.Second // each is redeemed anew after a second
		d.ReplicationDelay = 3 * time.Second
		d.Throttles = []emulator.Throttle{{Service: "graph", Times: 1, Status: 429, RetryAfter: 1}}
	})
	return "3 s until a new credential is known; one answer of 429", nil
}

// replace replaces the credential while tokens are asked for.
func (d *Drill) replace(ctx context.Context) (string, error) {
	shopping, stop := context.WithCancel(ctx)
	defer stop()
	var service sync.WaitGroup
	var failed error
	service.Go(func() { failed = d.shopAround(shopping) })
	var steps []string
	err := d.Operator.RotateCredential(ctx, api.CredentialRequest{Application: "marketplace", Compromised: true}, func(l api.CredentialLine) {
		if l.TookMS > 0 {
			steps = append(steps, fmt.Sprintf("%s %v", l.Step, (time.Duration(l.TookMS)*time.Millisecond).Round(10*time.Millisecond)))
		}
		if l.Grant != nil && l.Grant.Renew {
			d.Report.Touched = append(d.Report.Touched, *l.Grant)
		}
	})
	stop()
	service.Wait()
	if err != nil || failed != nil {
		return "", errors.Join(err, failed)
	}
	if d.Report.Tokens == 0 {
		return "", errors.New("the service got no token meanwhile")
	}
	return fmt.Sprintf("%s; meanwhile %d tokens and no failure", strings.Join(steps, ", "), d.Report.Tokens), nil
}

// list wants the one grant that there is among those to renew.
func (d *Drill) list(context.Context) (string, error) {
	if len(d.Report.Touched) != 1 || d.Report.Touched[0].Partner != Partner {
		return "", fmt.Errorf("the grants to renew are %+v", d.Report.Touched)
	}
	g := d.Report.Touched[0]
	return fmt.Sprintf("%s, generation %d (%s), is to be renewed: mandate partner invite %[1]s", g.Partner, g.Generation, g.State), nil
}

// shopAround asks for tokens until ctx is done, and returns why one was not
// given.
func (d *Drill) shopAround(ctx context.Context) error {
	for n := 0; ; n++ {
		_, err := d.Operator.Token(ctx, api.TokenRequest{Partner: Partner, Audience: []string{"graph", "arm", "partnercenter"}[n%3], Purpose: Purpose})
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("a token was refused meanwhile: %w", err)
		}
		d.Report.Tokens++
		time.Sleep(20 * time.Millisecond)
	}
}

func (d *Drill) redeem(ctx context.Context) (string, error) {
	t, err := d.Operator.Token(ctx, api.TokenRequest{Partner: Partner, Audience: "graph", Purpose: Purpose})
	if err != nil {
		return "", err
	}
	return "generation " + fmt.Sprint(t.Generation) + ", as before", nil
}
