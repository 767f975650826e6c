package demo

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
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
	config string // path
	client *api.Client
}

// newFleet starts n replicas, after a first one has taken the partner's
// consent.
func newFleet(t *testing.T, n int) *fleet {
	t.Helper()
	d, _ := begin(t, Config{Idle: true})
	f := &fleet{Demo: d, pg: pgtest.Start(t)}
	f.url = f.pg.Database(t)
	if _, err := vault.OpenKeyFile(d.File("keys/mandate.key")); err != nil {
		t.Fatal(err)
	}
	if err := audit.WriteKey(d.File("keys/audit.key"), "demo/audit"); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		f.add(t, i)
	}
	d.Operator = f.replicas[0].client
	if page := d.attempt(t, attempt{invited: User, user: User}); contains(page.Text(), "Consent stored and active") != nil {
		t.Fatal(page.Text())
	}
	return f
}

// add starts one more replica. All have the key and the rules in common, and
// each its data, socket and ports; the portal of the first is the public one.
func (f *fleet) add(t *testing.T, i int) {
	t.Helper()
	r := &replica{name: fmt.Sprintf("r%d", i), config: f.File(fmt.Sprintf("mandate-%d.yaml", i))}
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
	r.product = launchConfig(t, r.config)
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
	var mu sync.Mutex
	var got int
	var errs []error
	var group sync.WaitGroup
	for i := range n {
		r := f.replicas[i%len(f.replicas)]
		group.Go(func() {
			err := r.patiently(ctx, audience)
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

// patiently asks until the replica hears its database: on a machine that is too
// busy that takes more than the 750 ms after which it refuses.
func (r *replica) patiently(ctx context.Context, audience string) error {
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		_, err := r.ask(ctx, audience, "")
		if !errors.Is(err, mandate.ErrUnavailable) || time.Now().After(end) {
			return err
		}
	}
}

// Three replicas and a thousand callers who want the same token at once: one
// redemption. The same again when it has expired.
func TestReplicasOneRedemption(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3)
	f.Emulator.Dial(func(d *emulator.Dials) { d.AccessTokenLifetime = 65 * time.Second }) // a minute before that it is no longer handed out
	for _, what := range []string{"first", "expired"} {
		before := len(f.Emulator.TokenRequests())
		got, errs := f.crowd(t.Context(), 1000, "graph")
		if asked := f.since(before); len(asked) != 1 || got != 1000 {
			t.Fatalf("%s: %d redemptions, %d of 1000 got the token, errors %v", what, len(asked), got, errors.Join(errs...))
		}
		time.Sleep(6 * time.Second) // the product's clock is the machine's
	}
}

// A replica is killed while Entra's answer to it is under way. Another takes
// over within the lease, and the stored token is one that works.
func TestReplicasOwnerKilled(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2)
	before := len(f.Emulator.TokenRequests())
	f.Emulator.Hold()
	go f.replicas[0].ask(t.Context(), "graph", "")
	within(t, 20*time.Second, "the redemption", func() bool { return len(f.since(before)) == 1 })
	f.replicas[0].kill()
	f.Emulator.Release()
	begun := time.Now()
	if _, err := f.replicas[1].ask(t.Context(), "graph", ""); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begun); took > mandate.TurnLease+3*time.Second {
		t.Errorf("the other replica waited %v", took)
	}
	asked := f.since(before)
	if len(asked) != 2 || f.stored(t) != asked[1].Answered {
		t.Errorf("asked %+v, stored %d", asked, f.stored(t))
	}
}

