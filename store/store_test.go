package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
	"github.com/mandate-sam/mandate/internal/pgtest"
)

func tenant(s string) mandate.TenantID {
	t, err := mandate.ParseTenantID(s)
	if err != nil {
		panic(err)
	}
	return t
}

var (
	app1    = mandate.AppID(tenant("aaaaaaaa-0000-4000-8000-000000000001"))
	app2    = mandate.AppID(tenant("aaaaaaaa-0000-4000-8000-000000000002"))
	contoso = mandate.Partner{
		Name: "contoso", DisplayName: "Contoso CSP", Created: time.UnixMilli(1_700_000_000_000),
		Key: mandate.GrantKey{Cloud: "global", Application: app1, Partner: tenant("bbbbbbbb-0000-4000-8000-000000000001")},
	}
	fabrikam = mandate.Partner{
		Name: "fabrikam", Created: time.UnixMilli(1_700_000_000_000),
		Key: mandate.GrantKey{Cloud: "global", Application: app1, Partner: tenant("bbbbbbbb-0000-4000-8000-000000000002")},
	}
)

// each runs a test with an empty database of either kind.
func each(t *testing.T, test func(t *testing.T, cfg database.Config)) {
	t.Run("SQLite", func(t *testing.T) { test(t, database.Config{File: filepath.Join(t.TempDir(), "mandate.db")}) })
	t.Run("PostgreSQL", func(t *testing.T) { test(t, database.Config{URL: pgtest.Shared(t).Database(t)}) })
}

// inBubbles is [each] with a clock of the test's own, by which a server that
// is watched could not be.
func inBubbles(t *testing.T, test func(t *testing.T, s *Store, db *database.DB)) {
	each(t, func(t *testing.T, cfg database.Config) {
		synctest.Test(t, func(t *testing.T) {
			s, db := open(t, cfg)
			test(t, s, db)
		})
	})
}

// openTest returns an empty store in SQLite.
func openTest(t *testing.T) (*Store, *database.DB) {
	t.Helper()
	return openDir(t, t.TempDir())
}

func openDir(t *testing.T, dir string) (*Store, *database.DB) {
	t.Helper()
	return open(t, database.Config{File: filepath.Join(dir, "mandate.db")})
}

// running opens a store whose database is watched.
func running(t *testing.T, cfg database.Config) (*Store, *database.DB) {
	t.Helper()
	s, db := open(t, cfg)
	var run sync.WaitGroup
	run.Go(func() { db.Run(t.Context()) })
	t.Cleanup(run.Wait)
	return s, db
}

