package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
)

func (c *cli) partnerCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "partner",
		Short: "Invite partners and see their consents",
		Long: `Partner has commands about CSP partners: inviting one to consent, seeing what each
has consented to and until when, and saying who of its people may use its pages.`,
		Example: "  mandate partner list\n  mandate partner show contoso",
	})
	cmd.AddCommand(c.inviteCommand(), c.partnerListCommand(), c.partnerShowCommand(), c.allowCommand(), c.disallowCommand(), c.partnerUsersCommand(), c.contactCommand())
	return cmd
}

func (c *cli) inviteCommand() *cobra.Command {
	var in api.InviteRequest
	var term, expires string
	cmd := &cobra.Command{
		Use:   "invite NAME [--tenant ID] {--user WHO | --any-user}",
		Short: "Invite a partner to consent, or to renew its consent",
		Long: `Invite makes a link under which one partner can consent, and prints it once: send
it to the person who is to consent. The partner is known by NAME from then on.

The link works once, for the given tenant only, and by default for one user of
it. To renew a consent, invite the partner again under the same name; its tenant is
known then, and --tenant is for a partner that is new.

What a renewal replaces is kept for a day, to roll back to. With --compromised it is
destroyed at once: for a user whose account somebody else had. Until the renewal is
there the old consent serves, unless you suspend it: mandate grant suspend.`,
		Example: `  mandate partner invite contoso --tenant 11111111-2222-3333-4444-555555555555 --user ada@contoso.example
  mandate partner invite fabrikam --tenant 66666666-7777-8888-9999-aaaaaaaaaaaa \
    --application marketplace --any-user --term 180d --expires 24h --display-name "Fabrikam CSP"`,
		Args: words("NAME"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			in.Name = args[0]
			if in.User == "" && !in.AnyUser {
				return usage("say who is to consent: --user WHO, or --any-user; see %s --help", cmd.CommandPath())
			}
			if in.Term, err = seconds("term", term); err != nil {
				return err
			}
			if in.Expires, err = seconds("expires", expires); err != nil {
				return err
			}
			return c.invite(cmd, in)
		},
	}
	f := cmd.Flags()
	f.StringVar(&in.Tenant, "tenant", "", "the partner's tenant id, or a domain of the tenant, which is looked up and shown (default: the one that is known)")
	f.StringVar(&in.Application, "application", "", "which application asks (default: the only one)")
	f.StringVar(&in.User, "user", "", "who is to consent: a user name (UPN) or object id")
	f.BoolVar(&in.AnyUser, "any-user", false, "let any user of the tenant consent")
	f.BoolVar(&in.Compromised, "compromised", false, "renew because the user's account was compromised: nothing to roll back to")
	f.StringVar(&term, "term", "365d", "how long the consent may last")
	f.StringVar(&expires, "expires", "72h", "how long the link works")
	f.StringVar(&in.DisplayName, "display-name", "", "what the partner's people call it")
	_ = cmd.RegisterFlagCompletionFunc("application", c.complete(-1, applications))
	cmd.ValidArgsFunction = c.complete(0, partnerNames)
	return cmd
}

func seconds(flag, s string) (int64, error) {
	d, err := parsePeriod(flag, s)
	return int64(d / time.Second), err
}

func (c *cli) invite(cmd *cobra.Command, in api.InviteRequest) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	if in.Tenant == "" {
		known, err := client.Partner(cmd.Context(), in.Name)
		if err != nil {
			return fmt.Errorf("without --tenant, which a new partner needs: %w", err)
		}
		in.Tenant = known.Tenant.String()
	}
	out, err := client.Invite(cmd.Context(), in)
	if err != nil {
		return err
	}
	if c.json {
		return c.printJSON(out)
	}
	c.note("Invited %s (tenant %s). Send this link to the person who is to consent; it works once, until %s,",
		out.Partner.Name, out.Partner.Tenant, minute(out.Expires))
	c.note("and it is not shown again:")
	_, err = fmt.Fprintln(c.out, out.Link)
	return err
}

