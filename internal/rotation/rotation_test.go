package rotation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mandate-sam/mandate"
)

// A world is a vault, Entra and a database, in memory. What happens in it
// survives the death of whoever runs the rotation.
type world struct {
	entra    map[string]bool // credentials that work
	files    map[string]bool // that we have
	inUse    string
	state    string // JSON
	secret   bool   // of Entra's making
	lag      int    // questions until Entra knows of a change
	behind   []string
	recorded []string

	calls int
	dieAt int              // at this call the process is killed
	fails map[string]error // by operation; once
	stuck map[string]error // by operation; always
}

var errKilled = errors.New("killed")

// call is one thing that is done to the world; die reports whether the process
// dies, after it was done or before.
func (w *world) call(op string, do func()) error {
	w.calls++
	if w.dieAt > 0 && w.calls == w.dieAt {
		if w.calls%2 == 0 {
			do() // it was done, and nobody heard
		}
		panic(errKilled)
	}
	if err := w.stuck[op]; err != nil {
		return err
	}
	if err := w.fails[op]; err != nil {
		delete(w.fails, op)
		return err
	}
	do()
	return nil
}

func (w *world) Make(_ context.Context, s *State) error {
	if w.secret {
		return nil
	}
	s.New.ID = "made-" + fmt.Sprint(w.calls)
	return w.call("make", func() { w.files[s.New.ID] = true })
}

func (w *world) Use(_ context.Context, s *State) error {
	return w.call("use", func() { w.inUse = s.New.ID })
}

func (w *world) Back(_ context.Context, s *State) error {
	return w.call("back", func() { w.inUse = s.Old.ID })
}

func (w *world) Finish(_ context.Context, s *State) error {
	return w.call("finish", func() { delete(w.files, s.Old.ID) })
}

func (w *world) Discard(_ context.Context, s *State) error {
	return w.call("discard", func() { delete(w.files, s.New.ID) })
}

func (w *world) Add(_ context.Context, s *State) error {
	if w.secret {
		s.New.ID = "secret"
	}
	return w.call("add", func() { w.entra[s.New.ID], w.files[s.New.ID] = true, true })
}

func (w *world) Remove(_ context.Context, s *State, which Which) error {
	gone := s.Old.ID
	if which == New {
		gone = s.New.ID
	}
	return w.call("remove", func() { delete(w.entra, gone) })
}

func (w *world) Try(_ context.Context, s *State, which Which) error {
	id := s.Old.ID
	if which == New {
		id = s.New.ID
	}
	if !w.files[id] {
		return mandate.Invalid("credential", "%s is not here", id)
	}
	if w.lag > 0 && which == New {
		w.lag--
		return &mandate.Fault{Domain: mandate.DomainApplication, Codes: []int{700027}}
	}
	err := w.call("try", func() {})
	if err == nil && !w.entra[id] {
		err = &mandate.Fault{Domain: mandate.DomainApplication, Codes: []int{7000215}}
	}
	return err
}

func (w *world) Without(context.Context, string, string) ([]string, error) { return w.behind, nil }

func (w *world) Load(context.Context, string) (s State, err error) {
	return s, json.Unmarshal([]byte(w.state), &s)
}

func (w *world) Save(_ context.Context, s State) error {
	b, _ := json.Marshal(s)
	return w.call("save", func() { w.state = string(b) })
}

func newRotationWorld(secret bool) *world {
	return &world{
		entra: map[string]bool{"first": true}, files: map[string]bool{"first": true}, inUse: "first", secret: secret, lag: 3,
		state: `{"application":"a","id":"r1","old":{"id":"first"},"in_use":{"id":"first"}}`,
		fails: map[string]error{}, stuck: map[string]error{},
	}
}

