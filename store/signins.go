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
const (
	KindConsent = "consent"

	// KindPartner lets somebody of the partner see what was done with its
	// consent.
	KindPartner = "partner sign-in"

	// These lead to the page of what they name.
	KindPartnerRenew    = "partner sign-in to renew"
	KindPartnerWithdraw = "partner sign-in to withdraw"
	KindPartnerUsage    = "partner sign-in to see what was used"

	// KindRenewal brings a grant in place of one that is there: the partner
	// began by itself, without an invitation.
	KindRenewal = "renewal"
)

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
	Partner     mandate.Partner // whose tenant the person signs in to; must have been added
	Authority   string          // where the person was sent
	Issuer      string          // whose answer is accepted
	Invitation  string          // its ID; empty if there is none
	RedirectURI string          // exactly as in the authorization request
	User        string          // who is expected: an object ID or a user name; empty for anybody
	Until       time.Time       // the end of the grant, as the person read it
	Audiences   []mandate.Audience

	// Compromised is the invitation's, and not given to [Store.Begin].
	Compromised bool

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
// [mandate.ErrRateLimited]. Others wrap [mandate.ErrInvalid] or
// [mandate.ErrUnknownPartner]. When Begin returns nil the transaction survives
// a crash.
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

// admit keeps a stranger with a link from filling the database. The sign-ins
// of one invitation begin one after the other, so that its bound is exact; with
// several replicas that of all may be passed by as many as begin at once.
func (s *Store) admit(ctx context.Context, tx *database.Tx, t Transaction, now time.Time) error {
	if _, err := tx.Exec(ctx, `SELECT id FROM invitations WHERE id = $1 FOR UPDATE`, t.Invitation); err != nil {
		return err
	}
	var all, same int64
	err := tx.QueryRow(ctx, `SELECT count(*), coalesce(sum(CASE WHEN invitation = $1 THEN 1 ELSE 0 END), 0)
		FROM sign_ins WHERE consumed IS NULL AND expires > $2`, t.Invitation, now.UnixMilli()).Scan(&all, &same)
	switch {
	case err != nil:
		return err
	case t.Invitation != "" && same >= s.maxPerInvitation:
		return fmt.Errorf("%w: %d sign-ins of this invitation are not finished; wait ten minutes", mandate.ErrRateLimited, same)
	case t.Kind != KindConsent && all >= s.maxPending/2:
		// Whoever knows a tenant's ID can begin one without an invitation, and
		// must not keep those who have one from consenting.
		return fmt.Errorf("%w: %d sign-ins are not finished; wait ten minutes", mandate.ErrRateLimited, all)
	case all >= s.maxPending:
		return fmt.Errorf("%w: %d sign-ins are not finished; wait ten minutes", mandate.ErrRateLimited, all)
	}
	return nil
}

// insert adds t, whose partner must be one that was added.
func (t *Transaction) insert(ctx context.Context, tx *database.Tx) error {
	audiences, err := json.Marshal(t.Audiences)
	if err != nil {
		return err
	}
	k := t.Partner.Key
	n, err := tx.Exec(ctx, `INSERT INTO sign_ins (id, proof, kind, cloud, application, partner, authority, issuer, invitation,
			redirect_uri, user_name, until, audiences, began, expires, forgotten)
		SELECT $1, $2, $3, cloud, application, partner, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13
		FROM partners WHERE name = $14 AND cloud = $15 AND application = $16 AND partner = $17`,
		t.ID, t.Proof[:], t.Kind, t.Authority, t.Issuer, t.Invitation, t.RedirectURI, t.User, t.Until.UnixMilli(), string(audiences),
		t.Began.UnixMilli(), t.Expires.UnixMilli(), t.Expires.Add(ResultLife).UnixMilli(),
		t.Partner.Name, k.Cloud, k.Application.String(), k.Partner.String())
	if err == nil && n == 0 {
		err = fmt.Errorf("%w: %.80q with tenant %s", mandate.ErrUnknownPartner, t.Partner.Name, k.Partner)
	}
	return err
}

const signInColumns = `p.name, p.cloud, p.application, p.partner, p.display_name, p.created,
	s.id, s.proof, s.kind, s.authority, s.issuer, s.invitation, s.redirect_uri, s.user_name, s.until, s.audiences, s.began, s.expires,
	s.consumed, s.outcome,
	coalesce((SELECT i.compromised FROM invitations i WHERE i.id = s.invitation), 0)
	FROM sign_ins s JOIN partners p ON p.cloud = s.cloud AND p.application = s.application AND p.partner = s.partner`

// A signIn is a row: a transaction, and what has become of it.
type signIn struct {
	Transaction
	consumed sql.NullInt64
	outcome  sql.NullString
}

func scanSignIn(scan func(...any) error) (signIn, error) {
	var r signIn
	var proof []byte
	var audiences string
	var until, began, expires, compromised int64
	var err error
	r.Partner, err = scanPartner(scan, &r.ID, &proof, &r.Kind, &r.Authority, &r.Issuer, &r.Invitation, &r.RedirectURI, &r.User,
		&until, &audiences, &began, &expires, &r.consumed, &r.outcome, &compromised)
	if err != nil {
		return signIn{}, err
	}
	if err := json.Unmarshal([]byte(audiences), &r.Audiences); err != nil {
		return signIn{}, err
	}
	copy(r.Proof[:], proof)
	r.Compromised = compromised != 0
	r.Until, r.Began, r.Expires = time.UnixMilli(until), time.UnixMilli(began), time.UnixMilli(expires)
	return r, nil
}

