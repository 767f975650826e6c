package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/internal/app"
	"github.com/mandate-sam/mandate/internal/database"
)

func (c *cli) lockdownCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "lockdown",
		Short: "Shut everything: no token is handed out",
		Long: `Lockdown has commands that shut the whole system and open it again. While there is
a lockdown no token is handed out by any replica, and no call is made; callers are
told why, and by whom. Consents, and everything that tightens, go on.`,
		Example: "  mandate lockdown on \"a laptop was stolen\"\n  mandate lockdown status",
	})
	on := &cobra.Command{
		Use: "on REASON", Short: "Begin a lockdown",
		Long: `On begins a lockdown. It is in force in every replica within a second. Tokens that were
handed out before stay good until they expire; how many those are, and until when, is
told.`,
		Example: `  mandate lockdown on "a laptop was stolen"`,
		Args:    words("REASON"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.locks(func(client *api.Client) (api.LockStatus, error) {
				return client.Lock(cmd.Context(), api.LockRequest{Reason: args[0]})
			})
		},
	}
	off := &cobra.Command{
		Use: "off", Short: "End the lockdown",
		Long: `Off ends the lockdown. After a restore, "mandate restore --finish" comes first: what
has not been probed stays suspended.`,
		Example: "  mandate lockdown off",
		Args:    words(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.locks(func(client *api.Client) (api.LockStatus, error) { return client.Unlock(cmd.Context()) })
		},
	}
	status := &cobra.Command{
		Use: "status", Short: "Tell whether there is a lockdown",
		Long: `Status tells whether there is a lockdown, since when, by whom and why, and how many
tokens that were handed out before are still alive.`,
		Example: "  mandate lockdown status --json",
		Args:    words(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.locks(func(client *api.Client) (api.LockStatus, error) { return client.Lockdown(cmd.Context()) })
		},
	}
	cmd.AddCommand(on, off, status)
	return cmd
}

func (c *cli) locks(do func(*api.Client) (api.LockStatus, error)) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	st, err := do(client)
	if err != nil {
		return err
	}
	if c.json {
		return c.printJSON(st)
	}
	text := "open: tokens are handed out as the rules say"
	if st.Locked {
		text = clean((&mandate.LockedError{Lockdown: *st.Lockdown}).Error())
	}
	if _, err = fmt.Fprintln(c.out, text); err != nil {
		return err
	}
	switch {
	case st.Unknown != "":
		c.note("How many tokens that were handed out before are still alive is not known: %s", st.Unknown)
	case st.Alive != nil && *st.Alive > 0:
		c.note("%d token(s) that were handed out before stay good, the last until %s.", *st.Alive, moment(st.Until))
	case st.Alive != nil:
		c.note("No token that was handed out before is alive.")
	}
	return nil
}

func (c *cli) backupCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "backup {FILE | DIRECTORY}",
		Short: "Copy everything that is kept, while the server runs",
		Long: `Backup writes one consistent copy of partners, callers, invitations and grants to a
new file, which only you can read. The grants in it are sealed as they are in the
database. It has no key, no certificate, no access token and no sign-in: keep the
key somewhere else, because the copy is worth nothing without it, and whoever has
both has the grants. The audit log is a file of its own, which you copy as well.

Into a directory that has the key file in it, nothing is written.`,
		Example: "  mandate backup /var/backups/mandate\n  mandate backup /mnt/usb/mandate.backup",
		Args:    words("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			path, err := backupPath(args[0])
			if err != nil {
				return err
			}
			h, err := writeBackup(path, func(w io.Writer) error { return client.Backup(cmd.Context(), filepath.Dir(path), w) })
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(map[string]any{"file": path, "backup": h})
			}
			c.note("Everything as of epoch %d, %s. Check now and then that it restores.", h.Epoch, moment(h.Created))
			_, err = fmt.Fprintln(c.out, path)
			return err
		},
	}
}

// backupPath returns the file that a backup goes to, which must be new.
func backupPath(arg string) (string, error) {
	path, err := filepath.Abs(arg)
	if err != nil {
		return "", err
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		path = filepath.Join(path, time.Now().UTC().Format("mandate-20060102T150405Z.backup"))
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		path = filepath.Join(dir, filepath.Base(path))
	}
	if _, err := os.Lstat(path); err == nil {
		return "", fmt.Errorf("%w: %s", mandate.ErrExists, path)
	}
	return path, nil
}

