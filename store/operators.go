package store

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/binary"
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

// nonceSize is how many bytes of a nonce come before its seal: random ones, and
// when it ends.
const nonceSize = 16 + 8

// BeginSignIn returns a nonce which one ID token must carry until a time.
// Nothing is stored: anybody can begin a sign-in, as often as they like, and must
// not keep an operator from it. The error wraps [mandate.ErrUnavailable] while
// the key that seals it is not known.
func (s *Store) BeginSignIn(_ context.Context, expires time.Time) (string, error) {
	nonce := make([]byte, nonceSize-8, nonceSize+sha256.Size)
	rand.Read(nonce)
	nonce = binary.BigEndian.AppendUint64(nonce, uint64(expires.UnixMilli()))
	seal := s.sealNonce(nonce)
	if seal == nil {
		return "", fmt.Errorf("begin sign-in: %w: the key of security state is not known yet", mandate.ErrUnavailable)
	}
	return base64.RawURLEncoding.EncodeToString(append(nonce, seal...)), nil
}

func (s *Store) sealNonce(nonce []byte) []byte {
	return s.db.Seal("nonce of an operator's sign-in", string(nonce))
}

// FinishSignIn uses up a nonce of ours, once in whichever replica, and only
// before it has ended; otherwise the error wraps [mandate.ErrUnauthenticated].
func (s *Store) FinishSignIn(ctx context.Context, nonce string) error {
	refused := fmt.Errorf("finish sign-in: %w: this sign-in was not begun here, was used, or took too long", mandate.ErrUnauthenticated)
	b, err := base64.RawURLEncoding.DecodeString(nonce)
	if err != nil || len(b) != nonceSize+sha256.Size {
		return refused
	}
	expires := time.UnixMilli(int64(binary.BigEndian.Uint64(b[nonceSize-8:])))
	if !hmac.Equal(s.sealNonce(b[:nonceSize]), b[nonceSize:]) || !time.Now().Before(expires) {
		return refused
	}
	hash := sha256.Sum256(b[:nonceSize])
	n, err := s.db.Exec(ctx, `INSERT INTO operator_signins (hash, expires) VALUES ($1, $2) ON CONFLICT (hash) DO NOTHING`, hash[:], expires.UnixMilli())
	if err == nil && n == 0 {
		return refused
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
