// Package api is the broker's HTTP API and its Go client: both ends in one
// package, tested against each other.
//
// There are two doors to the same operations. [Server.Handler] is for callers,
// who prove who they are and may ask for tokens.
// [Server.Operator] is for a Unix socket: the kernel says which user is at the
// other end, and that user may also invite partners, add callers, make calls
// and read the audit log. Neither door leads past policy: an operator's token
// needs a rule and a purpose like anybody's.
//
// The API is described in openapi.json, which both doors serve, and which the
// tests hold against the server.
package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/web"
)

// A Broker issues tokens; [mandate.Broker] is one.
type Broker interface {
	// Token returns a token after it was decided and recorded, or an error
	// that wraps a sentinel of package mandate.
	Token(context.Context, mandate.Request) (mandate.Token, error)
}

// An Authenticator knows the callers' secrets.
type Authenticator interface {
	// Authenticate returns the caller whose id and secret these are. If there
	// is none, the error wraps [mandate.ErrUnauthenticated] and does not say
	// whether the id exists; comparing takes the same time in both cases.
	Authenticate(id, secret string) (mandate.CallerID, error)
}

// Partners finds partners.
type Partners interface {
	// Partner returns the partner with that short name or tenant id, or an
	// error wrapping [mandate.ErrUnknownPartner].
	Partner(nameOrID string) (mandate.Partner, error)
}

// A Registry holds the partners for an operator.
type Registry interface {
	// Partners returns all partners, sorted by name.
	Partners(context.Context) ([]mandate.Partner, error)

	// Invite adds the partner if it is new, and returns it as it is stored
	// with the URL under which it can consent. The error wraps [mandate.ErrExists] if the name belongs
	// to another tenant, or the tenant has another name.
	Invite(context.Context, Invitation) (mandate.Partner, mandate.Secret, error)
}

// Tenants finds tenants by a domain.
type Tenants interface {
	// Tenant returns the tenant that has verified a domain, in the cloud of
	// the application that the key names. The error wraps
	// [mandate.ErrInvalid] if there is none.
	Tenant(ctx context.Context, key mandate.GrantKey, domain string) (mandate.TenantID, error)
}

// Grants tells the state of consents; [mandate.Vault] is one.
type Grants interface {
	// Head returns the active generation without its refresh token, or a
	// [*mandate.NoGrantError].
	Head(context.Context, mandate.GrantKey) (mandate.Grant, error)
}

// An AuditLog is the log as operators read it.
type AuditLog interface {
	// Last returns the last n records as written, oldest first. Each has its
	// number in "index".
	Last(n int) ([]json.RawMessage, error)

	// Count returns how many records there are.
	Count() int64

	// Wait returns when there are more than count records, or with ctx's
	// error.
	Wait(ctx context.Context, count int64) error
}

// An Application is one that partners can be invited to consent to.
type Application struct {
	Name  string // what operators call it
	Cloud string
	ID    mandate.AppID

	// Audiences are the APIs that a consent is tried with: Partner Center,
	// Graph, then any others.
	Audiences []mandate.Audience
}

// Config is what a [Server] serves and whom it asks. Every field without a
// stated default is required.
type Config struct {
	Broker        Broker
	Authenticator Authenticator
	Partners      Partners
	Registry      Registry
	Tenants       Tenants
	Callers       Callers
	Grants        Grants
	Life          Life
	Forecaster    Forecaster
	Audit         AuditLog
	Recorder      mandate.Recorder
	Epoch         mandate.Epoch

	Clouds       map[string]mandate.Cloud // by name
	Applications []Application

	// Operators are the user ids that may use the operator socket. Nil means
	// the one this process runs as.
	Operators []int

	// Proofs tells callers by other things than secrets, and knows what their
	// registrations bind. Nil knows secrets only.
	Proofs Proofs

	// Users verifies the ID tokens of end users that callers send along. Nil
	// takes none.
	Users Users

	// SignIns lets operators sign in, and then use the API as they use the
	// socket. Nil lets nobody.
	SignIns SignIns

	// CertificateProxies are the networks of reverse proxies that end TLS and
	// tell which client certificate was shown, in a header that they let
	// nobody else write. None by default.
	CertificateProxies web.Proxies

	// Secrets reads refresh tokens that are imported out of a Key Vault. Nil
	// cannot.
	Secrets Secrets

	// Customers knows which customers partners have. Nil knows of none.
	Customers Customers

	// PartnerUsers gives people of partners roles on the partner's pages. Nil
	// has no such pages.
	PartnerUsers PartnerUsers

	// Archive searches and exports the audit log. Nil has none.
	Archive Archive

	// Custodian has the keys and makes backups. Nil has none.
	Custodian Custodian

	// Notices are what people were told. Nil tells nobody.
	Notices Notices

	// Contacts holds who is told. Nil has none.
	Contacts Contacts

	// Notifier tells people of what operators do that they may not have
	// wanted. Nil tells nobody.
	Notifier mandate.Notifier

	// Approvals is where second people are asked. Nil asks nobody.
	Approvals Approvals

	// SecondPerson names the acts for which a second person must agree, as
	// commands ("policy apply"); see [CheckSecondPerson].
	SecondPerson []string

	// Rules say what operators may not do, though their roles allow it. Nil
	// has none.
	Rules Rules

	// Revoker is what operators revoke with. Nil has no revocations.
	Revoker Revoker

	// Policies holds the policy in force. Nil has none that can be changed.
	Policies Policies

	// Credentials looks after those of the applications. Nil does not.
	Credentials Credentials

	// Metrics answers for /metrics on the operator socket. Nil has none.
	Metrics http.Handler

	// Transport makes the calls to Microsoft's APIs. Nil means
	// [http.DefaultTransport].
	Transport http.RoundTripper

	// Ready says why requests cannot be served just now. Nil means that they
	// always can.
	Ready func(context.Context) error

	// Stopping is closed when the server begins to stop, which ends the answers
	// that would go on for as long as somebody listens. Nil means never.
	Stopping <-chan struct{}

	// Failures limits failed authentications, for each client address and
	// for each caller id. Zero means 20 at once, then one every ten seconds.
	Failures web.Limit

	TrustedProxies web.Proxies // whose X-Forwarded-For counts; none by default
	Version        string      // shown by status
	Log            *slog.Logger
}

