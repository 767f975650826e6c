package callers

import (
	"crypto/sha256"
	"encoding/hex"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/mandate-sam/mandate"
)

// An index finds callers by what they show. It is of one epoch, and never
// changed.
type index struct {
	epoch     int64
	bindings  map[mandate.CallerID]*mandate.Binding
	keys      map[mandate.CallerID][]key
	workloads map[string][]workload // by the name of the issuer
	pinned    map[[sha256.Size]byte][]holder
	spiffe    map[string][]holder
}

// A key is one that a caller signs with.
type key struct {
	jose.JSONWebKey
	expires time.Time
}

// A workload is the claims by which tokens stand for a caller.
type workload struct {
	holder
	claims map[string]string
}

// A holder is a caller, until a time.
type holder struct {
	caller  mandate.CallerID
	expires time.Time
}

func (h holder) valid(now time.Time) bool { return h.expires.IsZero() || now.Before(h.expires) }

// current returns the index of the current epoch.
func (a *Authenticator) current() (*index, error) {
	all, epoch, err := a.cfg.Directory.Registered()
	if err != nil {
		return nil, err
	}
	if ix := a.index.Load(); ix != nil && ix.epoch >= epoch {
		return ix, nil
	}
	a.build.Lock()
	defer a.build.Unlock()
	if ix := a.index.Load(); ix != nil && ix.epoch >= epoch {
		return ix, nil
	}
	ix := newIndex(all, epoch)
	a.index.Store(ix)
	return ix, nil
}

func newIndex(all []mandate.Caller, epoch int64) *index {
	ix := &index{
		epoch: epoch, bindings: make(map[mandate.CallerID]*mandate.Binding), keys: make(map[mandate.CallerID][]key),
		workloads: make(map[string][]workload), pinned: make(map[[sha256.Size]byte][]holder), spiffe: make(map[string][]holder),
	}
	for i := range all {
		c := &all[i]
		if !c.Binding.IsZero() {
			ix.bindings[c.ID] = &c.Binding
		}
		for k := range c.Credentials {
			ix.add(c.ID, &c.Credentials[k])
		}
	}
	return ix
}

// add leaves out what it cannot read: it then stands for nobody.
func (ix *index) add(id mandate.CallerID, c *mandate.CallerCredential) {
	h := holder{id, c.Expires}
	switch c.Kind {
	case mandate.CredentialKey:
		if k, err := parseKey([]byte(c.Key)); err == nil {
			ix.keys[id] = append(ix.keys[id], key{k, c.Expires})
		}
	case mandate.CredentialWorkload:
		ix.workloads[c.Issuer] = append(ix.workloads[c.Issuer], workload{h, c.Claims})
	case mandate.CredentialCertificate:
		var hash [sha256.Size]byte
		if n, err := hex.Decode(hash[:], []byte(c.Certificate)); err == nil && n == len(hash) {
			ix.pinned[hash] = append(ix.pinned[hash], h)
		}
	case mandate.CredentialSPIFFE:
		ix.spiffe[c.SPIFFE] = append(ix.spiffe[c.SPIFFE], h)
	}
}

// one returns the only caller among holders that are valid. Two would be a
// guess.
func one(all []holder, now time.Time) (h holder, n int) {
	for _, candidate := range all {
		if candidate.valid(now) && (n == 0 || candidate.caller != h.caller) {
			h = candidate
			n++
		}
	}
	return h, n
}
