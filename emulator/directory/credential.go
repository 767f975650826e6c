package directory

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"slices"
	"time"
)

// credential is the key of a Credential: whose it is, and the hash of its value.
type credential struct {
	app  string
	hash [32]byte
}

// A Credential is what is known of an application's secret or certificate,
// beside its value.
type Credential struct {
	ID         string // keyId
	Name       string
	Hint       string // the first characters of a secret
	Start, End time.Time

	// Usable is when the identity platform will have heard of it, by the
	// machine's clock whatever the directory's says: a delay is waited for.
	Usable time.Time
}

// ErrNoCredential is returned for a key id that the application does not have.
var ErrNoCredential = errors.New("no such credential")

// inForce leaves in a only the credentials that count now. The caller holds
// d.mu.
func (d *Directory) inForce(a Application) Application {
	if len(d.credentials) == 0 {
		return a
	}
	now, real := d.now(), time.Now()
	dead := func(value []byte) bool {
		c, ok := d.credentials[credential{a.ID, sha256.Sum256(value)}]
		return ok && (real.Before(c.Usable) || now.Before(c.Start) || !now.Before(c.End))
	}
	a.Secrets = slices.DeleteFunc(slices.Clone(a.Secrets), func(s string) bool { return dead([]byte(s)) })
	a.Certificates = slices.DeleteFunc(slices.Clone(a.Certificates), dead)
	return a
}

// AddSecret gives the application another client secret.
func (d *Directory) AddSecret(app, value string, c Credential) {
	d.mu.Lock()
	defer d.mu.Unlock()
	a, ok := d.apps[app]
	if !ok {
		return
	}
	a.Secrets = append(slices.Clone(a.Secrets), value)
	d.apps[app] = a
	d.credentials[credential{app, sha256.Sum256([]byte(value))}] = c
}

// SetCertificates replaces the application's certificates. What was known of
// one that stays is kept; of the others it is as described.
func (d *Directory) SetCertificates(app string, ders [][]byte, describe func(der []byte) Credential) error {
	for _, der := range ders {
		if err := checkCertificate(der); err != nil {
			return err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	a, ok := d.apps[app]
	if !ok {
		return ErrNoCredential
	}
	kept := map[[32]byte]bool{}
	for _, der := range a.Certificates {
		kept[sha256.Sum256(der)] = true
	}
	for _, der := range ders {
		if h := sha256.Sum256(der); !kept[h] {
			d.credentials[credential{app, h}] = describe(der)
		}
	}
	a.Certificates = slices.Clone(ders)
	d.apps[app] = a
	return nil
}

// RemoveSecret takes the secret with that key id from the application.
func (d *Directory) RemoveSecret(app, id string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	a := d.apps[app]
	i := slices.IndexFunc(a.Secrets, func(s string) bool { return d.credential(app, []byte(s)).ID == id })
	if i < 0 {
		return ErrNoCredential
	}
	delete(d.credentials, credential{app, sha256.Sum256([]byte(a.Secrets[i]))})
	a.Secrets = slices.Delete(slices.Clone(a.Secrets), i, i+1)
	d.apps[app] = a
	return nil
}

// Credential returns what is known of the application's secret or
// certificate. Of one that did not come through Graph little is.
func (d *Directory) Credential(app string, value []byte) Credential {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.credential(app, value)
}

// credential: the caller holds d.mu.
func (d *Directory) credential(app string, value []byte) Credential {
	h := sha256.Sum256(value)
	c := d.credentials[credential{app, h}]
	c.ID = cmp.Or(c.ID, guid("credential", app, string(h[:])))
	return c
}

// Expired reports whether the secret is one of the application's that has
// expired, which the identity platform tells apart from a wrong one.
func (d *Directory) Expired(app, secret string, now time.Time) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	c, ok := d.credentials[credential{app, sha256.Sum256([]byte(secret))}]
	return ok && !now.Before(c.End)
}
