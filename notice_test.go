package mandate

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// fakeNotifier notes what it is told among the other events.
type fakeNotifier struct {
	trace     *events
	announced []Notice
	notified  []Notice
	err       error // of Announce and Notify
	settleErr error
}

func (f *fakeNotifier) Notify(_ context.Context, n Notice) error {
	f.notified = append(f.notified, n)
	return f.err
}

func (f *fakeNotifier) Announce(_ context.Context, n Notice) error {
	if f.err != nil {
		return f.err
	}
	f.announced = append(f.announced, n)
	f.trace.add("announce %s", n.Kind)
	return nil
}

func (f *fakeNotifier) Settle(_ context.Context, n Notice, happened bool) error {
	f.trace.add("settle %s %v", n.Kind, happened)
	return f.settleErr
}

func notifying(w *world) *fakeNotifier {
	f := &fakeNotifier{trace: &w.audit.events}
	w.cfg.Notifier = f
	return f
}

func TestTell(t *testing.T) {
	failed, unknown := errors.New("failed"), errors.Join(ErrUnavailable)
	for _, tt := range []struct {
		name                       string
		announceErr, err, settlErr error
		want                       error
		events                     []string
	}{
		{"done", nil, nil, nil, nil, []string{"announce withdrawn", "do", "settle withdrawn true"}},
		{"failed", nil, failed, nil, failed, []string{"announce withdrawn", "do", "settle withdrawn false"}},
		{"perhaps done", nil, unknown, nil, unknown, []string{"announce withdrawn", "do"}},
		{"not recorded", ErrUnavailable, nil, nil, ErrUnavailable, nil},
		{"done, and not settled", nil, nil, failed, nil, []string{"announce withdrawn", "do", "settle withdrawn true"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var e events
			f := &fakeNotifier{trace: &e, err: tt.announceErr, settleErr: tt.settlErr}
			err := Tell(t.Context(), f, Notice{Kind: NoticeWithdrawn}, func() error { e.add("do"); return tt.err })
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if diff := cmp.Diff(tt.events, e.list()); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
			if len(f.announced) > 0 && f.announced[0].Key == "" {
				t.Error("the notice has no key, so that it cannot be settled")
			}
		})
	}
}

