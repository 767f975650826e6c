package demo

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/notify"
)

// wanted returns the approval that a denial waits for, or "".
func wanted(err error) string {
	var denied *mandate.DeniedError
	if !errors.As(err, &denied) {
		return ""
	}
	return denied.Decision.Approval
}

// answered does something until it is known what came of it: a replica that is
// too busy does not hear its database for a moment.
func answered(t *testing.T, do func() error) (err error) {
	t.Helper()
	within(t, time.Minute, "an answer", func() bool { err = do(); return !errors.Is(err, mandate.ErrUnavailable) })
	return err
}

// atOnce does something n times at once, and returns what came of it.
func atOnce(n int, do func(i int) error) []error {
	errs := make([]error, n)
	start := make(chan bool)
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() {
			<-start
			errs[i] = do(i)
		})
	}
	close(start)
	group.Wait()
	return errs
}

// All replicas together ask a second person once. The yes is given at one of
// them and counts at the others: for what a caller asks until it is taken back,
// for an act of an operator once, whoever races for it at whichever replica.
func TestReplicasApproval(t *testing.T) {
	t.Parallel()
	const nora, dev = "admin@northwind.example", "dev@northwind.example"
	d, _ := begin(t, Config{Idle: true})
	redirect, came := d.peopled(t, fmt.Sprintf(`{object: %s, roles: [security]}, {object: %s, roles: [security]}]
  second_person: [partner contact add`, objectOf(t, nora), objectOf(t, dev)))
	if err := os.WriteFile(d.File("policy/second.cedar"), []byte(`@id("two-persons") @until("2100-01-01") @scopes("consented") @customers("all") @approval("1h")
permit (principal == Caller::"reports", action, resource in Partner::"contoso")
when { context.audience == Audience::"graph" && context.purpose == Purpose::"demo" };`), 0o600); err != nil {
		t.Fatal(err)
	}
	f := fleetOf(t, d, 3)
	ctx, n := t.Context(), len(f.replicas)
	sessions := map[string]mandate.Secret{nora: d.session(t, redirect, came, nora), dev: d.session(t, redirect, came, dev)}
	person := func(i int, who string) *api.Client { return d.open(t, f.replicas[i].api).WithSession(sessions[who]) }
	give := func(i int, who, id string) error {
		return answered(t, func() error { _, err := person(i, who).GiveApproval(ctx, id); return err })
	}
	registered, err := person(0, nora).RegisterCaller(ctx, api.CallerRequest{ID: "reports"})
	if err != nil {
		t.Fatal(err)
	}
	token := func(i int, purpose string) error {
		caller, err := api.NewClient(f.replicas[i].api, d.Emulator.Client(), "reports", mandate.NewSecret(registered.Secret))
		if err == nil {
			_, err = caller.Token(ctx, api.TokenRequest{Partner: Partner, Audience: "graph", Purpose: purpose})
		}
		return err
	}
	for i := range n {
		within(t, time.Minute, "the caller is known", func() bool { return errors.Is(token(i, "curiosity"), mandate.ErrDenied) })
	}

	// A request: asked at all, given at the last, used at the first.
	asked := make([]string, n)
	for i, err := range atOnce(n, func(i int) error { return token(i, Purpose) }) {
		if asked[i] = wanted(err); asked[i] == "" && !errors.Is(err, mandate.ErrUnavailable) {
			t.Fatalf("of those who ask at once, one got %v", err)
		}
		within(t, time.Minute, "a second person is asked", func() bool { asked[i] = wanted(token(i, Purpose)); return asked[i] != "" })
	}
	var all []mandate.Approval
	if err := answered(t, func() error { all, err = f.replicas[0].client.Approvals(ctx); return err }); err != nil || len(all) != 1 || asked[0] != all[0].ID || asked[1] != all[0].ID || asked[2] != all[0].ID {
		t.Fatalf("asked %q; %+v, %v", asked, all, err)
	}
	if all, err := f.replicas[0].client.Notices(ctx, notify.Query{}); err != nil || len(all.Notices) != 2 || all.Notices[0].Kind != mandate.NoticeWanted || all.Notices[1].Kind != mandate.NoticeActivated {
		t.Errorf("told of the consent, and once of what is asked: %+v, %v", all, err)
	}
	if err := give(2, nora, asked[0]); !errors.Is(err, mandate.ErrDenied) {
		t.Errorf("the owner's yes, at another replica: %v", err)
	}
	if err := give(2, dev, asked[0]); err != nil {
		t.Fatal(err)
	}
	given := time.Now()
	within(t, time.Minute, "the yes counts elsewhere", func() bool { return token(0, Purpose) == nil })
	t.Logf("a yes counts at another replica after %v", time.Since(given))
	if err := answered(t, func() error { return f.replicas[1].client.WithdrawApproval(ctx, asked[0]) }); err != nil {
		t.Fatal(err)
	}
	withdrawn := time.Now()
	within(t, time.Minute, "it is taken back", func() bool { again := wanted(token(0, Purpose)); return again != "" && again != asked[0] })
	t.Logf("what was taken back is asked anew after %v", time.Since(withdrawn))

	// An act: asked at one, given at another, and used once.
	usedAll := 0
	for round := range 5 {
		add := func(i int) error {
			_, err := person(i%n, nora).AddContact(ctx, Partner, api.ContactRequest{Address: fmt.Sprintf("c%d@contoso.example", round)})
			return err
		}
		var id string
		within(t, time.Minute, "a second person is asked", func() bool { id = wanted(add(0)); return id != "" })
		within(t, time.Minute, "the yes", func() bool { return !errors.Is(give(1, dev, id), mandate.ErrNotFound) })
		for i := range n {
			within(t, time.Minute, "all know the yes", func() bool {
				a, err := f.replicas[i].client.Approval(ctx, id)
				return err == nil && a.State == mandate.ApprovalGiven
			})
		}
		used := 0
		for _, err := range atOnce(2*n, add) {
			switch {
			case err == nil:
				used++
			case !errors.Is(err, mandate.ErrDenied) && !errors.Is(err, mandate.ErrUnavailable):
				t.Error(err)
			}
		}
		if used > 1 {
			t.Errorf("one yes was used %d times", used)
		}
		usedAll += used
	}
	if usedAll == 0 {
		t.Error("no yes could be used")
	}
}
