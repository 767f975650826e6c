package vault

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
	"github.com/mandate-sam/mandate/internal/pgtest"
)

// A party is one grant and a turn for a token of it.
type party struct {
	*check
	v    *SQL
	g    mandate.Grant
	w    mandate.Wanted
	turn mandate.Turn
	next string // the refresh token that Entra answered with; "" is none
}

// parties returns that many partners' grants, each with a turn.
func parties(t *testing.T, v *SQL, n int) []*party {
	t.Helper()
	var all []*party
	for i := range n {
		k := contoso
		k.Partner = tenant(fmt.Sprintf("bbbbbbbb-0000-4000-8000-1%011d", i))
		c, g := holdingOf(t, v, k)
		p := &party{check: c, v: v, g: g, next: fmt.Sprint("next ", i)}
		p.want(t, "https://example.com")
		all = append(all, p)
	}
	return all
}

func (p *party) want(t *testing.T, a mandate.Audience) {
	t.Helper()
	p.w = p.wanted(p.g, a)
	turn, err := p.take(t.Context(), p.w)
	if err != nil {
		t.Fatal(err)
	}
	p.turn = turn
}

func (p *party) keep(ctx context.Context) error {
	epoch, err := p.epoch.Epoch()
	if err != nil {
		return err
	}
	return p.v.Keep(ctx, mandate.Keep{Grant: p.g, Epoch: epoch, Turn: p.turn, Next: mandate.NewSecret(p.next), Token: p.accessToken(p.g, p.w, "access "+p.next)})
}

// together runs first and then all the others, while nobody reaches the turns;
// then they go on. On PostgreSQL first is in a statement, and the others are in
// the next, unless this machine is very busy.
func together(t *testing.T, db *database.DB, first func(), others ...func()) {
	t.Helper()
	var wg sync.WaitGroup
	start := func() {
		wg.Go(first)
		time.Sleep(10 * time.Millisecond) // nobody says that they wait
		for _, f := range others {
			wg.Go(f)
		}
		time.Sleep(20 * time.Millisecond)
	}
	if !db.WritesInWith() {
		start()
		wg.Wait()
		return
	}
	err := db.Tx(t.Context(), func(tx *database.Tx) error {
		if _, err := tx.Exec(t.Context(), `LOCK TABLE turns IN ACCESS EXCLUSIVE MODE`); err != nil {
			return err
		}
		start()
		return nil
	})
	wg.Wait()
	if err != nil {
		t.Error(err)
	}
}

// TestRedemptionsEndTogether: of redemptions that end at the same time each is
// stored or refused by itself, and no token goes to another's place.
func TestRedemptionsEndTogether(t *testing.T) {
	onBoth(t, func(t *testing.T, cfg database.Config) {
		vaults := replicas(t, cfg)
		v, other := vaults[0], vaults[len(vaults)-1]
		all := parties(t, v, 12)
		want := make([]error, len(all))
		harm := func(i int, err error, how func(*party)) {
			how(all[i])
			want[i] = err
		}
		harm(1, mandate.ErrSuperseded, func(p *party) { p.turn.Fence++ })
		harm(2, mandate.ErrSuperseded, func(p *party) { p.turn.Owner = "another" })
		harm(3, mandate.ErrSuperseded, func(p *party) { p.g.Generation++ })
		harm(4, mandate.ErrRotated, func(p *party) { p.g.Version-- })
		harm(5, mandate.ErrSuperseded, func(p *party) { p.turn.Fence++; p.next = "" })
		harm(6, mandate.ErrSuperseded, func(p *party) { p.g.Generation++; p.next = "" })
		harm(7, nil, func(p *party) { p.next = "" })
		harm(8, nil, func(p *party) { p.next = "" })
		got := make([]error, len(all))
		var keeps []func()
		for i, p := range all {
			keeps = append(keeps, func() { got[i] = p.keep(t.Context()) })
		}
		time.Sleep(2 * time.Millisecond) // the grants' own times are whole milliseconds
		before := time.Now().Truncate(time.Millisecond)
		together(t, other.db, keeps[0], keeps[1:]...)
		for i, p := range all {
			if !errors.Is(got[i], want[i]) {
				t.Errorf("%d: got %v, want %v", i, got[i], want[i])
			}
			refresh := "refresh"
			if want[i] == nil && p.next != "" {
				refresh = p.next
			}
			g, err := other.Open(t.Context(), p.key)
			if err != nil || g.Refresh.Reveal() != refresh {
				t.Errorf("%d: opened %q, %v; want %q", i, g.Refresh.Reveal(), err, refresh)
			}
			if renewed := !g.Redeemed.Before(before); renewed != (refresh != "refresh") {
				t.Errorf("%d: redeemed at %v", i, g.Redeemed)
			}
			if want[i] == mandate.ErrSuperseded {
				continue
			}
			if _, token, err := other.Take(t.Context(), p.w); err != nil || token == nil || token.Access.Reveal() != "access "+p.next {
				t.Errorf("%d: shared %v, %v; want access %s", i, token, err, p.next)
			}
		}
	})
}