// run runs the rotation from what is stored, and returns what came of it;
// errKilled if the process died.
func (w *world) run(ctx context.Context, change ...func(*Procedure, *State)) (err error) {
	defer func() {
		if r := recover(); r != nil {
			if r != errKilled {
				panic(r)
			}
			err = errKilled
		}
	}()
	s, err := w.Load(ctx, "a")
	if err != nil || s.ID == "" { // none is under way
		return err
	}
	p := &Procedure{
		Material: w, Registry: w, Fleet: w, Store: w, Tell: func(Line) {},
		Pace: Pace{Every: time.Microsecond, Times: 3, Limit: 200 * time.Millisecond, Fleet: time.Millisecond},
		Record: func(_ context.Context, detail string, do func() error) error {
			w.recorded = append(w.recorded, detail)
			return do()
		},
	}
	for _, f := range change {
		f(p, &s)
	}
	return p.Run(ctx, &s)
}

// serves checks what must hold at every moment, whatever has failed: what is in
// use works.
func (w *world) serves(t *testing.T, what string) {
	t.Helper()
	if !w.entra[w.inUse] || !w.files[w.inUse] {
		t.Errorf("%s: %s is in use; Entra has %v, and here are %v", what, w.inUse, w.entra, w.files)
	}
}

// done checks that one credential is left, everywhere, and which.
func (w *world) done(t *testing.T, what string, replaced bool) {
	t.Helper()
	w.serves(t, what)
	s, err := w.Load(t.Context(), "a")
	if err != nil || s.ID != "" || len(w.entra) != 1 || (w.inUse != "first") != replaced || s.InUse.ID != w.inUse {
		t.Errorf("%s: state %s, in use %s, Entra %v, files %v, %v", what, w.state, w.inUse, w.entra, w.files, err)
	}
}

func TestRotation(t *testing.T) {
	for _, secret := range []bool{false, true} {
		w := newRotationWorld(secret)
		if err := w.run(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.done(t, "rotated", true)
		if got := strings.Join(w.recorded, "; "); !strings.Contains(got, "register it with Entra (r1)") || len(w.recorded) != 5 {
			t.Errorf("recorded %q", got)
		}
	}
}

// Killed at any moment, between two steps or within one, the application has a
// credential that works, and the next run ends what was begun.
func TestRotationKilled(t *testing.T) {
	for _, secret := range []bool{false, true} {
		for at := 1; ; at++ {
			w := newRotationWorld(secret)
			w.dieAt = at
			err := w.run(t.Context())
			what := fmt.Sprintf("secret %v, killed at call %d", secret, at)
			w.serves(t, what)
			if err == nil {
				if at < 15 {
					t.Fatalf("there are only %d calls", at)
				}
				break
			}
			if !errors.Is(err, errKilled) {
				t.Fatalf("%s: %v", what, err)
			}
			if err := w.run(t.Context()); err != nil {
				t.Fatalf("%s, then: %v", what, err)
			}
			w.done(t, what, true)
		}
	}
}

var (
	forbidden = &mandate.Fault{Domain: mandate.DomainAudience, Status: 403}
	busy      = &mandate.Fault{Domain: mandate.DomainTransient, Status: 429}
)

// What fails once and may pass is gone on with; what cannot succeed is undone
// as long as that can be, and then waits for a person.
func TestRotationFails(t *testing.T) {
	for _, op := range []string{"make", "add", "use", "remove", "finish", "save"} {
		for name, fault := range map[string]error{"busy": busy, "forbidden": forbidden} {
			w := newRotationWorld(false)
			w.fails[op] = fault
			err := w.run(t.Context())
			what := op + " " + name
			w.serves(t, what)
			undone := errors.Is(err, ErrUndone)
			switch {
			case err == nil:
				t.Errorf("%s: no error", what)
			case undone:
				w.done(t, what, false)
			}
			if name == "busy" && undone || name == "forbidden" && (op == "make" || op == "add" || op == "use") != undone && op != "save" {
				t.Errorf("%s: undone %v: %v", what, undone, err)
			}
			if !undone {
				if err := w.run(t.Context()); err != nil && !errors.Is(err, ErrUndone) {
					t.Errorf("%s, then: %v", what, err)
				}
				w.done(t, what, w.inUse != "first")
			}
		}
	}
}

// A credential that Entra never takes is taken back.
func TestRotationNeverPropagates(t *testing.T) {
	w := newRotationWorld(false)
	w.lag = 1 << 30
	if err := w.run(t.Context()); !errors.Is(err, ErrUndone) || !strings.Contains(err.Error(), "not come to know") {
		t.Errorf("got %v", err)
	}
	w.done(t, "never", false)
}

// A person who changes the registration by hand is waited for, and not told the
// same every few seconds.
func TestRotationByHandWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, lines, begun := newRotationWorld(false), 0, time.Now()
		w.lag = 800
		err := w.run(t.Context(), func(p *Procedure, s *State) { p.Pace, p.Tell, s.Manual = Pace{}, func(Line) { lines++ }, true })
		if took := time.Since(begun); err != nil || took < time.Hour || lines > 100 {
			t.Errorf("%v after %v, told %d lines", err, took, lines)
		}
		w.done(t, "by hand", true)
	})
}

