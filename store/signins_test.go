package store

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

func invitation() Invitation {
	return Invitation{Partner: contoso, User: "ana@contoso.example", Term: 90 * 24 * time.Hour, Expires: time.Now().Add(24 * time.Hour), By: "uid:1000", Compromised: true}
}

func invite(t *testing.T, s *Store) (Invitation, mandate.Secret) {
	t.Helper()
	i, token, err := s.Invite(t.Context(), invitation())
	if err != nil {
		t.Fatal(err)
	}
	return i, token
}

func transaction(p Proof, invitation string) Transaction {
	return Transaction{
		ID: rand.Text(), Proof: p.Hash(), Kind: KindConsent, Partner: contoso, Invitation: invitation,
		Authority: "https://login.example", Issuer: "https://login.example/{tenantid}/v2.0", RedirectURI: "https://mandate.example/callback",
		User: "ana@contoso.example", Until: time.UnixMilli(1_800_000_000_000), Audiences: []mandate.Audience{"https://a.example", "https://b.example"},
	}
}

func begin(t *testing.T, s *Store, invitation string) (Transaction, Proof) {
	t.Helper()
	p := NewProof()
	tx, err := s.Begin(t.Context(), transaction(p, invitation))
	if err != nil {
		t.Fatal(err)
	}
	return tx, p
}

// refused fails the test unless err is a TransactionError for that reason.
func refused(t *testing.T, doing string, err error, reason TransactionReason) {
	t.Helper()
	var e *TransactionError
	if !errors.As(err, &e) || e.Reason != reason || !errors.Is(err, mandate.ErrNotFound) {
		t.Errorf("%s: got error %v, want it refused as %q", doing, err, reason)
	}
}

func TestInvitation(t *testing.T) { inBubbles(t, testInvitation) }

func testInvitation(t *testing.T, s *Store, _ *database.DB) {
	addPartners(t, s, contoso)
	ctx := t.Context()
	i, token := invite(t, s)
	if len(token.Reveal()) != 43 || i.ID == "" || strings.Contains(token.Reveal(), i.ID) {
		t.Errorf("got token of %d characters and ID %q", len(token.Reveal()), i.ID)
	}
	for range 2 { // looking changes nothing
		got, err := s.Invitation(ctx, token)
		if err != nil {
			t.Fatal(err)
		}
		same(t, "Invitation", got, i)
	}
	other, otherToken := invite(t, s)
	if token.Reveal() == otherToken.Reveal() {
		t.Error("two invitations have the same token")
	}
	all, err := s.Invitations(ctx, "contoso")
	if err != nil || len(all) != 2 {
		t.Fatalf("Invitations: got %d, %v, want 2", len(all), err)
	}
	if none, err := s.Invitations(ctx, "fabrikam"); err != nil || none != nil {
		t.Errorf("Invitations of another partner: got %v, %v", none, err)
	}
	time.Sleep(24 * time.Hour)
	got, err := s.InvitationByID(ctx, other.ID)
	var e *InvitationError
	if !errors.As(err, &e) || e.State != InvitationExpired || got.ID != other.ID {
		t.Errorf("got %v, error %v, want the invitation and that it has expired", got.ID, err)
	}
	for _, token := range []mandate.Secret{{}, mandate.NewSecret("x"), mandate.NewSecret(other.ID)} {
		if got, err := s.Invitation(ctx, token); !errors.As(err, &e) || e.State != InvitationUnknown || got.ID != "" || !errors.Is(err, mandate.ErrNotFound) {
			t.Errorf("got %v, error %v, want that it is unknown", got.ID, err)
		}
	}
}

func TestInviteRefuses(t *testing.T) { each(t, testInviteRefuses) }

