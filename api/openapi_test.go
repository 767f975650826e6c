package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/audit"
	"github.com/mandate-sam/mandate/footprint"
	"github.com/mandate-sam/mandate/internal/web"
	"github.com/mandate-sam/mandate/notify"
	"github.com/mandate-sam/mandate/policy"
)

// A document is as much of OpenAPI as openapi.json uses.
type document struct {
	Paths      map[string]map[string]operation
	Components struct{ Schemas map[string]*schema }
}

type operation struct {
	Tags        []string
	Parameters  []struct{ Name, In string }
	RequestBody struct{ Content map[string]media }
	Responses   map[string]struct{ Content map[string]media }
}

type media struct{ Schema *schema }

type schema struct {
	Ref                  string `json:"$ref"`
	Type                 any
	Properties           map[string]*schema
	Required             []string
	Items                *schema
	Enum                 []string
	AdditionalProperties any
}

func readDocument(t *testing.T) document {
	t.Helper()
	w := newWorld(t)
	status, _, body := send(t, w.caller, "GET", "/openapi.json", "")
	var d document
	if err := json.Unmarshal([]byte(body), &d); err != nil || status != 200 {
		t.Fatalf("%d, %v", status, err)
	}
	return d
}

func (d *document) resolve(s *schema) *schema {
	if s != nil && s.Ref != "" {
		return d.Components.Schemas[strings.TrimPrefix(s.Ref, "#/components/schemas/")]
	}
	return s
}

