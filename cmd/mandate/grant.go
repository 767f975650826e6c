package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
)

func (c *cli) grantCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "grant",
		Short: "See, stop, decide on and withdraw what partners granted",
		Long: `Grant has commands about what partners granted: how long each grant lasts and what
keeps it alive; stopping it for a while and for good; deciding on a consent that
waits because it would replace another; and taking over refresh tokens that were
obtained elsewhere. Everything is recorded before it is done.`,
		Example: "  mandate grant list\n  mandate grant show contoso\n  mandate grant suspend contoso --ticket INC-7",
	})
	cmd.AddCommand(c.grantListCommand(), c.grantShowCommand(), c.suspendCommand(), c.resumeCommand(), c.rollbackCommand(),
		c.approveCommand(), c.discardCommand(), c.withdrawCommand(), c.importCommand())
	return cmd
}

func (c *cli) grantListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the grants, with what ends when",
		Long: `List shows how the grant of every partner stands.

  AGE      since the consent
  USED     when its refresh token was last redeemed and replaced
  LAPSES   when the refresh token is dead if nothing redeems it until then
  ENDS     the end that the partner agreed to
  NEXT     when it is redeemed next, whether or not anybody asks
  TO DO    what waits for somebody, and whose move it is`,
		Example: "  mandate grant list\n  mandate grant list --json | jq '.grants[] | select(.candidate)'",
		Args:    words(),
		RunE: showAll(c, "grants", (*api.Client).Grants, func(all []api.PartnerGrant) error {
			rows := make([][]cell, 0, len(all))
			for i := range all {
				rows = append(rows, grantRow(&all[i], time.Now()))
			}
			return table(c.out, []string{"PARTNER", "STATE", "AGE", "USED", "LAPSES", "ENDS", "NEXT", "TO DO"}, rows)
		}),
	}
}

func grantRow(p *api.PartnerGrant, now time.Time) []cell {
	g := p.Grant
	row := []cell{{text: p.Partner}, consentState(g, now)}
	if g == nil {
		g = &api.Grant{}
	}
	return append(row, cell{text: age(g.Consented, now)}, cell{text: distance(g.Redeemed, now)}, deadline(g.Lapses, now),
		deadline(g.Until, now), cell{text: next(g, now)}, toDo(p, now))
}

func age(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return span(now.Sub(t))
}

// next is when a grant is redeemed next. One that is new, or was just claimed
// by nobody, has its turn within minutes.
func next(g *api.Grant, now time.Time) string {
	if g.State == mandate.StateActive && !g.Due.After(now) {
		return "soon"
	}
	return distance(g.Due, now)
}

// toDo says what of a partner waits for somebody, the most urgent thing first.
func toDo(p *api.PartnerGrant, now time.Time) cell {
	switch g := p.Grant; {
	case p.Candidate != nil:
		return cell{fmt.Sprintf("operator: approve or discard generation %d of %s, until %s", p.Candidate.Generation, userOf(p.Candidate), day(p.Candidate.Deadline)), yellow}
	case g == nil || g.State == mandate.StateWithdrawn:
		return cell{text: "partner: consent, if it is invited"}
	case g.State == mandate.StateSuspended:
		return cell{"operator: resume or withdraw", yellow}
	case !now.Before(g.Until):
		return cell{"partner: renew; invite it", red}
	case g.Failures > 0:
		return cell{fmt.Sprintf("keep-alive failed %d time(s): %s", g.Failures, g.LastFault), red}
	}
	return cell{}
}

// distance says how far a time is from now, roughly.
func distance(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	d := t.Sub(now)
	if d < 0 {
		return span(-d) + " ago"
	}
	return "in " + span(d)
}

// span writes a duration in the largest unit of which it has two or more,
// rounded.
func span(d time.Duration) string {
	switch {
	case d >= 47*time.Hour:
		return fmt.Sprintf("%.0fd", d.Hours()/24)
	case d >= 90*time.Minute:
		return fmt.Sprintf("%.0fh", d.Hours())
	}
	return fmt.Sprintf("%.0fm", d.Minutes())
}

// deadline is a distance, with a colour when it is close.
func deadline(t, now time.Time) cell {
	out := cell{text: distance(t, now)}
	switch {
	case t.IsZero():
	case t.Sub(now) < 7*24*time.Hour:
		out.paint = red
	case t.Sub(now) < 30*24*time.Hour:
		out.paint = yellow
	}
	return out
}

func userOf(g *api.Grant) string {
	if g.UserName != "" {
		return g.UserName
	}
	return g.User.Object.String()
}

func (c *cli) grantShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show PARTNER",
		Short: "Show every generation of a partner's grant",
		Long: `Show tells everything that is known of a partner's grant: each generation with who
gave it, what proved MFA, what it allows and how it stands; what waits for a
decision; and what keep-alives say. PARTNER is a short name or a tenant id.`,
		Example:           "  mandate grant show contoso\n  mandate grant show contoso --json | jq '.generations[0].evidence'",
		Args:              words("PARTNER"),
		ValidArgsFunction: c.complete(0, partnerNames),
		RunE: showOne(c, (*api.Client).History, func(h api.History) error {
			if len(h.Generations) == 0 {
				c.note("%s has not consented yet.", h.Partner)
			}
			for i := range h.Generations {
				g := &h.Generations[i]
				if err := table(c.out, []string{fmt.Sprintf("%s, generation %d", h.Partner, g.Generation), ""}, grantFacts(h.Partner, g, time.Now())); err != nil {
					return err
				}
			}
			return nil
		}),
	}
}

func grantFacts(partner string, g *api.Grant, now time.Time) [][]cell {
	at := func(t time.Time) string {
		if t.IsZero() {
			return "-"
		}
		return minute(t) + " (" + distance(t, now) + ")"
	}
	rows := [][]cell{
		{{text: "state"}, standing(g, now)}, plain("origin", g.Origin),
		plain("by", strings.TrimSpace(g.UserName+" "+g.User.Object.String())), plain("consented", at(g.Consented)),
		plain("ends", at(g.Until)), plain("MFA", mfaFacts(g.Evidence)), plain("agent of", strings.Join(g.AgentGroups, ", ")),
	}
	add := func(name string, t time.Time) {
		if !t.IsZero() {
			rows = append(rows, plain(name, at(t)))
		}
	}
	add("last redeemed", g.Redeemed)
	add("lapses", g.Lapses)
	add("redeemed next", g.Due)
	if g.Failures > 0 {
		rows = append(rows, plain("keep-alive", fmt.Sprintf("failed %d time(s), last on %s: %s", g.Failures, at(g.Attempted), g.LastFault)))
	}
	switch {
	case g.State == mandate.StateCandidate && !g.Deadline.IsZero(): // without one it was only tried
		rows = append(rows, []cell{{text: "waits for"}, {fmt.Sprintf("an operator, until %s: mandate grant approve %s %d, or discard", at(g.Deadline), partner, g.Generation), yellow}})
	case g.State == mandate.StateFallback:
		rows = append(rows, plain("stands in until", at(g.Deadline)))
	}
	for _, a := range g.Audiences {
		rows = append(rows, plain(string(a.Audience), strings.Join(a.Scopes, " ")))
	}
	return rows
}

// standing says how one generation stands, whichever it is.
func standing(g *api.Grant, now time.Time) cell {
	switch g.State {
	case mandate.StateActive, mandate.StateSuspended, mandate.StateWithdrawn:
		return consentState(g, now)
	case mandate.StateCandidate:
		return cell{string(g.State), yellow}
	}
	return cell{text: string(g.State)}
}
