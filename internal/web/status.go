package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
)

// A row gives an error that callers branch on its form on the wire.
type row struct {
	err    error
	status int
	code   string
	show   bool          // whether the text around the error is for the caller too
	retry  time.Duration // when trying again is right, unless the error says it
}

// internal is the row of everything that is not in the table, but for a time
// that is over: that is the database's, or somebody else's who did not answer.
var internal = row{nil, http.StatusInternalServerError, "internal", false, 0}

// table has a row for every sentinel of package mandate. The first row that
// matches counts: what could not be recorded is unavailable whatever else it
// is, and a refusal stays one although Entra was its cause.
var table = []row{
	{mandate.ErrUnavailable, http.StatusServiceUnavailable, "unavailable", false, 2 * time.Second},
	{mandate.ErrSuperseded, http.StatusServiceUnavailable, "superseded", false, time.Second},
	{mandate.ErrRotated, http.StatusServiceUnavailable, "rotated", false, time.Second},
	{mandate.ErrRateLimited, http.StatusTooManyRequests, "rate_limited", false, 10 * time.Second},
	{mandate.ErrRefused, http.StatusUnprocessableEntity, "refused", true, 0},
	{mandate.ErrInvalid, http.StatusBadRequest, "invalid", true, 0},
	{mandate.ErrUnauthenticated, http.StatusUnauthorized, "unauthenticated", false, 0},
	{mandate.ErrDenied, http.StatusForbidden, "denied", true, 0},
	{mandate.ErrLocked, http.StatusForbidden, "locked_down", true, 0},
	{mandate.ErrWiderThanRule, http.StatusForbidden, "wider_than_rule", true, 0},
	{mandate.ErrUnknownPartner, http.StatusNotFound, "unknown_partner", true, 0},
	{mandate.ErrNotFound, http.StatusNotFound, "not_found", true, 0},
	{mandate.ErrNoGrant, http.StatusConflict, "no_grant", true, 0},
	{mandate.ErrExists, http.StatusConflict, "exists", true, 0},
	{mandate.ErrUpstream, http.StatusBadGateway, "upstream", true, 0},
}

func lookup(err error) row {
	for _, row := range table {
		if errors.Is(err, row.err) {
			return row
		}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return table[0]
	}
	return internal
}

// Status returns the HTTP status and the wire code of err.
func Status(err error) (status int, code string) {
	row := lookup(err)
	return row.status, row.code
}

// Error is the inverse of [Status]: the sentinel that code stands for, or nil
// for a code that is not in the table. [Problem.Err] is the fuller inverse.
func Error(code string) error {
	for _, row := range table {
		if row.code == code {
			return row.err
		}
	}
	return nil
}

// A Problem is an error as it goes over the wire. Which fields are set
// depends on Code.
type Problem struct {
	Status     int    `json:"-"`
	Code       string `json:"code"`
	Message    string `json:"message"` // for a person
	RequestID  string `json:"request_id,omitempty"`
	RetryAfter int64  `json:"retry_after,omitempty"` // seconds; also the header of that name

	Field  string `json:"field,omitempty"`  // invalid: which field, as the caller wrote it
	Reason string `json:"reason,omitempty"` // invalid, denied: a sentence; refused: a [mandate.Reason]
	Rule   string `json:"rule,omitempty"`   // denied, wider_than_rule
	Policy string `json:"policy,omitempty"` // denied: version of the policy

	Approval string `json:"approval,omitempty"` // denied: ID of what a second person is asked

	Generation int64         `json:"generation,omitempty"` // no_grant: the last one
	State      mandate.State `json:"state,omitempty"`      // no_grant: of that generation; none if there never was one

	Allowed []string `json:"allowed,omitzero"` // wider_than_rule: scopes that the rule names
	Granted []string `json:"granted,omitzero"` // wider_than_rule: scopes that the token carries
	MaxLife int64    `json:"max_life,omitempty"`
	Life    int64    `json:"life,omitempty"` // wider_than_rule: seconds

	// Of refused: what exactly, and which generation waits for an operator.
	Detail   string           `json:"detail,omitempty"`
	Audience mandate.Audience `json:"audience,omitempty"`
	Staged   int64            `json:"staged,omitempty"`

	// Of upstream and refused, what Entra said.
	Domain        mandate.Domain `json:"domain,omitempty"`
	Remedy        mandate.Remedy `json:"remedy,omitempty"`
	OAuthError    string         `json:"oauth_error,omitempty"`
	Suberror      string         `json:"suberror,omitempty"`
	Codes         []int          `json:"codes,omitempty"` // AADSTS numbers
	Description   string         `json:"description,omitempty"`
	Claims        string         `json:"claims,omitempty"`
	CorrelationID string         `json:"correlation_id,omitempty"`
	TraceID       string         `json:"trace_id,omitempty"`
	Timestamp     string         `json:"timestamp,omitempty"`
	Upstream      int            `json:"upstream_status,omitempty"`
}

