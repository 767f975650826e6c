package emulator

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/mandate-sam/mandate/emulator/internal/bearer"
)

const (
	adminHeader  = "X-Emulator-Admin"
	maxAdminBody = 1 << 20
)

// adminHandler answers an admin request: a body for 200, nil for 204, or an
// error that is the caller's fault.
type adminHandler func(r *http.Request) (any, error)

// adminRoutes are the operations of the admin API. openapi.json describes them.
func (e *Emulator) adminRoutes() map[string]adminHandler {
	return map[string]adminHandler{
		"GET /emulator/state":                        e.adminState,
		"GET /emulator/dials":                        func(*http.Request) (any, error) { return e.dials.Dials(), nil },
		"PATCH /emulator/dials":                      e.adminDials,
		"DELETE /emulator/dials":                     func(*http.Request) (any, error) { e.dials.Set(func(d *Dials) { *d = Dials{} }); return nil, nil },
		"PUT /emulator/applications/{id}":            e.adminRegister,
		"GET /emulator/refresh-tokens":               func(*http.Request) (any, error) { return e.RefreshTokens(), nil },
		"POST /emulator/refresh-tokens/lookup":       e.adminLookup,
		"GET /emulator/token-requests":               e.adminTokenRequests,
		"POST /emulator/revocations":                 e.adminRevoke,
		"POST /emulator/consents":                    e.adminConsent,
		"DELETE /emulator/consents":                  e.adminRemoveConsent,
		"POST /emulator/tenants":                     e.adminAddTenant,
		"POST /emulator/tenants/{tenant}/users":      e.adminAddUser,
		"POST /emulator/delegations":                 e.adminDelegate,
		"DELETE /emulator/delegations":               e.adminUndelegate,
		"POST /emulator/relationships/{id}/approval": e.adminApprove,
		"DELETE /emulator/principals":                e.adminUninstall,
		"GET /emulator/vaults":                       e.adminVaults,
		"POST /emulator/vaults":                      e.adminAddVault,
		"PUT /emulator/vaults/{name}/policies":       e.adminVaultPolicies,
		"POST /emulator/hold":                        func(*http.Request) (any, error) { e.Hold(); return nil, nil },
		"DELETE /emulator/hold":                      func(*http.Request) (any, error) { e.Release(); return nil, nil },
		"GET /emulator/errors":                       func(*http.Request) (any, error) { return Errors(), nil },
		"POST /emulator/reset":                       func(*http.Request) (any, error) { return nil, e.Reset() },
	}
}

// admin serves the admin API.
func (e *Emulator) admin() http.Handler {
	mux := http.NewServeMux()
	for pattern, h := range e.adminRoutes() {
		mux.Handle(pattern, e.guarded(h))
	}
	page(mux)
	mux.HandleFunc("GET /emulator/health", func(w http.ResponseWriter, r *http.Request) {
		bearer.WriteJSON(w, http.StatusOK, map[string]any{"ok": true})
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := e.sameHost(r); err != nil {
			adminError(w, http.StatusForbidden, err)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// sameHost refuses a request that came by another name than localhost:PORT: a
// page of another site whose name was made to resolve to this machine.
func (e *Emulator) sameHost(r *http.Request) error {
	if "https://"+r.Host != e.endpoints.Admin {
		return fmt.Errorf("the admin API answers to %s only", e.endpoints.Admin)
	}
	return nil
}

// ownPage refuses what a browser sends for a page of another site.
func (e *Emulator) ownPage(r *http.Request) error {
	if r.Header.Get(adminHeader) != "1" {
		return errors.New(`the admin API needs the header "` + adminHeader + `: 1"`)
	}
	if o := r.Header.Values("Origin"); len(o) > 0 && !slices.Equal(o, []string{e.endpoints.Admin}) {
		return errors.New("the request comes from another origin")
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
		return nil
	}
	return errors.New("the request comes from another site")
}

func (e *Emulator) guarded(h adminHandler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := e.ownPage(r); err != nil {
			adminError(w, http.StatusForbidden, err)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxAdminBody)
		body, err := h(r)
		switch {
		case err != nil:
			adminError(w, http.StatusBadRequest, err)
		case body == nil:
			w.WriteHeader(http.StatusNoContent)
		default:
			bearer.WriteJSON(w, http.StatusOK, body)
		}
	})
}

func adminError(w http.ResponseWriter, status int, err error) {
	bearer.WriteJSON(w, status, map[string]string{"error": err.Error()})
}

func readJSON(r *http.Request, v any) error {
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return fmt.Errorf("read request: %w", err)
	}
	return nil
}

func (e *Emulator) adminDials(r *http.Request) (any, error) {
	if err := e.dials.Patch(r.Body); err != nil {
		return nil, err
	}
	return e.dials.Dials(), nil
}

func (e *Emulator) adminRegister(r *http.Request) (any, error) {
	var a Application
	if err := readJSON(r, &a); err != nil {
		return nil, err
	}
	if a.ID != "" && !strings.EqualFold(a.ID, r.PathValue("id")) {
		return nil, errors.New("the id in the body is not that of the path")
	}
	a.ID = r.PathValue("id")
	if err := e.Register(a); err != nil {
		return nil, err
	}
	a, _ = e.Application(a.ID)
	return a, nil
}

func (e *Emulator) adminLookup(r *http.Request) (any, error) {
	var in struct {
		Token string `json:"token"`
	}
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	t, _, ok := e.ledger.Find(in.Token)
	if !ok {
		return nil, errors.New("no such refresh token was ever issued")
	}
	return e.judge(t), nil
}

func (e *Emulator) adminRevoke(r *http.Request) (any, error) {
	var in struct {
		User     string `json:"user"`
		Password bool   `json:"password"`
	}
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	if in.Password {
		return nil, e.ChangePassword(in.User)
	}
	return nil, e.Revoke(in.User)
}

func (e *Emulator) adminConsent(r *http.Request) (any, error) {
	var in struct {
		Tenant      string   `json:"tenant"`
		Application string   `json:"application"`
		Resource    string   `json:"resource"`
		Scopes      []string `json:"scopes"`
	}
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	return nil, e.Consent(in.Tenant, in.Application, in.Resource, in.Scopes...)
}

func (e *Emulator) adminRemoveConsent(r *http.Request) (any, error) {
	q := r.URL.Query()
	return nil, e.RemoveConsent(q.Get("tenant"), q.Get("application"), q.Get("resource"))
}
