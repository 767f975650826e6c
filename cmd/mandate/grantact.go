package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
)

// ticketFlag adds the flag for the reference that is recorded.
func ticketFlag(cmd *cobra.Command, ticket *string) {
	cmd.Flags().StringVar(ticket, "ticket", "", "reference for the record")
}

// actCommand makes a command of a change that needs nothing but a partner.
func (c *cli) actCommand(act, done string, cmd *cobra.Command) *cobra.Command {
	var in api.ActRequest
	cmd.Use, cmd.Args, cmd.ValidArgsFunction = act+" PARTNER", words("PARTNER"), c.complete(0, partnerNames)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		client, err := c.client()
		if err != nil {
			return err
		}
		out, err := client.Act(cmd.Context(), args[0], act, in)
		return c.acted(out, done, err)
	}
	ticketFlag(cmd, &in.Ticket)
	return cmd
}

// acted tells what a change came to.
func (c *cli) acted(out api.Acted, done string, err error) error {
	if err != nil {
		return err
	}
	if c.json {
		return c.printJSON(out)
	}
	c.note(done, out.Partner.Partner)
	return table(c.out, []string{"PARTNER", "STATE", "AGE", "USED", "LAPSES", "ENDS", "NEXT", "TO DO"}, [][]cell{grantRow(&out.Partner, time.Now())})
}

func (c *cli) suspendCommand() *cobra.Command {
	return c.actCommand("suspend", "Suspended %s. Nothing is served under its grant, and nothing keeps it alive; tokens that were handed out stay good until they expire.", &cobra.Command{
		Short: "Stop a grant from serving, for as long as you like",
		Long: `Suspend stops a partner's grant from serving, at once and on every replica. The
refresh token is kept for "mandate grant resume". Meanwhile the partner cannot
renew the grant by itself: a new consent waits for your decision. The generation
before, if it is still kept, is destroyed.

Access tokens that were handed out before stay good until they expire.`,
		Example: "  mandate grant suspend contoso --ticket INC-7",
	})
}

func (c *cli) resumeCommand() *cobra.Command {
	return c.actCommand("resume", "Resumed %s.", &cobra.Command{
		Short:   "Let a suspended grant serve again",
		Long:    `Resume lets a suspended grant serve again. Tokens are obtained anew.`,
		Example: "  mandate grant resume contoso --ticket INC-7",
	})
}

func (c *cli) rollbackCommand() *cobra.Command {
	return c.actCommand("rollback", "Rolled back %s.", &cobra.Command{
		Short: "Go back to the generation before the present one",
		Long: `Rollback makes the generation before the active one active again, and destroys the
one that it replaces. It can be had for a day after a renewal by the same user. It is
redeemed once before, and must answer for that user. What was suspended or
withdrawn never comes back this way.`,
		Example: "  mandate grant show contoso\n  mandate grant rollback contoso",
	})
}

// decideCommand makes a command of a decision on a candidate.
func (c *cli) decideCommand(act, done string, cmd *cobra.Command) *cobra.Command {
	var in api.DecideRequest
	cmd.Use, cmd.Args = act+" PARTNER GENERATION", words("PARTNER", "GENERATION")
	cmd.ValidArgsFunction = byPosition(c.complete(0, partnerNames), c.complete(1, candidates))
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if in.Generation, err = strconv.ParseInt(args[1], 10, 64); err != nil || in.Generation < 1 {
			return usage("GENERATION: %q is not a number such as 4; see mandate grant show %s", args[1], args[0])
		}
		client, err := c.client()
		if err != nil {
			return err
		}
		out, err := client.Decide(cmd.Context(), args[0], act, in)
		return c.acted(out, done, err)
	}
	ticketFlag(cmd, &in.Ticket)
	return cmd
}

// candidates are the generations that wait for a decision.
func candidates(ctx context.Context, client *api.Client) ([]string, error) {
	all, err := client.Grants(ctx)
	var out []string
	for _, p := range all {
		if p.Candidate != nil {
			out = append(out, fmt.Sprint(p.Candidate.Generation))
		}
	}
	return out, err
}

