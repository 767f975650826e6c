package emulator

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"crypto/tls"

	"github.com/mandate-sam/mandate/emulator/directory"
	"github.com/mandate-sam/mandate/emulator/fault"
	"github.com/mandate-sam/mandate/emulator/internal/arm"
	"github.com/mandate-sam/mandate/emulator/internal/bearer"
	"github.com/mandate-sam/mandate/emulator/internal/entra"
	"github.com/mandate-sam/mandate/emulator/internal/graph"
	"github.com/mandate-sam/mandate/emulator/internal/keyvault"
	"github.com/mandate-sam/mandate/emulator/internal/partnercenter"
	"github.com/mandate-sam/mandate/emulator/internal/seed"
	"github.com/mandate-sam/mandate/emulator/internal/token"
)

// Config says how to start an emulator. Its zero value works.
type Config struct {
	// CA issues the services' certificates; nil means a new one.
	CA *CA

	// Seed makes ids and choices repeatable; 0 means a random one. Keys and
	// certificates are new at every start whatever the seed.
	Seed uint64

	// Ports says where to listen.
	Ports Ports

	// Listen is the address to listen on instead of loopback, such as
	// "0.0.0.0" in a container. It is refused without OffLoopback: whoever
	// reaches the emulator can sign in as anybody in it, and turn its dials.
	Listen      string
	OffLoopback bool

	// Name is the host in the services' URLs; empty means localhost. It must
	// be what clients call the machine by, and is the only other name that
	// the CA is for.
	Name string

	// InMemory opens no port: the services can be reached through
	// [Emulator.Client] alone, which calls them in process, and names them
	// as if they listened. Nothing runs in between then, so a test in a bubble
	// of testing/synctest may use it.
	InMemory bool

	// Fixture says who exists; nil means the built-in tenants. An application
	// whose id is [ApplicationID] is not there unless the fixture has it.
	Fixture *Fixture

	// Vaults are the names of the vaults of Key Vault, NAME or NAME@TENANT
	// with the id or domain of the tenant that the vault belongs to; empty
	// means one, [DefaultVault]. Each has a port of its own.
	Vaults []string

	// Log receives what happens, without secrets; nil means nowhere.
	Log *slog.Logger
}

// Ports of the services. A port of 0 means any that is free.
// That of Key Vault is for the first vault; the others take any.
type Ports struct{ Login, PartnerCenter, Graph, ARM, KeyVault, Admin int }

// Endpoints are the base URLs of the services, each https://localhost:PORT
// without a trailing slash. That of a resource also names the resource in
// token requests, beside its Microsoft name.
type Endpoints struct {
	Login         string `json:"login"`
	PartnerCenter string `json:"partner_center"`
	Graph         string `json:"graph"`
	ARM           string `json:"arm"`
	KeyVault      string `json:"key_vault"` // the first vault; see Emulator.Vault
	Admin         string `json:"admin"`
}

// Types that the packages below this one define.
type (
	Application  = directory.Application
	Access       = directory.Access
	Tenant       = directory.Tenant
	User         = directory.User
	Dials        = fault.Dials
	Refusal      = fault.Refusal
	Throttle     = fault.Throttle
	TokenRequest = entra.TokenRequest
	RefreshToken = token.Refresh
	ErrorEntry   = entra.ErrorEntry
)

// An Emulator is a running cloud. Its methods are safe for concurrent use.
type Emulator struct {
	seed      uint64
	fixture   *Fixture
	ca        *CA
	endpoints Endpoints
	log       *slog.Logger

	directory *directory.Directory
	dials     *fault.Panel
	ledger    *token.Ledger
	chance    *seed.Source
	entra     *entra.Server

	place     place
	servers   *servers
	transport http.RoundTripper
	memory    *memory // nil unless it was opened so
	hold      hold
	vaults    vaults
}

// A TB is what [Start] needs of a *testing.T.
type TB interface {
	Helper()
	Cleanup(func())
	Fatal(...any)
}

