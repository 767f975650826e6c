package store

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

// KindConsent is the [Transaction] that brings a grant. Every kind has its
// own, so that the answer to one is never taken for the answer to another.
const KindConsent = "consent"

const (
	// TransactionLife is how long a person may take to sign in.
	TransactionLife = 10 * time.Minute

	// ResultLife is how long the result of a sign-in can be read again.
	ResultLife = time.Hour
)

// A Transaction is a sign-in under way: everything that the answer to it is
// held against. It has no secret; see [Proof].
type Transaction struct {
	ID    string // letters and digits; part of the cookie's name
	Proof [sha256.Size]byte

	Kind        string
	Key         mandate.GrantKey
	Authority   string // where the person was sent
	Issuer      string // whose answer is accepted
	Invitation  string // its ID; empty if there is none
	RedirectURI string // exactly as in the authorization request
	User        string // who is expected: an object ID or a user name; empty for anybody

	Began   time.Time
	Expires time.Time
}

// An Outcome is what came of a sign-in, for its result page. It has no secret.
type Outcome struct {
	Reason     mandate.Reason  `json:"reason,omitempty"` // empty: accepted
	Generation int64           `json:"generation,omitempty"`
	Receipt    mandate.Receipt `json:"receipt,omitzero"`
	Detail     json.RawMessage `json:"detail,omitempty"`
}

// A TransactionReason says why a sign-in is not accepted.
type TransactionReason string

// The reasons for not accepting a sign-in.
const (
	TransactionUnknown    TransactionReason = "unknown"     // never begun, or long forgotten
	TransactionProof      TransactionReason = "wrong_proof" // begun in another browser; still open there
	TransactionUsed       TransactionReason = "used"        // an answer came before
	TransactionExpired    TransactionReason = "expired"
	TransactionInvitation TransactionReason = "invitation" // another sign-in used the invitation meanwhile
	TransactionUnfinished TransactionReason = "unfinished" // there is no result yet
)

// A TransactionError says why a sign-in is not accepted. It wraps
// [mandate.ErrNotFound].
type TransactionError struct{ Reason TransactionReason }

func (e *TransactionError) Error() string {
	switch e.Reason {
	case TransactionProof:
		return "this sign-in was not started in this browser"
	case TransactionUsed:
		return "this sign-in has been answered already; start again"
	case TransactionExpired:
		return "this sign-in took too long; start again"
	case TransactionInvitation:
		return "the invitation was used by another sign-in meanwhile"
	case TransactionUnfinished:
		return "this sign-in has no result yet"
	}
	return "this sign-in is not known here; start again"
}
func (e *TransactionError) Unwrap() error { return mandate.ErrNotFound }

// Begin stores a transaction; zero times become now and [TransactionLife]
// later. It forgets old ones first. At most 10,000 sign-ins can be under way,
// and 20 of one invitation; the error for one more wraps
// [mandate.ErrRateLimited]. When Begin returns nil the transaction survives a
// crash.
func (s *Store) Begin(ctx context.Context, t Transaction) (Transaction, error) {
	now := time.Now().Truncate(time.Millisecond)
	if t.Began.IsZero() {
		t.Began = now
	}
	if t.Expires.IsZero() {
		t.Expires = t.Began.Add(TransactionLife)
	}
	if err := t.check(now); err != nil {
		return Transaction{}, err
	}
	err := s.db.Tx(ctx, func(tx *database.Tx) error {
		if _, err := tx.Exec(ctx, `DELETE FROM sign_ins WHERE forgotten <= $1`, now.UnixMilli()); err != nil {
			return err
		}
		if err := s.admit(ctx, tx, t, now); err != nil {
			return err
		}
		return t.insert(ctx, tx)
	})
	if err != nil {
		return Transaction{}, wrap("begin sign-in", unavailable(ctx, err))
	}
	return t, nil
}

