package footprint

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
)

var (
	key    = mandate.GrantKey{Cloud: "test", Partner: tenant(1)}
	now    = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	adatum = tenant(2)
)

// tenant returns a tenant id that ends with a digit.
func tenant(digit int) mandate.TenantID {
	id, err := mandate.ParseTenantID(fmt.Sprintf("00000000-0000-4000-8000-%012d", digit))
	if err != nil {
		panic(err)
	}
	return id
}

func subject() Subject {
	names := map[mandate.Audience]string{"https://pc": mandate.PartnerCenter, "https://graph": mandate.Graph, "https://arm": mandate.ARM}
	return Subject{
		Partner: "contoso", Days: 30, From: now.AddDate(0, 0, -30), To: now, Audiences: names,
		Grant: mandate.Grant{Key: key, Consented: now.AddDate(0, -6, 0), Audiences: []mandate.GrantedAudience{
			{Audience: "https://pc", Scopes: []string{"user_impersonation"}},
			{Audience: "https://graph", Scopes: []string{"Directory.ReadWrite.All", "User.Read"}},
			{Audience: "https://arm", Scopes: []string{"user_impersonation"}},
		}},
	}
}

// used returns the record of a call, or of a token if detail is empty.
func used(audience mandate.Audience, detail string, scopes ...mandate.Scope) mandate.Record {
	r := mandate.Record{Kind: mandate.KindIssued, Grant: &key, Tenant: adatum, Audience: audience, Use: mandate.UseCall, Detail: detail, Caller: "desk", Purpose: "support",
		Granted: scopes, Time: now.Add(-time.Hour)}
	if detail == "" {
		r.Use = mandate.UseToken
	}
	return r
}

// own returns the record of a token that the server had for itself.
func own(audience mandate.Audience, scopes ...mandate.Scope) mandate.Record {
	r := used(audience, "", scopes...)
	r.Use = ""
	return r
}

func all(records ...mandate.Record) iter.Seq2[mandate.Record, error] {
	return func(yield func(mandate.Record, error) bool) {
		for _, r := range records {
			if !yield(r, nil) {
				return
			}
		}
	}
}

// verdicts writes every scope with what becomes of it.
func verdicts(r Report) string {
	var words []string
	for _, a := range r.Audiences {
		for _, s := range a.Scopes {
			words = append(words, a.API+"/"+s.Scope+"="+s.Verdict)
		}
	}
	return strings.Join(words, " ")
}

func TestMeasure(t *testing.T) {
	for _, tt := range []struct {
		name     string
		customer mandate.TenantID
		records  []mandate.Record
		want     string
	}{
		{"nothing was used", mandate.TenantID{}, nil,
			"partnercenter/user_impersonation=keep graph/Directory.ReadWrite.All=drop graph/User.Read=keep graph/GroupMember.Read.All=add arm/user_impersonation=drop"},
		{"nothing was used for a customer", adatum, nil,
			"partnercenter/user_impersonation=drop graph/Directory.ReadWrite.All=drop graph/User.Read=drop arm/user_impersonation=drop"},
		{"a token keeps what it carried", adatum, []mandate.Record{used("https://graph", "", "User.Read")},
			"partnercenter/user_impersonation=drop graph/Directory.ReadWrite.All=drop graph/User.Read=unknown arm/user_impersonation=drop"},
		{"what the server itself asked for", adatum, []mandate.Record{own("https://graph", "Directory.ReadWrite.All")},
			"partnercenter/user_impersonation=drop graph/Directory.ReadWrite.All=drop graph/User.Read=drop arm/user_impersonation=drop"},
		{"a call that is known", adatum, []mandate.Record{used("https://graph", "GET /v1.0/users", "Directory.ReadWrite.All", "User.Read")},
			"partnercenter/user_impersonation=drop graph/Directory.ReadWrite.All=drop graph/User.Read=drop graph/User.Read.All=add arm/user_impersonation=drop"},
		{"a call that is not known", adatum, []mandate.Record{used("https://graph", "GET /v1.0/users"), used("https://graph", "PATCH /v1.0/users/ada")},
			"partnercenter/user_impersonation=drop graph/Directory.ReadWrite.All=keep graph/User.Read=unknown arm/user_impersonation=drop"},
		{"a call whose path was erased", adatum, []mandate.Record{{Kind: mandate.KindIssued, Grant: &key, Tenant: adatum, Audience: "https://graph", Use: mandate.UseCall, Time: now.Add(-1)}},
			"partnercenter/user_impersonation=drop graph/Directory.ReadWrite.All=unknown graph/User.Read=unknown arm/user_impersonation=drop"},
		{"a call that nothing consented would allow", adatum, []mandate.Record{used("https://graph", "GET /v1.0/tenantRelationships/delegatedAdminRelationships")},
			"partnercenter/user_impersonation=drop graph/Directory.ReadWrite.All=unknown graph/User.Read=unknown arm/user_impersonation=drop"},
		{"Azure by a call", adatum, []mandate.Record{used("https://arm", "DELETE /subscriptions/1")},
			"partnercenter/user_impersonation=drop graph/Directory.ReadWrite.All=drop graph/User.Read=drop arm/user_impersonation=keep"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := subject()
			s.Customer = tt.customer
			r, err := Measure(s, all(tt.records...))
			if got := verdicts(r); err != nil || got != tt.want {
				t.Errorf("got  %s, %v\nwant %s", got, err, tt.want)
			}
		})
	}
}

