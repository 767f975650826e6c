package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/audit"
	"github.com/mandate-sam/mandate/entra"
	"github.com/mandate-sam/mandate/internal/database"
	"github.com/mandate-sam/mandate/internal/portal"
	"github.com/mandate-sam/mandate/internal/rotation"
	"github.com/mandate-sam/mandate/internal/web"
	"github.com/mandate-sam/mandate/notify"
	"github.com/mandate-sam/mandate/store"
	"github.com/mandate-sam/mandate/vault"
)

// Options are what a server has beside its configuration.
type Options struct {
	// Log takes the log. Nil means standard error, as the configuration says.
	Log *slog.Logger

	// Version is shown to operators.
	Version string

	// Pace is how often Entra is asked while a credential is replaced. Zero
	// means the standard one.
	Pace rotation.Pace

	// Ready is called once every listener accepts connections.
	Ready func(*App)
}

// An App is a server whose files are open and whose listeners listen.
type App struct {
	log        *slog.Logger
	broker     *mandate.Broker
	db         *database.DB
	vault      *vault.SQL
	store      *store.Store
	audit      *audit.Log
	auditIndex *database.DB // what searching the audit log looks into, unless that is db
	doors      []door

	outside *outside
	rings   rings
	epochs  string // the file that remembers them
	rotator *rotator
	notices *notify.Outbox

	// guarding verifies the security state; nil once that has been done.
	guarding func(context.Context) error

	stopping chan struct{}  // closed when shutdown begins
	watching sync.WaitGroup // of the database; ends when that is closed
}

// A door is a listener with what it serves.
type door struct {
	name   string
	listen net.Listener
	server *http.Server
}

// Run serves until ctx is done, then lets requests under way finish. The
// process leaves no core file from then on, and its memory is nobody else's: it
// holds every key that the process has.
func Run(ctx context.Context, c Config, o Options) error {
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}); err != nil {
		return fmt.Errorf("switch core files off: %w", err)
	}
	if err := hideMemory(); err != nil {
		return err
	}
	a, err := New(ctx, c, o)
	if err != nil {
		return err
	}
	if o.Ready != nil {
		o.Ready(a)
	}
	return a.Run(ctx)
}

// New opens everything that the configuration names and listens. [App.Run] or
// [App.Close] must be called.
func New(ctx context.Context, c Config, o Options) (_ *App, err error) {
	if o.Log == nil {
		o.Log = c.Log.logger(os.Stderr)
	}
	a := &App{log: o.Log, stopping: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.Close())
		}
	}()
	parts, err := a.open(ctx, &c)
	if err != nil {
		return nil, err
	}
	a.rotator.pace = o.Pace
	if err := parts.serve(ctx, a, &c, o); err != nil {
		return nil, err
	}
	return a, nil
}

// Address returns where a door listens: "portal", "api" or "operator".
func (a *App) Address(name string) net.Addr {
	for _, d := range a.doors {
		if d.name == name {
			return d.listen.Addr()
		}
	}
	return nil
}

// parts are the pieces between which App is the wire.
type parts struct {
	clouds   map[string]mandate.Cloud
	emulated bool
	upstream *upstream
	store    *store.Store
	vault    *vault.SQL
	policies *policies
	epoch    epoch
}

// epoch says of the database's doubts about its epoch that nothing can be
// handed out until they are over.
type epoch struct{ db *database.DB }

func (e epoch) Epoch() (int64, error) {
	n, err := e.db.Epoch()
	if err != nil {
		return 0, fmt.Errorf("%w: %w", mandate.ErrUnavailable, err)
	}
	return n, nil
}

