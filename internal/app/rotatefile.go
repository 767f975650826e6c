package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/entra"
	"github.com/mandate-sam/mandate/internal/rotation"
)

// certificateLife is how long a certificate is valid that is made here. A
// shorter one would be better, and must then be replaced by a timer.
const certificateLife = 365 * 24 * time.Hour

// A material is a [rotation.Material] that can be tried, too.
type material interface {
	rotation.Material

	// credential returns one of the two credentials.
	credential(ctx context.Context, s *rotation.State, which rotation.Which) (entra.Credential, error)

	// keep stores a new secret, durably.
	keep(s *rotation.State, value mandate.Secret) error

	// waiting returns a new secret that is stored, and not in use yet.
	waiting() (*entra.Secret, error)
}

// A fileMaterial is a credential in a file. The new one is in a file beside it,
// ending in .next, until it is in use; and then the old one, in .old, until
// Entra refuses it. Renaming is all or nothing: whenever the process dies, the
// file has one credential or the other, and both work.
type fileMaterial struct {
	live *liveCredential
	path string
}

func (f *fileMaterial) next() string { return f.path + ".next" }
func (f *fileMaterial) old() string  { return f.path + ".old" }

// writing is where either is written before it gets its name. It has one name,
// not a random one, so that what a killed process left there is found.
func (f *fileMaterial) writing() string { return f.path + ".writing" }

// Make implements [rotation.Material]. What an earlier attempt left is
// overwritten: it was never registered, or its ID would be known.
func (f *fileMaterial) Make(_ context.Context, s *rotation.State) error {
	if s.Kind != rotation.KindCertificate {
		return f.remove(f.next()) // nobody knows what that would be
	}
	der, pair, err := entra.GenerateCertificate("mandate "+s.Application, certificateLife)
	if err != nil {
		return err
	}
	if err := f.write(f.next(), []byte(pair.Reveal())); err != nil {
		return fmt.Errorf("store the new credential: %w", err)
	}
	s.New = rotation.Ref{ID: entra.Thumbprint(der), Until: time.Now().Add(certificateLife)}
	return nil
}

func (f *fileMaterial) keep(_ *rotation.State, value mandate.Secret) error {
	if _, err := entra.NewSecret(value); err != nil {
		return err
	}
	return f.write(f.next(), []byte(value.Reveal()+"\n"))
}

func (f *fileMaterial) waiting() (*entra.Secret, error) { return entra.LoadSecret(f.next()) }

// credential looks in all three files: where the credential is depends on when
// the process died.
func (f *fileMaterial) credential(_ context.Context, s *rotation.State, which rotation.Which) (entra.Credential, error) {
	want := s.Old.ID
	if which == rotation.New {
		want = s.New.ID
	}
	for _, path := range []string{f.path, f.next(), f.old()} {
		c, err := f.load(path)
		if err == nil && want != "" && credentialID(c) == want {
			return c, nil
		}
	}
	return nil, mandate.Invalid("credential", "%s is neither in %s nor beside it: was the rotation begun on another host? Run it there", want, f.path)
}

func (f *fileMaterial) load(path string) (entra.Credential, error) {
	if f.live.application.Credential.Secret != "" {
		return entra.LoadSecret(path)
	}
	return entra.LoadCertificate(path)
}

// Use implements [rotation.Material].
func (f *fileMaterial) Use(ctx context.Context, s *rotation.State) error {
	return f.exchange(ctx, f.next(), f.old(), s.New.ID)
}

// Back implements [rotation.Material].
func (f *fileMaterial) Back(ctx context.Context, s *rotation.State) error {
	return f.exchange(ctx, f.old(), f.next(), s.Old.ID)
}

