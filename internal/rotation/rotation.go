// Package rotation replaces the credential by which an application proves
// itself to Entra, while tokens are served: a new one is made, registered,
// waited for until it works everywhere, put to use, and only then the old one
// is removed at Entra, and shown to be refused.
//
// Each step may be done twice, and how far it came is stored when it is done,
// so that a rotation that was interrupted goes on where it ended. Until the old
// credential is removed everything can be undone, and is if a step cannot
// succeed. No grant is touched.
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

// The kinds of credential that can be replaced from here.
const (
	KindCertificate = "certificate" // key and certificate in a file
	KindSecret      = "secret"      // a client secret in a file
	KindVault       = "key vault certificate"
)

// The steps, in their order.
const (
	StepMake     = "make"     // the new credential exists, durably
	StepRegister = "register" // Entra has it
	StepProve    = "prove"    // Entra takes it, several times in a row
	StepSwitch   = "switch"   // it is in use
	StepGather   = "gather"   // by every replica, and the old one need not be kept
	StepRemove   = "remove"   // Entra has the old one no more
	StepRefuse   = "refuse"   // Entra refuses it, several times in a row
	StepFinish   = "finish"   // the copy of it is destroyed
)

// A Ref names a credential. It holds nothing confidential.
type Ref struct {
	ID      string    `json:"id,omitempty"`      // a thumbprint, or the hash of a secret
	KeyID   string    `json:"key_id,omitempty"`  // Entra's, where it is known
	Version string    `json:"version,omitempty"` // in a key vault
	Until   time.Time `json:"until,omitzero"`
}

// A State is how far the rotation of an application's credential has come. One
// without an ID is none: then only InUse counts.
type State struct {
	Application string        `json:"application"`
	ID          string        `json:"id,omitempty"` // in the new credential's name at Entra
	Kind        string        `json:"kind,omitempty"`
	Compromised bool          `json:"compromised,omitempty"`
	Manual      bool          `json:"manual,omitempty"` // a person changes the registration
	KeepOld     time.Duration `json:"keep_old,omitempty"`
	KeepUntil   time.Time     `json:"keep_until,omitzero"` // set when the new one is in use
	Begun       time.Time     `json:"begun,omitzero"`
	Done        string        `json:"done,omitempty"` // the last step that is done
	Undoing     bool          `json:"undoing,omitempty"`
	Removed     time.Time     `json:"removed,omitzero"` // when the old one was
	Old         Ref           `json:"old,omitzero"`
	New         Ref           `json:"new,omitzero"`

	InUse Ref `json:"in_use,omitzero"` // as far as it is not in a file
}

// Name is what the new credential is called at Entra, by which it is found
// again when nobody knows whether it came in.
func (s *State) Name() string { return "mandate " + s.ID }

// Did reports whether a step is done.
func (s *State) Did(step string) bool {
	at := slices.IndexFunc(stages(), func(x stage) bool { return x.name == s.Done })
	return at >= slices.IndexFunc(stages(), func(x stage) bool { return x.name == step })
}

// A Material is where the credential of an application is kept. What it does it
// may be asked to do again.
type Material interface {
	// Make makes the new credential and completes s.New. Of a secret, which
	// Entra makes, it does nothing.
	Make(ctx context.Context, s *State) error

	// Use puts the new credential to use, here and for good; the old one stays
	// at hand.
	Use(ctx context.Context, s *State) error

	// Back puts the old credential to use again.
	Back(ctx context.Context, s *State) error

	// Finish destroys what is left of the old credential, and Discard of the
	// new.
	Finish(ctx context.Context, s *State) error
	Discard(ctx context.Context, s *State) error
}

// A Registry is the registration of the application at Entra.
type Registry interface {
	// Add registers the new credential beside the old one, and completes
	// s.New. One that is there already stays. A secret is stored durably before
	// Add returns.
	Add(ctx context.Context, s *State) error

	// Remove removes the new or the old credential; one that is not there is
	// no error.
	Remove(ctx context.Context, s *State, which Which) error

	// Try asks Entra for a token with the new or the old credential.
	Try(ctx context.Context, s *State, which Which) error
}

// Which is one of the two credentials.
type Which bool

// The two credentials of a rotation.
const (
	Old Which = false
	New Which = true
)

// A Fleet knows which replicas do not use a credential yet.
type Fleet interface {
	Without(ctx context.Context, application, credential string) (replicas []string, err error)
}

