package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/audit"
	"github.com/mandate-sam/mandate/emulator"
	"github.com/mandate-sam/mandate/internal/app"
	"github.com/mandate-sam/mandate/internal/database"
	"github.com/mandate-sam/mandate/internal/pgtest"
	"github.com/mandate-sam/mandate/vault"
)

// A fleet is several replicas of the product, each a process of its own, on one
// PostgreSQL.
type fleet struct {
	*Demo
	pg       *pgtest.Cluster
	url      string
	replicas []*replica
}

// A replica is one of them.
type replica struct {
	*product
	name   string
	config string        // path
	client *api.Client   // at its socket
	api    string        // its URL
	ahead  time.Duration // of its clock
}

// newFleet starts n replicas, of which the first takes the partner's consent.
// Their clocks are ahead by so much, or else right.
func newFleet(t *testing.T, n int, ahead ...time.Duration) *fleet {
	t.Helper()
	d, _ := begin(t, Config{Idle: true})
	return fleetOf(t, d, n, ahead...)
}

// fleetOf is newFleet with the configuration of d, which does not run.
func fleetOf(t *testing.T, d *Demo, n int, ahead ...time.Duration) *fleet {
	t.Helper()
	f := &fleet{Demo: d, pg: pgtest.Start(t)}
	f.url = f.pg.Database(t)
	if _, err := vault.OpenKeyFile(d.File("keys/mandate.key")); err != nil {
		t.Fatal(err)
	}
	if err := audit.WriteKey(d.File("keys/audit.key"), "demo/audit"); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		f.add(t, i, append(ahead, make([]time.Duration, n)...)[i])
	}
	d.Operator = f.replicas[0].client
	if page := d.attempt(t, attempt{invited: User, user: User}); contains(page.Text(), "Consent stored and active") != nil {
		t.Fatal(page.Text())
	}
	return f
}

// add starts one more replica. All have the key and the rules in common, and
// each its data, socket and ports; the portal of the first is the public one.
func (f *fleet) add(t *testing.T, i int, ahead time.Duration) {
	t.Helper()
	r := &replica{name: fmt.Sprintf("r%d", i), config: f.File(fmt.Sprintf("mandate-%d.yaml", i)), api: f.API, ahead: ahead}
	text, err := os.ReadFile(f.File("mandate.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	ports, err := (&Demo{}).ports()
	if err != nil {
		t.Fatal(err)
	}
	config := strings.NewReplacer(
		"data: data\n", fmt.Sprintf("data: data-%d\naudit: {key_file: keys/audit.key}\ndatabase: {url: %q, replica: %s}\n", i, f.url, r.name),
		"socket: mandate.sock", fmt.Sprintf("socket: %d.sock", i)).Replace(string(text))
	if i > 0 {
		r.api = "https://127.0.0.1:" + ports.API
		config = strings.NewReplacer("listen: "+strings.TrimPrefix(f.Portal, "https://"), "listen: 127.0.0.1:"+ports.Portal,
			"listen: "+strings.TrimPrefix(f.API, "https://"), "listen: 127.0.0.1:"+ports.API).Replace(config)
	}
	if err := os.WriteFile(r.config, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if r.client, err = api.NewSocketClient(f.File(fmt.Sprintf("%d.sock", i))); err != nil {
		t.Fatal(err)
	}
	r.launch(t)
	f.replicas = append(f.replicas, r)
}

// launch starts the replica's process, and returns once it serves.
func (r *replica) launch(t *testing.T) {
	t.Helper()
	r.product = launchConfig(t, r.config, clockVariable+"="+r.ahead.String())
}

// freeze stops the process where it is; thaw lets it go on.
func (r *replica) freeze() { r.cmd.Process.Signal(syscall.SIGSTOP) }
func (r *replica) thaw()   { r.cmd.Process.Signal(syscall.SIGCONT) }

// ask asks a replica for a token.
func (r *replica) ask(ctx context.Context, audience, tenant string) (mandate.Token, error) {
	return r.client.Token(ctx, api.TokenRequest{Partner: Partner, Tenant: tenant, Audience: audience, Purpose: Purpose})
}

// inVault does something with the vault of the replicas, as one more of them
// would.
func (f *fleet) inVault(t *testing.T, do func(*vault.SQL) error) {
	t.Helper()
	db, err := database.Open(t.Context(), database.Config{URL: f.url, Schemas: app.Schemas()})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	key, err := vault.OpenKeyFile(f.File("keys/mandate.key"))
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Guard(t.Context(), database.GuardConfig{Key: key}); err != nil {
		t.Fatal(err)
	}
	v, err := vault.New(vault.Config{DB: db, Key: key, SharedKey: key.Shared()})
	if err != nil {
		t.Fatal(err)
	}
	if err := do(v); err != nil {
		t.Fatal(err)
	}
}

// stored returns the number of the stored refresh token.
func (f *fleet) stored(t *testing.T) int {
	t.Helper()
	var n int
	f.inVault(t, func(v *vault.SQL) error {
		g, err := v.Open(t.Context(), contosoKey(t))
		if err != nil {
			return err
		}
		var ok bool
		if n, ok = f.Emulator.RefreshTokenNumber(g.Refresh.Reveal()); !ok {
			return errors.New("Entra never issued the stored refresh token")
		}
		return nil
	})
	return n
}

// since returns what the token endpoint was asked since the request n.
func (f *fleet) since(n int) []emulator.TokenRequest { return f.Emulator.TokenRequests()[n:] }

// crowd asks n times for the same token, from all replicas at once, and returns
// how many got it, and the errors of the others.
func (f *fleet) crowd(ctx context.Context, n int, audience string) (int, []error) {
	var mu sync.Mutex // guards got and errs
	var got int
	var errs []error
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() {
			err := f.patiently(ctx, i, audience)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				got++
			} else {
				errs = append(errs, err)
			}
		})
	}
	group.Wait()
	return got, errs
}