func (c *cli) partnerListCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the partners",
		Long:    `List shows every partner, the state of its consent, and until when that lasts.`,
		Example: "  mandate partner list\n  mandate partner list --json | jq -r '.partners[].name'",
		Args:    words(),
		RunE: showAll(c, "partners", (*api.Client).Partners, func(all []api.Partner) error {
			rows := make([][]cell, 0, len(all))
			for _, p := range all {
				rows = append(rows, partnerRow(p))
			}
			return table(c.out, []string{"NAME", "CONSENT", "UNTIL", "BY", "TENANT", "APPLICATION"}, rows)
		}),
	}
}

func partnerRow(p api.Partner) []cell {
	until, by := "-", "-"
	if p.Grant != nil {
		until = day(p.Grant.Until)
		if p.Grant.UserName != "" {
			by = p.Grant.UserName
		}
	}
	application := p.ApplicationName
	if application == "" {
		application = p.Application.String()
	}
	return []cell{{text: p.Name}, consentState(p.Grant, time.Now()), {text: until}, {text: by}, {text: p.Tenant.String()}, {text: application}}
}

// consentState says how a consent stands.
func consentState(g *api.Grant, now time.Time) cell {
	switch {
	case g == nil:
		return cell{"not yet", yellow}
	case g.State != mandate.StateActive:
		return cell{string(g.State), red}
	case !now.Before(g.Until):
		return cell{"ended", red}
	case g.Until.Sub(now) < 30*24*time.Hour:
		return cell{"ends soon", yellow}
	}
	return cell{"active", green}
}

func (c *cli) partnerShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show PARTNER",
		Short: "Show a partner and its consent",
		Long: `Show tells what is known of a partner: who consented, when, with what proof of
MFA, to what, and until when. PARTNER is a short name or a tenant id.`,
		Example:           "  mandate partner show contoso",
		Args:              words("PARTNER"),
		ValidArgsFunction: c.complete(0, partnerNames),
		RunE: showOne(c, (*api.Client).Partner, func(p api.Partner) error {
			return table(c.out, []string{p.Name, ""}, partnerFacts(p))
		}),
	}
}

func partnerFacts(p api.Partner) [][]cell {
	rows := [][]cell{
		plain("display name", p.DisplayName), plain("tenant", p.Tenant.String()), plain("cloud", p.Cloud),
		plain("application", strings.TrimSpace(p.ApplicationName+" "+p.Application.String())), plain("added", day(p.Created)),
		{{text: "consent"}, consentState(p.Grant, time.Now())},
	}
	g := p.Grant
	if g == nil {
		return rows
	}
	rows = append(rows, plain("generation", fmt.Sprint(g.Generation)))
	if g.Consented.IsZero() {
		return rows
	}
	rows = append(rows, plain("by", strings.TrimSpace(g.UserName+" "+g.User.Object.String())),
		plain("consented", day(g.Consented)), plain("until", day(g.Until)), plain("last renewed", day(g.Redeemed)),
		plain("MFA", mfaFacts(g.Evidence)), plain("agent of", strings.Join(g.AgentGroups, ", ")))
	for _, a := range g.Audiences {
		rows = append(rows, plain(string(a.Audience), strings.Join(a.Scopes, " ")))
	}
	return rows
}

// mfaFacts tells what proved MFA, and what is not proven.
func mfaFacts(e *mandate.Evidence) string {
	if e == nil {
		return "not known"
	}
	var facts []string
	if e.PartnerCenter {
		facts = append(facts, "confirmed by Partner Center")
	}
	for _, a := range e.AMR {
		facts = append(facts, fmt.Sprintf("%s: %s", a.Token, strings.Join(a.Methods, "+")))
	}
	if e.AuthTime.IsZero() {
		return strings.Join(append(facts, "time not proven"), "; ")
	}
	return strings.Join(append(facts, "signed in "+minute(e.AuthTime)), "; ")
}
