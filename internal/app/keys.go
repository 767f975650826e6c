package app

import (
	"fmt"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/keyvault"
	"github.com/mandate-sam/mandate/openbao"
)

// A Key wraps the data keys that seal grants. Exactly one of its fields is set.
type Key struct {
	File     Path      `yaml:"file"` // a key file
	KeyVault *VaultKey `yaml:"key_vault"`
	Transit  *Transit  `yaml:"transit"` // of OpenBao or HashiCorp Vault
}

// A VaultKey is an RSA key in Key Vault.
type VaultKey struct {
	VaultRef `yaml:",inline"`
	Key      string `yaml:"key"`
}

// Transit is a key in a transit engine.
type Transit struct {
	BaoServer `yaml:",inline"`
	Mount     string `yaml:"mount"` // default: transit
	Key       string `yaml:"key"`
}

func (t *Transit) mount() string {
	if t.Mount == "" {
		return "transit"
	}
	return t.Mount
}

// String says where a key is.
func (k *Key) String() string {
	switch {
	case k.KeyVault != nil:
		return fmt.Sprintf("key %s in %s, as %s; not tried", k.KeyVault.Key, k.KeyVault.Vault, k.KeyVault.Identity)
	case k.Transit != nil:
		return fmt.Sprintf("key %s/%s at %s; not tried", k.Transit.mount(), k.Transit.Key, k.Transit.Address)
	}
	return string(k.File)
}

func (k *Key) isZero() bool { return *k == Key{} }

// keys returns the keys that the configuration names, by where it does: the
// current one, those before it, and that of shared tokens.
func (c *Config) keys() map[string]*Key {
	all := make(map[string]*Key)
	if !c.Key.isZero() {
		all["key"] = &c.Key
	}
	if !c.SharedKey.isZero() {
		all["shared_key"] = &c.SharedKey
	}
	for i := range c.OldKeys {
		all[fmt.Sprintf("old_keys[%d]", i)] = &c.OldKeys[i]
	}
	return all
}

func (c *Config) checkKeys(clouds map[string]mandate.Cloud) error {
	if c.KeyFile != "" && !c.Key.isZero() {
		return mandate.Invalid("key", "and key_file are both there: key_file is short for key: {file: …}; a key of earlier goes into old_keys")
	}
	if len(c.OldKeys) > 20 {
		return mandate.Invalid("old_keys", "has more than 20 keys")
	}
	for path, k := range c.keys() {
		if err := k.check(c, clouds); err != nil {
			return at(path, err)
		}
	}
	if c.Database.URL != "" && c.keyFile() == "" && c.SharedKey.isZero() {
		return mandate.Invalid("shared_key", "is required where replicas share a database and the key is not in a key file: the access tokens that they share are sealed with a key of their own, such as {file: keys/shared.key}")
	}
	for _, k := range append([]Key{*c.current()}, c.OldKeys...) {
		if !c.SharedKey.isZero() && c.same(&c.SharedKey, &k) {
			return mandate.Invalid("shared_key", "is a key of the grants, or was: what replicas share is sealed with a key of its own")
		}
	}
	return nil
}

// current returns the key that wraps, even if nothing is said of it.
func (c *Config) current() *Key {
	if c.Key.isZero() {
		return &Key{File: Path(c.keyFile())}
	}
	return &c.Key
}

// same reports whether two keys are one.
func (c *Config) same(a, b *Key) bool {
	switch {
	case a.File != "" && b.File != "":
		return c.file(a.File) == c.file(b.File)
	case a.KeyVault != nil && b.KeyVault != nil:
		return c.lodgingOf(&a.KeyVault.VaultRef).where == c.lodgingOf(&b.KeyVault.VaultRef).where && a.KeyVault.Key == b.KeyVault.Key
	case a.Transit != nil && b.Transit != nil:
		return c.lodgingAt(&a.Transit.BaoServer).where == c.lodgingAt(&b.Transit.BaoServer).where &&
			a.Transit.mount() == b.Transit.mount() && a.Transit.Key == b.Transit.Key
	}
	return false
}

func (k *Key) check(c *Config, clouds map[string]mandate.Cloud) error {
	switch {
	case k.File != "" && k.KeyVault == nil && k.Transit == nil:
		return nil
	case k.KeyVault != nil && k.File == "" && k.Transit == nil:
		if err := c.checkVault(&k.KeyVault.VaultRef, clouds); err != nil {
			return at("key_vault", err)
		}
		return at("key_vault", renamed("key", keyvault.CheckName(k.KeyVault.Key)))
	case k.Transit != nil && k.File == "" && k.KeyVault == nil:
		return at("transit", k.Transit.check())
	}
	return mandate.Invalid("file", "or key_vault or transit is required, and just one of them")
}

func (t *Transit) check() error {
	if err := t.BaoServer.check(); err != nil {
		return err
	}
	if err := openbao.CheckPath("mount", t.mount()); err != nil {
		return err
	}
	return openbao.CheckPath("key", t.Key)
}