// patiently asks as callers behind a load balancer do: another replica when one
// is gone, and the same again while it says that it cannot for the moment. On a
// machine that is too busy it does not hear its database for 750 ms.
func (f *fleet) patiently(ctx context.Context, i int, audience string) error {
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		_, err := f.replicas[i%len(f.replicas)].ask(ctx, audience, "")
		var gone *url.Error
		switch {
		case time.Now().After(end):
			return err
		case errors.Is(err, api.ErrUnreachable) || errors.As(err, &gone) || errors.Is(err, io.ErrUnexpectedEOF):
			i++
		case !errors.Is(err, mandate.ErrUnavailable):
			return err
		}
	}
}

// A held redemption is one that the first replica has begun, and of which
// Entra's answer is made and held back.
type held struct {
	*fleet
	before int        // requests to Entra until then
	owner  chan error // has what becomes of the caller who began it
	crowd  chan crowded
}

// A crowded is what became of a crowd.
type crowded struct {
	got  int
	errs []error
}

// hold has the first replica begin a redemption, of a token that all have had
// and that has just expired. A thousand callers come for that token.
func (f *fleet) hold(t *testing.T) *held {
	t.Helper()
	return f.holdBy(t, f.replicas[0], "graph")
}

// holdBy is hold for another replica and API.
func (f *fleet) holdBy(t *testing.T, owner *replica, audience string) *held {
	t.Helper()
	f.Emulator.Dial(func(d *emulator.Dials) { d.AccessTokenLifetime = 61 * time.Second }) // of which the last minute is not handed out
	for _, r := range f.replicas {
		if _, err := r.ask(t.Context(), audience, ""); err != nil {
			t.Fatal(err)
		}
	}
	f.Emulator.Dial(func(d *emulator.Dials) { d.AccessTokenLifetime = 0 })
	time.Sleep(2 * time.Second) // the products' clocks are the machine's
	h := &held{f, len(f.Emulator.TokenRequests()), make(chan error, 1), make(chan crowded, 1)}
	f.Emulator.Hold()
	go func() { _, err := owner.ask(t.Context(), audience, ""); h.owner <- err }()
	within(t, 20*time.Second, "the redemption", func() bool { return len(h.asked()) == 1 })
	go func() {
		got, errs := f.crowd(t.Context(), thousand, audience)
		h.crowd <- crowded{got, errs}
	}()
	return h
}

// thousand is how many want one token at once.
const thousand = 1000

// asked returns what Entra was asked since the redemption began, itself
// included.
func (h *held) asked() []emulator.TokenRequest { return h.since(h.before) }

// redeemed is asked without the requests at which Entra did not look, because
// the time of their assertions is not now.
func (h *held) redeemed() []emulator.TokenRequest {
	return slices.DeleteFunc(slices.Clone(h.asked()), func(r emulator.TokenRequest) bool { return r.Error == 700024 })
}

// served fails the test unless the whole crowd gets a token, there were so many
// redemptions all in all, and the last answer is what is stored.
func (h *held) served(t *testing.T, times int) {
	t.Helper()
	c := <-h.crowd
	all := h.redeemed()
	if len(all) != times || c.got != thousand {
		t.Fatalf("%d redemptions, want %d; %d of %d callers got the token; errors %v", len(all), times, c.got, thousand, errors.Join(c.errs[:min(3, len(c.errs))]...))
	}
	if n := h.stored(t); n != all[times-1].Answered {
		t.Errorf("refresh token %d is stored; redeemed %+v", n, all)
	}
}

