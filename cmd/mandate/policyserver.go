package main

import (
	"cmp"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/policy"
)

func (c *cli) policyShowCommand() *cobra.Command {
	var source bool
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show which policy is in force",
		Long: `Show tells which policy is in force, since when, who put it there, and whether the
files that the configuration names are another one: those are what a new database
begins with, and editing them changes nothing until "mandate policy apply". With
--source it prints the files that are in force.`,
		Example: "  mandate policy show\n  mandate policy show --source",
		Args:    words(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			st, err := client.Policy(cmd.Context())
			if err != nil {
				return err
			}
			return c.printPolicy(st, source)
		},
	}
	cmd.Flags().BoolVar(&source, "source", false, "the files that are in force")
	return cmd
}

func (c *cli) printPolicy(st api.PolicyStatus, source bool) error {
	switch {
	case c.json:
		return c.printJSON(st)
	case source:
		for _, f := range st.Files {
			if _, err := fmt.Fprintf(c.out, "// %s\n%s\n", clean(f.Name), cleanText(f.Text)); err != nil {
				return err
			}
		}
		return nil
	case st.Latest == 0:
		_, err := fmt.Fprintln(c.out, "no policy is in force: everything is denied")
		return err
	}
	rows := [][]cell{
		plain("number", fmt.Sprint(st.Number)), plain("version", st.Version), plain("rules", fmt.Sprint(st.Rules)),
		plain("applied", moment(st.Applied)), plain("by", string(st.By)),
	}
	what := "is in force"
	if st.Number == 0 {
		rows = [][]cell{{{text: "number"}, {"none is in force: everything is denied", red}}}
	}
	if st.Broken != "" {
		what = "was applied last"
		rows = append(rows, []cell{{text: "applied last"}, {fmt.Sprintf("number %d, which cannot be used; apply another: %s", st.Latest, st.Broken), red}})
	}
	files := cell{"are what " + what, green}
	if st.Differs != "" {
		files = cell{"are not what " + what + " (" + st.Differs + "); see mandate policy diff", yellow}
	}
	rows = append(rows, []cell{{text: "files at " + st.Configured}, files})
	for _, e := range st.Earlier {
		rows = append(rows, plain("earlier", fmt.Sprintf("%d, version %s, from %s, by %s", e.Number, e.Version, moment(e.Applied), e.By)))
	}
	return table(c.out, []string{"POLICY", ""}, rows)
}

// cleanText makes text of several lines harmless to a terminal.
func cleanText(s string) string {
	var out []rune
	for _, r := range s {
		if r != '\n' && r != '\t' && (r < ' ' || r >= 0x7f && r < 0xa0) {
			r = '\ufffd'
		}
		out = append(out, r)
	}
	return string(out)
}

func (c *cli) policyDiffCommand() *cobra.Command {
	var days int
	cmd := &cobra.Command{
		Use:   "diff PATH",
		Short: "Show what another policy would change",
		Long: `Diff compares a policy with the one in force, and changes nothing: which rules
differ, and which of the requests that were recorded in the last days would be
decided otherwise. Each is decided by both policies as of its own time.`,
		Example: "  mandate policy diff policy/\n  mandate policy diff policy/ --days 7 --json",
		Args:    words("PATH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			src, err := policy.Read(args[0])
			if err != nil {
				return err
			}
			client, err := c.client()
			if err != nil {
				return err
			}
			diff, err := client.DiffPolicy(cmd.Context(), api.DiffRequest{Files: src, Days: days})
			if err != nil {
				return err
			}
			return c.printDiff(diff, days)
		},
	}
	cmd.Flags().IntVar(&days, "days", 30, "how many days of recorded requests; 0 for none")
	return cmd
}

func (c *cli) printDiff(d api.PolicyDiff, days int) error {
	if c.json {
		return c.printJSON(d)
	}
	c.note("Policy %s, beside number %d, which is in force.", d.Version, d.InForce)
	if err := c.printRuleChanges(d.Rules); err != nil || days == 0 {
		return err
	}
	if len(d.Effects) == 0 {
		c.note("%d request(s) of the last %d days decided anew; none otherwise.", d.Requests, days)
		return nil
	}
	c.note("%d request(s) of the last %d days decided anew; %d kind(s) of them otherwise:", d.Requests, days, len(d.Effects))
	rows := make([][]cell, 0, len(d.Effects))
	for _, e := range d.Effects {
		what := string(e.Caller) + " " + string(e.Use) + " " + e.Partner + " " + e.Tenant.String() + " " + string(e.Audience) + " for " + e.Purpose
		if e.Detail != "" {
			what += ", " + e.Detail
		}
		rows = append(rows, []cell{{text: fmt.Sprint(e.Count)}, {text: what}, {text: e.Before}, {text: e.After}})
	}
	return table(c.out, []string{"TIMES", "REQUEST", "NOW", "THEN"}, rows)
}

func (c *cli) printRuleChanges(changes []policy.RuleChange) error {
	if len(changes) == 0 {
		_, err := fmt.Fprintln(c.out, "no rule differs")
		return err
	}
	paints := map[string]paint{"added": green, "removed": red, "changed": yellow}
	rows := make([][]cell, 0, len(changes))
	for _, r := range changes {
		rows = append(rows, []cell{{r.Change, paints[r.Change]}, {text: r.Effect}, {text: r.Rule}, {text: fmt.Sprintf("%s:%d", r.File, r.Line)}})
	}
	return table(c.out, []string{"CHANGE", "EFFECT", "RULE", "WHERE"}, rows)
}

