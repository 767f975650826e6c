package web_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/web"
)

var quiet = slog.New(slog.DiscardHandler)

// sentinels by name. [TestTable] reads the source of package mandate and fails
// if one is missing here.
var sentinels = map[string]struct {
	err    error
	status int
	code   string
}{
	"ErrInvalid":         {mandate.ErrInvalid, 400, "invalid"},
	"ErrUnauthenticated": {mandate.ErrUnauthenticated, 401, "unauthenticated"},
	"ErrDenied":          {mandate.ErrDenied, 403, "denied"},
	"ErrLocked":          {mandate.ErrLocked, 403, "locked_down"},
	"ErrWiderThanRule":   {mandate.ErrWiderThanRule, 403, "wider_than_rule"},
	"ErrUnknownPartner":  {mandate.ErrUnknownPartner, 404, "unknown_partner"},
	"ErrNotFound":        {mandate.ErrNotFound, 404, "not_found"},
	"ErrNoGrant":         {mandate.ErrNoGrant, 409, "no_grant"},
	"ErrExists":          {mandate.ErrExists, 409, "exists"},
	"ErrRefused":         {mandate.ErrRefused, 422, "refused"},
	"ErrRateLimited":     {mandate.ErrRateLimited, 429, "rate_limited"},
	"ErrUpstream":        {mandate.ErrUpstream, 502, "upstream"},
	"ErrUnavailable":     {mandate.ErrUnavailable, 503, "unavailable"},
	"ErrSuperseded":      {mandate.ErrSuperseded, 503, "superseded"},
	"ErrRotated":         {mandate.ErrRotated, 503, "rotated"},
}

func TestTable(t *testing.T) {
	for _, name := range errorNames(t) {
		want, ok := sentinels[name]
		if !ok {
			t.Errorf("mandate.%s has no status", name)
			continue
		}
		status, code := web.Status(fmt.Errorf("outer: %w", want.err))
		if status != want.status || code != want.code {
			t.Errorf("%s: got %d %q, want %d %q", name, status, code, want.status, want.code)
		}
		if got := web.Error(code); got != want.err {
			t.Errorf("Error(%q): got %v, want %v", code, got, want.err)
		}
	}
	if status, code := web.Status(errors.New("x")); status != 500 || code != "internal" {
		t.Errorf("unlisted: got %d %q", status, code)
	}
	if err := web.Error("internal"); err != nil {
		t.Errorf("Error(internal): got %v, want nil", err)
	}
}

// errorNames returns the names of package mandate's sentinels.
func errorNames(t *testing.T) []string {
	t.Helper()
	var names []string
	files, _ := filepath.Glob("../../*.go")
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			d, ok := d.(*ast.GenDecl)
			if !ok || d.Tok != token.VAR {
				continue
			}
			for _, s := range d.Specs {
				for _, n := range s.(*ast.ValueSpec).Names {
					if strings.HasPrefix(n.Name, "Err") {
						names = append(names, n.Name)
					}
				}
			}
		}
	}
	if len(names) < 10 {
		t.Fatalf("found only %q", names)
	}
	return names
}

// What a client gets is what the server had, but for what is withheld.
func TestRoundTrip(t *testing.T) {
	fault := &mandate.Fault{
		Domain: mandate.DomainGrant, Remedy: mandate.RemedyRenew, OAuthError: "invalid_grant", Suberror: "basic_action", Codes: []int{50076, 1},
		Description: "MFA is needed", Claims: `{"access_token":{}}`, CorrelationID: "c", TraceID: "t", Timestamp: "then", Status: 400, RetryAfter: 7 * time.Second,
	}
	for _, want := range []error{
		mandate.Invalid("purpose", "is required"),
		&mandate.DeniedError{Decision: mandate.Decision{Rule: "r", Reason: "not on Sundays", Policy: "v7"}},
		&mandate.WiderError{Rule: "r", Allowed: []string{"A"}, Granted: []string{"A", "B"}},
		&mandate.WiderError{Rule: "r", Allowed: []string{}, Granted: []string{"B"}, MaxLife: time.Minute, Life: time.Hour},
		&mandate.NoGrantError{Generation: 3, State: mandate.StateSuspended},
		&mandate.NoGrantError{},
		&mandate.Refusal{Reason: mandate.ReasonMFA},
		&mandate.Refusal{Reason: mandate.ReasonUser, Detail: "signed in as another user", Audience: "https://graph.test", Staged: 3},
		&mandate.Refusal{Reason: mandate.ReasonConditional, Fault: fault},
		fault,
		&web.RetryError{Err: mandate.ErrRateLimited, After: 9 * time.Second},
	} {
		res, body := serve(t, fmt.Errorf("secret-operation: %w", want))
		got := web.ParseProblem(res.StatusCode, body)
		if got.Error() != want.Error() {
			t.Errorf("got  %v\nwant %v", got, want)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got  %#v\nwant %#v", got, want)
		}
		if strings.Contains(string(body), "secret-operation") {
			t.Errorf("what was wrapped around is not for the caller: %s", body)
		}
	}
	res, body := serve(t, fmt.Errorf("the grant of contoso is past its end: %w", mandate.ErrNoGrant))
	if err := web.ParseProblem(res.StatusCode, body); !errors.Is(err, mandate.ErrNoGrant) || !strings.Contains(err.Error(), "past its end") {
		t.Errorf("got %v, want an ErrNoGrant with the server's words", err)
	}
}

// serve answers a request with err through a real server.
func serve(t *testing.T, err error) (*http.Response, []byte) {
	t.Helper()
	h := web.Edge{Log: quiet}.Wrap(web.JSON(quiet, func(http.ResponseWriter, *http.Request) error { return err }))
	srv := httptest.NewServer(h)
	defer srv.Close()
	res, e := http.Get(srv.URL)
	if e != nil {
		t.Fatal(e)
	}
	defer res.Body.Close()
	body, e := io.ReadAll(res.Body)
	if e != nil {
		t.Fatal(e)
	}
	return res, body
}

