package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/mandate-sam/mandate"
)

// An erasure is a line of [Config.Erasures].
type erasure struct {
	Chain string `json:"chain"`
	Month string `json:"month"`
}

// Erase destroys the key of a partner's personal data of one month, which must
// be over. What is in the log stays as it is, and nobody can read it. That it
// is to be erased is remembered before.
func (l *Log) Erase(ctx context.Context, chain, month string) error {
	if at, err := time.Parse(monthForm, month); err != nil || at.Format(monthForm) != month {
		return mandate.Invalid("month", "must be a month such as 2026-11")
	}
	if month >= monthOf(time.Now()) {
		return mandate.Invalid("month", "%s is not over: its records are still being written", month)
	}
	if l.cfg.Erasures != "" {
		line, err := json.Marshal(erasure{chain, month})
		if err == nil {
			err = appendLine(l.cfg.Erasures, append([]byte("\n"), line...)) // behind one that was torn
		}
		if err != nil {
			return fmt.Errorf("%w: remember what is erased: %w", mandate.ErrUnavailable, err)
		}
	}
	return l.keys.erase(ctx, chain, month)
}

// eraseAgain destroys the keys that came back with an older copy of the
// database.
func (l *Log) eraseAgain(ctx context.Context) error {
	if l.cfg.Erasures == "" {
		return nil
	}
	data, err := os.ReadFile(l.cfg.Erasures)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for b := range bytes.Lines(data) {
		var e erasure
		if json.Unmarshal(b, &e) != nil {
			continue // empty, or torn: the key was not touched before the line was whole
		}
		switch err := l.keys.erase(ctx, e.Chain, e.Month); {
		case err == nil:
			l.cfg.Log.Warn("audit log: personal data that had been erased came back with an older database, and was erased again", "chain", e.Chain, "month", e.Month)
		case !errors.Is(err, mandate.ErrNotFound):
			return err
		}
	}
	return nil
}
