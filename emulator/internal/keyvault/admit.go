package keyvault

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/mandate-sam/mandate/emulator/directory"
	"github.com/mandate-sam/mandate/emulator/internal/bearer"
)

// A Policy is an access policy: what one principal may do in a vault.
type Policy struct {
	// Principal is the object id of a user or of a service principal. For an
	// application's own tokens its client id does too.
	Principal string `json:"principal"`

	// Secrets, Keys and Certificates are permissions as Azure names them, in any case:
	// "get", "list", "set", "wrapKey"; "all" is every one but purge.
	Secrets      []string `json:"secrets,omitempty"`
	Keys         []string `json:"keys,omitempty"`
	Certificates []string `json:"certificates,omitempty"`
}

var permissions = map[kind][]string{
	secrets: {"get", "list", "set", "delete", "backup", "restore", "recover", "purge"},
	keys: {"get", "list", "create", "import", "update", "delete", "backup", "restore", "recover", "purge", "rotate",
		"encrypt", "decrypt", "sign", "verify", "wrapKey", "unwrapKey", "getRotationPolicy", "setRotationPolicy"},
	certificates: {"get", "list", "create", "import", "update", "delete", "backup", "restore", "recover", "purge",
		"manageContacts", "manageIssuers", "getIssuers", "listIssuers", "setIssuers", "deleteIssuers"},
}

// check reports the first permission that does not exist.
func (p Policy) check() error {
	if p.Principal == "" {
		return errors.New("an access policy needs a principal")
	}
	for _, k := range family {
		names := p.of(k)
		for _, n := range names {
			if !strings.EqualFold(n, "all") && !contains(permissions[k], n) {
				return fmt.Errorf("there is no permission %q on %s", n, k)
			}
		}
	}
	return nil
}

// of are the permissions on that kind of object.
func (p Policy) of(k kind) []string {
	return map[kind][]string{secrets: p.Secrets, keys: p.Keys, certificates: p.Certificates}[k]
}

func (p Policy) allows(k kind, permission string) bool {
	names := p.of(k)
	return contains(names, permission) || permission != "purge" && contains(names, "all")
}

func (p Policy) isFor(t bearer.Token) bool {
	return strings.EqualFold(p.Principal, t.User) || t.AppOnly() && strings.EqualFold(p.Principal, t.App)
}

func contains(list []string, name string) bool {
	return slices.ContainsFunc(list, func(s string) bool { return strings.EqualFold(s, name) })
}

// SetPolicies replaces the vault's access policies. A vault without any lets
// everybody of its tenant do everything, so that a first test needs no
// preparation; the first policy closes it.
func (v *Vault) SetPolicies(policies ...Policy) error {
	for _, p := range policies {
		if err := p.check(); err != nil {
			return err
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.policies = slices.Clone(policies)
	return nil
}

// Policies returns the vault's access policies.
func (v *Vault) Policies() []Policy {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.policies)
}

// admit reads the token and checks that it is for this vault. A client that
// can get a better token is told which; the others start again.
func (v *Vault) admit(r *http.Request) (bearer.Token, error) {
	t, err := v.cfg.Read(r)
	if claims, ok := v.cfg.Demanded("keyvault", t, err); ok {
		return t, &refusal{status: 401, code: "Unauthorized", text: "Continuous access evaluation resulted in claims challenge.", challenge: v.cfg.Challenge(directory.KeyVault, claims)}
	}
	switch {
	case errors.Is(err, bearer.ErrMissing):
		return t, v.unauthorized(r, "AKV10000: Request is missing a Bearer or PoP token.")
	case errors.Is(err, bearer.ErrRevoked):
		return t, v.unauthorized(r, "The access token was revoked.")
	case err != nil:
		return t, v.unauthorized(r, v.whyInvalid(r))
	case !strings.EqualFold(t.Tenant, v.cfg.Tenant):
		return t, v.unauthorized(r, "AKV10032: Invalid issuer. Expected one of "+issuer(v.cfg.Tenant)+", found "+issuer(t.Tenant)+".")
	case !v.audience(t.Audience):
		return t, v.unauthorized(r, "AKV10022: Invalid audience. Expected "+Audience+", found: "+t.Audience+".")
	}
	return t, nil
}

func issuer(tenant string) string { return "https://sts.windows.net/" + tenant + "/" }

// whyInvalid tells a token that has expired from one that was never good.
func (v *Vault) whyInvalid(r *http.Request) string {
	_, raw, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if _, err := v.cfg.Key.Verify(strings.TrimSpace(raw), time.Unix(0, 0)); err == nil {
		return "[TokenExpired] Error validating token: 'S2S12005'."
	}
	return "AKV10046: Unable to resolve the key used for signature validation."
}

func (v *Vault) unauthorized(r *http.Request, text string) error {
	return &refusal{status: 401, code: "Unauthorized", text: text, challenge: v.challenge(r.Host)}
}

// authorize holds the operation against the access policies.
func (v *Vault) authorize(t bearer.Token, op *operation) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.policies) == 0 {
		return nil
	}
	for _, p := range v.policies {
		if p.isFor(t) && p.allows(op.kind, op.permission) {
			return nil
		}
	}
	return forbidden("AccessDenied", "The user, group or application 'appid=%s;oid=%s;iss=%s' does not have %s %s permission on key vault '%s;location=%s'. "+helpPolicy,
		t.App, t.User, issuer(t.Tenant), op.kind, strings.ToLower(op.permission), v.cfg.Name, region)
}