// TestRedemptionsOfOneGrantEndTogether: one refresh token is stored, and the
// others hear that they were overtaken; all the access tokens are shared.
func TestRedemptionsOfOneGrantEndTogether(t *testing.T) {
	onBoth(t, func(t *testing.T, cfg database.Config) {
		vaults := replicas(t, cfg)
		v, other := vaults[0], vaults[len(vaults)-1]
		two := parties(t, v, 2)
		first, another := two[0], two[1]
		var all []*party
		for i := range 6 {
			p := *first
			p.next = fmt.Sprint("next ", i)
			p.want(t, mandate.Audience(fmt.Sprint("https://", i)))
			all = append(all, &p)
		}
		got := make([]error, len(all))
		var keeps []func()
		for i, p := range all {
			keeps = append(keeps, func() { got[i] = p.keep(t.Context()) })
		}
		together(t, other.db, func() {
			if err := another.keep(t.Context()); err != nil {
				t.Error(err)
			}
		}, keeps...)
		stored := ""
		for i, p := range all {
			switch {
			case got[i] == nil && stored == "":
				stored = p.next
			case !errors.Is(got[i], mandate.ErrRotated):
				t.Errorf("%d: got %v, though %q is stored", i, got[i], stored)
			}
			if _, token, err := other.Take(t.Context(), p.w); err != nil || token == nil || token.Access.Reveal() != "access "+p.next {
				t.Errorf("%d: shared %v, %v", i, token, err)
			}
		}
		if g, err := other.Open(t.Context(), first.key); err != nil || g.Refresh.Reveal() != stored || g.Version != first.g.Version+1 {
			t.Errorf("opened %q of version %d, %v; want %q", g.Refresh.Reveal(), g.Version, err, stored)
		}
	})
}