func (t *Transaction) check(now time.Time) error {
	switch {
	case len(t.ID) < 16 || len(t.ID) > 64 || !alphanumeric(t.ID):
		return mandate.Invalid("id", "must be 16 to 64 letters and digits")
	case t.Proof == [sha256.Size]byte{}:
		return mandate.Invalid("proof", "is required")
	case t.Kind == "" || t.Authority == "" || t.Issuer == "" || t.RedirectURI == "":
		return mandate.Invalid("transaction", "needs kind, authority, issuer and redirect URI")
	case t.Key.Cloud == "" || t.Key.Application.IsZero() || t.Key.Partner.IsZero():
		return mandate.Invalid("key", "is incomplete")
	case t.Expires.After(t.Began.Add(TransactionLife)) || !t.Expires.After(now):
		return mandate.Invalid("expires", "must be within %v", TransactionLife)
	}
	return nil
}

func alphanumeric(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}

// admit keeps a stranger with a link from filling the database.
func (s *Store) admit(ctx context.Context, tx *database.Tx, t Transaction, now time.Time) error {
	var all, same int64
	err := tx.QueryRow(ctx, `SELECT count(*), coalesce(sum(CASE WHEN invitation = $1 THEN 1 ELSE 0 END), 0)
		FROM sign_ins WHERE consumed IS NULL AND expires > $2`, t.Invitation, now.UnixMilli()).Scan(&all, &same)
	switch {
	case err != nil:
		return err
	case t.Invitation != "" && same >= s.maxPerInvitation:
		return fmt.Errorf("%w: %d sign-ins of this invitation are not finished; wait ten minutes", mandate.ErrRateLimited, same)
	case all >= s.maxPending:
		return fmt.Errorf("%w: %d sign-ins are not finished; wait ten minutes", mandate.ErrRateLimited, all)
	}
	return nil
}

const signInColumns = `id, proof, kind, cloud, application, partner, authority, issuer, invitation, redirect_uri, user_name, began, expires`

func (t *Transaction) insert(ctx context.Context, tx *database.Tx) error {
	n, err := tx.Exec(ctx, `INSERT INTO sign_ins (`+signInColumns+`, forgotten)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) ON CONFLICT DO NOTHING`,
		t.ID, t.Proof[:], t.Kind, t.Key.Cloud, t.Key.Application.String(), t.Key.Partner.String(), t.Authority, t.Issuer,
		t.Invitation, t.RedirectURI, t.User, t.Began.UnixMilli(), t.Expires.UnixMilli(), t.Expires.Add(ResultLife).UnixMilli())
	if err == nil && n == 0 {
		err = fmt.Errorf("%w: a sign-in of this ID", mandate.ErrExists)
	}
	return err
}

func scanTransaction(scan func(...any) error, more ...any) (Transaction, error) {
	var t Transaction
	var proof []byte
	var application, partner string
	var began, expires int64
	err := scan(append([]any{&t.ID, &proof, &t.Kind, &t.Key.Cloud, &application, &partner, &t.Authority, &t.Issuer,
		&t.Invitation, &t.RedirectURI, &t.User, &began, &expires}, more...)...)
	if err != nil {
		return Transaction{}, err
	}
	if t.Key.Application, err = mandate.ParseAppID(application); err != nil {
		return Transaction{}, err
	}
	if t.Key.Partner, err = mandate.ParseTenantID(partner); err != nil {
		return Transaction{}, err
	}
	copy(t.Proof[:], proof)
	t.Began, t.Expires = time.UnixMilli(began), time.UnixMilli(expires)
	return t, nil
}

// Pending returns the sign-ins of an invitation that were begun and never
// answered, for [ResultLife] after they expired too, the newest first.
func (s *Store) Pending(ctx context.Context, invitation string) ([]Transaction, error) {
	rows, err := s.db.Query(ctx, `SELECT `+signInColumns+` FROM sign_ins
		WHERE invitation = $1 AND consumed IS NULL AND forgotten > $2 ORDER BY began DESC, id`, invitation, time.Now().UnixMilli())
	if err != nil {
		return nil, wrap("list sign-ins", unavailable(ctx, err))
	}
	defer rows.Close()
	var all []Transaction
	for rows.Next() {
		t, err := scanTransaction(rows.Scan)
		if err != nil {
			return nil, wrap("list sign-ins", unavailable(ctx, err))
		}
		all = append(all, t)
	}
	return all, wrap("list sign-ins", unavailable(ctx, rows.Err()))
}

