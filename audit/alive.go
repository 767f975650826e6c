package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/mandate-sam/mandate"
)

// longestToken is how long an access token of Entra's can live, if it is one
// that can be revoked meanwhile; others live an hour or so.
const longestToken = 29 * time.Hour

// Alive implements [mandate.Issued]: it reads the log backwards, for as long
// as a token that is recorded there can be alive.
func (l *Log) Alive(ctx context.Context, k mandate.GrantKey, now time.Time) (n int, until time.Time, err error) {
	seen := make(map[string]bool)
	for line, err := range l.Backwards() {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return 0, time.Time{}, err
		}
		r, err := readIssued(line, k)
		if err != nil {
			return 0, time.Time{}, err
		}
		if now.Sub(r.Time) > longestToken {
			break
		}
		// A token that was used for a call never left this program.
		if r.Grant == nil || *r.Grant != k || r.Use != mandate.UseToken || !r.Expires.After(now) {
			continue
		}
		seen[r.Fingerprint] = true
		if r.Expires.After(until) {
			until = r.Expires
		}
	}
	return len(seen), until, nil
}

// readIssued reads a record, and of one that is not about a token of k's
// handed out only the time: there are many of those.
func readIssued(line []byte, k mandate.GrantKey) (mandate.Record, error) {
	var r mandate.Record
	var v any = &r
	if !bytes.Contains(line, []byte(`"kind":"`+mandate.KindIssued+`"`)) || !bytes.Contains(line, []byte(k.Partner.String())) {
		v = &struct{ Time *time.Time }{&r.Time}
	}
	if err := json.Unmarshal(line, v); err != nil {
		return r, fmt.Errorf("audit log: a line is not a record: %w", err)
	}
	return r, nil
}