// Start returns an emulator that ends with the test, which it fails if there is
// something wrong with cfg. Without cfg it is the zero [Config].
func Start(t TB, cfg ...Config) *Emulator {
	t.Helper()
	e, err := Open(append(cfg, Config{})[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

// Open returns an emulator that is listening, with the fixture loaded. The
// caller closes it.
func Open(cfg Config) (*Emulator, error) {
	e := &Emulator{seed: cfg.Seed, fixture: cfg.Fixture, ca: cfg.CA, log: cfg.Log, dials: &fault.Panel{}, ledger: &token.Ledger{}}
	var err error
	if e.place, err = cfg.place(); err != nil {
		return nil, fmt.Errorf("start emulator: %w", err)
	}
	if cfg.InMemory {
		e.memory = newMemory(e.place.name)
	}
	e.directory = directory.New(e.dials.Now)
	if err := e.fill(); err != nil {
		return nil, fmt.Errorf("start emulator: %w", err)
	}
	key, err := token.NewKey()
	if err != nil {
		return nil, fmt.Errorf("start emulator: %w", err)
	}
	if err := e.populate(); err != nil {
		return nil, fmt.Errorf("start emulator: load fixture: %w", err)
	}
	names, err := e.parseVaults(cfg.Vaults)
	if err != nil {
		return nil, fmt.Errorf("start emulator: %w", err)
	}
	if err := e.listen(cfg.Ports, key, names[0]); err != nil {
		return nil, fmt.Errorf("start emulator: %w", err)
	}
	for _, n := range names[1:] {
		if _, err := e.AddVault(n.name + "@" + n.tenant); err != nil {
			e.Close()
			return nil, fmt.Errorf("start emulator: %w", err)
		}
	}
	return e, nil
}

// populate fills the directory, which is empty.
func (e *Emulator) populate() error {
	if e.fixture == nil {
		return e.directory.Load()
	}
	return e.fixture.load(e.directory)
}

// fill makes what the configuration left out.
func (e *Emulator) fill() (err error) {
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	for e.seed == 0 {
		var b [8]byte
		rand.Read(b[:]) // never fails
		e.seed = binary.LittleEndian.Uint64(b[:])
	}
	e.chance = seed.New(e.seed)
	if e.ca == nil {
		if e.ca, err = NewCA(e.place.names()...); err != nil {
			return err
		}
	}
	e.vaults.seal, err = keyvault.NewSeal()
	return err
}

// listen opens all ports and only then serves, so that an emulator that
// cannot start leaves nothing behind.
func (e *Emulator) listen(ports Ports, key *token.Key, vault vaultName) error {
	cert, err := e.ca.Issue(append(e.place.names(), "localhost", "*.vault.localhost", "127.0.0.1", "::1")...)
	if err != nil {
		return err
	}
	var open []*listener
	urls := []*string{&e.endpoints.Login, &e.endpoints.PartnerCenter, &e.endpoints.Graph, &e.endpoints.ARM, &e.endpoints.KeyVault, &e.endpoints.Admin}
	for i, port := range []int{ports.Login, ports.PartnerCenter, ports.Graph, ports.ARM, ports.KeyVault, ports.Admin} {
		l, err := e.address(port)
		if err != nil {
			for _, l := range open {
				l.close()
			}
			return err
		}
		*urls[i] = l.url
		open = append(open, l)
	}
	e.serve(open, cert, key, vault)
	return nil
}

func (e *Emulator) serve(open []*listener, cert tls.Certificate, key *token.Key, vault vaultName) {
	e.directory.NameResource(directory.PartnerCenter, e.endpoints.PartnerCenter)
	e.directory.NameResource(directory.Graph, e.endpoints.Graph)
	e.directory.NameResource(directory.ARM, e.endpoints.ARM)
	e.entra = entra.New(entra.Config{
		URL: e.endpoints.Login, Graph: e.endpoints.Graph, Directory: e.directory, Dials: e.dials, Key: key, Ledger: e.ledger, Chance: e.chance, Log: e.log,
	})
	cfg := bearer.Config{Login: e.endpoints.Login, Directory: e.directory, Dials: e.dials, Key: key, Chance: e.chance, Log: e.log}
	e.vaults.bearer, e.vaults.cert = cfg, cert
	first := e.addVault(vault, e.endpoints.KeyVault)
	e.servers = newServers(e.dials.Now)
	e.transport = e.memory
	if e.memory == nil {
		e.transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: e.ca.pool()}, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 100, IdleConnTimeout: time.Minute}
	}
	handlers := []http.Handler{e.entra.Handler(), partnercenter.New(cfg).Handler(), graph.New(cfg).Handler(), arm.New(cfg).Handler(), first.Handler(), e.admin()}
	for i, name := range []string{"login", "partnercenter", "graph", "arm", "keyvault"} {
		handlers[i] = e.delayed(name, handlers[i])
	}
	for i, h := range handlers {
		e.answer(open[i], cert, h)
	}
}

// Endpoints returns where the services are.
func (e *Emulator) Endpoints() Endpoints { return e.endpoints }

// Seed returns the seed in use, for a run that repeats this one.
func (e *Emulator) Seed() uint64 { return e.seed }

// CA returns the certificate authority of the services.
func (e *Emulator) CA() *CA { return e.ca }

// Client returns a client that trusts only the emulator's CA and follows no
// redirects. All clients share one transport, which Close empties.
func (e *Emulator) Client() *http.Client {
	return &http.Client{
		Transport:     e.transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Close ends the emulator and waits for everything that it started. Answers
// under way are cut off. All state is lost. It may be called again.
func (e *Emulator) Close() error {
	e.servers.close()
	(&http.Client{Transport: e.transport}).CloseIdleConnections()
	return nil
}

// Reset brings back the state after Start: fixture, dials, ledger, sign-ins.
// Ports, keys and certificates stay, so tokens issued before still verify;
// vaults are empty and have no policies;
// applications registered since are gone.
func (e *Emulator) Reset() error {
	e.Release()
	e.dials.Set(func(d *Dials) { *d = Dials{} })
	e.ledger.Clear()
	e.entra.Clear()
	e.chance.Reset(e.seed)
	for _, v := range e.allVaults() {
		v.Clear()
	}
	e.directory.Clear()
	if err := e.populate(); err != nil {
		return fmt.Errorf("reset: %w", err)
	}
	return nil
}

// errUnknown is returned for a name that the directory does not have.
var errUnknown = errors.New("unknown")
