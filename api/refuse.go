package api

import (
	"context"
	"errors"
	"fmt"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/web"
)

// refuse records a request that no rule was asked about, because it does not
// say what it wants in the domain's terms: an unknown partner, a tenant by its
// domain, a purpose with odd characters. Somebody who tries those is worth a
// record. It returns err, or why there could be none.
func (s *Server) refuse(ctx context.Context, caller mandate.CallerID, use mandate.Use, err error) error {
	if !errors.Is(err, mandate.ErrInvalid) && !errors.Is(err, mandate.ErrUnknownPartner) {
		return err // recorded already, or no fault of the caller's
	}
	rec := mandate.Record{Kind: mandate.KindDenied, Request: web.RequestID(ctx), Caller: caller, Use: use, Reason: fmt.Sprintf("no rule: %.300s", err)}
	if a := web.Address(ctx); a.IsValid() {
		rec.Address = a.String()
	}
	var rerr error
	if rec.Epoch, rerr = s.cfg.Epoch.Epoch(); rerr != nil {
		return rerr
	}
	if _, rerr := s.cfg.Recorder.Record(ctx, rec); rerr != nil {
		return fmt.Errorf("record refusal: %w", rerr)
	}
	return err
}
