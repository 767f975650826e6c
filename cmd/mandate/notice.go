package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/notify"
)

func (c *cli) noticeCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "notice",
		Short: "See what people were told, and whether it arrived",
		Long: `Notice has commands about what people are told because they may not have wanted it: that
another user consented, that a consent was withdrawn, that somebody did without signing
in what needs it. Operators are told, and of what is a partner's its contacts, by mail
and webhook as the configuration says ("notices"). What cannot be delivered is tried for
three days.`,
		Example: "  mandate notice list --state failed\n  mandate notice show abcdefghijklmnop",
	})
	cmd.AddCommand(c.noticeListCommand(), c.noticeShowCommand(), c.noticeRetryCommand())
	return cmd
}

func (c *cli) noticeListCommand() *cobra.Command {
	var q notify.Query
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List what people were told, the newest first",
		Long: `List shows notices of the last ninety days and how they stand:

  announced  what it is about is under way
  waiting    somebody is still to be told: it is tried again, later each time
  delivered  everybody was told, as far as the mail server or the webhook says
  failed     somebody was not told within three days
  kept       there was no way to tell anybody`,
		Example: "  mandate notice list\n  mandate notice list --state failed --json | jq -r '.notices[].id'",
		Args:    words(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			all, err := client.Notices(cmd.Context(), q)
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(all)
			}
			return c.printNotices(all)
		},
	}
	f := cmd.Flags()
	f.StringVar(&q.State, "state", "", "only announced, waiting, delivered, failed or kept")
	f.StringVar(&q.Partner, "partner", "", "only about this partner: its short name")
	f.IntVar(&q.Limit, "limit", 50, "how many, at most 500")
	_ = cmd.RegisterFlagCompletionFunc("partner", c.complete(-1, partnerNames))
	_ = cmd.RegisterFlagCompletionFunc("state", c.complete(-1, noticeStates))
	return cmd
}

func noticeStates(context.Context, *api.Client) ([]string, error) {
	return []string{notify.StateAnnounced, notify.StateWaiting, notify.StateDelivered, notify.StateFailed, notify.StateKept}, nil
}

func (c *cli) printNotices(all api.NoticeList) error {
	rows := make([][]cell, 0, len(all.Notices))
	for _, n := range all.Notices {
		rows = append(rows, []cell{{text: n.ID}, {text: moment(n.Created)}, noticeState(n.State), {text: string(n.Kind)}, {text: n.Subject}})
	}
	if err := table(c.out, []string{"ID", "WHEN", "STATE", "WHAT", "SUBJECT"}, rows); err != nil {
		return err
	}
	if len(all.Ways) == 0 {
		c.note("Nobody is told: the server has neither notices.mail nor notices.webhook, so that notices are only kept here.")
	}
	return nil
}

func noticeState(s string) cell {
	return cell{s, map[string]paint{notify.StateDelivered: green, notify.StateWaiting: yellow, notify.StateFailed: red, notify.StateKept: red}[s]}
}

func (c *cli) noticeShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "show ID",
		Short:   "Show a notice, who was told, and what became of it",
		Long:    `Show prints what people read, and for each of them whether it was delivered and why not.`,
		Example: "  mandate notice show abcdefghijklmnop",
		Args:    words("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			n, err := client.Notice(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return c.printNotice(n)
		},
	}
}

func (c *cli) printNotice(n notify.Notice) error {
	if c.json {
		return c.printJSON(n)
	}
	for line := range strings.Lines(n.Subject + "\n\n" + n.Text + "\n") {
		if _, err := fmt.Fprintln(c.out, clean(strings.TrimRight(line, "\n"))); err != nil {
			return err
		}
	}
	rows := make([][]cell, 0, len(n.Deliveries))
	for _, d := range n.Deliveries {
		next := ""
		if !d.Next.IsZero() {
			next = ", again " + moment(d.Next)
		}
		rows = append(rows, []cell{{text: d.Way}, {text: orDash(d.Address)}, noticeState(d.State), {text: fmt.Sprintf("%d%s", d.Attempts, next)}, {text: orDash(d.Fault)}})
	}
	if len(rows) == 0 {
		var to []string
		for _, a := range n.To {
			to = append(to, string(a))
		}
		c.note("Nobody was told, because there was no way to. It is for: %s", orDash(strings.Join(to, ", ")))
		return nil
	}
	return table(c.out, []string{"BY", "TO", "STATE", "ATTEMPTS", "FAULT"}, rows)
}

func (c *cli) noticeRetryCommand() *cobra.Command {
	var in api.ActRequest
	cmd := &cobra.Command{
		Use:   "retry ID",
		Short: "Deliver again what was given up",
		Long: `Retry has a notice delivered again where that was given up, for another three days, and
hurries what waits. A notice that was only kept goes out by what is configured now.
Whoever was told is not told again.`,
		Example: "  mandate notice retry abcdefghijklmnop",
		Args:    words("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			n, err := client.RetryNotice(cmd.Context(), args[0], in)
			if err != nil {
				return err
			}
			return c.printNotice(n)
		},
	}
	ticketFlag(cmd, &in.Ticket)
	return cmd
}
