package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/mandate-sam/mandate"
)

func (c *cli) forecastCommand() *cobra.Command {
	var within string
	cmd := &cobra.Command{
		Use:   "forecast",
		Short: "Tell what breaks next, when, and whose move it is",
		Long: `Forecast tells what will break unless somebody does something, the next thing
first: grants that end or lapse, imported ones that need a consent, keep-alives that
fail, consents that wait for a decision, invitations and the application's
credentials that end, and what keeps this server from serving.

With --within only what breaks within that time is shown, and the exit status is 1 if
there is anything. That is meant for monitoring.`,
		Example: "  mandate forecast\n  mandate forecast --within 14d --json",
		Args:    words(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var limit time.Duration
			if within != "" {
				var err error
				if limit, err = parsePeriod("within", within); err != nil {
					return err
				}
			}
			client, err := c.client()
			if err != nil {
				return err
			}
			all, err := client.Forecast(cmd.Context())
			if err != nil {
				return err
			}
			return c.forecast(all, limit, within)
		},
	}
	cmd.Flags().StringVar(&within, "within", "", "only what breaks within this time, such as 14d; exit with 1 if anything does")
	return cmd
}

func (c *cli) forecast(all []mandate.Trouble, limit time.Duration, within string) error {
	now := time.Now()
	shown := make([]mandate.Trouble, 0, len(all))
	for _, t := range all {
		if limit == 0 || t.Time.Sub(now) <= limit {
			shown = append(shown, t)
		}
	}
	if err := c.printForecast(shown, now); err != nil {
		return err
	}
	if limit > 0 && len(shown) > 0 {
		return fmt.Errorf("%d thing(s) break within %s", len(shown), within)
	}
	return nil
}

func (c *cli) printForecast(all []mandate.Trouble, now time.Time) error {
	if c.json {
		return c.printJSON(map[string]any{"troubles": all})
	}
	if len(all) == 0 {
		c.note("Nothing breaks.")
		return nil
	}
	rows := make([][]cell, 0, len(all))
	for _, t := range all {
		partner := t.Partner
		if partner == "" {
			partner = "-"
		}
		rows = append(rows, []cell{{text: day(t.Time)}, deadline(t.Time, now), {text: partner}, {text: string(t.Move)}, {text: t.What + ": " + t.Do}})
	}
	return table(c.out, []string{"DATE", "WHEN", "PARTNER", "MOVE", "WHAT"}, rows)
}
