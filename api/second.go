package api

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/web"
	"github.com/mandate-sam/mandate/policy"
)

// Rules say what operators may not do, though their roles allow it.
type Rules interface {
	// Administer decides about an act. It does not wait.
	Administer(*policy.Act) mandate.Decision
}

// actNames are the names, in rules and in the configuration, of what operators
// do that changes anything and makes nothing tighter: the commands.
var actNames = map[string]string{
	"POST /v1/partners": "partner invite", "POST /v1/partners/{partner}/users": "partner allow", "POST /v1/partners/{partner}/customers/refresh": "customer refresh",
	"POST /v1/partners/{partner}/contacts": "partner contact add", "POST /v1/partners/{partner}/contacts/remove": "partner contact remove", "POST /v1/notices/{id}/retry": "notice retry",
	"POST /v1/grants/{partner}/resume": "grant resume", "POST /v1/grants/{partner}/rollback": "grant rollback",
	"POST /v1/grants/{partner}/approve": "grant approve", "POST /v1/grants/{partner}/import": "grant import",
	"POST /v1/audit/erase": "audit erase", "POST /v1/audit/drop": "audit drop",
	"POST /v1/callers": "caller add", "POST /v1/callers/{caller}/credentials": "caller rotate", "POST /v1/callers/{caller}/rotate": "caller rotate", "POST /v1/callers/{caller}/adopt": "caller adopt",
	"POST /v1/keys/rotate": "key rotate", "POST /v1/keys/reload": "key reload", "POST /v1/keys/retire": "key retire", "POST /v1/keys/rewrap": "key rewrap",
	"POST /v1/credentials/rotate": "credential rotate", "POST /v1/lockdown/end": "lockdown off", "POST /v1/revocations/{id}/lift": "revoke lift",
	"POST /v1/policy": "policy apply", "GET /v1/backup": "backup", "POST /v1/restore/finish": "restore finish", givePath: "approval give",
}

const givePath = "POST /v1/approvals/{id}/give"

// CheckSecondPerson reports an act for which no second person can be demanded.
// That of saying yes is one: it would need another, and so on.
func CheckSecondPerson(acts []string) error {
	for _, name := range acts {
		switch loosens, known := policy.Acts[name]; {
		case !known:
			return mandate.Invalid("acts", "%.40q is nothing that operators do; it is a command, such as \"policy apply\"", name)
		case !loosens || name == actNames[givePath]:
			return mandate.Invalid("acts", "%q cannot need a second person", name)
		}
	}
	return nil
}

// held returns why what somebody known is about to do is held up, if it is: a
// host account does what needs a person, a rule forbids it, or a second person
// has not agreed. At the socket the glass can be broken instead, but not to say
// yes in the place of a person. It is for what has a name in actNames or makes
// things looser: nothing else is held up.
func (s *Server) held(w http.ResponseWriter, r *http.Request, rt route, caller mandate.CallerID, o *Operator) error {
	op := rt.method + " " + rt.path
	name := cmp.Or(actNames[op], op)
	act := policy.Act{Caller: caller, Name: name, Loosens: rights[op] == loosens, Partner: s.partnerNamed(r), Address: web.Address(r.Context())}
	if o != nil {
		act.Roles = o.Roles
	}
	err := s.refused(r.Context(), &act, o)
	needs := slices.Contains(s.cfg.SecondPerson, name)
	reason := r.Header.Get(headerBreakGlass)
	switch {
	case err == nil && !needs:
		return nil
	case o == nil && reason != "" && op != givePath:
		return s.breakGlass(r, &act, op, reason)
	case err != nil:
		return err
	}
	return s.second(w, r, &act, o)
}

// partnerNamed returns the short name of the partner in a request's path, or
// "".
func (s *Server) partnerNamed(r *http.Request) string {
	if name := r.PathValue("partner"); mandate.Name(name) {
		if p, err := s.cfg.Partners.Partner(name); err == nil {
			return p.Name
		}
	}
	return ""
}

// refused returns why somebody may not do something, by who they are or by a
// rule.
func (s *Server) refused(ctx context.Context, act *policy.Act, o *Operator) error {
	if s.cfg.SignIns != nil && act.Loosens && o == nil {
		if act.Name == actNames[givePath] {
			return forbid("a second person must be a person: a host account may be anybody's, so sign in (mandate login)")
		}
		return forbid(`this makes things looser, so it needs an operator who has signed in (mandate login); in an emergency: --break-glass "reason"`)
	}
	if s.cfg.Rules == nil {
		return nil
	}
	d := s.cfg.Rules.Administer(act)
	if len(d.Shadow) > 0 {
		s.cfg.Log.WarnContext(ctx, "rules in shadow mode would forbid it", "caller", string(act.Caller), "act", act.Name, "rules", d.Shadow)
	}
	if d.Allowed {
		return nil
	}
	if o == nil && act.Name != actNames[givePath] {
		d.Reason += `; in an emergency: --break-glass "reason"`
	}
	return &mandate.DeniedError{Decision: d}
}

