package partnercenter

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/mandate-sam/mandate/emulator/directory"
	"github.com/mandate-sam/mandate/emulator/internal/bearer"
)

// consentsPerSecond is how many calls about consents each application may
// make.
const consentsPerSecond = 50

// budget is what an application has used up of the second.
type budget struct {
	second int64
	used   int
}

// spend takes one call from the application's budget.
func (s *Server) spend(app string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refresh()
	b, now := s.budgets[app], time.Now().Unix()
	if b.second != now {
		b = budget{second: now}
	}
	if b.used >= consentsPerSecond {
		return errBusy
	}
	b.used++
	s.budgets[app] = b
	return nil
}

// consentBody is an application consent as clients send it.
type consentBody struct {
	ApplicationID     string      `json:"applicationId"`
	DisplayName       string      `json:"displayName"`
	ApplicationGrants []grantBody `json:"applicationGrants"`
}

type grantBody struct {
	EnterpriseApplicationID string `json:"enterpriseApplicationId"`
	Scope                   string `json:"scope"`
}

// mayConsent returns the customer of the path, if the caller may consent there
// for the application: an application for itself only, a user with a role in
// the customer's tenant that may.
func (s *Server) mayConsent(c call, app string) (directory.Tenant, error) {
	if err := s.spend(strings.ToLower(c.token.App)); err != nil {
		return directory.Tenant{}, err
	}
	t, err := s.mine(c)
	if err != nil {
		return t, err
	}
	if !strings.EqualFold(app, c.token.App) || !s.cfg.Directory.MayManage(c.token.Holder, t.ID) {
		return t, errPrivileges
	}
	return t, nil
}

// addConsent gives the application a service principal and delegated
// permissions for everyone in the customer's tenant: all that the body lists,
// or nothing.
func (s *Server) addConsent(c call) (reply, error) {
	var in consentBody
	if err := bearer.ReadJSON(c.Request, &in); err != nil {
		return reply{}, invalid("The body is not an application consent.")
	}
	if in.ApplicationID == "" || len(in.ApplicationGrants) == 0 {
		return reply{}, invalid("An application consent needs applicationId and applicationGrants.")
	}
	t, err := s.mayConsent(c, in.ApplicationID)
	if err != nil {
		return reply{}, err
	}
	grants, err := s.grants(t, in)
	if err != nil {
		return reply{}, err
	}
	if !s.cfg.Directory.AddGrants(t.ID, c.token.App, grants...) {
		return reply{}, errConsented
	}
	body := consentAnswer(c.token.App, in.DisplayName, grants)
	return reply{status: http.StatusCreated, body: body}, nil
}

// grants reads what the body grants. Permissions are separated by commas,
// blanks or both.
func (s *Server) grants(t directory.Tenant, in consentBody) ([]directory.Grant, error) {
	var all []directory.Grant
	for _, g := range in.ApplicationGrants {
		r, found := s.cfg.Directory.Resource(g.EnterpriseApplicationID)
		if !found || !strings.EqualFold(r.ID, g.EnterpriseApplicationID) || !s.cfg.Directory.HasResource(t.ID, r.ID) {
			return nil, invalid("An enterprise application has no service principal in the customer's tenant.")
		}
		if slices.ContainsFunc(all, func(o directory.Grant) bool { return o.Resource == r.ID }) {
			return nil, errConsented
		}
		grant := directory.Grant{Resource: r.ID}
		for _, name := range strings.FieldsFunc(g.Scope, func(c rune) bool { return c == ',' || c == ' ' }) {
			scope, found := r.Scope(name)
			if !found {
				return nil, invalid("An enterprise application has no permission of a name in scope.")
			}
			if !slices.Contains(grant.Scopes, scope.Name) {
				grant.Scopes = append(grant.Scopes, scope.Name)
			}
		}
		if len(grant.Scopes) == 0 {
			return nil, invalid("A grant needs a scope.")
		}
		all = append(all, grant)
	}
	return all, nil
}

func consentAnswer(app, name string, grants []directory.Grant) map[string]any {
	items := []any{}
	for _, g := range grants {
		items = append(items, map[string]any{"enterpriseApplicationId": g.Resource, "scope": strings.Join(g.Scopes, ",")})
	}
	return map[string]any{
		"applicationId": app, "displayName": name, "applicationGrants": items,
		"attributes": map[string]any{"objectType": "ApplicationConsent"},
	}
}

// removeConsent removes the application from the customer's tenant. Its tokens
// there die.
func (s *Server) removeConsent(c call) (reply, error) {
	app := strings.ToLower(c.PathValue("application"))
	t, err := s.mayConsent(c, app)
	if err != nil {
		return reply{}, err
	}
	if !s.cfg.Directory.Installed(t.ID, app) {
		return reply{}, errUnknownRoute
	}
	s.cfg.Directory.RemoveConsent(t.ID, app, "")
	return reply{status: http.StatusNoContent}, nil
}

// given is the consent that the calling application has in the tenant.
func (s *Server) given(c call, t directory.Tenant) (map[string]any, bool) {
	app := strings.ToLower(c.token.App)
	if !s.cfg.Directory.Installed(t.ID, app) {
		return nil, false
	}
	var grants []directory.Grant
	for _, g := range s.cfg.Directory.Grants(t.ID) {
		if g.Client == app && g.User == "" {
			grants = append(grants, g)
		}
	}
	a, _ := s.cfg.Directory.Application(app)
	return consentAnswer(app, a.Name, grants), true
}

func (s *Server) consents(c call) (reply, error) {
	t, err := s.mayConsent(c, c.token.App)
	if err != nil {
		return reply{}, err
	}
	items := []any{}
	if body, found := s.given(c, t); found {
		items = append(items, body)
	}
	return ok(collection(items, "/customers/"+t.ID+"/applicationconsents"), nil)
}

func (s *Server) consent(c call) (reply, error) {
	t, err := s.mayConsent(c, c.PathValue("application"))
	if err != nil {
		return reply{}, err
	}
	body, found := s.given(c, t)
	if !found {
		return reply{}, errUnknownRoute
	}
	return ok(body, nil)
}
