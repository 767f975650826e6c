package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

const ada, ben = "https://issuer ada", "https://issuer ben"

func wants(caller mandate.CallerID, ticket string) mandate.Approval {
	req := mandate.Request{Caller: caller, Use: mandate.UseToken, Partner: contoso, Tenant: contoso.Key.Partner, Audience: "https://graph.microsoft.com", Purpose: "support", Ticket: ticket}
	return mandate.NewApproval(mandate.AskedBy("two", &req), time.Hour)
}

// inBubble runs a test with an empty store in SQLite, which needs no watching,
// and with a clock of its own.
func inBubble(t *testing.T, test func(t *testing.T, s *Store, db *database.DB)) {
	synctest.Test(t, func(t *testing.T) {
		s, db := openTest(t)
		test(t, s, db)
	})
}

func TestApprovals(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Store, db *database.DB) {
		if _, _, err := s.Register(t.Context(), mandate.Caller{ID: "billing", Owner: ada, Credentials: []mandate.CallerCredential{{Kind: mandate.CredentialSecret}}}); err != nil {
			t.Fatal(err)
		}
		a := wants("billing", "INC-1")
		before := epochOf(t, db)
		if err := s.Ask(t.Context(), a); err != nil || epochOf(t, db) == before {
			t.Fatalf("%v, epoch %d", err, before)
		}
		before = epochOf(t, db)
		var first *mandate.AskedError
		if err := s.Ask(t.Context(), wants("billing", "INC-1")); !errors.As(err, &first) || first.Approval.ID != a.ID || !errors.Is(err, mandate.ErrExists) || epochOf(t, db) != before {
			t.Errorf("the same again: %v, epoch %d", err, before)
		}
		got, err := s.Approval(a.Digest())
		if err != nil || got == nil || got.ID != a.ID || got.State != mandate.ApprovalWanted || got.Ticket != "INC-1" || got.GivenAt(time.Now()) {
			t.Fatalf("got %+v, %v", got, err)
		}
		other := wants("billing", "INC-2")
		if got, err := s.Approval(other.Digest()); got != nil || err != nil {
			t.Errorf("another ticket: %+v, %v", got, err)
		}
		if err := s.UseApproval(t.Context(), a.ID); !errors.Is(err, mandate.ErrNotFound) {
			t.Errorf("used before it is given: %v", err)
		}
		if err := s.Decide(t.Context(), a.ID, mandate.ApprovalGiven, "oid:ada", ada); !errors.Is(err, mandate.ErrDenied) {
			t.Errorf("given by the owner: %v", err)
		}
		time.Sleep(20 * time.Hour)
		before = epochOf(t, db)
		if err := s.Decide(t.Context(), a.ID, mandate.ApprovalGiven, "oid:ben", ben); err != nil || epochOf(t, db) == before {
			t.Fatal(err)
		}
		if err := s.Decide(t.Context(), a.ID, mandate.ApprovalRefused, "oid:eve", "https://issuer eve"); !errors.Is(err, mandate.ErrExists) || !strings.Contains(err.Error(), "oid:ben") {
			t.Errorf("decided again: %v", err)
		}
		got, err = s.Approval(a.Digest())
		if err != nil || !got.GivenAt(time.Now()) || got.By != "oid:ben" || got.Decider != ben || !got.Expires.Equal(got.Decided.Add(time.Hour)) {
			t.Fatalf("given: %+v, %v", got, err)
		}
		time.Sleep(time.Hour - time.Millisecond)
		if got, err := s.Approval(a.Digest()); err != nil || !got.GivenAt(time.Now()) {
			t.Errorf("just before its end: %+v, %v", got, err)
		}
		time.Sleep(time.Millisecond)
		if got, err := s.Approval(a.Digest()); got != nil || err != nil {
			t.Errorf("after its end: %+v, %v", got, err)
		}
		if all, err := s.Approvals(); len(all) != 0 || err != nil {
			t.Errorf("list after its end: %+v, %v", all, err)
		}
		if err := s.WithdrawApproval(t.Context(), a.ID); !errors.Is(err, mandate.ErrNotFound) {
			t.Errorf("withdrawn after its end: %v", err)
		}
		if err := s.Ask(t.Context(), wants("billing", "INC-1")); err != nil {
			t.Errorf("asked again after its end: %v", err)
		}
		var n int64
		if err := db.QueryRow(t.Context(), `SELECT count(*) FROM approvals`).Scan(&n); err != nil || n != 1 {
			t.Errorf("%d rows are kept, %v", n, err)
		}
	})
}