// open opens files and makes the broker.
func (a *App) open(ctx context.Context, c *Config) (*parts, error) {
	p := new(parts)
	var err error
	if p.clouds, err = c.clouds(); err != nil {
		return nil, err
	}
	p.emulated = p.clouds[c.Applications[0].cloud()].Custom
	a.outside = newOutside(c, p.clouds, a.log)
	if p.upstream, err = newUpstream(ctx, c, a.outside); err != nil {
		return nil, err
	}
	data := c.file(c.Data)
	a.epochs = c.epochFile()
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, err
	}
	if a.db, err = c.openDatabase(ctx, a.log); err != nil {
		return nil, err
	}
	// From here on the epoch is read again and again, until the database is
	// closed: opening the rest may take longer than an epoch is believed.
	a.watching.Go(func() { _ = a.db.Run(context.WithoutCancel(ctx)) })
	vaults, err := a.vaultConfig(ctx, c)
	if err != nil {
		return nil, err
	}
	// The audit log in a database that went back did so too. The epoch is looked
	// at first: it is the epoch for which there is a way on.
	m, err := c.remembered()
	if err != nil {
		return nil, err
	}
	if err := m.notBefore(a.db); err != nil {
		return nil, err
	}
	if err := a.openAudit(ctx, c, p.emulated, vaults.Key); err != nil {
		return nil, err
	}
	if err := a.guardState(ctx, c); err != nil {
		return nil, err
	}
	if p.store, err = store.Open(ctx, a.db); err != nil {
		return nil, err
	}
	vaults.HomeOf = c.Grants.homeOf(p.store)
	if p.vault, err = vault.New(vaults); err != nil {
		return nil, err
	}
	a.vault, a.store, p.epoch = p.vault, p.store, epoch{a.db}
	if a.rotator, err = newRotator(ctx, a, p, c); err != nil {
		return nil, err
	}
	if err := p.checkClouds(); err != nil {
		return nil, err
	}
	if p.policies, err = a.openPolicies(ctx, c, p); err != nil {
		return nil, err
	}
	if a.guarding != nil {
		a.db.NeedGuard()
	}
	if a.notices, err = p.outbox(a, c); err != nil {
		return nil, err
	}
	broker := mandate.Config{
		Notifier:  a.notices,
		Authority: p.upstream, Prober: p.upstream, Vault: p.vault, Policy: p.policies, Audit: a.audit, Epoch: p.epoch, Lock: p.store, Revocations: p.store, Approvals: p.store, Log: a.log,
		Custody: p.vault, Sessions: p.upstream, Agents: p.upstream, Issued: a.audit, KeepAlive: c.KeepAlive.config(p.vault),
		Customers: c.Customers.of(p.store, p.upstream),
	}
	if c.Database.URL != "" {
		broker.Turns = p.vault
	}
	a.broker, err = mandate.New(broker)
	a.log.Info("open", "data", data, "emulated", p.emulated, "roles", "portal, broker and operator socket, in one process")
	return p, err
}

// vaultConfig opens keys and homes. What is kept outside is not asked for
// anything: a server starts while its key vault is down, and says what is wrong
// to whoever wants a token.
func (a *App) vaultConfig(ctx context.Context, c *Config) (v vault.Config, err error) {
	v.DB = a.db
	if c.keyFile() != "" {
		file, err := a.openKey(ctx, c)
		if err != nil {
			return v, err
		}
		v.Key, v.SharedKey = file, file.Shared()
	} else if v.Key, err = a.outside.wrapper(&c.Key); err != nil {
		return v, fmt.Errorf("key: %w", err)
	}
	a.rings.current = v.Key
	if v.Key, err = a.outside.keyring(v.Key); err != nil {
		return v, err
	}
	if !c.SharedKey.isZero() {
		if v.SharedKey, err = a.outside.wrapper(&c.SharedKey); err != nil {
			return v, fmt.Errorf("shared_key: %w", err)
		}
	}
	a.rings.grants, a.rings.shared, a.rings.sharedFile = v.Key, v.SharedKey, v.SharedKey
	v.Homes, err = a.outside.homes()
	return v, err
}

// mayMakeKey refuses to make the key at path for replicas.
func (c *Config) mayMakeKey(path string) error {
	if c.Database.URL == "" {
		return nil
	}
	return fmt.Errorf("the key file %s is missing: replicas share one key, so make it once (mandate key new %s) and give every replica a copy", path, path)
}