// If the removal of the new one fails while undoing, the next run goes on with
// that and with nothing else.
func TestRotationUndoneLater(t *testing.T) {
	w := newRotationWorld(false)
	w.lag, w.stuck["remove"] = 1<<30, busy
	if err := w.run(t.Context()); err == nil || errors.Is(err, ErrUndone) {
		t.Errorf("got %v", err)
	}
	w.serves(t, "half undone")
	w.lag, w.stuck = 0, nil
	if err := w.run(t.Context()); !errors.Is(err, ErrUndone) {
		t.Errorf("got %v", err)
	}
	w.done(t, "undone", false)
}

// The old one is not removed while a replica needs it, or while it is to be
// kept; and until it is, everything can be undone.
func TestRotationWaits(t *testing.T) {
	keep := func(_ *Procedure, s *State) { s.KeepOld = time.Hour }
	for name, tt := range map[string]struct {
		behind []string
		change func(*Procedure, *State)
		kept   bool
	}{
		"a replica": {[]string{"b/1"}, func(*Procedure, *State) {}, false},
		"kept":      {nil, keep, true},
	} {
		w := newRotationWorld(false)
		w.behind = tt.behind
		err := w.run(t.Context(), tt.change)
		waiting, ok := errors.AsType[*WaitingError](err)
		if !ok || waiting.Kept != tt.kept || !errors.Is(err, mandate.ErrUnavailable) || len(w.entra) != 2 || w.inUse == "first" {
			t.Errorf("%s: %v, Entra %v", name, err, w.entra)
		}
		w.run(t.Context(), func(p *Procedure, s *State) { s.Undoing = true })
		w.done(t, name, false)
		w = newRotationWorld(false)
		w.behind = tt.behind
		w.run(t.Context(), tt.change)
		if err := w.run(t.Context(), func(p *Procedure, s *State) { p.ReplicasDone = true; s.KeepUntil = time.Time{} }); err != nil {
			t.Errorf("%s, over: %v", name, err)
		}
		w.done(t, name, true)
	}
}

// Once Entra refuses the old one there is no way back.
func TestRotationNoWayBack(t *testing.T) {
	w := newRotationWorld(false)
	w.stuck["finish"] = busy
	if err := w.run(t.Context()); err == nil {
		t.Fatal("no error")
	}
	s, _ := w.Load(t.Context(), "a")
	p := &Procedure{Material: w, Registry: w, Fleet: w, Store: w, Tell: func(Line) {}, Record: func(_ context.Context, _ string, do func() error) error { return do() }}
	if err := p.Undo(t.Context(), &s); !errors.Is(err, mandate.ErrInvalid) {
		t.Errorf("got %v", err)
	}
	w.serves(t, "no way back")
}

// Interrupted by the operator, nothing is undone.
func TestRotationInterrupted(t *testing.T) {
	w := newRotationWorld(false)
	w.lag = 1 << 30
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(2*time.Millisecond, cancel)
	err := w.run(ctx, func(p *Procedure, _ *State) { p.Pace.Limit = time.Minute })
	if err == nil || errors.Is(err, ErrUndone) || len(w.entra) != 2 {
		t.Errorf("%v, Entra %v", err, w.entra)
	}
	w.lag = 0
	if err := w.run(t.Context()); err != nil {
		t.Error(err)
	}
	w.done(t, "gone on with", true)
}
