package app

import (
	"context"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/entra"
	"github.com/mandate-sam/mandate/internal/rotation"
	"github.com/mandate-sam/mandate/keyvault"
)

// A liveCredential is the credential of an application as it is now: its file
// is read again when it changes, and a rotation puts another one in its place.
// What cannot be read leaves the one before in use, which works until Entra
// removes it. It implements [entra.Credential].
type liveCredential struct {
	outside     *outside
	application *Application

	mu      sync.Mutex // guards what follows
	now     entra.Credential
	version string // of the vault's certificate
	stamp   string // of the files
}

// Authenticate implements [entra.Credential].
func (l *liveCredential) Authenticate(ctx context.Context, form url.Values, client mandate.AppID, tokenURL string, now time.Time) error {
	return l.current().Authenticate(ctx, form, client, tokenURL, now)
}

func (l *liveCredential) current() entra.Credential {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now
}

// NotAfter returns when the credential ends; zero if it does not say.
func (l *liveCredential) NotAfter() time.Time {
	if c, ok := l.current().(expiring); ok {
		return c.NotAfter()
	}
	return time.Time{}
}

// ref names the credential in use.
func (l *liveCredential) ref() rotation.Ref {
	l.mu.Lock()
	version := l.version
	l.mu.Unlock()
	r := rotation.Ref{ID: credentialID(l.current()), Until: l.NotAfter()}
	if l.application.Credential.rotates() == rotation.KindVault {
		r.Version = version
	}
	return r
}

// credentialID tells a credential from others; "" if it has no identity.
func credentialID(c entra.Credential) string {
	if named, ok := c.(interface{ ID() string }); ok {
		return named.ID()
	}
	return ""
}

// load reads the credential anew. Of a vault's certificate it takes that
// version, or else the one in use, or else the newest.
func (l *liveCredential) load(ctx context.Context, version string) error {
	cr := l.application.Credential
	stamp := l.files()
	c, version, err := l.open(ctx, &cr, version)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now, l.stamp, l.version = c, stamp, version
	return nil
}

func (l *liveCredential) open(ctx context.Context, cr *Credential, version string) (entra.Credential, string, error) {
	if cr.rotates() != rotation.KindVault {
		c, err := l.outside.credential(ctx, cr, l.application.cloud())
		return c, "", err
	}
	s, err := l.signer(ctx, version)
	if err != nil {
		return nil, "", err
	}
	c, err := entra.NewCertificate(s)
	return c, s.Version(), err
}

// signer opens a version of the vault's certificate.
func (l *liveCredential) signer(ctx context.Context, version string) (*keyvault.Signer, error) {
	k := *l.application.Credential.KeyVault
	if version != "" {
		k.Certificate += "/" + version
	}
	return l.outside.signer(ctx, &k)
}

// reload reads the files again if they have changed.
func (l *liveCredential) reload(ctx context.Context) (changed bool, err error) {
	stamp := l.files()
	l.mu.Lock()
	same := stamp == l.stamp
	l.stamp = stamp // what cannot be read is not tried again until it changes
	l.mu.Unlock()
	if same {
		return false, nil
	}
	return true, l.load(ctx, "")
}

// files tells whether a file was replaced or written. Of one that is kept
// elsewhere there is nothing to tell.
func (l *liveCredential) files() string {
	cr := &l.application.Credential
	if cr.KeyVault != nil || cr.Federated != nil {
		return ""
	}
	var b strings.Builder
	for _, p := range []Path{cr.Certificate, cr.Key, cr.PasswordFile, cr.Secret} {
		if p == "" {
			continue
		}
		info, err := os.Stat(l.outside.config.file(p))
		if err != nil {
			fmt.Fprintln(&b, err)
			continue
		}
		fmt.Fprintln(&b, info.ModTime().UnixNano(), info.Size(), info.Mode(), inode(info))
	}
	return b.String()
}

func inode(info fs.FileInfo) uint64 {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return s.Ino
	}
	return 0
}

// rotates returns the kind of credential that can be rotated from here, or "".
func (cr *Credential) rotates() string {
	switch {
	case cr.Secret != "":
		return rotation.KindSecret
	case cr.Certificate != "" && cr.Key == "" && cr.PasswordFile == "":
		return rotation.KindCertificate
	case cr.KeyVault != nil && cr.KeyVault.Certificate != "" && !strings.Contains(cr.KeyVault.Certificate, "/"):
		return rotation.KindVault
	}
	return ""
}

// where says where the credential is kept.
func (cr *Credential) where() string {
	switch {
	case cr.KeyVault != nil:
		return "key vault " + cr.KeyVault.Vault
	case cr.Federated != nil:
		return "token of another issuer"
	case cr.Secret != "":
		return "secret in " + string(cr.Secret)
	}
	return "certificate in " + string(cr.Certificate)
}
