package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
	"github.com/mandate-sam/mandate/vault"
)

// CheckVaults runs the tests that every keeper of grants must pass against
// those that the configuration names: its keys, its homes, and a database of
// the kind and in the place of its own, which is made for it. It cleans up
// after itself. The grants that are kept already are only read.
func CheckVaults(ctx context.Context, c Config, found func(Finding)) error {
	ctx, stop := context.WithCancel(ctx)
	var running errgroup.Group
	defer running.Wait()
	defer stop()
	clouds, err := c.clouds()
	if err != nil {
		return err
	}
	o := newOutside(&c, clouds, slog.New(slog.DiscardHandler))
	tell := func(subject string, err error, good string) {
		f := Finding{err == nil, subject, good}
		if err != nil {
			f.Message = err.Error()
		}
		found(f)
	}
	keys := c.checkedKeys()
	homes, err := o.homes()
	if err != nil {
		return err
	}
	wrappers := make(map[string]vault.KeyWrapper)
	for _, path := range slices.Sorted(maps.Keys(keys)) {
		if wrappers[path], err = o.wrapper(keys[path]); err != nil {
			tell(path, err, "")
			delete(wrappers, path)
		}
	}
	running.Go(func() error { return o.Run(ctx) })
	for _, path := range slices.Sorted(maps.Keys(wrappers)) {
		tell(path, vault.CheckSealed(ctx, wrappers[path]), "seals and opens, and nothing that was moved or altered")
	}
	current := wrappers["key"]
	for _, name := range slices.Sorted(maps.Keys(homes)) {
		tell(name, vault.CheckHome(ctx, homes[name]), "keeps versions, and destroys them")
	}
	if current == nil {
		return nil
	}
	for _, name := range append([]string{""}, slices.Sorted(maps.Keys(homes))...) {
		subject := "database"
		if name != "" {
			subject += " with " + name
		}
		tell(subject, c.checkScratch(ctx, current, homes, name), "keeps grants as it must, in a database of its own")
	}
	err = c.checkStored(ctx)
	if errors.Is(err, database.ErrInUse) {
		tell("what is stored", nil, "not looked at: a server has the database open")
		return nil
	}
	tell("what is stored", err, "opens in its place, and in no other")
	return nil
}

// checkedKeys are the keys that wrap: those of earlier only unwrap.
func (c *Config) checkedKeys() map[string]*Key {
	all := map[string]*Key{"key": c.current()}
	if !c.SharedKey.isZero() {
		all["shared_key"] = &c.SharedKey
	}
	return all
}

// checkScratch runs the tests of a vault whose grants are kept in a home.
func (c *Config) checkScratch(ctx context.Context, key vault.KeyWrapper, homes map[string]vault.Home, home string) (err error) {
	cfg, err := c.databaseConfig(slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	db, drop, err := database.Scratch(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, drop()) }()
	watching, stop := context.WithCancel(ctx)
	defer stop()
	go db.Run(watching)
	v := vault.Config{DB: db, Key: key}
	if home != "" {
		v.Homes, v.HomeOf = homes, func(mandate.GrantKey) string { return home }
	}
	if file, ok := key.(*vault.KeyFile); ok {
		v.SharedKey = file.Shared()
	}
	checked, err := vault.New(v)
	if err != nil {
		return err
	}
	subject := vault.Subject{Vault: checked, Epoch: epoch{db}, Schedule: checked}
	if v.SharedKey != nil {
		subject.Turns = checked
	}
	k := mandate.GrantKey{Cloud: "check"}
	if k.Partner, err = mandate.ParseTenantID(nobody()); err != nil {
		return err
	}
	k.Application = mandate.AppID(k.Partner)
	err = vault.Check(ctx, subject, k)
	return errors.Join(err, emptyHomes(context.WithoutCancel(ctx), checked))
}

// nobody is the ID of a partner that does not exist.
func nobody() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// emptyHomes destroys what a check has left in homes.
func emptyHomes(ctx context.Context, v *vault.SQL) error {
	all, err := v.Grants(ctx, mandate.TenantID{})
	done := make(map[mandate.GrantKey]bool)
	for _, g := range all {
		if !done[g.Key] {
			done[g.Key] = true
			if _, werr := v.Withdraw(ctx, g.Key); werr != nil && !errors.Is(werr, mandate.ErrNoGrant) {
				err = errors.Join(err, werr)
			}
		}
	}
	return errors.Join(err, v.Sweep(ctx))
}

// checkStored finds out whether any value that is stored opens in another's
// place.
func (c *Config) checkStored(ctx context.Context) error {
	a, _, err := c.openVaults(ctx, nil)
	if err != nil {
		return err
	}
	defer a.Close()
	watching, stop := context.WithCancel(ctx)
	defer stop()
	go a.db.Run(watching)
	return vault.CheckMoved(ctx, a.vault)
}
