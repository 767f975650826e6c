// Package keyvault is the emulator's Key Vault: secrets, keys and certificates
// with their versions, soft delete, backup, access policies and limits.
//
// It follows the "Key Vault REST API" reference, "Azure Key Vault service
// limits" and "Azure Key Vault throttling guidance". Storage accounts, key
// release, and issuers of certificates are not emulated. Versions are listed in an order
// that says nothing about their age, so that no client comes to rely on one.
package keyvault

import (
	"net/http"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/mandate-sam/mandate/emulator/directory"
	"github.com/mandate-sam/mandate/emulator/internal/bearer"
)

// Audience is the name of the service in token requests.
const Audience = "https://vault.azure.net"

const (
	region    = "eastus"
	retention = 90 // days that a deleted object is kept; the default, and the longest
)

// Config says what a vault works with. Every field is required.
type Config struct {
	bearer.Config

	Name   string // 3 to 24 letters, digits and dashes
	Tenant string // id of the tenant whose tokens it takes
	URL    string // https://localhost:PORT
	Seal   *Seal  // of the backups; vaults that share it restore each other's
}

// A Vault is one vault. It is safe for concurrent use.
type Vault struct {
	cfg     Config
	suffix  string // vault.localhost:PORT
	budgets budgets

	// mu guards the fields below. It is never held while a key works.
	mu       sync.Mutex
	shelves  map[kind]*shelf
	policies []Policy
}

var vaultName = regexp.MustCompile(`^[A-Za-z][0-9A-Za-z-]{2,23}$`)

// ValidName reports whether a vault may have that name.
func ValidName(name string) bool { return vaultName.MatchString(name) }

// New returns a vault with nothing in it and no access policy.
func New(cfg Config) *Vault {
	v := &Vault{cfg: cfg, suffix: strings.Replace(cfg.URL, "https://localhost", "vault.localhost", 1)}
	v.Clear()
	return v
}

// Clear forgets everything in the vault, its access policies too.
func (v *Vault) Clear() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.shelves = map[kind]*shelf{secrets: {}, keys: {}, certificates: {}}
	v.policies = nil
	v.budgets.clear()
}

// Name returns the vault's name.
func (v *Vault) Name() string { return v.cfg.Name }

// Tenant returns the id of the vault's tenant.
func (v *Vault) Tenant() string { return v.cfg.Tenant }

// URL returns where the vault is.
func (v *Vault) URL() string { return v.cfg.URL }

// URIs are the names of this vault in token requests, beside [Audience]: its
// URL, and what it is called where names below localhost resolve.
func (v *Vault) URIs() []string {
	return []string{v.cfg.URL, "https://" + v.suffix, "https://" + v.cfg.Name + "." + v.suffix}
}

// resource is what the challenge names. A client that checks it wants the
// host of the vault to end in a dot and the host of the resource, port and
// all; localhost has no part that could be left out, so that such a client
// must reach the vault as NAME.vault.localhost, or not check.
func (v *Vault) resource(host string) string {
	label, rest, _ := strings.Cut(host, ".")
	if label != "" && strings.EqualFold(rest, v.suffix) {
		return "https://" + v.suffix
	}
	return Audience
}

func (v *Vault) challenge(host string) string {
	return `Bearer authorization="` + v.cfg.Login + `/` + v.cfg.Tenant + `", resource="` + v.resource(host) + `"`
}

func (v *Vault) audience(name string) bool {
	name = strings.TrimSuffix(name, "/")
	for _, u := range append(v.URIs(), Audience, directory.KeyVault) {
		if strings.EqualFold(u, name) {
			return true
		}
	}
	return false
}

// Handler serves the vault.
func (v *Vault) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v.setHeaders(w.Header(), r)
		body, err := v.answer(w, r)
		switch {
		case err != nil:
			v.refuse(w, err)
		case body == nil:
			w.WriteHeader(http.StatusNoContent)
		default:
			status := http.StatusOK
			if _, going := body.(accepted); going {
				status = http.StatusAccepted
			}
			bearer.WriteJSON(w, status, body)
		}
	})
}

// setHeaders adds what every answer of a vault has. Strict-Transport-Security
// is left out: it would speak for all of localhost.
func (v *Vault) setHeaders(h http.Header, r *http.Request) {
	h.Set("x-ms-keyvault-region", region)
	h.Set("x-ms-keyvault-service-version", "1.9.2444.1")
	h.Set("x-ms-keyvault-network-info", "conn_type=Ipv4;addr=127.0.0.1;act_addr_fam=InterNetwork;")
	h.Set("x-ms-request-id", v.cfg.Chance.GUID())
	if id := r.Header.Get("x-ms-client-request-id"); id != "" {
		h.Set("x-ms-client-request-id", id)
	}
}

// answer is the way of a request: is the vault there, who asks, for what, may
// they, is there budget left; and only then is anything done.
func (v *Vault) answer(w http.ResponseWriter, r *http.Request) (any, error) {
	if err := v.weather(); err != nil {
		return nil, err
	}
	t, err := v.admit(r)
	if err != nil {
		return nil, err
	}
	c, op, err := v.read(w, r)
	if err != nil {
		return nil, err
	}
	if err := v.authorize(t, op); err != nil {
		return nil, err
	}
	if err := v.charge(c, op); err != nil {
		return nil, err
	}
	if err := v.rotateDue(c); err != nil {
		return nil, err
	}
	return op.run(v, c)
}

// among reports whether a dial's list names the vault.
func (v *Vault) among(names []string) bool {
	return contains(names, "*") || contains(names, v.cfg.Name)
}

// purgeProtected reports whether nobody can purge what was deleted.
func (v *Vault) purgeProtected() bool { return v.among(v.cfg.Dials.Dials().KeyVault.PurgeProtected) }

// weather is what the dials make of any request.
func (v *Vault) weather() error {
	if v.among(v.cfg.Dials.Dials().KeyVault.Outage) {
		return &refusal{status: 503, code: "ServiceUnavailable", text: "The service is unavailable. Try again later."}
	}
	t, ok := v.cfg.Dials.Throttled("keyvault")
	switch {
	case !ok:
		return nil
	case t.Status == http.StatusTooManyRequests:
		return throttled("VaultRequestTypeLimitReached", t.RetryAfter)
	}
	return &refusal{status: t.Status, code: "ServiceUnavailable", text: "The service is unavailable. Try again later.", retryAfter: t.RetryAfter}
}

// now is the moment at which everything in the vault happens.
func (v *Vault) now() time.Time { return v.cfg.Dials.Now() }