// Consume takes a sign-in for the one answer that it may have, before the code
// in that is redeemed: of any number of answers at once, one gets the
// transaction. The others, and whoever has a wrong proof, is too late or comes
// twice, get a [*TransactionError]. A wrong proof consumes nothing.
func (s *Store) Consume(ctx context.Context, id string, p Proof) (Transaction, error) {
	now, hash := time.Now(), p.Hash()
	var t Transaction
	err := s.db.Tx(ctx, func(tx *database.Tx) (err error) {
		t, err = scanTransaction(tx.QueryRow(ctx, `UPDATE sign_ins SET consumed = $3
			WHERE id = $1 AND proof = $2 AND consumed IS NULL AND expires > $3
				AND NOT EXISTS (SELECT 1 FROM invitations i WHERE i.id = sign_ins.invitation AND i.used IS NOT NULL)
			RETURNING `+signInColumns, id, hash[:], now.UnixMilli()).Scan)
		return err
	})
	if errors.Is(err, sql.ErrNoRows) {
		return Transaction{}, s.refuse(ctx, id, p, now)
	}
	if err != nil {
		return Transaction{}, wrap("consume sign-in", unavailable(ctx, err))
	}
	return t, nil
}

// refuse says why a sign-in was not consumed. The proof is looked at first:
// who does not have it learns nothing else.
func (s *Store) refuse(ctx context.Context, id string, p Proof, now time.Time) error {
	t, f, err := s.find(ctx, id, p)
	switch {
	case err != nil:
		return wrap("consume sign-in", err)
	case f.consumed:
		return &TransactionError{TransactionUsed}
	case !now.Before(t.Expires):
		return &TransactionError{TransactionExpired}
	}
	return &TransactionError{TransactionInvitation}
}

// fate is what has become of a sign-in.
type fate struct {
	consumed bool
	outcome  sql.NullString
}

// find returns a sign-in for whoever has its proof.
func (s *Store) find(ctx context.Context, id string, p Proof) (Transaction, fate, error) {
	var consumed sql.NullInt64
	var f fate
	t, err := scanTransaction(s.db.QueryRow(ctx, `SELECT `+signInColumns+`, consumed, outcome FROM sign_ins
		WHERE id = $1 AND forgotten > $2`, id, time.Now().UnixMilli()).Scan, &consumed, &f.outcome)
	if errors.Is(err, sql.ErrNoRows) {
		return Transaction{}, fate{}, &TransactionError{TransactionUnknown}
	}
	if err != nil {
		return Transaction{}, fate{}, unavailable(ctx, err)
	}
	if hash := p.Hash(); subtle.ConstantTimeCompare(hash[:], t.Proof[:]) == 0 {
		return Transaction{}, fate{}, &TransactionError{TransactionProof}
	}
	f.consumed = consumed.Valid
	return t, f, nil
}

// Conclude stores what came of a consumed sign-in, once, for [Store.Result].
func (s *Store) Conclude(ctx context.Context, id string, o Outcome) error {
	text, err := json.Marshal(o)
	if err != nil {
		return fmt.Errorf("conclude sign-in: %w", err)
	}
	n, err := s.db.Exec(ctx, `UPDATE sign_ins SET outcome = $2, forgotten = $3 WHERE id = $1 AND consumed IS NOT NULL AND outcome IS NULL`,
		id, string(text), time.Now().Add(ResultLife).UnixMilli())
	if err == nil && n == 0 {
		err = &TransactionError{TransactionUnknown}
	}
	return wrap("conclude sign-in", unavailable(ctx, err))
}

// Result returns a sign-in and what came of it, to whoever has the proof, for
// [ResultLife] after it was concluded. Otherwise the error is a
// [*TransactionError].
func (s *Store) Result(ctx context.Context, id string, p Proof) (Transaction, Outcome, error) {
	t, f, err := s.find(ctx, id, p)
	if err == nil && !f.outcome.Valid {
		err = &TransactionError{TransactionUnfinished}
	}
	if err != nil {
		return Transaction{}, Outcome{}, wrap("read result", err)
	}
	var o Outcome
	if err := json.Unmarshal([]byte(f.outcome.String), &o); err != nil {
		return Transaction{}, Outcome{}, fmt.Errorf("read result: %w", err)
	}
	return t, o, nil
}
