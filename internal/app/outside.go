package app

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/keyvault"
	"github.com/mandate-sam/mandate/openbao"
)

// An Identity is who we are to Key Vault. It is never the application whose
// consents are kept. Exactly one of its credentials is set.
type Identity struct {
	Name     string `yaml:"name"`
	Tenant   string `yaml:"tenant"`    // the vault's
	ClientID string `yaml:"client_id"` // of an app registration with nothing but access to the vault

	Certificate  Path `yaml:"certificate"`   // PEM or PFX file
	Key          Path `yaml:"key"`           // PEM file with its RSA key; default: the certificate's file
	PasswordFile Path `yaml:"password_file"` // of a PFX file
	Secret       Path `yaml:"secret"`        // file with a client secret
	TokenFile    Path `yaml:"token_file"`    // file with a token of another issuer, such as a cluster

	// ManagedIdentity is "system", or the client ID of a user-assigned one.
	ManagedIdentity string `yaml:"managed_identity"`

	// WorkloadIdentity takes tenant, client and token file from the variables
	// that AKS sets.
	WorkloadIdentity bool `yaml:"workload_identity"`
}

// A VaultRef is a key vault, and who we are to it.
type VaultRef struct {
	Vault    string `yaml:"vault"`    // https://NAME.vault.azure.net
	Identity string `yaml:"identity"` // a name of identities
	Cloud    string `yaml:"cloud"`    // one of clouds, where the vault is not in Microsoft's
}

// A BaoServer is an OpenBao or HashiCorp Vault server, and how it lets us in.
type BaoServer struct {
	Address   string    `yaml:"address"` // https://host:port
	Namespace string    `yaml:"namespace"`
	TokenFile Path      `yaml:"token_file"` // read again when it changes; or login
	Login     *BaoLogin `yaml:"login"`
	Roots     Path      `yaml:"roots"` // PEM file of the only certificate authorities that count; default: the system's
}

// A BaoLogin gets a token for a role.
type BaoLogin struct {
	Mount      string `yaml:"mount"`       // approle, kubernetes
	Role       string `yaml:"role"`        // the role's ID of AppRole, or its name
	SecretFile Path   `yaml:"secret_file"` // with the secret ID, for AppRole
	TokenFile  Path   `yaml:"token_file"`  // with the service account's token, for Kubernetes
}

// checkIdentities checks the identities and, that none of them is an
// application.
func (c *Config) checkIdentities() error {
	seen := make(map[string]bool)
	for n := range c.Identities {
		i := &c.Identities[n]
		if err := i.check(); err != nil {
			return at(fmt.Sprintf("identities[%d]", n), err)
		}
		if seen[i.Name] {
			return at(fmt.Sprintf("identities[%d]", n), mandate.Invalid("name", "%q is there twice", i.Name))
		}
		seen[i.Name] = true
		for k := range c.Applications {
			if a := &c.Applications[k]; sameID(i.client(), a.ClientID) {
				return at(fmt.Sprintf("identities[%d]", n), i.isApplication(a.Name))
			}
		}
	}
	return nil
}

func (i *Identity) isApplication(name string) error {
	return mandate.Invalid("client_id", "is that of application %q: whoever has its credential must not have the vault as well; register an identity of its own for the vault", name)
}

func sameID(a, b string) bool { return a != "" && strings.EqualFold(a, b) }

// client returns the client ID, "" if it is not known here.
func (i *Identity) client() string {
	if i.ManagedIdentity != "" && i.ManagedIdentity != "system" {
		return i.ManagedIdentity
	}
	return i.ClientID
}

