package footprint

import (
	"fmt"
	"strings"

	"github.com/mandate-sam/mandate"
)

// A Permission is one delegated permission.
type Permission struct {
	API   string        `json:"api"`
	Scope mandate.Scope `json:"scope"`
}

// Required is an entry of requiredResourceAccess, as Graph and the manifest of
// a registration have it.
type Required struct {
	Resource string   `json:"resourceAppId"`
	Access   []Access `json:"resourceAccess"`
}

// Access is one permission of such an entry, by id.
type Access struct {
	ID   string `json:"id"`
	Type string `json:"type"` // "Scope", which means delegated
}

// resources are the application ids of Microsoft's APIs, and permissions the
// ids of their delegated permissions, which are the same in every tenant.
var (
	resources = map[string]string{
		mandate.PartnerCenter: "fa3d9a0c-3fb0-42cc-9193-47c7ecd2edbd",
		mandate.Graph:         "00000003-0000-0000-c000-000000000000",
		mandate.ARM:           "797f4846-ba00-4fd7-ba43-dac1f8f63013",
	}
	permissions = map[Permission]string{
		{mandate.PartnerCenter, "user_impersonation"}:               "1cebfa2a-fb4d-419e-b5f9-839b4383e05a",
		{mandate.ARM, "user_impersonation"}:                         "41094075-9dad-400e-a0bd-54e686782033",
		{mandate.Graph, "User.Read"}:                                "e1fe6dd8-ba31-4d61-89e7-88639da4683d",
		{mandate.Graph, "User.Read.All"}:                            "a154be20-db9c-4678-8ab7-66f6cc099a59",
		{mandate.Graph, "User.ReadWrite.All"}:                       "204e0828-b5ca-4ad8-b9f3-f32a958e7cc4",
		{mandate.Graph, "Organization.Read.All"}:                    "4908d5b9-3fb2-4b1e-9336-1888b7937185",
		{mandate.Graph, "Domain.Read.All"}:                          "2f9ee017-59c1-4f1d-9472-bd5529a7b311",
		{mandate.Graph, "GroupMember.Read.All"}:                     "bc024368-1153-4739-b217-4326f2e966d0",
		{mandate.Graph, "Directory.Read.All"}:                       "06da0dbc-49e2-44d2-8312-53f166ab848a",
		{mandate.Graph, "Directory.ReadWrite.All"}:                  "c5366453-9fb0-48a5-a156-24f0c49a4b84",
		{mandate.Graph, "DelegatedAdminRelationship.Read.All"}:      "0c0064ea-477b-4130-82a5-4c2cc4ff68aa",
		{mandate.Graph, "DelegatedAdminRelationship.ReadWrite.All"}: "885f682f-a990-4bad-a642-36736a74b0c7",
	}
)

// required returns the permissions by id, and those whose id is not known.
func required(proposed []Permission) ([]Required, []Permission) {
	entries, unnamed := []Required{}, []Permission{}
	for _, p := range proposed {
		id := permissions[p]
		if id == "" {
			unnamed = append(unnamed, p)
			continue
		}
		if n := len(entries); n == 0 || entries[n-1].Resource != resources[p.API] {
			entries = append(entries, Required{Resource: resources[p.API]})
		}
		last := &entries[len(entries)-1]
		last.Access = append(last.Access, Access{id, "Scope"})
	}
	return entries, unnamed
}

// manifest returns what the configuration of the application would say.
func manifest(r *Report) string {
	var apis []string
	var b strings.Builder
	for _, a := range r.Audiences {
		if a.Verdict == Keep {
			apis = append(apis, plain(a.API))
		}
	}
	fmt.Fprintf(&b, "audiences: [%s]\npermissions:\n", strings.Join(apis, ", "))
	for _, p := range r.Proposed {
		fmt.Fprintf(&b, "  - {api: %s, scope: %s}\n", plain(p.API), plain(p.Scope))
	}
	if len(r.Proposed) == 0 {
		return strings.Replace(b.String(), "permissions:\n", "permissions: []\n", 1)
	}
	return b.String()
}

// plain quotes what YAML would not read as a word: scopes come from Entra. It
// reads Go's quotes as Go does.
func plain(s string) string {
	if s != "" && word(strings.NewReplacer(".", "", "_", "", "-", "").Replace(s)) {
		return s
	}
	return fmt.Sprintf("%q", s)
}