// What is said of one approval is said of no other, and who may say it is
// looked up for the very one.
func TestApprovalAmongOthers(t *testing.T) {
	each(t, func(t *testing.T, cfg database.Config) {
		s, _ := running(t, cfg)
		for id, owner := range map[mandate.CallerID]string{"billing": ada, "reports": ben} {
			if _, _, err := s.Register(t.Context(), mandate.Caller{ID: id, Owner: owner, Credentials: []mandate.CallerCredential{{Kind: mandate.CredentialSecret}}}); err != nil {
				t.Fatal(err)
			}
		}
		hers, his, third, fourth := wants("billing", "A"), wants("reports", "B"), wants("reports", "C"), wants("reports", "D")
		for _, a := range []mandate.Approval{hers, his, third, fourth} {
			if err := s.Ask(t.Context(), a); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Decide(t.Context(), hers.ID, mandate.ApprovalGiven, "oid:ada", ada); !errors.Is(err, mandate.ErrDenied) {
			t.Errorf("given for her own caller: %v", err)
		}
		if err := s.Decide(t.Context(), his.ID, mandate.ApprovalGiven, "oid:ada", ada); err != nil {
			t.Errorf("given for another's: %v", err)
		}
		if err := s.Decide(t.Context(), fourth.ID, mandate.ApprovalRefused, "oid:ada", ada); err != nil {
			t.Error(err)
		}
		stand := func(want ...mandate.ApprovalState) {
			t.Helper()
			for i, a := range []mandate.Approval{hers, his, third, fourth} {
				var state mandate.ApprovalState
				got, err := s.Approval(a.Digest())
				if got != nil {
					state = got.State
				}
				if err != nil || state != want[i] {
					t.Errorf("%s is %q, %v, want %q", a.Ticket, state, err, want[i])
				}
			}
		}
		stand(mandate.ApprovalWanted, mandate.ApprovalGiven, mandate.ApprovalWanted, mandate.ApprovalRefused)
		if all, err := s.Approvals(); err != nil || len(all) != 4 {
			t.Errorf("list: %+v, %v", all, err)
		}
		if err := s.UseApproval(t.Context(), his.ID); err != nil {
			t.Error(err)
		}
		stand(mandate.ApprovalWanted, "", mandate.ApprovalWanted, mandate.ApprovalRefused)
		if err := s.WithdrawApproval(t.Context(), third.ID); err != nil {
			t.Error(err)
		}
		stand(mandate.ApprovalWanted, "", "", mandate.ApprovalRefused)
	})
}

// What was asked and not decided ends by itself; what was refused holds until
// then; what is withdrawn is gone, and so is all of a caller that is removed.
func TestApprovalsEnd(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Store, db *database.DB) {
		a, b := wants("uid:1", "A"), wants("uid:1", "B")
		for _, one := range []mandate.Approval{a, b} {
			if err := s.Ask(t.Context(), one); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Decide(t.Context(), a.ID, mandate.ApprovalRefused, "uid:1", "uid:1"); err != nil {
			t.Errorf("refused by who asks: %v", err)
		}
		if err := s.UseApproval(t.Context(), a.ID); !errors.Is(err, mandate.ErrNotFound) {
			t.Errorf("used what was refused: %v", err)
		}
		if err := s.WithdrawApproval(t.Context(), b.ID); err != nil {
			t.Error(err)
		}
		if got, _ := s.Approval(b.Digest()); got != nil {
			t.Errorf("withdrawn: %+v", got)
		}
		time.Sleep(mandate.MaxApproval - time.Millisecond)
		if got, _ := s.Approval(a.Digest()); got == nil || got.State != mandate.ApprovalRefused {
			t.Errorf("refused: %+v", got)
		}
		time.Sleep(time.Millisecond)
		if got, _ := s.Approval(a.Digest()); got != nil {
			t.Errorf("a day later: %+v", got)
		}
		if err := s.Decide(t.Context(), a.ID, mandate.ApprovalGiven, "uid:2", "uid:2"); !errors.Is(err, mandate.ErrNotFound) {
			t.Errorf("given a day later: %v", err)
		}
		if _, _, err := s.Register(t.Context(), mandate.Caller{ID: "billing", Owner: ada, Credentials: []mandate.CallerCredential{{Kind: mandate.CredentialSecret}}}); err != nil {
			t.Fatal(err)
		}
		adopted := wants("billing", "D")
		if err := errors.Join(s.Ask(t.Context(), adopted), s.Decide(t.Context(), adopted.ID, mandate.ApprovalGiven, "oid:ben", ben), s.AdoptCaller(t.Context(), "billing", ben)); err != nil {
			t.Fatal(err)
		}
		if got, _ := s.Approval(adopted.Digest()); got != nil {
			t.Errorf("given by who owns the caller now: %+v", got)
		}
		all, err := s.Callers()
		if err != nil || len(all) != 1 || all[0].Owner != ben {
			t.Errorf("adopted: %+v, %v", all, err)
		}
		if err := errors.Join(s.AdoptCaller(t.Context(), "nobody", ben), s.AdoptCaller(t.Context(), "billing", "")); !errors.Is(err, mandate.ErrNotFound) || !errors.Is(err, mandate.ErrInvalid) {
			t.Errorf("a caller that is not there, and no owner: %v", err)
		}
		c := wants("billing", "C")
		if err := errors.Join(s.Ask(t.Context(), c), s.RemoveCaller(t.Context(), "billing")); err != nil {
			t.Fatal(err)
		}
		if got, _ := s.Approval(c.Digest()); got != nil {
			t.Errorf("of a caller that was removed: %+v", got)
		}
	})
}

