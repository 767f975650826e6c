package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/audit"
	"github.com/mandate-sam/mandate/internal/database"
	"github.com/mandate-sam/mandate/store"
	"github.com/mandate-sam/mandate/vault"
)

// A custodian implements [api.Custodian]. The lockdown is the store's.
type custodian struct {
	*store.Store
	config *Config
	db     *database.DB
	vault  *vault.SQL
	broker *mandate.Broker
	audit  *audit.Log
	rings
}

// rings are the keys of a server.
type rings struct {
	grants, shared      vault.KeyWrapper // with those of earlier
	current, sharedFile vault.KeyWrapper // that wrap now
}

// topicKeys is the notice that key files are to be read again.
const topicKeys = "keys"

// Keys implements [api.Keys].
func (c *custodian) Keys(ctx context.Context) (api.KeyStatus, error) {
	st := api.KeyStatus{Where: c.config.current().String(), Keys: []api.KeyUse{}}
	uses, err := c.vault.Keys(ctx)
	if err != nil {
		return st, err
	}
	if st.Current, _, err = c.grants.Wrap(ctx, make([]byte, 64)); err != nil {
		return st, err
	}
	current := []string{st.Current}
	if c.config.Database.URL != "" {
		if st.Shared, _, err = c.shared.Wrap(ctx, make([]byte, 64)); err != nil {
			return st, err
		}
		if !c.config.SharedKey.isZero() {
			st.Where += "; that of the tokens that replicas share in " + c.config.SharedKey.String()
		}
		if st.Shared != st.Current {
			current = append(current, st.Shared)
		}
	}
	for _, u := range uses {
		st.Keys = append(st.Keys, api.KeyUse{ID: u.KeyID, Grants: u.Grants, Tokens: u.Tokens})
	}
	use := func(id string) *api.KeyUse {
		n := slices.IndexFunc(st.Keys, func(k api.KeyUse) bool { return k.ID == id })
		if n < 0 {
			n = len(st.Keys)
			st.Keys = append(st.Keys, api.KeyUse{ID: id})
		}
		return &st.Keys[n]
	}
	own, err := c.ownKeys(ctx)
	if err != nil {
		return st, err
	}
	for _, k := range own {
		use(k.id).Own++
	}
	for _, id := range current { // with which nothing may be sealed yet
		use(id)
	}
	for n := range st.Keys {
		st.Keys[n].Here = slices.Contains(current, st.Keys[n].ID) || c.has(st.Keys[n].ID)
	}
	return st, nil
}

// An ownKey is a key of the server's own, and the ID of the one that wraps it.
type ownKey struct{ id, what string }

// ownKeys returns what is wrapped beside grants and tokens. A server that
// cannot unwrap one of them does not start, or records nothing.
func (c *custodian) ownKeys(ctx context.Context) (own []ownKey, err error) {
	state, err := c.db.KeyID(ctx)
	if err != nil {
		return nil, err
	}
	log, err := c.audit.KeyID(ctx)
	for _, k := range []ownKey{{state, "the key with which the security state is verified"}, {log, "the key of the personal data in the audit log"}} {
		if k.id != "" {
			own = append(own, k)
		}
	}
	return own, err
}

// has reports whether a key of that ID is here, or may be.
func (r *rings) has(keyID string) bool {
	for _, w := range []vault.KeyWrapper{r.grants, r.shared} {
		if h, ok := w.(interface{ Has(string) bool }); w != nil && (!ok || h.Has(keyID)) {
			return true
		}
	}
	return false
}

// errCopies: rotating one copy of a key file would leave the others without
// the key that this replica then seals with.
var errCopies = errors.New("replicas share this database, and each may have a copy of the key file: " +
	"make the new key with \"mandate key rotate --file PATH\", bring that file to every replica, and then say \"mandate key reload\" once; " +
	"or, if all of them read this very file, say --shared-file")

