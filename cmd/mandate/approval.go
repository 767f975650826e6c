package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
)

func (c *cli) approvalCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "approval",
		Short: "Say yes or no where a second person must agree",
		Long: `Approval has commands for second people. A rule with @approval wants one to agree
before a caller is given what it asks for; and the configuration names the acts of
operators for which another must agree first (operators.second_person).

What is asked is exact: a yes is for that caller, partner, tenant, API, scopes, purpose
and ticket, or for that command with those arguments, and for nothing else. It ends by
itself. Who asked, and who registered the caller that asks, cannot be the second person;
and neither can a host account, once operators sign in.`,
		Example: "  mandate approval list\n  mandate approval show k7q2m4xabc\n  mandate approval give k7q2m4xabc",
	})
	cmd.AddCommand(c.approvalListCommand(), c.approvalShowCommand(), c.approvalGiveCommand(), c.approvalRefuseCommand(), c.approvalWithdrawCommand())
	return cmd
}

func (c *cli) approvalListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List what is asked, and what was said",
		Long: `List shows what second people are asked, what they agreed to and what they refused, the
oldest first. What has ended is in the audit log.`,
		Example: "  mandate approval list",
		Args:    words(),
		RunE: showAll(c, "approvals", (*api.Client).Approvals, func(all []mandate.Approval) error {
			rows := make([][]cell, 0, len(all))
			for i := range all {
				a := &all[i]
				rows = append(rows, []cell{{text: a.ID}, approvalState(a), {text: string(a.Caller)}, {text: approvalAbout(a)}, {text: string(a.By)}, {text: minute(a.Expires)}})
			}
			return table(c.out, []string{"ID", "STATE", "WHO ASKS", "WHAT", "DECIDED BY", "ENDS"}, rows)
		}),
	}
}

func approvalState(a *mandate.Approval) cell {
	return cell{string(a.State), map[mandate.ApprovalState]paint{mandate.ApprovalWanted: yellow, mandate.ApprovalGiven: green, mandate.ApprovalRefused: red}[a.State]}
}

// approvalAbout says in a line what is asked; show says all of it.
func approvalAbout(a *mandate.Approval) string {
	if a.Act != "" {
		return a.Act + " " + a.Detail
	}
	return strings.Join(strings.Fields(fmt.Sprintf("%s %s %s %s for %s %s", a.Use, a.Method, a.Partner, a.Audience, a.Purpose, a.Ticket)), " ")
}

func (c *cli) approvalShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show ID",
		Short: "Show all that a yes would be for",
		Long: `Show tells all that a yes would be for: in whatever else another request differs, it
is another question. Of a policy that is to be applied it tells the version, which
"mandate policy diff PATH" prints of the files that you have.`,
		Example:           "  mandate approval show k7q2m4xabc",
		Args:              words("ID"),
		ValidArgsFunction: c.complete(0, approvalIDs),
		RunE:              showOne(c, (*api.Client).Approval, func(a mandate.Approval) error { return c.printApproval(&a) }),
	}
}

func (c *cli) printApproval(a *mandate.Approval) error {
	rows := [][]cell{{{text: "state"}, approvalState(a)}}
	add := func(name, text string) {
		if text != "" {
			rows = append(rows, plain(name, text))
		}
	}
	add("who asks", string(a.Caller))
	add("command", a.Act)
	add("with", a.Detail)
	add("digest", a.Content)
	add("rule", a.Rule)
	add("use", string(a.Use))
	add("partner", a.Partner)
	if a.Act == "" {
		add("tenant", a.Tenant.String())
		add("scopes", cmp.Or(strings.Join(a.Scopes, " "), "all that was consented"))
	}
	add("audience", string(a.Audience))
	add("purpose", a.Purpose)
	add("ticket", a.Ticket)
	add("call", strings.TrimSpace(a.Method+" "+a.Path))
	add("asked", minute(a.Wanted))
	if a.State == mandate.ApprovalWanted {
		add("lasts", (time.Duration(a.Lasts) * time.Second).String())
	} else {
		add("decided", minute(a.Decided))
		add("by", string(a.By))
	}
	add("ends", minute(a.Expires))
	return table(c.out, []string{"APPROVAL", a.ID}, rows)
}

func approvalIDs(ctx context.Context, client *api.Client) ([]string, error) {
	all, err := client.Approvals(ctx)
	var ids []string
	for i := range all {
		ids = append(ids, all[i].ID)
	}
	return ids, err
}

// decide is a command that says something about an approval.
func (c *cli) decide(cmd *cobra.Command, say func(*api.Client, context.Context, string) (mandate.Approval, error), note string) *cobra.Command {
	cmd.Args = words("ID")
	cmd.ValidArgsFunction = c.complete(0, approvalIDs)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		client, err := c.client()
		if err != nil {
			return err
		}
		a, err := say(client, cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if c.json {
			return c.printJSON(a)
		}
		c.note(note, a.ID, minute(a.Expires))
		return nil
	}
	return cmd
}

func (c *cli) approvalGiveCommand() *cobra.Command {
	return c.decide(&cobra.Command{
		Use:   "give ID",
		Short: "Say yes, as a second person",
		Long: `Give says yes: to exactly what "mandate approval show" tells, for as long as it tells.
A caller is given what it asks for, as often as it asks, until then. An operator's act is
done when the operator gives the same command again, once.

It needs the role security and a sign-in that is less than ten minutes old.`,
		Example: "  mandate approval give k7q2m4xabc",
	}, (*api.Client).GiveApproval, "Approval %s is given, until %s. Whoever asked must ask again.")
}

func (c *cli) approvalRefuseCommand() *cobra.Command {
	return c.decide(&cobra.Command{
		Use:     "refuse ID",
		Short:   "Say no",
		Long:    `Refuse says no. The same is not asked again before the end; to have it asked again, withdraw it.`,
		Example: "  mandate approval refuse k7q2m4xabc",
	}, (*api.Client).RefuseApproval, "Approval %s is refused, until %s.")
}

func (c *cli) approvalWithdrawCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "withdraw ID",
		Short: "Take back what is asked, or what was said",
		Long: `Withdraw takes back a question, a yes or a no. A yes that is taken back counts nowhere
within a second; tokens that were handed out by it live on until they expire.`,
		Example:           "  mandate approval withdraw k7q2m4xabc",
		Args:              words("ID"),
		ValidArgsFunction: c.complete(0, approvalIDs),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.done(func(client *api.Client) error { return client.WithdrawApproval(cmd.Context(), args[0]) }, "Approval %s is withdrawn.", args[0])
		},
	}
}
