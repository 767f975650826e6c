package vault

import (
	"context"
	"fmt"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

// Extend implements [mandate.Turns].
func (v *SQL) Extend(ctx context.Context, t mandate.Turn) error {
	var n int64
	err := v.turnWrite(ctx, func(tx *database.Tx) (err error) {
		n, err = tx.Exec(ctx, `UPDATE turns SET lease = `+nowMS+` + $1 WHERE id = $2 AND owner = $3 AND fence = $4`,
			mandate.TurnLease.Milliseconds(), idOf(t.Key), t.Owner, t.Fence)
		return err
	})
	if err == nil && n == 0 {
		return fmt.Errorf("extend turn: %w", mandate.ErrSuperseded)
	}
	return wrap("extend turn", unavailable(ctx, err))
}