// RotateKey implements [api.Keys].
func (c *custodian) RotateKey(ctx context.Context, shared bool) (out api.Rotated, err error) {
	copies := c.config.Database.URL != "" && !shared
	if copies && c.config.keyFile() != "" {
		return out, mandate.Invalid("shared", "%v", errCopies)
	}
	if out.KeyID, err = rotateOne(ctx, c.current, c.config.keyFile()); err != nil {
		return out, err
	}
	switch own := &c.config.SharedKey; {
	case own.isZero():
	case copies && own.File != "":
		out.Left = fmt.Sprintf("the key of shared tokens, in %s, is the same as before: %v", own, errCopies)
	default:
		if out.SharedKeyID, err = rotateOne(ctx, c.sharedFile, c.config.file(own.File)); err != nil {
			err = fmt.Errorf("grants are sealed with key %s from now on, but the key of shared tokens is the same as before: %w", out.KeyID, err)
		}
	}
	return out, errors.Join(err, c.ReloadKeys(ctx))
}

// rotateOne makes a new key in a file, or where w keeps it.
func rotateOne(ctx context.Context, w vault.KeyWrapper, file string) (keyID string, err error) {
	if file != "" {
		f, err := vault.OpenKeyFile(file)
		if err != nil {
			return "", err
		}
		return f.Rotate()
	}
	r, ok := w.(interface {
		Rotate(context.Context) (string, error)
	})
	if !ok {
		return "", mandate.Invalid("key", "where the key is, it cannot be rotated from here")
	}
	return r.Rotate(ctx)
}

// ReloadKeys implements [api.Keys]. This replica has read them when it returns,
// the others a moment later.
func (c *custodian) ReloadKeys(ctx context.Context) error {
	if err := c.reload(); err != nil {
		return err
	}
	return c.db.Notify(ctx, topicKeys, "reload")
}

// reload reads the key files again.
func (r *rings) reload() error {
	var errs []error
	for _, w := range []vault.KeyWrapper{r.current, r.sharedFile} {
		if f, ok := w.(*vault.KeyFile); ok {
			errs = append(errs, f.Reload())
		}
	}
	return errors.Join(errs...)
}

// RetireKey implements [api.Keys].
func (c *custodian) RetireKey(ctx context.Context, keyID string) error {
	file, err := c.keyFileWith(keyID)
	if err != nil {
		return err
	}
	uses, err := c.vault.Keys(ctx)
	if err != nil {
		return err
	}
	for _, u := range uses {
		if u.KeyID == keyID && u.Grants+u.Tokens > 0 {
			return mandate.Invalid("key_id", "%d grant(s) and %d shared token(s) are sealed with it: mandate key rewrap brings them under the current key", u.Grants, u.Tokens)
		}
	}
	own, err := c.ownKeys(ctx)
	if err != nil {
		return err
	}
	for _, k := range own {
		if keyID == k.id {
			return mandate.Invalid("key_id", "it wraps %s: mandate key rewrap brings that under the current key", k.what)
		}
	}
	if err := file.Remove(keyID); err != nil {
		return mandate.Invalid("key_id", "%v", err)
	}
	return c.ReloadKeys(ctx)
}

// keyFileWith opens the key file that has a key, if any has.
func (c *custodian) keyFileWith(keyID string) (file *vault.KeyFile, err error) {
	for _, path := range []string{c.config.file(c.config.SharedKey.File), c.config.keyFile()} {
		if path == "" {
			continue
		}
		if file, err = vault.OpenKeyFile(path); err != nil || file.Has(keyID) {
			return file, err
		}
	}
	if file == nil {
		err = mandate.Invalid("key_id", "is of a key that is not in a file: disable that version where it is kept, once nothing is sealed with it any more")
	}
	return file, err
}

// Rewrap implements [api.Keys].
func (c *custodian) Rewrap(ctx context.Context, compromised bool, progress func(done, total int)) error {
	return errors.Join(c.vault.Rewrap(ctx, compromised, progress), c.db.RewrapKey(ctx, c.grants), c.audit.RewrapKey(ctx))
}