// Whoever consented before is told of what takes the place of their consent,
// and nothing happens that cannot be told.
func TestNoticeOfConsent(t *testing.T) {
	active := func(u Identity) func(*world) {
		return func(w *world) {
			w.vault.grants = []Grant{{Key: testKey, Generation: 1, Version: 1, State: StateActive, User: u, UserName: "old@contoso.example",
				Until: time.Now().AddDate(1, 0, 0), Refresh: NewSecret("rt-0")}}
		}
	}
	for _, tt := range []struct {
		name   string
		before func(*world)
		want   Notice
	}{
		{"the first", func(*world) {}, Notice{Kind: NoticeActivated, Generation: 1}},
		{"the same user", active(adele), Notice{Kind: NoticeRenewed, Generation: 2, Before: "old@contoso.example", Also: []string{"old@contoso.example"}}},
		{"another user", active(mallory), Notice{Kind: NoticeStaged, Generation: 2, Before: "old@contoso.example", Also: []string{"old@contoso.example"}, Why: "the active grant is of another user"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newPartnerWorld(t)
			tt.before(w)
			f := notifying(w)
			_, _, err := w.Consent(t.Context(), consent())
			if err != nil && tt.want.Kind != NoticeStaged {
				t.Fatal(err)
			}
			tt.want.Partner, tt.want.Grant, tt.want.About = "contoso", &testKey, "adele@contoso.example"
			if len(f.announced) != 1 {
				t.Fatalf("announced %+v", f.announced)
			}
			got := f.announced[0]
			if tt.want.Kind == NoticeStaged && time.Until(got.Until) < CandidateLife-time.Minute {
				t.Errorf("until %v", got.Until)
			}
			if got.Key == "" {
				t.Error("no key")
			}
			got.Until, got.Key = time.Time{}, ""
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(GrantKey{}, TenantID{}, AppID{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			e := w.audit.events.list()
			if a, r := slices.Index(e, "announce "+string(tt.want.Kind)), slices.Index(e, "settle "+string(tt.want.Kind)+" true"); a < 0 || r != len(e)-1 || e[a+1][:7] != "record " {
				t.Errorf("events %v", e)
			}
		})
	}
}

func TestNoticeFirst(t *testing.T) {
	for _, tt := range []struct {
		name string
		kind NoticeKind
		do   func(*world) error
	}{
		{"consent", NoticeActivated, func(w *world) error {
			w.vault.grants = nil
			_, _, err := w.Consent(context.Background(), consent())
			return err
		}},
		{"withdraw", NoticeWithdrawn, func(w *world) error {
			_, err := w.Withdraw(context.Background(), partner, false, By{Caller: "uid:0"})
			return err
		}},
		{"discard", NoticeDiscarded, func(w *world) error {
			g := w.vault.grants[0]
			g.Generation, g.State = 2, StateCandidate
			w.vault.grants = append(w.vault.grants, g)
			_, err := w.Discard(context.Background(), partner, 2, By{Caller: "uid:0"})
			return err
		}},
		{"rollback", NoticeRolledBack, func(w *world) error {
			w.add(Grant{Generation: 2, State: StateFallback, Fallback: time.Now().Add(time.Hour), Refresh: NewSecret("rt-f")})
			_, _, err := w.Rollback(context.Background(), partner, By{Caller: "uid:0"})
			return err
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			f := notifying(w)
			if err := tt.do(w); err != nil {
				t.Fatal(err)
			}
			if len(f.announced) != 1 || f.announced[0].Kind != tt.kind {
				t.Errorf("announced %+v", f.announced)
			}

			w = newWorld(t)
			notifying(w).err = ErrUnavailable
			if err := tt.do(w); !errors.Is(err, ErrUnavailable) {
				t.Errorf("what cannot be told: got %v", err)
			}
			for _, g := range w.vault.grants {
				if g.State == StateWithdrawn || g.State == StateDiscarded || g.Generation > 2 || g.Generation == 2 && g.State == StateActive {
					t.Errorf("it was done all the same: %+v", g)
				}
			}
			if tt.kind == NoticeActivated && len(w.vault.grants) > 0 {
				t.Errorf("it was done all the same: %+v", w.vault.grants)
			}
		})
	}
}

// An answer for another user is told, and refused whether or not it can be.
func TestNoticeOfMismatch(t *testing.T) {
	w := newWorld(t)
	w.vault.grants[0].UserName = "adele@contoso.example"
	f := notifying(w)
	f.err = ErrUnavailable
	w.entra.user = mallory
	if _, err := w.Token(t.Context(), ask()); !errors.Is(err, ErrUpstream) {
		t.Errorf("got %v", err)
	}
	if len(f.notified) != 1 || f.notified[0].Kind != NoticeIdentity || !strings.HasSuffix(f.notified[0].Key, contoso.String()+"/1") || !slices.Equal(f.notified[0].Also, []string{"adele@contoso.example"}) {
		t.Errorf("notified %+v", f.notified)
	}
}

// A grant that is not kept alive is told once, after what passes by itself has
// passed, and so is its recovery.
func TestNoticeOfKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := aliveWorld(t, 1)
		f := notifying(w)
		alive := func() {
			w.vault.grants[0].Due = time.Now()
			_ = w.keepDueAlive(t.Context(), 1)
			time.Sleep(time.Hour)
		}
		kinds := func() (out []NoticeKind) {
			for _, n := range f.notified {
				out = append(out, n.Kind)
			}
			return out
		}
		alive()
		if len(f.notified) != 0 {
			t.Fatalf("told %v of what works", kinds())
		}
		w.vault.grants[0].Redeemed = time.Now().Add(-30 * 24 * time.Hour)
		broken := &Fault{Domain: DomainGrant, OAuthError: "invalid_grant", Codes: []int{50173}, Description: "The grant has been revoked."}
		for i := range 6 {
			w.entra.hook = func(Redemption) error { return broken }
			alive()
			if told := len(f.notified); told != min(1, (i+1)/tellAfter) {
				t.Fatalf("after %d failures: told %v", i+1, kinds())
			}
		}
		if n := f.notified[0]; n.Kind != NoticeFailing || !strings.Contains(n.Why, "has been revoked") || n.Grant == nil || n.Generation != 1 {
			t.Errorf("told %+v", n)
		}
		w.entra.hook = nil
		alive()
		alive()
		if got := kinds(); !slices.Equal(got, []NoticeKind{NoticeFailing, NoticeRecovered}) || f.notified[0].Key != f.notified[1].Key {
			t.Errorf("told %v", f.notified)
		}
	})
}
