package rotation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mandate-sam/mandate"
)

// unknownCodes are what Entra says to a credential that it does not have: not
// yet, or not any more. Which of its many places answers is chance, so a no
// among yeses is not the end of it, and a yes among noes neither.
var unknownCodes = []int{
	700027,  // the certificate is not registered
	7000215, // the secret is not one of the application's
	7000222, // the secret has expired
	650051,  // the application's object is being changed
}

// unknown reports whether Entra does not have the credential.
func unknown(err error) bool {
	var f *mandate.Fault
	return errors.As(err, &f) && slices.ContainsFunc(f.Codes, func(c int) bool { return slices.Contains(unknownCodes, c) })
}

// A verdict is what an answer means to whoever waits: it is what was waited
// for, it is not yet, or it never will be.
type verdict func(error) (yes bool, never error)

// taken waits for a credential to work. Entra's other refusals do not pass with
// time: the application is disabled, or a policy forbids it.
func taken(err error) (bool, error) {
	if err == nil || unknown(err) || later(err) {
		return err == nil, nil
	}
	return false, err
}

// refused waits for a credential to work no more.
func refused(err error) (bool, error) {
	if err == nil || unknown(err) || later(err) {
		return unknown(err), nil
	}
	return false, err
}

// wait asks until Entra has said the same several times in a row.
func (p *Procedure) wait(ctx context.Context, s *State, which Which, is verdict) error {
	every, times, limit := cmp.Or(p.Pace.Every, 500*time.Millisecond), cmp.Or(p.Pace.Times, 5), cmp.Or(p.Pace.Limit, 10*time.Minute)
	pause, row, begun := every, 0, time.Now()
	told, quiet := begun, 5*time.Second
	for {
		err := p.Registry.Try(ctx, s, which)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		yes, never := is(err)
		if never != nil {
			return never
		}
		if row++; yes && row >= times {
			return nil
		} else if yes {
			pause = every
		} else {
			row, pause = 0, min(pause*3/2, 10*every)
		}
		if time.Since(begun) > limit && !s.Manual { // a person takes the time that it takes, and can hang up
			return &lateError{limit, err}
		}
		if time.Since(told) > quiet {
			told, quiet = time.Now(), min(2*quiet, time.Minute)
			p.Tell(Line{Step: waiting(which), Text: fmt.Sprintf("for %v now; Entra says: %s", time.Since(begun).Round(time.Second), words(err))})
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
}

func waiting(which Which) string {
	if which == New {
		return StepProve
	}
	return StepRefuse
}

// A lateError says that Entra has not come to know what was done. It is no
// fault of Entra's that may pass: it was waited for.
type lateError struct {
	limit time.Duration
	last  error
}

func (e *lateError) Error() string {
	return fmt.Sprintf("Entra has not come to know of it within %v; it last said: %s", e.limit, words(e.last))
}

func words(err error) string {
	if err == nil {
		return "the credential works"
	}
	return err.Error()
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// texts say what begins.
var texts = map[string]string{
	StepMake:     "making a new credential",
	StepRegister: "registering it with Entra, beside the old one",
	StepProve:    "waiting until Entra takes it",
	StepSwitch:   "putting it to use",
	StepGather:   "waiting for the other replicas",
	StepRemove:   "removing the old one at Entra",
	StepRefuse:   "waiting until Entra refuses the old one",
	StepFinish:   "destroying the copy of the old one",
}

// outcome says what was done.
func (s *State) outcome(step string) string {
	switch step {
	case StepMake:
		if s.New.ID == "" {
			return "Entra will make it"
		}
		return "made " + s.New.ID
	case StepRegister:
		return "registered as " + s.Name()
	case StepProve:
		return "Entra takes it, every time"
	case StepSwitch:
		return "it is in use: " + s.New.ID
	case StepGather:
		return "no replica uses the old one"
	case StepRemove:
		return "Entra has the old one no more: " + s.Old.ID
	case StepRefuse:
		return "Entra refuses the old one, every time"
	}
	return "done"
}
