package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
)

func (c *cli) allowCommand() *cobra.Command {
	var in api.AllowRequest
	cmd := &cobra.Command{
		Use:   "allow PARTNER USER --role ROLE",
		Short: "Let somebody of a partner use its pages",
		Long: `Allow gives somebody of a partner a role on the pages where the partner sees what was
done with its consent:

  viewer      sees the consent, every use of it, and downloads the records
  renewer     and renews it
  withdrawer  and withdraws it

Say it once for each role. USER is an object id of the partner's tenant, because user
names change hands; an administrator of the partner finds it in the Entra admin center
under Users. Admin agents of the partner need no role: as long as its consent works,
Graph is asked who they are.`,
		Example: `  mandate partner allow contoso 99999999-8888-7777-6666-555555555555 --role viewer
  mandate partner allow contoso 99999999-8888-7777-6666-555555555555 --role withdrawer --ticket REQ-4`,
		Args:              words("PARTNER", "USER"),
		ValidArgsFunction: c.complete(0, partnerNames),
		RunE: c.changePartnerUsers(func(ctx context.Context, client *api.Client, partner, user string) ([]mandate.PartnerUser, error) {
			in.User = user
			return client.AllowPartnerUser(ctx, partner, in)
		}),
	}
	cmd.Flags().StringVar(&in.Role, "role", "", "what they may do: "+strings.Join(mandate.PartnerRoles(), ", "))
	_ = cmd.RegisterFlagCompletionFunc("role", c.complete(-1, partnerRoles))
	ticketFlag(cmd, &in.Ticket)
	need(cmd, "role")
	return cmd
}

func partnerRoles(context.Context, *api.Client) ([]string, error) { return mandate.PartnerRoles(), nil }

func (c *cli) disallowCommand() *cobra.Command {
	var in api.DisallowRequest
	cmd := &cobra.Command{
		Use:   "disallow PARTNER USER",
		Short: "Take every role from somebody of a partner",
		Long: `Disallow takes every role on the partner's pages from somebody. It counts with the next
page that they open, also if they are signed in. Whoever is an Admin agent of the
partner keeps what that gives, until the partner itself ends it.`,
		Example:           "  mandate partner disallow contoso 99999999-8888-7777-6666-555555555555",
		Args:              words("PARTNER", "USER"),
		ValidArgsFunction: c.complete(0, partnerNames),
		RunE: c.changePartnerUsers(func(ctx context.Context, client *api.Client, partner, user string) ([]mandate.PartnerUser, error) {
			in.User = user
			return client.DisallowPartnerUser(ctx, partner, in)
		}),
	}
	ticketFlag(cmd, &in.Ticket)
	return cmd
}

func (c *cli) partnerUsersCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "users PARTNER",
		Short: "List who may use a partner's pages",
		Long: `Users lists the people of a partner who were given roles on its pages. Admin agents of
the partner, of whom Graph is asked, are not among them.`,
		Example:           "  mandate partner users contoso",
		Args:              words("PARTNER"),
		ValidArgsFunction: c.complete(0, partnerNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			users, err := client.PartnerUsers(cmd.Context(), args[0])
			return c.showPartnerUsers(args[0], users, err)
		},
	}
}

// showPartnerUsers tells who has roles now.
// changePartnerUsers runs a command about one user, and shows who has roles then.
func (c *cli) changePartnerUsers(do func(ctx context.Context, client *api.Client, partner, user string) ([]mandate.PartnerUser, error)) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		client, err := c.client()
		if err != nil {
			return err
		}
		users, err := do(cmd.Context(), client, args[0], args[1])
		return c.showPartnerUsers(args[0], users, err)
	}
}

func (c *cli) showPartnerUsers(partner string, users []mandate.PartnerUser, err error) error {
	if err != nil {
		return err
	}
	if c.json {
		return c.printJSON(map[string]any{"users": users})
	}
	if len(users) == 0 {
		c.note("Nobody of %s was given a role. Admin agents have access as long as the consent works.", partner)
		return nil
	}
	rows := make([][]cell, 0, len(users))
	for _, u := range users {
		rows = append(rows, []cell{{text: u.User.String()}, {text: strings.Join(u.Roles, ", ")}, {text: day(u.Since)}, {text: u.By}})
	}
	return table(c.out, []string{"USER", "ROLES", "SINCE", "BY"}, rows)
}