func testInviteRefuses(t *testing.T, cfg database.Config) {
	s, _ := running(t, cfg)
	addPartners(t, s, contoso)
	for _, tt := range []struct {
		name   string
		change func(*Invitation)
		is     error
	}{
		{"no term", func(i *Invitation) { i.Term = 0 }, mandate.ErrInvalid},
		{"a term without end", func(i *Invitation) { i.Term = 367 * 24 * time.Hour }, mandate.ErrInvalid},
		{"no expiry", func(i *Invitation) { i.Expires = time.Time{} }, mandate.ErrInvalid},
		{"expired", func(i *Invitation) { i.Expires = time.Now().Add(-time.Second) }, mandate.ErrInvalid},
		{"a user of two lines", func(i *Invitation) { i.User = "a\nb" }, mandate.ErrInvalid},
		{"a long user", func(i *Invitation) { i.User = strings.Repeat("a", 257) }, mandate.ErrInvalid},
		{"by two lines", func(i *Invitation) { i.By = "a\nb" }, mandate.ErrInvalid},
		{"an unknown partner", func(i *Invitation) { i.Partner = fabrikam }, mandate.ErrUnknownPartner},
		{"another tenant", func(i *Invitation) { i.Partner.Key.Partner = fabrikam.Key.Partner }, mandate.ErrUnknownPartner},
		{"another application", func(i *Invitation) { i.Partner.Key.Application = app2 }, mandate.ErrUnknownPartner},
		{"another cloud", func(i *Invitation) { i.Partner.Key.Cloud = "emulator" }, mandate.ErrUnknownPartner},
	} {
		i := invitation()
		tt.change(&i)
		if _, token, err := s.Invite(t.Context(), i); !errors.Is(err, tt.is) || !token.IsZero() {
			t.Errorf("%s: got error %v, want %v and no token", tt.name, err, tt.is)
		}
	}
}

func TestSignIn(t *testing.T) { each(t, testSignIn) }

