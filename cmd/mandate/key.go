package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
)

func (c *cli) keyCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "key",
		Short: "Look after the key that seals the grants",
		Long: `Key has commands about the key-encryption key: the one with which the data keys of
sealed grants are wrapped. It is in a key file, in Key Vault or in OpenBao.

To change the key from time to time: rotate, rewrap, and retire the old one. After
a leak: rotate --compromised.`,
		Example: "  mandate key status\n  mandate key rotate && mandate key rewrap",
	})
	cmd.AddCommand(c.keyNewCommand(), c.keyStatusCommand(), c.keyRotateCommand(), c.keyReloadCommand(), c.keyRewrapCommand(), c.keyRetireCommand())
	return cmd
}

func (c *cli) keyNewCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "new FILE",
		Short: "Make a key file",
		Long: `New makes a key file with one key in it, for several replicas: give each a copy. It
needs no server. A file that is there is left as it is.`,
		Example: `  mandate key new /etc/mandate/mandate.key`,
		Args:    words("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			id, err := c.NewKey(args[0])
			if err != nil {
				return err
			}
			return c.printKey(id, "Key %s is in %s. Without it no grant opens: keep a copy where no copy of the database is.", id, args[0])
		},
	}
}

// printKey prints the ID of a key, with a note for a person.
func (c *cli) printKey(id, format string, args ...any) error {
	if c.json {
		return c.printJSON(api.Rotated{KeyID: id})
	}
	c.note(format, args...)
	_, err := fmt.Fprintln(c.out, id)
	return err
}

func (c *cli) keyStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show how much is sealed with which key",
		Long: `Status shows every key with which something is sealed: how many grants, how many
access tokens that replicas share, and how many of the server's own keys: that
with which the security state is verified, and that of personal data in the audit
log. A key with which nothing is sealed any more is needed for backups only.`,
		Example: "  mandate key status",
		Args:    words(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			st, err := client.Keys(cmd.Context())
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(st)
			}
			return c.printKeys(st)
		},
	}
}

func (c *cli) printKeys(st api.KeyStatus) error {
	var rows [][]cell
	for _, k := range st.Keys {
		state := cell{"earlier", yellow}
		switch {
		case k.ID == st.Current:
			state = cell{"current", green}
		case k.ID == st.Shared:
			state = cell{"current, of shared tokens", green}
		case !k.Here:
			state = cell{"MISSING", red}
		case k.Grants == 0 && k.Tokens > 0:
			state = cell{text: "of shared tokens"}
		}
		rows = append(rows, []cell{{text: k.ID}, state, {text: fmt.Sprint(k.Grants)}, {text: fmt.Sprint(k.Tokens)}, {text: fmt.Sprint(k.Own)}})
	}
	c.note("The keys are in %s", st.Where)
	return table(c.out, []string{"KEY", "STATE", "GRANTS", "SHARED TOKENS", "OWN KEYS"}, rows)
}

// compromised says what no rotation mends.
const compromised = `What this does not mend: whoever has the old key and an old copy of what it sealed
can open that for ever. Such copies are backups, the database's write-ahead log,
copies of the database, earlier versions in a vault. What they get is refresh
tokens, which are worth something only together with the application's credential.
So, in this order:
  1. replace the application's credential, and have Entra refuse the old one:
     mandate credential rotate APPLICATION --compromised. Old refresh tokens are
     of no use to anybody without it;
  2. have the grants below renewed: mandate partner invite NAME, and tell the
     partner that the account may be known to others;
  3. destroy the backups that the old key opens.`

func (c *cli) keyRotateCommand() *cobra.Command {
	var leaked, shared bool
	var file string
	cmd := &cobra.Command{
		Use:   "rotate [--compromised] [--shared-file]",
		Short: "Make a new key, with which everything is sealed from now on",
		Long: `Rotate makes a new key, where the keys are, and also one for the access tokens that
replicas share, where they have a key of their own. What was sealed before stays
under the old key, which still opens it, until it is rewrapped.

Replicas that each have a copy of a key file: rotate one copy with --file, which
needs no server; bring it to every replica; then "mandate key reload". If all of
them read the very same file, say --shared-file instead.

With --compromised everything is sealed anew at once, with new data keys, and you
are told what that does not mend and which grants to renew.`,
		Example: "  mandate key rotate\n  mandate key rotate --file /etc/mandate/mandate.key\n  mandate key rotate --compromised",
		Args:    words(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file != "" {
				if leaked || shared {
					return usage("--file does not go with --compromised or --shared-file: it only changes that file")
				}
				id, err := c.RotateKey(file)
				if err != nil {
					return err
				}
				return c.printKey(id, "Key %s is in %s. Bring the file to every replica, and then: mandate key reload", id, file)
			}
			return c.rotate(cmd, shared, leaked)
		},
	}
	cmd.Flags().BoolVar(&leaked, "compromised", false, "somebody else may have the key: new data keys, too")
	cmd.Flags().BoolVar(&shared, "shared-file", false, "all replicas read the very same key file")
	cmd.Flags().StringVar(&file, "file", "", "only put a new key into this key file; needs no server")
	_ = cmd.MarkFlagFilename("file")
	return cmd
}