// A replica that was frozen while it had the turn wakes when another has
// redeemed since. What it writes late is refused, and it goes on by itself.
func TestReplicasFrozenOwner(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2)
	before := len(f.Emulator.TokenRequests())
	f.Emulator.Hold()
	late := make(chan error, 1)
	go func() { _, err := f.replicas[0].ask(t.Context(), "graph", ""); late <- err }()
	within(t, 20*time.Second, "the redemption", func() bool { return len(f.since(before)) == 1 })
	f.replicas[0].freeze()
	f.Emulator.Release()
	if _, err := f.replicas[1].ask(t.Context(), "graph", ""); err != nil {
		t.Fatal(err)
	}
	newer := f.stored(t)
	f.replicas[0].thaw()
	// It may find first that it has not heard from the database for too long.
	if err := <-late; err != nil && !errors.Is(err, mandate.ErrUnavailable) {
		t.Errorf("the late one's caller: %v", err)
	}
	within(t, 10*time.Second, "the late one's service", func() bool {
		_, err := f.replicas[0].ask(t.Context(), "graph", "")
		return err == nil
	})
	if n := f.stored(t); n != newer || n != f.since(before)[1].Answered {
		t.Errorf("stored is %d, after %d; asked %+v", n, newer, f.since(before))
	}
}

// Nothing that replicas share depends on whether their clocks agree with the
// database's.
func TestReplicasClockOff(t *testing.T) {
	t.Parallel()
	for _, off := range []string{"+ 600000", "- 600000"} {
		f := newFleet(t, 2)
		pgtest.ExecIn(t, f.url, `CREATE OR REPLACE FUNCTION now_ms() RETURNS BIGINT LANGUAGE SQL AS
			'SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint `+off+`'`)
		before := len(f.Emulator.TokenRequests())
		got, errs := f.crowd(t.Context(), 200, "graph")
		if asked := f.since(before); len(asked) != 1 || got != 200 {
			t.Errorf("%s ms: %d redemptions, %d of 200 got the token, errors %v", off, len(asked), got, errors.Join(errs...))
		}
	}
}

// PostgreSQL ends in the middle of a redemption and comes back: nothing is
// handed out meanwhile, and then all goes on by itself.
func TestReplicasDatabaseRestart(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2)
	before := len(f.Emulator.TokenRequests())
	f.Emulator.Hold()
	late := make(chan error, 1)
	go func() { _, err := f.replicas[0].ask(t.Context(), "graph", ""); late <- err }()
	within(t, 20*time.Second, "the redemption", func() bool { return len(f.since(before)) == 1 })
	f.pg.Stop(t)
	f.Emulator.Release()
	if err := <-late; !errors.Is(err, mandate.ErrUnavailable) {
		t.Errorf("without a database: %v", err)
	}
	within(t, 5*time.Second, "a refusal", func() bool {
		_, err := f.replicas[1].ask(t.Context(), "arm", "")
		return errors.Is(err, mandate.ErrUnavailable)
	})
	f.pg.StartAgain(t)
	within(t, 30*time.Second, "service", func() bool {
		got, _ := f.crowd(t.Context(), 20, "graph")
		return got == 20
	})
	if n := f.stored(t); n != f.since(before)[len(f.since(before))-1].Answered {
		t.Errorf("stored is %d, asked %+v", n, f.since(before))
	}
}

// The partner's grant is withdrawn between Entra's answer and the write: what
// was answered is neither stored nor handed out, by any replica.
func TestReplicasWithdrawn(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2)
	before := len(f.Emulator.TokenRequests())
	f.Emulator.Hold()
	late := make(chan error, 1)
	go func() { _, err := f.replicas[0].ask(t.Context(), "graph", ""); late <- err }()
	within(t, 20*time.Second, "the redemption", func() bool { return len(f.since(before)) == 1 })
	f.inVault(t, func(v *vault.SQL) error { _, err := v.Withdraw(t.Context(), contosoKey(t)); return err })
	f.Emulator.Release()
	if err := <-late; !errors.Is(err, mandate.ErrNoGrant) {
		t.Errorf("the caller whose token was under way: %v", err)
	}
	for _, r := range f.replicas {
		if _, err := r.ask(t.Context(), "graph", ""); !errors.Is(err, mandate.ErrNoGrant) {
			t.Errorf("%s: %v", r.name, err)
		}
	}
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