// Backup implements [api.Backups]. The copy is made before any of it is sent,
// so that whoever reads slowly holds nothing up in the database.
func (c *custodian) Backup(ctx context.Context, directory string) (io.ReadCloser, error) {
	if err := c.config.apart(directory); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(c.config.file(c.config.Data), ".backup-*") // 0600
	if err != nil {
		return nil, err
	}
	os.Remove(f.Name()) // it goes when it is closed, however that comes to be
	_, err = c.db.Dump(ctx, append(store.Tables(), c.vault.Table()), f)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("back up: %w", err)
	}
	return f, nil
}

// apart refuses a directory in which a key file is: whoever takes a copy of
// that would have both.
func (c *Config) apart(directory string) error {
	if !filepath.IsAbs(directory) {
		return mandate.Invalid("directory", "must be an absolute path")
	}
	there, err := os.Stat(directory)
	if err != nil {
		return nil // elsewhere, as this process sees it
	}
	files := []string{c.keyFile()}
	for _, k := range c.keys() {
		files = append(files, c.file(k.File))
	}
	for _, file := range files {
		if file == "" {
			continue
		}
		if info, err := os.Stat(filepath.Dir(file)); err == nil && os.SameFile(info, there) {
			return mandate.Invalid("directory", "%s has the key file in it: a backup beside the key that opens it protects nothing; name another directory, and keep the key elsewhere", directory)
		}
	}
	return nil
}

// Release implements [api.Backups].
func (c *custodian) Release(ctx context.Context, by mandate.By, each func(api.ReleasedGrant)) error {
	all, err := c.Restored(ctx)
	if err != nil {
		return err
	}
	left := 0
	for _, r := range all {
		if err := ctx.Err(); err != nil {
			return err
		}
		name := nameOf(c.Store, r.Key)
		if !r.Served {
			each(api.ReleasedGrant{Partner: name, Text: "was suspended when the backup was made, and stays so; mandate grant resume probes it"})
			continue
		}
		if err := c.release(ctx, r, name, by); err != nil {
			left++
			each(api.ReleasedGrant{Partner: name, Text: "stays suspended: " + err.Error()})
			continue
		}
		each(api.ReleasedGrant{Partner: name, Serves: true, Text: "was probed, and serves once there is no lockdown"})
	}
	if left > 0 {
		return fmt.Errorf("%d grant(s) did not pass: ask again later, or invite those partners again", left)
	}
	return nil
}

// release probes one grant. One that is not suspended any more needs none: the
// probe was the last that this server did, or a new consent has come.
func (c *custodian) release(ctx context.Context, r store.Restored, name string, by mandate.By) error {
	p, err := c.Partner(name)
	if err != nil {
		return err
	}
	_, err = c.broker.Release(ctx, p, by)
	var none *mandate.NoGrantError
	if err == nil || errors.Is(err, mandate.ErrNotFound) {
		return c.Proven(ctx, r.Key)
	}
	if errors.As(err, &none) { // withdrawn meanwhile
		return errors.Join(err, c.Proven(ctx, r.Key))
	}
	return err
}

// A guard is the broker as operators change grants with it: one that came out
// of a backup is probed before it serves.
type guard struct {
	api.Life
	*custodian
}

// Resume implements [api.Life].
func (g guard) Resume(ctx context.Context, p mandate.Partner, by mandate.By) (mandate.Receipt, error) {
	all, err := g.Restored(ctx)
	if err != nil {
		return mandate.Receipt{}, err
	}
	for _, r := range all {
		if r.Key == p.Key {
			receipt, err := g.broker.Release(ctx, p, by)
			if err == nil {
				err = g.Proven(ctx, p.Key)
			}
			return receipt, err
		}
	}
	return g.Life.Resume(ctx, p, by)
}

// watchKeys reads key files again when another replica says so.
func (a *App) watchKeys(ctx context.Context) error {
	told, cancel := a.db.Subscribe(topicKeys)
	defer cancel()
	for {
		select {
		case <-told:
			if err := a.rings.reload(); err != nil {
				a.log.Warn("read the key files again", "err", err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}