// deaf has not heard of what is asked, as a replica has not of what another was
// asked a moment ago.
type deaf struct{ *Store }

func (deaf) Approval(string) (*mandate.Approval, error) { return nil, nil }

// memory is an audit log.
type memory struct {
	mu    sync.Mutex // guards kinds
	kinds map[string]int
}

func (m *memory) Record(_ context.Context, r mandate.Record) (mandate.Receipt, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.kinds[r.Kind]++
	return mandate.Receipt{}, nil
}

// Of all who ask the same at once, at two replicas, one asks, and all get its
// approval.
func TestApprovalIsAskedAtOnce(t *testing.T) {
	each(t, func(t *testing.T, cfg database.Config) {
		s, db := running(t, cfg)
		other, otherDB := s, db
		var err error
		if cfg.URL != "" {
			other, otherDB = running(t, cfg)
		} else if other, err = Open(t.Context(), db); err != nil {
			t.Fatal(err)
		}
		log := memory{kinds: make(map[string]int)}
		before := epochOf(t, db)
		var ids [8]string
		var wg sync.WaitGroup
		for i := range ids {
			in, epoch := deaf{s}, db
			if i%2 == 1 {
				in, epoch = deaf{other}, otherDB
			}
			wg.Go(func() {
				if a, err := mandate.Ask(t.Context(), in, nil, &log, epoch, wants("billing", "A"), mandate.Record{}); err != nil {
					t.Error(err)
				} else {
					ids[i] = a.ID
				}
			})
		}
		wg.Wait()
		all, err := s.Approvals()
		if err != nil || len(all) != 1 || ids != [8]string(slices.Repeat([]string{all[0].ID}, len(ids))) {
			t.Errorf("got %v; asked %+v, %v", ids, all, err)
		}
		if now := epochOf(t, db); now > before+1 {
			t.Errorf("the epoch went from %d to %d", before, now)
		}
		if log.kinds[mandate.KindChanged] != len(ids) || log.kinds[mandate.KindFailed] != len(ids)-1 {
			t.Errorf("recorded %v", log.kinds)
		}
	})
}