func (i *Identity) check() error {
	if !mandate.Name(i.Name) {
		return mandate.Invalid("name", "must be a short name of letters, digits, '-', '_' or '.'")
	}
	set := 0
	for _, is := range []bool{i.Certificate != "", i.Secret != "", i.TokenFile != "", i.ManagedIdentity != "", i.WorkloadIdentity} {
		if is {
			set++
		}
	}
	switch {
	case set != 1:
		return mandate.Invalid("name", "%q needs one of certificate, secret, token_file, managed_identity and workload_identity, and has %d", i.Name, set)
	case i.Certificate == "" && (i.Key != "" || i.PasswordFile != ""):
		return mandate.Invalid("certificate", "is required where there is a key or password_file")
	case (i.ManagedIdentity != "" || i.WorkloadIdentity) && (i.Tenant != "" || i.ClientID != ""):
		return mandate.Invalid("client_id", "and tenant do not go with a managed or workload identity: the machine knows them")
	case i.ManagedIdentity != "" && i.ManagedIdentity != "system":
		_, err := mandate.ParseAppID(i.ManagedIdentity)
		return renamed("managed_identity", err)
	case i.ManagedIdentity != "" || i.WorkloadIdentity:
		return nil
	}
	if _, err := mandate.ParseTenantID(i.Tenant); err != nil {
		return renamed("tenant", err)
	}
	_, err := mandate.ParseAppID(i.ClientID)
	return renamed("client_id", err)
}

// renamed returns an error about one field as one about another.
func renamed(field string, err error) error {
	if e, ok := err.(*mandate.InvalidError); ok {
		return mandate.Invalid(field, "%s", e.Reason)
	}
	return err
}

func (c *Config) identity(name string) *Identity {
	for i := range c.Identities {
		if c.Identities[i].Name == name {
			return &c.Identities[i]
		}
	}
	return nil
}

// vaultCloud returns the cloud of a vault: Microsoft's by the vault's name, a
// custom one as it is configured.
func (c *Config) vaultCloud(v *VaultRef, clouds map[string]mandate.Cloud) (mandate.Cloud, error) {
	name := cmp.Or(v.Cloud, keyvault.CloudOf(v.Vault))
	cloud, ok := clouds[name]
	switch {
	case name == "":
		return cloud, mandate.Invalid("vault", "%.100q is not in a cloud of Microsoft's: https://NAME.vault.azure.net; name the cloud that it is in", v.Vault)
	case !ok:
		return cloud, mandate.Invalid("cloud", "%.40q is neither one of Microsoft's (global, usgov, china) nor in clouds", name)
	}
	return cloud, keyvault.CheckURL(v.Vault, cloud)
}

func (c *Config) checkVault(v *VaultRef, clouds map[string]mandate.Cloud) error {
	cloud, err := c.vaultCloud(v, clouds)
	if err != nil {
		return err
	}
	if len(c.Applications) > 0 && cloud.Custom != clouds[c.Applications[0].cloud()].Custom {
		return mandate.Invalid("vault", "%.100q is in cloud %q, and the applications are not of its kind: an emulator and Microsoft never share what they store", v.Vault, cloud.Name)
	}
	if c.identity(v.Identity) == nil {
		return mandate.Invalid("identity", "%.60q is not a name of identities: who are we to the vault?", v.Identity)
	}
	return nil
}

func (s *BaoServer) check() error {
	if err := openbao.CheckAddress(s.Address); err != nil {
		return err
	}
	if s.Namespace != "" {
		if err := openbao.CheckPath("namespace", s.Namespace); err != nil {
			return err
		}
	}
	if (s.TokenFile == "") == (s.Login == nil) {
		return mandate.Invalid("token_file", "or login is required, and not both")
	}
	if s.Login != nil {
		l := openbao.Login{Mount: s.Login.Mount, Role: s.Login.Role, SecretFile: string(s.Login.SecretFile), TokenFile: string(s.Login.TokenFile)}
		return l.Check()
	}
	return nil
}

// A lodging is where something is kept, and as whom we come there. Two that are
// the same open to the same thief.
type lodging struct{ where, who string }

func (c *Config) lodgingOf(v *VaultRef) lodging {
	i := c.identity(v.Identity)
	who := cmp.Or(strings.ToLower(i.client()), "managed identity")
	if i.WorkloadIdentity {
		who = "workload identity"
	}
	return lodging{strings.ToLower(strings.TrimSuffix(v.Vault, "/")), who}
}

func (c *Config) lodgingAt(s *BaoServer) lodging {
	who := c.file(s.TokenFile)
	if s.Login != nil {
		who = s.Login.Mount + " " + s.Login.Role
	}
	return lodging{strings.ToLower(strings.TrimSuffix(s.Address, "/")) + " " + s.Namespace, who}
}