// openKey opens the key file. One that is missing is made only while there is
// nothing that another key has sealed: a new key in place of a lost one would
// hide the loss until the first token is asked for. Replicas never make one:
// each would make its own.
func (a *App) openKey(ctx context.Context, c *Config) (*vault.KeyFile, error) {
	path := c.keyFile()
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if err := c.mayMakeKey(path); err != nil {
			return nil, err
		}
		if err := a.noneSealed(ctx, path); err != nil {
			return nil, err
		}
	}
	return vault.OpenKeyFile(path)
}

// noneSealed returns an error if any grant has a sealed token.
func (a *App) noneSealed(ctx context.Context, path string) error {
	reader, err := vault.New(vault.Config{DB: a.db})
	if err != nil {
		return err
	}
	grants, err := reader.Grants(ctx, mandate.TenantID{})
	if err != nil {
		return err
	}
	sealed := 0
	for _, g := range grants {
		switch g.State {
		case mandate.StateActive, mandate.StateSuspended, mandate.StateFallback, mandate.StateCandidate:
			sealed++
		}
	}
	wraps, err := a.db.KeyID(ctx)
	if err != nil {
		return err
	}
	if sealed == 0 && wraps != "" {
		return fmt.Errorf("the key file %s is missing, and its key wraps the one with which the security state in the database is verified: restore it from its backup, or move the database away to begin anew", path)
	}
	if sealed > 0 {
		return fmt.Errorf("the key file %s is missing, and %d grant(s) in the database are sealed with its key: restore it from its backup, or move the database away to begin anew", path, sealed)
	}
	return nil
}

// usedClouds returns the clouds that applications are in.
func (c *Config) usedClouds(all map[string]mandate.Cloud) []mandate.Cloud {
	var out []mandate.Cloud
	seen := make(map[string]bool)
	for i := range c.Applications {
		if name := c.Applications[i].cloud(); !seen[name] {
			seen[name] = true
			out = append(out, all[name])
		}
	}
	return out
}

// checkClouds refuses a database that has seen the other kind of cloud: what
// an emulator gave must never be taken for the real thing.
func (p *parts) checkClouds() error {
	partners, err := p.store.Partners()
	if err != nil {
		return err
	}
	for _, partner := range partners {
		if _, microsofts := mandate.Clouds()[partner.Key.Cloud]; microsofts == p.emulated {
			return fmt.Errorf("the database has partner %q of cloud %q, and the configuration is for %s: use a database of its own for each",
				partner.Name, partner.Key.Cloud, map[bool]string{true: "a custom cloud", false: "Microsoft's clouds"}[p.emulated])
		}
	}
	return nil
}

// serve makes the doors.
func (p *parts) serve(_ context.Context, a *App, c *Config, o Options) error {
	proxies, err := c.proxies()
	if err != nil {
		return err
	}
	site, err := p.portal(a, c, proxies)
	if err != nil {
		return err
	}
	server, err := p.api(a, c, o, proxies)
	if err != nil {
		return err
	}
	if err := a.addDoor("portal", c, c.Portal.Listener, site.Handler()); err != nil {
		return err
	}
	if err := a.addDoor("api", c, c.API.Listener, server.Handler()); err != nil {
		return err
	}
	if err := p.metricsDoor(a, c); err != nil {
		return err
	}
	ln, err := api.ListenSocket(c.socket())
	if err != nil {
		return fmt.Errorf("operator socket: %w", err)
	}
	operator := web.NewServer(server.Operator(), a.log)
	operator.ConnContext = api.ConnContext
	a.doors = append(a.doors, door{"operator", ln, operator})
	return nil
}

func (a *App) addDoor(name string, c *Config, l Listener, h http.Handler) error {
	ln, err := c.listen(l, name == "api")
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	a.doors = append(a.doors, door{name, ln, web.NewServer(h, a.log)})
	return nil
}

