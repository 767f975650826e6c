package app

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/entra"
	"github.com/mandate-sam/mandate/internal/rotation"
	"github.com/mandate-sam/mandate/internal/spelling"
)

// topicCredentials is the notice that credentials are to be read again.
const topicCredentials = "credentials"

// A rotator looks after the credentials of the applications: it reads them
// again when they change, tells the other replicas which are in use here, and
// replaces them. It implements [api.Credentials].
type rotator struct {
	*parts
	app    *App
	config *Config
	states *rotation.SQL
	log    *slog.Logger
	pace   rotation.Pace

	mu   sync.Mutex // guards busy
	busy map[string]bool
}

// newRotator makes it, and has every application use the credential that the
// last rotation left in use.
func newRotator(ctx context.Context, a *App, p *parts, c *Config) (*rotator, error) {
	host, _ := os.Hostname() // "" will do
	r := &rotator{
		parts: p, app: a, config: c, log: a.log, busy: make(map[string]bool),
		states: &rotation.SQL{DB: a.db, Replica: cmp.Or(c.Database.Replica, host) + "/" + rand.Text()[:6]},
	}
	if err := r.states.Leave(ctx, c.Database.URL == ""); err != nil {
		return nil, err
	}
	for name := range p.upstream.live {
		if err := r.pin(ctx, name); err != nil {
			return nil, fmt.Errorf("application %s: %w", name, err)
		}
	}
	return r, nil
}

// pin has the application use the version of its vault's certificate that is
// in use, which need not be the newest.
func (r *rotator) pin(ctx context.Context, name string) error {
	l := r.upstream.live[name]
	if l.application.Credential.rotates() != rotation.KindVault {
		return nil
	}
	s, err := r.states.Load(ctx, name)
	if err != nil || s.InUse.Version == "" || s.InUse.Version == l.ref().Version {
		return err
	}
	return l.load(ctx, s.InUse.Version)
}

const (
	// lookEvery is how often files are looked at, and sayEvery how often it is
	// said which credential is in use.
	lookEvery = 2 * time.Second
	sayEvery  = 30 * time.Second
)

// watch reads credentials again when they change, until ctx is done.
func (r *rotator) watch(ctx context.Context) error {
	told, cancel := r.app.db.Subscribe(topicCredentials)
	defer cancel()
	look, say := time.NewTicker(lookEvery), time.NewTicker(sayEvery)
	defer look.Stop()
	defer say.Stop()
	r.say(ctx)
	for {
		select {
		case <-look.C:
			r.reload(ctx, false)
		case <-told:
			r.reload(ctx, true)
		case <-say.C:
			r.say(ctx)
		case <-ctx.Done():
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			_ = r.states.Leave(ctx, false) // it would count for two minutes more
			return nil
		}
	}
}

// reload reads the credentials again. One that cannot be read leaves the one
// before in use.
func (r *rotator) reload(ctx context.Context, pins bool) {
	any := false
	for name, l := range r.upstream.live {
		changed, err := l.reload(ctx)
		if err == nil && pins {
			changed = true
			err = r.pin(ctx, name)
		}
		any = any || changed
		if err != nil && ctx.Err() == nil {
			r.log.Error("read the credential again; the one before stays in use", "application", name, "err", err)
		} else if changed {
			r.log.Info("credential read again", "application", name, "id", l.ref().ID)
		}
	}
	if any {
		r.say(ctx)
	}
}

// say tells the other replicas what is in use here.
func (r *rotator) say(ctx context.Context) {
	for name, l := range r.upstream.live {
		if id := l.ref().ID; id != "" {
			if err := r.states.Uses(ctx, name, id); err != nil && ctx.Err() == nil {
				r.log.Warn("note which credential is in use", "application", name, "err", err)
			}
		}
	}
}

// lock keeps two operators from one application's credential.
func (r *rotator) lock(name string) (unlock func(), err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.busy[name] {
		return nil, fmt.Errorf("%w: somebody is rotating the credential of %s just now", mandate.ErrUnavailable, name)
	}
	r.busy[name] = true
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.busy, name)
	}, nil
}

func (r *rotator) application(name string) (*liveCredential, error) {
	if l := r.upstream.live[name]; l != nil {
		return l, nil
	}
	const unknown = "%w: there is no application %.60q"
	if len(name) <= 60 {
		if near := spelling.Nearest(name, slices.Sorted(maps.Keys(r.upstream.live)), 2); near != "" {
			return nil, fmt.Errorf(unknown+"; did you mean %q?", mandate.ErrNotFound, name, near)
		}
	}
	return nil, fmt.Errorf(unknown, mandate.ErrNotFound, name)
}

// RotateCredential implements [api.Credentials].
func (r *rotator) RotateCredential(ctx context.Context, in api.CredentialRequest, by mandate.By, tell func(api.CredentialLine)) error {
	l, err := r.application(in.Application)
	if err != nil {
		return err
	}
	unlock, err := r.lock(in.Application)
	if err != nil {
		return err
	}
	defer unlock()
	s, err := r.states.Load(ctx, in.Application)
	if err != nil {
		return err
	}
	if err := r.begin(ctx, &s, l, in); err != nil {
		return err
	}
	p, err := r.procedure(ctx, &s, l, in, by, tell)
	if err != nil {
		return err
	}
	before, err := r.touched(ctx, l)
	if err != nil {
		return err
	}
	if in.Undo {
		err = p.Undo(ctx, &s)
	} else {
		err = p.Run(ctx, &s)
	}
	return r.end(ctx, &s, l, before, err, tell)
}

