package mandate

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"
)

// A Move is whose turn it is to prevent or end a [Trouble].
type Move string

// Who can be at turn.
const (
	MovePartner  Move = "partner"
	MoveOperator Move = "operator"
	MoveNobody   Move = "nobody" // it passes by itself
)

// The kinds of [Trouble].
const (
	TroubleEnd        = "grant_end"   // a grant reaches the end that its partner agreed to
	TroubleLapse      = "grant_lapse" // a refresh token dies because nothing redeems it
	TroubleImport     = "import_end"  // an imported grant is to be replaced by a consent
	TroubleAlive      = "keep_alive"  // keeping a grant alive fails
	TroubleCandidate  = "candidate"   // a consent waits for a decision
	TroubleCredential = "credential"  // the application's credential ends
	TroubleInvitation = "invitation"  // an invitation ends unused
	TroubleServer     = "server"      // this server cannot serve

	// TroubleRelationship: a partner's delegated administration of a customer ends.
	TroubleRelationship = "relationship"
)

// A Trouble is something that breaks unless somebody does something.
type Trouble struct {
	Time    time.Time `json:"time"` // when it breaks; past if it is broken already
	Kind    string    `json:"kind"`
	Partner string    `json:"partner,omitempty"` // short name
	What    string    `json:"what"`              // a sentence
	Move    Move      `json:"move"`
	Do      string    `json:"do"` // what they do
}

// SortTroubles puts the earliest first.
func SortTroubles(all []Trouble) {
	slices.SortStableFunc(all, func(a, b Trouble) int {
		return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Partner, b.Partner), cmp.Compare(a.Kind, b.Kind))
	})
}

// Forecast tells what will break of all grants, the earliest first. The name of
// a partner comes from name; grants of others are left out.
func (b *Broker) Forecast(ctx context.Context, name func(GrantKey) string) ([]Trouble, error) {
	grants, err := b.cfg.Custody.Grants(ctx, TenantID{})
	if err != nil {
		return nil, err
	}
	var all []Trouble
	for i := range grants {
		g := &grants[i]
		if partner := name(g.Key); partner != "" {
			for _, t := range g.troubles(partner, &b.cfg.KeepAlive, time.Now()) {
				t.Partner = partner
				all = append(all, t)
			}
		}
	}
	SortTroubles(all)
	return all, nil
}

// Window is after how long without a redemption a refresh token lapses.
func (b *Broker) Window() time.Duration { return b.cfg.KeepAlive.Window }

// Lapses is when the refresh token dies if nothing redeems it.
func (g *Grant) Lapses(window time.Duration) time.Time { return g.Redeemed.Add(window) }

// troubles tells what will break of one generation.
func (g *Grant) troubles(partner string, k *KeepAlive, now time.Time) []Trouble {
	switch g.State {
	case StateCandidate:
		if !now.Before(g.Fallback) {
			return nil // it is over, and nobody can decide any more
		}
		return []Trouble{{
			Time: g.Fallback, Kind: TroubleCandidate, Move: MoveOperator,
			What: fmt.Sprintf("the consent of %s, generation %d, waits for a decision and is discarded after that", who(*g), g.Generation),
			Do:   fmt.Sprintf("mandate grant approve %s %d, or discard it", partner, g.Generation),
		}}
	case StateActive, StateSuspended:
	default:
		return nil
	}
	all := []Trouble{g.end(partner)}
	kept := k.Schedule != nil && g.State == StateActive && g.Failures == 0
	if lapse := g.Lapses(k.Window); !kept && lapse.Before(g.Until) {
		all = append(all, g.lapse(partner, lapse))
	}
	if g.Failures > 0 && g.State == StateActive {
		all = append(all, g.failing(partner, now))
	}
	return all
}

func (g *Grant) end(partner string) Trouble {
	t := Trouble{
		Time: g.Until, Kind: TroubleEnd, Move: MovePartner,
		What: "the grant ends, as " + who(*g) + " agreed to",
		Do:   "invite the partner again, so that it renews: mandate partner invite " + partner,
	}
	if g.Origin == OriginImport {
		t.Kind, t.What = TroubleImport, "the imported grant of "+who(*g)+" ends; a consent that is given here takes its place"
	}
	return t
}

func (g *Grant) lapse(partner string, at time.Time) Trouble {
	t := Trouble{
		Time: at, Kind: TroubleLapse, Move: MoveOperator,
		What: "the refresh token lapses, because nothing redeems it",
		Do:   "ask for a token, or let keep-alives run",
	}
	switch {
	case g.State == StateSuspended:
		t.Do = "mandate grant resume " + partner + ", or withdraw the grant"
	case g.Failures > 0:
		t.What, t.Do = "the refresh token lapses, because redeeming it fails", "see what keep-alives say: mandate grant show "+partner
	}
	return t
}

func (g *Grant) failing(partner string, now time.Time) Trouble {
	return Trouble{
		Time: now, Kind: TroubleAlive, Move: MovePartner,
		What: fmt.Sprintf("keeping the grant alive has failed %d time(s), last on %s: %s", g.Failures, stamp(g.Attempted), g.LastFault),
		Do:   "if it says that the token is dead, invite the partner again: mandate partner invite " + partner,
	}
}
