package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/mandate-sam/mandate"
)

// someApprovals are one of a caller and one of an operator.
type someApprovals struct{ all []mandate.Approval }

func newApprovals() *someApprovals {
	req := mandate.Request{Caller: "uid:77", Use: mandate.UseCall, Partner: contoso, Tenant: tenant, Audience: "https://pc.test", Purpose: "support", Ticket: "INC-7", Method: "GET", Path: "/v1/customers"}
	one := mandate.Approval{ID: "aaa", Asked: mandate.AskedBy("two-persons", &req), State: mandate.ApprovalWanted, Lasts: 3600}
	two := mandate.Approval{ID: "bbb", Asked: mandate.Asked{Caller: "uid:78", Act: "policy apply", Detail: "/v1/policy version abc\x1b[31m", Content: "00ff"}, State: mandate.ApprovalGiven, By: "uid:79", Requester: "uid:78"}
	s := &someApprovals{[]mandate.Approval{one, two}}
	for i := range s.all {
		s.all[i].Decided = time.Date(2999, 1, 2, 4, 5, 0, 0, time.UTC)
		s.all[i].Wanted, s.all[i].Expires = time.Date(2999, 1, 2, 3, 4, 0, 0, time.UTC), time.Date(2999, 1, 3, 3, 4, 0, 0, time.UTC)
	}
	return s
}

func (s *someApprovals) Approval(string) (*mandate.Approval, error) { return nil, nil }

func (s *someApprovals) Ask(_ context.Context, a mandate.Approval) error {
	a.ID = "ccc"
	s.all = append(s.all, a)
	return nil
}

func (s *someApprovals) Approvals() ([]mandate.Approval, error) { return s.all, nil }

func (s *someApprovals) find(id string) int {
	return slices.IndexFunc(s.all, func(a mandate.Approval) bool { return a.ID == id })
}

func (s *someApprovals) Decide(_ context.Context, id string, say mandate.ApprovalState, by mandate.CallerID, _ string) error {
	a := &s.all[s.find(id)]
	if a.State != mandate.ApprovalWanted {
		return fmt.Errorf("%w: approval %s was %s by %s", mandate.ErrExists, id, a.State, a.By)
	}
	a.State, a.By = say, by
	return nil
}

func (s *someApprovals) WithdrawApproval(_ context.Context, id string) error {
	i := s.find(id)
	s.all = slices.Delete(s.all, i, i+1)
	return nil
}

func (s *someApprovals) UseApproval(context.Context, string) error { return mandate.ErrNotFound }
