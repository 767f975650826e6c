package app

import (
	"context"
	"fmt"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/entra"
	"github.com/mandate-sam/mandate/keyvault"
)

// A Credential proves to Entra that we are the application. Exactly one of
// Certificate, Secret, KeyVault and Federated is set.
type Credential struct {
	Certificate  Path `yaml:"certificate"`   // PEM file with the certificate, or PFX file
	Key          Path `yaml:"key"`           // PEM file with its RSA key; default: the certificate's file
	PasswordFile Path `yaml:"password_file"` // with the password of a PFX file
	Secret       Path `yaml:"secret"`        // file with a client secret; a certificate is better

	// SecretExpires is the day on which the secret ends, as Entra shows it,
	// such as 2027-01-31: a secret does not say that itself. It is for
	// forecasts.
	SecretExpires string `yaml:"secret_expires"`

	KeyVault  *Signer    `yaml:"key_vault"` // the key stays in a vault, which signs
	Federated *Federated `yaml:"federated"` // the token of another issuer
}

// A Signer is the key of a certificate in Key Vault.
type Signer struct {
	VaultRef `yaml:",inline"`

	// Certificate is its name in the vault, NAME or NAME/VERSION; or else Key
	// is the key's, and CertificateFile a PEM file with the certificate that
	// was made for it.
	Certificate     string `yaml:"certificate"`
	Key             string `yaml:"key"`
	CertificateFile Path   `yaml:"certificate_file"`
}

// Federated says where the token of another issuer comes from.
type Federated struct {
	TokenFile Path `yaml:"token_file"` // which others renew, as Kubernetes does

	// ManagedIdentity is "system", or the client ID of a user-assigned one.
	ManagedIdentity string `yaml:"managed_identity"`
}

func (cr *Credential) check(c *Config, clouds map[string]mandate.Cloud) error {
	set := 0
	for _, is := range []bool{cr.Certificate != "", cr.Secret != "", cr.KeyVault != nil, cr.Federated != nil} {
		if is {
			set++
		}
	}
	switch {
	case cr.Secret != "" && cr.Certificate != "":
		return mandate.Invalid("credential", "has both a certificate and a secret")
	case set == 0:
		return mandate.Invalid("credential", "needs a certificate, a key_vault or federated (better) or a secret")
	case set > 1:
		return mandate.Invalid("credential", "has more than one of certificate, secret, key_vault and federated")
	case cr.SecretExpires != "" && cr.Secret == "":
		return mandate.Invalid("secret_expires", "goes with secret")
	case cr.SecretExpires != "" && cr.expires().IsZero():
		return mandate.Invalid("secret_expires", "%.40q is not a day such as 2027-01-31", cr.SecretExpires)
	case cr.Certificate == "" && (cr.Key != "" || cr.PasswordFile != ""):
		return mandate.Invalid("credential", "has a key or password_file, and no certificate that it is of")
	case cr.KeyVault != nil:
		return at("credential.key_vault", cr.KeyVault.check(c, clouds))
	case cr.Federated != nil:
		return at("credential.federated", cr.Federated.check())
	}
	return nil
}

// expires is when the secret ends, as far as the configuration says.
func (cr *Credential) expires() time.Time {
	t, _ := time.Parse(time.DateOnly, cr.SecretExpires) // the zero time if it is no day; see check
	return t
}

func (s *Signer) check(c *Config, clouds map[string]mandate.Cloud) error {
	if err := c.checkVault(&s.VaultRef, clouds); err != nil {
		return err
	}
	switch {
	case (s.Certificate == "") == (s.Key == ""):
		return mandate.Invalid("certificate", "or key is required, and just one of them")
	case s.Certificate != "" && s.CertificateFile != "":
		return mandate.Invalid("certificate_file", "goes with key: the vault has the certificate itself")
	case s.Key != "" && s.CertificateFile == "":
		return mandate.Invalid("certificate_file", "is required with key: the certificate that was registered with Entra for it")
	case s.Key != "":
		return renamed("key", keyvault.CheckObject(s.Key))
	}
	return renamed("certificate", keyvault.CheckObject(s.Certificate))
}

