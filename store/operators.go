package store

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

// A Session is an operator's, from one sign-in.
type Session struct {
	Issuer   string
	User     mandate.Identity
	UserName string    // for people to read
	Groups   []string  // object IDs
	SignedIn time.Time // when, by the issuer's word; zero if that is not known
	Created  time.Time
	Expires  time.Time
}

// sessionPrefix begins what an operator's client shows.
const sessionPrefix = "mds_"

// maxSignIns bounds sign-ins that were begun and not finished: anybody can
// begin one.
const maxSignIns = 1000

// BeginSignIn returns a nonce which one ID token must carry until a time. The
// error wraps [mandate.ErrRateLimited] if too many have begun.
func (s *Store) BeginSignIn(ctx context.Context, expires time.Time) (string, error) {
	nonce := randomText()
	hash := sha256.Sum256([]byte(nonce))
	n, err := s.db.Exec(ctx, `INSERT INTO operator_signins (hash, expires)
		SELECT $1, $2 WHERE (SELECT count(*) FROM operator_signins WHERE expires > $3) < $4`,
		hash[:], expires.UnixMilli(), time.Now().UnixMilli(), maxSignIns)
	if err == nil && n == 0 {
		err = fmt.Errorf("%w: too many sign-ins were begun", mandate.ErrRateLimited)
	}
	return nonce, wrap("begin sign-in", unavailable(ctx, err))
}

// FinishSignIn consumes a nonce, once, and only before it has ended; otherwise
// the error wraps [mandate.ErrUnauthenticated].
func (s *Store) FinishSignIn(ctx context.Context, nonce string) error {
	hash := sha256.Sum256([]byte(nonce))
	n, err := s.db.Exec(ctx, `DELETE FROM operator_signins WHERE hash = $1 AND expires > $2`, hash[:], time.Now().UnixMilli())
	if err == nil && n == 0 {
		err = fmt.Errorf("%w: this sign-in was not begun here, was used, or took too long", mandate.ErrUnauthenticated)
	}
	return wrap("finish sign-in", unavailable(ctx, err))
}

// AddSession stores a session and returns what its operator shows from now on.
// It is a change of security state: nobody becomes an operator by a row that
// they have written.
func (s *Store) AddSession(ctx context.Context, in Session) (mandate.Secret, error) {
	secret := sessionPrefix + randomText()
	hash := sha256.Sum256([]byte(secret))
	groups, err := json.Marshal(in.Groups)
	if err != nil {
		return mandate.Secret{}, err
	}
	err = s.db.Change(ctx, func(tx *database.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO operator_sessions (hash, issuer, tenant, object, user_name, member_of, signed_in, created, expires)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
			hash[:], in.Issuer, in.User.Tenant.String(), in.User.Object.String(), in.UserName, string(groups),
			sql.NullInt64{Int64: in.SignedIn.UnixMilli(), Valid: !in.SignedIn.IsZero()}, in.Created.UnixMilli(), in.Expires.UnixMilli())
		return err
	})
	return mandate.NewSecret(secret), wrap("add session", unavailable(ctx, err))
}

// Session returns the session that a secret is for. The error wraps
// [mandate.ErrUnauthenticated] if there is none, or it has ended, and
// [database.ErrAltered] if this program has not made it so.
func (s *Store) Session(ctx context.Context, secret mandate.Secret) (Session, error) {
	var out Session
	none := fmt.Errorf("%w: the session has ended; sign in again: mandate login", mandate.ErrUnauthenticated)
	if !strings.HasPrefix(secret.Reveal(), sessionPrefix) {
		return out, none
	}
	hash := sha256.Sum256([]byte(secret.Reveal()))
	var tenant, object, groups string
	var signedIn sql.NullInt64
	var created, expires int64
	found := true
	err := s.db.Genuine(ctx, "operator_sessions", func() (map[string]any, error) {
		err := s.db.QueryRow(ctx, `SELECT issuer, tenant, object, user_name, member_of, signed_in, created, expires FROM operator_sessions WHERE hash = $1 AND expires > $2`,
			hash[:], time.Now().UnixMilli()).Scan(&out.Issuer, &tenant, &object, &out.UserName, &groups, &signedIn, &created, &expires)
		if found = !errors.Is(err, sql.ErrNoRows); !found {
			return nil, nil
		}
		return map[string]any{"hash": hash[:], "issuer": out.Issuer, "tenant": tenant, "object": object, "user_name": out.UserName,
			"member_of": groups, "signed_in": signedIn, "created": created, "expires": expires}, err
	})
	if err == nil && !found {
		return out, none
	}
	if err == nil { // while it is in doubt what the database proves, it proves no operator
		_, err = s.db.Epoch()
	}
	if err != nil {
		return out, wrap("read session", unavailable(ctx, err))
	}
	out.SignedIn, out.Created, out.Expires = moment(signedIn), time.UnixMilli(created), time.UnixMilli(expires)
	out.User.Tenant, err = mandate.ParseTenantID(tenant)
	if err == nil {
		out.User.Object, err = mandate.ParseObjectID(object)
	}
	if err == nil {
		err = json.Unmarshal([]byte(groups), &out.Groups)
	}
	return out, wrap("read session", err)
}

// EndSession ends the session that a secret is for, if there is one.
func (s *Store) EndSession(ctx context.Context, secret mandate.Secret) error {
	hash := sha256.Sum256([]byte(secret.Reveal()))
	return wrap("end session", unavailable(ctx, s.dropSessions(ctx, `hash = $1`, hash[:])))
}

// dropSessions deletes sessions. Only if there are any is it a change.
func (s *Store) dropSessions(ctx context.Context, which string, arg any) error {
	var n int64
	if err := s.db.QueryRow(ctx, `SELECT count(*) FROM operator_sessions WHERE `+which, arg).Scan(&n); err != nil || n == 0 {
		return err
	}
	return s.db.Change(ctx, func(tx *database.Tx) error {
		_, err := tx.Exec(ctx, `DELETE FROM operator_sessions WHERE `+which, arg)
		return err
	})
}

// EndSessions ends the session of every operator, in a change of security
// state.
func EndSessions(ctx context.Context, tx *database.Tx) error {
	_, err := tx.Exec(ctx, `DELETE FROM operator_sessions`)
	return err
}

// randomText returns 256 random bits, for URLs.
func randomText() string {
	b := make([]byte, 32)
	rand.Read(b)
	return base64.RawURLEncoding.EncodeToString(b)
}
