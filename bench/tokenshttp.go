package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/audit"
	proving "github.com/mandate-sam/mandate/callers"
	"github.com/mandate-sam/mandate/internal/database"
	"github.com/mandate-sam/mandate/internal/web"
	"github.com/mandate-sam/mandate/policy"
	"github.com/mandate-sam/mandate/store"
)

// httpCase is POST /v1/tokens for a token that is in the cache, beside bare
// net/http.
var httpCase = benchCase{rows: httpRows, run: runHTTP}

var httpRows = []string{"tokens-http/memory", "tokens-http/disk"}

func runHTTP(ctx context.Context, e *env) (rows []row, err error) {
	err = withAudit(func(log *audit.Log, dir string) error {
		d, err := newDoors(ctx, dir, log)
		if err != nil {
			return err
		}
		defer d.close()
		if err := d.connect(ctx); err != nil {
			return err
		}
		slice := choose(e, 800*time.Millisecond, 400*time.Millisecond)
		memory, disk, bare := d.loads[0], d.loads[1], d.loads[2]
		v, err := e.interleave(ctx, "tokens-http", choose(e, 11, 5), bare.during(slice), memory.during(slice), disk.during(slice))
		if err != nil {
			return err
		}
		for i, l := range []*load{memory, disk} {
			r := compare(httpRows[i], "req/s", v[i+1], v[0])
			r.Note = fmt.Sprintf("p50 %v ms, p99 %v ms; bare %v and %v", l.percentile(50), l.percentile(99), bare.percentile(50), bare.percentile(99))
			r.Note = join(l.costs(bare), r.Note)
			rows = append(rows, r.report())
		}
		return nil
	})
	return rows, err
}

// httpPartners is how many partners the connections ask for, in turn.
const httpPartners = 16

// rules are a few, of which the last but one decides.
const rules = `@id("desk") @until("2099-01-01") @scopes("User.Read Directory.Read.All") @customers("all")
permit (principal == Caller::"desk", action, resource in PartnerGroup::"first")
when { context.audience in [Audience::"graph"] && context.purpose in [Purpose::"support"] };
@id("desk-calls") @until("2099-01-01") @scopes("consented") @customers("all")
permit (principal == Caller::"desk", action == Action::"call", resource in PartnerGroup::"first")
when { context.audience in [Audience::"partnercenter", Audience::"arm"] && context.purpose in [Purpose::"support"] };
@id("billing") @until("2099-01-01") @scopes("consented") @customers("all")
permit (principal in CallerGroup::"billing", action, resource in PartnerGroup::"all")
when { context.audience in [Audience::"partnercenter", Audience::"graph", Audience::"arm"] && context.purpose in [Purpose::"invoice", Purpose::"audit"] };
@id("nightly") @until("2099-01-01") @scopes("user_impersonation") @customers("all")
permit (principal == Caller::"reports", action, resource in PartnerGroup::"first")
when { context.audience in [Audience::"partnercenter"] && context.purpose in [Purpose::"report"] };
`

const groups = `callers:
  billing: [billing, ledger]
partners:
  first: [p0, p1, p2, p3]
  all: [p0, p1, p2, p3, p4, p5, p6, p7, p8, p9, p10, p11, p12, p13, p14, p15]
`

// doors are the servers that are measured: bare net/http, and the API with its
// records in memory and on the disk. Everything but the vault and Entra is as
// in production, and neither of those is asked on a hit.
type doors struct {
	db       *database.DB
	servers  []*http.Server
	requests []string               // as sent
	loads    []*load                // on the API with its records in memory, on the disk, in further logs; on bare net/http
	apis     []string               // their addresses
	proofs   *proving.Authenticator // nil knows secrets only
}

