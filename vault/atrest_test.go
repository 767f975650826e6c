package vault

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

// filesWith returns the names of the files under dir that contain text.
func filesWith(t *testing.T, dir string, text []byte) []string {
	t.Helper()
	var found []string
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(b, text) {
			found = append(found, e.Name())
		}
	}
	return found
}

func sealedBytes(t *testing.T, db *database.DB) []byte {
	t.Helper()
	var blob []byte
	if err := db.QueryRow(t.Context(), `SELECT sealed FROM grants WHERE sealed IS NOT NULL`).Scan(&blob); err != nil {
		t.Fatal(err)
	}
	return blob
}

func TestDatabaseFilesYieldNothing(t *testing.T) {
	v, db, dir := openVault(t)
	absent := func(doing string) {
		t.Helper()
		for _, s := range []string{canary, "canary-refresh"} {
			if found := filesWith(t, dir, []byte(s)); found != nil {
				t.Errorf("after %s the refresh token is in %v", doing, found)
			}
		}
		for id, key := range v.key.(*KeyFile).keys {
			if found := filesWith(t, dir, key); found != nil {
				t.Errorf("after %s the key %s is in %v", doing, id, found)
			}
		}
	}
	// Long tokens fill pages of their own, which are freed and not overwritten.
	gone := func(what string, blob []byte) {
		t.Helper()
		for at := 0; at+64 <= len(blob); at += 512 {
			if found := filesWith(t, dir, blob[at:at+64]); found != nil {
				t.Errorf("the %s sealed token is still in %v, from byte %d", what, found, at)
			}
		}
	}
	long := canary + strings.Repeat(" and so on", 1000)
	g := activate(t, v, candidate(db, contoso, 1, long+"1"))
	absent("Activate")
	if err := rotate(t.Context(), v, g, long+"2"); err != nil {
		t.Fatal(err)
	}
	absent("Keep")
	replaced := sealedBytes(t, db)
	if filesWith(t, dir, replaced[:64]) == nil {
		t.Fatal("the sealed token is in no file: this test looks in the wrong place")
	}
	second := candidate(db, contoso, 2, long+"3")
	second.Compromised = true
	activate(t, v, second)
	absent("second Activate")
	gone("replaced generation's", replaced)
	fallback := sealedBytes(t, db)
	activate(t, v, candidate(db, contoso, 3, long+"4"))
	if err := v.Suspend(t.Context(), contoso); err != nil {
		t.Fatal(err)
	}
	absent("Suspend")
	gone("fall-back's", fallback)
	withdrawn := sealedBytes(t, db)
	if left, err := v.Withdraw(t.Context(), contoso); err != nil || len(left) > 0 {
		t.Fatal(left, err)
	}
	absent("Withdraw")
	gone("withdrawn grant's", withdrawn)
}

func TestMovedRowsDoNotOpen(t *testing.T) {
	ctx := t.Context()
	for _, tt := range []struct{ name, stmt string }{
		{"the sealed token of another partner", `UPDATE grants SET sealed = o.sealed FROM grants o WHERE o.partner <> grants.partner`},
		{"partners exchanged", `UPDATE grants SET partner = CASE WHEN partner LIKE '%1' THEN 'bbbbbbbb-0000-4000-8000-00000000000f' ELSE 'bbbbbbbb-0000-4000-8000-000000000001' END`},
		{"another cloud", `UPDATE grants SET cloud = 'emulator'`},
		{"another application", `UPDATE grants SET application = 'aaaaaaaa-0000-4000-8000-000000000009'`},
		{"a later generation", `UPDATE grants SET generation = generation + 1`},
		{"a later version", `UPDATE grants SET version = version + 1`},
		{"another key's ID", `UPDATE grants SET key_id = 'other'`},
		{"another column", `UPDATE grants SET sealed = CAST(evidence AS BLOB)`},
		{"one byte less", `UPDATE grants SET sealed = substr(sealed, 1, length(sealed) - 1)`},
		{"nothing", `UPDATE grants SET sealed = x''`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v, db, _ := openVault(t)
			other := contoso
			other.Partner = tenant("bbbbbbbb-0000-4000-8000-000000000002")
			activate(t, v, candidate(db, contoso, 1, canary))
			activate(t, v, candidate(db, other, 1, canary))
			if _, err := db.Exec(ctx, tt.stmt); err != nil {
				t.Fatal(err)
			}
			all, err := v.Grants(ctx, mandate.TenantID{})
			if err != nil || len(all) != 2 {
				t.Fatal(len(all), err)
			}
			for _, g := range all {
				got, err := v.Open(ctx, g.Key)
				if err == nil || !got.Refresh.IsZero() {
					t.Errorf("%v opened", g.Key)
				} else if strings.Contains(err.Error(), "canary") {
					t.Errorf("the error shows the token: %v", err)
				}
			}
		})
	}
}

