package keyvault

import (
	"cmp"
	"sync"
	"time"

	"github.com/mandate-sam/mandate/emulator/fault"
)

// window is how long a budget lasts.
const window = 10 * time.Second

// limits are the documented budgets per vault and window. Operations on keys
// are counted in those on a software-protected RSA key of 2048 bits, since
// Azure enforces the limits of the kinds of key on their weighted sum.
var limits = map[string]int{
	fault.BudgetSecrets:       4000,
	fault.BudgetSecretCreates: 300,
	fault.BudgetKeys:          4000,
	fault.BudgetKeyCreates:    20,
}

// budgets count what the current windows have spent. The zero value has spent
// nothing.
type budgets struct {
	// mu guards spent.
	mu    sync.Mutex
	spent map[string]spending
}

type spending struct {
	began time.Time
	units int
}

func (b *budgets) clear() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spent = nil
}

// spend takes the cost from the named budget. If that is more than is left it
// takes nothing, because a request that was throttled does not count, and
// returns how long the window still lasts.
func (b *budgets) spend(name string, cost, limit int, length time.Duration, now time.Time) (wait time.Duration, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.spent == nil {
		b.spent = map[string]spending{}
	}
	s, found := b.spent[name]
	if !found || now.Sub(s.began) >= length || now.Before(s.began) {
		s = spending{began: now}
	}
	if s.units+cost > limit {
		return s.began.Add(length).Sub(now), false
	}
	s.units += cost
	b.spent[name] = s
	return 0, true
}

// charge takes what the operation costs from its budget. Windows go by the
// machine's clock: a client that was told to come back in eight seconds waits
// for them, and a clock that is put back must not leave it waiting for days.
func (v *Vault) charge(c *call, op *operation) error {
	d := v.cfg.Dials.Dials().KeyVault
	limit, dialled := d.Budgets[op.budget]
	if !dialled {
		limit = limits[op.budget]
	}
	length := cmp.Or(time.Duration(d.WindowSeconds)*time.Second, window)
	wait, ok := v.budgets.spend(op.budget, v.cost(c, op), limit, length, time.Now())
	if ok {
		return nil
	}
	return throttled("VaultRequestTypeLimitReached", int((wait+time.Second-1)/time.Second))
}

// cost is what an operation counts for. Making a key costs one unit, or two
// in an HSM; using one costs what its limit is smaller than that of the
// smallest key.
func (v *Vault) cost(c *call, op *operation) int {
	switch op.budget {
	case fault.BudgetKeyCreates:
		if c.wantsHSM() || v.weight(c, func(m *material) int { return m.hsmFactor() }) == 2 {
			return 2
		}
	case fault.BudgetKeys:
		return v.weight(c, (*material).weight)
	}
	return 1
}

// weight applies f to the key that the call names; without one it is 1.
func (v *Vault) weight(c *call, f func(*material) int) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	o := v.shelves[keys].objects[c.identity()]
	if o == nil {
		return 1
	}
	ver := o.version(c.version)
	if ver == nil {
		return 1
	}
	return f(ver.Key)
}

func (m *material) hsmFactor() int {
	if m.HSM {
		return 2
	}
	return 1
}

// weight is 1 for a small RSA key and for an EC key, 4 for RSA of 3072 bits
// and 8 for RSA of 4096 bits; twice that in an HSM.
func (m *material) weight() int {
	switch {
	case m.rsa == nil || m.rsa.N.BitLen() <= 2048:
		return m.hsmFactor()
	case m.rsa.N.BitLen() <= 3072:
		return 4 * m.hsmFactor()
	}
	return 8 * m.hsmFactor()
}
