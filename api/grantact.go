package api

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/web"
)

// An ActRequest is the body of POST /v1/grants/{partner}/suspend, resume and
// rollback.
type ActRequest struct {
	Ticket string `json:"ticket,omitempty"` // reference, for the record
}

// A DecideRequest is the body of POST /v1/grants/{partner}/approve and
// discard.
type DecideRequest struct {
	Generation int64  `json:"generation"` // the one that was looked at
	Ticket     string `json:"ticket,omitempty"`
}

// A WithdrawRequest is the body of POST /v1/grants/{partner}/withdraw.
type WithdrawRequest struct {
	// EndSessions signs the user who consented out, everywhere and of
	// everything.
	EndSessions bool   `json:"end_sessions,omitempty"`
	Ticket      string `json:"ticket,omitempty"`
}

// An ImportRequest is the body of POST /v1/grants/{partner}/import. Exactly
// one of RefreshToken and KeyVault is set.
type ImportRequest struct {
	RefreshToken string          `json:"refresh_token,omitempty"`
	KeyVault     *KeyVaultSource `json:"key_vault,omitempty"`
	User         string          `json:"user,omitempty"`    // UPN or object id of whose it must be
	Term         int64           `json:"term,omitempty"`    // seconds; thirty days if 0, and at most
	DryRun       bool            `json:"dry_run,omitempty"` // prove everything, store nothing
	Ticket       string          `json:"ticket,omitempty"`
}

// An Acted is the answer to what changes a grant.
type Acted struct {
	Partner PartnerGrant    `json:"partner"` // as it stands now
	Record  mandate.Receipt `json:"record"`
}

// A Withdrawn is the report on a withdrawal.
type Withdrawn struct {
	Partner string             `json:"partner"`
	Report  mandate.Withdrawal `json:"report"`
}

// An Imported is what became of a refresh token from elsewhere.
type Imported struct {
	Partner string          `json:"partner"`
	Grant   *Grant          `json:"grant"`
	DryRun  bool            `json:"dry_run,omitempty"` // nothing was stored
	Waits   string          `json:"waits,omitempty"`   // why an operator must approve it first
	Record  mandate.Receipt `json:"record,omitzero"`
}

// by says who asks, for the record.
func by(r *http.Request, caller mandate.CallerID, ticket string) (mandate.By, error) {
	b := mandate.By{Caller: caller, Ticket: ticket}
	if a := web.Address(r.Context()); a.IsValid() {
		b.Address = a.String()
	}
	return b, b.Check()
}

// begin reads what every act on a grant begins with.
func begin[T any](s *Server, w http.ResponseWriter, r *http.Request, caller mandate.CallerID, ticket func(*T) string) (in T, p mandate.Partner, b mandate.By, err error) {
	if in, err = web.Read[T](w, r); err != nil {
		return in, p, b, err
	}
	if b, err = by(r, caller, ticket(&in)); err != nil {
		return in, p, b, err
	}
	p, err = s.partnerOf(r)
	return in, p, b, err
}

// act makes an operation of a change of a partner's grant.
func act(do func(Life, context.Context, mandate.Partner, mandate.By) (mandate.Receipt, error)) action {
	return func(s *Server, w http.ResponseWriter, r *http.Request, caller mandate.CallerID) error {
		_, p, by, err := begin(s, w, r, caller, func(in *ActRequest) string { return in.Ticket })
		if err != nil {
			return err
		}
		receipt, err := do(s.cfg.Life, r.Context(), p, by)
		if err != nil {
			return err
		}
		return s.acted(w, r, p, receipt)
	}
}

// decide makes an operation of a decision on a candidate.
func decide(do func(Life, context.Context, mandate.Partner, int64, mandate.By) (mandate.Receipt, error)) action {
	return func(s *Server, w http.ResponseWriter, r *http.Request, caller mandate.CallerID) error {
		in, p, by, err := begin(s, w, r, caller, func(in *DecideRequest) string { return in.Ticket })
		if err != nil {
			return err
		}
		if in.Generation < 1 {
			return mandate.Invalid("generation", "is required: say which one is decided on, as it was shown")
		}
		receipt, err := do(s.cfg.Life, r.Context(), p, in.Generation, by)
		if err != nil {
			return err
		}
		return s.acted(w, r, p, receipt)
	}
}

func rollback(l Life, ctx context.Context, p mandate.Partner, by mandate.By) (mandate.Receipt, error) {
	_, receipt, err := l.Rollback(ctx, p, by)
	return receipt, err
}

