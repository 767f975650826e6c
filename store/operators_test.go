package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

// mirror is a key wrapper that keeps nothing secret.
type mirror struct{}

func (mirror) Wrap(_ context.Context, plain []byte) (string, []byte, error) {
	return "mirror", bytes.Clone(plain), nil
}

func (mirror) Unwrap(_ context.Context, _ string, wrapped []byte) ([]byte, error) {
	return bytes.Clone(wrapped), nil
}

// Whoever writes the database becomes no operator by it: not with a session of
// their own, not with another's name in theirs, not with more time, and not
// with one that was ended.
func TestDatabaseWriterInsertsSession(t *testing.T) {
	const columns = `hash, issuer, tenant, object, user_name, member_of, signed_in, created, expires`
	secret := mandate.NewSecret(sessionPrefix + "of somebody who can write the database")
	for _, tt := range []struct {
		name  string
		do    string
		ended bool
		own   bool // the session with which they come is their own
		want  string
	}{
		{name: "inserted", own: true, want: "was inserted",
			do: `INSERT INTO operator_sessions (` + columns + `) SELECT $1, issuer, tenant, object, user_name, member_of, signed_in, created, expires FROM operator_sessions WHERE hash <> $1`},
		{name: "took another's place", own: true, want: "was inserted", do: `UPDATE operator_sessions SET hash = $1`},
		{name: "another person", want: "was changed", do: `UPDATE operator_sessions SET object = '11111111-0000-4000-8000-000000000009' WHERE hash <> $1`},
		{name: "in another group", want: "was changed", do: `UPDATE operator_sessions SET member_of = '["security"]' WHERE hash <> $1`},
		{name: "longer", want: "was changed", do: `UPDATE operator_sessions SET expires = expires + 86400000 WHERE hash <> $1`},
		{name: "signed in later", want: "was changed", do: `UPDATE operator_sessions SET signed_in = signed_in + 600000 WHERE hash <> $1`},
		{name: "put back", ended: true, want: "replayed",
			do: `INSERT INTO operator_sessions (` + columns + `) SELECT ` + columns + ` FROM kept WHERE hash <> $1`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			each(t, func(t *testing.T, cfg database.Config) {
				s, db := running(t, cfg)
				if err := db.Guard(t.Context(), database.GuardConfig{Key: mirror{}}); err != nil {
					t.Fatal(err)
				}
				now := time.UnixMilli(time.Now().UnixMilli())
				in := Session{Issuer: "https://login.example", UserName: "ana", Groups: []string{"viewers"}, SignedIn: now, Created: now, Expires: now.Add(time.Hour),
					User: mandate.Identity{Tenant: contoso.Key.Partner, Object: mandate.ObjectID(tenant("11111111-0000-4000-8000-000000000001"))}}
				shown, err := s.AddSession(t.Context(), in)
				if err != nil {
					t.Fatal(err)
				}
				if got, err := s.Session(t.Context(), shown); err != nil || fmt.Sprint(got) != fmt.Sprint(in) {
					t.Fatalf("got %+v, %v; want %+v", got, err, in)
				}
				if _, err := db.Exec(t.Context(), `CREATE TABLE kept AS SELECT * FROM operator_sessions`); err != nil {
					t.Fatal(err)
				}
				if tt.ended {
					if err := s.EndSession(t.Context(), shown); err != nil {
						t.Fatal(err)
					}
					if _, err := s.Session(t.Context(), shown); !errors.Is(err, mandate.ErrUnauthenticated) {
						t.Fatalf("ended: %v", err)
					}
				}
				if tt.own {
					shown = secret
				}
				hash := sha256.Sum256([]byte(secret.Reveal()))
				if n, err := db.Exec(t.Context(), tt.do, hash[:]); err != nil || n != 1 {
					t.Fatalf("%d rows, %v", n, err)
				}
				_, err = s.Session(t.Context(), shown)
				if !errors.Is(err, database.ErrAltered) || !strings.Contains(err.Error(), "of operator_sessions") || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got %v, want an error that says %q", err, tt.want)
				}
				if _, err := db.Epoch(); !errors.Is(err, database.ErrAltered) {
					t.Errorf("something is served: %v", err)
				}
				// Put right, for the check at the end of each test.
				undo := []string{`DELETE FROM operator_sessions`, `INSERT INTO operator_sessions (` + columns + `) SELECT ` + columns + ` FROM kept`}
				if tt.ended {
					undo = undo[:1]
				}
				for _, q := range undo {
					if _, err := db.Exec(t.Context(), q); err != nil {
						t.Fatal(err)
					}
				}
			})
		})
	}
}
