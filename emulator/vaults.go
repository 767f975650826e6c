package emulator

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/mandate-sam/mandate/emulator/directory"
	"github.com/mandate-sam/mandate/emulator/internal/bearer"
	"github.com/mandate-sam/mandate/emulator/internal/keyvault"
)

// DefaultVault is the vault of an emulator that is told of none. It belongs
// to Contoso.
const DefaultVault = "contoso-vault"

// A VaultPolicy says what one principal may do in a vault.
type VaultPolicy = keyvault.Policy

// vaults are the emulator's vaults, and what it needs to open another one.
type vaults struct {
	seal   *keyvault.Seal
	bearer bearer.Config
	cert   tls.Certificate

	// mu guards all.
	mu  sync.Mutex
	all []*keyvault.Vault
}

// vaultName is a vault's name with the id of its tenant.
type vaultName struct{ name, tenant string }

// parseVaults checks the names of vaults, NAME or NAME@TENANT.
func (e *Emulator) parseVaults(names []string) (list []vaultName, err error) {
	if len(names) == 0 {
		names = []string{DefaultVault}
	}
	seen := map[string]bool{}
	for _, n := range names {
		v, err := e.parseVault(n)
		if err != nil {
			return nil, err
		}
		if seen[strings.ToLower(v.name)] {
			return nil, fmt.Errorf("there are two vaults %q", v.name)
		}
		seen[strings.ToLower(v.name)] = true
		list = append(list, v)
	}
	return list, nil
}

func (e *Emulator) parseVault(s string) (vaultName, error) {
	name, tenant, named := strings.Cut(s, "@")
	if !keyvault.ValidName(name) {
		return vaultName{}, fmt.Errorf("a vault cannot have the name %q: it takes 3 to 24 letters, digits and dashes, and a letter first", name)
	}
	if !named {
		return vaultName{name, e.vaultHome()}, nil
	}
	t, ok := e.directory.Tenant(tenant)
	if !ok {
		return vaultName{}, fmt.Errorf("vault %q: %w tenant %q", name, errUnknown, tenant)
	}
	return vaultName{name, t.ID}, nil
}

// vaultHome is the tenant of vaults for which none is named: Contoso, or with
// other tenants than the built-in ones the first partner, or the first of all.
func (e *Emulator) vaultHome() string {
	if _, ok := e.directory.Tenant(ContosoTenant); ok {
		return ContosoTenant
	}
	all := e.directory.Tenants()
	for _, t := range all {
		if t.Kind == directory.KindPartner {
			return t.ID
		}
	}
	if len(all) > 0 {
		return all[0].ID
	}
	return ContosoTenant
}

// addVault makes the vault that is served at the URL. Its own names become
// names of Key Vault in token requests.
func (e *Emulator) addVault(n vaultName, url string) *keyvault.Vault {
	v := keyvault.New(keyvault.Config{Config: e.vaults.bearer, Name: n.name, Tenant: n.tenant, URL: url, Seal: e.vaults.seal})
	for _, uri := range v.URIs() {
		e.directory.NameResource(directory.KeyVault, uri)
	}
	e.vaults.mu.Lock()
	defer e.vaults.mu.Unlock()
	e.vaults.all = append(e.vaults.all, v)
	return v
}

// vault returns the vault with that name, in any case, or nil.
func (e *Emulator) vault(name string) *keyvault.Vault {
	for _, v := range e.allVaults() {
		if strings.EqualFold(v.Name(), name) {
			return v
		}
	}
	return nil
}

func (e *Emulator) allVaults() []*keyvault.Vault {
	e.vaults.mu.Lock()
	defer e.vaults.mu.Unlock()
	return e.vaults.all[:len(e.vaults.all):len(e.vaults.all)]
}

// Vault returns the URL of the vault with that name, or "".
func (e *Emulator) Vault(name string) string {
	if v := e.vault(name); v != nil {
		return v.URL()
	}
	return ""
}

// Vaults returns the names of the vaults, in the order in which they came.
func (e *Emulator) Vaults() []string {
	var names []string
	for _, v := range e.allVaults() {
		names = append(names, v.Name())
	}
	return names
}

// AddVault opens another vault, NAME or NAME@TENANT, at a port of its own and
// returns its URL. It stays until the emulator ends; [Emulator.Reset] empties
// it.
func (e *Emulator) AddVault(name string) (string, error) {
	n, err := e.parseVault(name)
	if err != nil {
		return "", fmt.Errorf("add vault: %w", err)
	}
	if e.vault(n.name) != nil {
		return "", fmt.Errorf("add vault: there is a vault %q", n.name)
	}
	if e.servers.ctx.Err() != nil {
		return "", errors.New("add vault: the emulator was closed")
	}
	l, err := e.address(0)
	if err != nil {
		return "", fmt.Errorf("add vault: %w", err)
	}
	e.answer(l, e.vaults.cert, e.delayed("keyvault", e.addVault(n, l.url).Handler()))
	return l.url, nil
}

// SetVaultPolicies replaces the access policies of the vault. A principal may
// be named by UPN too. A vault without policies lets everybody of its tenant
// do everything.
func (e *Emulator) SetVaultPolicies(vault string, policies ...VaultPolicy) error {
	v := e.vault(vault)
	if v == nil {
		return fmt.Errorf("set policies: %w vault %q", errUnknown, vault)
	}
	resolved := make([]VaultPolicy, len(policies))
	for i, p := range policies {
		if u, ok := e.directory.User(v.Tenant(), p.Principal); ok {
			p.Principal = u.ID
		} else if strings.Contains(p.Principal, "@") {
			return fmt.Errorf("set policies: %w user %q", errUnknown, p.Principal)
		}
		resolved[i] = p
	}
	if err := v.SetPolicies(resolved...); err != nil {
		return fmt.Errorf("set policies: %w", err)
	}
	return nil
}

// vaultState is a vault as the admin API shows it.
type vaultState struct {
	Name     string        `json:"name"`
	Tenant   string        `json:"tenant"`
	URL      string        `json:"url"`
	Policies []VaultPolicy `json:"policies"`
}

func stateOf(v *keyvault.Vault) vaultState {
	return vaultState{v.Name(), v.Tenant(), v.URL(), append([]VaultPolicy{}, v.Policies()...)}
}

func (e *Emulator) adminVaults(*http.Request) (any, error) {
	list := []vaultState{}
	for _, v := range e.allVaults() {
		list = append(list, stateOf(v))
	}
	return list, nil
}

func (e *Emulator) adminAddVault(r *http.Request) (any, error) {
	var in struct {
		Name   string `json:"name"`
		Tenant string `json:"tenant"`
	}
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	name := in.Name
	if in.Tenant != "" {
		name += "@" + in.Tenant
	}
	if _, err := e.AddVault(name); err != nil {
		return nil, err
	}
	return stateOf(e.vault(in.Name)), nil
}

func (e *Emulator) adminVaultPolicies(r *http.Request) (any, error) {
	var in struct {
		Policies []VaultPolicy `json:"policies"`
	}
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	if err := e.SetVaultPolicies(r.PathValue("name"), in.Policies...); err != nil {
		return nil, err
	}
	return stateOf(e.vault(r.PathValue("name"))), nil
}
