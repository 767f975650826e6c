package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/web"
)

// Approvals is where second people are asked, and answer.
type Approvals interface {
	mandate.Approvals

	// Approvals returns what has not ended, the oldest first.
	Approvals() ([]mandate.Approval, error)

	// Decide says yes or no to what is asked, by a name in records and by
	// issuer and object. The error wraps [mandate.ErrNotFound],
	// [mandate.ErrDenied] for whoever is no second person, or
	// [mandate.ErrExists] if somebody has decided.
	Decide(ctx context.Context, id string, say mandate.ApprovalState, by mandate.CallerID, decider string) error

	// WithdrawApproval takes back what is asked, or what was said. The error
	// wraps [mandate.ErrNotFound].
	WithdrawApproval(ctx context.Context, id string) error

	// UseApproval uses up a yes. The error wraps [mandate.ErrNotFound] if there
	// is none any more: of several that use one, one succeeds.
	UseApproval(ctx context.Context, id string) error
}

type approvalsAnswer struct {
	Approvals []mandate.Approval `json:"approvals"`
}

// approvalRoutes are a part of the operator's.
var approvalRoutes = []route{
	{"GET", "/v1/approvals", withApprovals((*Server).listApprovals)},
	{"GET", "/v1/approvals/{id}", withApprovals((*Server).showApproval)},
	{"POST", "/v1/approvals/{id}/give", withApprovals(answerWith(mandate.ApprovalGiven))},
	{"POST", "/v1/approvals/{id}/refuse", withApprovals(answerWith(mandate.ApprovalRefused))},
	{"POST", "/v1/approvals/{id}/withdraw", withApprovals((*Server).withdrawApproval)},
}

// withApprovals makes an operation of one that needs the approvals.
func withApprovals(do func(*Server, Approvals, http.ResponseWriter, *http.Request, mandate.CallerID) error) action {
	return func(s *Server, w http.ResponseWriter, r *http.Request, caller mandate.CallerID) error {
		if s.cfg.Approvals == nil {
			return fmt.Errorf("%w: this server asks no second person", mandate.ErrNotFound)
		}
		return do(s, s.cfg.Approvals, w, r, caller)
	}
}

func (s *Server) listApprovals(a Approvals, w http.ResponseWriter, _ *http.Request, _ mandate.CallerID) error {
	all, err := a.Approvals()
	if err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, approvalsAnswer{append([]mandate.Approval{}, all...)})
}

// approvalOf returns the approval that the path names.
func approvalOf(a Approvals, r *http.Request) (mandate.Approval, error) {
	id := r.PathValue("id")
	if !mandate.Name(id) {
		return mandate.Approval{}, mandate.Invalid("id", "must be the id of an approval")
	}
	all, err := a.Approvals()
	if err != nil {
		return mandate.Approval{}, err
	}
	for _, one := range all {
		if one.ID == id {
			return one, nil
		}
	}
	return mandate.Approval{}, fmt.Errorf("%w: no approval %s is asked for, or it has ended", mandate.ErrNotFound, id)
}

func (s *Server) showApproval(a Approvals, w http.ResponseWriter, r *http.Request, _ mandate.CallerID) error {
	one, err := approvalOf(a, r)
	if err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, one)
}

// answerWith makes an operation of saying yes or no.
func answerWith(say mandate.ApprovalState) func(*Server, Approvals, http.ResponseWriter, *http.Request, mandate.CallerID) error {
	verb := map[mandate.ApprovalState]string{mandate.ApprovalGiven: "give", mandate.ApprovalRefused: "refuse"}[say]
	return func(s *Server, a Approvals, w http.ResponseWriter, r *http.Request, caller mandate.CallerID) error {
		one, err := s.changeApproval(a, w, r, caller, verb, func(one mandate.Approval) error {
			decide := func() error { return a.Decide(r.Context(), one.ID, say, caller, ownerOf(r, caller)) }
			if say != mandate.ApprovalGiven {
				return decide()
			}
			n := mandate.Notice{Kind: mandate.NoticeApproved, Key: one.ID, Partner: one.Partner, Who: string(caller), About: one.String()}
			return mandate.Tell(r.Context(), s.cfg.Notifier, n, decide)
		})
		if err != nil {
			return err
		}
		if all, err := a.Approvals(); err == nil { // as it stands now, and as it was if that is not known
			for _, now := range all {
				if now.ID == one.ID {
					one = now
				}
			}
		}
		return web.Write(w, http.StatusOK, one)
	}
}

func (s *Server) withdrawApproval(a Approvals, w http.ResponseWriter, r *http.Request, caller mandate.CallerID) error {
	if _, err := s.changeApproval(a, w, r, caller, "withdraw", func(one mandate.Approval) error {
		return a.WithdrawApproval(r.Context(), one.ID)
	}); err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, okAnswer)
}

// changeApproval records what somebody does about an approval, and does it.
func (s *Server) changeApproval(a Approvals, w http.ResponseWriter, r *http.Request, caller mandate.CallerID, verb string, do func(mandate.Approval) error) (mandate.Approval, error) {
	if _, err := web.Read[struct{}](w, r); err != nil {
		return mandate.Approval{}, err
	}
	one, err := approvalOf(a, r)
	if err != nil {
		return one, err
	}
	rec := mandate.Record{
		Caller: caller, Address: address(r), Approval: one.ID, Rule: one.Rule, Partner: one.Partner,
		Detail: fmt.Sprintf("approval %s of %s: %s", one.ID, one.Caller, verb),
	}
	if one.Grant != (mandate.GrantKey{}) {
		rec.Grant, rec.Tenant = &one.Grant, one.Tenant
	}
	return one, s.change(r.Context(), rec, func() error { return do(one) })
}

// Approvals returns what is asked, was agreed to or refused, the oldest first.
func (c *Client) Approvals(ctx context.Context) ([]mandate.Approval, error) {
	out, err := exchange[approvalsAnswer](ctx, c, "GET", "/v1/approvals", nil)
	return out.Approvals, err
}

// Approval returns one of them.
func (c *Client) Approval(ctx context.Context, id string) (mandate.Approval, error) {
	return exchange[mandate.Approval](ctx, c, "GET", "/v1/approvals/"+url.PathEscape(id), nil)
}

// GiveApproval says yes.
func (c *Client) GiveApproval(ctx context.Context, id string) (mandate.Approval, error) {
	return exchange[mandate.Approval](ctx, c, "POST", "/v1/approvals/"+url.PathEscape(id)+"/give", struct{}{})
}

// RefuseApproval says no.
func (c *Client) RefuseApproval(ctx context.Context, id string) (mandate.Approval, error) {
	return exchange[mandate.Approval](ctx, c, "POST", "/v1/approvals/"+url.PathEscape(id)+"/refuse", struct{}{})
}

// WithdrawApproval takes back what is asked, or what was said.
func (c *Client) WithdrawApproval(ctx context.Context, id string) error {
	_, err := exchange[map[string]bool](ctx, c, "POST", "/v1/approvals/"+url.PathEscape(id)+"/withdraw", struct{}{})
	return err
}