// A Server answers API requests. Its methods may be called concurrently.
type Server struct {
	cfg       Config
	started   time.Time
	addresses *web.Limiter // failed authentications by client address
	ids       *web.Limiter // and by caller id
}

// maxKeys is how many addresses, and how many caller ids, the limiters
// remember.
const maxKeys = 20_000

// New returns a server for cfg, or an error that names what is missing.
func New(cfg Config) (*Server, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	if cfg.Operators == nil {
		cfg.Operators = []int{os.Getuid()}
	}
	if cfg.Transport == nil {
		cfg.Transport = http.DefaultTransport
	}
	if cfg.Ready == nil {
		cfg.Ready = func(context.Context) error { return nil }
	}
	if cfg.Failures == (web.Limit{}) {
		cfg.Failures = web.Limit{Every: 10 * time.Second, Burst: 20}
	}
	return &Server{
		cfg: cfg, started: time.Now(),
		addresses: web.NewLimiter(cfg.Failures, maxKeys), ids: web.NewLimiter(cfg.Failures, maxKeys),
	}, nil
}

// check reports the first required field that is missing.
func (c *Config) check() error {
	switch {
	case c.Broker == nil || c.Authenticator == nil || c.Partners == nil:
		return errors.New("Broker, Authenticator and Partners are required")
	case c.Registry == nil || c.Tenants == nil || c.Callers == nil || c.Grants == nil:
		return errors.New("Registry, Tenants, Callers and Grants are required")
	case c.Life == nil || c.Forecaster == nil:
		return errors.New("Life and Forecaster are required")
	case len(c.SecondPerson) > 0 && c.Approvals == nil:
		return errors.New("Approvals is required where acts need a second person")
	case c.Audit == nil || c.Recorder == nil || c.Epoch == nil || c.Log == nil:
		return errors.New("Audit, Recorder, Epoch and Log are required")
	case len(c.Applications) == 0:
		return errors.New("there is no application to ask consent for")
	}
	for _, a := range c.Applications {
		if _, ok := c.Clouds[a.Cloud]; !ok {
			return fmt.Errorf("application %q is in cloud %q, which is not configured", a.Name, a.Cloud)
		}
	}
	return nil
}

// An action is an operation behind a door: who asks is known.
type action func(s *Server, w http.ResponseWriter, r *http.Request, caller mandate.CallerID) error

// A route is one operation.
type route struct {
	method, path string
	do           action
}

// callerRoutes are for everybody who can authenticate.
var callerRoutes = []route{
	{"POST", tokensPath, (*Server).token},
}

const tokensPath = "/v1/tokens"

// operatorRoutes are for the operator socket only.
var operatorRoutes = []route{
	{"POST", "/v1/call", (*Server).call},
	{"GET", "/v1/partners", (*Server).listPartners},
	{"POST", "/v1/partners", (*Server).invite},
	{"GET", "/v1/partners/{partner}", (*Server).showPartner},
	{"GET", "/v1/grants", (*Server).listGrants},
	{"GET", "/v1/grants/{partner}", (*Server).showGrant},
	{"POST", "/v1/grants/{partner}/suspend", act(Life.Suspend)},
	{"POST", "/v1/grants/{partner}/resume", act(Life.Resume)},
	{"POST", "/v1/grants/{partner}/rollback", act(rollback)},
	{"POST", "/v1/grants/{partner}/approve", decide(approve)},
	{"POST", "/v1/grants/{partner}/discard", decide(Life.Discard)},
	{"POST", "/v1/grants/{partner}/withdraw", (*Server).withdraw},
	{"POST", "/v1/grants/{partner}/import", (*Server).importGrant},
	{"GET", "/v1/forecast", (*Server).forecast},
	{"GET", "/metrics", (*Server).metrics},
	{"GET", "/v1/audit", (*Server).audit},
	{"GET", "/v1/status", (*Server).status},
}