// writeBackup writes a file that is whole, or not there.
func writeBackup(path string, write func(io.Writer) error) (h database.DumpHeader, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".backup-*") // 0600
	if err != nil {
		return h, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := write(f); err != nil {
		return h, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return h, err
	}
	if h, err = database.CheckDump(f); err != nil {
		return h, err
	}
	if err := f.Sync(); err != nil {
		return h, err
	}
	return h, os.Link(f.Name(), path)
}

func (c *cli) restoreCommand() *cobra.Command {
	var config string
	var logs []string
	var finish, accept bool
	cmd := &cobra.Command{
		Use:   "restore {BACKUP --config FILE [--audit FILE]... | --finish | --accept-rollback --config FILE}",
		Short: "Bring a backup back",
		Long: `Restore brings a backup into the empty database that a configuration names, while
no server runs: SQLite or PostgreSQL, whichever the backup is of. Nothing is served
from it yet: there is a lockdown, and every grant is suspended.

What was changed after the backup was made is not in it. Restore reads the audit log
in the data directory, and every other that you name with --audit, lists what they
say was changed since, and keeps withdrawn what they say was withdrawn.

Then start the server, and say "mandate restore --finish": each grant is redeemed
once at the partner's own tenant, and serves again if Entra still takes it for the
user who consented. The lockdown is yours to end, when you have looked at the list.

A server whose database was altered by somebody else, or went back to an older state,
serves nothing and says why. If you know who did it, and what is in the database is
what you want, say --accept-rollback on the server's host while no server runs: what
is there counts from then on, and is listed; every grant is suspended, and is probed
when you resume it. Say it on the other replicas' hosts afterwards, too.`,
		Example: `  mandate restore mandate.backup --config mandate.yaml --audit /mnt/log/export.jsonl
  mandate restore --finish && mandate lockdown off
  mandate restore --accept-rollback --config mandate.yaml`,
		Args: words("[BACKUP]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case accept && (len(args) > 0 || finish || len(logs) > 0):
				return usage("--accept-rollback takes --config and nothing else; see %s --help", cmd.CommandPath())
			case finish && (len(args) > 0 || config != "" || len(logs) > 0):
				return usage("--finish takes nothing else; see %s --help", cmd.CommandPath())
			case finish:
				return c.finishRestore(cmd)
			case accept && config != "":
				return c.acceptRollback(cmd, config)
			case len(args) == 0 && !accept:
				return usage("BACKUP is missing; see %s --help", cmd.CommandPath())
			case config == "":
				return usage("--config is required; see %s --help", cmd.CommandPath())
			}
			r, err := c.Restore(cmd.Context(), config, args[0], logs)
			if err != nil {
				return err
			}
			return c.printRestoration(r)
		},
	}
	cmd.Flags().StringVar(&config, "config", "", "configuration of the server that is to serve it")
	cmd.Flags().StringArrayVar(&logs, "audit", nil, "directory of an audit log, or an export of one, that is newer than the backup")
	cmd.Flags().BoolVar(&accept, "accept-rollback", false, "take a database that was altered, or went back, as it is")
	cmd.Flags().BoolVar(&finish, "finish", false, "probe the restored grants, on the running server")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml")
	return cmd
}

func (c *cli) printRestoration(r app.Restoration) error {
	if c.json {
		return c.printJSON(r)
	}
	c.note("Restored %d partner(s) and %d caller(s) as of %s, under epoch %d. %d audit record(s) were read.",
		r.Partners, r.Callers, moment(r.Backup.Created), r.Epoch, r.Records)
	if r.Records == 0 {
		c.note("No audit log was read, so nobody knows what was withdrawn, removed or changed after that. If there is one, or an export of it, empty the database and begin again with --audit.")
	}
	var rows [][]cell
	for _, g := range r.Grants {
		state := cell{"suspended", yellow}
		if !g.Suspended {
			state = cell{"gone", red}
		}
		rows = append(rows, []cell{{text: g.Partner.String()}, {text: g.UserName}, {text: fmt.Sprint(g.Generation)}, state, {text: g.Text}})
	}
	err := table(c.out, []string{"PARTNER", "BY", "GENERATION", "STATE", "WHY"}, rows)
	if len(r.Since) > 0 {
		c.note("Changed after the backup, and not in it:")
		for _, s := range r.Since {
			c.note("  %s", s)
		}
	}
	c.note("Everything is locked down. Start the server, then: mandate restore --finish, and mandate lockdown off.")
	return err
}

