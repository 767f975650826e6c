package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
)

func (c *cli) auditCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:     "audit",
		Short:   "Read, export and verify the audit log",
		Long:    `Audit has commands about the log of what was decided and done.`,
		Example: "  mandate audit tail -f",
	})
	cmd.AddCommand(c.auditTailCommand(), c.auditSearchCommand(), c.auditReportCommand(), c.auditUsageCommand(), c.auditExportCommand(), c.auditProveCommand(),
		c.auditVerifyCommand(), c.auditStateCommand(), c.auditEraseCommand(), c.auditDropCommand(), c.auditKeyCommand())
	return cmd
}

func (c *cli) auditTailCommand() *cobra.Command {
	var last int
	var follow bool
	cmd := &cobra.Command{
		Use:   "tail",
		Short: "Show the last records, and new ones as they come",
		Long: `Tail shows the last records of the audit log, oldest first, one a line. With -f it
goes on with every new record until it is interrupted. With --json the records are
shown whole, as they are in the log.`,
		Example: "  mandate audit tail -n 50\n  mandate audit tail -f --json | jq 'select(.kind == \"denied\")'",
		Args:    words(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			if follow {
				return c.followAudit(cmd.Context(), client, last)
			}
			records, err := client.Audit(cmd.Context(), last)
			if err != nil {
				return err
			}
			for _, r := range records {
				if err := c.printRecord(r); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().IntVarP(&last, "last", "n", 20, "how many records")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with new records")
	return cmd
}

// followAudit prints records until it is interrupted, which is no failure.
func (c *cli) followAudit(ctx context.Context, client *api.Client, last int) error {
	for r, err := range client.FollowAudit(ctx, last) {
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("%w: the server has broken off: it has ended, or your session has", api.ErrUnreachable)
		}
		if err != nil {
			return err
		}
		if err := c.printRecord(r); err != nil {
			return err
		}
	}
	return nil
}

func (c *cli) printRecord(line json.RawMessage) error {
	if c.json {
		_, err := fmt.Fprintf(c.out, "%s\n", harmless(line))
		return err
	}
	var r struct {
		mandate.Record
		Index int64 `json:"index"`
	}
	if err := json.Unmarshal(line, &r); err != nil {
		return fmt.Errorf("read record: %w", err)
	}
	kind := cell{fmt.Sprintf("%-9s", r.Kind), kindPaint(r.Kind)}
	_, err := fmt.Fprintf(c.out, "%6d  %s  %s  %s\n", r.Index, moment(r.Time), kind.painted(colored(c.out)), clean(sentence(&r.Record)))
	return err
}

func kindPaint(kind string) paint {
	switch kind {
	case mandate.KindDenied, mandate.KindRefused, mandate.KindFailed:
		return red
	case mandate.KindConsented, mandate.KindStaged, mandate.KindChanged:
		return yellow
	}
	return ""
}

// sentence tells a record in one line.
func sentence(r *mandate.Record) string {
	var words []string
	add := func(format, value string) {
		if value != "" {
			words = append(words, fmt.Sprintf(format, value))
		}
	}
	add("%s", string(r.Caller))
	add("%s", string(r.Use))
	add("%s", r.Partner)
	if !r.Tenant.IsZero() && (r.Grant == nil || r.Tenant != r.Grant.Partner) {
		add("in %s", r.Tenant.String())
	}
	add("%s", strings.TrimPrefix(string(r.Audience), "https://"))
	add("%s", r.Detail)
	add("for %s", r.Purpose)
	add("(%s)", r.Ticket)
	add("by rule %s", r.Rule)
	if r.Cached {
		words = append(words, "from memory")
	}
	if r.User != nil {
		add("user %s", r.User.Object.String())
	}
	if r.Kind != mandate.KindIssued && r.Kind != mandate.KindDecided {
		add("- %s", r.Reason)
	}
	return strings.Join(words, " ")
}