func TestAnOldRowPutBackDoesNotOpen(t *testing.T) {
	v, db, _ := openVault(t)
	g := activate(t, v, candidate(db, contoso, 1, "old"))
	old := sealedBytes(t, db)
	if err := rotate(t.Context(), v, g, "new"); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(t.Context(), `UPDATE grants SET sealed = $1`, old); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Open(t.Context(), contoso); !errors.Is(err, errMoved) {
		t.Errorf("Open of a sealed token from before the last rotation: got error %v, want %v", err, errMoved)
	}
}

func TestUnreadableRowIsAnError(t *testing.T) {
	for _, column := range []string{"application = 'x'", "user_tenant = 'x'", "user_object = 'x'", "evidence = 'x'", "audiences = 'x'", "agent_groups = 'x'"} {
		v, db, _ := openVault(t)
		activate(t, v, candidate(db, contoso, 1, "refresh"))
		if _, err := db.Exec(t.Context(), `UPDATE grants SET `+column); err != nil {
			t.Fatal(err)
		}
		if _, err := v.Grants(t.Context(), contoso.Partner); err == nil {
			t.Errorf("Grants returned a grant of a row with %s", column)
		}
	}
}

// TestNothingOpensAnywhereElse puts each sealed token into the place of every
// other, and shared tokens too.
func TestNothingOpensAnywhereElse(t *testing.T) {
	onBoth(t, func(t *testing.T, cfg database.Config) {
		ctx := t.Context()
		v := replicas(t, cfg)[0]
		populate(t, v)
		c, g := holdingOf(t, v, partner(9))
		w := c.wanted(g, "https://example.com")
		if err := c.share(ctx, g, w, c.accessToken(g, w, "access"), mandate.Secret{}); err != nil {
			t.Fatal(err)
		}
		if err := CheckMoved(ctx, v); err != nil {
			t.Error(err)
		}
		all, err := v.storedValues(ctx)
		if err != nil || len(all) != 9 {
			t.Fatal(len(all), err)
		}
		rows, err := v.rows(ctx, `SELECT `+columns+` FROM grants WHERE key_id IS NOT NULL`)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rows {
			own := r.sealed
			for _, s := range all {
				if bytes.Equal(s.sealed.blob(), own) {
					continue
				}
				_, err := v.db.Exec(ctx, `UPDATE grants SET sealed = $1, key_id = $2 WHERE partner = $3 AND generation = $4`, s.sealed.blob(), s.sealed.keyID, r.partner, r.generation)
				if err != nil {
					t.Fatal(err)
				}
				r.sealed = s.sealed.blob()
				if _, err := v.unsealed(ctx, &r); err == nil {
					t.Errorf("%s opens as generation %d of %s", s.what, r.generation, r.partner)
				}
			}
			r.sealed = own
			if err := CheckMoved(ctx, v); err == nil {
				t.Error("CheckMoved found nothing wrong with a row that has another's token")
			}
			if _, err := v.db.Exec(ctx, `UPDATE grants SET sealed = $1 WHERE partner = $2 AND generation = $3`, own, r.partner, r.generation); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestWhatUsersAreCalledCanBeStored(t *testing.T) {
	onBoth(t, func(t *testing.T, cfg database.Config) {
		v := replicas(t, cfg)[0]
		g := candidate(v.db, contoso, 1, "refresh")
		g.UserName = "somebody\x00\xff@" + strings.Repeat("é", maxText)
		activate(t, v, g)
		if err := v.Attempted(t.Context(), g, g.Due, strings.Repeat("é", maxText)+"\x00"); err != nil {
			t.Error(err)
		}
		got, err := v.Head(t.Context(), contoso)
		if err != nil || !strings.HasPrefix(got.UserName, "somebody@é") || got.Failures != 1 {
			t.Errorf("Head: got %q, %d failures, %v", got.UserName, got.Failures, err)
		}
	})
}
