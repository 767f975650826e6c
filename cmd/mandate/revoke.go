package main

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mandate-sam/mandate/api"
)

func (c *cli) revokeCommand() *cobra.Command {
	var in api.RevokeRequest
	var sure bool
	cmd := &cobra.Command{
		Use:   "revoke [--partner P] [--customer TENANT] [--caller C] [--audience A] [--everything] --reason TEXT",
		Short: "Hand out nothing more for a partner, customer, caller, audience, or at all",
		Long: `Revoke shuts a part of what is handed out, whatever the policy says, until you lift
it again. What is covered is what fits all that you name: --partner contoso
--customer TENANT is that customer through that partner alone. --everything covers
everything; you are asked to type the word, unless you say --yes.

--customer covers tokens for that tenant, and calls that this server makes and whose
path names it. Where a rule gives callers tokens of the partner's own tenant
(@customers("all")), these reach every customer at Partner Center: to stop them, too,
revoke --partner P --audience partnercenter.

It is in force in every replica within a second, tokens in caches included, and the
audit log has no token after it. Nothing is destroyed. Tokens that were handed out
before stay good until they expire; how many those are, and until when, is told.

A partner and an audience must be known. A caller or customer that is not is revoked
all the same, and you are told that nothing of that name is known here (not of people,
oid:…, whom only your identity provider knows).`,
		Example: `  mandate revoke --caller billing --reason "its host was broken into"
  mandate revoke --partner contoso --customer 11111111-2222-3333-4444-555555555555 --reason INC-7
  mandate revoke list
  mandate revoke lift abcdefghij`,
		Args: words(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			some := in.Partner+in.Customer+in.Caller+in.Audience != ""
			if in.Everything == some {
				return usage("say what: one or more of --partner, --customer, --caller and --audience, or --everything alone; see %s --help", cmd.CommandPath())
			}
			if in.Everything && !sure {
				if err := c.confirmEverything(); err != nil {
					return err
				}
			}
			out, err := client.Revoke(cmd.Context(), in)
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(out)
			}
			c.note("Revoked. It is in force in every replica within a second, and lifted with: mandate revoke lift %s", out.ID)
			if err := c.printRevocations([]api.Revoked{out}); err != nil {
				return err
			}
			for _, n := range out.NotKnown {
				c.note("But %s", n.Text)
			}
			if out.NotKnown != nil {
				c.note("It is in force all the same. If you meant something else, revoke that, and lift this.")
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&in.Partner, "partner", "", "short name or tenant ID of a partner")
	f.StringVar(&in.Customer, "customer", "", "tenant ID of a customer, or of a partner for its own tenant")
	f.StringVar(&in.Caller, "caller", "", "name of a caller")
	f.StringVar(&in.Audience, "audience", "", "alias or resource URI of an API")
	f.BoolVar(&in.Everything, "everything", false, "all of it")
	f.StringVar(&in.Reason, "reason", "", "one line, which callers are told")
	f.BoolVar(&sure, "yes", false, "do not ask")
	need(cmd, "reason")
	_ = cmd.RegisterFlagCompletionFunc("partner", c.complete(0, partnerNames))
	cmd.AddCommand(c.revokeListCommand(), c.revokeLiftCommand())
	return cmd
}

// confirmEverything wants the word to be typed.
func (c *cli) confirmEverything() error {
	fmt.Fprint(c.err, "Nobody gets a token any more, until this is lifted. Type everything to go on: ")
	line, err := bufio.NewReader(io.LimitReader(c.in, 1<<10)).ReadString('\n')
	if err != nil && err != io.EOF {
		return err
	}
	if strings.TrimSpace(line) != "everything" {
		fmt.Fprintln(c.err)
		return usage("the word was not typed, so nothing was done; say --yes where nobody can type")
	}
	return nil
}

func (c *cli) revokeListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List what is revoked",
		Long: `List shows every revocation in force, the oldest first, and how many tokens that were
handed out within its reach are still alive.`,
		Example: "  mandate revoke list --json",
		Args:    words(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			all, err := client.Revocations(cmd.Context())
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(map[string]any{"revocations": all})
			}
			return c.printRevocations(all)
		},
	}
}

func (c *cli) printRevocations(all []api.Revoked) error {
	rows := make([][]cell, 0, len(all))
	for i := range all {
		r := &all[i]
		what := r.Reach.String()
		if r.PartnerName != "" {
			what = strings.Replace(what, r.Reach.Partner.Partner.String(), r.PartnerName, 1)
		}
		for _, n := range r.NotKnown {
			what += " (" + n.Field + " not known)"
		}
		alive := "none"
		switch {
		case r.Unknown != "":
			alive = "not known"
		case r.Alive > 0:
			alive = fmt.Sprintf("%d, until %s", r.Alive, moment(r.Until))
		}
		rows = append(rows, []cell{{text: r.ID}, {text: what}, {text: moment(r.Since)}, {text: string(r.By)}, {text: r.Reason}, {text: alive}})
	}
	return table(c.out, []string{"ID", "WHAT", "SINCE", "BY", "REASON", "STILL ALIVE"}, rows)
}

func (c *cli) revokeLiftCommand() *cobra.Command {
	return &cobra.Command{
		Use: "lift ID", Short: "End a revocation",
		Long:    `Lift ends a revocation: what it covered is for the policy to decide again.`,
		Example: "  mandate revoke lift abcdefghij",
		Args:    words("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.client()
			if err == nil {
				err = client.Lift(cmd.Context(), args[0])
			}
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(map[string]string{"lifted": args[0]})
			}
			c.note("Lifted.")
			return nil
		},
	}
}