// TestStatementsOfManyDoNotWait: what somebody has locked they leave as it is,
// and the general way waits for it; what is not locked they write meanwhile.
func TestStatementsOfManyDoNotWait(t *testing.T) {
	vaults := replicas(t, database.Config{URL: pgtest.Shared(t).Database(t), Schemas: []database.Schema{Schema()}})
	v, other := vaults[0], vaults[1]
	for i, tt := range []struct {
		table, next       string
		takeable, endable bool
	}{
		{"turns", "next", false, false},
		{"turns", "", false, false},
		{"grants", "next", true, false},
		{"grants", "", true, true},
	} {
		t.Run(fmt.Sprintf("%s %q", tt.table, tt.next), func(t *testing.T) {
			k := contoso
			k.Partner = tenant(fmt.Sprintf("bbbbbbbb-0000-4000-8000-2%011d", i))
			c, g := holdingOf(t, v, k)
			p := &party{check: c, v: v, g: g, next: tt.next}
			p.want(t, "https://ended")
			free := *p
			free.want(t, "https://taken")
			if err := v.Release(t.Context(), free.turn); err != nil {
				t.Fatal(err)
			}
			epoch := epochOf(t, v.db)
			s, err := v.shareable(t.Context(), &mandate.Keep{Grant: g, Epoch: epoch, Turn: p.turn, Token: p.accessToken(g, p.w, "access")})
			if err != nil {
				t.Fatal(err)
			}
			var next *stored
			if tt.next != "" {
				l := labelOf(g)
				l.version++
				sealed, err := v.seal(t.Context(), "", l, mandate.NewSecret(tt.next))
				if err != nil {
					t.Fatal(err)
				}
				next = &sealed
			}
			err = other.db.Tx(t.Context(), func(tx *database.Tx) error {
				if _, err := tx.Exec(t.Context(), `SELECT 1 FROM `+tt.table+` WHERE partner = $1 FOR UPDATE`, k.Partner.String()); err != nil {
					return err
				}
				ctx, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond) // no lock is held longer
				defer cancel()
				if r, err := v.takes.Do(ctx, takeArgs(idOf(free.w.Key), &free.w, "me", "")...); err != nil || (r.taken != 0) != tt.takeable {
					t.Errorf("taken: %d, %v", r.taken, err)
				}
				if e, err := v.endTogether(ctx, &s, next); err != nil || e.ended != tt.endable {
					t.Errorf("ended: %+v, %v", e, err)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if tt.endable {
				return
			}
			if e, err := v.endTogether(t.Context(), &s, next); err != nil || !e.ended {
				t.Errorf("when it is let go: %+v, %v", e, err)
			}
		})
	}
}

// TestTurnsAreTakenTogether: of callers who want turns at the same time each
// gets its own, with its own grant, or what there is instead.
func TestTurnsAreTakenTogether(t *testing.T) {
	onBoth(t, func(t *testing.T, cfg database.Config) {
		vaults := replicas(t, cfg)
		v, other := vaults[0], vaults[len(vaults)-1]
		all := parties(t, v, 10)
		for i, p := range all {
			var err error
			switch i {
			case 0: // its token will do
				err = p.keep(t.Context())
			case 1: // another has it
			case 2: // serves no more
				err = errors.Join(v.Release(t.Context(), p.turn), v.Suspend(t.Context(), p.key))
			default:
				if err = p.keep(t.Context()); err == nil {
					p.w.Not = "of access " + p.next
				}
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		brief, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		turns, tokens, errs := make([]mandate.Turn, len(all)), make([]*mandate.Token, len(all)), make([]error, len(all))
		var takes []func()
		for i, p := range all {
			ctx := t.Context()
			if i == 1 {
				ctx = brief
			}
			takes = append(takes, func() {
				turns[i], tokens[i], errs[i] = v.Take(ctx, p.w)
			})
		}
		together(t, other.db, takes[0], takes[1:]...)
		owners := make(map[string]bool)
		for i, p := range all {
			turn, token, err := turns[i], tokens[i], errs[i]
			switch i {
			case 0:
				if err != nil || token == nil || token.Access.Reveal() != "access "+p.next {
					t.Errorf("a token will do: got %v, %v, %v", turn, token, err)
				}
			case 1:
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("another has the turn: got %v, %v, %v", turn, token, err)
				}
			case 2:
				if err != nil || token != nil || turn.Grant.Generation != 0 {
					t.Errorf("the grant serves no more: got %v, %v, %v", turn, token, err)
				}
			default:
				if err != nil || turn.Fence <= p.turn.Fence || turn.Grant.Key != p.key || turn.Grant.Refresh.Reveal() != p.next || owners[turn.Owner] {
					t.Errorf("%d: got %+v, %v, %v", i, turn, token, err)
				}
				owners[turn.Owner] = true
				if err := v.Extend(t.Context(), turn); err != nil {
					t.Errorf("%d: the turn is not the owner's: %v", i, err)
				}
			}
		}
	})
}
