package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/internal/web"
)

// The exit statuses, as the help documents them.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitDenied      = 3
	exitUnreachable = 4
	exitAct         = 5
	exitLater       = 6
)

// A usageError is a mistake in the command line.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usage(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...)}
}

// verdict returns what err means to a script: an exit status and a code.
func verdict(err error) (exit int, code string) {
	var misuse *usageError
	var answered *api.CallError
	switch {
	case errors.As(err, &misuse):
		return exitUsage, "usage"
	case errors.As(err, &answered):
		return exitFailed, "api"
	case errors.Is(err, api.ErrUnreachable):
		return exitUnreachable, "unreachable"
	case errors.Is(err, context.Canceled):
		return exitFailed, "interrupted"
	}
	_, code = web.Status(err)
	switch web.Error(code) {
	case nil:
		return exitFailed, "failed"
	case mandate.ErrInvalid:
		return exitUsage, code
	case mandate.ErrDenied, mandate.ErrWiderThanRule, mandate.ErrUnauthenticated:
		return exitDenied, code
	case mandate.ErrNoGrant, mandate.ErrRefused, mandate.ErrLocked:
		return exitAct, code
	case mandate.ErrUnavailable, mandate.ErrRateLimited, mandate.ErrSuperseded, mandate.ErrRotated:
		return exitLater, code
	case mandate.ErrUpstream:
		return upstreamExit(err), code
	}
	return exitFailed, code
}

// upstreamExit tells what passes by itself from what needs a person.
func upstreamExit(err error) int {
	var f *mandate.Fault
	switch {
	case !errors.As(err, &f):
		return exitFailed
	case f.Domain == mandate.DomainTransient:
		return exitLater
	}
	return exitAct
}

// report tells the user of err, if there is one, and returns the exit status.
func (c *cli) report(err error) int {
	if err == nil {
		return exitOK
	}
	exit, code := verdict(err)
	if c.json {
		c.reportJSON(err, code)
		return exit
	}
	fmt.Fprintln(c.err, "mandate:", clean(err.Error()))
	if h := hint(err); h != "" {
		fmt.Fprintln(c.err, "mandate:", h)
	}
	return exit
}

// reportJSON writes the error as the server would, with the fields of its
// type.
func (c *cli) reportJSON(err error, code string) {
	p := web.NewProblem(err)
	if p.Code != code {
		p = web.Problem{Code: code, Message: err.Error()}
	}
	var answered *api.CallError
	out := struct {
		web.Problem
		Status  int    `json:"api_status,omitempty"`
		APICode string `json:"api_code,omitempty"`
	}{Problem: p}
	if errors.As(err, &answered) {
		out.Status, out.APICode = answered.Answer.Status, answered.Code
	}
	_ = json.NewEncoder(c.err).Encode(map[string]any{"error": out})
}

// remedies say whose move it is.
var remedies = map[mandate.Remedy]string{
	mandate.RemedyRenew:      "the partner must sign in and consent again: mandate partner invite",
	mandate.RemedyPreconsent: "the application is not consented in this customer's tenant",
	mandate.RemedyCredential: "the application's credential must be fixed or replaced on the server",
	mandate.RemedyConfigure:  "the configuration or the app registration must be fixed",
	mandate.RemedyAdminister: "an administrator of that tenant must change a user, a role, GDAP or conditional access",
	mandate.RemedyRetry:      "try again later",
}

// refusals say whose move it is where a consent, or a refresh token in the
// place of one, was not accepted.
var refusals = map[mandate.Reason]string{
	mandate.ReasonTenant:      "the refresh token is another tenant's; look where it comes from",
	mandate.ReasonUser:        "the refresh token is another user's; say which user with --user, or look where it comes from",
	mandate.ReasonGuest:       "the partner must consent with an account of its own tenant: mandate partner invite",
	mandate.ReasonMFA:         "the partner must sign in with MFA and consent here: mandate partner invite",
	mandate.ReasonRole:        "an administrator of the partner must make the user an Admin or Sales agent in Partner Center",
	mandate.ReasonRoleUnknown: "try again; if it stays so, the application may lack the permission to see the user's groups",
	mandate.ReasonAudience:    "the application's registration, or the consent, lacks a permission for that API",
	mandate.ReasonConditional: "an administrator of the partner must let a conditional access policy allow the application",
	mandate.ReasonApplication: "the application's credential or registration must be fixed on the server",
	mandate.ReasonUnavailable: "try again later",
	mandate.ReasonSiteProblem: "the server's log says more",
}

// hint says what to do about err, or "".
func hint(err error) string {
	var f *mandate.Fault
	var r *mandate.Refusal
	var denied *mandate.DeniedError
	switch {
	case errors.As(err, &r) && refusals[r.Reason] != "":
		return strings.Replace(refusals[r.Reason], "that API", cmp.Or(string(r.Audience), "that API"), 1)
	case errors.As(err, &f):
		return remedies[f.Remedy]
	case errors.As(err, &denied) && denied.Decision.Approval != "":
		return "what is asked: mandate approval show " + denied.Decision.Approval
	case errors.As(err, &denied) && denied.Decision.Policy != "":
		return "the server's policy decides; the last denials: mandate audit search --kind denied; one of them, rule by rule: mandate policy explain INDEX"
	case errors.Is(err, errDoesNotHold):
		return "keep this export and what it was held against, and ask for a new one; if that does not hold either, whoever runs the server must keep the log as it is, and compare it with what witnesses and callers have kept"
	case errors.Is(err, api.ErrUnreachable):
		return "is the server running? Start it with: mandate serve --config FILE"
	}
	return ""
}
