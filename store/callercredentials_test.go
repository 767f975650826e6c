package store

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

func TestCallerRotation(t *testing.T) { each(t, testCallerRotation) }

// A caller has two secrets while one takes the place of the other, and never
// three.
func testCallerRotation(t *testing.T, cfg database.Config) {
	s, db := running(t, cfg)
	ctx := t.Context()
	first := addCaller(t, s, "billing")
	before := epochOf(t, db)
	c, next, err := s.Rotate(ctx, "billing", time.Hour, time.Now().Add(48*time.Hour))
	if err != nil || c.ID == "" {
		t.Fatalf("Rotate: %+v, %v", c, err)
	}
	if after := epochOf(t, db); after != before+1 {
		t.Errorf("a rotation took the epoch from %d to %d", before, after)
	}
	for _, secret := range []string{first, next.Reveal()} {
		if id, err := s.Authenticate("billing", secret); id != "billing" || err != nil {
			t.Errorf("while both are valid: %q, %v", id, err)
		}
	}
	if _, _, err := s.Rotate(ctx, "billing", time.Hour, time.Time{}); !errors.Is(err, mandate.ErrInvalid) {
		t.Errorf("a third secret: got error %v, want %v", err, mandate.ErrInvalid)
	}
	all, err := s.Callers()
	if err != nil || len(all) != 1 || len(all[0].Credentials) != 2 {
		t.Fatalf("Callers: %+v, %v", all, err)
	}
	old := all[0].Credentials[0]
	if old.ID != first[4:12] || old.Expires.IsZero() || old.Expires.After(time.Now().Add(time.Hour)) {
		t.Errorf("the first secret is %+v, want it to end within the hour", old)
	}
	// An end is never put off.
	if err := s.ExpireCredential(ctx, "billing", old.ID, time.Now().Add(100*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if all, _ := s.Callers(); !all[0].Credentials[0].Expires.Equal(old.Expires) {
		t.Errorf("the end moved from %v to %v", old.Expires, all[0].Credentials[0].Expires)
	}
	if err := s.ExpireCredential(ctx, "billing", old.ID, time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Authenticate("billing", first); !errors.Is(err, mandate.ErrUnauthenticated) {
		t.Errorf("an expired secret: got error %v", err)
	}
	if _, _, err := s.Rotate(ctx, "billing", 0, time.Time{}); err != nil {
		t.Errorf("a rotation after one expired: %v", err)
	}
	for _, err := range []error{
		s.ExpireCredential(ctx, "billing", "nope", time.Now()), s.ExpireCredential(ctx, "nobody", old.ID, time.Now()),
		rotateError(s.Rotate(ctx, "nobody", 0, time.Time{})),
	} {
		if !errors.Is(err, mandate.ErrNotFound) {
			t.Errorf("got error %v, want %v", err, mandate.ErrNotFound)
		}
	}
}

func rotateError(_ mandate.CallerCredential, _ mandate.Secret, err error) error { return err }

func TestCallerRegistration(t *testing.T) { each(t, testCallerRegistration) }

func testCallerRegistration(t *testing.T, cfg database.Config) {
	s, db := running(t, cfg)
	ctx := t.Context()
	in := mandate.Caller{
		ID: "deploy", Owner: "oid:x", Binding: mandate.Binding{Partner: "contoso", Customer: fabrikam.Key.Partner, Audiences: []mandate.Audience{"graph"}, Purpose: "deploy"},
		Credentials: []mandate.CallerCredential{
			{Kind: mandate.CredentialWorkload, Issuer: "github", Claims: map[string]string{"repository_id": "1"}, Expires: time.Now().Add(time.Hour)},
			{Kind: mandate.CredentialSPIFFE, SPIFFE: "spiffe://a/b"},
		},
	}
	before := epochOf(t, db)
	want, secret, err := s.Register(ctx, in)
	if err != nil || !secret.IsZero() {
		t.Fatal(err)
	}
	if _, _, err := s.Register(ctx, in); !errors.Is(err, mandate.ErrExists) {
		t.Errorf("twice: got error %v, want %v", err, mandate.ErrExists)
	}
	if _, _, err := s.AddCredential(ctx, "deploy", mandate.CallerCredential{Kind: mandate.CredentialCertificate, Certificate: "aa"}); err != nil {
		t.Error(err)
	}
	if after := epochOf(t, db); after != before+2 {
		t.Errorf("the epoch went from %d to %d by two changes", before, after)
	}
	db.Close()
	s, _ = running(t, cfg)
	all, _, err := s.Registered()
	if err != nil || len(all) != 1 || len(all[0].Credentials) != 3 {
		t.Fatalf("Registered: %+v, %v", all, err)
	}
	got := all[0].Clone()
	for i, c := range got.Credentials {
		if c.Kind == mandate.CredentialCertificate {
			got.Credentials = append(got.Credentials[:i], got.Credentials[i+1:]...)
			break
		}
	}
	if got.Credentials[0].Kind != mandate.CredentialWorkload {
		got.Credentials[0], got.Credentials[1] = got.Credentials[1], got.Credentials[0]
	}
	if got.Binding.Customer != want.Binding.Customer {
		t.Errorf("got binding %+v, want %+v", got.Binding, want.Binding)
	}
	got.Binding.Customer, want.Binding.Customer = mandate.TenantID{}, mandate.TenantID{}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for _, bad := range []mandate.Caller{
		{ID: "a:b", Credentials: in.Credentials}, {ID: "x"}, {ID: "x", Credentials: []mandate.CallerCredential{{Kind: "password"}}},
		{ID: "x", Credentials: in.Credentials, Binding: mandate.Binding{Purpose: "a b"}},
		{ID: "x", Credentials: []mandate.CallerCredential{{Kind: mandate.CredentialSecret, Expires: time.Now().Add(-time.Hour)}}},
	} {
		if _, _, err := s.Register(ctx, bad); !errors.Is(err, mandate.ErrInvalid) {
			t.Errorf("%+v: got error %v, want %v", bad, err, mandate.ErrInvalid)
		}
	}
	if err := s.RemoveCaller(ctx, "deploy"); err != nil {
		t.Fatal(err)
	}
	if all, _, _ := s.Registered(); len(all) != 0 {
		t.Errorf("after removal: %+v", all)
	}
}

// replicas returns two stores in one database, and that of the first; on SQLite
// they are the same.
func replicas(t *testing.T, cfg database.Config) (a, b *Store, db *database.DB) {
	a, db = running(t, cfg)
	b = a
	if cfg.URL != "" {
		b, _ = running(t, cfg)
	}
	return a, b, db
}

// oneTakes shows two replicas the same at the same time: one takes it, and the
// other refuses.
func oneTakes(t *testing.T, a, b *Store, take func(*Store) error) {
	t.Helper()
	results := make(chan error, 2)
	for _, s := range []*Store{a, b} {
		go func() { results <- take(s) }()
	}
	one, other := <-results, <-results
	if (one == nil) == (other == nil) || !errors.Is(errors.Join(one, other), mandate.ErrUnauthenticated) {
		t.Errorf("got %v and %v, want one of them refused", one, other)
	}
}

// Of two replicas that are shown the same assertion, one takes it.
func TestCallerAssertionOnceAcrossReplicas(t *testing.T) { each(t, testCallerAssertion) }

func testCallerAssertion(t *testing.T, cfg database.Config) {
	a, b, _ := replicas(t, cfg)
	ctx, end := t.Context(), time.Now().Add(time.Minute)
	oneTakes(t, a, b, func(s *Store) error { return s.UseAssertion(ctx, "deploy", "one", end) })
	if err := errors.Join(b.UseAssertion(ctx, "deploy", "two", end), a.UseAssertion(ctx, "other", "one", end)); err != nil {
		t.Errorf("another assertion: %v", err)
	}
	// What has ended long ago is forgotten; nothing else is.
	if err := a.SweepCallers(ctx, end.Add(30*time.Minute)); err != nil {
		t.Fatal(err)
	}
	if err := b.UseAssertion(ctx, "deploy", "one", end); !errors.Is(err, mandate.ErrUnauthenticated) {
		t.Errorf("after a sweep: got error %v", err)
	}
	if err := a.SweepCallers(ctx, end.Add(2*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := b.UseAssertion(ctx, "deploy", "one", end); err != nil {
		t.Errorf("long after: %v", err)
	}
}

// Of two replicas that are shown the same nonce, one takes it. Anybody may begin
// sign-ins without end: nothing is kept of them.
func TestOperatorNonceOnceAcrossReplicas(t *testing.T) { each(t, testOperatorNonce) }

func testOperatorNonce(t *testing.T, cfg database.Config) {
	a, b, db := replicas(t, cfg)
	ctx, end := t.Context(), time.Now().Add(time.Minute)
	nonce, err := a.BeginSignIn(ctx, end)
	if err != nil {
		t.Fatal(err)
	}
	for range 2000 {
		if _, err := b.BeginSignIn(ctx, end); err != nil {
			t.Fatal(err)
		}
	}
	var kept int
	if err := db.QueryRow(ctx, `SELECT count(*) FROM operator_signins`).Scan(&kept); err != nil || kept != 0 {
		t.Errorf("of sign-ins that were begun %d rows are kept, %v", kept, err)
	}
	oneTakes(t, a, b, func(s *Store) error { return s.FinishSignIn(ctx, nonce) })
	if err := a.SweepCallers(ctx, end.Add(30*time.Minute)); err != nil {
		t.Fatal(err)
	}
	if err := b.FinishSignIn(ctx, nonce); !errors.Is(err, mandate.ErrUnauthenticated) {
		t.Errorf("after a sweep: got error %v", err)
	}
}

// A nonce that was not made here begins no session, nor does one with more time.
func TestOperatorNonceIsOurs(t *testing.T) {
	s, _ := openTest(t)
	nonce, err := s.BeginSignIn(t.Context(), time.Now().Add(-time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	good, err := base64.RawURLEncoding.DecodeString(nonce)
	if err != nil {
		t.Fatal(err)
	}
	longer := bytes.Clone(good)
	binary.BigEndian.PutUint64(longer[16:], uint64(time.Now().Add(time.Hour).UnixMilli()))
	unsealed := append(bytes.Clone(longer[:24]), make([]byte, 32)...)
	for what, b := range map[string][]byte{"that ended": good, "with more time": longer, "without a seal": unsealed, "cut": longer[:24], "empty": nil, "too long": append(bytes.Clone(good), 0)} {
		if err := s.FinishSignIn(t.Context(), base64.RawURLEncoding.EncodeToString(b)); !errors.Is(err, mandate.ErrUnauthenticated) {
			t.Errorf("one %s: got error %v", what, err)
		}
	}
	db, err := database.Open(t.Context(), database.Config{File: filepath.Join(t.TempDir(), "mandate.db"), Schemas: []database.Schema{Schema()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	unguarded, err := Open(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	if nonce, err := unguarded.BeginSignIn(t.Context(), time.Now().Add(time.Minute)); !errors.Is(err, mandate.ErrUnavailable) || nonce != "" {
		t.Errorf("without the key: got %q, %v", nonce, err)
	}
	if err := unguarded.FinishSignIn(t.Context(), base64.RawURLEncoding.EncodeToString(longer)); !errors.Is(err, mandate.ErrUnauthenticated) {
		t.Errorf("without the key: got error %v", err)
	}
}

func TestOperatorSessions(t *testing.T) { inBubbles(t, testOperatorSessions) }

func testOperatorSessions(t *testing.T, s *Store, _ *database.DB) {
	ctx := t.Context()
	nonce, err := s.BeginSignIn(ctx, time.Now().Add(10*time.Minute))
	if err != nil || len(nonce) != 75 {
		t.Fatal(nonce, err)
	}
	if err := s.FinishSignIn(ctx, nonce); err != nil {
		t.Fatal(err)
	}
	late, _ := s.BeginSignIn(ctx, time.Now().Add(10*time.Minute))
	in := Session{
		Issuer: "https://login.example/x", User: mandate.Identity{Tenant: contoso.Key.Partner, Object: mandate.ObjectID(tenant("cccccccc-0000-4000-8000-000000000001"))},
		UserName: "ana", Groups: []string{"g"}, SignedIn: time.Now().Truncate(time.Second), Created: time.Now().Truncate(time.Millisecond), Expires: time.Now().Add(time.Hour).Truncate(time.Millisecond),
	}
	secret, err := s.AddSession(ctx, in)
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Session(ctx, secret)
	if err != nil {
		t.Fatal(err)
	}
	if got.Issuer != in.Issuer || got.User != in.User || got.UserName != in.UserName || len(got.Groups) != 1 || !got.SignedIn.Equal(in.SignedIn) || !got.Expires.Equal(in.Expires) {
		t.Errorf("got %+v, want %+v", got, in)
	}
	time.Sleep(11 * time.Minute)
	for _, n := range []string{nonce, late, "", "other"} {
		if err := s.FinishSignIn(ctx, n); !errors.Is(err, mandate.ErrUnauthenticated) {
			t.Errorf("nonce %.5q: got error %v", n, err)
		}
	}
	other, _ := s.AddSession(ctx, in)
	if err := s.EndSession(ctx, other); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Minute)
	for _, secret := range []mandate.Secret{secret, other, mandate.NewSecret("mds_no"), mandate.NewSecret("")} {
		if _, err := s.Session(ctx, secret); !errors.Is(err, mandate.ErrUnauthenticated) {
			t.Errorf("got error %v, want %v", err, mandate.ErrUnauthenticated)
		}
	}
}
