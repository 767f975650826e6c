package vault

import (
	"context"
	"embed"
	"encoding/binary"
	"errors"
	"io/fs"
	"path/filepath"
	"testing"
	"testing/fstest"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

// firstSchema is the schema as it was before there were candidates.
func firstSchema(t *testing.T, files embed.FS) database.Schema {
	t.Helper()
	b, err := fs.ReadFile(files, "migrations/001_grants.sql")
	if err != nil {
		t.Fatal(err)
	}
	return database.Schema{Package: "vault", Files: fstest.MapFS{"migrations/001_grants.sql": {Data: b}}}
}

// TestGrantsOfBefore: what was stored and sealed by the first version of this
// package opens, is rotated, and is renewed.
func TestGrantsOfBefore(t *testing.T) {
	onBoth(t, func(t *testing.T, cfg database.Config) {
		ctx := t.Context()
		keys := openKeys(t, t.TempDir()+"/keys")
		old := cfg
		old.Schemas = []database.Schema{firstSchema(t, migrations)}
		db, err := database.Open(ctx, old)
		if err != nil {
			t.Fatal(err)
		}
		for _, state := range []string{"replaced", "active"} {
			if err := insertOld(ctx, db, keys, state); err != nil {
				t.Fatal(err)
			}
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		v := newVault(t, openDB(t, cfg), keys)
		g, err := v.Open(ctx, contoso)
		if err != nil || g.Refresh.Reveal() != canary || g.Generation != 2 || g.Version != 5 || g.Origin != mandate.OriginConsent {
			t.Fatalf("Open: got %+v, %v", g, err)
		}
		if epoch := epochOf(t, v.db); g.Since < 1 || g.Since > epoch {
			t.Errorf("the grant's state has changed in epoch %d, and it is %d now", g.Since, epoch)
		}
		if err := rotate(ctx, v, g, "rotated"); err != nil {
			t.Error(err)
		}
		activate(t, v, candidate(v.db, contoso, 3, "next"))
		if err := v.Rewrap(ctx, false, nil); err != nil {
			t.Error(err)
		}
	})
}

// insertOld stores a row as the first version did, sealed in format 1.
func insertOld(ctx context.Context, db *database.DB, keys *KeyFile, state string) error {
	generation, keyID, blob := int64(1), any(nil), any(nil)
	if state == "active" {
		generation = 2
		s, err := sealFirst(ctx, keys, label{key: contoso, kind: kindRefresh, generation: 2, version: 5}, canary)
		if err != nil {
			return err
		}
		keyID, blob = s.keyID, s.blob()
	}
	now := time.Now().UnixMilli()
	_, err := db.Exec(ctx, `INSERT INTO grants (cloud, application, partner, generation, version, state, user_tenant, user_object, user_name,
		consented, until, redeemed, evidence, audiences, agent_groups, key_id, sealed)
		VALUES ($1, $2, $3, $4, 5, $5, $3, $3, 'somebody', $6, $7, $6, '{}', '[]', '[]', $8, $9)`,
		keyArgs(contoso, generation, state, now, now+3600000, keyID, blob)...)
	return err
}

// sealFirst seals as format 1 did: with the additional data written out here,
// because what is stored must open whatever becomes of the code.
func sealFirst(ctx context.Context, keys *KeyFile, l label, secret string) (sealed, error) {
	var data []byte
	number := func(n int64) string { return string(binary.BigEndian.AppendUint64(nil, uint64(n))) }
	for _, f := range []string{"mandate sealed value", number(1), l.key.Cloud, l.key.Application.String(), "refresh-token",
		l.key.Partner.String(), number(l.generation), number(l.version)} {
		data = binary.BigEndian.AppendUint32(data, uint32(len(f)))
		data = append(data, f...)
	}
	return sealWith(ctx, keys, 1, data, mandate.NewSecret(secret))
}

func TestFormat1IsForRefreshTokensOnly(t *testing.T) {
	keys := openKeys(t, t.TempDir()+"/keys")
	l := label{key: contoso, kind: kindAccess, generation: 1}
	s, err := sealWith(t.Context(), keys, 1, l.data(1), mandate.NewSecret(canary))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.open(t.Context(), keys, l); !errors.Is(err, errMoved) {
		t.Errorf("got error %v, want %v", err, errMoved)
	}
}

func TestSweep(t *testing.T) {
	onBoth(t, func(t *testing.T, cfg database.Config) {
		ctx := t.Context()
		v := newVault(t, openDB(t, cfg), openKeys(t, filepath.Join(t.TempDir(), "keys"))) // not guarded: times are moved by hand
		activate(t, v, candidate(v.db, contoso, 1, "first"))
		activate(t, v, candidate(v.db, contoso, 2, "second"))
		c := &check{vault: v, epoch: patient{v.db}, turns: v, key: contoso}
		if err := v.Stage(ctx, c.staged(3, "third")); err != nil {
			t.Fatal(err)
		}
		fallback, err := v.Fallback(ctx, contoso)
		if err != nil {
			t.Fatal(err)
		}
		if err := v.Sweep(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := v.Candidate(ctx, contoso); err != nil {
			t.Errorf("Candidate before its time is over: %v", err)
		}
		if _, err := v.db.Exec(ctx, `UPDATE grants SET fallback_until = now_ms() - 1 WHERE fallback_until > 0`); err != nil {
			t.Fatal(err)
		}
		for name, err := range map[string]error{
			"Fallback":  second(v.Fallback(ctx, contoso)),
			"Candidate": second(v.Candidate(ctx, contoso)),
		} {
			if !errors.Is(err, mandate.ErrNoGrant) {
				t.Errorf("%s past its time: got error %v, want %v", name, err, mandate.ErrNoGrant)
			}
		}
		if err := rotate(ctx, v, fallback, "late"); !errors.Is(err, mandate.ErrSuperseded) {
			t.Errorf("Keep of a fall-back past its time: got error %v, want %v", err, mandate.ErrSuperseded)
		}
		if err := v.Activate(ctx, candidate(v.db, contoso, 3, "late")); !errors.Is(err, mandate.ErrSuperseded) {
			t.Errorf("Activate of a candidate past its time: got error %v, want %v", err, mandate.ErrSuperseded)
		}
		if err := v.Rollback(ctx, contoso); !errors.Is(err, mandate.ErrNotFound) {
			t.Errorf("Rollback past its time: got error %v, want %v", err, mandate.ErrNotFound)
		}
		epoch := epochOf(t, v.db)
		if err := v.Sweep(ctx); err != nil {
			t.Fatal(err)
		}
		if epochOf(t, v.db) == epoch {
			t.Error("Sweep made tombstones, and did not raise the epoch")
		}
		want(t, v, mandate.StateDiscarded, mandate.StateActive, mandate.StateReplaced)
		if g, err := v.Open(ctx, contoso); err != nil || g.Refresh.Reveal() != "second" {
			t.Errorf("Open after Sweep: got error %v", err)
		}
	})
}

// want compares the states of contoso's generations, the newest first.
func want(t *testing.T, v *SQL, states ...mandate.State) {
	t.Helper()
	all, err := v.Grants(t.Context(), contoso.Partner)
	if err != nil || len(all) != len(states) {
		t.Fatalf("Grants: got %d, %v, want %d", len(all), err, len(states))
	}
	for i, g := range all {
		if g.State != states[i] {
			t.Errorf("generation %d is %s, want %s", g.Generation, g.State, states[i])
		}
	}
}

func TestRollback(t *testing.T) {
	onBoth(t, func(t *testing.T, cfg database.Config) {
		ctx := t.Context()
		v := replicas(t, cfg)[0]
		activate(t, v, candidate(v.db, contoso, 1, "first"))
		if err := v.Rollback(ctx, contoso); !errors.Is(err, mandate.ErrNotFound) {
			t.Errorf("Rollback without a fall-back: got error %v, want %v", err, mandate.ErrNotFound)
		}
		want(t, v, mandate.StateActive)
		activate(t, v, candidate(v.db, contoso, 2, "second"))
		epoch := epochOf(t, v.db)
		if err := v.Rollback(ctx, contoso); err != nil {
			t.Fatal(err)
		}
		want(t, v, mandate.StateReplaced, mandate.StateActive)
		g, err := v.Open(ctx, contoso)
		if err != nil || g.Refresh.Reveal() != "first" || g.Since <= epoch || g.Last != 2 || !g.Fallback.IsZero() {
			t.Errorf("Open after Rollback: got %+v, %v", g, err)
		}
		activate(t, v, candidate(v.db, contoso, 3, "third"))
		if err := errors.Join(v.Suspend(ctx, contoso), v.Resume(ctx, contoso)); err != nil {
			t.Fatal(err)
		}
		want(t, v, mandate.StateActive, mandate.StateReplaced, mandate.StateReplaced)
		if err := v.Rollback(ctx, contoso); !errors.Is(err, mandate.ErrNotFound) {
			t.Errorf("Rollback past a suspension: got error %v, want %v", err, mandate.ErrNotFound)
		}
		activate(t, v, candidate(v.db, contoso, 4, "fourth"))
		err = v.db.Change(ctx, func(tx *database.Tx) error { // which no method leaves beside a fall-back
			_, err := tx.Exec(ctx, `UPDATE grants SET state = 'suspended' WHERE state = 'active'`)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := v.Rollback(ctx, contoso); !errors.Is(err, mandate.ErrNotFound) {
			t.Errorf("Rollback of a suspended grant: got error %v, want %v", err, mandate.ErrNotFound)
		}
	})
}

// TestAChangeIsOfOneGrant: whatever happens to a grant leaves those of another
// partner, another application and another cloud as they are, with what is
// shared of them.
func TestAChangeIsOfOneGrant(t *testing.T) {
	ctx := t.Context()
	v, db, _ := openVault(t)
	others := []mandate.GrantKey{contoso, contoso, contoso}
	others[0].Partner = flip(contoso.Partner)
	others[1].Application = mandate.AppID(contoso.Partner)
	others[2].Cloud = "china"
	for _, k := range append(others, contoso) {
		activate(t, v, candidate(db, k, 1, "first"))
		activate(t, v, candidate(db, k, 2, "second"))
	}
	whole := func(doing string) {
		t.Helper()
		for _, k := range others {
			g, err := v.Open(ctx, k)
			f, ferr := v.Fallback(ctx, k)
			if err != nil || ferr != nil || g.Refresh.Reveal() != "second" || f.Refresh.Reveal() != "first" {
				t.Fatalf("after %s: the grant %+v is %v, and its fall-back %v", doing, k, err, ferr)
			}
			c := &check{vault: v, epoch: patient{db}, turns: v, key: k}
			w := c.wanted(g, "https://example.com")
			token := c.accessToken(g, w, "access")
			if doing == "nothing" {
				err = c.share(ctx, g, w, token, mandate.Secret{})
			} else {
				err = c.got(ctx, w, token)
			}
			if err != nil {
				t.Errorf("after %s: the shared token of %+v: %v", doing, k, err)
			}
		}
	}
	whole("nothing")
	for _, change := range []struct {
		name string
		do   func() error
	}{
		{"Activate", func() error { return v.Activate(ctx, candidate(db, contoso, 3, "third")) }},
		{"Rollback", func() error { return v.Rollback(ctx, contoso) }},
		{"Suspend", func() error { return v.Suspend(ctx, contoso) }},
		{"Resume", func() error { return v.Resume(ctx, contoso) }},
		{"Withdraw", func() error { return v.withdraw(ctx, contoso) }},
	} {
		if err := change.do(); err != nil {
			t.Fatal(err)
		}
		whole(change.name)
	}
}

// TestASuspendedGrantIsReplacedOnlyByACandidate, and says so whatever came after
// it.
func TestASuspendedGrantIsReplacedOnlyByACandidate(t *testing.T) {
	ctx := t.Context()
	v, db, _ := openVault(t)
	activate(t, v, candidate(db, contoso, 1, "first"))
	c := &check{vault: v, epoch: patient{db}, key: contoso}
	if err := errors.Join(v.Suspend(ctx, contoso), v.Stage(ctx, c.staged(2, "second"))); err != nil {
		t.Fatal(err)
	}
	var none *mandate.NoGrantError
	if _, err := v.Head(ctx, contoso); !errors.As(err, &none) || none.State != mandate.StateSuspended || none.Generation != 2 {
		t.Errorf("Head: got error %v of %+v, want suspended, and 2 the last generation", err, none)
	}
	if err := v.Activate(ctx, candidate(db, contoso, 3, "third")); !errors.Is(err, mandate.ErrSuperseded) {
		t.Errorf("Activate: got error %v, want %v", err, mandate.ErrSuperseded)
	}
	if held, err := v.Held(ctx, contoso); err != nil || held.Refresh.Reveal() != "first" {
		t.Errorf("Held: got error %v, want the suspended one", err)
	}
	if err := v.Discard(ctx, contoso); err != nil {
		t.Error(err)
	}
	if err := v.Discard(ctx, contoso); !errors.Is(err, mandate.ErrNotFound) {
		t.Errorf("Discard of nothing: got error %v, want %v", err, mandate.ErrNotFound)
	}
	if err := v.Stage(ctx, c.staged(3, "third")); err != nil {
		t.Fatal(err)
	}
	activate(t, v, candidate(db, contoso, 3, "third"))
	want(t, v, mandate.StateActive, mandate.StateDiscarded, mandate.StateReplaced)
	if _, err := v.Fallback(ctx, contoso); !errors.Is(err, mandate.ErrNoGrant) {
		t.Errorf("a suspended generation became a fall-back: %v", err)
	}
	past := c.staged(4, "late")
	past.Fallback = time.Now().Add(-time.Second)
	if err := v.Stage(ctx, past); !errors.Is(err, mandate.ErrInvalid) {
		t.Errorf("Stage of what is over: got error %v, want %v", err, mandate.ErrInvalid)
	}
}

// TestStatesNeverSeenTogether: the database itself refuses rows that make no
// sense, whoever writes them.
func TestStatesNeverSeenTogether(t *testing.T) {
	onBoth(t, func(t *testing.T, cfg database.Config) {
		v := replicas(t, cfg)[0]
		activate(t, v, candidate(v.db, contoso, 1, "first"))
		activate(t, v, candidate(v.db, contoso, 2, "second"))
		for _, stmt := range []string{
			`state = 'active'`,
			`state = 'fallback'`,
			`sealed = NULL`,
			`state = 'replaced'`,
			`state = 'unheard of'`,
			`home = 'away'`,
			`ref = 'x'`,
			`home = 'away', ref = 'x'`,
		} {
			if _, err := v.db.Exec(t.Context(), `UPDATE grants SET `+stmt); err == nil {
				t.Errorf("the database took %s for all rows", stmt)
			}
		}
	})
}

// TestNothingIsKeptInALaterEpoch: whatever it was that changed, and though
// somebody else has rotated before.
func TestNothingIsKeptInALaterEpoch(t *testing.T) {
	onBoth(t, func(t *testing.T, cfg database.Config) {
		ctx := t.Context()
		v := replicas(t, cfg)[0]
		c, g := holding(t, v)
		w := c.wanted(g, "https://example.com")
		for version := g.Version; version < g.Version+2; version++ {
			turn, err := c.take(ctx, w)
			if err != nil {
				t.Fatal(err)
			}
			epoch := epochOf(t, v.db)
			if version > g.Version {
				if err := v.Keep(ctx, mandate.Keep{Grant: g, Epoch: epoch, Next: mandate.NewSecret("of another")}); err != nil {
					t.Fatal(err)
				}
			}
			if err := v.db.Change(ctx, func(*database.Tx) error { return nil }); err != nil {
				t.Fatal(err)
			}
			for name, k := range map[string]mandate.Keep{
				"nothing":         {},
				"a refresh token": {Next: mandate.NewSecret("next")},
				"an access token": {Turn: turn, Token: c.accessToken(g, w, "access")},
				"both":            {Turn: turn, Token: c.accessToken(g, w, "access"), Next: mandate.NewSecret("next")},
			} {
				k.Grant, k.Epoch = g, epoch
				if err := v.Keep(ctx, k); !errors.Is(err, mandate.ErrSuperseded) {
					t.Errorf("Keep of %s: got error %v, want %v", name, err, mandate.ErrSuperseded)
				}
			}
			if now, err := v.Open(ctx, contoso); err != nil || now.Version != version {
				t.Errorf("Open: got version %d, %v, want %d", now.Version, err, version)
			}
			if err := v.Release(ctx, turn); err != nil {
				t.Fatal(err)
			}
		}
	})
}
