package keyvault

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"

	"github.com/mandate-sam/mandate"
)

const (
	// maxBlob is the longest that fits into a secret, which has 25 KB, in
	// base64.
	maxBlob = 18 << 10

	contentType = "application/vnd.mandate.sealed"
)

// Secrets keeps sealed grants as secrets of a vault: a secret for each grant,
// and a version of it for each refresh token.
type Secrets struct{ vault *Vault }

// Secrets returns the home of grants in this vault.
func (v *Vault) Secrets() *Secrets { return &Secrets{v} }

// Put stores blob as a new version of the secret and returns the version. If
// the name belongs to a secret that was deleted, that one is recovered or, if
// that is not permitted, purged.
func (s *Secrets) Put(ctx context.Context, name string, blob []byte) (string, error) {
	if err := checkNames(name); err != nil {
		return "", err
	}
	if len(blob) > maxBlob {
		return "", fmt.Errorf("store secret %s: it has %d bytes sealed, and a secret of Key Vault takes %d", name, len(blob), maxBlob)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	revived := false
	for {
		ref, err := s.set(ctx, name, blob)
		e, refused := errors.AsType[*Error](err)
		if !refused || e.Status != http.StatusConflict || !strings.HasPrefix(e.Inner, "ObjectIs") {
			return ref, err
		}
		if e.Inner == "ObjectIsDeletedButRecoverable" && !revived {
			if err := s.revive(ctx, name); err != nil {
				return "", err
			}
			revived = true
		}
		if !pause(ctx) {
			return "", fmt.Errorf("%w: %w", mandate.ErrUnavailable, err)
		}
	}
}

func (s *Secrets) set(ctx context.Context, name string, blob []byte) (string, error) {
	o := operation{"store", "secret " + name, "secrets set"}
	if err := s.vault.spend(ctx, s.vault.versions, 1); err != nil {
		return "", s.vault.describe(o, err)
	}
	value, kind, owner := base64.RawURLEncoding.EncodeToString(blob), contentType, "mandate"
	r, err := call(ctx, s.vault, o, 1, func(ctx context.Context) (azsecrets.SetSecretResponse, error) {
		return s.vault.secrets.SetSecret(ctx, name, azsecrets.SetSecretParameters{
			Value: &value, ContentType: &kind, Tags: map[string]*string{"managed-by": &owner},
		}, nil)
	})
	switch {
	case err != nil:
		return "", err
	case r.ID == nil || r.ID.Version() == "":
		return "", fmt.Errorf("store secret %s in %s: the answer has no version", name, s.vault)
	}
	return r.ID.Version(), nil
}

// revive frees the name of a deleted secret. To recover it is tried first,
// because it destroys nothing.
func (s *Secrets) revive(ctx context.Context, name string) error {
	o := operation{"recover", "deleted secret " + name, "secrets recover"}
	_, err := call(ctx, s.vault, o, 1, func(ctx context.Context) (azsecrets.RecoverDeletedSecretResponse, error) {
		return s.vault.secrets.RecoverDeletedSecret(ctx, name, nil)
	})
	if !is(err, http.StatusForbidden) {
		return err
	}
	perr := s.purge(ctx, name)
	if is(perr, http.StatusForbidden) {
		return fmt.Errorf("secret %s was deleted in %s, and %s may neither recover nor purge it: the vault's administrator must do one of them, or permit it: %w",
			name, s.vault, s.vault.identity, err)
	}
	return perr
}

func (s *Secrets) purge(ctx context.Context, name string) error {
	o := operation{"purge", "deleted secret " + name, "secrets purge"}
	_, err := call(ctx, s.vault, o, 1, func(ctx context.Context) (azsecrets.PurgeDeletedSecretResponse, error) {
		return s.vault.secrets.PurgeDeletedSecret(ctx, name, nil)
	})
	return err
}

// Get returns the version that Put returned. The error wraps
// [mandate.ErrNotFound] if it is not there.
func (s *Secrets) Get(ctx context.Context, name, ref string) ([]byte, error) {
	if err := checkNames(name, ref); err != nil {
		return nil, err
	}
	o := operation{"read", "secret " + name + " version " + ref, "secrets get"}
	r, err := call(ctx, s.vault, o, 1, func(ctx context.Context) (azsecrets.GetSecretResponse, error) {
		return s.vault.secrets.GetSecret(ctx, name, ref, nil)
	})
	if err != nil {
		return nil, err
	}
	if r.Value == nil {
		return nil, fmt.Errorf("%s %s in %s: the answer has no value", o.verb, o.object, s.vault)
	}
	blob, err := base64.RawURLEncoding.DecodeString(*r.Value)
	if err != nil {
		return nil, fmt.Errorf("%s %s in %s: what is there was not put there by this program", o.verb, o.object, s.vault)
	}
	return blob, nil
}

// Destroy deletes the secret with all its versions and purges it. If it may not
// be purged, remains says what is left and why, and until when. Destroying
// what is not there is no error.
func (s *Secrets) Destroy(ctx context.Context, name string) (remains string, until time.Time, err error) {
	if err := checkNames(name); err != nil {
		return "", time.Time{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*callTimeout)
	defer cancel()
	if err := s.delete(ctx, name); err != nil {
		return "", time.Time{}, err
	}
	d, err := s.deleted(ctx, name)
	if err != nil || d == nil {
		return "", time.Time{}, err
	}
	why := "the vault has purge protection"
	if d.Attributes == nil || d.Attributes.RecoveryLevel == nil || strings.Contains(*d.Attributes.RecoveryLevel, "Purgeable") {
		err := s.purge(ctx, name)
		if err == nil || is(err, http.StatusNotFound) {
			return "", time.Time{}, nil
		}
		if !is(err, http.StatusForbidden) {
			return "", time.Time{}, err
		}
		why = s.vault.identity + " may not purge it"
	}
	if d.ScheduledPurgeDate != nil {
		until = *d.ScheduledPurgeDate
	}
	return fmt.Sprintf("secret %s in %s is deleted but can be recovered, because %s; what is in it is sealed", name, s.vault, why), until, nil
}

// delete deletes the secret, if it is there.
func (s *Secrets) delete(ctx context.Context, name string) error {
	o := operation{"delete", "secret " + name, "secrets delete"}
	for {
		_, err := call(ctx, s.vault, o, 1, func(ctx context.Context) (azsecrets.DeleteSecretResponse, error) {
			return s.vault.secrets.DeleteSecret(ctx, name, nil)
		})
		if err == nil || is(err, http.StatusNotFound) {
			return nil
		}
		if e, ok := errors.AsType[*Error](err); !ok || e.Inner != "ObjectIsBeingRecovered" {
			if ok && strings.HasPrefix(e.Inner, "ObjectIs") { // being deleted, or deleted
				return nil
			}
			return err
		}
		if !pause(ctx) {
			return fmt.Errorf("%w: %w", mandate.ErrUnavailable, err)
		}
	}
}

// settles is how often a deleted secret is looked for that is not listed yet.
const settles = 40

// deleted waits until the deletion is done and returns what is left, or nil if
// nothing is.
func (s *Secrets) deleted(ctx context.Context, name string) (*azsecrets.DeletedSecret, error) {
	o := operation{"look at", "deleted secret " + name, "secrets get"}
	for range settles {
		r, err := call(ctx, s.vault, o, 1, func(ctx context.Context) (azsecrets.GetDeletedSecretResponse, error) {
			return s.vault.secrets.GetDeletedSecret(ctx, name, nil)
		})
		if err == nil {
			return &r.DeletedSecret, nil
		}
		busy := false
		if e, ok := errors.AsType[*Error](err); ok {
			busy = e.Status == http.StatusConflict || e.Status == http.StatusNotFound && s.beingDeleted(ctx, name)
		}
		if is(err, http.StatusNotFound) && !busy {
			return nil, nil
		}
		if !busy {
			return nil, err
		}
		if !pause(ctx) {
			break
		}
	}
	return nil, fmt.Errorf("%w: secret %s in %s is still being deleted", mandate.ErrUnavailable, name, s.vault)
}

// beingDeleted asks about a secret that is in neither list: one that is being
// deleted answers a second deletion with a conflict, one that never was, not.
func (s *Secrets) beingDeleted(ctx context.Context, name string) bool {
	o := operation{"delete", "secret " + name, "secrets delete"}
	_, err := call(ctx, s.vault, o, 1, func(ctx context.Context) (azsecrets.DeleteSecretResponse, error) {
		return s.vault.secrets.DeleteSecret(ctx, name, nil)
	})
	return is(err, http.StatusConflict)
}

// checkNames keeps everything out of a URL that could lead elsewhere. Names are
// made by this program, so a bad one is no caller's fault.
func checkNames(names ...string) error {
	for _, n := range names {
		if !objectName.MatchString(n) {
			return fmt.Errorf("%.130q cannot be in a vault: 1 to 127 letters, digits and '-'", n)
		}
	}
	return nil
}

// is reports whether err is an answer of that status.
func is(err error, status int) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Status == status
}