// A Store keeps the state of rotations.
type Store interface {
	Load(ctx context.Context, application string) (State, error)
	Save(ctx context.Context, s State) error
}

// A Line is what is told while a rotation goes on.
type Line struct {
	Step string        `json:"step"`
	Text string        `json:"text"`
	Took time.Duration `json:"took,omitempty"` // set when the step is done
}

// A Procedure is the rotation of one application's credential.
type Procedure struct {
	Material Material
	Registry Registry
	Fleet    Fleet
	Store    Store

	// Record records what is about to be done and does it; see
	// [mandate.Change].
	Record func(ctx context.Context, detail string, do func() error) error

	// Tell is told how it goes on.
	Tell func(Line)

	// ReplicasDone says that every replica has the new credential, whatever is
	// known of them.
	ReplicasDone bool

	Pace Pace
}

// Pace is how often Entra is asked, and for how long. The zero value means the
// stated defaults.
type Pace struct {
	Every time.Duration // half a second; grows to ten times that while Entra says no
	Times int           // 5 in a row are believed: Entra answers from many places
	Limit time.Duration // 10 minutes for each step that waits for Entra, unless a person changes the registration
	Fleet time.Duration // 30 seconds for the other replicas
}

// ErrUndone is wrapped by the error of a rotation that was undone: everything
// is as it was before.
var ErrUndone = errors.New("undone")

// A WaitingError says that the rotation goes on later.
type WaitingError struct {
	Text string
	Kept bool // it is just that the old credential is to be kept for a while
}

func (e *WaitingError) Error() string { return e.Text }

// Is makes it temporary.
func (e *WaitingError) Is(target error) bool { return target == mandate.ErrUnavailable }

// A stage is a step and what does it.
type stage struct {
	name   string
	detail string // for the record; "" if nothing is changed
	do     func(*Procedure, context.Context, *State) error
}

// stages returns the steps in their order.
func stages() []stage {
	return []stage{
		{StepMake, "make a new credential", func(p *Procedure, ctx context.Context, s *State) error { return p.Material.Make(ctx, s) }},
		{StepRegister, "register it with Entra", func(p *Procedure, ctx context.Context, s *State) error { return p.Registry.Add(ctx, s) }},
		{StepProve, "", func(p *Procedure, ctx context.Context, s *State) error { return p.wait(ctx, s, New, taken) }},
		{StepSwitch, "put it to use", (*Procedure).use},
		{StepGather, "", (*Procedure).gather},
		{StepRemove, "remove the old one at Entra", (*Procedure).remove},
		{StepRefuse, "", func(p *Procedure, ctx context.Context, s *State) error { return p.wait(ctx, s, Old, refused) }},
		{StepFinish, "destroy the copy of the old one", func(p *Procedure, ctx context.Context, s *State) error { return p.Material.Finish(ctx, s) }},
	}
}

// Run takes the rotation to its end, from wherever it is. The error wraps
// [ErrUndone] if it could not be completed and everything is as it was; is a
// [*WaitingError] if it is to be run again later; and otherwise says what must
// be done before it is run again.
func (p *Procedure) Run(ctx context.Context, s *State) error {
	if s.Undoing {
		return p.Undo(ctx, s)
	}
	for _, step := range stages() {
		if s.Did(step.name) {
			continue
		}
		if err := p.step(ctx, s, step); err != nil {
			return p.failed(ctx, s, step, err)
		}
	}
	done := State{Application: s.Application, InUse: s.New}
	return p.Store.Save(context.WithoutCancel(ctx), done)
}

func (p *Procedure) step(ctx context.Context, s *State, step stage) error {
	p.Tell(Line{Step: step.name, Text: texts[step.name]})
	begun := time.Now()
	do := func() error { return step.do(p, ctx, s) }
	var err error
	if step.detail == "" {
		err = do()
	} else {
		err = p.Record(ctx, fmt.Sprintf("credential of application %s: %s (%s)", s.Application, step.detail, s.ID), do)
	}
	if err != nil {
		return err
	}
	s.Done = step.name
	if err := p.Store.Save(context.WithoutCancel(ctx), *s); err != nil {
		return err
	}
	p.Tell(Line{Step: step.name, Text: s.outcome(step.name), Took: time.Since(begun)})
	return nil
}