func newDoors(ctx context.Context, dir string, log *audit.Log, more ...*audit.Log) (_ *doors, err error) {
	d := new(doors)
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	d.db, err = database.Open(ctx, database.Config{File: filepath.Join(dir, "mandate.db"), Schemas: []database.Schema{store.Schema()}})
	if err != nil {
		return nil, err
	}
	st, err := store.Open(ctx, d.db)
	if err != nil {
		return nil, err
	}
	_, secret, err := st.AddCaller(ctx, "billing", time.Time{})
	if err != nil {
		return nil, err
	}
	credential := base64.StdEncoding.EncodeToString([]byte("billing:" + secret.Reveal()))
	for i := range httpPartners {
		if err := st.AddPartner(ctx, partnerN(i)); err != nil {
			return nil, err
		}
		for _, alias := range []string{mandate.PartnerCenter, mandate.Graph, mandate.ARM} {
			body := fmt.Sprintf(`{"partner":%q,"audience":%q,"purpose":"invoice"}`, partnerN(i).Name, alias)
			d.requests = append(d.requests, fmt.Sprintf("POST /v1/tokens HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Basic %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", credential, len(body), body))
		}
	}
	for _, recorder := range []mandate.Recorder{new(memoryRecorder), log} {
		if err := d.serveAPI(st, recorder, log); err != nil {
			return nil, err
		}
	}
	for _, log := range more {
		if err := d.serveAPI(st, log, log); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// serveAPI starts an API server whose records go to recorder.
func (d *doors) serveAPI(st *store.Store, recorder mandate.Recorder, log *audit.Log) error {
	h, err := d.newAPI(st, recorder, log)
	if err != nil {
		return err
	}
	addr, err := d.serve(newServer(h))
	d.apis = append(d.apis, addr)
	return err
}

// newAPI returns the API whose records go to recorder.
func (d *doors) newAPI(st *store.Store, recorder mandate.Recorder, log *audit.Log) (http.Handler, error) {
	p, err := policy.Compile(policy.Source{{Name: "policy.cedar", Text: rules}, {Name: policy.GroupsFile, Text: groups}}, []mandate.Cloud{global})
	if err != nil {
		return nil, err
	}
	vault := &memoryVault{grants: make(map[mandate.GrantKey]mandate.Grant)}
	for i := range httpPartners {
		vault.grants[partnerN(i).Key] = grantOf(partnerN(i))
	}
	broker, err := mandate.New(mandate.Config{Authority: newFakeEntra(), Vault: vault, Policy: p, Audit: recorder, Epoch: d.db})
	if err != nil {
		return nil, err
	}
	// The access log is written out in full, and thrown away.
	access := slog.New(slog.NewTextHandler(io.Discard, nil))
	cfg := api.Config{
		Broker: broker, Authenticator: st, Partners: st, Registry: operatorsOnly{}, Tenants: operatorsOnly{}, Callers: operatorsOnly{}, Grants: vault, Life: broker, Forecaster: operatorsOnly{},
		Audit: log, Recorder: recorder, Epoch: d.db, Clouds: map[string]mandate.Cloud{"global": global},
		Applications: []api.Application{{Name: "marketplace", Cloud: "global", ID: appID}}, Log: access,
	}
	if d.proofs != nil {
		cfg.Proofs = d.proofs
	}
	s, err := api.New(cfg)
	if err != nil {
		return nil, err
	}
	return s.Handler(), nil
}

// newServer returns a server for h with the limits of the product, on both
// sides of a comparison: nobody should run one without.
func newServer(h http.Handler) *http.Server {
	return web.NewServer(h, slog.New(slog.DiscardHandler))
}

// serve serves on a port of its own on loopback until d is closed.
func (d *doors) serve(s *http.Server) (addr string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	d.servers = append(d.servers, s)
	go s.Serve(web.Hold(l)) // ends when d is closed
	return l.Addr().String(), nil
}

func (d *doors) close() {
	for _, l := range d.loads {
		l.close()
	}
	for _, s := range d.servers {
		s.Close()
	}
	if d.db != nil {
		d.db.Close()
	}
}

// connect connects to both APIs, and to a bare server that answers as many
// bytes as they do.
func (d *doors) connect(ctx context.Context) error {
	for _, addr := range d.apis {
		if err := d.load(ctx, addr); err != nil {
			return err
		}
	}
	size, err := d.loads[0].answerSize()
	if err != nil {
		return err
	}
	addr, err := d.serve(newServer(bareHandler(size)))
	if err != nil {
		return err
	}
	return d.load(ctx, addr)
}

func (d *doors) load(ctx context.Context, addr string) error {
	l, err := newLoad(ctx, addr, callers, d.requests)
	if err == nil {
		d.loads = append(d.loads, l)
	}
	return err
}

// operatorsOnly stands for what callers cannot reach.
type operatorsOnly struct{}

var errOperators = errors.New("not part of this measurement")

// Partners implements [api.Registry].
func (operatorsOnly) Partners(context.Context) ([]mandate.Partner, error) { return nil, errOperators }

// Invite implements [api.Registry].
func (operatorsOnly) Invite(context.Context, api.Invitation) (mandate.Partner, mandate.Secret, error) {
	return mandate.Partner{}, mandate.Secret{}, errOperators
}

// Tenant implements [api.Tenants].
func (operatorsOnly) Tenant(context.Context, mandate.GrantKey, string) (mandate.TenantID, error) {
	return mandate.TenantID{}, errOperators
}

// Forecast implements [api.Forecaster].
func (operatorsOnly) Forecast(context.Context) ([]mandate.Trouble, error) { return nil, errOperators }

// Callers implements [api.Callers].
func (operatorsOnly) Callers(context.Context) ([]mandate.Caller, error) { return nil, errOperators }

// Register implements [api.Callers].
func (operatorsOnly) Register(context.Context, mandate.Caller) (c mandate.Caller, s mandate.Secret, err error) {
	return c, s, errOperators
}

// AddCredential implements [api.Callers].
func (operatorsOnly) AddCredential(context.Context, mandate.CallerID, mandate.CallerCredential) (c mandate.CallerCredential, s mandate.Secret, err error) {
	return c, s, errOperators
}

// Rotate implements [api.Callers].
func (operatorsOnly) Rotate(context.Context, mandate.CallerID, time.Duration, time.Time) (c mandate.CallerCredential, s mandate.Secret, err error) {
	return c, s, errOperators
}

// ExpireCredential implements [api.Callers].
func (operatorsOnly) ExpireCredential(context.Context, mandate.CallerID, string, time.Time) error {
	return errOperators
}

// RemoveCaller implements [api.Callers].
func (operatorsOnly) RemoveCaller(context.Context, mandate.CallerID) error { return errOperators }
func (operatorsOnly) AdoptCaller(context.Context, mandate.CallerID, string) error {
	return errOperators
}