// operators returns all routes that are for operators only.
func operators() []route {
	return slices.Concat(operatorRoutes, customerRoutes, partnerUserRoutes, registrationRoutes, custodyRoutes, policyRoutes, archiveRoutes, credentialRoutes, noticeRoutes, revokeRoutes, approvalRoutes)
}

// openRoutes ask nobody who they are.
var openRoutes = []route{
	{"GET", "/healthz", (*Server).healthz},
	{"GET", "/readyz", (*Server).readyz},
	{"GET", "/openapi.json", (*Server).openAPI},
}

// Handler returns what callers reach over the network, and operators who have
// signed in. It wants to be at the root of its host.
func (s *Server) Handler() http.Handler {
	routes := callerRoutes
	if s.cfg.SignIns != nil {
		routes = slices.Concat(callerRoutes, operators())
	}
	return s.handler(s.fromNetwork, routes)
}

// Operator returns what the operator socket serves: a server of its own, with
// [ConnContext] set and a listener of [ListenSocket].
func (s *Server) Operator() http.Handler {
	return s.handler(s.fromSocket, slices.Concat(callerRoutes, operators()))
}

// A doorkeeper tells who makes a request, and whether they may use the route.
// For a person who has signed in it returns who that is.
type doorkeeper func(*http.Request, route) (mandate.CallerID, *Operator, error)

// fromNetwork admits callers to what is for callers, and operators who have
// signed in to what their roles allow.
func (s *Server) fromNetwork(r *http.Request, rt route) (mandate.CallerID, *Operator, error) {
	if _, ok := session(r); rt.path == tokensPath && !ok {
		caller, err := s.authenticate(r)
		return caller, nil, err
	}
	o, err := s.person(r)
	if err != nil {
		return "", nil, err
	}
	return o.caller(), o, o.check(rights[rt.method+" "+rt.path], time.Now())
}

// fromSocket admits those operators whose user id is on the list.
func (s *Server) fromSocket(r *http.Request, _ route) (mandate.CallerID, *Operator, error) {
	caller, err := s.peer(r)
	return caller, nil, err
}

// anybody admits everybody.
func anybody(*http.Request, route) (mandate.CallerID, *Operator, error) { return "", nil, nil }

// handler serves routes to whom the doorkeeper admits.
func (s *Server) handler(admit doorkeeper, routes []route) http.Handler {
	mux := http.NewServeMux()
	allow := map[string]string{} // methods by path
	handle := func(rt route, admit doorkeeper, open bool) {
		if allow[rt.path] != "" {
			allow[rt.path] += ", "
		}
		allow[rt.path] += rt.method
		op := rt.method + " " + rt.path
		acts := !open && (actNames[op] != "" || rights[op] == loosens)
		mux.Handle(rt.method+" "+rt.path, web.JSON(s.cfg.Log, func(w http.ResponseWriter, r *http.Request) error {
			caller, operator, err := admit(r, rt)
			if operator != nil {
				r = r.WithContext(context.WithValue(r.Context(), operatorKey{}, operator))
			}
			if err == nil && acts {
				err = s.held(w, r, rt, caller, operator)
			}
			if err != nil {
				err = s.turnedAway(r, rt, caller, err)
			} else {
				err = rt.do(s, w, r, caller)
			}
			if err == nil {
				return nil
			}
			if _, no := s.peer(r); no == nil {
				return web.ForOperator(err)
			}
			return err
		}))
	}
	for _, rt := range routes {
		handle(rt, admit, false)
	}
	for _, rt := range slices.Concat(openRoutes, signInRoutes) {
		handle(rt, anybody, true)
	}
	for path, methods := range allow {
		mux.Handle(path, wrongMethod(methods))
	}
	mux.Handle("/", web.JSON(s.cfg.Log, func(_ http.ResponseWriter, r *http.Request) error {
		return fmt.Errorf("%w: this server has no %s here", mandate.ErrNotFound, r.Method)
	}))
	return web.Edge{Log: s.cfg.Log, Proxies: s.cfg.TrustedProxies}.Wrap(mux)
}

// wrongMethod answers 405.
func wrongMethod(allowed string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Allow", allowed)
		p := web.Problem{Code: "method_not_allowed", Message: "use " + allowed + " here", RequestID: web.RequestID(r.Context())}
		_ = web.Write(w, http.StatusMethodNotAllowed, map[string]any{"error": p})
	})
}

func (s *Server) healthz(w http.ResponseWriter, _ *http.Request, _ mandate.CallerID) error {
	return web.Write(w, http.StatusOK, map[string]bool{"ok": true})
}

func (s *Server) readyz(w http.ResponseWriter, r *http.Request, _ mandate.CallerID) error {
	if err := s.cfg.Ready(r.Context()); err != nil {
		return fmt.Errorf("%w: not ready: %w", mandate.ErrUnavailable, err)
	}
	return web.Write(w, http.StatusOK, map[string]bool{"ok": true})
}