// failed decides between going on later and going back. Whatever may pass by
// itself, and whatever an operator ended, goes on later.
func (p *Procedure) failed(ctx context.Context, s *State, step stage, err error) error {
	if ctx.Err() != nil || later(err) || !s.canUndo(step.name) {
		return fmt.Errorf("%s: %w; nothing is lost: run it again, and it goes on from here", step.name, err)
	}
	p.Tell(Line{Step: step.name, Text: "this cannot be completed: " + err.Error()})
	if uerr := p.Undo(ctx, s); uerr != nil && !errors.Is(uerr, ErrUndone) {
		return errors.Join(fmt.Errorf("%s: %w", step.name, err), uerr)
	}
	return fmt.Errorf("%s: %w (%w: the application has the credential that it had before)", step.name, err, ErrUndone)
}

// canUndo reports whether a failure of a step can be undone.
func (s *State) canUndo(failing string) bool {
	return failing != StepRemove && !s.Did(StepRemove)
}

// later reports whether an error may pass by itself.
func later(err error) bool {
	var f *mandate.Fault
	if errors.As(err, &f) {
		return f.Domain == mandate.DomainTransient
	}
	return errors.Is(err, mandate.ErrUnavailable)
}

// Undo takes the rotation back: the old credential is in use, and the new one
// is gone. It is refused once the old one does not work any more.
func (p *Procedure) Undo(ctx context.Context, s *State) error {
	if !s.canUndo("") {
		return mandate.Invalid("rotation", "the old credential has been removed at Entra: run the rotation again, and it goes on to its end")
	}
	if err := p.Registry.Try(ctx, s, Old); s.Did(StepProve) && err != nil {
		return fmt.Errorf("the old credential does not work, so the new one stays in use: %w", err)
	}
	s.Undoing = true
	if err := p.Store.Save(context.WithoutCancel(ctx), *s); err != nil {
		return err
	}
	p.Tell(Line{Step: "undo", Text: "putting the old credential to use again, and removing the new one"})
	err := p.Record(ctx, fmt.Sprintf("credential of application %s: undo the rotation (%s)", s.Application, s.ID), func() error {
		if err := p.Material.Back(ctx, s); err != nil {
			return err
		}
		if err := p.Registry.Remove(ctx, s, New); err != nil && (s.Did(StepRegister) || later(err)) {
			return fmt.Errorf("remove the new credential: %w", err)
		} // what Entra did not let in need not be removed, and its key is destroyed
		return p.Material.Discard(ctx, s)
	})
	if err != nil {
		return fmt.Errorf("undo: %w; the old credential is in use: run it again, and it goes on", err)
	}
	before := State{Application: s.Application, InUse: s.Old}
	if err := p.Store.Save(context.WithoutCancel(ctx), before); err != nil {
		return err
	}
	return ErrUndone
}

// use puts the new credential to use and asks Entra again.
func (p *Procedure) use(ctx context.Context, s *State) error {
	if err := p.Material.Use(ctx, s); err != nil {
		return err
	}
	s.InUse = s.New
	s.KeepUntil = time.Now().Add(s.KeepOld)
	return p.wait(ctx, s, New, taken)
}

// gather waits until no replica needs the old credential.
func (p *Procedure) gather(ctx context.Context, s *State) error {
	limit, every := cmp.Or(p.Pace.Fleet, 30*time.Second), cmp.Or(p.Pace.Every, 500*time.Millisecond)
	for begun := time.Now(); !p.ReplicasDone; {
		behind, err := p.Fleet.Without(ctx, s.Application, s.New.ID)
		if err != nil {
			return err
		}
		if len(behind) == 0 {
			break
		}
		if time.Since(begun) > limit {
			return &WaitingError{Text: fmt.Sprintf("these replicas do not use the new credential yet: %v; bring its file to each, or say --replicas-done if they are gone", behind)}
		}
		if err := sleep(ctx, every); err != nil {
			return err
		}
	}
	if left := time.Until(s.KeepUntil); left > 0 {
		return &WaitingError{Kept: true, Text: "the new credential is in use; the old one is kept until " + s.KeepUntil.UTC().Format(time.RFC3339) +
			": run the rotation again after that, and it removes it"}
	}
	return nil
}

func (p *Procedure) remove(ctx context.Context, s *State) error {
	if err := p.Registry.Remove(ctx, s, Old); err != nil {
		return err
	}
	s.Removed = time.Now()
	return nil
}
