package fault

import (
	"fmt"
	"maps"
	"slices"
)

// Budgets of a vault: the names of [KeyVault.Budgets].
const (
	BudgetSecrets       = "secrets"        // all operations on secrets but making one; 4,000
	BudgetSecretCreates = "secret_creates" // new versions; 300
	BudgetKeys          = "keys"           // all operations on keys but making one; 4,000 units
	BudgetKeyCreates    = "key_creates"    // new versions; 20 units
)

// KeyVault are the dials of the vaults. The zero value is Azure's own limits,
// and operations that are done at once.
type KeyVault struct {
	// Budgets are what each vault grants per window, by the name of the
	// budget, instead of the documented number. A request that costs more than
	// a whole budget is never granted.
	Budgets map[string]int `json:"budgets,omitempty"`

	// WindowSeconds is how long a window lasts; 0: ten seconds.
	WindowSeconds int `json:"window_seconds,omitempty"`

	// SettleSeconds is how long a deletion or a recovery takes. Until then the
	// object is in neither list, and its name is refused with
	// ObjectIsBeingDeleted or ObjectIsBeingRecovered. 0: no time at all.
	SettleSeconds int `json:"settle_seconds,omitempty"`

	// PurgeProtected names the vaults that refuse to purge what was deleted;
	// "*" is all. What is deleted goes when its time has come, and not before.
	PurgeProtected []string `json:"purge_protected,omitempty"`

	// Outage names the vaults that answer everything with 503; "*" is all.
	Outage []string `json:"outage,omitempty"`
}

func (k KeyVault) clone() KeyVault {
	k.Budgets = maps.Clone(k.Budgets)
	k.Outage = slices.Clone(k.Outage)
	k.PurgeProtected = slices.Clone(k.PurgeProtected)
	return k
}

func (k KeyVault) check() error {
	for name, n := range k.Budgets {
		if !slices.Contains([]string{BudgetSecrets, BudgetSecretCreates, BudgetKeys, BudgetKeyCreates}, name) || n < 0 {
			return fmt.Errorf("key_vault.budgets cannot have %q: %d", name, n)
		}
	}
	if min(k.WindowSeconds, k.SettleSeconds) < 0 {
		return fmt.Errorf("key_vault cannot have window_seconds %d, settle_seconds %d", k.WindowSeconds, k.SettleSeconds)
	}
	return nil
}
