package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
	"github.com/mandate-sam/mandate/store"
	"github.com/mandate-sam/mandate/vault"
)

// pipelineCase is G12: redemptions whole, from the decision to the token, with
// the refresh token that comes back durable before anybody gets it.
var pipelineCase = benchCase{
	rows: []string{"G12/redeem-memory", "G12/redeem-sqlite"},
	run:  runPipeline,
}

// pipelinePartners redeem in turns; as many redemptions are a round.
const pipelinePartners = 640

func runPipeline(ctx context.Context, e *env) (rows []row, err error) {
	dir, err := os.MkdirTemp("", "mandate-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	partners := somePartners(pipelinePartners)
	// Its tokens end too soon to be handed out twice.
	d, err := newIdentity(partners, 30*time.Second)
	if err != nil {
		return nil, err
	}
	defer d.server.Close()
	memory, err := newPipeline(d, mandate.Config{Vault: memoryGrants(partners), Epoch: epochFixed{}})
	if err != nil {
		return nil, err
	}
	e.say("G12: storing %d grants", len(partners))
	grants, db, err := sqlGrants(ctx, database.Config{File: filepath.Join(dir, "mandate.db")}, filepath.Join(dir, "keys"), partners)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	sqlite, err := newPipeline(d, mandate.Config{Vault: grants, Epoch: db})
	if err != nil {
		return nil, err
	}
	raw := &rawPosts{identity: d, http: d.client()}
	v, err := e.interleave(ctx, "G12", choose(e, 15, 3), raw.redeem, memory.redeem, sqlite.redeem)
	if err != nil {
		return nil, err
	}
	return []row{
		compare("G12/redeem-memory", "redemptions/s", v[1], v[0]).report(),
		compare("G12/redeem-sqlite", "redemptions/s", v[2], v[0]).judge(
			&target{"ratio", ">=", 0.5}, "the raw request neither decides, verifies the ID token, seals nor stores"),
	}, nil
}

func somePartners(n int) (partners []mandate.Partner) {
	for i := range n {
		partners = append(partners, partnerN(i))
	}
	return partners
}

// memoryGrants is a vault that seals nothing and loses everything.
func memoryGrants(partners []mandate.Partner) *memoryVault {
	v := &memoryVault{grants: make(map[mandate.GrantKey]mandate.Grant)}
	for _, p := range partners {
		v.grants[p.Key] = grantOf(p)
	}
	return v
}

// sqlGrants opens a database and stores a sealed grant for each partner.
func sqlGrants(ctx context.Context, cfg database.Config, keys string, partners []mandate.Partner) (*vault.SQL, *database.DB, error) {
	v, db, err := openGrants(ctx, cfg, keys)
	if err != nil {
		return nil, nil, err
	}
	err = concurrently(callers, func(c int) error {
		for i := c; i < len(partners); i += callers {
			if err := v.Activate(ctx, grantOf(partners[i])); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		db.Close()
	}
	return v, db, err
}

func openGrants(ctx context.Context, cfg database.Config, keys string) (*vault.SQL, *database.DB, error) {
	key, err := vault.OpenKeyFile(keys)
	if err != nil {
		return nil, nil, err
	}
	cfg.Schemas = []database.Schema{store.Schema(), vault.Schema()}
	db, err := database.Open(ctx, cfg)
	if err != nil {
		return nil, nil, err
	}
	v, err := vault.New(vault.Config{DB: db, Key: key, SharedKey: key.Shared()})
	return v, db, err
}

// A pipeline is a broker none of whose requests is a hit.
type pipeline struct {
	*world
	refused atomic.Int64 // requests that had to be made again; see ask
}

func newPipeline(d *identity, cfg mandate.Config) (*pipeline, error) {
	authority, err := d.authority()
	if err != nil {
		return nil, err
	}
	cfg.Authority, cfg.Policy, cfg.Audit = authority, allowAll{}, new(memoryRecorder)
	broker, err := mandate.New(cfg)
	w := &world{broker: broker}
	for i := range pipelinePartners {
		w.requests = append(w.requests, requestsFor(partnerN(i))[1])
	}
	return &pipeline{world: w}, err
}

// redeem redeems once for every partner, some at a time, and returns how many
// that are in a second.
func (p *pipeline) redeem(ctx context.Context) (float64, error) {
	start := time.Now()
	err := concurrently(callers, func(c int) error {
		for i := c; i < len(p.requests); i += callers {
			if err := p.ask(ctx, p.requests[i]); err != nil {
				return err
			}
		}
		return nil
	})
	return pipelinePartners / time.Since(start).Seconds(), err
}

// ask asks until there is a token. A broker that has not heard of its database
// for a moment refuses, which on a machine that is too busy means nothing.
func (p *pipeline) ask(ctx context.Context, req mandate.Request) error {
	for end := time.Now().Add(stuck); ; {
		_, err := p.broker.Token(ctx, req)
		if !errors.Is(err, mandate.ErrUnavailable) && !errors.Is(err, database.ErrCutOff) || time.Now().After(end) {
			return err
		}
		p.refused.Add(1)
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

// rawPosts is the floor: the same form to the same server, and its answer
// decoded.
type rawPosts struct {
	*identity
	http  *http.Client
	after func(context.Context, int) error // what else there is for partner i; nil is nothing
}

func (p *rawPosts) redeem(ctx context.Context) (float64, error) {
	start := time.Now()
	err := concurrently(callers, func(c int) error {
		for i := c; i < pipelinePartners; i += callers {
			if err := p.post(ctx, p.cloud.Authority+"/"+partnerN(i).Key.Partner.String()+"/oauth2/v2.0/token"); err != nil {
				return err
			}
			if p.after == nil {
				continue
			}
			if err := p.after(ctx, i); err != nil {
				return err
			}
		}
		return nil
	})
	return pipelinePartners / time.Since(start).Seconds(), err
}

func (p *rawPosts) post(ctx context.Context, address string) error {
	form := url.Values{
		"grant_type": {"refresh_token"}, "client_id": {appID.String()}, "client_secret": {"the application's own secret"},
		"refresh_token": {longRefresh}, "scope": {"https://graph.microsoft.com/.default openid profile offline_access"},
	}
	req, err := formRequest(ctx, address, form)
	if err != nil {
		return err
	}
	resp, err := p.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var out struct {
		Access  string `json:"access_token"`
		Refresh string `json:"refresh_token"`
		Expires int    `json:"expires_in"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || out.Refresh == "" {
		return fmt.Errorf("the token endpoint answered %s", resp.Status)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}
