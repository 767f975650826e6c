package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mandate-sam/mandate/api"
)

func (c *cli) credentialCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "credential",
		Short: "Look after the credentials of the applications at Entra",
		Long: `Credential has commands about the credential by which an application proves itself
to Entra: the certificate or the secret without which no refresh token is of use.

From time to time, and before it ends: rotate. After a leak: rotate --compromised.`,
		Example: "  mandate credential status\n  mandate credential rotate marketplace",
	})
	cmd.AddCommand(c.credentialStatusCommand(), c.credentialRotateCommand())
	return cmd
}

func (c *cli) credentialStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status [APPLICATION]",
		Short: "Show the credentials, and what Entra has beside them",
		Long: `Status shows the credential of each application, how far a rotation has come, and
what Entra has: a credential there that nobody here knows may be an attacker's.
Entra is asked as the application itself, which needs home_tenant in the
configuration and the application permission Application.ReadWrite.OwnedBy.`,
		Example:           "  mandate credential status marketplace",
		Args:              words("[APPLICATION]"),
		ValidArgsFunction: c.complete(0, applications),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			all, err := client.Credentials(cmd.Context(), strings.Join(args, ""))
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(map[string]any{"credentials": all})
			}
			for i := range all {
				if err := c.printCredential(&all[i]); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func (c *cli) printCredential(st *api.CredentialStatus) error {
	c.note("%s: %s, ends %s", st.Application, st.Where, day(st.Expires))
	if r := st.Rotation; r != nil {
		done := r.Done
		if done == "" {
			done = "nothing"
		}
		c.note("  rotation %s, begun %s; done: %s", r.ID, moment(r.Begun), done)
	}
	if st.Unasked != "" {
		c.note("  what Entra has is not known: %s", st.Unasked)
	}
	for _, w := range st.Warnings {
		c.note("  WARNING: %s", w)
	}
	rows := [][]cell{}
	for _, e := range st.Entra {
		ours := cell{e.Ours, green}
		if e.Ours == "" {
			ours = cell{"UNKNOWN", red}
		}
		mark := e.Thumbprint
		if e.Kind == "secret" {
			mark = e.Hint + "…"
		}
		rows = append(rows, []cell{{text: st.Application}, ours, {text: e.Kind}, {text: e.KeyID}, {text: mark}, {text: day(e.Start)}, {text: day(e.End)}, {text: e.Name}})
	}
	if len(rows) == 0 {
		rows = append(rows, []cell{{text: st.Application}, {"in use", green}, {text: st.Kind}, {text: "-"}, {text: st.ID}, {text: "-"}, {text: day(st.Expires)}, {text: ""}})
	}
	return table(c.out, []string{"APPLICATION", "", "KIND", "KEY ID", "MARK", "FROM", "UNTIL", "NAME"}, rows)
}

const rotateLong = `Rotate replaces the credential of an application while tokens are served:

  make      a new credential, stored durably before anybody hears of it
  register  it with Entra, beside the old one
  prove     that Entra takes it, several times in a row
  switch    to it; nothing is restarted
  gather    the other replicas: each needs its file, and takes it by itself
  remove    the old one at Entra
  refuse    is what Entra must do with the old one now, several times in a row
  finish    by destroying the copy of it

Each step is recorded before it is done. What is interrupted goes on where it
ended when the command is given again; until the old one is removed, --undo takes
everything back, and so does the server if a step cannot succeed. No grant is
touched.

The application changes its own registration: that takes home_tenant in the
configuration, the application permission Application.ReadWrite.OwnedBy, and the
application among its own owners. With --by-hand you do it in the portal, and the
command waits for it, however long that takes.

With --compromised the old one is not kept, and you are told which grants to renew.`

func (c *cli) credentialRotateCommand() *cobra.Command {
	var in api.CredentialRequest
	var keep time.Duration
	cmd := &cobra.Command{
		Use:               "rotate APPLICATION [--compromised] [--keep-old 24h] [--by-hand] [--undo]",
		Short:             "Replace the credential of an application, or go on with it",
		Long:              rotateLong,
		Example:           "  mandate credential rotate marketplace\n  mandate credential rotate marketplace --compromised\n  mandate credential rotate marketplace --keep-old 24h",
		Args:              words("APPLICATION"),
		ValidArgsFunction: c.complete(0, applications),
		RunE: func(cmd *cobra.Command, args []string) error {
			if in.Kind != "" && in.Kind != "certificate" && in.Kind != "secret" {
				return usage("--kind is certificate or secret, not %q", in.Kind)
			}
			client, err := c.client()
			if err != nil {
				return err
			}
			in.Application, in.KeepOldSecs = args[0], int64(keep/time.Second)
			return client.RotateCredential(cmd.Context(), in, c.printCredentialLine)
		},
	}
	f := cmd.Flags()
	f.StringVar(&in.Kind, "kind", "", "certificate or secret: refuse if it is the other")
	f.BoolVar(&in.Compromised, "compromised", false, "somebody else may have the old one")
	f.DurationVar(&keep, "keep-old", 0, "leave the old one valid beside the new for so long, such as 24h; then give the command again")
	f.BoolVar(&in.ByHand, "by-hand", false, "say what to do in the portal, and wait for it")
	f.BoolVar(&in.ByHand, "print", false, "the same as --by-hand")
	f.BoolVar(&in.ReplicasDone, "replicas-done", false, "every replica has the new one, whatever is known of them")
	f.BoolVar(&in.Undo, "undo", false, "take a rotation back, as long as the old one works")
	_ = f.MarkHidden("print")
	return cmd
}

func (c *cli) printCredentialLine(l api.CredentialLine) {
	switch {
	case c.json:
		_ = c.printJSON(l)
	case l.Grant != nil && l.Grant.Renew:
		fmt.Fprintf(c.out, "%s generation %d (%s)\n", clean(l.Grant.Partner), l.Grant.Generation, clean(l.Grant.State))
		c.note("    renew it (mandate partner invite %s): %s", l.Grant.Partner, l.Grant.Why)
	case l.Grant != nil:
		fmt.Fprintf(c.out, "%s generation %d (%s)\n", clean(l.Grant.Partner), l.Grant.Generation, clean(l.Grant.State))
	case l.Text != "" && l.TookMS > 0:
		c.note("%-9s %s (%v)", l.Step, l.Text, (time.Duration(l.TookMS) * time.Millisecond).Round(100*time.Millisecond))
	case l.Text != "":
		for n, text := range strings.Split(strings.TrimRight(l.Text, "\n"), "\n") {
			if n == 0 {
				c.note("%-9s %s …", l.Step, text)
			} else {
				fmt.Fprintln(c.err, clean(text))
			}
		}
	}
}