// remedyUnavailable is what a caller may know of it: the rest names hosts.
const remedyUnavailable = ": what is needed to decide or to record cannot be reached, so nothing is done; " +
	"if it lasts, it is the move of this server's operator, whose log says more under the request id"

// An untold error is for somebody whose move it is.
type untold struct{ err error }

func (e *untold) Error() string { return e.err.Error() }
func (e *untold) Unwrap() error { return e.err }

// ForOperator returns err for an account of the host that runs the server: of
// what is unavailable it reads why, and not that an operator could find out.
func ForOperator(err error) error {
	if err == nil {
		return nil
	}
	return &untold{err}
}

// whyUnavailable is the message of an [mandate.ErrUnavailable], or of a time
// that is over.
func whyUnavailable(err error) string {
	var told *remoteError
	var operator *untold
	switch {
	case errors.As(err, &told): // by the server, whose client this is
		return told.Error()
	case !errors.As(err, &operator):
		return mandate.ErrUnavailable.Error() + remedyUnavailable
	}
	why := strings.ReplaceAll(err.Error(), "\n", "; ") // of errors that were joined
	if errors.Is(err, mandate.ErrUnavailable) {
		return why
	}
	return mandate.ErrUnavailable.Error() + ": " + why
}

// NewProblem returns what a caller may know of err.
func NewProblem(err error) Problem {
	row := lookup(err)
	p := Problem{Status: row.status, Code: row.code, RetryAfter: seconds(row.retry)}
	var retry *RetryError
	if errors.As(err, &retry) {
		p.RetryAfter = seconds(retry.After)
	}
	switch {
	case row.err == nil:
		p.Message = "Something went wrong on this side. Its log has the details under the request id."
	case row.err == mandate.ErrUnavailable:
		p.Message = whyUnavailable(err)
	case !row.show:
		p.Message = row.err.Error()
	default:
		p.Message = err.Error()
		p.describe(err)
	}
	return p
}

// describe sets the fields of the typed error in err, and takes the message
// from it: what was wrapped around it is for the log.
func (p *Problem) describe(err error) {
	var (
		invalid *mandate.InvalidError
		denied  *mandate.DeniedError
		wider   *mandate.WiderError
		noGrant *mandate.NoGrantError
		refusal *mandate.Refusal
		fault   *mandate.Fault
	)
	switch { // in the order of the table
	case errors.As(err, &refusal):
		p.describeRefusal(refusal)
	case errors.As(err, &invalid):
		p.Message, p.Field, p.Reason = invalid.Error(), invalid.Field, invalid.Reason
	case errors.As(err, &denied):
		p.Message, p.Rule, p.Reason, p.Policy = denied.Error(), denied.Decision.Rule, denied.Decision.Reason, denied.Decision.Policy
		p.Approval = denied.Decision.Approval
	case errors.As(err, &wider):
		p.Message, p.Rule = wider.Error(), wider.Rule
		p.Allowed, p.Granted = scopeList(wider.Allowed), scopeList(wider.Granted)
		p.MaxLife, p.Life = seconds(wider.MaxLife), seconds(wider.Life)
	case errors.As(err, &noGrant):
		p.Message, p.Generation, p.State = noGrant.Error(), noGrant.Generation, noGrant.State
	case errors.As(err, &fault):
		p.Message = faultMessage(fault)
		p.describeFault(fault)
	}
}

// describeRefusal tells the detail of a refusal that is not a fault of ours.
func (p *Problem) describeRefusal(r *mandate.Refusal) {
	p.Message, p.Reason = "consent refused: "+string(r.Reason), string(r.Reason)
	p.Audience, p.Staged = r.Audience, r.Staged
	if r.Err == nil && r.Detail != "" {
		p.Detail = r.Detail
		p.Message += ": " + r.Detail
	}
	p.describeFault(r.Fault)
}

// scopeList returns s, but never nil, so that an empty list is shown as one.
func scopeList(s []string) []string { return append([]string{}, s...) }

// faultMessage is the fault's text without its cause, which may name hosts
// and addresses of ours.
func faultMessage(f *mandate.Fault) string {
	shown := *f
	shown.Cause = nil
	if f.OAuthError == "" && f.Description == "" {
		shown.Description = "Microsoft gave no usable answer"
	}
	return shown.Error()
}