// Every route is documented behind its door, and nothing else is.
func TestOpenAPIRoutes(t *testing.T) {
	d := readDocument(t)
	want := map[string]string{}
	for tag, routes := range map[string][]route{"caller": callerRoutes, "operator": operators(), "open": slices.Concat(openRoutes, signInRoutes)} {
		for _, rt := range routes {
			want[rt.method+" "+rt.path] = tag
		}
	}
	got := map[string]string{}
	for path, methods := range d.Paths {
		for method, op := range methods {
			got[strings.ToUpper(method)+" "+path] = strings.Join(op.Tags, " ")
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("documented %v, served %v", got, want)
	}
}

// Every schema has the fields, types and required fields of the Go type that
// goes over the wire.
func TestOpenAPISchemas(t *testing.T) {
	d := readDocument(t)
	types := map[string]reflect.Type{
		"TokenRequest": reflect.TypeFor[TokenRequest](), "Token": reflect.TypeFor[tokenAnswer](), "Receipt": reflect.TypeFor[mandate.Receipt](),
		"CallRequest": reflect.TypeFor[CallRequest](), "PageLine": reflect.TypeFor[pageLine](), "PageEnd": reflect.TypeFor[pageEnd](),
		"Partners": reflect.TypeFor[partnersAnswer](), "Partner": reflect.TypeFor[Partner](), "Grant": reflect.TypeFor[Grant](),
		"Identity": reflect.TypeFor[mandate.Identity](), "Evidence": reflect.TypeFor[mandate.Evidence](), "TokenAMR": reflect.TypeFor[mandate.TokenAMR](),
		"GrantedAudience": reflect.TypeFor[mandate.GrantedAudience](), "InviteRequest": reflect.TypeFor[InviteRequest](), "Invited": reflect.TypeFor[Invited](),
		"Callers": reflect.TypeFor[callersAnswer](), "Caller": reflect.TypeFor[Caller](), "CallerRequest": reflect.TypeFor[CallerRequest](), "SignInStart": reflect.TypeFor[SignInStart](), "SignInRequest": reflect.TypeFor[signInRequest](), "SignedIn": reflect.TypeFor[SignedIn](),
		"Binding": reflect.TypeFor[mandate.Binding](), "CallerCredential": reflect.TypeFor[mandate.CallerCredential](),
		"Show": reflect.TypeFor[Show](), "RotateCallerRequest": reflect.TypeFor[RotateCallerRequest](), "ExpireRequest": reflect.TypeFor[ExpireRequest](),
		"CallerAnswer": reflect.TypeFor[CallerAnswer](), "Records": reflect.TypeFor[auditAnswer](), "Status": reflect.TypeFor[Status](),
		"Health": reflect.TypeFor[struct {
			OK bool `json:"ok"`
		}](),
		"Error": reflect.TypeFor[struct {
			Error web.Problem `json:"error"`
		}](),
		"PartnerGrant": reflect.TypeFor[PartnerGrant](), "PartnerGrants": reflect.TypeFor[grantsAnswer](), "History": reflect.TypeFor[History](),
		"ActRequest": reflect.TypeFor[ActRequest](), "DecideRequest": reflect.TypeFor[DecideRequest](), "WithdrawRequest": reflect.TypeFor[WithdrawRequest](),
		"KeyVaultSource": reflect.TypeFor[KeyVaultSource](), "ImportRequest": reflect.TypeFor[ImportRequest](), "Imported": reflect.TypeFor[Imported](),
		"Acted": reflect.TypeFor[Acted](), "Withdrawn": reflect.TypeFor[Withdrawn](), "Withdrawal": reflect.TypeFor[mandate.Withdrawal](),
		"Line": reflect.TypeFor[mandate.Line](), "Trouble": reflect.TypeFor[mandate.Trouble](), "Forecast": reflect.TypeFor[forecastAnswer](),
		"KeyStatus": reflect.TypeFor[KeyStatus](), "KeyUse": reflect.TypeFor[KeyUse](), "RotateRequest": reflect.TypeFor[RotateRequest](), "Rotated": reflect.TypeFor[Rotated](),
		"RetireRequest": reflect.TypeFor[RetireRequest](), "RewrapRequest": reflect.TypeFor[RewrapRequest](), "RewrapLine": reflect.TypeFor[RewrapLine](),
		"RevokeRequest": reflect.TypeFor[RevokeRequest](), "Reach": reflect.TypeFor[mandate.Reach](), "Revoked": reflect.TypeFor[Revoked](),
		"LockRequest": reflect.TypeFor[LockRequest](), "LockStatus": reflect.TypeFor[LockStatus](), "Lockdown": reflect.TypeFor[mandate.Lockdown](), "ReleasedGrant": reflect.TypeFor[ReleasedGrant](),
		"PolicyFile": reflect.TypeFor[policy.File](), "PolicyVersion": reflect.TypeFor[PolicyVersion](), "PolicyStatus": reflect.TypeFor[PolicyStatus](),
		"PolicyApplyRequest": reflect.TypeFor[ApplyRequest](), "PolicyDiffRequest": reflect.TypeFor[DiffRequest](), "RuleChange": reflect.TypeFor[policy.RuleChange](),
		"PolicyEffect": reflect.TypeFor[policy.Effect](), "PolicyDiff": reflect.TypeFor[PolicyDiff](), "PolicyApplied": reflect.TypeFor[PolicyApplied](), "HypotheticalRequest": reflect.TypeFor[policy.Hypothetical](),
		"PolicyExplainRequest": reflect.TypeFor[ExplainRequest](), "PolicyView": reflect.TypeFor[policy.View](), "PolicyExplanation": reflect.TypeFor[PolicyExplanation](),
		"CredentialStatus": reflect.TypeFor[CredentialStatus](), "CredentialRotation": reflect.TypeFor[CredentialRotation](), "EntraCredential": reflect.TypeFor[EntraCredential](),
		"Credentials": reflect.TypeFor[credentialsAnswer](), "CredentialRequest": reflect.TypeFor[CredentialRequest](), "CredentialLine": reflect.TypeFor[CredentialLine](), "CredentialGrant": reflect.TypeFor[CredentialGrant](),
		"Customer": reflect.TypeFor[mandate.Customer](), "CustomerList": reflect.TypeFor[CustomerList](), "Served": reflect.TypeFor[Served](), "ServedBy": reflect.TypeFor[servedAnswer](),
		"AllowRequest": reflect.TypeFor[AllowRequest](), "DisallowRequest": reflect.TypeFor[DisallowRequest](), "PartnerUser": reflect.TypeFor[mandate.PartnerUser](), "PartnerUsers": reflect.TypeFor[partnerUsersAnswer](),
		"Contact": reflect.TypeFor[mandate.Contact](), "ContactRequest": reflect.TypeFor[ContactRequest](), "ContactList": reflect.TypeFor[ContactList](),
		"Notice": reflect.TypeFor[notify.Notice](), "NoticeDelivery": reflect.TypeFor[notify.Delivery](), "NoticeList": reflect.TypeFor[NoticeList](),
		"Problem": reflect.TypeFor[web.Problem](), "GrantKey": reflect.TypeFor[mandate.GrantKey](),
		"Record": reflect.TypeFor[audit.Entry](), "AuditState": reflect.TypeFor[AuditState](), "WitnessStatus": reflect.TypeFor[audit.WitnessStatus](),
		"EraseRequest": reflect.TypeFor[EraseRequest](), "DropRequest": reflect.TypeFor[DropRequest](), "Tidied": reflect.TypeFor[Tidied](),
		"Footprint": reflect.TypeFor[footprint.Report](), "FootprintAudience": reflect.TypeFor[footprint.Audience](), "FootprintTenant": reflect.TypeFor[footprint.Tenant](),
		"FootprintScope": reflect.TypeFor[footprint.Scope](), "FootprintPath": reflect.TypeFor[footprint.Path](), "FootprintPermission": reflect.TypeFor[footprint.Permission](),
		"RequiredResource": reflect.TypeFor[footprint.Required](), "RequiredAccess": reflect.TypeFor[footprint.Access](),
		"Approval": reflect.TypeFor[mandate.Approval](), "Approvals": reflect.TypeFor[approvalsAnswer](),
		"Usage": reflect.TypeFor[audit.Usage](), "Usages": reflect.TypeFor[usageAnswer](),
	}
	for name, s := range d.Components.Schemas {
		typ, ok := types[name]
		if !ok {
			t.Errorf("schema %s has no Go type in this test", name)
			continue
		}
		fields := map[string]bool{} // whether required
		for _, f := range reflect.VisibleFields(typ) {
			tag, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			if f.Anonymous || tag == "-" {
				continue
			}
			fields[tag] = options == ""
			if p := d.resolve(s.Properties[tag]); p == nil {
				t.Errorf("%s.%s is not documented", name, tag)
			} else if got, want := kindOf(p), jsonKind(f.Type); want != "" && got != want {
				t.Errorf("%s.%s is documented as %s and is %s", name, tag, got, want)
			}
		}
		for p := range s.Properties {
			required, ok := fields[p]
			if !ok {
				t.Errorf("%s.%s is documented, but there is no such field", name, p)
			} else if required != slices.Contains(s.Required, p) {
				t.Errorf("%s.%s: documented as required: %v, want %v", name, p, !required, required)
			}
		}
		delete(types, name)
	}
	for name := range types {
		t.Errorf("schema %s is missing", name)
	}
}

// kindOf returns the one type of a schema besides null.
func kindOf(s *schema) string {
	if list, ok := s.Type.([]any); ok {
		return list[0].(string)
	}
	k, _ := s.Type.(string)
	return k
}

// jsonKind returns what a Go type is in JSON, or "" for anything.
func jsonKind(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[json.RawMessage]():
		return ""
	case t.Kind() == reflect.Pointer:
		return jsonKind(t.Elem())
	case t.Implements(reflect.TypeFor[interface{ MarshalText() ([]byte, error) }]()):
		return "string"
	}
	switch t.Kind() {
	case reflect.String:
		return "string"
	case reflect.Bool:
		return "boolean"
	case reflect.Int, reflect.Int64:
		return "integer"
	case reflect.Slice:
		return "array"
	}
	return "object"
}

