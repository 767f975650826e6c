package footprint

import (
	"strings"

	"github.com/mandate-sam/mandate"
)

// collections are the segments after which something is named, be it by a
// word that looks like a part of the API.
var collections = map[string]bool{
	"customers": true, "users": true, "groups": true, "subscriptions": true, "orders": true, "invoices": true, "carts": true,
	"domains": true, "organization": true, "applications": true, "servicePrincipals": true, "resourceGroups": true, "products": true, "skus": true,
	"delegatedAdminRelationships": true, "delegatedAdminCustomers": true, "accessAssignments": true,
}

// template writes {id} for every segment of a path that is not a word of the
// API. A word that should have been one makes a path that no table knows, which
// keeps the scope; nobody's name or address gets into a report.
func template(api, path string) string {
	segments := strings.Split(strings.Trim(path, "/"), "/")
	after, resource := "", 0 // in Azure Resource Manager: 1 is a provider, then types and names take turns
	for i, s := range segments {
		switch {
		case api == mandate.ARM && strings.EqualFold(after, "providers"):
			resource = 1
		case resource > 0:
			resource++
		}
		fixed := word(s) && !collections[after]
		if resource > 0 {
			fixed = resource == 1 || resource%2 == 0
			fixed = fixed && word(strings.ReplaceAll(s, ".", ""))
		}
		after = s
		if !fixed && !(i == 0 && version(s)) {
			segments[i] = "{id}"
		}
	}
	return "/" + strings.Join(segments, "/")
}

// word reports whether a segment is made of letters only.
func word(s string) bool {
	const longest = 60
	return len(s) <= longest && strings.IndexFunc(s, func(r rune) bool { return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') }) < 0
}

// version reports whether a segment is "v1", "v1.0" or the like.
func version(s string) bool {
	digits, ok := strings.CutPrefix(s, "v")
	return ok && digits != "" && len(digits) <= 4 && strings.Trim(digits, "0123456789.") == ""
}

// graphNeeds are delegated permissions, any of which lets Graph answer, the
// least privileged first, from the page of each operation in Microsoft's
// reference for v1.0; but User.ReadBasic.All is left out, because it serves a
// few properties only, and which were asked for is in the query, which is not
// recorded. Nothing that writes is here: what is needed depends on the
// properties that are written, which are not recorded either.
var graphNeeds = map[string][]mandate.Scope{
	"/me":           {"User.Read", "User.ReadWrite", "User.Read.All", "User.ReadWrite.All", "Directory.Read.All", "Directory.ReadWrite.All"},
	"/users":        {"User.Read.All", "User.ReadWrite.All", "Directory.Read.All", "Directory.ReadWrite.All"},
	"/users/{id}":   {"User.Read.All", "User.ReadWrite.All", "Directory.Read.All", "Directory.ReadWrite.All"},
	"/organization": {"Organization.Read.All", "Organization.ReadWrite.All", "Directory.Read.All", "Directory.ReadWrite.All"},
	"/domains":      {"Domain.Read.All", "Domain.ReadWrite.All", "Directory.Read.All", "Directory.ReadWrite.All"},

	"/tenantRelationships/delegatedAdminRelationships":                        relationships,
	"/tenantRelationships/delegatedAdminRelationships/{id}":                   relationships,
	"/tenantRelationships/delegatedAdminRelationships/{id}/accessAssignments": relationships,
	"/tenantRelationships/delegatedAdminCustomers":                            relationships,
}

var relationships = []mandate.Scope{"DelegatedAdminRelationship.Read.All", "DelegatedAdminRelationship.ReadWrite.All"}

// impersonation is the one delegated permission that Partner Center and Azure
// Resource Manager have.
var impersonation = []mandate.Scope{"user_impersonation"}

// needs returns what a call needs, or nothing if that is not known.
func needs(api, method, template string) []mandate.Scope {
	switch api {
	case mandate.PartnerCenter, mandate.ARM:
		return impersonation
	case mandate.Graph:
		path, ok := strings.CutPrefix(template, "/v1.0")
		if ok && method == "GET" && graphNeeds[path] != nil {
			return graphNeeds[path]
		}
	}
	return []mandate.Scope{}
}

// ownNeeds returns what this server itself needs of an API, to prove a consent
// and to list customers.
func ownNeeds(api string) [][]mandate.Scope {
	switch api {
	case mandate.PartnerCenter:
		return [][]mandate.Scope{impersonation}
	case mandate.Graph:
		// Without the second, Graph hides the names of the user's groups.
		return [][]mandate.Scope{{"User.Read"}, {"GroupMember.Read.All", "Group.Read.All", "Directory.Read.All", "Directory.ReadWrite.All"}, relationships}
	}
	return nil
}
