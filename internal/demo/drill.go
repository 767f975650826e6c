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
)

// A Drill rehearses that the credential of the application has leaked: a
// partner has consented, a service asks for tokens all the time, and the
// credential is replaced, though Entra takes its time and Graph is busy.
type Drill struct {
	*Demo
	Progress Progress
	Report   DrillReport
}

// A DrillReport is what came of a drill.
type DrillReport struct {
	OK     bool        `json:"ok"`
	Steps  []DrillStep `json:"steps"`
	Tokens int         `json:"tokens"` // that the service got meanwhile
	Renew  []string    `json:"renew"`  // partners to invite again
	Error  string      `json:"error,omitempty"`
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
	d.Report = DrillReport{Steps: []DrillStep{}, Renew: []string{}}
	w := Walk{Demo: d.Demo, Progress: d.Progress, browser: NewBrowser(d.Emulator.Client().Transport)}
	for _, s := range []struct {
		name string
		do   func(context.Context) (string, error)
	}{
		{"the operator invites the partner", w.invite},
		{"the partner opens the invitation and reads it", w.read},
		{"the partner signs in with MFA and accepts", w.consent},
		{"the operator looks at the credential", d.inspect},
		{"Entra becomes slow to learn, and Graph busy", d.trouble},
		{"the credential is replaced, as one that has leaked, while a service asks for tokens", d.replace},
		{"nothing but the new credential is left", d.inspect},
		{"a new token is redeemed with it", d.redeem},
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

// inspect wants one credential at Entra, ours.
func (d *Drill) inspect(ctx context.Context) (string, error) {
	all, err := d.Operator.Credentials(ctx, "marketplace")
	if err != nil {
		return "", err
	}
	st := all[0]
	if st.Unasked != "" || st.Rotation != nil || len(st.Entra) != 1 || st.Entra[0].Ours != "in use" {
		return "", fmt.Errorf("at Entra are %d credentials %s", len(st.Entra), st.Unasked+strings.Join(st.Warnings, "; "))
	}
	return fmt.Sprintf("%s %s, and Entra has that one alone", st.Kind, st.ID), nil
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
			d.Report.Renew = append(d.Report.Renew, l.Grant.Partner)
		}
	})
	stop()
	service.Wait()
	switch {
	case err != nil || failed != nil:
		return "", errors.Join(err, failed)
	case d.Report.Tokens == 0 || len(d.Report.Renew) != 1:
		return "", fmt.Errorf("the service got %d tokens, and %d grants are to be renewed", d.Report.Tokens, len(d.Report.Renew))
	}
	return fmt.Sprintf("%s; meanwhile %d tokens and no failure; to invite again: %s", strings.Join(steps, ", "), d.Report.Tokens, strings.Join(d.Report.Renew, ", ")), nil
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