// fits reports the first place where v is not what s says.
func (d *document) fits(at string, s *schema, v any) error {
	s = d.resolve(s)
	if s == nil || s.Type == nil {
		return nil
	}
	if v == nil && fmt.Sprint(s.Type) == "[array null]" {
		return nil
	}
	switch v := v.(type) {
	case map[string]any:
		return d.fitsObject(at, s, v)
	case []any:
		if kindOf(s) != "array" {
			return fmt.Errorf("%s is an array", at)
		}
		for i, item := range v {
			if err := d.fits(fmt.Sprintf("%s[%d]", at, i), s.Items, item); err != nil {
				return err
			}
		}
	case string:
		if kindOf(s) != "string" || len(s.Enum) > 0 && !slices.Contains(s.Enum, v) {
			return fmt.Errorf("%s is %q", at, v)
		}
	case bool:
		if kindOf(s) != "boolean" {
			return fmt.Errorf("%s is a boolean", at)
		}
	case float64:
		if kindOf(s) != "integer" {
			return fmt.Errorf("%s is a number", at)
		}
	default:
		return fmt.Errorf("%s is %v", at, v)
	}
	return nil
}

func (d *document) fitsObject(at string, s *schema, v map[string]any) error {
	if kindOf(s) != "object" {
		return fmt.Errorf("%s is an object", at)
	}
	for _, name := range s.Required {
		if _, ok := v[name]; !ok {
			return fmt.Errorf("%s.%s is missing", at, name)
		}
	}
	for name, value := range v {
		p, ok := s.Properties[name]
		if !ok && s.AdditionalProperties == false {
			return fmt.Errorf("%s.%s is not documented", at, name)
		}
		if err := d.fits(at+"."+name, p, value); ok && err != nil {
			return err
		}
	}
	return nil
}

