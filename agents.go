package mandate

import (
	"context"
	"errors"
	"fmt"
)

// An AgentDirectory tells who acts for a partner.
type AgentDirectory interface {
	// AgentGroupsOf returns which of the partner's agent groups a user of its
	// tenant is a direct member of; none is an answer, too. The token is for
	// Graph, of the partner's own tenant. What is not a clear answer is a
	// [*Fault].
	AgentGroupsOf(ctx context.Context, k GrantKey, user ObjectID, token Secret) ([]string, error)
}

// agentsCaller is the caller in the records of such questions, and
// agentsPurpose their purpose.
const (
	agentsCaller  = CallerID("mandate:pages")
	agentsPurpose = "roles"
)

// AgentGroups asks Graph, with the partner's own grant and on the record, which
// agent groups somebody of the partner is in now. Nothing is remembered. Without
// a grant that serves, the error wraps [ErrNoGrant].
func (b *Broker) AgentGroups(ctx context.Context, k GrantKey, user ObjectID) (groups []string, err error) {
	if b.cfg.Agents == nil {
		return nil, fmt.Errorf("%w: this server cannot ask who acts for a partner", ErrNotFound)
	}
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Timeout)
	defer cancel()
	for range rounds {
		groups, err = b.askAgents(ctx, k, user)
		if !errors.Is(err, ErrSuperseded) {
			return groups, err
		}
	}
	return nil, fmt.Errorf("%w: security state kept changing while this was asked", ErrUnavailable)
}

func (b *Broker) askAgents(ctx context.Context, k GrantKey, user ObjectID) (groups []string, err error) {
	epoch, err := b.cfg.Epoch.Epoch()
	if err == nil {
		err = b.locked()
	}
	if err != nil {
		return nil, err
	}
	g, err := b.headOf(ctx, k, epoch)
	if err != nil {
		return nil, err
	}
	if len(g.Audiences) < 2 {
		return nil, fmt.Errorf("%w: the grant does not reach Graph", ErrNoGrant)
	}
	e := errand{agentsCaller, agentsPurpose, g.Audiences[1].Audience, "GET /v1.0/users/{id}/memberOf"}
	err = b.runErrand(ctx, &g, epoch, e, func(token Secret) (err error) {
		groups, err = b.cfg.Agents.AgentGroupsOf(ctx, k, user, token)
		return err
	})
	return groups, err
}
