package mandate

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// MaxApproval is the longest that the yes of a second person lasts, and how
// long one is waited for.
const MaxApproval = 24 * time.Hour

// Asked is what a second person is to agree to: a request of a caller, which a
// rule demands it for, or the act of an operator. A yes is for exactly that: in
// whatever field another differs, it is another.
type Asked struct {
	Caller CallerID `json:"caller"` // who asks

	Rule     string   `json:"rule,omitempty"` // of a request, and all that follows
	Use      Use      `json:"use,omitempty"`
	Partner  string   `json:"partner,omitempty"` // short name
	Grant    GrantKey `json:"grant,omitzero"`
	Tenant   TenantID `json:"tenant,omitzero"` // the partner's own, or a customer's
	Audience Audience `json:"audience,omitempty"`
	Scopes   []Scope  `json:"scopes,omitempty"` // none: all that was consented
	Purpose  string   `json:"purpose,omitempty"`
	Ticket   string   `json:"ticket,omitempty"`
	Method   string   `json:"method,omitempty"` // of a call
	Path     string   `json:"path,omitempty"`   // of a call, without the query

	Act     string `json:"act,omitempty"`     // of an act: the command, such as "policy apply"
	Detail  string `json:"detail,omitempty"`  // of an act: what it is about, for people
	Content string `json:"content,omitempty"` // of an act: hex SHA-256 of all that was sent
}

// AskedBy returns what a second person is asked who is to let a rule be used
// for a request.
func AskedBy(rule string, req *Request) Asked {
	return Asked{
		Caller: req.Caller, Rule: rule, Use: req.Use, Partner: req.Partner.Name, Grant: req.Partner.Key, Tenant: req.Tenant, Audience: req.Audience,
		Scopes: req.Scopes, Purpose: req.Purpose, Ticket: req.Ticket, Method: req.Method, Path: req.Path,
	}
}

