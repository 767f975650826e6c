package policy

import (
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/mandate-sam/mandate"
)

// A Version is a policy that somebody put in force.
type Version struct {
	Number int64 // grows with every change
	Source Source
}

// A Keeper knows which policy is in force.
type Keeper interface {
	// Policy returns the policy that is in force in the current epoch, or nil if
	// there is none. It is called on every decision: while nothing changes it
	// returns the same pointer, and does not wait. The error wraps
	// [mandate.ErrUnavailable].
	Policy() (*Version, error)
}

// EngineConfig is the configuration of an [Engine].
type EngineConfig struct {
	Keeper    Keeper          // required
	Clouds    []mandate.Cloud // whose audiences rules may name
	Approvals Approvals       // nil: there are none
	Log       *slog.Logger    // told of a policy that cannot be used; nil discards it
}

// An Engine decides by the policy that is in force, and follows every change of
// it: no request is decided by an old policy once the change is known. A policy
// that does not compile leaves the one before it in force, and says so; while
// there is none, everything is denied. Its methods may be called concurrently.
type Engine struct {
	cfg   EngineConfig
	state atomic.Pointer[state]

	mu sync.Mutex // held while a policy is compiled, so that each is compiled once
}

// A state is what an Engine knows; it is never changed.
type state struct {
	seen   *Version // the last that the keeper named
	inUse  int64    // number of the one that decides
	set    *Set     // nil if there is none
	broken error    // why seen is not the one that decides
}

// NewEngine returns an engine. It reads nothing yet.
func NewEngine(cfg EngineConfig) *Engine {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	e := &Engine{cfg: cfg}
	e.state.Store(new(state))
	return e
}

// Decide implements [mandate.Policy].
func (e *Engine) Decide(req *mandate.Request) mandate.Decision {
	st, err := e.current()
	switch {
	case err != nil:
		return mandate.Decision{Reason: "no rule: the policy in force is not known: " + err.Error()}
	case st.set == nil:
		return mandate.Decision{Reason: "no rule: there is no policy in force"}
	}
	return st.set.approve(req, e.cfg.Approvals)
}

// current returns what is in force, after compiling it if it is new.
func (e *Engine) current() (*state, error) {
	v, err := e.cfg.Keeper.Policy()
	if err != nil {
		return nil, err
	}
	if st := e.state.Load(); st.seen == v {
		return st, nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	st := e.state.Load()
	if st.seen == v || v == nil || st.seen != nil && v.Number < st.seen.Number {
		return st, nil
	}
	st = e.follow(st, v)
	e.state.Store(st)
	return st, nil
}

// follow returns the state after v was put in force.
func (e *Engine) follow(before *state, v *Version) *state {
	set, err := Compile(v.Source, e.cfg.Clouds)
	if err != nil {
		e.cfg.Log.Error("the policy in force cannot be used; the one before it decides", "number", v.Number, "policy", v.Source.Version(), "decides", before.inUse, "err", err)
		return &state{seen: v, inUse: before.inUse, set: before.set, broken: err}
	}
	e.cfg.Log.Info("policy in force", "number", v.Number, "policy", set.Version(), "rules", set.Len())
	return &state{seen: v, inUse: v.Number, set: set}
}

// Compile is [Compile] for the engine's clouds.
func (e *Engine) Compile(src Source) (*Set, error) { return Compile(src, e.cfg.Clouds) }

// InForce returns the policy that decides and its number; nil and 0 if there is
// none. Broken says why it is not the latest, if it is not.
func (e *Engine) InForce() (set *Set, number int64, broken error, err error) {
	st, err := e.current()
	if err != nil {
		return nil, 0, nil, err
	}
	return st.set, st.inUse, st.broken, nil
}