// breakGlass records, and tells, that somebody at the socket does what is held
// up.
func (s *Server) breakGlass(r *http.Request, act *policy.Act, op, reason string) error {
	if len(reason) > maxReason || !printable(reason) {
		return mandate.Invalid(headerBreakGlass, "must be at most %d bytes of printable text", maxReason)
	}
	s.cfg.Log.ErrorContext(r.Context(), "the glass was broken", "caller", string(act.Caller), "route", op, "reason", reason)
	rec := mandate.Record{Caller: act.Caller, Detail: fmt.Sprintf("break glass for %s: %s", op, reason)}
	n := mandate.Notice{
		Kind: mandate.NoticeGlass, Partner: act.Partner, Who: string(act.Caller), About: fmt.Sprintf("%s (%s %s)", act.Name, r.Method, r.URL.Path), Why: reason,
	}
	return s.change(r.Context(), rec, func() error {
		return mandate.Tell(r.Context(), s.cfg.Notifier, n, func() error { return nil })
	})
}

// secondLasts is how long the yes to an act lasts, and is good for one.
const secondLasts = time.Hour

// second uses up the yes of a second person to exactly this act, or asks one.
func (s *Server) second(w http.ResponseWriter, r *http.Request, act *policy.Act, o *Operator) error {
	if s.cfg.Approvals == nil {
		return forbid("this needs a second person, and this server asks nobody")
	}
	asked, err := asking(w, r, act)
	if err != nil {
		return err
	}
	a := mandate.NewApproval(asked, secondLasts)
	a.Requester = ownerOf(r, act.Caller)
	found, err := mandate.Ask(r.Context(), s.cfg.Approvals, s.cfg.Notifier, s.cfg.Recorder, s.cfg.Epoch, a, mandate.Record{Caller: act.Caller, Address: address(r), Approval: a.ID})
	if err != nil {
		return err
	}
	if !found.GivenAt(time.Now()) {
		return &mandate.DeniedError{Decision: mandate.Decision{
			Reason: fmt.Sprintf("%q needs the yes of a second person; %s, with the same arguments", act.Name, found.Next()), Approval: found.ID,
		}}
	}
	rec := mandate.Record{Caller: act.Caller, Address: address(r), Approval: found.ID, Detail: fmt.Sprintf("use approval %s, given by %s, for %s", found.ID, found.By, act.Name)}
	err = s.change(r.Context(), rec, func() error { return s.cfg.Approvals.UseApproval(r.Context(), found.ID) })
	if errors.Is(err, mandate.ErrNotFound) {
		return forbid("approval %s was used or withdrawn meanwhile", found.ID)
	}
	return err
}

// address is where a request came from, for records; "" of the socket.
func address(r *http.Request) string {
	if a := web.Address(r.Context()); a.IsValid() {
		return a.String()
	}
	return ""
}

// asking returns what a second person is asked about an act: all that was sent,
// of which a digest is kept, and what of it can be shown. The body is there to
// be read again.
func asking(w http.ResponseWriter, r *http.Request, act *policy.Act) (mandate.Asked, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxPolicyBody))
	if err != nil {
		return mandate.Asked{}, mandate.Invalid("body", "cannot be read, or is longer than %d bytes", maxPolicyBody)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	h := sha256.New()
	fmt.Fprintf(h, "%s %s\n", r.Method, r.URL.RequestURI())
	h.Write(body)
	return mandate.Asked{
		Caller: act.Caller, Act: act.Name, Partner: act.Partner, Detail: r.URL.Path + " " + summary(act.Name, body), Content: hex.EncodeToString(h.Sum(nil)),
	}, nil
}

// maxSummary is how much of an act is shown, and maxValue how much of one value
// in it, in bytes; what is longer is told by its SHA-256, and so is what is
// secret.
const (
	maxSummary = 2000
	maxValue   = 120
)

// summary shows the body of a request to a person who is to agree to it. A
// policy is told by its version, which "mandate policy diff" prints of files.
func summary(act string, body []byte) string {
	var apply ApplyRequest
	if act == "policy apply" && json.Unmarshal(body, &apply) == nil {
		return fmt.Sprintf("version %s in the place of number %d", policy.Source(apply.Files).Version(), apply.After)
	}
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		return "SHA-256 " + hash(string(body))
	}
	text, err := json.Marshal(shorten("", v))
	if err != nil || len(text) > maxSummary {
		return "SHA-256 " + hash(string(body))
	}
	return string(text)
}

// shorten returns v without what is long or secret.
func shorten(key string, v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			v[k] = shorten(k, v[k])
		}
	case []any:
		for i := range v {
			v[i] = shorten(key, v[i])
		}
	case string:
		if len(v) > maxValue || strings.Contains(key, "token") {
			return "SHA-256 " + hash(v)
		}
	}
	return v
}

func hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

// turnedAway records that somebody known was denied what only operators do,
// and returns why.
func (s *Server) turnedAway(r *http.Request, rt route, caller mandate.CallerID, why error) error {
	var denied *mandate.DeniedError
	if caller == "" || !errors.As(why, &denied) {
		return why
	}
	rec := mandate.Record{
		Kind: mandate.KindDenied, Caller: caller, Address: address(r), Detail: rt.method + " " + r.URL.Path,
		Rule: denied.Decision.Rule, Policy: denied.Decision.Policy, Approval: denied.Decision.Approval, Reason: why.Error(),
	}
	var err error
	if rec.Epoch, err = s.cfg.Epoch.Epoch(); err != nil {
		return err
	}
	if _, err := s.cfg.Recorder.Record(r.Context(), rec); err != nil {
		return fmt.Errorf("record denial: %w", err)
	}
	return why
}