func (f *Federated) check() error {
	if (f.TokenFile == "") == (f.ManagedIdentity == "") {
		return mandate.Invalid("token_file", "or managed_identity is required, and just one of them")
	}
	if f.ManagedIdentity != "" && f.ManagedIdentity != "system" {
		_, err := mandate.ParseAppID(f.ManagedIdentity)
		return renamed("managed_identity", err)
	}
	return nil
}

// credential returns the credential of an application. The certificate of a
// vault is asked for; nothing else is, here.
func (o *outside) credential(ctx context.Context, cr *Credential, cloud string) (entra.Credential, error) {
	c := o.config
	switch {
	case cr.Secret != "":
		return entra.LoadSecret(c.file(cr.Secret))
	case cr.KeyVault != nil:
		s, err := o.signer(ctx, cr.KeyVault)
		if err != nil {
			return nil, err
		}
		return entra.NewCertificate(s)
	case cr.Federated != nil:
		source, err := o.source(cr.Federated, cloud)
		if err != nil {
			return nil, err
		}
		return entra.NewFederated(source), nil
	}
	return c.certificate(cr)
}

// certificate loads a certificate with its key from files.
func (c *Config) certificate(cr *Credential) (*entra.Certificate, error) {
	path := c.file(cr.Certificate)
	if entra.IsPFX(path) {
		return entra.LoadPFX(path, c.file(cr.PasswordFile))
	}
	if cr.PasswordFile != "" {
		return nil, mandate.Invalid("password_file", "goes with a PFX file, and %s is none: the key in a PEM file must not be encrypted", path)
	}
	paths := []string{path}
	if cr.Key != "" {
		paths = append(paths, c.file(cr.Key))
	}
	return entra.LoadCertificate(paths...)
}

func (o *outside) signer(ctx context.Context, s *Signer) (*keyvault.Signer, error) {
	v, err := o.vault(&s.VaultRef)
	if err != nil {
		return nil, err
	}
	if s.Certificate != "" {
		return v.OpenSigner(ctx, s.Certificate)
	}
	der, err := entra.LoadCertificateDER(o.config.file(s.CertificateFile))
	if err != nil {
		return nil, err
	}
	return v.NewSigner(s.Key, der)
}

func (o *outside) source(f *Federated, cloud string) (entra.Source, error) {
	if f.TokenFile != "" {
		return entra.TokenFile(o.config.file(f.TokenFile)), nil
	}
	client, err := managedClient(f.ManagedIdentity)
	if err != nil {
		return nil, err
	}
	return keyvault.Assertion(client, cloud)
}

// managedClient returns the client ID of a managed identity; zero is the
// machine's own.
func managedClient(s string) (mandate.AppID, error) {
	if s == "system" {
		return mandate.AppID{}, nil
	}
	return mandate.ParseAppID(s)
}

// describe says of a credential what an operator wants to know, from files
// alone.
func (o *outside) describe(ctx context.Context, cr *Credential, cloud string) (string, error) {
	if k := cr.KeyVault; k != nil {
		if k.Certificate != "" {
			_, err := o.vault(&k.VaultRef)
			return fmt.Sprintf("certificate %s in %s, as %s; not asked for", k.Certificate, k.Vault, k.Identity), err
		}
	}
	credential, err := o.credential(ctx, cr, cloud)
	if err != nil {
		return "", err
	}
	if f, ok := credential.(*entra.Federated); ok && cr.Federated.TokenFile != "" {
		return "token of another issuer, in " + string(cr.Federated.TokenFile), f.Check(ctx)
	} else if ok {
		return "token of the machine's managed identity; not asked for", nil
	}
	if cert, ok := credential.(interface{ NotAfter() time.Time }); ok {
		return "certificate, valid until " + cert.NotAfter().UTC().Format(time.DateOnly), nil
	}
	return "client secret; a certificate would be better", nil
}