func (p *Problem) describeFault(f *mandate.Fault) {
	if f == nil {
		return
	}
	p.Domain, p.Remedy, p.OAuthError, p.Suberror = f.Domain, f.Remedy, f.OAuthError, f.Suberror
	p.Codes, p.Description, p.Claims = f.Codes, f.Description, f.Claims
	p.CorrelationID, p.TraceID, p.Timestamp, p.Upstream = f.CorrelationID, f.TraceID, f.Timestamp, f.Status
	if f.RetryAfter > 0 {
		p.RetryAfter = seconds(f.RetryAfter)
	}
}

// Err returns the error that p tells of, typed as it was on the other side.
// For a code that is not in the table it is an error without a sentinel.
func (p *Problem) Err() error {
	switch sentinel := Error(p.Code); {
	case sentinel == nil:
		return fmt.Errorf("server answered %d %s: %s (request %s)", p.Status, p.Code, p.Message, p.RequestID)
	case sentinel == mandate.ErrInvalid && p.Field != "":
		return &mandate.InvalidError{Field: p.Field, Reason: p.Reason}
	case sentinel == mandate.ErrDenied:
		return &mandate.DeniedError{Decision: mandate.Decision{Rule: p.Rule, Reason: p.Reason, Policy: p.Policy, Approval: p.Approval}}
	case sentinel == mandate.ErrWiderThanRule:
		return &mandate.WiderError{Rule: p.Rule, Allowed: p.Allowed, Granted: p.Granted, MaxLife: duration(p.MaxLife), Life: duration(p.Life)}
	case sentinel == mandate.ErrNoGrant && p.typedNoGrant().Error() == p.Message:
		return p.typedNoGrant()
	case sentinel == mandate.ErrRefused:
		return &mandate.Refusal{Reason: mandate.Reason(p.Reason), Detail: p.Detail, Audience: p.Audience, Staged: p.Staged, Fault: p.fault()}
	case sentinel == mandate.ErrUpstream && p.Domain != "":
		return p.fault()
	case sentinel == mandate.ErrUnavailable:
		return &RetryError{&remoteError{p.Message, p.RequestID, sentinel}, duration(p.RetryAfter)}
	case p.RetryAfter > 0:
		return &RetryError{sentinel, duration(p.RetryAfter)}
	default:
		return &remoteError{p.Message, "", sentinel}
	}
}

// typedNoGrant returns what a vault's error would be. A plain ErrNoGrant looks
// the same on the wire but for its message.
func (p *Problem) typedNoGrant() *mandate.NoGrantError {
	return &mandate.NoGrantError{Generation: p.Generation, State: p.State}
}

func (p *Problem) fault() *mandate.Fault {
	if p.Domain == "" {
		return nil
	}
	return &mandate.Fault{
		Domain: p.Domain, Remedy: p.Remedy, OAuthError: p.OAuthError, Suberror: p.Suberror,
		Codes: p.Codes, Description: p.Description, Claims: p.Claims, CorrelationID: p.CorrelationID,
		TraceID: p.TraceID, Timestamp: p.Timestamp, Status: p.Upstream, RetryAfter: duration(p.RetryAfter),
	}
}

// ParseProblem returns the error that a response of another server of this
// kind tells of. A body that is not one still gives an error, with the status.
func ParseProblem(status int, body []byte) error {
	var doc struct {
		Error Problem `json:"error"`
	}
	if err := json.Unmarshal(body, &doc); err != nil || doc.Error.Code == "" {
		return fmt.Errorf("server answered %d with no error that this client knows: %.200q", status, body)
	}
	doc.Error.Status = status
	return doc.Error.Err()
}

// A remoteError keeps a server's words and wraps the sentinel. Where the
// server's log says more, request is what it says it under.
type remoteError struct {
	message string
	request string
	err     error
}

func (e *remoteError) Error() string {
	if e.request == "" {
		return e.message
	}
	return e.message + " (request " + e.request + ")"
}
func (e *remoteError) Unwrap() error { return e.err }

// A RetryError says when to try again. It wraps Err, which decides the status.
type RetryError struct {
	Err   error
	After time.Duration
}

func (e *RetryError) Error() string { return fmt.Sprintf("%v; try again in %v", e.Err, e.After) }
func (e *RetryError) Unwrap() error { return e.Err }

// seconds rounds up, so that a client which obeys is not too early.
func seconds(d time.Duration) int64 { return int64(math.Ceil(d.Seconds())) }

func duration(seconds int64) time.Duration { return time.Duration(seconds) * time.Second }