// However many use a yes at once, one does.
func TestApprovalIsUsedOnce(t *testing.T) {
	each(t, func(t *testing.T, cfg database.Config) {
		s, _ := running(t, cfg)
		a := wants("uid:1", "A")
		if err := errors.Join(s.Ask(t.Context(), a), s.Decide(t.Context(), a.ID, mandate.ApprovalGiven, "uid:2", "uid:2")); err != nil {
			t.Fatal(err)
		}
		var used atomic.Int64
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				switch err := s.UseApproval(t.Context(), a.ID); {
				case err == nil:
					used.Add(1)
				case !errors.Is(err, mandate.ErrNotFound):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := used.Load(); n != 1 {
			t.Errorf("used %d times", n)
		}
	})
}

// Nobody makes replicas decide everything anew, or people read, without end.
func TestApprovalsAreBounded(t *testing.T) {
	s, db := openTest(t)
	for n := range maxAsked {
		if err := s.Ask(t.Context(), wants("a", fmt.Sprint(n))); err != nil {
			t.Fatal(err)
		}
	}
	before := epochOf(t, db)
	if err := s.Ask(t.Context(), wants("a", "more")); !errors.Is(err, mandate.ErrRateLimited) || epochOf(t, db) != before {
		t.Errorf("one more: %v", err)
	}
	var first *mandate.AskedError
	if err := s.Ask(t.Context(), wants("a", "0")); !errors.As(err, &first) {
		t.Errorf("what is asked already: %v", err)
	}
	if err := s.Ask(t.Context(), wants("b", "0")); err != nil {
		t.Errorf("another caller: %v", err)
	}
	if err := db.Change(t.Context(), func(tx *database.Tx) error {
		for n := range maxAll {
			a := wants(mandate.CallerID(fmt.Sprint("c", n)), "")
			if _, err := tx.Exec(t.Context(), `INSERT INTO approvals (id, digest, caller, asked, state, wanted, expires, lasts, requester, decided_by, decider)
				SELECT $1, $2, $3, '{"caller":"' || $3 || '"}', state, wanted, expires, lasts, requester, '', '' FROM approvals WHERE caller = 'b'`, a.ID, (&mandate.Asked{Caller: a.Caller}).Digest(), string(a.Caller)); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.Ask(t.Context(), wants("b", "1")); !errors.Is(err, mandate.ErrRateLimited) {
		t.Errorf("one more of all: %v", err)
	}
}

// A yes for something else than its digest says is not taken for either.
func TestApprovalOfAnotherDigest(t *testing.T) {
	s, db := openTest(t)
	a := wants("uid:1", "A")
	if err := s.Ask(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if err := db.Change(t.Context(), func(tx *database.Tx) error {
		_, err := tx.Exec(t.Context(), `UPDATE approvals SET asked = replace(asked, 'support', 'other')`)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Approval(a.Digest()); !errors.Is(err, mandate.ErrUnavailable) || !strings.Contains(err.Error(), a.ID) {
		t.Errorf("got %+v, %v", got, err)
	}
}

// A yes that somebody writes into the database is none.
func TestDatabaseWriterApproval(t *testing.T) {
	each(t, func(t *testing.T, cfg database.Config) {
		s, db := running(t, cfg)
		a := wants("uid:1", "A")
		if err := s.Ask(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		if _, err := db.Exec(t.Context(), `UPDATE approvals SET state = 'given', decided = wanted, decided_by = 'uid:2', decider = 'uid:2' WHERE id = $1`, a.ID); err != nil {
			t.Fatal(err)
		}
		err := db.View(t.Context(), func(tx *database.Tx) error { return db.Verify(t.Context(), tx) })
		if !errors.Is(err, database.ErrAltered) || !strings.Contains(err.Error(), a.ID) {
			t.Errorf("got %v", err)
		}
		for _, ticket := range []string{"A", "B"} {
			if err := s.Ask(t.Context(), wants("uid:1", ticket)); !errors.Is(err, database.ErrAltered) || !errors.Is(err, mandate.ErrUnavailable) {
				t.Errorf("a change: %v", err)
			}
		}
		_ = db.Change(t.Context(), func(*database.Tx) error { return nil })
		if got, err := s.Approval(a.Digest()); got.GivenAt(time.Now()) {
			t.Errorf("got %+v, %v", got, err)
		}
		// For the check at the end of each test.
		if _, err := db.Exec(t.Context(), `UPDATE approvals SET state = 'wanted', decided = NULL, decided_by = '', decider = '' WHERE id = $1`, a.ID); err != nil {
			t.Fatal(err)
		}
	})
}