// Three replicas and a thousand callers of one token that has expired: one
// redemption.
func TestReplicasOneRedemption(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3)
	if got, errs := f.crowd(t.Context(), thousand, "arm"); got != thousand {
		t.Errorf("the first token: %d got it, errors %v", got, errors.Join(errs[:min(3, len(errs))]...))
	}
	h := f.hold(t)
	f.Emulator.Release()
	h.served(t, 1)
	if err := <-h.owner; err != nil {
		t.Error(err)
	}
}

// A replica is killed while Entra's answer to it is under way, which is lost
// with it. Another takes over when the lease is over, once, and its answer is
// what is stored.
func TestReplicasOwnerKilled(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3)
	h := f.hold(t)
	f.replicas[0].kill()
	f.Emulator.Release()
	h.served(t, 2)
	if err := <-h.owner; err == nil {
		t.Error("the dead replica's caller got a token")
	}
}

// A replica that was frozen while it had the turn wakes when another has
// redeemed since. What it writes late is refused, and it goes on by itself.
func TestReplicasFrozenOwner(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3)
	h := f.hold(t)
	f.replicas[0].freeze()
	f.Emulator.Release()
	if _, err := f.replicas[1].ask(t.Context(), "graph", ""); err != nil {
		t.Fatal(err)
	}
	newer := f.stored(t)
	f.replicas[0].thaw()
	// It may find first that it has not heard from the database for too long.
	if err := <-h.owner; err != nil && !errors.Is(err, mandate.ErrUnavailable) {
		t.Errorf("the late one's caller: %v", err)
	}
	h.served(t, 2)
	if n := f.stored(t); n != newer {
		t.Errorf("refresh token %d is stored, after %d", n, newer)
	}
}

// Nothing depends on whether the clocks of replicas agree with each other's,
// with Entra's or with the database's: whoever is first redeems, and the others
// take what came of it. Of a replica whose clock is ahead Entra refuses the
// first assertion, before it looks at anything else.
func TestReplicasClockOff(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3, 0, 10*time.Minute, -10*time.Minute)
	for _, tt := range []struct {
		owner              int
		audience, database string
	}{
		{1, "graph", ""}, {2, "arm", "- 600000"}, {0, "partnercenter", "+ 600000"},
	} {
		pgtest.ExecIn(t, f.url, `CREATE OR REPLACE FUNCTION now_ms() RETURNS BIGINT LANGUAGE SQL AS
			'SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint `+tt.database+`'`)
		h := f.holdBy(t, f.replicas[tt.owner], tt.audience)
		f.Emulator.Release()
		h.served(t, 1)
		refused := len(h.asked()) - len(h.redeemed())
		if ahead := tt.owner == 1; ahead != (refused == 1) || refused > 1 {
			t.Errorf("%+v: Entra refused %d assertions", tt, refused)
		}
	}
}

// PostgreSQL ends in the middle of a redemption and comes back: nothing is
// handed out meanwhile, and then all goes on by itself.
func TestReplicasDatabaseRestart(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3)
	h := f.hold(t)
	f.pg.Stop(t)
	f.Emulator.Release()
	if err := <-h.owner; !errors.Is(err, mandate.ErrUnavailable) {
		t.Errorf("without a database: %v", err)
	}
	for _, r := range f.replicas {
		within(t, 5*time.Second, "a refusal", func() bool {
			_, err := r.ask(t.Context(), "arm", "")
			return errors.Is(err, mandate.ErrUnavailable)
		})
	}
	f.pg.StartAgain(t)
	h.served(t, 2)
}

// The partner's grant is withdrawn between Entra's answer and the write: what
// was answered is neither stored nor handed out, by any replica.
func TestReplicasWithdrawn(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3)
	h := f.hold(t)
	f.inVault(t, func(v *vault.SQL) error { _, err := v.Withdraw(t.Context(), contosoKey(t)); return err })
	f.Emulator.Release()
	if err := <-h.owner; !errors.Is(err, mandate.ErrNoGrant) {
		t.Errorf("the caller whose token was under way: %v", err)
	}
	c := <-h.crowd
	if len(h.asked()) != 1 || c.got != 0 || len(c.errs) != thousand {
		t.Errorf("Entra was asked %d times; %d callers got a token", len(h.asked()), c.got)
	}
	for _, err := range c.errs {
		if !errors.Is(err, mandate.ErrNoGrant) {
			t.Fatalf("a caller: %v", err)
		}
	}
	f.inVault(t, func(v *vault.SQL) error {
		if g, err := v.Open(t.Context(), contosoKey(t)); err == nil {
			return fmt.Errorf("generation %d is stored", g.Generation)
		}
		return nil
	})
}

