package arm

import (
	"net/http"

	"github.com/mandate-sam/mandate/emulator/directory"
	"github.com/mandate-sam/mandate/emulator/internal/bearer"
)

// A deletion is that of a resource group. It takes as long as it is asked
// about twice.
type deletion struct {
	subscription, group string
	looks               int
	over                bool
}

// looksNeeded is how often somebody has to ask until a deletion is over.
const looksNeeded = 2

func (s *Server) groupExists(c call) (reply, error) {
	if _, err := s.named(c); err != nil {
		return reply{}, err
	}
	return reply{status: http.StatusNoContent}, nil
}

// patchGroup changes the tags of a resource group.
func (s *Server) patchGroup(c call) (reply, error) {
	var in struct {
		Tags map[string]string `json:"tags"`
	}
	if bearer.ReadJSON(c.Request, &in) != nil {
		return reply{}, errContent
	}
	g, err := s.named(c)
	if err != nil {
		return reply{}, err
	}
	if g.Deletion != "" {
		return reply{}, errDeleting
	}
	if in.Tags != nil {
		g.Tags = in.Tags
	}
	s.cfg.Directory.SetResourceGroup(c.home.Subscription, g)
	return ok(groupObject(c.home.Subscription, g))
}

// deleteGroup begins to delete the resource group. The answer says where to
// ask how that goes; a second request is told the same place.
func (s *Server) deleteGroup(c call) (reply, error) {
	g, err := s.named(c)
	if err != nil {
		return reply{}, err
	}
	if g.Deletion == "" {
		g.Deletion = s.begin(c.home.Subscription, g)
		s.cfg.Directory.SetResourceGroup(c.home.Subscription, g)
	}
	return s.pending(c, g.Deletion), nil
}

// pending is the answer while an operation is going on.
func (s *Server) pending(c call, id string) reply {
	poll := "https://" + c.Host + "/subscriptions/" + c.home.Subscription + "/operationresults/" + id + "?api-version=2021-04-01"
	return reply{status: http.StatusAccepted, headers: map[string]string{"Location": poll, "Retry-After": "1"}}
}

func (s *Server) begin(subscription string, g directory.ResourceGroup) string {
	id := s.cfg.Chance.GUID()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refresh()
	s.deletions[id] = &deletion{subscription: subscription, group: g.Name}
	return id
}

// refresh forgets everything if the directory was cleared. The caller holds
// s.mu.
func (s *Server) refresh() {
	if g := s.cfg.Directory.Generation(); g != s.generation || s.deletions == nil {
		s.generation, s.deletions = g, map[string]*deletion{}
	}
}

// advance counts that somebody asked about the deletion, and reports whether
// it is over.
func (s *Server) advance(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refresh()
	d := s.deletions[id]
	if d == nil || d.over {
		return true
	}
	if d.looks++; d.looks < looksNeeded {
		return false
	}
	d.over = true
	s.cfg.Directory.RemoveResourceGroup(d.subscription, d.group)
	return true
}

// operationResult says how a deletion goes: accepted until it is over.
func (s *Server) operationResult(c call) (reply, error) {
	id := c.names[1]
	s.mu.Lock()
	s.refresh()
	d := s.deletions[id]
	s.mu.Unlock()
	if d == nil || d.subscription != c.home.Subscription {
		return reply{}, errOperation
	}
	if !s.advance(id) {
		return s.pending(c, id), nil
	}
	return reply{status: http.StatusOK}, nil
}

// deleteDeployment forgets a deployment, which leaves what it deployed alone.
func (s *Server) deleteDeployment(c call) (reply, error) {
	if _, err := s.named(c); err != nil {
		return reply{}, err
	}
	if !s.cfg.Directory.RemoveDeployment(c.home.Subscription, c.names[1], c.names[2]) {
		return reply{}, errDeployment
	}
	return reply{status: http.StatusNoContent}, nil
}