func (c *cli) policyApplyCommand() *cobra.Command {
	var ticket string
	cmd := &cobra.Command{
		Use:   "apply PATH",
		Short: "Put a policy in force",
		Long: `Apply checks a policy, shows which rules change, and puts it in force: in all
replicas at once, and recorded. What was in force before stays in the database, so
that its decisions can still be explained; to go back, apply its files again.

If somebody else has applied another policy meanwhile, nothing is changed.`,
		Example: "  mandate policy apply policy/\n  mandate policy apply policy/ --ticket CHG-17",
		Args:    words("PATH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			src, err := policy.Read(args[0])
			if err != nil {
				return err
			}
			client, err := c.client()
			if err != nil {
				return err
			}
			diff, err := client.DiffPolicy(cmd.Context(), api.DiffRequest{Files: src})
			if err != nil {
				return err
			}
			if !c.json {
				if err := c.printRuleChanges(diff.Rules); err != nil {
					return err
				}
			}
			out, err := client.ApplyPolicy(cmd.Context(), api.ApplyRequest{Files: src, After: diff.Latest, Ticket: ticket})
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(out)
			}
			c.note("Policy %s is in force, number %d in the place of number %d.", out.Version, out.Number, out.Replaced)
			return nil
		},
	}
	cmd.Flags().StringVar(&ticket, "ticket", "", "reference, for the record")
	return cmd
}

func (c *cli) policyExplainCommand() *cobra.Command {
	var h policy.Hypothetical
	var path string
	cmd := &cobra.Command{
		Use:   "explain [INDEX]",
		Short: "Explain a decision, rule by rule",
		Long: `Explain tells why a request was decided as it was: by INDEX, the number of its
record (see "mandate audit tail"), under the policy that decided it then; or a request
that nobody made, by flags. It names the rules that hold, and of those that came
nearest what does not. With --policy other files are asked than those in force.`,
		Example: `  mandate policy explain 4711
  mandate policy explain --caller billing --partner contoso --audience graph --purpose invoice
  mandate policy explain --policy policy/ --caller helpdesk --partner contoso --audience partnercenter \
    --purpose support --method GET --path /v1/customers/22222222-2222-2222-2222-222222222222/users`,
		Args: words("[INDEX]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			in := api.ExplainRequest{}
			if len(args) == 1 {
				index, err := strconv.ParseInt(args[0], 10, 64)
				if err != nil || h.Caller != "" {
					return usage("give the number of a record, or flags that describe a request; see %s --help", cmd.CommandPath())
				}
				in.Index = &index
			} else if in.Request = &h; h.Caller == "" {
				return usage("give the number of a record, or --caller and the other flags; see %s --help", cmd.CommandPath())
			}
			return c.explain(cmd, in, path)
		},
	}
	hypotheticalFlags(cmd, &h)
	cmd.Flags().StringVar(&path, "policy", "", "files instead of the policy in force")
	return cmd
}

func hypotheticalFlags(cmd *cobra.Command, h *policy.Hypothetical) {
	f := cmd.Flags()
	f.StringVar(&h.Caller, "caller", "", "who asks")
	f.StringVar(&h.Use, "use", "", "token or call (default: call if there is a path)")
	f.StringVar(&h.Partner, "partner", "", "short name of the partner")
	f.StringVar(&h.Customer, "customer", "", "tenant id (default: the partner's own tenant)")
	f.StringVar(&h.Audience, "audience", "", "which API")
	f.StringSliceVar(&h.Scopes, "scope", nil, "scopes that are asked for")
	f.StringVar(&h.Purpose, "purpose", "", "what for")
	f.StringVar(&h.Ticket, "ticket", "", "reference")
	f.StringVar(&h.IP, "ip", "", "from which address (default: the operator socket)")
	f.StringVar(&h.At, "at", "", "when, such as 2027-06-30T12:00:00Z (default: now)")
	f.StringVar(&h.MFAAge, "mfa-age", "", "how long ago MFA was proven, such as 12h (default: not proven)")
	f.StringVar(&h.Method, "method", "", "of a call")
	f.StringVar(&h.Path, "path", "", "of a call")
	f.StringVar(&h.Approved, "approved", "", "how long ago a second person said yes, such as 30m (default: what is in force)")
	f.StringVar(&h.Act, "act", "", "what an operator does, such as \"policy apply\"")
	f.StringSliceVar(&h.Roles, "role", nil, "roles of the operator")
}

func (c *cli) explain(cmd *cobra.Command, in api.ExplainRequest, path string) error {
	if path != "" {
		src, err := policy.Read(path)
		if err != nil {
			return err
		}
		in.Files = src
	}
	client, err := c.client()
	if err != nil {
		return err
	}
	e, err := client.ExplainPolicy(cmd.Context(), in)
	if err != nil {
		return err
	}
	if c.json {
		return c.printJSON(e)
	}
	return c.printExplanation(e)
}

func (c *cli) printExplanation(e api.PolicyExplanation) error {
	if e.Note != "" {
		c.note("%s", e.Note)
	}
	decision := cell{"denied", red}
	if e.Allowed {
		decision = cell{"allowed", green}
	}
	rows := [][]cell{{{text: "decision"}, decision}, plain("rule", cmp.Or(e.Rule, "no rule")), plain("reason", e.Reason), plain("policy", e.Policy)}
	if e.Recorded != "" {
		rows = append(rows, plain("recorded", e.Recorded))
	}
	for _, r := range e.Rules {
		name := fmt.Sprintf("%s %s (%s:%d)", r.Effect, r.Rule, r.File, r.Line)
		if r.Shadow {
			name += ", in shadow mode"
		}
		if r.Holds {
			rows = append(rows, []cell{{text: name}, {"holds", green}})
		}
		for _, m := range r.Missing {
			rows = append(rows, []cell{{text: name}, {"does not hold: " + m, yellow}})
			name = ""
		}
	}
	return table(c.out, []string{"EXPLANATION", ""}, rows)
}