func testSignIn(t *testing.T, cfg database.Config) {
	s, _ := running(t, cfg)
	addPartners(t, s, contoso)
	ctx := t.Context()
	i, token := invite(t, s)
	tx, p := begin(t, s, i.ID)
	if tx.Expires.Sub(tx.Began) != TransactionLife || time.Since(tx.Began) > time.Minute {
		t.Errorf("began %v, expires %v, want now and ten minutes later", tx.Began, tx.Expires)
	}
	_, _, err := s.Result(ctx, tx.ID, p)
	refused(t, "Result before the answer", err, TransactionUnfinished)
	if err := s.Finish(ctx, tx.ID, Outcome{Generation: 1}); err == nil {
		t.Error("a sign-in was finished that was not consumed")
	}
	_, err = s.Consume(ctx, tx.ID, NewProof())
	refused(t, "Consume with another proof", err, TransactionProof)
	_, err = s.Consume(ctx, tx.ID, Proof{})
	refused(t, "Consume without a proof", err, TransactionProof)
	_, err = s.Consume(ctx, rand.Text(), p)
	refused(t, "Consume of another ID", err, TransactionUnknown)
	got, err := s.Consume(ctx, tx.ID, p)
	if err != nil {
		t.Fatalf("Consume after wrong proofs: %v", err)
	}
	tx.Compromised = true // as the invitation
	same(t, "Consume", got, tx)
	_, err = s.Consume(ctx, tx.ID, p)
	refused(t, "second Consume", err, TransactionUsed)
	_, err = s.Consume(ctx, tx.ID, NewProof())
	refused(t, "second Consume with another proof", err, TransactionProof)

	refusal := Outcome{Reason: mandate.ReasonMFA, Detail: json.RawMessage(`{"code":50076}`), Receipt: mandate.Receipt{Index: 3, Hash: "ab"}}
	if err := s.Finish(ctx, tx.ID, refusal); err != nil {
		t.Fatal(err)
	}
	if err := s.Finish(ctx, tx.ID, Outcome{Generation: 1}); err == nil {
		t.Error("a sign-in was finished twice")
	}
	for range 2 {
		tx2, o, err := s.Result(ctx, tx.ID, p)
		if err != nil {
			t.Fatal(err)
		}
		same(t, "Result", tx2, tx)
		same(t, "Outcome", o, refusal)
	}
	_, _, err = s.Result(ctx, tx.ID, NewProof())
	refused(t, "Result with another proof", err, TransactionProof)
	if _, err := s.Invitation(ctx, token); err != nil {
		t.Errorf("the invitation after a refusal: %v, want it open", err)
	}

	// The next attempt succeeds, while a third is under way.
	tx, p = begin(t, s, i.ID)
	late, lateProof := begin(t, s, i.ID)
	beside, besideProof := begin(t, s, i.ID)
	for id, p := range map[string]Proof{tx.ID: p, beside.ID: besideProof} {
		if _, err := s.Consume(ctx, id, p); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Finish(ctx, tx.ID, Outcome{Generation: 7}); err != nil {
		t.Fatal(err)
	}
	if err := s.Finish(ctx, beside.ID, Outcome{Generation: 8}); err != nil {
		t.Errorf("Finish of a sign-in that came back before the invitation was used: %v", err)
	}
	used, err := s.Invitation(ctx, token)
	var e *InvitationError
	if !errors.As(err, &e) || e.State != InvitationUsed || used.Generation != 7 || used.Used.IsZero() {
		t.Errorf("the invitation after a consent: %+v, %v, want it used by generation 7", used, err)
	}
	_, err = s.Consume(ctx, late.ID, lateProof)
	refused(t, "Consume when another sign-in used the invitation", err, TransactionInvitation)
}

func TestBeginRefuses(t *testing.T) { each(t, testBeginRefuses) }

func testBeginRefuses(t *testing.T, cfg database.Config) {
	s, _ := running(t, cfg)
	addPartners(t, s, contoso)
	for _, tt := range []struct {
		name   string
		change func(*Transaction)
		is     error
	}{
		{"no ID", func(x *Transaction) { x.ID = "" }, mandate.ErrInvalid},
		{"a short ID", func(x *Transaction) { x.ID = "abc" }, mandate.ErrInvalid},
		{"a long ID", func(x *Transaction) { x.ID = strings.Repeat("a", 65) }, mandate.ErrInvalid},
		{"an ID that is no cookie's name", func(x *Transaction) { x.ID = "aaaaaaaaaaaaaaaa;" }, mandate.ErrInvalid},
		{"no proof", func(x *Transaction) { x.Proof = [sha256.Size]byte{} }, mandate.ErrInvalid},
		{"no kind", func(x *Transaction) { x.Kind = "" }, mandate.ErrInvalid},
		{"no authority", func(x *Transaction) { x.Authority = "" }, mandate.ErrInvalid},
		{"no issuer", func(x *Transaction) { x.Issuer = "" }, mandate.ErrInvalid},
		{"no redirect URI", func(x *Transaction) { x.RedirectURI = "" }, mandate.ErrInvalid},
		{"over ten minutes", func(x *Transaction) { x.Expires = time.Now().Add(11 * time.Minute) }, mandate.ErrInvalid},
		{"expired", func(x *Transaction) { x.Began = time.Now().Add(-time.Hour) }, mandate.ErrInvalid},
		{"an unknown partner", func(x *Transaction) { x.Partner = fabrikam }, mandate.ErrUnknownPartner},
		{"another application", func(x *Transaction) { x.Partner.Key.Application = app2 }, mandate.ErrUnknownPartner},
	} {
		x := transaction(NewProof(), "")
		tt.change(&x)
		if _, err := s.Begin(t.Context(), x); !errors.Is(err, tt.is) {
			t.Errorf("%s: got error %v, want %v", tt.name, err, tt.is)
		}
	}
}

func TestSignInExpires(t *testing.T) { inBubbles(t, testSignInExpires) }

func testSignInExpires(t *testing.T, s *Store, db *database.DB) {
	addPartners(t, s, contoso)
	ctx := t.Context()
	i, _ := invite(t, s)
	early, earlyProof := begin(t, s, i.ID)
	late, lateProof := begin(t, s, i.ID)
	time.Sleep(TransactionLife - time.Millisecond)
	if _, err := s.Consume(ctx, early.ID, earlyProof); err != nil {
		t.Errorf("just before the end: %v", err)
	}
	time.Sleep(time.Millisecond)
	_, err := s.Consume(ctx, late.ID, lateProof)
	refused(t, "at the end", err, TransactionExpired)
	if err := s.Finish(ctx, early.ID, Outcome{Generation: 1}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(ResultLife - time.Second)
	if _, _, err := s.Result(ctx, early.ID, earlyProof); err != nil {
		t.Errorf("a result of almost an hour: %v", err)
	}
	time.Sleep(time.Second)
	_, _, err = s.Result(ctx, early.ID, earlyProof)
	refused(t, "a result of an hour", err, TransactionUnknown)
	begin(t, s, "")
	var n int
	if err := db.QueryRow(ctx, `SELECT count(*) FROM sign_ins`).Scan(&n); err != nil || n != 1 {
		t.Errorf("%d sign-ins are kept (error %v), want only the one that was just begun", n, err)
	}
}

func TestPending(t *testing.T) { inBubbles(t, testPending) }

func testPending(t *testing.T, s *Store, _ *database.DB) {
	addPartners(t, s, contoso)
	i, _ := invite(t, s)
	pending := func(want ...string) {
		t.Helper()
		got, err := s.Pending(t.Context(), i.ID)
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, x := range got {
			ids = append(ids, x.ID)
		}
		same(t, "Pending", ids, want)
	}
	pending()
	first, _ := begin(t, s, i.ID)
	begin(t, s, "another")
	time.Sleep(time.Second)
	second, p := begin(t, s, i.ID)
	time.Sleep(time.Second)
	pending(second.ID, first.ID)
	if _, err := s.Consume(t.Context(), second.ID, p); err != nil {
		t.Fatal(err)
	}
	pending() // the person came back since the first one
	third, _ := begin(t, s, i.ID)
	time.Sleep(TransactionLife)
	pending(third.ID) // expired, and still not finished
	time.Sleep(ResultLife)
	pending()
}

func TestSignInsAreBounded(t *testing.T) { inBubbles(t, testSignInsAreBounded) }

func testSignInsAreBounded(t *testing.T, s *Store, _ *database.DB) {
	if s.maxPending != 10_000 || s.maxPerInvitation != 20 {
		t.Errorf("bounds are %d and %d, want 10000 and 20", s.maxPending, s.maxPerInvitation)
	}
	s.maxPending, s.maxPerInvitation = 5, 2
	addPartners(t, s, contoso)
	refused := func(invitation string) {
		t.Helper()
		if _, err := s.Begin(t.Context(), transaction(NewProof(), invitation)); !errors.Is(err, mandate.ErrRateLimited) {
			t.Errorf("got error %v, want %v", err, mandate.ErrRateLimited)
		}
	}
	x, p := begin(t, s, "one")
	begin(t, s, "one")
	refused("one")
	begin(t, s, "") // not of an invitation: only the other bound counts
	begin(t, s, "")
	begin(t, s, "")
	refused("two")
	if _, err := s.Consume(t.Context(), x.ID, p); err != nil {
		t.Fatal(err)
	}
	begin(t, s, "one")
	refused("one")
	time.Sleep(TransactionLife)
	begin(t, s, "one")
}

func TestOneConsumerWins(t *testing.T) { each(t, testOneConsumerWins) }

func testOneConsumerWins(t *testing.T, cfg database.Config) {
	s, _ := running(t, cfg)
	addPartners(t, s, contoso)
	x, p := begin(t, s, "")
	var errs [16]error
	var all sync.WaitGroup
	for n := range errs {
		all.Go(func() { _, errs[n] = s.Consume(t.Context(), x.ID, p) })
	}
	all.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else {
			refused(t, "Consume", err, TransactionUsed)
		}
	}
	if won != 1 {
		t.Errorf("%d consumers won, want 1", won)
	}
}

// TestStrangeIDs: what no database stores is not known, and no failure.
func TestStrangeIDs(t *testing.T) {
	each(t, func(t *testing.T, cfg database.Config) {
		s, _ := running(t, cfg)
		ctx, p := t.Context(), NewProof()
		for _, id := range []string{"", "a\x00b", "\xff", "a b", strings.Repeat("x", 5000)} {
			_, consume := s.Consume(ctx, id, p)
			_, _, result := s.Result(ctx, id, p)
			_, invitation := s.InvitationByID(ctx, id)
			_, partner := s.Partner(id)
			for name, err := range map[string]error{"Consume": consume, "Result": result, "InvitationByID": invitation,
				"Finish": s.Finish(ctx, id, Outcome{}), "RemoveCaller": s.RemoveCaller(ctx, mandate.CallerID(id)), "Partner": partner} {
				if !errors.Is(err, mandate.ErrNotFound) && !errors.Is(err, mandate.ErrUnknownPartner) {
					t.Errorf("%s(%.20q): got error %v, want that it is not known", name, id, err)
				}
			}
			if all, err := s.Invitations(ctx, id); err != nil || len(all) > 0 {
				t.Errorf("Invitations(%.20q): got %d, error %v; want none", id, len(all), err)
			}
		}
	})
}
