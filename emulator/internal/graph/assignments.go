package graph

import (
	"slices"
	"strings"

	"github.com/mandate-sam/mandate/emulator/directory"
)

func assignmentObject(a directory.Assignment) map[string]any {
	return map[string]any{
		"@odata.etag": etagOf(a.ID, a.Version), "id": a.ID, "status": "active", "createdDateTime": stamp(a.Created), "lastModifiedDateTime": stamp(a.Modified),
		"accessContainer": map[string]any{"accessContainerId": a.Group, "accessContainerType": "securityGroup"},
		"accessDetails":   accessDetails(a.Roles),
	}
}

func assignmentsOf(r directory.Relationship) string {
	return relationshipsPath + "('" + r.ID + "')/accessAssignments"
}

func (s *Server) assignments(c call) (reply, error) {
	r, err := s.with(c)
	if err != nil {
		return reply{}, err
	}
	return ok(page(c, assignmentsOf(r), r.Assignments, assignmentObject))
}

func (s *Server) assignment(c call) (reply, error) {
	r, err := s.with(c)
	if err != nil {
		return reply{}, err
	}
	i, err := assigned(c, r)
	if err != nil {
		return reply{}, err
	}
	return one(c, assignmentsOf(r), assignmentObject(r.Assignments[i]))
}

// assigned is where the assignment in the path is among the relationship's.
func assigned(c call, r directory.Relationship) (int, error) {
	i := slices.IndexFunc(r.Assignments, func(a directory.Assignment) bool { return strings.EqualFold(a.ID, c.PathValue("assignment")) })
	if i < 0 {
		return 0, errNotFound
	}
	return i, nil
}

// assignmentBody is an access assignment as clients send it.
type assignmentBody struct {
	Container *struct {
		ID   string `json:"accessContainerId"`
		Type string `json:"accessContainerType"`
	} `json:"accessContainer"`
	Access *accessBody `json:"accessDetails"`
}

// granted are the roles of the body, which the relationship must have.
func (b assignmentBody) granted(r directory.Relationship) ([]string, error) {
	bad := invalid("Invalid value specified for property 'accessDetails' of resource 'DelegatedAdminAccessAssignment'.")
	if b.Access == nil {
		return nil, bad
	}
	roles, err := b.Access.roles()
	if err != nil {
		return nil, err
	}
	for _, role := range roles {
		if !slices.Contains(r.Roles, role) {
			return nil, bad
		}
	}
	return roles, nil
}

// createAssignment gives a group roles. As soon as there is one, the
// AdminAgents have those that are assigned to them and no others.
func (s *Server) createAssignment(c call) (reply, error) {
	var in assignmentBody
	if err := c.read(&in); err != nil {
		return reply{}, err
	}
	bad := invalid("Invalid value specified for property 'accessContainer' of resource 'DelegatedAdminAccessAssignment'.")
	if in.Container == nil || in.Container.Type != "securityGroup" || len(in.Container.ID) != len(directory.ApplicationID) {
		return reply{}, bad
	}
	now := s.cfg.Dials.Now()
	a := directory.Assignment{ID: s.cfg.Chance.GUID(), Group: strings.ToLower(in.Container.ID), Created: now, Modified: now}
	r, err := s.change(c, func(r *directory.Relationship) error {
		if r.Status != directory.RelationshipActive {
			return errStatus
		}
		if slices.ContainsFunc(r.Assignments, func(o directory.Assignment) bool { return o.Group == a.Group }) {
			return errGroup
		}
		roles, err := in.granted(*r)
		a.Roles = roles
		r.Assignments = append(r.Assignments, a)
		return err
	})
	if err != nil {
		return reply{}, err
	}
	body := assignmentObject(a)
	body["status"] = "pending"
	return created(c, relationshipsPath+"/"+r.ID+"/accessAssignments", a.ID, body), nil
}

func (s *Server) patchAssignment(c call) (reply, error) {
	var in assignmentBody
	if err := c.read(&in); err != nil {
		return reply{}, err
	}
	now, at := s.cfg.Dials.Now(), 0
	r, err := s.change(c, func(r *directory.Relationship) (err error) {
		if at, err = assigned(c, *r); err != nil {
			return err
		}
		a := &r.Assignments[at]
		if err := matches(c, etagOf(a.ID, a.Version)); err != nil {
			return err
		}
		if a.Roles, err = in.granted(*r); err != nil {
			return err
		}
		a.Modified = now
		a.Version++
		return nil
	})
	if err != nil {
		return reply{}, err
	}
	return one(c, assignmentsOf(r), assignmentObject(r.Assignments[at]))
}

func (s *Server) deleteAssignment(c call) (reply, error) {
	_, err := s.change(c, func(r *directory.Relationship) error {
		at, err := assigned(c, *r)
		if err != nil {
			return err
		}
		if err := matches(c, etagOf(r.Assignments[at].ID, r.Assignments[at].Version)); err != nil {
			return err
		}
		r.Assignments = slices.Delete(r.Assignments, at, at+1)
		return nil
	})
	if err != nil {
		return reply{}, err
	}
	return done, nil
}