func approve(l Life, ctx context.Context, p mandate.Partner, generation int64, by mandate.By) (mandate.Receipt, error) {
	_, receipt, err := l.Approve(ctx, p, generation, by)
	return receipt, err
}

// acted answers with how the grant stands after a change.
func (s *Server) acted(w http.ResponseWriter, r *http.Request, p mandate.Partner, receipt mandate.Receipt) error {
	all, err := s.grantsOf(r.Context(), p)
	if err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, Acted{s.standing(p, all), receipt})
}

// withdraw is POST /v1/grants/{partner}/withdraw.
func (s *Server) withdraw(w http.ResponseWriter, r *http.Request, caller mandate.CallerID) error {
	in, p, by, err := begin(s, w, r, caller, func(in *WithdrawRequest) string { return in.Ticket })
	if err != nil {
		return err
	}
	report, err := s.cfg.Life.Withdraw(r.Context(), p, in.EndSessions, by)
	if err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, Withdrawn{p.Name, report})
}

// maxRefresh is the longest refresh token that is taken, in bytes. Entra's
// have some 1,500.
const maxRefresh = 16 << 10

// importGrant is POST /v1/grants/{partner}/import.
func (s *Server) importGrant(w http.ResponseWriter, r *http.Request, caller mandate.CallerID) error {
	in, p, by, err := begin(s, w, r, caller, func(in *ImportRequest) string { return in.Ticket })
	if err != nil {
		return err
	}
	imp, err := s.parseImport(r.Context(), &in, p)
	if err != nil {
		return err
	}
	imp.By = by
	g, receipt, err := s.cfg.Life.Import(r.Context(), imp)
	out := Imported{Partner: p.Name, Grant: s.view(&g), DryRun: in.DryRun, Record: receipt}
	var refusal *mandate.Refusal
	if errors.As(err, &refusal) && refusal.Staged > 0 {
		out.Waits = strings.TrimPrefix(refusal.Error(), "consent refused: ")
		out.Grant, err = s.generation(r.Context(), p, refusal.Staged)
	}
	if err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, out)
}

// generation returns one generation of a partner's grant.
func (s *Server) generation(ctx context.Context, p mandate.Partner, n int64) (*Grant, error) {
	all, err := s.grantsOf(ctx, p)
	for i := range all {
		if all[i].Generation == n {
			return s.view(&all[i]), nil
		}
	}
	return &Grant{Generation: n, State: mandate.StateCandidate}, err
}

// parseImport turns what an operator wrote into the domain's terms. What is
// wrong with a refresh token is never said with a part of it.
func (s *Server) parseImport(ctx context.Context, in *ImportRequest, p mandate.Partner) (mandate.Import, error) {
	out := mandate.Import{Partner: p, User: in.User, DryRun: in.DryRun, From: "standard input"}
	if in.User != "" {
		if err := checkUser(in.User, false); err != nil {
			return out, err
		}
	}
	term, err := period("term", in.Term, mandate.ImportLife, minTerm, mandate.ImportLife)
	if err != nil {
		return out, err
	}
	out.Until = time.Now().Add(term)
	if out.Audiences, err = s.audiencesOf(p); err != nil {
		return out, err
	}
	if (in.RefreshToken == "") == (in.KeyVault == nil) {
		return out, mandate.Invalid("refresh_token", "is required, or key_vault, and not both")
	}
	if in.KeyVault != nil {
		out.From = in.KeyVault.String()
		out.Refresh, err = s.readKeyVault(ctx, in.KeyVault, p)
		return out, err
	}
	if len(in.RefreshToken) > maxRefresh || !printable(in.RefreshToken) || strings.ContainsAny(in.RefreshToken, " ") {
		return out, mandate.Invalid("refresh_token", "is not one: it must be at most %d printable characters without a space", maxRefresh)
	}
	out.Refresh = mandate.NewSecret(in.RefreshToken)
	return out, nil
}

// audiencesOf returns the APIs that a consent of this partner is tried with.
func (s *Server) audiencesOf(p mandate.Partner) ([]mandate.Audience, error) {
	for _, a := range s.cfg.Applications {
		if a.ID == p.Key.Application && a.Cloud == p.Key.Cloud {
			return a.Audiences, nil
		}
	}
	return nil, mandate.Invalid("partner", "%s belongs to application %s, which is not configured", p.Name, p.Key.Application)
}
