package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/mandate-sam/mandate"
)

// rolesAge is how long Graph's word counts that somebody is an Admin agent, or
// is none. Nobody is believed to be one for longer without asking again.
const rolesAge = 3 * time.Minute

// maxRoles bounds how many people's are remembered.
const maxRoles = 10_000

// partnerRoles knows what people of partners may do on their pages: what an
// operator allowed, read each time; and everything for whoever is an Admin
// agent of the partner, which Graph is asked with the partner's own grant.
type partnerRoles struct {
	given interface {
		PartnerUserRoles(context.Context, mandate.GrantKey, mandate.ObjectID) ([]string, error)
	}
	agents interface {
		AgentGroups(context.Context, mandate.GrantKey, mandate.ObjectID) ([]string, error)
	}

	asking singleflight.Group

	mu    sync.Mutex // guards known
	known map[member]standing
}

// A member is somebody of a partner.
type member struct {
	key  mandate.GrantKey
	user mandate.ObjectID
}

// A standing is what Graph said, and when it was asked.
type standing struct {
	admin bool
	asked time.Time
}

// of returns what somebody may do now; nothing if that is a guest of the
// tenant, or of another. If an operator allowed nothing and Graph does not
// tell, the error is a [*mandate.Refusal] for [mandate.ReasonRoleUnknown]: not
// to know is no role. If again, Graph is asked whatever it said before.
func (p *partnerRoles) of(ctx context.Context, k mandate.GrantKey, user mandate.Identity, again bool) ([]string, error) {
	if user.Tenant != k.Partner {
		return nil, nil
	}
	given, err := p.given.PartnerUserRoles(ctx, k, user.Object)
	if err != nil || len(given) == len(mandate.PartnerRoles()) {
		return given, err
	}
	admin, err := p.admin(ctx, member{k, user.Object}, again)
	switch {
	case err != nil && len(given) > 0:
		return given, nil
	case errors.Is(err, mandate.ErrUnavailable):
		return nil, err
	case err != nil:
		return nil, &mandate.Refusal{Reason: mandate.ReasonRoleUnknown, Err: err}
	case admin:
		return mandate.PartnerRoles(), nil
	}
	return given, nil
}

// admin reports whether somebody is an Admin agent. Whoever asks for the same
// at the same time waits for the same answer.
func (p *partnerRoles) admin(ctx context.Context, m member, again bool) (bool, error) {
	p.mu.Lock()
	s, ok := p.known[m]
	p.mu.Unlock()
	if ok && !again && time.Since(s.asked) < rolesAge {
		return s.admin, nil
	}
	done := p.asking.DoChan(fmt.Sprint(m), func() (any, error) {
		asked := time.Now()
		groups, err := p.agents.AgentGroups(context.WithoutCancel(ctx), m.key, m.user)
		admin := slices.Contains(groups, "AdminAgents")
		p.note(m, standing{admin, asked}, err)
		return admin, err
	})
	select {
	case r := <-done:
		admin, _ := r.Val.(bool)
		return admin, r.Err
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// note remembers an answer, or forgets what was known if there is none.
func (p *partnerRoles) note(m member, s standing, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.known) >= maxRoles || p.known == nil {
		p.known = make(map[member]standing)
	}
	if err != nil {
		delete(p.known, m)
		return
	}
	p.known[m] = s
}
