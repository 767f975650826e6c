package callers

import (
	"context"
	"crypto/sha256"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4/json"

	"github.com/mandate-sam/mandate"
)

// workload verifies an issuer's token and finds the caller that it stands for.
// Such a token can be shown again while it lasts, so it counts only here: its
// audience is this broker and nobody else.
func (a *Authenticator) workload(ctx context.Context, ix *index, is *issuer, t *token, hash [sha256.Size]byte, now time.Time) (mandate.CallerID, error) {
	version := is.version()
	k, err := is.key(ctx, t)
	if err != nil {
		return "", err
	}
	payload, err := t.Verify(k.public)
	if err != nil {
		return "", refuse("the token's signature is wrong")
	}
	if err := is.judge(t, k, now); err != nil {
		return "", err
	}
	var all map[string]any
	if err := json.Unmarshal(payload, &all); err != nil {
		return "", refuse("the claims of the token are malformed")
	}
	if is.Kind == KindEntra && all["idtyp"] != "app" {
		return "", refuse("the token is not an application's: its idtyp is not app")
	}
	h, err := ix.standsFor(is.Name, all, now)
	if err != nil {
		return "", err
	}
	until := t.said.Expires.time()
	if !h.expires.IsZero() && h.expires.Before(until) {
		until = h.expires
	}
	// Of the version from before: if keys came meanwhile, it is verified anew.
	a.remember(hash, verified{h.caller, ix.epoch, version, is, until}, now)
	return h.caller, nil
}

// judge checks what every token of an issuer must say, which was found by its
// iss.
func (i *issuer) judge(t *token, k issuerKey, now time.Time) error {
	if audience, ok := single(t.said.Audience); !ok || audience != i.Audience {
		return refuse("the token's aud is not %s, and nothing else", i.Audience)
	}
	if k.issuer != "" {
		var own struct {
			Tenant string `json:"tid"`
		}
		_ = json.Unmarshal(t.UnsafePayloadWithoutVerification(), &own)
		if strings.Replace(k.issuer, "{tenantid}", own.Tenant, 1) != i.URL {
			return refuse("the token's key is for another issuer")
		}
	}
	return t.said.times(now)
}

// single returns the one audience of a token. Kubernetes writes it as a list.
func single(raw json.RawMessage) (string, bool) {
	var one string
	if json.Unmarshal(raw, &one) == nil {
		return one, true
	}
	var list []string
	if json.Unmarshal(raw, &list) != nil || len(list) != 1 {
		return "", false
	}
	return list[0], true
}

// standsFor returns the caller all of whose pinned claims a token has. If there
// are two it stands for neither.
func (ix *index) standsFor(issuer string, all map[string]any, now time.Time) (holder, error) {
	var found []holder
	for _, w := range ix.workloads[issuer] {
		if w.matches(all) {
			found = append(found, w.holder)
		}
	}
	h, n := one(found, now)
	switch n {
	case 0:
		return h, refuse("no caller is registered for the claims of this token of %s", issuer)
	case 1:
		return h, nil
	}
	return h, refuse("several callers are registered for the claims of this token of %s", issuer)
}

// matches reports whether a token has every claim just so. A registration
// without any would match everything, and matches nothing.
func (w *workload) matches(all map[string]any) bool {
	for name, want := range w.claims {
		if got, ok := claim(all, name); !ok || got != want {
			return false
		}
	}
	return len(w.claims) > 0
}

// claim returns a claim that is text. The ones within "kubernetes.io" are named
// by their path.
func claim(all map[string]any, name string) (string, bool) {
	if v, ok := all[name]; ok {
		s, ok := v.(string)
		return s, ok
	}
	path, ok := strings.CutPrefix(name, "kubernetes.io/")
	if !ok {
		return "", false
	}
	var v any = all["kubernetes.io"]
	for part := range strings.SplitSeq(path, "/") {
		m, ok := v.(map[string]any)
		if !ok {
			return "", false
		}
		v = m[part]
	}
	s, ok := v.(string)
	return s, ok
}