func (p *parts) portal(a *App, c *Config, proxies web.Proxies) (*portal.Portal, error) {
	sites, err := c.sites(p.clouds)
	if err != nil {
		return nil, err
	}
	audiences := make(map[appKey]mandate.Audience)
	for _, s := range sites {
		audiences[appKey{s.Cloud.Name, s.ID}] = s.Audiences[0]
	}
	issuers, err := c.issuers(p.clouds)
	if err != nil {
		return nil, err
	}
	o := &onboarding{p.store, issuers}
	people := &partnerPages{p.store, p.upstream, a.broker, a.audit, epoch{a.db}, &partnerRoles{given: p.store, agents: a.broker}}
	return portal.New(portal.Config{
		PublicURL: c.Portal.PublicURL, Applications: sites, Invitations: o, Transactions: o, Outcomes: o,
		People: people, Records: people, Grants: people,
		Consenter: a.broker, Authorize: p.upstream.authorize(audiences), Callback: entra.Callback,
		TrustedProxies: proxies, Emulated: p.emulated, Log: a.log.With("door", "portal"),
	})
}

// socket returns where the operator socket is.
func (c *Config) socket() string {
	if c.Socket != "" {
		return c.file(c.Socket)
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, "mandate.sock")
	}
	return "/run/mandate/mandate.sock"
}

// grace is how long requests under way may take when the server stops.
const grace = 20 * time.Second

// Run serves until ctx is done, lets requests under way finish, and closes
// everything.
func (a *App) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, d := range a.doors {
		a.log.Info("listening", "door", d.name, "address", d.listen.Addr().String())
		group.Go(func() error {
			if err := d.server.Serve(d.listen); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("%s: %w", d.name, err)
			}
			return nil
		})
	}
	served, stop := context.WithCancel(context.WithoutCancel(ctx))
	group.Go(func() error { return a.outside.Run(served) })
	group.Go(func() error { return a.broker.Run(served) })
	group.Go(func() error { return a.audit.Run(served) })
	group.Go(func() error { return a.sweep(served) })
	group.Go(func() error { return a.sweepCallers(served, a.store) })
	group.Go(func() error { return a.watchKeys(served) })
	group.Go(func() error { return a.rotator.watch(served) })
	group.Go(func() error { return a.notices.Run(served) })
	group.Go(func() error { return a.rememberEpochs(served) })
	group.Go(func() error { return a.guardLater(served) })
	group.Go(func() error {
		defer stop()
		<-ctx.Done()
		return a.shutdown()
	})
	return errors.Join(group.Wait(), a.Close())
}

// sweepEvery is how often what is over is destroyed.
const sweepEvery = time.Minute

// sweep destroys fall-backs, candidates and shared tokens whose time is over.
func (a *App) sweep(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := a.vault.Sweep(ctx); err != nil && ctx.Err() == nil {
				a.log.Warn("sweep the vault", "err", err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// shutdown stops taking requests, and gives those under way some time.
func (a *App) shutdown() error {
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	close(a.stopping)
	var group errgroup.Group
	for _, d := range a.doors {
		group.Go(func() error {
			if err := d.server.Shutdown(ctx); err != nil {
				return errors.Join(fmt.Errorf("%s: %w", d.name, err), d.server.Close())
			}
			return nil
		})
	}
	return group.Wait()
}

// Close closes everything at once. [App.Run] does it; it is for an App that is
// never run.
func (a *App) Close() error {
	var errs []error
	for _, d := range a.doors {
		if err := d.listen.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if a.audit != nil {
		errs = append(errs, a.audit.Close())
	}
	if a.auditIndex != nil {
		errs = append(errs, a.auditIndex.Close())
	}
	if a.db != nil {
		errs = append(errs, a.db.Close())
	}
	a.watching.Wait()
	return errors.Join(errs...)
}

func (l *Log) logger(w *os.File) *slog.Logger {
	level := slog.LevelInfo
	if l.Level != "" {
		_ = level.UnmarshalText([]byte(l.Level)) // checked when it was read
	}
	opts := &slog.HandlerOptions{Level: level}
	if l.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}