// A scene makes one documented status happen.
type scene struct {
	op     string // method and path as documented
	status string
	body   string
	damage func(*world)
	query  string
	path   string // instead of the documented one
	who    func(*world) *Client
}

func scenes() []scene {
	broker := func(err error) func(*world) { return func(w *world) { w.broker.set(err) } }
	store := func(err error) func(*world) { return func(w *world) { w.store.err = err } }
	bad := func(w *world) *Client {
		return &Client{base: w.caller.base, http: w.caller.http, id: "billing", secret: mandate.NewSecret("no")}
	}
	caller := func(w *world) *Client { return w.caller }
	denied := &mandate.DeniedError{Decision: mandate.Decision{Rule: "r", Reason: "no", Policy: "p"}}
	fault := &mandate.Fault{Domain: mandate.DomainGrant, Remedy: mandate.RemedyRenew, Codes: []int{50076}, OAuthError: "invalid_grant"}
	out := []scene{
		{op: "POST /v1/tokens", status: "200", body: goodToken, who: caller},
		{op: "POST /v1/tokens", status: "401", body: goodToken, who: bad},
		{op: "POST /v1/tokens", status: "429", body: goodToken, damage: broker(mandate.ErrRateLimited)},
		{op: "POST /v1/call", status: "200", body: goodCallJSON},
		{op: "POST /v1/call", status: "429", body: goodCallJSON, damage: broker(mandate.ErrRateLimited)},
		{op: "GET /v1/partners", status: "200"},
		{op: "GET /v1/partners", status: "503", damage: store(mandate.ErrUnavailable)},
		{op: "POST /v1/partners", status: "201", body: goodInviteJSON},
		{op: "POST /v1/partners", status: "400", body: `{}`},
		{op: "POST /v1/partners", status: "409", body: goodInviteJSON, damage: store(mandate.ErrExists)},
		{op: "POST /v1/partners", status: "503", body: goodInviteJSON, damage: func(w *world) { w.log.err = errors.New("full") }},
		{op: "GET /v1/partners/{partner}", status: "200", path: "/v1/partners/contoso"},
		{op: "GET /v1/partners/{partner}", status: "400", path: "/v1/partners/a%20b"},
		{op: "GET /v1/partners/{partner}", status: "404", path: "/v1/partners/nobody"},
		{op: "GET /v1/partners/{partner}", status: "503", path: "/v1/partners/contoso", damage: store(mandate.ErrUnavailable)},
		{op: "GET /v1/audit", status: "200", query: "?last=5", damage: func(w *world) {
			k := contoso.Key
			w.log.Record(context.Background(), mandate.Record{Kind: mandate.KindIssued, Grant: &k, Tenant: contosoID, Granted: []string{"a"}, Use: mandate.UseCall, User: &mandate.Identity{Tenant: contosoID}})
		}},
		{op: "GET /v1/audit", status: "400", query: "?last=x"},
		{op: "GET /v1/status", status: "200"},
		{op: "GET /healthz", status: "200"},
		{op: "GET /readyz", status: "200"},
		{op: "GET /readyz", status: "503", damage: func(w *world) { w.server.cfg.Ready = func(context.Context) error { return errors.New("x") } }},
		{op: "GET /openapi.json", status: "200"},
	}
	out = append(out, grantScenes()...)
	out = append(out, custodyScenes()...)
	out = append(out, revokeScenes()...)
	out = append(out, credentialScenes()...)
	out = append(out, registrationScenes()...)
	out = append(out, signInScenes()...)
	out = append(out, policyScenes()...)
	out = append(out, archiveScenes()...)
	out = append(out, customerScenes()...)
	out = append(out, partnerUserScenes()...)
	out = append(out, approvalScenes()...)
	out = append(out, noticeScenes()...)
	for op, body := range map[string]string{"POST /v1/tokens": goodToken, "POST /v1/call": goodCallJSON} {
		out = append(out,
			scene{op: op, status: "400", body: merge(body, map[string]any{"purpose": nil})},
			scene{op: op, status: "403", body: body, damage: broker(denied)},
			scene{op: op, status: "403", body: body, damage: broker(&mandate.WiderError{Rule: "r", Granted: []string{"a"}})},
			scene{op: op, status: "404", body: merge(body, map[string]any{"partner": "nobody"})},
			scene{op: op, status: "409", body: body, damage: broker(&mandate.NoGrantError{Generation: 1, State: mandate.StateSuspended})},
			scene{op: op, status: "502", body: body, damage: broker(fault)},
			scene{op: op, status: "503", body: body, damage: broker(mandate.ErrUnavailable)})
	}
	for _, rt := range operators() {
		op, path := rt.method+" "+rt.path, strings.NewReplacer("{partner}", "contoso", "{caller}", "billing", "{tenant}", adatumID.String()).Replace(rt.path)
		out = append(out,
			scene{op: op, status: "403", path: path, damage: func(w *world) { w.server.cfg.Operators = []int{1 << 30} }},
			scene{op: op, status: "401", path: path, who: func(w *world) *Client { return must(NewClient(w.open.URL, nil, "billing", mandate.NewSecret("x"))) }})
	}
	return out
}