// exchange brings what is in one file into use, and keeps what was in use in
// another.
func (f *fileMaterial) exchange(ctx context.Context, from, to, id string) error {
	if c, err := f.load(f.path); err != nil || credentialID(c) != id {
		if c, err := f.load(from); err != nil || credentialID(c) != id {
			return errors.Join(mandate.Invalid("credential", "%s is not in %s", id, from), err)
		}
		now, err := os.ReadFile(f.path)
		if err != nil {
			return err
		}
		if err := f.write(to, now); err != nil {
			return err
		}
		if err := os.Rename(from, f.path); err != nil {
			return err
		}
		if err := syncDirectory(f.path); err != nil {
			return err
		}
	}
	return f.live.load(ctx, "")
}

// Finish implements [rotation.Material].
func (f *fileMaterial) Finish(context.Context, *rotation.State) error {
	return f.remove(f.old(), f.writing())
}

// Discard implements [rotation.Material].
func (f *fileMaterial) Discard(context.Context, *rotation.State) error {
	return f.remove(f.next(), f.writing())
}

func (f *fileMaterial) remove(paths ...string) error {
	for _, path := range paths {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return syncDirectory(f.path)
}

// write gives a private file its content, all of it or nothing, and returns
// when that survives a crash.
func (f *fileMaterial) write(path string, data []byte) error {
	if err := f.remove(f.writing()); err != nil {
		return err
	}
	w, err := os.OpenFile(f.writing(), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(f.writing())
	_, err = w.Write(data)
	if err := errors.Join(err, w.Sync(), w.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.writing(), path); err != nil {
		return err
	}
	return syncDirectory(path)
}

// syncDirectory makes what was renamed beside path survive a crash.
func syncDirectory(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// A vaultMaterial is a certificate in Key Vault, whose keys never leave it.
// Which version is in use is remembered in the database, because the vault's
// newest may be one that Entra does not know.
type vaultMaterial struct {
	live   *liveCredential
	opened map[string]entra.Credential // by version
}

// Make implements [rotation.Material]. A version that an earlier attempt left
// is not used, and harms nobody.
func (v *vaultMaterial) Make(ctx context.Context, s *rotation.State) error {
	k := v.live.application.Credential.KeyVault
	vault, err := v.live.outside.vault(&k.VaultRef)
	if err != nil {
		return err
	}
	signer, err := vault.RenewCertificate(ctx, k.Certificate)
	if err != nil {
		return err
	}
	c, err := entra.NewCertificate(signer)
	if err != nil {
		return err
	}
	s.New = rotation.Ref{ID: c.ID(), Version: signer.Version(), Until: c.NotAfter()}
	return nil
}

func (v *vaultMaterial) keep(*rotation.State, mandate.Secret) error {
	return mandate.Invalid("credential", "is not a secret")
}

func (v *vaultMaterial) waiting() (*entra.Secret, error) {
	return nil, mandate.Invalid("credential", "is not a secret")
}

func (v *vaultMaterial) credential(ctx context.Context, s *rotation.State, which rotation.Which) (entra.Credential, error) {
	version := s.Old.Version
	if which == rotation.New {
		version = s.New.Version
	}
	if c := v.opened[version]; c != nil {
		return c, nil
	}
	signer, err := v.live.signer(ctx, version)
	if err != nil {
		return nil, err
	}
	c, err := entra.NewCertificate(signer)
	if err == nil {
		v.opened[version] = c
	}
	return c, err
}

// Use implements [rotation.Material].
func (v *vaultMaterial) Use(ctx context.Context, s *rotation.State) error {
	return v.live.load(ctx, s.New.Version)
}

// Back implements [rotation.Material].
func (v *vaultMaterial) Back(ctx context.Context, s *rotation.State) error {
	return v.live.load(ctx, s.Old.Version)
}

// Finish implements [rotation.Material]. The old version stays in the vault,
// which is its keeper; Entra does not take it any more.
func (v *vaultMaterial) Finish(context.Context, *rotation.State) error { return nil }

// Discard implements [rotation.Material].
func (v *vaultMaterial) Discard(context.Context, *rotation.State) error { return nil }
