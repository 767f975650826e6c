package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/emulator"
)

// A Result is what a walk brought.
type Result struct {
	Partner      string   `json:"partner"`
	Generation   int64    `json:"generation"`
	MFA          bool     `json:"mfa"`
	Audiences    []string `json:"audiences"`
	Customers    int      `json:"customers"`
	Users        int      `json:"users"`
	AuditRecords int64    `json:"audit_records"`
	OK           bool     `json:"ok"`

	// Failed names the step that failed, and Error says why.
	Failed string `json:"failed,omitempty"`
	Error  string `json:"error,omitempty"`
}

// A Walk goes the whole way of one consent as its people and programs would:
// the operator over the socket, the partner through the pages, the service
// over the API.
type Walk struct {
	*Demo
	Progress Progress
	Result   Result

	browser *Browser
	page    *Page
	service *api.Client
	names   []customer
}

type customer struct{ id, name string }

// Whom a walk is about.
const (
	Partner = "contoso"
	User    = "admin@contoso.example"
	Purpose = "demo"
)

// A Progress is told what a walk is doing.
type Progress interface {
	Begin(step string)
	End(note string)
	Fail(err error)
}

// Run takes the steps in order and stops at the first that fails.
func (w *Walk) Run(ctx context.Context) error {
	w.Result = Result{Partner: Partner, Audiences: []string{}}
	w.browser = NewBrowser(w.Emulator.Client().Transport)
	for _, s := range []struct {
		name string
		do   func(context.Context) (string, error)
	}{
		{"the operator invites the partner", w.invite},
		{"the partner opens the invitation and reads it", w.read},
		{"the partner signs in with MFA and accepts", w.consent},
		{"the partner gets a receipt", w.receipt},
		{"the operator registers a service", w.register},
		{"the service gets a token for each of three audiences", w.tokens},
		{"the service gets a token in a customer's tenant", w.customerToken},
		{"the operator lists the partner's customers", w.customers},
		{"the operator reads the users of each customer", w.users},
		{"everything is in the audit log", w.audit},
	} {
		w.Progress.Begin(s.name)
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		note, err := s.do(ctx)
		cancel()
		if err != nil {
			w.Progress.Fail(err)
			w.Result.Failed, w.Result.Error = s.name, err.Error()
			return fmt.Errorf("%s: %w", s.name, err)
		}
		w.Progress.End(note)
	}
	w.Result.OK = true
	return nil
}

// Invite invites the partner, as its operator would.
func (d *Demo) Invite(ctx context.Context) (api.Invited, error) {
	return d.Operator.Invite(ctx, api.InviteRequest{
		Name: Partner, Tenant: emulator.ContosoTenant, DisplayName: "Contoso CSP", User: User,
	})
}

func (w *Walk) invite(ctx context.Context) (string, error) {
	in, err := w.Invite(ctx)
	if err != nil {
		return "", err
	}
	w.page, err = w.browser.Open(ctx, in.Link)
	return "a link for " + User + ", good until " + in.Expires.Local().Format("2 January 15:04"), err
}

func (w *Walk) read(context.Context) (string, error) {
	if w.page.find("form", "") == nil {
		return "", fmt.Errorf("there is nothing to continue with on %q", w.page.Title())
	}
	return fmt.Sprintf("“%s”", w.page.Title()), nil
}

func (w *Walk) consent(ctx context.Context) (string, error) {
	p, err := w.browser.Submit(ctx, w.page, "", "", "")
	if err != nil {
		return "", err
	}
	var steps []string
	w.page, err = w.browser.SignIn(ctx, p, w.Emulator.Endpoints().Login, User, func(s string) { steps = append(steps, s) })
	return strings.Join(steps, ", "), err
}