// Digest names what is asked, all of it: the hex SHA-256 of its JSON.
func (a *Asked) Digest() string {
	text, err := json.Marshal(a)
	if err != nil {
		return "" // cannot happen: there is nothing but text in it
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// String says in words what is asked.
func (a *Asked) String() string {
	if a.Act != "" {
		return strings.TrimSpace(fmt.Sprintf("%s: %s %s", a.Caller, a.Act, a.Detail))
	}
	what := string(a.Use)
	if a.Method != "" {
		what += " " + a.Method + " " + a.Path
	}
	return fmt.Sprintf("%s: %s of %s, tenant %s, for %s", a.Caller, what, a.Partner, a.Tenant, a.Purpose)
}

// An ApprovalState is what became of an [Approval].
type ApprovalState string

// The states of an [Approval]. One that is withdrawn is not there any more.
const (
	ApprovalWanted  ApprovalState = "wanted"  // nobody has said anything yet
	ApprovalGiven   ApprovalState = "given"   // yes
	ApprovalRefused ApprovalState = "refused" // no; it is not asked again before the end
)

// An Approval is what a second person was asked, and what they said. It is
// security state, and not there any more when it has ended.
type Approval struct {
	ID string `json:"id"`
	Asked
	State   ApprovalState `json:"state"`
	Wanted  time.Time     `json:"wanted"`  // since when
	Expires time.Time     `json:"expires"` // when the asking ends, or the yes, or the no
	Lasts   int64         `json:"lasts"`   // seconds that a yes lasts

	Requester string    `json:"requester,omitempty"` // of an act: who asks, by issuer and object
	By        CallerID  `json:"by,omitempty"`        // who decided
	Decider   string    `json:"decider,omitempty"`   // the same, by issuer and object
	Decided   time.Time `json:"decided,omitzero"`
}

// NewApproval returns what somebody is to be asked, with an ID of its own. A yes
// lasts for so long, and at most [MaxApproval].
func NewApproval(a Asked, lasts time.Duration) Approval {
	now := time.Now().Truncate(time.Millisecond)
	return Approval{
		ID: strings.ToLower(rand.Text()[:10]), Asked: a, State: ApprovalWanted, Wanted: now, Expires: now.Add(MaxApproval),
		Lasts: int64(min(lasts, MaxApproval) / time.Second),
	}
}

// ended reports whether a is over at a time.
func (a *Approval) ended(now time.Time) bool { return !now.Before(a.Expires) }

// GivenAt reports whether a is a yes that counts at a time.
func (a *Approval) GivenAt(now time.Time) bool {
	return a != nil && a.State == ApprovalGiven && !now.Before(a.Decided) && !a.ended(now)
}

// host reports whether somebody is a host account, of which nobody knows whose
// it is.
func host(who string) bool { return strings.HasPrefix(who, "uid:") }

// Gives reports why somebody cannot be the second person: by their name in
// records, and by issuer and object. Owner is who registered the caller, "" if
// that is not known. The second is neither who asks nor the owner of who asks,
// and what cannot be compared is not told apart: a host account may be
// anybody's.
func (a *Approval) Gives(by CallerID, decider, owner string) error {
	first := a.Requester
	if a.Act == "" {
		first = owner
		if strings.Contains(string(a.Caller), ":") { // an operator is nobody's
			first = string(a.Caller)
		}
	}
	refuse := func(format string, args ...any) error {
		return &DeniedError{Decision: Decision{Reason: fmt.Sprintf(format, args...)}}
	}
	switch {
	case by == a.Caller:
		return refuse("you asked for it yourself, and a second person must agree")
	case first == "":
		return refuse("it is not known who owns caller %s, so nobody can be told from its owner; whoever answers for it takes it over: mandate caller adopt %s", a.Caller, a.Caller)
	case decider == first:
		return refuse("caller %s is yours, and a second person must agree", a.Caller)
	case host(first) != host(decider):
		return refuse("it cannot be known whether you are a second person: the first is %s, and a host account may be anybody's%s", first, a.otherwise())
	}
	return nil
}

// otherwise says what to do where the first is a host account.
func (a *Approval) otherwise() string {
	if a.Act == "" && !strings.Contains(string(a.Caller), ":") {
		return "; whoever answers for the caller takes it over, signed in: mandate caller adopt " + string(a.Caller)
	}
	return "; ask as a person who has signed in"
}

// Approvals is where a second person is asked.
type Approvals interface {
	// Approval returns what was asked, and has not ended, by its digest, or
	// nil. It is of the current epoch or of a later one, is not to be changed,
	// and the error wraps [ErrUnavailable] if it is not known. It does not wait
	// for the database unless security state has just changed.
	Approval(digest string) (*Approval, error)

	// Ask stores a, and raises the epoch. The error is an [*AskedError] if the
	// same is asked already, of which this replica may not have heard, and wraps
	// [ErrRateLimited] if too much is asked. When it returns nil that survives a
	// crash.
	Ask(ctx context.Context, a Approval) error
}

// An AskedError says that the same was asked before, and has what is stored of
// it. It wraps [ErrExists].
type AskedError struct{ Approval Approval }

func (e *AskedError) Error() string { return "that is asked already, approval " + e.Approval.ID }
func (e *AskedError) Unwrap() error { return ErrExists }

// errSecond is what a denial says of asking that could not be done.
var errSecond = errors.New("a second person could not be asked")

// Ask returns the approval of what is asked, and asks a second person if nobody
// was: recorded, and told to operators. Of several who ask the same at once, at
// whichever replica, one asks, and all get its approval. The error wraps
// [ErrRateLimited] if too much is asked already.
func Ask(ctx context.Context, in Approvals, to Notifier, audit Recorder, epoch Epoch, a Approval, rec Record) (*Approval, error) {
	found, err := in.Approval(a.Digest())
	if err != nil || found != nil {
		return found, err
	}
	rec.Detail = "ask a second person, approval " + a.ID
	if a.Act != "" {
		rec.Detail += ", for " + a.Act + " " + a.Detail
	}
	rec.Expires = a.Expires
	_, err = Change(ctx, audit, epoch, rec, func() error {
		n := Notice{Kind: NoticeWanted, Key: a.ID, Partner: a.Partner, Who: string(a.Caller), About: a.String(), Until: a.Expires}
		return Tell(ctx, to, n, func() error { return in.Ask(ctx, a) })
	})
	var first *AskedError
	if errors.As(err, &first) && !errors.Is(err, ErrUnavailable) { // else it is not recorded that nothing was done
		return &first.Approval, nil
	}
	return &a, err
}

// second asks a second person, if nothing else is missing, and says so in the
// denial.
func (a *attempt) second(ctx context.Context) error {
	d := &a.decision
	if d.NeedsApproval == 0 || a.cfg.Approvals == nil {
		return nil
	}
	rec := a.newRecord(KindChanged)
	rec.Reason = ""
	found, err := Ask(ctx, a.cfg.Approvals, a.cfg.Notifier, a.cfg.Audit, a.cfg.Epoch, NewApproval(AskedBy(d.Rule, a.req), d.NeedsApproval), rec)
	switch {
	case errors.Is(err, ErrRateLimited):
		d.Reason += fmt.Sprintf("; %v: %v", errSecond, err)
		return nil
	case err != nil:
		return err
	}
	d.Approval = found.ID
	d.Reason += "; " + found.Next()
	return nil
}

// Next says what is to be done about an approval that is not given.
func (a *Approval) Next() string {
	if a.State == ApprovalRefused {
		return fmt.Sprintf("approval %s was refused by %s, which holds until %s", a.ID, a.By, stamp(a.Expires))
	}
	return fmt.Sprintf("it is asked for until %s (mandate approval give %s); then ask again", stamp(a.Expires), a.ID)
}