// What was refused, is of others, or of another time counts for nothing.
func TestMeasureIgnores(t *testing.T) {
	other := mandate.GrantKey{Cloud: "test", Partner: tenant(9)}
	for name, change := range map[string]func(*mandate.Record){
		"denied": func(r *mandate.Record) { r.Kind = mandate.KindDenied }, "refreshed": func(r *mandate.Record) { r.Kind = mandate.KindRefreshed },
		"another partner": func(r *mandate.Record) { r.Grant = &other }, "no partner": func(r *mandate.Record) { r.Grant = nil },
		"another customer": func(r *mandate.Record) { r.Tenant = tenant(3) },
		"too old":          func(r *mandate.Record) { r.Time = now.AddDate(0, 0, -31) }, "too new": func(r *mandate.Record) { r.Time = now },
	} {
		s := subject()
		s.Customer = adatum
		r := used("https://arm", "GET /subscriptions")
		change(&r)
		report, err := Measure(s, all(r))
		if err != nil || report.Audiences[2].Calls != 0 || report.Audiences[2].Verdict != Drop {
			t.Errorf("%s: got %+v, %v", name, report.Audiences[2], err)
		}
	}
}

func TestMeasureFails(t *testing.T) {
	broken := errors.New("broken")
	if _, err := Measure(subject(), func(yield func(mandate.Record, error) bool) { yield(mandate.Record{}, broken) }); !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
}

// Whoever makes up paths does not fill the memory, and what is not told apart
// counts as not known.
func TestMeasureManyPaths(t *testing.T) {
	var records []mandate.Record
	for i := range maxPaths + 50 {
		records = append(records, used("https://graph", "GET /v1.0/"+strings.Repeat("a", i%50+1)+"/"+strings.Repeat("b", i/50+1)))
	}
	r, err := Measure(subject(), all(records...))
	paths := r.Audiences[1].Paths
	if err != nil || len(paths) != maxPaths+1 || paths[0].Path != "?" || paths[0].Calls != 50 || r.Audiences[1].Calls != maxPaths+50 {
		t.Errorf("%d paths, %v", len(paths), err)
	}
}

func TestManifest(t *testing.T) {
	s := subject()
	s.Grant.Audiences = append(s.Grant.Audiences, mandate.GrantedAudience{Audience: "https://other", Scopes: []string{"a: b"}})
	r, err := Measure(s, all(used("https://other", "", "a: b")))
	if err != nil {
		t.Fatal(err)
	}
	want := `audiences: [partnercenter, graph, "https://other"]
permissions:
  - {api: partnercenter, scope: user_impersonation}
  - {api: graph, scope: User.Read}
  - {api: graph, scope: GroupMember.Read.All}
  - {api: "https://other", scope: "a: b"}
`
	if r.Manifest != want {
		t.Errorf("got %s\nwant %s", r.Manifest, want)
	}
	if len(r.Required) != 2 || len(r.Required[1].Access) != 2 || !slices.Equal(r.Unnamed, []Permission{{"https://other", "a: b"}}) {
		t.Errorf("required %+v, unnamed %+v", r.Required, r.Unnamed)
	}
	if len(r.Notes) != 2 || !strings.Contains(r.Notes[1], "https://other were handed out") {
		t.Errorf("notes %q", r.Notes)
	}
}

func TestTemplate(t *testing.T) {
	const vm = "/subscriptions/1/resourceGroups/mine/providers/Microsoft.Compute/virtualMachines/web/extensions/x"
	for _, tt := range []struct{ api, path, want string }{
		{mandate.Graph, "/v1.0/users", "/v1.0/users"},
		{mandate.Graph, "/v1.0/users/ada", "/v1.0/users/{id}"},
		{mandate.Graph, "/v1.0/users/ada%40contoso.example/manager", "/v1.0/users/{id}/manager"},
		{mandate.Graph, "/v1.0/users('ada')", "/v1.0/{id}"},
		{mandate.Graph, "/beta/me", "/beta/me"},
		{mandate.Graph, "/v1.0/v2.0", "/v1.0/{id}"},
		{mandate.PartnerCenter, "/v1/customers/22222222-2222-2222-2222-222222222222/subscriptions/", "/v1/customers/{id}/subscriptions"},
		{mandate.ARM, vm, "/subscriptions/{id}/resourceGroups/{id}/providers/Microsoft.Compute/virtualMachines/{id}/extensions/{id}"},
		{mandate.PartnerCenter, "/", "/"},
		{mandate.PartnerCenter, "/" + strings.Repeat("a", 61), "/{id}"},
	} {
		if got := template(tt.api, tt.path); got != tt.want {
			t.Errorf("%s %s: got %s, want %s", tt.api, tt.path, got, tt.want)
		}
	}
}