// Every documented status happens, none happens that is not documented, and
// every answer is what its schema says.
func TestOpenAPIAnswers(t *testing.T) {
	d := readDocument(t)
	seen := map[string]bool{}
	for _, sc := range scenes() {
		w := newWorld(t)
		w.open = httptest.NewServer(w.server.Operator())
		if sc.damage != nil {
			sc.damage(w)
		}
		method, path, _ := strings.Cut(sc.op, " ")
		op, ok := d.Paths[path][strings.ToLower(method)]
		client := w.operator
		if sc.who != nil {
			client = sc.who(w)
		}
		if sc.path != "" {
			path = sc.path
		}
		status, h, body := send(t, client, method, path+sc.query, sc.body)
		w.open.Close()
		w.tls.Close()
		if got := fmt.Sprint(status); got != sc.status || !ok {
			t.Errorf("%s: got %s %s, want %s", sc.op, got, body, sc.status)
			continue
		}
		seen[sc.op+" "+sc.status] = true
		media, ok := op.Responses[sc.status].Content[strings.Split(h.Get("Content-Type"), ";")[0]]
		var v any
		text := strings.HasPrefix(h.Get("Content-Type"), "text/plain")
		if strings.HasSuffix(h.Get("Content-Type"), "ndjson") {
			body, _, _ = strings.Cut(body, "\n")
		}
		if err := json.Unmarshal([]byte(body), &v); err != nil && sc.op != "POST /v1/call" && !text {
			t.Errorf("%s %s: %v", sc.op, sc.status, err)
		}
		if text {
			v = body
		}
		if err := d.fits("answer", media.Schema, v); err != nil || !ok && sc.op != "POST /v1/call" {
			t.Errorf("%s %s: documented %v, %v: %s", sc.op, sc.status, ok, err, body)
		}
	}
	for path, methods := range d.Paths {
		for method, op := range methods {
			for status := range op.Responses {
				key := strings.ToUpper(method) + " " + path + " " + status
				if status != "default" && !seen[key] {
					t.Errorf("%s is documented, and no scene shows it", key)
				}
			}
		}
	}
}

// Parameters and headers that are documented are those that are read.
func TestOpenAPIParameters(t *testing.T) {
	d := readDocument(t)
	for _, p := range d.Paths["/v1/audit"]["get"].Parameters {
		if _, _, err := parseAudit(p.Name + "=1"); err != nil {
			t.Errorf("parameter %s: %v", p.Name, err)
		}
	}
	var doc map[string]any
	if err := json.Unmarshal(openAPIDocument, &doc); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprint(doc["components"].(map[string]any)["schemas"].(map[string]any)["CallRequest"])
	for _, name := range requestHeaders {
		if !strings.Contains(strings.ToLower(text), strings.ToLower(name)) {
			t.Errorf("header %s of a call is not documented", name)
		}
	}
}