// begin begins a rotation, unless one is under way.
func (r *rotator) begin(ctx context.Context, s *rotation.State, l *liveCredential, in api.CredentialRequest) error {
	kind := l.application.Credential.rotates()
	switch {
	case kind == "":
		return mandate.Invalid("application", "%s has its credential in a way that cannot be rotated from here (%s): a certificate with its key in one PEM file can, "+
			"a secret in a file, and a certificate in Key Vault by its name without a version", in.Application, l.application.Credential.where())
	case in.Kind != "" && !strings.HasSuffix(kind, in.Kind):
		return mandate.Invalid("kind", "%s has a %s. To change to a %s, register one, name it in the configuration under credential, restart, and remove the old one in the portal", in.Application, kind, in.Kind)
	case s.ID != "":
		s.Compromised = s.Compromised || in.Compromised
		s.Manual = s.Manual || in.ByHand
		if in.Compromised {
			s.KeepUntil = time.Time{}
		}
		return nil
	case in.Undo:
		return fmt.Errorf("%w: no rotation of the credential of %s is under way", mandate.ErrNotFound, in.Application)
	case in.Compromised && in.KeepOldSecs > 0:
		return mandate.Invalid("keep_old_secs", "does not go with compromised: what somebody else has must go at once")
	case !in.ByHand && l.application.HomeTenant == "":
		return errHome
	}
	old := l.ref()
	if s.InUse.ID == old.ID {
		old.KeyID = s.InUse.KeyID
	}
	*s = rotation.State{
		Application: in.Application, ID: strings.ToLower(rand.Text()[:8]), Kind: kind, Compromised: in.Compromised, Manual: in.ByHand,
		KeepOld: time.Duration(in.KeepOldSecs) * time.Second, Begun: time.Now(), Old: old, InUse: old,
	}
	return r.states.Save(ctx, *s)
}

// procedure puts together what a rotation needs.
func (r *rotator) procedure(ctx context.Context, s *rotation.State, l *liveCredential, in api.CredentialRequest, by mandate.By, tell func(api.CredentialLine)) (*rotation.Procedure, error) {
	line := func(n rotation.Line) {
		tell(api.CredentialLine{Step: n.Step, Text: n.Text, TookMS: n.Took.Milliseconds()})
	}
	m := r.material(l)
	reg, err := r.registration(ctx, l, m)
	if err != nil {
		return nil, err
	}
	reg.tell = line
	return &rotation.Procedure{
		Material: m, Registry: reg, Fleet: &fleet{r}, Store: r.states, Tell: line, ReplicasDone: in.ReplicasDone, Pace: r.pace,
		Record: func(ctx context.Context, detail string, do func() error) error {
			_, err := mandate.Change(ctx, r.app.audit, r.epoch, mandate.Record{Caller: by.Caller, Address: by.Address, Detail: detail}, do)
			return err
		},
	}, nil
}

func (r *rotator) material(l *liveCredential) material {
	cr := &l.application.Credential
	if cr.rotates() == rotation.KindVault {
		return &vaultMaterial{live: l, opened: make(map[string]entra.Credential)}
	}
	return &fileMaterial{live: l, path: r.config.file(cmp.Or(cr.Certificate, cr.Secret))}
}

// registration returns the application's, with a tenant in which its credential
// can be tried: its own, or a partner's.
func (r *rotator) registration(ctx context.Context, l *liveCredential, m material) (*registration, error) {
	id, err := mandate.ParseAppID(l.application.ClientID)
	if err != nil {
		return nil, err
	}
	cloud := l.application.cloud()
	reg := &registration{
		client: r.upstream.entra[appKey{cloud, id}], graph: r.upstream.graph[cloud],
		audience: r.clouds[cloud].Audiences[mandate.Graph].Resource, id: id, material: m,
	}
	if l.application.HomeTenant != "" {
		reg.home, err = mandate.ParseTenantID(l.application.HomeTenant)
		reg.probe = reg.home
		return reg, err
	}
	grants, err := r.grantsOf(ctx, l)
	if err != nil {
		return nil, err
	}
	for _, g := range grants {
		if g.State == mandate.StateActive {
			reg.probe = g.Key.Partner
			return reg, nil
		}
	}
	return nil, mandate.Invalid("home_tenant", "is not configured, and no partner has an active grant, so there is no tenant in which the new credential could be tried")
}

// A fleet is the replicas, after they were told to look again.
type fleet struct{ *rotator }

// Without implements [rotation.Fleet].
func (f *fleet) Without(ctx context.Context, application, credential string) ([]string, error) {
	f.reload(ctx, false)
	f.say(ctx)
	if err := f.app.db.Notify(ctx, topicCredentials, application); err != nil {
		return nil, err
	}
	return f.states.Without(ctx, application, credential)
}

// end tells what came of it.
func (r *rotator) end(ctx context.Context, s *rotation.State, l *liveCredential, before map[string]string, err error, tell func(api.CredentialLine)) error {
	r.say(ctx)
	if nerr := r.app.db.Notify(ctx, topicCredentials, s.Application); nerr != nil && ctx.Err() == nil {
		r.log.Warn("tell the other replicas", "err", nerr)
	}
	var waiting *rotation.WaitingError
	switch {
	case errors.As(err, &waiting) && waiting.Kept:
		tell(api.CredentialLine{Kept: true, Text: waiting.Text})
		return nil
	case errors.Is(err, rotation.ErrUndone):
		tell(api.CredentialLine{Undone: true, Text: "everything is as it was before"})
		if err == rotation.ErrUndone { // as it was asked for
			return nil
		}
		return err
	case err != nil:
		return err
	}
	return r.grants(ctx, s, l, before, tell)
}