func (w *Walk) receipt(ctx context.Context) (string, error) {
	p, err := w.Operator.Partner(ctx, Partner)
	if err != nil {
		return "", err
	}
	if w.page.Status != http.StatusOK || p.Grant == nil || p.Grant.State != "active" {
		return "", fmt.Errorf("the site says %q", w.page.Title())
	}
	w.Result.Generation = p.Grant.Generation
	w.Result.MFA = p.Grant.Evidence != nil && p.Grant.Evidence.PartnerCenter
	if !w.Result.MFA {
		return "", errors.New("the grant has no evidence of MFA")
	}
	return fmt.Sprintf("“%s”: generation %d, MFA confirmed by Partner Center, ends %s", w.page.Title(), p.Grant.Generation, p.Grant.Until.Format(time.DateOnly)), nil
}

func (w *Walk) register(ctx context.Context) (string, error) {
	secret, err := w.Operator.AddCaller(ctx, "demo-service")
	if err != nil {
		return "", err
	}
	w.service, err = api.NewClient(w.API, w.Emulator.Client(), "demo-service", secret)
	return "demo-service, with a secret that is shown once", err
}

func (w *Walk) tokens(ctx context.Context) (string, error) {
	var notes []string
	for _, audience := range []string{"partnercenter", "graph", "arm"} {
		t, err := w.service.Token(ctx, api.TokenRequest{Partner: Partner, Audience: audience, Purpose: Purpose})
		if err != nil {
			return "", fmt.Errorf("%s: %w", audience, err)
		}
		w.Result.Audiences = append(w.Result.Audiences, audience)
		notes = append(notes, fmt.Sprintf("%s (%s)", audience, strings.Join(t.Scopes, " ")))
	}
	return strings.Join(notes, ", "), nil
}

func (w *Walk) customerToken(ctx context.Context) (string, error) {
	t, err := w.service.Token(ctx, api.TokenRequest{Partner: Partner, Tenant: emulator.AdatumTenant, Audience: "graph", Purpose: Purpose})
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("graph in %s, good for %v", t.Tenant, time.Until(t.Expires).Round(time.Minute)), nil
}

func (w *Walk) customers(ctx context.Context) (string, error) {
	var names []string
	for item, err := range w.list(ctx, "/v1/customers?size=2") {
		if err != nil {
			return "", err
		}
		var c struct {
			ID             string
			CompanyProfile struct{ CompanyName string }
		}
		if err := json.Unmarshal(item, &c); err != nil {
			return "", err
		}
		w.names = append(w.names, customer{c.ID, c.CompanyProfile.CompanyName})
		names = append(names, c.CompanyProfile.CompanyName)
	}
	w.Result.Customers = len(names)
	if len(names) == 0 {
		return "", errors.New("none is listed by Partner Center")
	}
	return strings.Join(names, ", "), nil
}

func (w *Walk) users(ctx context.Context) (string, error) {
	var notes []string
	for _, c := range w.names {
		n := 0
		for _, err := range w.list(ctx, "/v1/customers/"+c.id+"/users") {
			if err != nil {
				return "", fmt.Errorf("%s: %w", c.name, err)
			}
			n++
		}
		w.Result.Users += n
		notes = append(notes, fmt.Sprintf("%s %d", c.name, n))
	}
	return strings.Join(notes, ", "), nil
}

func (w *Walk) list(ctx context.Context, path string) func(func(json.RawMessage, error) bool) {
	return w.Operator.CallAll(ctx, api.CallRequest{Partner: Partner, Audience: "partnercenter", Method: "GET", Path: path, Purpose: Purpose})
}

func (w *Walk) audit(ctx context.Context) (string, error) {
	s, err := w.Operator.Status(ctx)
	if err != nil {
		return "", err
	}
	records, err := w.Operator.Audit(ctx, int(s.Records))
	if err != nil {
		return "", err
	}
	w.Result.AuditRecords = s.Records
	kinds := map[string]int{}
	for _, r := range records {
		var v struct{ Kind string }
		if err := json.Unmarshal(r, &v); err != nil {
			return "", err
		}
		kinds[v.Kind]++
	}
	if kinds["consented"] != 1 || kinds["issued"] == 0 || kinds["decided"] == 0 {
		return "", fmt.Errorf("the log has %v", kinds)
	}
	return fmt.Sprintf("%d records: %d decided, %d issued, %d consented, %d changed", s.Records, kinds["decided"], kinds["issued"], kinds["consented"], kinds["changed"]), nil
}