func (c *cli) finishRestore(cmd *cobra.Command) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	all := []api.ReleasedGrant{}
	err = client.Release(cmd.Context(), func(g api.ReleasedGrant) {
		all = append(all, g)
		if !c.json {
			fmt.Fprintf(c.out, "%s %s\n", clean(g.Partner), clean(g.Text))
		}
	})
	if c.json {
		err = errors.Join(c.printJSON(map[string]any{"grants": all}), err)
	}
	if err == nil {
		c.note("Nothing waits for a probe any more. To hand out tokens again: mandate lockdown off")
	}
	return err
}

func (c *cli) vaultCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "vault",
		Short: "Move what is kept to another place, and check places",
		Long: `Vault has commands about where grants are kept: the database, Key Vault, OpenBao.
They need no server.`,
		Example: "  mandate vault check --config mandate.yaml",
	})
	cmd.AddCommand(c.vaultCopyCommand(), c.vaultCheckCommand())
	return cmd
}

func (c *cli) vaultCopyCommand() *cobra.Command {
	var from, to string
	cmd := &cobra.Command{
		Use:   "copy --from FILE --to FILE",
		Short: "Bring everything to another database, other homes, other keys",
		Long: `Copy brings everything that the server of one configuration keeps to where another
configuration keeps it: from SQLite to PostgreSQL, from the database to Key Vault or
OpenBao and back, under other keys. Nothing newer is overwritten and nothing that is
there already is changed, so it may be interrupted and begun again.

Between two databases no server may run. Where both configurations name the same
database only sealed tokens move: the old home belongs into grants.former of the new
configuration.`,
		Example: "  mandate vault copy --from sqlite.yaml --to postgresql.yaml",
		Args:    words(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			n := 0
			err := c.Move(cmd.Context(), from, to, func(done, total int) {
				if n = total; done%100 == 0 || done == total {
					c.note("%d of %d", done, total)
				}
			})
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(map[string]int{"grants": n})
			}
			_, err = fmt.Fprintf(c.out, "%d partner(s)' grants are where %s keeps them\n", n, to)
			return err
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "configuration of where everything is")
	cmd.Flags().StringVar(&to, "to", "", "configuration of where it is to be")
	need(cmd, "from", "to")
	return cmd
}

func (c *cli) vaultCheckCommand() *cobra.Command {
	var config string
	cmd := &cobra.Command{
		Use:   "check --config FILE",
		Short: "Test keys, homes and the database of a configuration",
		Long: `Check runs the tests that every keeper of grants must pass against those that a
configuration names: that its keys seal, that its homes keep and destroy, that its
database keeps apart what must be apart. It works with names, and in a database, of
its own, and removes them. What is kept already is only read.`,
		Example: "  mandate vault check --config mandate.yaml",
		Args:    words(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var all []app.Finding
			if err := c.Conform(cmd.Context(), config, func(f app.Finding) { all = append(all, f) }); err != nil {
				return err
			}
			return c.printFindings(all)
		},
	}
	cmd.Flags().StringVar(&config, "config", "", "configuration file")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml")
	need(cmd, "config")
	return cmd
}

// printFindings prints what was found; what is wrong is an error.
func (c *cli) printFindings(findings []app.Finding) error {
	var wrong []string
	rows := make([][]cell, 0, len(findings))
	for _, f := range findings {
		mark := cell{"ok", green}
		if !f.OK {
			mark = cell{"WRONG", red}
			wrong = append(wrong, f.Subject)
		}
		rows = append(rows, []cell{mark, {text: f.Subject}, {text: f.Message}})
	}
	var err error
	if c.json {
		err = c.printJSON(map[string]any{"ok": len(wrong) == 0, "findings": findings})
	} else {
		err = table(c.out, []string{"", "WHAT", ""}, rows)
	}
	if err == nil && len(wrong) > 0 {
		err = errors.New("wrong: " + strings.Join(wrong, ", "))
	}
	return err
}
