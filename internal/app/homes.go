package app

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/openbao"
)

// Grants says where sealed grants are kept: in the database, unless something
// else is said.
type Grants struct {
	Home `yaml:",inline"`

	// Partners are kept elsewhere than the others, by their short names.
	Partners map[string]Home `yaml:"partners"`

	// Former are homes that nothing new goes to, and that may still have
	// something.
	Former []Home `yaml:"former"`

	// AcknowledgeSharedVault permits that grants and the key that wraps them
	// are under one roof and open to one identity, which is then all that a
	// thief needs.
	AcknowledgeSharedVault bool `yaml:"acknowledge_shared_vault"`
}

// A Home is one place where grants are kept. Exactly one of its fields is set.
type Home struct {
	Database bool      `yaml:"database"`
	KeyVault *VaultRef `yaml:"key_vault"`
	OpenBao  *OpenBao  `yaml:"openbao"`
}

// OpenBao is a path in a KV engine of version 2.
type OpenBao struct {
	BaoServer `yaml:",inline"`
	Mount     string `yaml:"mount"` // default: secret
	Path      string `yaml:"path"`  // default: mandate
}

func (o *OpenBao) mount() string { return cmp.Or(o.Mount, "secret") }
func (o *OpenBao) path() string  { return cmp.Or(o.Path, "mandate") }

// name returns what the vault calls a home, which the database remembers; ""
// is the database. It is made of where the home is, so that it means the same
// for as long as anything is kept there, whatever else is configured.
func (h *Home) name() string {
	switch {
	case h.KeyVault != nil:
		return "key vault " + strings.ToLower(strings.TrimSuffix(h.KeyVault.Vault, "/"))
	case h.OpenBao != nil:
		o := h.OpenBao
		return "openbao " + strings.ToLower(strings.TrimSuffix(o.Address, "/")) + " " + strings.Trim(o.Namespace+"/"+o.mount()+"/"+o.path(), "/")
	}
	return ""
}

// homes returns the homes that the configuration names, by where it does.
func (g *Grants) homes() map[string]*Home {
	all := map[string]*Home{"": &g.Home}
	for name, h := range g.Partners {
		all["partners."+name] = &h
	}
	for i := range g.Former {
		all[fmt.Sprintf("former[%d]", i)] = &g.Former[i]
	}
	return all
}

func (c *Config) checkGrants(clouds map[string]mandate.Cloud) error {
	all := c.Grants.homes()
	for _, path := range slices.Sorted(maps.Keys(all)) {
		if err := c.checkHome(path, all[path], clouds); err != nil {
			return at(strings.TrimSuffix("grants."+path, "."), err)
		}
	}
	return nil
}

func (c *Config) checkHome(path string, h *Home, clouds map[string]mandate.Cloud) error {
	if name, ok := strings.CutPrefix(path, "partners."); ok && !mandate.Name(name) {
		return mandate.Invalid("partners", "%.60q is not the short name of a partner", name)
	}
	set := 0
	for _, is := range []bool{h.Database, h.KeyVault != nil, h.OpenBao != nil} {
		if is {
			set++
		}
	}
	switch {
	case set > 1 || set == 0 && path != "":
		return mandate.Invalid("database", "or key_vault or openbao is required, and just one of them")
	case h.KeyVault != nil:
		if err := c.checkVault(h.KeyVault, clouds); err != nil {
			return at("key_vault", err)
		}
	case h.OpenBao != nil:
		if err := h.OpenBao.check(); err != nil {
			return at("openbao", err)
		}
	}
	return c.checkRoof(h)
}

func (o *OpenBao) check() error {
	if err := o.BaoServer.check(); err != nil {
		return err
	}
	if err := openbao.CheckPath("mount", o.mount()); err != nil {
		return err
	}
	return openbao.CheckPath("path", o.path())
}

// checkRoof refuses a home that opens to whoever opens the key.
func (c *Config) checkRoof(h *Home) error {
	if c.Grants.AcknowledgeSharedVault || h.KeyVault == nil && h.OpenBao == nil {
		return nil
	}
	for path, k := range c.keys() {
		shared := h.KeyVault != nil && k.KeyVault != nil && c.lodgingOf(h.KeyVault) == c.lodgingOf(&k.KeyVault.VaultRef) ||
			h.OpenBao != nil && k.Transit != nil && c.lodgingAt(&h.OpenBao.BaoServer) == c.lodgingAt(&k.Transit.BaoServer)
		if shared {
			return mandate.Invalid(map[bool]string{true: "key_vault", false: "openbao"}[h.KeyVault != nil],
				"is where %s is too, and one identity opens both: that identity alone is all that a thief needs. Give the key another vault, or another identity that may do nothing but wrap and unwrap; or say grants.acknowledge_shared_vault: true", path)
		}
	}
	return nil
}

// partners are how a home is found: by the name of the partner.
type partners interface {
	Partner(nameOrTenant string) (mandate.Partner, error)
	Partners() ([]mandate.Partner, error)
}

// homeOf returns what names the home of a grant. A partner that is not known is
// kept where most are.
func (g *Grants) homeOf(all partners) func(mandate.GrantKey) string {
	return func(k mandate.GrantKey) string {
		if len(g.Partners) > 0 {
			if h, ok := g.Partners[nameOf(all, k)]; ok {
				return h.name()
			}
		}
		return g.Home.name()
	}
}

// nameOf returns the short name of the partner with that grant, or "". A
// tenant may be a partner of several applications.
func nameOf(all partners, k mandate.GrantKey) string {
	if p, err := all.Partner(k.Partner.String()); err == nil && p.Key == k {
		return p.Name
	}
	list, _ := all.Partners() // a store that cannot say knows no name
	for _, p := range list {
		if p.Key == k {
			return p.Name
		}
	}
	return ""
}