// A trouble is something that happens in the middle of a round of the drill.
type trouble struct {
	name string
	do   func(t *testing.T, f *fleet) (after func())
}

// troubles are what the drill draws from.
var troubles = []trouble{
	{"none", func(*testing.T, *fleet) func() { return func() {} }},
	{"a replica killed", func(t *testing.T, f *fleet) func() {
		r := f.replicas[rand.N(len(f.replicas))]
		r.kill()
		return func() { r.launch(t) }
	}},
	{"a replica frozen", func(t *testing.T, f *fleet) func() {
		r := f.replicas[rand.N(len(f.replicas))]
		r.freeze()
		time.Sleep(rand.N(300 * time.Millisecond))
		return r.thaw
	}},
	{"a replica frozen for longer than a lease", func(t *testing.T, f *fleet) func() {
		if rand.N(8) > 0 {
			return func() {}
		}
		r := f.replicas[rand.N(len(f.replicas))]
		r.freeze()
		time.Sleep(mandate.TurnLease + time.Second)
		return r.thaw
	}},
	{"PostgreSQL restarted", func(t *testing.T, f *fleet) func() { f.pg.Restart(t); return func() {} }},
	{"PostgreSQL frozen", func(t *testing.T, f *fleet) func() {
		f.pg.Freeze(t)
		time.Sleep(rand.N(1200 * time.Millisecond))
		return func() { f.pg.Thaw(t) }
	}},
	{"Entra slow", func(t *testing.T, f *fleet) func() {
		f.Emulator.Dial(func(d *emulator.Dials) { d.TokenLatency = rand.N(200 * time.Millisecond) })
		return func() { f.Emulator.Dial(func(d *emulator.Dials) { d.TokenLatency = 0 }) }
	}},
}

// Rounds of trouble under load: replicas are killed and frozen, PostgreSQL too,
// while callers want tokens that must be redeemed. Whatever happens, the stored
// refresh token is one that Entra issued, never older than the one before, and
// newer if anybody got an access token; and it works.
func TestReplicasDrill(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3)
	// A token is not handed out in its last minute, so every request redeems.
	f.Emulator.Dial(func(d *emulator.Dials) { d.AccessTokenLifetime = time.Minute })
	before := f.stored(t)
	var served, redeemed int
	seen := make(map[string]int)
	for round := range *rounds {
		asked := len(f.Emulator.TokenRequests())
		what := troubles[rand.N(len(troubles))]
		seen[what.name]++
		got := f.round(t, what)
		after := f.stored(t)
		log := f.since(asked)
		redeemed += len(log)
		served += got
		if after < before {
			t.Fatalf("round %d, %s: refresh token %d is stored, %d was before: an older one has overwritten a newer", round, what.name, after, before)
		}
		if got > 0 && after == before {
			t.Fatalf("round %d, %s: %d callers got an access token, and refresh token %d is still stored", round, what.name, got, before)
		}
		if after != before && !slices.ContainsFunc(log, func(r emulator.TokenRequest) bool { return r.Answered == after }) {
			t.Fatalf("round %d, %s: refresh token %d is stored, which no redemption of the round brought", round, what.name, after)
		}
		before = after
	}
	within(t, 30*time.Second, "service", func() bool { got, _ := f.crowd(t.Context(), 3, "graph"); return got == 3 })
	fmt.Printf("drill: %d rounds of trouble over three replicas (%v): %d redemptions, %d tokens handed out; the stored refresh token was never lost and never older than before\n",
		*rounds, seen, redeemed, served)
}

// round asks all replicas for tokens of several audiences while what happens,
// and returns how many were handed out.
func (f *fleet) round(t *testing.T, what trouble) int {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var got atomic.Int64
	var group sync.WaitGroup
	for i := range 12 {
		client := f.replicas[i%len(f.replicas)].client
		audience := []string{"graph", "arm", "partnercenter", "graph"}[i%4]
		group.Go(func() {
			time.Sleep(rand.N(100 * time.Millisecond))
			_, err := client.Token(ctx, api.TokenRequest{Partner: Partner, Audience: audience, Purpose: Purpose})
			if err == nil {
				got.Add(1)
			}
		})
	}
	time.Sleep(rand.N(100 * time.Millisecond))
	after := what.do(t, f)
	time.Sleep(rand.N(200 * time.Millisecond))
	after()
	group.Wait()
	return int(got.Load())
}
