package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/mandate-sam/mandate/api"
)

func (c *cli) contactCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "contact",
		Short: "Say who is told what happens to a partner's consent",
		Long: `Contact has commands about the mail addresses that are told what happens to a partner's
consent: that another user consented, that it was renewed or withdrawn, that who is told
was changed. Everybody who was told before a change is told of the change.`,
		Example: "  mandate partner contact add contoso security@contoso.example\n  mandate partner contact list contoso",
	})
	cmd.AddCommand(c.contactListCommand(),
		c.contactChange("add", "Have an address told", `Add has an address told from now on, and of this, too. At best several people read what
arrives there. Ask the partner on a way that you know already: whoever chooses the
address hears of everything.`, (*api.Client).AddContact),
		c.contactChange("remove", "Have an address told nothing more", `Remove has an address told nothing more, after a last notice of this.`, (*api.Client).RemoveContact))
	return cmd
}

func (c *cli) contactListCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "list PARTNER",
		Short:             "List who is told",
		Long:              `List shows the addresses that are told what happens to a partner's consent.`,
		Example:           "  mandate partner contact list contoso",
		Args:              words("PARTNER"),
		ValidArgsFunction: c.complete(0, partnerNames),
		RunE:              showOne(c, (*api.Client).Contacts, c.printContacts),
	}
}

// contactChange is a command that changes who is told.
func (c *cli) contactChange(use, short, long string, do func(*api.Client, context.Context, string, api.ContactRequest) (api.ContactList, error)) *cobra.Command {
	var in api.ContactRequest
	cmd := &cobra.Command{
		Use: use + " PARTNER ADDRESS", Short: short, Long: long,
		Example:           "  mandate partner contact " + use + " contoso security@contoso.example",
		Args:              words("PARTNER", "ADDRESS"),
		ValidArgsFunction: c.complete(0, partnerNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			in.Address = args[1]
			client, err := c.client()
			if err != nil {
				return err
			}
			all, err := do(client, cmd.Context(), args[0], in)
			if err != nil {
				return err
			}
			return c.printContacts(all)
		},
	}
	ticketFlag(cmd, &in.Ticket)
	return cmd
}

func (c *cli) printContacts(all api.ContactList) error {
	if c.json {
		return c.printJSON(all)
	}
	if len(all.Contacts) == 0 {
		c.note("Nobody of %s is told anything: mandate partner contact add %s ADDRESS", all.Partner, all.Partner)
		return nil
	}
	rows := make([][]cell, 0, len(all.Contacts))
	for _, a := range all.Contacts {
		rows = append(rows, []cell{{text: string(a.Address)}, {text: day(a.Added)}, {text: string(a.By)}})
	}
	return table(c.out, []string{"ADDRESS", "SINCE", "BY"}, rows)
}