// Pending returns the sign-ins of an invitation that were begun after the last
// one that was answered, and have not been answered themselves, the newest
// first; for [ResultLife] after they expired too, since a person whom Entra
// stopped never comes back.
func (s *Store) Pending(ctx context.Context, invitation string) ([]Transaction, error) {
	rows, err := s.db.Query(ctx, `SELECT `+signInColumns+`
		WHERE s.invitation = $1 AND s.consumed IS NULL AND s.forgotten > $2
			AND s.began > (SELECT coalesce(max(began), 0) FROM sign_ins WHERE invitation = $1 AND consumed IS NOT NULL)
		ORDER BY s.began DESC, s.id`, invitation, time.Now().UnixMilli())
	if err != nil {
		return nil, wrap("list sign-ins", unavailable(ctx, err))
	}
	defer rows.Close()
	var all []Transaction
	for rows.Next() {
		r, err := scanSignIn(rows.Scan)
		if err != nil {
			return nil, wrap("list sign-ins", unavailable(ctx, err))
		}
		all = append(all, r.Transaction)
	}
	return all, wrap("list sign-ins", unavailable(ctx, rows.Err()))
}

// Consume takes a sign-in for the one answer that it may have, before the code
// in that is redeemed: of any number of answers at once, one gets the
// transaction. The others, and whoever has a wrong proof, is too late, or has
// an invitation that was used meanwhile, get a [*TransactionError], and
// nothing has changed. When it returns nil no crash makes the sign-in whole
// again.
func (s *Store) Consume(ctx context.Context, id string, p Proof) (Transaction, error) {
	if !alphanumeric(id) {
		return Transaction{}, wrap("consume sign-in", &TransactionError{TransactionUnknown})
	}
	hash := p.Hash()
	n, err := s.db.Exec(ctx, `UPDATE sign_ins SET consumed = $3
		WHERE id = $1 AND proof = $2 AND consumed IS NULL AND expires > $3
			AND NOT EXISTS (SELECT 1 FROM invitations i WHERE i.id = sign_ins.invitation AND i.used IS NOT NULL)`,
		id, hash[:], time.Now().UnixMilli())
	if err != nil {
		return Transaction{}, wrap("consume sign-in", unavailable(ctx, err))
	}
	r, err := s.find(ctx, id, p)
	if err == nil && n == 0 {
		err = &TransactionError{r.refusal(time.Now())}
	}
	if err != nil {
		return Transaction{}, wrap("consume sign-in", err)
	}
	return r.Transaction, nil
}

// refusal says why a sign-in was not consumed.
func (r *signIn) refusal(now time.Time) TransactionReason {
	switch {
	case r.consumed.Valid:
		return TransactionUsed
	case !now.Before(r.Expires):
		return TransactionExpired
	}
	return TransactionInvitation
}

// find returns a sign-in to whoever has its proof; nobody else learns more
// than that there is one.
func (s *Store) find(ctx context.Context, id string, p Proof) (signIn, error) {
	if !alphanumeric(id) {
		return signIn{}, &TransactionError{TransactionUnknown}
	}
	r, err := scanSignIn(s.db.QueryRow(ctx, `SELECT `+signInColumns+` WHERE s.id = $1 AND s.forgotten > $2`, id, time.Now().UnixMilli()).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return signIn{}, &TransactionError{TransactionUnknown}
	}
	if err != nil {
		return signIn{}, unavailable(ctx, err)
	}
	if hash := p.Hash(); subtle.ConstantTimeCompare(hash[:], r.Proof[:]) == 0 {
		return signIn{}, &TransactionError{TransactionProof}
	}
	return r, nil
}

// Finish stores what came of a consumed sign-in, once, for [Store.Result]. If
// it brought a grant, the invitation is used up at the same time, and from then
// on no other sign-in of it is accepted; a refusal leaves it open.
func (s *Store) Finish(ctx context.Context, id string, o Outcome) error {
	if !alphanumeric(id) {
		return wrap("finish sign-in", &TransactionError{TransactionUnknown})
	}
	text, err := json.Marshal(o)
	if err != nil {
		return fmt.Errorf("finish sign-in: %w", err)
	}
	now := time.Now()
	err = s.db.Tx(ctx, func(tx *database.Tx) error {
		n, err := tx.Exec(ctx, `UPDATE sign_ins SET outcome = $2, forgotten = $3 WHERE id = $1 AND consumed IS NOT NULL AND outcome IS NULL`,
			id, string(text), now.Add(ResultLife).UnixMilli())
		if err == nil && n == 0 {
			err = &TransactionError{TransactionUnknown}
		}
		if err != nil || o.Generation == 0 {
			return err
		}
		_, err = tx.Exec(ctx, `UPDATE invitations SET used = $2, generation = $3
			WHERE used IS NULL AND id = (SELECT invitation FROM sign_ins WHERE id = $1)`, id, now.UnixMilli(), o.Generation)
		return err
	})
	return wrap("finish sign-in", unavailable(ctx, err))
}

// Result returns a sign-in and what came of it, to whoever has the proof, for
// [ResultLife] after it was finished. Otherwise the error is a
// [*TransactionError].
func (s *Store) Result(ctx context.Context, id string, p Proof) (Transaction, Outcome, error) {
	r, err := s.find(ctx, id, p)
	if err == nil && !r.outcome.Valid {
		err = &TransactionError{TransactionUnfinished}
	}
	if err != nil {
		return Transaction{}, Outcome{}, wrap("read result", err)
	}
	var o Outcome
	if err := json.Unmarshal([]byte(r.outcome.String), &o); err != nil {
		return Transaction{}, Outcome{}, fmt.Errorf("read result: %w", err)
	}
	return r.Transaction, o, nil
}