func (c *cli) rotate(cmd *cobra.Command, shared, leaked bool) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	r, err := client.RotateKey(cmd.Context(), api.RotateRequest{Shared: shared})
	if err != nil {
		return err
	}
	if !leaked {
		return c.printRotated(r)
	}
	c.note("Everything is sealed with key %s from now on.", r.KeyID)
	c.noteShared(r)
	if err := c.rewrap(cmd, client, true); err != nil {
		return err
	}
	grants, err := client.Grants(cmd.Context())
	if err != nil {
		return err
	}
	var names []string
	for _, g := range grants {
		if g.Grant != nil && (g.Grant.State == mandate.StateActive || g.Grant.State == mandate.StateSuspended) {
			names = append(names, g.Partner)
		}
	}
	if c.json {
		return c.printJSON(map[string]any{"key_id": r.KeyID, "renew": names, "not_mended": compromised})
	}
	fmt.Fprintln(c.err, compromised)
	for _, n := range names {
		fmt.Fprintln(c.out, n)
	}
	return nil
}

// printRotated prints the IDs of the new keys.
func (c *cli) printRotated(r api.Rotated) error {
	if c.json {
		return c.printJSON(r)
	}
	c.note("Everything is sealed with key %s from now on. To bring over what was sealed before: mandate key rewrap", r.KeyID)
	c.noteShared(r)
	_, err := fmt.Fprintln(c.out, r.KeyID)
	return err
}

// noteShared says what became of the key of shared tokens, if that is another.
func (c *cli) noteShared(r api.Rotated) {
	if r.SharedKeyID != "" {
		c.note("What replicas share is sealed with key %s.", r.SharedKeyID)
	}
	if r.Left != "" {
		c.note("But %s.", r.Left)
	}
}

func (c *cli) keyReloadCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "reload",
		Short: "Have every replica read its key file again",
		Long: `Reload has every replica read its key file again, and seal with the first key in it
from then on. A replica that meets a key that it does not have does so by itself.`,
		Example: "  mandate key reload",
		Args:    words(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			if err := client.ReloadKeys(cmd.Context()); err != nil {
				return err
			}
			st, err := client.Keys(cmd.Context())
			if err != nil {
				return err
			}
			return c.printKey(st.Current, "Everything is sealed with key %s from now on.", st.Current)
		},
	}
}

func (c *cli) keyRewrapCommand() *cobra.Command {
	var leaked bool
	cmd := &cobra.Command{
		Use:   "rewrap [--compromised]",
		Short: "Bring everything under the current key",
		Long: `Rewrap brings everything that is sealed with an earlier key under the current one,
while tokens are served. It may be interrupted and begun again: it goes on where it
ended. What could not be brought over is told, and stays under the old key.`,
		Example: "  mandate key rewrap",
		Args:    words(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			if err := c.rewrap(cmd, client, leaked); err != nil {
				return err
			}
			st, err := client.Keys(cmd.Context())
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(st)
			}
			return c.printKeys(st)
		},
	}
	cmd.Flags().BoolVar(&leaked, "compromised", false, "seal everything anew, with new data keys")
	return cmd
}

func (c *cli) rewrap(cmd *cobra.Command, client *api.Client, leaked bool) error {
	last := time.Now()
	err := client.Rewrap(cmd.Context(), api.RewrapRequest{Compromised: leaked}, func(done, total int) {
		if done == total || time.Since(last) > time.Second {
			last = time.Now()
			c.note("%d of %d", done, total)
		}
	})
	if err == nil || errors.Is(err, api.ErrUnreachable) {
		return err
	}
	return fmt.Errorf("not everything is under the current key: %w", err)
}

func (c *cli) keyRetireCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "retire KEY",
		Short: "Take a key out of the key file for good",
		Long: `Retire takes a key with which nothing is sealed any more out of the key file. What
is still sealed with it elsewhere, in backups, never opens again: keep a copy of
the file for as long as you keep those. A key that still seals something is refused.
Where replicas have copies of the file, say it on each.`,
		Example: "  mandate key retire k4tq2m7xw3zga",
		Args:    words("KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			if err := client.RetireKey(cmd.Context(), args[0]); err != nil {
				return err
			}
			return c.printKey(args[0], "Key %s is gone.", args[0])
		},
	}
}
