package graph

import (
	"maps"
	"slices"
	"time"

	"github.com/mandate-sam/mandate/emulator/directory"
)

const appRulesPath = "policies/defaultAppManagementPolicy"

// The refusals that the policy makes. The texts end in the name of the policy.
const ruledBy = " as per assigned policy 'Default app management tenant policy'."

var (
	errSecretBanned = &apiError{status: 403, code: "CredentialTypeNotAllowedAsPerAppPolicy", text: "Credential type not allowed" + ruledBy}
	errLifetime     = &apiError{status: 400, code: "CredentialInvalidLifetimeAsPerAppPolicy", text: "Credential lifetime exceeds the max value allowed" + ruledBy}
)

// restrictionBody is one restriction as clients send it.
type restrictionBody struct {
	Type        string     `json:"restrictionType"`
	State       string     `json:"state"`
	MaxLifetime *string    `json:"maxLifetime"`
	Since       *time.Time `json:"restrictForAppsCreatedAfterDateTime"`
}

var restrictionTypes = []string{
	"passwordAddition", "passwordLifetime", "customPasswordAddition", "symmetricKeyAddition", "symmetricKeyLifetime", "asymmetricKeyLifetime", "trustedCertificateAuthority",
}

// restriction reads one entry. A state of disabled takes its effect away.
func (b restrictionBody) restriction() (r directory.AppRestriction, on bool, err error) {
	bad := invalid("Invalid value specified for property 'restrictionType', 'state' or 'maxLifetime' of an app management policy.")
	if !slices.Contains(restrictionTypes, b.Type) || !slices.Contains([]string{"", "enabled", "disabled"}, b.State) {
		return r, false, bad
	}
	r.Type = b.Type
	if b.MaxLifetime != nil {
		if _, good := directory.AddPeriod(time.Time{}, *b.MaxLifetime); !good {
			return r, false, bad
		}
		r.Max = *b.MaxLifetime
	}
	if b.Since != nil {
		r.Since = *b.Since
	}
	return r, b.State != "disabled", nil
}

// appRulesObject is the policy, which every tenant has.
func appRulesObject(r directory.AppRules) map[string]any {
	none := map[string]any{"passwordCredentials": []any{}, "keyCredentials": []any{}}
	body := map[string]any{
		"id": "00000000-0000-0000-0000-000000000000", "displayName": "Default app management tenant policy",
		"description": "Default tenant policy that enforces app management restrictions on applications and service principals. To apply policy to targeted resources, create a new policy under appManagementPolicies collection.",
		"isEnabled":   r.Enabled, "applicationRestrictions": none, "servicePrincipalRestrictions": none,
	}
	maps.Copy(body, r.Text)
	return body
}

func (s *Server) appRules(c call) (reply, error) {
	return one(c, appRulesPath, appRulesObject(s.cfg.Directory.AppRules(c.tenant.ID)))
}

// patchAppRules replaces what the body names. Restrictions of service
// principals are kept and have no effect, because nobody can give those
// credentials here.
func (s *Server) patchAppRules(c call) (reply, error) {
	var in struct {
		DisplayName  *string `json:"displayName"`
		Description  *string `json:"description"`
		Enabled      *bool   `json:"isEnabled"`
		Applications *struct {
			Passwords []restrictionBody `json:"passwordCredentials"`
			Keys      []restrictionBody `json:"keyCredentials"`
		} `json:"applicationRestrictions"`
	}
	var text map[string]any
	if err := c.readBoth(&in, &text); err != nil {
		return reply{}, err
	}
	rules := s.cfg.Directory.AppRules(c.tenant.ID)
	if rules.Text = maps.Clone(rules.Text); rules.Text == nil {
		rules.Text = map[string]any{}
	}
	for _, name := range []string{"displayName", "description", "applicationRestrictions", "servicePrincipalRestrictions"} {
		if v, said := text[name]; said && v != nil {
			rules.Text[name] = v
		}
	}
	if in.Enabled != nil {
		rules.Enabled = *in.Enabled
	}
	if in.Applications != nil {
		rules.Applications = nil
		for _, b := range slices.Concat(in.Applications.Passwords, in.Applications.Keys) {
			r, on, err := b.restriction()
			if err != nil {
				return reply{}, err
			}
			if on {
				rules.Applications = append(rules.Applications, r)
			}
		}
	}
	s.cfg.Directory.SetAppRules(c.tenant.ID, rules)
	return done, nil
}

// permitted holds a new credential of the application against the tenant's
// policy: may there be one of that kind, and may it live that long?
func (s *Server) permitted(a directory.Application, addition, lifetime string, start, end time.Time) error {
	r, _ := s.cfg.Directory.Registration(a.ID)
	created := orEpoch(r.Created, 0)
	if _, banned := s.cfg.Directory.Restriction(a.Tenant, addition, created); banned {
		return errSecretBanned
	}
	if limit, limited := s.cfg.Directory.Restriction(a.Tenant, lifetime, created); limited {
		if last, good := directory.AddPeriod(start, limit.Max); good && end.After(last) {
			return errLifetime
		}
	}
	return nil
}