func open(t *testing.T, cfg database.Config) (*Store, *database.DB) {
	t.Helper()
	cfg.Schemas = []database.Schema{Schema()}
	db, err := database.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	if err := db.Guard(t.Context(), database.GuardConfig{Key: plainKey{}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // whatever the test did to guarded rows it did by changes
		ctx := context.Background()
		if err := db.View(ctx, func(tx *database.Tx) error { return db.Verify(ctx, tx) }); errors.Is(err, database.ErrAltered) {
			t.Errorf("the security state at the end: %v", err)
		}
	})
	s, err := Open(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	return s, db
}

// plainKey wraps nothing.
type plainKey struct{}

func (plainKey) Wrap(_ context.Context, plain []byte) (string, []byte, error) {
	return "plain", slices.Clone(plain), nil
}
func (plainKey) Unwrap(_ context.Context, _ string, wrapped []byte) ([]byte, error) {
	return wrapped, nil
}

func addPartners(t *testing.T, s *Store, partners ...mandate.Partner) {
	t.Helper()
	for _, p := range partners {
		if err := s.AddPartner(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
}

func epochOf(t *testing.T, db *database.DB) int64 {
	t.Helper()
	e, err := db.Epoch()
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func addCaller(t *testing.T, s *Store, id mandate.CallerID) string {
	t.Helper()
	_, secret, err := s.AddCaller(t.Context(), id, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	return secret.Reveal()
}

// same fails the test with the difference, if there is one.
func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b mandate.TenantID) bool { return a == b }),
		cmp.Comparer(func(a, b mandate.AppID) bool { return a == b })); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestPartners(t *testing.T) { each(t, testPartners) }

func testPartners(t *testing.T, cfg database.Config) {
	s, db := running(t, cfg)
	before := epochOf(t, db)
	addPartners(t, s, fabrikam, contoso)
	if after := epochOf(t, db); after != before+2 {
		t.Errorf("the epoch went from %d to %d by two partners", before, after)
	}
	db.Close()
	s, _ = running(t, cfg)
	all, err := s.Partners()
	if err != nil {
		t.Fatal(err)
	}
	same(t, "Partners", all, []mandate.Partner{contoso, fabrikam})
	for _, name := range []string{"contoso", contoso.Key.Partner.String(), strings.ToUpper(contoso.Key.Partner.String())} {
		got, err := s.Partner(name)
		if err != nil {
			t.Errorf("Partner(%q): %v", name, err)
		}
		same(t, name, got, contoso)
	}
	all[0].Name = "changed"
	if again, err := s.Partners(); err != nil || again[0].Name != "contoso" {
		t.Errorf("changing what Partners returned changed the store (error %v)", err)
	}
}

func TestUnknownPartner(t *testing.T) { each(t, testUnknownPartner) }

func testUnknownPartner(t *testing.T, cfg database.Config) {
	s, _ := running(t, cfg)
	addPartners(t, s, contoso, fabrikam)
	for _, tt := range []struct{ name, want string }{
		{"contosso", `did you mean "contoso"?`},
		{"Contoso", `did you mean "contoso"?`},
		{"fabrkiam", `did you mean "fabrikam"?`},
		{"cont", `unknown partner: "cont"`},
		{"conto", `did you mean "contoso"?`},
		{"contoso-eu", `unknown partner: "contoso-eu"`},
		{"northwind", `unknown partner: "northwind"`},
		{"", `unknown partner: ""`},
		{strings.Repeat("x", 1000), strings.Repeat("x", 80)},
		{"bbbbbbbb-0000-4000-8000-000000000009", "no partner has the tenant bbbbbbbb-0000-4000-8000-000000000009"},
	} {
		_, err := s.Partner(tt.name)
		if !errors.Is(err, mandate.ErrUnknownPartner) || !strings.Contains(err.Error(), tt.want) || len(err.Error()) > 200 {
			t.Errorf("Partner(%.20q): got error %v, want %q in it", tt.name, err, tt.want)
		}
		if !strings.Contains(tt.want, "mean") && strings.Contains(err.Error(), "mean") {
			t.Errorf("a suggestion that is not near: %v", err)
		}
	}
}

func TestTenantOfTwoApplications(t *testing.T) { each(t, testTenantOfTwoApplications) }

func testTenantOfTwoApplications(t *testing.T, cfg database.Config) {
	s, _ := running(t, cfg)
	second := contoso
	second.Name, second.Key.Application = "contoso-2", app2
	addPartners(t, s, contoso, second)
	_, err := s.Partner(contoso.Key.Partner.String())
	if !errors.Is(err, mandate.ErrInvalid) || !strings.Contains(err.Error(), "use a name: contoso, contoso-2") {
		t.Errorf("got error %v, want %v with both names", err, mandate.ErrInvalid)
	}
	got, err := s.Partner("contoso-2")
	if err != nil {
		t.Fatal(err)
	}
	got.Created = second.Created
	same(t, "contoso-2", got, second)
}

func TestAddPartnerRefuses(t *testing.T) { each(t, testAddPartnerRefuses) }

func testAddPartnerRefuses(t *testing.T, cfg database.Config) {
	s, db := running(t, cfg)
	addPartners(t, s, contoso)
	before := epochOf(t, db)
	for _, tt := range []struct {
		name   string
		change func(*mandate.Partner)
		is     error
		want   string
	}{
		{"no name", func(p *mandate.Partner) { p.Name = "" }, mandate.ErrInvalid, "name: "},
		{"capitals", func(p *mandate.Partner) { p.Name = "Fabrikam" }, mandate.ErrInvalid, "name: "},
		{"a space", func(p *mandate.Partner) { p.Name = "fabri kam" }, mandate.ErrInvalid, "name: "},
		{"a dash in front", func(p *mandate.Partner) { p.Name = "-fabrikam" }, mandate.ErrInvalid, "name: "},
		{"a long name", func(p *mandate.Partner) { p.Name = strings.Repeat("a", 64) }, mandate.ErrInvalid, "name: "},
		{"an ID", func(p *mandate.Partner) { p.Name = "bbbbbbbb-0000-4000-8000-000000000002" }, mandate.ErrInvalid, "looks like a tenant ID"},
		{"an ID without dashes", func(p *mandate.Partner) { p.Name = "bbbbbbbb000040008000000000000002" }, mandate.ErrInvalid, "looks like a tenant ID"},
		{"no cloud", func(p *mandate.Partner) { p.Key.Cloud = "" }, mandate.ErrInvalid, "partner: needs"},
		{"no application", func(p *mandate.Partner) { p.Key.Application = mandate.AppID{} }, mandate.ErrInvalid, "partner: needs"},
		{"no tenant", func(p *mandate.Partner) { p.Key.Partner = mandate.TenantID{} }, mandate.ErrInvalid, "partner: needs"},
		{"a display name of two lines", func(p *mandate.Partner) { p.DisplayName = "a\nb" }, mandate.ErrInvalid, "display_name: "},
		{"a display name that turns the line round", func(p *mandate.Partner) { p.DisplayName = "a\u202eb" }, mandate.ErrInvalid, "display_name: "},
		{"a long display name", func(p *mandate.Partner) { p.DisplayName = strings.Repeat("a", 129) }, mandate.ErrInvalid, "display_name: "},
		{"a display name in no encoding", func(p *mandate.Partner) { p.DisplayName = "\xff" }, mandate.ErrInvalid, "display_name: "},
		{"a name that is taken", func(p *mandate.Partner) { p.Name = "contoso" }, mandate.ErrExists, `a partner named "contoso"`},
		{"a tenant that is taken", func(p *mandate.Partner) { p.Key = contoso.Key }, mandate.ErrExists, `is the partner "contoso" of this application`},
	} {
		p := fabrikam
		tt.change(&p)
		if err := s.AddPartner(t.Context(), p); !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got error %v, want %v with %q", tt.name, err, tt.is, tt.want)
		}
	}
	if after := epochOf(t, db); after != before {
		t.Errorf("refusals changed the epoch from %d to %d", before, after)
	}
	long := fabrikam
	long.Name, long.Created = strings.Repeat("a", 63), time.Time{}
	addPartners(t, s, long)
	if got, err := s.Partner(long.Name); err != nil || time.Since(got.Created) > time.Minute {
		t.Errorf("got %v, %v, want a partner made just now", got, err)
	}
}

func TestSnapshotFollowsTheEpoch(t *testing.T) { each(t, testSnapshotFollowsTheEpoch) }

func testSnapshotFollowsTheEpoch(t *testing.T, cfg database.Config) {
	s, db := running(t, cfg)
	ctx := t.Context()
	secret := addCaller(t, s, "billing")
	first := s.snap.Load()
	if _, err := s.Authenticate("billing", secret); err != nil {
		t.Fatal(err)
	}
	now := s.snap.Load()
	if now == first {
		t.Error("the snapshot is older than the caller that it has")
	}
	for range 3 {
		if _, err := s.Authenticate("billing", secret); err != nil || s.snap.Load() != now {
			t.Fatalf("the database was read again without need (error %v)", err)
		}
	}
	if again, err := s.reload(ctx); err != nil || again != now {
		t.Errorf("what somebody else has just read was read again (error %v)", err)
	}
	// Somebody else's change, as another package makes it.
	if err := db.Change(ctx, func(tx *database.Tx) error {
		_, err := tx.Exec(ctx, `DELETE FROM callers`)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Authenticate("billing", secret); !errors.Is(err, mandate.ErrUnauthenticated) {
		t.Errorf("got error %v, want %v: the change is in force when it returns", err, mandate.ErrUnauthenticated)
	}
}

// TestSecretsAreNotStored looks for what proves somebody's right in the files.
func TestSecretsAreNotStored(t *testing.T) {
	dir := t.TempDir()
	s, _ := openDir(t, dir)
	addPartners(t, s, contoso)
	i, token, err := s.Invite(t.Context(), invitation())
	if err != nil {
		t.Fatal(err)
	}
	p := NewProof()
	if _, err := s.Begin(t.Context(), transaction(p, i.ID)); err != nil {
		t.Fatal(err)
	}
	secrets := map[string]string{
		"caller's secret": addCaller(t, s, "billing"), "invitation": token.Reveal(),
		"cookie": p.Cookie().Reveal(), "state": p.State(), "nonce": p.Nonce(), "verifier": p.Verifier().Reveal(),
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		for what, secret := range secrets {
			if strings.Contains(string(b), secret) || strings.Contains(string(b), secret[12:40]) {
				t.Errorf("the %s is in %s", what, e.Name())
			}
		}
	}
}

func TestDatabaseDownIsUnavailable(t *testing.T) { each(t, testDatabaseDownIsUnavailable) }

func testDatabaseDownIsUnavailable(t *testing.T, cfg database.Config) {
	s, db := running(t, cfg)
	addPartners(t, s, contoso)
	secret := addCaller(t, s, "billing")
	p, ctx := NewProof(), t.Context()
	db.Close()
	for name, err := range map[string]error{
		"Open":           second(Open(ctx, db)),
		"AddPartner":     s.AddPartner(ctx, fabrikam),
		"Partner":        second(s.Partner("contoso")),
		"Partners":       second(s.Partners()),
		"AddCaller":      third(s.AddCaller(ctx, "reports", time.Time{})),
		"RemoveCaller":   s.RemoveCaller(ctx, "billing"),
		"Callers":        second(s.Callers()),
		"Authenticate":   second(s.Authenticate("billing", secret)),
		"Invite":         third(s.Invite(ctx, invitation())),
		"Invitation":     second(s.Invitation(ctx, p.Cookie())),
		"InvitationByID": second(s.InvitationByID(ctx, "x")),
		"Invitations":    second(s.Invitations(ctx, "contoso")),
		"Begin":          second(s.Begin(ctx, transaction(p, ""))),
		"Pending":        second(s.Pending(ctx, "x")),
		"Consume":        second(s.Consume(ctx, "x", p)),
		"Finish":         s.Finish(ctx, "x", Outcome{}),
		"Result":         third(s.Result(ctx, "x", p)),
	} {
		if !errors.Is(err, mandate.ErrUnavailable) || errors.Is(err, mandate.ErrNotFound) || errors.Is(err, mandate.ErrUnauthenticated) {
			t.Errorf("%s: got error %v, want %v", name, err, mandate.ErrUnavailable)
		}
	}
	late, cancel := context.WithDeadline(ctx, time.Now().Add(-time.Second))
	defer cancel()
	if _, err := s.read(late); !errors.Is(err, mandate.ErrUnavailable) {
		t.Errorf("not answered in time: got error %v, want %v", err, mandate.ErrUnavailable)
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if err := s.AddPartner(gone, fabrikam); !errors.Is(err, context.Canceled) && !errors.Is(err, mandate.ErrUnavailable) {
		t.Errorf("of a caller who gave up: got error %v, want %v", err, context.Canceled)
	}
}

func second[T any](_ T, err error) error        { return err }
func third[T, U any](_ T, _ U, err error) error { return err }