func TestWithheld(t *testing.T) {
	inner := errors.New("dial tcp 10.1.2.3: connection refused")
	for _, err := range []error{
		inner,
		fmt.Errorf("%w: %w", mandate.ErrUnavailable, inner),
		fmt.Errorf("%w: %w", context.DeadlineExceeded, inner),
		fmt.Errorf("%w: %w", mandate.ErrUnauthenticated, inner),
		fmt.Errorf("%w: %w", mandate.ErrRotated, inner),
		&mandate.Fault{Domain: mandate.DomainTransient, Remedy: mandate.RemedyRetry, Cause: inner},
		&mandate.Refusal{Reason: mandate.ReasonSiteProblem, Err: inner, Detail: "10.1.2.3"},
	} {
		if _, body := serve(t, err); strings.Contains(string(body), "10.1.2.3") {
			t.Errorf("%v: the caller reads %s", err, body)
		}
	}
}

// Whoever runs the server reads why something is unavailable, its log's
// request id, and that once only.
func TestForOperator(t *testing.T) {
	inner := errors.New("dial tcp 10.1.2.3: connection refused")
	for _, tt := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("read: %w: %w", mandate.ErrUnavailable, inner), "read: temporarily unavailable: dial tcp 10.1.2.3: connection refused"},
		{fmt.Errorf("%w: %w", mandate.ErrUnavailable, errors.Join(errors.New("a"), errors.New("b"))), "temporarily unavailable: a; b"},
		{fmt.Errorf("read: %w", context.DeadlineExceeded), "temporarily unavailable: read: context deadline exceeded"},
	} {
		res, body := serve(t, web.ForOperator(tt.err))
		got := web.ParseProblem(res.StatusCode, body)
		want := tt.want + " (request " + res.Header.Get("X-Request-Id") + ")"
		if !errors.Is(got, mandate.ErrUnavailable) || got.Error() != want+"; try again in 2s" {
			t.Errorf("got  %v\nwant %s", got, want)
		}
		if p := web.NewProblem(got); p.Message != want || p.RetryAfter != 2 {
			t.Errorf("as JSON again: %+v, want the message %s", p, want)
		}
	}
	if _, body := serve(t, web.ForOperator(inner)); strings.Contains(string(body), "10.1.2.3") {
		t.Errorf("what is not in the table is for the log alone: %s", body)
	}
	if err := web.ForOperator(nil); err != nil {
		t.Errorf("nothing became %v", err)
	}
}

// What must come first: what could not be recorded is unavailable, and a
// refusal is one although Entra or a bad field was its cause.
func TestPrecedence(t *testing.T) {
	for _, tt := range []struct {
		err  error
		code string
	}{
		{errors.Join(&mandate.DeniedError{}, mandate.ErrUnavailable), "unavailable"},
		{fmt.Errorf("read: %w", context.DeadlineExceeded), "unavailable"},
		{errors.Join(&mandate.DeniedError{}, context.DeadlineExceeded), "denied"},
		{&mandate.Refusal{Reason: mandate.ReasonEntra, Fault: &mandate.Fault{}}, "refused"},
		{&mandate.Refusal{Reason: mandate.ReasonToken, Err: mandate.Invalid("x", "y")}, "refused"},
	} {
		if _, code := web.Status(tt.err); code != tt.code {
			t.Errorf("%v: got %q, want %q", tt.err, code, tt.code)
		}
		if p := web.NewProblem(tt.err); tt.code == "refused" && p.Reason == "y" {
			t.Errorf("%v: described as the error under it", tt.err)
		}
	}
}

func TestErrorAnswers(t *testing.T) {
	for _, tt := range []struct {
		err    error
		header map[string]string
	}{
		{mandate.ErrRateLimited, map[string]string{"Retry-After": "10"}},
		{&web.RetryError{Err: mandate.ErrRateLimited, After: 1500 * time.Millisecond}, map[string]string{"Retry-After": "2"}},
		{mandate.ErrUnavailable, map[string]string{"Retry-After": "2"}},
		{&mandate.Fault{RetryAfter: time.Minute}, map[string]string{"Retry-After": "60"}},
		{&mandate.Fault{}, map[string]string{"Retry-After": ""}},
		{mandate.ErrUnauthenticated, map[string]string{"WWW-Authenticate": `Basic realm="mandate", charset="UTF-8"`}},
		{mandate.ErrDenied, map[string]string{"Retry-After": "", "WWW-Authenticate": "", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Content-Type": "application/json"}},
	} {
		res, body := serve(t, tt.err)
		for k, want := range tt.header {
			if got := res.Header.Get(k); got != want {
				t.Errorf("%v: %s is %q, want %q", tt.err, k, got, want)
			}
		}
		var doc struct{ Error map[string]any }
		if err := json.Unmarshal(body, &doc); err != nil || doc.Error["request_id"] != res.Header.Get("X-Request-Id") || doc.Error["request_id"] == "" || doc.Error["message"] == "" {
			t.Errorf("%v: body %s", tt.err, body)
		}
	}
}

func TestParseProblemOfStrangers(t *testing.T) {
	for _, body := range []string{"", "<html>", `{"error":"no"}`, `{"error":{}}`, `{"error":{"code":"novel","message":"m"}}`} {
		err := web.ParseProblem(418, []byte(body))
		if err == nil || !strings.Contains(err.Error(), "418") {
			t.Errorf("%q: got %v, want an error with the status", body, err)
		}
	}
}
