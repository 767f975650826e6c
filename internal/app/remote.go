package app

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/entra"
	"github.com/mandate-sam/mandate/internal/privatefile"
	"github.com/mandate-sam/mandate/keyvault"
	"github.com/mandate-sam/mandate/openbao"
	"github.com/mandate-sam/mandate/vault"
)

// outside are the vaults and servers that the configuration names, each once,
// so that each has one budget and one token. To make them calls nobody.
type outside struct {
	config *Config
	clouds map[string]mandate.Cloud
	log    *slog.Logger
	vaults map[VaultRef]*keyvault.Vault
	baos   map[lodging]*openbao.Client
}

func newOutside(c *Config, clouds map[string]mandate.Cloud, log *slog.Logger) *outside {
	return &outside{c, clouds, log, make(map[VaultRef]*keyvault.Vault), make(map[lodging]*openbao.Client)}
}

// Run keeps tokens alive until ctx is done.
func (o *outside) Run(ctx context.Context) error {
	var group errgroup.Group
	for _, b := range o.baos {
		group.Go(func() error { return b.Run(ctx) })
	}
	return group.Wait()
}

// vault returns a key vault.
func (o *outside) vault(ref *VaultRef) (*keyvault.Vault, error) {
	if v := o.vaults[*ref]; v != nil {
		return v, nil
	}
	v, err := o.open(ref)
	if err == nil {
		o.vaults[*ref] = v
	}
	return v, err
}

// open returns a key vault, with a budget of its own.
func (o *outside) open(ref *VaultRef) (*keyvault.Vault, error) {
	cloud, err := o.config.vaultCloud(ref, o.clouds)
	if err != nil {
		return nil, err
	}
	i := o.config.identity(ref.Identity)
	if i == nil {
		return nil, mandate.Invalid("identity", "%.60q is not a name of identities", ref.Identity)
	}
	identity, err := o.config.load(i)
	if err != nil {
		return nil, fmt.Errorf("identity %s: %w", i.Name, err)
	}
	h, err := o.config.httpClient(cloud)
	if err != nil {
		return nil, err
	}
	return keyvault.New(keyvault.Config{URL: ref.Vault, Cloud: cloud, Identity: identity, HTTP: h})
}

// load reads the files of an identity.
func (c *Config) load(i *Identity) (out keyvault.Identity, err error) {
	switch {
	case i.WorkloadIdentity:
		for k := range c.Applications {
			if a := &c.Applications[k]; sameID(os.Getenv("AZURE_CLIENT_ID"), a.ClientID) {
				return out, i.isApplication(a.Name)
			}
		}
		return keyvault.Identity{Workload: true}, nil
	case i.ManagedIdentity != "":
		client, err := managedClient(i.ManagedIdentity)
		return keyvault.Identity{Managed: true, Client: client}, err
	}
	if out.Tenant, err = mandate.ParseTenantID(i.Tenant); err != nil {
		return out, err
	}
	if out.Client, err = mandate.ParseAppID(i.ClientID); err != nil {
		return out, err
	}
	switch {
	case i.TokenFile != "":
		out.TokenFile = c.file(i.TokenFile)
	case i.Secret != "":
		out.Secret, err = readSecret(c.file(i.Secret))
	default:
		paths := []string{c.file(i.Certificate)}
		if i.Key != "" {
			paths = append(paths, c.file(i.Key))
		}
		var cert *x509.Certificate
		cert, out.Key, err = loadPair(c.file(i.PasswordFile), paths)
		out.Certificates = []*x509.Certificate{cert}
	}
	return out, err
}

// loadPair keeps a nil key from becoming an interface that is not nil.
func loadPair(password string, paths []string) (*x509.Certificate, any, error) {
	cert, key, err := entra.LoadPair(password, paths...)
	if err != nil {
		return nil, nil, err
	}
	return cert, key, nil
}

// maxSecretFile is the longest secret in a file, in bytes.
const maxSecretFile = 1 << 10

