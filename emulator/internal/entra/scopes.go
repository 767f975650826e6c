package entra

import (
	"slices"
	"strings"

	"github.com/mandate-sam/mandate/emulator/directory"
)

// A target is what a request asks a token for: one resource, by the name that
// the client used for it.
type target struct {
	resource directory.Resource
	audience string   // the name, as it will be in aud
	scopes   []string // permissions named; empty: .default, or v1, which names none
	isGraph  bool     // named by bare Graph permissions
}

// An ask is a parsed scope parameter.
type ask struct {
	oidc    []string // openid, profile, email, offline_access
	targets []target // in the order in which they were named
	statics bool     // .default: what the registration says
}

// has reports whether an OpenID Connect scope was asked for.
func (a ask) has(scope string) bool { return slices.Contains(a.oidc, scope) }

// lasting is the same with offline_access: the answer has a refresh token.
func (a ask) lasting() ask {
	if !a.has("offline_access") {
		a.oidc = append(slices.Clone(a.oidc), "offline_access")
	}
	return a
}

const graphURI = "https://graph.microsoft.com"

// parseScope reads a v2 scope parameter. Names of permissions that have no
// resource before them are Graph's. A resource that ends in a slash makes for
// two slashes before the permission; one of them belongs to its name.
func (s *Server) parseScope(scope string) (ask, *refusal) {
	var a ask
	defaults := map[string]bool{}
	for _, name := range strings.Fields(scope) {
		if isOIDC(name) {
			a.oidc = append(a.oidc, strings.ToLower(name))
			continue
		}
		if e := s.addScope(&a, name, defaults); e != nil {
			return ask{}, e
		}
	}
	for _, t := range a.targets {
		if defaults[t.resource.ID] && len(t.scopes) > 0 {
			return ask{}, refuse(70011, scope)
		}
	}
	return a, nil
}

func (s *Server) addScope(a *ask, name string, defaults map[string]bool) *refusal {
	audience, permission := graphURI, name
	i := strings.LastIndex(name, "/")
	if i >= 0 {
		audience, permission = name[:i], name[i+1:]
	}
	if permission == "" || strings.HasSuffix(audience, ":/") {
		return refuse(70011, name)
	}
	r, ok := s.cfg.Directory.Resource(audience)
	if !ok {
		return refuse(500011, audience, "-")
	}
	t := a.add(target{resource: r, audience: audience, isGraph: i < 0})
	if permission == ".default" {
		defaults[r.ID], a.statics = true, true
		return nil
	}
	sc, ok := r.Scope(permission)
	if !ok {
		return refuse(70011, name)
	}
	t.scopes = append(t.scopes, sc.Name)
	return nil
}

// add returns the target in a that has the same resource, after adding it if
// there was none.
func (a *ask) add(t target) *target {
	for i := range a.targets {
		if a.targets[i].resource.ID == t.resource.ID {
			return &a.targets[i]
		}
	}
	a.targets = append(a.targets, t)
	return &a.targets[len(a.targets)-1]
}

func isOIDC(scope string) bool {
	switch strings.ToLower(scope) {
	case "openid", "profile", "email", "offline_access":
		return true
	}
	return false
}

// parseResource reads a v1 resource parameter. None at all is the retired
// Azure AD Graph, by its id, as ever.
func (s *Server) parseResource(name, tenant string) (target, *refusal) {
	if name == "" {
		name = directory.AzureADGraph
	}
	r, ok := s.cfg.Directory.Resource(name)
	if !ok {
		return target{}, refuse(500011, name, tenant)
	}
	return target{resource: r, audience: name}, nil
}

// permission is a scope of a resource that consent is asked for.
type permission struct {
	resource directory.Resource
	scope    directory.Scope
}

// wanted lists the permissions that the request asks consent for: in v1, and
// for .default, what the registration says; otherwise what the scopes say.
func (s *Server) wanted(r *request) []permission {
	var list []permission
	if r.version == 1 || r.ask.statics {
		for _, a := range r.client.Access {
			list = s.permissions(list, a.Resource, a.Scopes)
		}
	}
	for _, t := range r.ask.targets {
		list = s.permissions(list, t.resource.ID, t.scopes)
	}
	return list
}

// wantedRoles lists the application permissions that the registration asks
// for and the tenant has not granted. They come along with a request for all
// that the registration says, and need an administrator.
func (s *Server) wantedRoles(r *request, tenant string) []permission {
	if r.version == 2 && !r.ask.statics {
		return nil
	}
	var list []permission
	for _, a := range r.client.Access {
		res, _ := s.cfg.Directory.Resource(a.Resource)
		have := s.cfg.Directory.AppRoles(tenant, r.client.ID, res.ID)
		for _, name := range a.Roles {
			if role, ok := res.Role(name); ok && !contains(have, role.Value) {
				text := strings.TrimSpace(role.Text + " The application does so by itself, without a user.")
				list = append(list, permission{res, directory.Scope{Name: role.Value, Text: text, Admin: true}})
			}
		}
	}
	return list
}

func (s *Server) permissions(list []permission, resource string, scopes []string) []permission {
	r, ok := s.cfg.Directory.Resource(resource)
	if !ok {
		return list
	}
	for _, name := range scopes {
		sc, ok := r.Scope(name)
		if ok && !slices.ContainsFunc(list, func(p permission) bool { return p.resource.ID == r.ID && p.scope.Name == sc.Name }) {
			list = append(list, permission{r, sc})
		}
	}
	return list
}
