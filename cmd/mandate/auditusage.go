package main

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mandate-sam/mandate/footprint"
)

func (c *cli) auditUsageCommand() *cobra.Command {
	var days int
	var customer string
	cmd := &cobra.Command{
		Use:   "usage PARTNER",
		Short: "Compare what was consented with what was used",
		Long: `Usage compares the scopes that a partner consented to with what was used of them, and
proposes a smaller manifest: for the configuration, and with --json for Entra's
requiredResourceAccess too. What a token that was handed out was used for is not known
here, and neither is what every path needs: such scopes stay, and the table says so.

The proposal is something to read, not something that is done: an application that asks
for less needs its registration changed, and a new consent only for what is added.`,
		Example: "  mandate audit usage contoso --days 30\n  mandate audit usage contoso --customer 22222222-2222-2222-2222-222222222222 --json",
		Args:    words("PARTNER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if days != 30 && days != 90 {
				return usage("--days must be 30 or 90")
			}
			q := url.Values{"days": {strconv.Itoa(days)}}
			if customer != "" {
				q.Set("customer", customer)
			}
			client, err := c.client()
			if err != nil {
				return err
			}
			r, err := client.Usage(cmd.Context(), args[0], q)
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(r)
			}
			return c.printFootprint(&r)
		},
	}
	cmd.Flags().IntVar(&days, "days", 90, "how many days back: 30 or 90")
	cmd.Flags().StringVar(&customer, "customer", "", "tenant id of a customer: only what was used there")
	return cmd
}

var verdictPaints = map[string]paint{footprint.Keep: green, footprint.Drop: red, footprint.Unknown: yellow, footprint.Add: yellow}

func (c *cli) printFootprint(r *footprint.Report) error {
	var scopes, paths [][]cell
	for _, a := range r.Audiences {
		for _, s := range a.Scopes {
			scopes = append(scopes, []cell{{text: a.API}, {text: s.Scope}, {s.Verdict, verdictPaints[s.Verdict]},
				{text: strconv.FormatInt(a.Tokens, 10)}, {text: strconv.FormatInt(a.Calls, 10)}, {text: day(a.Last)}, {text: s.Why}})
		}
		for _, p := range a.Paths {
			need := "not known"
			if len(p.Needs) > 0 {
				need = p.Needs[0]
			}
			paths = append(paths, plain(a.API, p.Method+" "+p.Path, strconv.FormatInt(p.Calls, 10), day(p.Last), need))
		}
	}
	if err := table(c.out, []string{"API", "SCOPE", "VERDICT", "TOKENS", "CALLS", "LAST", "WHY"}, scopes); err != nil {
		return err
	}
	if len(paths) > 0 {
		fmt.Fprintln(c.out)
		if err := table(c.out, []string{"API", "CALLED", "CALLS", "LAST", "NEEDS"}, paths); err != nil {
			return err
		}
	}
	if err := c.printUsers(r); err != nil {
		return err
	}
	for _, n := range r.Notes {
		c.note("%s", n)
	}
	_, err := fmt.Fprintf(c.out, "\n# What would do for the last %d days.\n%s", r.Days, r.Manifest)
	return err
}

// printUsers shows who used what, and for whom.
func (c *cli) printUsers(r *footprint.Report) error {
	var rows [][]cell
	for _, a := range r.Audiences {
		if a.Tokens+a.Calls > 0 {
			rows = append(rows, plain(a.API, strings.Join(a.Callers, " "), strings.Join(a.Purposes, " "), strconv.Itoa(len(a.Tenants))))
		}
	}
	if len(rows) == 0 {
		return nil
	}
	fmt.Fprintln(c.out)
	return table(c.out, []string{"API", "CALLERS", "PURPOSES", "TENANTS"}, rows)
}