func (c *cli) approveCommand() *cobra.Command {
	return c.decideCommand("approve", "Approved: the new consent of %s is active, and nothing of the one before is served any more.", &cobra.Command{
		Short: "Activate a consent that waits for a decision",
		Long: `Approve activates a consent that waits because it would replace a grant of another
user, or a stronger one, or one that you suspended, or because it is imported. Look
at it first with "mandate grant show", and name the generation that you saw.

Everything is proven once more before: the user, MFA, the agent groups and each API.
What does not hold any more is refused, and goes on waiting.`,
		Example: "  mandate grant show contoso\n  mandate grant approve contoso 4 --ticket CHG-12",
	})
}

func (c *cli) discardCommand() *cobra.Command {
	return c.decideCommand("discard", "Discarded what waited for a decision of %s.", &cobra.Command{
		Short:   "Destroy a consent that waits for a decision",
		Long:    `Discard destroys a consent that waits for a decision. What is active stays so.`,
		Example: "  mandate grant discard contoso 4",
	})
}

func (c *cli) withdrawCommand() *cobra.Command {
	var in api.WithdrawRequest
	var sure bool
	cmd := &cobra.Command{
		Use:   "withdraw PARTNER",
		Short: "Destroy a grant for good",
		Long: `Withdraw destroys the refresh tokens of a partner's grant for good, of every
generation. Only a new consent brings the partner back. It reports four things:

  local      our own copy
  upstream   what Entra would still do with the refresh token
  tokens     access tokens that were handed out, and live until they expire
  copies     backups and the like, and from when they are harmless

Entra is told nothing unless you ask for it with --end-sessions. That signs the user
who consented out everywhere and of everything, not of this application alone. It is
rarely what the partner wants; their administrator removes the application's consent
in the Entra admin center instead. The report says "revoked" only if Entra refused the
token afterwards.

You are asked to type the partner's name, unless you say --yes.`,
		Example:           "  mandate grant withdraw contoso --ticket REQ-3\n  mandate grant withdraw contoso --end-sessions --yes --json",
		Args:              words("PARTNER"),
		ValidArgsFunction: c.complete(0, partnerNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			if !sure {
				if err := c.confirm(args[0], in.EndSessions); err != nil {
					return err
				}
			}
			if in.EndSessions {
				c.note("Asking Entra to end the sessions, and whether it refuses the token then; this can take some seconds.")
			}
			out, err := client.Withdraw(cmd.Context(), args[0], in)
			if err != nil {
				return err
			}
			return c.withdrawn(out)
		},
	}
	cmd.Flags().BoolVar(&in.EndSessions, "end-sessions", false, "sign the user who consented out, everywhere and of everything")
	cmd.Flags().BoolVar(&sure, "yes", false, "do not ask")
	ticketFlag(cmd, &in.Ticket)
	return cmd
}

// confirm wants the partner's name to be typed.
func (c *cli) confirm(partner string, endSessions bool) error {
	warning := ""
	if endSessions {
		warning = " The user who consented is signed out of everything, everywhere."
	}
	fmt.Fprintf(c.err, "This destroys the grant of %s for good.%s Type its name to go on: ", clean(partner), warning)
	line, err := bufio.NewReader(io.LimitReader(c.in, 1<<10)).ReadString('\n')
	if err != nil && err != io.EOF {
		return err
	}
	if strings.TrimSpace(line) != partner {
		fmt.Fprintln(c.err)
		return usage("the name was not typed, so nothing was done; say --yes where nobody can type")
	}
	return nil
}

func (c *cli) withdrawn(out api.Withdrawn) error {
	if c.json {
		return c.printJSON(out)
	}
	r := &out.Report
	word := "Withdrawn"
	if r.Revoked {
		word = "Withdrawn and revoked"
	}
	c.note("%s: %s. The record of this report is %d.", word, out.Partner, r.Record.Index)
	rows := [][]cell{}
	for _, l := range []struct {
		name string
		line mandate.Line
	}{{"local", r.Local}, {"upstream", r.Upstream}, {"tokens", r.Tokens}, {"copies", r.Copies}} {
		rows = append(rows, []cell{{text: l.name}, resultCell(l.line.Result), {text: l.line.Text}})
	}
	return table(c.out, []string{"WHAT", "RESULT", ""}, rows)
}

func resultCell(r mandate.Result) cell {
	switch r {
	case mandate.ResultDone:
		return cell{string(r), green}
	case mandate.ResultFailed:
		return cell{string(r), red}
	}
	return cell{string(r), yellow}
}