// readSecret reads a secret that is on one line of a file.
func readSecret(path string) (mandate.Secret, error) {
	b, mode, err := privatefile.Read(path, maxSecretFile)
	if err == nil {
		err = privatefile.Private(path, mode)
	}
	if err != nil {
		return mandate.Secret{}, err
	}
	s := strings.TrimRight(string(b), "\r\n")
	if s == "" || strings.ContainsAny(s, "\r\n") {
		return mandate.Secret{}, fmt.Errorf("%s has not one secret in it, on one line", path)
	}
	return mandate.NewSecret(s), nil
}

// bao returns the client of a server.
func (o *outside) bao(s *BaoServer) (*openbao.Client, error) {
	key := o.config.lodgingAt(s)
	key.where += " " + o.config.file(s.Roots)
	if b := o.baos[key]; b != nil {
		return b, nil
	}
	h, err := o.config.baoHTTP(s)
	if err != nil {
		return nil, err
	}
	cfg := openbao.Config{Address: s.Address, Namespace: s.Namespace, TokenFile: o.config.file(s.TokenFile), HTTP: h, Log: o.log}
	if l := s.Login; l != nil {
		cfg.Login = &openbao.Login{Mount: l.Mount, Role: l.Role, SecretFile: o.config.file(l.SecretFile), TokenFile: o.config.file(l.TokenFile)}
	}
	b, err := openbao.New(cfg)
	if err == nil {
		o.baos[key] = b
	}
	return b, err
}

// baoHTTP returns a client that trusts only the configured authorities, or the
// system's where none are.
func (c *Config) baoHTTP(s *BaoServer) (*http.Client, error) {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	if s.Roots != "" {
		t.TLSClientConfig.RootCAs = x509.NewCertPool()
		if err := addAuthorities(t.TLSClientConfig.RootCAs, c.file(s.Roots)); err != nil {
			return nil, fmt.Errorf("roots: %w", err)
		}
	}
	return &http.Client{Transport: t, Timeout: 30 * time.Second}, nil
}

// wrapper returns the key that the configuration names. A key file must be
// there.
func (o *outside) wrapper(k *Key) (vault.KeyWrapper, error) {
	switch {
	case k.KeyVault != nil:
		v, err := o.vault(&k.KeyVault.VaultRef)
		if err != nil {
			return nil, err
		}
		return v.Wrapper(k.KeyVault.Key)
	case k.Transit != nil:
		b, err := o.bao(&k.Transit.BaoServer)
		if err != nil {
			return nil, err
		}
		return b.Transit(k.Transit.mount(), k.Transit.Key)
	}
	path := o.config.file(k.File)
	if _, err := os.Stat(path); err != nil { // opening would make one
		return nil, fmt.Errorf("key file: %w", err)
	}
	return vault.OpenKeyFile(path)
}

// keyring returns the key that wraps, with those before it. Which that is, is
// for the caller to open if it is a key file, because only the caller knows
// whether one may be made.
func (o *outside) keyring(current vault.KeyWrapper) (vault.KeyWrapper, error) {
	if len(o.config.OldKeys) == 0 {
		return current, nil
	}
	var old []vault.KeyWrapper
	for i := range o.config.OldKeys {
		w, err := o.wrapper(&o.config.OldKeys[i])
		if err != nil {
			return nil, fmt.Errorf("old_keys[%d]: %w", i, err)
		}
		old = append(old, w)
	}
	return vault.NewKeyring(current, old...), nil
}

// homes returns the homes of grants by their names.
func (o *outside) homes() (map[string]vault.Home, error) {
	all := make(map[string]vault.Home)
	var errs []error
	for path, h := range o.config.Grants.homes() {
		if h.name() == "" || all[h.name()] != nil {
			continue
		}
		home, err := o.home(h)
		if err != nil {
			errs = append(errs, fmt.Errorf("grants.%s: %w", path, err))
			continue
		}
		all[h.name()] = home
	}
	return all, errors.Join(errs...)
}

func (o *outside) home(h *Home) (vault.Home, error) {
	if h.KeyVault != nil {
		v, err := o.vault(h.KeyVault)
		if err != nil {
			return nil, err
		}
		return v.Secrets(), nil
	}
	b, err := o.bao(&h.OpenBao.BaoServer)
	if err != nil {
		return nil, err
	}
	return b.KV(h.OpenBao.mount(), h.OpenBao.path())
}
