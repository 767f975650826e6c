package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
)

func (c *cli) customerCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "customer",
		Short: "See which customers a partner has",
		Long: `Customer has commands about the customers of partners. Partner Center and the
delegated admin relationships in Graph tell of them; a tenant that neither tells of is
denied, whatever the rules say. The lists are refreshed by themselves, and when somebody
asks for a customer that is not on one, at most once a minute.`,
		Example: "  mandate customer list contoso\n  mandate customer show 11111111-2222-3333-4444-555555555555",
	})
	cmd.AddCommand(c.customerListCommand(), c.customerShowCommand(), c.customerRefreshCommand())
	return cmd
}

func (c *cli) customerListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list PARTNER",
		Short: "List a partner's customers, and how old the list is",
		Long: `List shows the customers of a partner as they are stored, who told of them, and until
when a delegated admin relationship lasts. Those that nobody tells of any more are shown
for another 90 days; they are denied.`,
		Example:           "  mandate customer list contoso\n  mandate customer list contoso --json | jq -r '.customers[].tenant'",
		Args:              words("PARTNER"),
		ValidArgsFunction: c.complete(0, partnerNames),
		RunE: showOne(c, (*api.Client).Customers, func(list api.CustomerList) error {
			rows := make([][]cell, 0, len(list.Customers))
			for i := range list.Customers {
				rows = append(rows, customerRow(&list.Customers[i]))
			}
			if err := table(c.out, []string{"NAME", "DOMAIN", "TENANT", "TOLD BY", "RELATIONSHIP", "UNTIL", "SINCE"}, rows); err != nil {
				return err
			}
			c.noteList(&list)
			return nil
		}),
	}
}

func customerRow(n *mandate.Customer) []cell {
	told := cell{text: strings.Join(n.Sources, ", ")}
	if n.Gone {
		told = cell{"nobody since " + day(n.Last), red}
	}
	return []cell{{text: orDash(n.Name)}, {text: orDash(n.Domain)}, {text: n.Tenant.String()}, told,
		{text: orDash(n.Relationship)}, {text: until(n)}, {text: day(n.First)}}
}

// until says when the relationship with a customer ends.
func until(n *mandate.Customer) string {
	if n.Extends && !n.Ends.IsZero() {
		return day(n.Ends) + ", then extended"
	}
	return day(n.Ends)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// noteList says how old a list is, and what is wrong with it.
func (c *cli) noteList(l *api.CustomerList) {
	if l.AsOf.IsZero() {
		c.note("There is no list of %s's customers yet: every customer is denied.", l.Partner)
	} else {
		c.note("%s customer(s) as of %s, %s ago.", strconv.Itoa(l.Count), minute(l.AsOf), time.Duration(l.Age)*time.Second)
	}
	if l.Fault != "" {
		c.note("Refreshing the list has failed %d time(s): %s", l.Failures, l.Fault)
	}
}

func (c *cli) customerShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show TENANT",
		Short: "Show which partners serve a customer, and through what",
		Long: `Show tells whose customer a tenant is, or was: through which relationship, who told of
it, and until when. A right holds through the partner that a request names, and through
no other. What is consented in the customer's tenant is not known here.`,
		Example: "  mandate customer show 11111111-2222-3333-4444-555555555555",
		Args:    words("TENANT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			tenant, err := mandate.ParseTenantID(args[0])
			if err != nil {
				return usage("%v; see %s --help", err, cmd.CommandPath())
			}
			client, err := c.client()
			if err != nil {
				return err
			}
			served, err := client.Customer(cmd.Context(), tenant)
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(map[string]any{"tenant": tenant, "partners": served})
			}
			return c.printServed(served)
		},
	}
}

func (c *cli) printServed(served []api.Served) error {
	rows := make([][]cell, 0, len(served))
	for i := range served {
		row := customerRow(&served[i].Customer)
		rows = append(rows, append([]cell{{text: served[i].Partner}, row[0]}, row[3:]...))
	}
	return table(c.out, []string{"PARTNER", "NAME", "TOLD BY", "RELATIONSHIP", "UNTIL", "SINCE"}, rows)
}

func (c *cli) customerRefreshCommand() *cobra.Command {
	var in api.ActRequest
	cmd := &cobra.Command{
		Use:   "refresh PARTNER",
		Short: "Ask Microsoft for a partner's customers now",
		Long: `Refresh has the server ask Partner Center and Graph for a partner's customers, with the
partner's own grant, and waits for it. If that fails the list stays as it was, and the
exit status is 1.`,
		Example:           "  mandate customer refresh contoso",
		Args:              words("PARTNER"),
		ValidArgsFunction: c.complete(0, partnerNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			list, err := client.RefreshCustomers(cmd.Context(), args[0], in)
			if err != nil {
				return err
			}
			if c.json {
				if err := c.printJSON(list); err != nil {
					return err
				}
			}
			c.noteList(&list)
			if list.Fault != "" {
				return fmt.Errorf("%w: the list was not refreshed", mandate.ErrUpstream)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&in.Ticket, "ticket", "", "reference for the record")
	return cmd
}
