package api

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/web"
)

// asks are the fields of a request that a registration can bind.
type asks struct{ partner, tenant, audience, purpose *string }

// bind fills what a request leaves empty from what the caller's registration
// binds, and returns the binding and which fields it filled.
func (s *Server) bind(caller mandate.CallerID, in asks) (*mandate.Binding, []string, error) {
	if s.cfg.Proofs == nil {
		return nil, nil, nil
	}
	b, err := s.cfg.Proofs.Binding(caller)
	if err != nil || b == nil {
		return nil, nil, err
	}
	audience := ""
	if len(b.Audiences) == 1 {
		audience = string(b.Audiences[0])
	}
	var bound []string
	fill := func(name string, field *string, value string) {
		if *field == "" && value != "" {
			*field = value
			bound = append(bound, name)
		}
	}
	fill("partner", in.partner, b.Partner)
	fill("tenant", in.tenant, b.Customer.String())
	fill("audience", in.audience, audience)
	fill("purpose", in.purpose, b.Purpose)
	return b, bound, nil
}

// within returns which field of a request goes beyond what is bound, or "".
func within(b *mandate.Binding, cloud *mandate.Cloud, req *mandate.Request) string {
	switch {
	case b == nil:
		return ""
	case b.Partner != "" && b.Partner != req.Partner.Name && b.Partner != req.Partner.Key.Partner.String():
		return "partner"
	case !b.Customer.IsZero() && b.Customer != req.Tenant:
		return "tenant"
	case b.Purpose != "" && b.Purpose != req.Purpose:
		return "purpose"
	case len(b.Audiences) > 0 && !slices.ContainsFunc(b.Audiences, func(a mandate.Audience) bool {
		resolved, err := cloud.Resolve(string(a))
		return err == nil && resolved == req.Audience
	}):
		return "audience"
	}
	return ""
}

// admit finishes a request that a caller's fields were put into: it must be
// within what is bound, and of a user of the partner's, where one is named.
func (s *Server) admit(ctx context.Context, req *mandate.Request, caller mandate.CallerID, b *mandate.Binding, bound []string, userToken string) error {
	req.Caller, req.Address, req.Bound = caller, web.Address(ctx), bound
	if err := req.Check(); err != nil {
		return err
	}
	if b == nil && userToken == "" {
		return nil
	}
	cloud, err := s.cloud(req.Partner)
	if err != nil {
		return err
	}
	if field := within(b, &cloud, req); field != "" {
		return s.deny(ctx, req, fmt.Sprintf("the %s is not the one that the caller is registered for", field))
	}
	if userToken == "" {
		return nil
	}
	return s.withUser(ctx, req, userToken)
}

// maxUserToken is the longest ID token of a user that is looked at, in bytes.
const maxUserToken = 16 << 10

// withUser puts the user of an ID token into a request: somebody who has signed
// in at the very partner that the request is for.
func (s *Server) withUser(ctx context.Context, req *mandate.Request, raw string) error {
	switch {
	case s.cfg.Users == nil:
		return mandate.Invalid("user_token", "is not taken by this server")
	case len(raw) > maxUserToken:
		return s.deny(ctx, req, "the user's token is too long")
	}
	user, err := s.cfg.Users.User(ctx, req.Partner.Key, raw)
	if errors.Is(err, mandate.ErrUnavailable) {
		return err
	}
	if err != nil {
		return s.deny(ctx, req, fmt.Sprintf("the user's token was not accepted: %v", err))
	}
	if user.Tenant != req.Partner.Key.Partner {
		return s.deny(ctx, req, "the user's token is of another tenant than the partner's")
	}
	req.User = &user
	return nil
}

// deny records that a request was denied before any rule was asked.
func (s *Server) deny(ctx context.Context, req *mandate.Request, reason string) error {
	epoch, err := s.cfg.Epoch.Epoch()
	if err != nil {
		return err
	}
	key := req.Partner.Key // a copy, for the record: requests stay where they are, and nearly none is denied
	rec := mandate.Record{
		Kind: mandate.KindDenied, Request: web.RequestID(ctx), Epoch: epoch, Caller: req.Caller, Use: req.Use, Purpose: req.Purpose, Ticket: req.Ticket, Detail: req.Detail,
		Partner: req.Partner.Name, Grant: &key, Tenant: req.Tenant, Audience: req.Audience, Asked: req.Scopes, Reason: reason, Bound: req.Bound,
	}
	if req.Address.IsValid() {
		rec.Address = req.Address.String()
	}
	if _, err := s.cfg.Recorder.Record(ctx, rec); err != nil {
		return fmt.Errorf("record denial: %w", err)
	}
	return &mandate.DeniedError{Decision: mandate.Decision{Reason: reason}}
}
