package database

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestChangeRaisesTheEpoch(t *testing.T) { each(t, testChangeRaisesTheEpoch) }

func testChangeRaisesTheEpoch(t *testing.T, cfg Config) {
	d, ctx := running(t, cfg), t.Context()
	first := epochOf(t, d)
	if first < 1 {
		t.Errorf("the first epoch is %d, want at least 1", first)
	}
	if err := d.Change(ctx, func(tx *Tx) error { return insert(ctx, tx, 1) }); err != nil {
		t.Fatal(err)
	}
	if got := epochOf(t, d); got != first+1 {
		t.Errorf("epoch %d after a change, want %d", got, first+1)
	}
	sorry := errors.New("sorry")
	if err := d.Change(ctx, func(tx *Tx) error { return errors.Join(insert(ctx, tx, 2), sorry) }); !errors.Is(err, sorry) {
		t.Errorf("got error %v, want the function's", err)
	}
	func() {
		defer func() { recover() }()
		d.Change(ctx, func(tx *Tx) error { panic("sorry") })
	}()
	if got := epochOf(t, d); got != first+1 || count(t, d) != 1 {
		t.Errorf("epoch %d and %d rows after changes that failed, want %d and 1", got, count(t, d), first+1)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if got := epochOf(t, running(t, cfg)); got != first+1 {
		t.Errorf("epoch %d after opening again, want %d", got, first+1)
	}
}

func TestEpochIsMonotonicAndVisible(t *testing.T) { each(t, testEpochIsMonotonicAndVisible) }

// Whoever's change has returned sees it.
func testEpochIsMonotonicAndVisible(t *testing.T, cfg Config) {
	d, ctx := running(t, cfg), t.Context()
	first := epochOf(t, d)
	const workers, rounds = 4, 25
	var changing, watching sync.WaitGroup
	done := make(chan struct{})
	watching.Go(func() {
		last := first
		for {
			select {
			case <-done:
				return
			default:
			}
			now, err := d.Epoch()
			if now < last && err == nil || err != nil && !errors.Is(err, ErrCutOff) {
				t.Errorf("epoch %d after %d (error %v)", now, last, err)
				return
			}
			last = max(last, now)
		}
	})
	for range workers {
		changing.Go(func() {
			for range rounds {
				var mine int64
				err := d.Change(ctx, func(tx *Tx) error { return tx.QueryRow(ctx, `SELECT epoch FROM head`).Scan(&mine) })
				if now := d.epoch.Load(); err != nil || now < mine {
					t.Errorf("a change to epoch %d returned (error %v), and the epoch is %d", mine, err, now)
				}
			}
		})
	}
	changing.Wait()
	close(done)
	watching.Wait()
	if got := epochOf(t, d); got != first+workers*rounds {
		t.Errorf("epoch %d after %d changes from %d", got, workers*rounds, first)
	}
}

// TestFailedCommitLeavesTheEpochInDoubt breaks a constraint that is only
// looked at by the commit itself.
func TestFailedCommitLeavesTheEpochInDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, ctx := openTest(t), t.Context()
		before := epochOf(t, d)
		leave := make(chan struct{})
		err := d.Change(ctx, func(tx *Tx) error {
			// Another writer queues behind this one, so that the doubt can be
			// seen before it is settled.
			go d.Tx(ctx, func(*Tx) error { <-leave; return nil })
			synctest.Wait()
			_, err := tx.Exec(ctx, `INSERT INTO tags (note) VALUES (77)`)
			return err
		})
		if err == nil || !strings.Contains(err.Error(), "commit") {
			t.Fatalf("got error %v, want one from the commit", err)
		}
		if _, err := d.Epoch(); !errors.Is(err, ErrUnknownEpoch) {
			t.Errorf("Epoch after a failed commit: got error %v, want %v", err, ErrUnknownEpoch)
		}
		close(leave)
		synctest.Wait()
		if got := epochOf(t, d); got != before {
			t.Errorf("epoch %d, want %d: the change was not stored", got, before)
		}
		if err := d.Change(ctx, func(tx *Tx) error { return insert(ctx, tx, 1) }); err != nil {
			t.Errorf("a change after a failed commit: %v", err)
		}
		if got := epochOf(t, d); got != before+1 {
			t.Errorf("epoch %d, want %d", got, before+1)
		}
	})
}

// TestDoubtIsSettledLater: a database that cannot be read now is read again.
func TestDoubtIsSettledLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, ctx := openTest(t), t.Context()
		if _, err := d.Exec(ctx, `ALTER TABLE head RENAME TO away`); err != nil {
			t.Fatal(err)
		}
		d.doubtEpoch()
		time.Sleep(10 * settleEvery)
		if _, err := d.Epoch(); !errors.Is(err, ErrUnknownEpoch) {
			t.Errorf("got error %v, want %v", err, ErrUnknownEpoch)
		}
		if _, err := d.Exec(ctx, `ALTER TABLE away RENAME TO head`); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * settleEvery)
		epochOf(t, d)
	})
}

// TestCommitThatOnlyLookedFailed: the outcome is what the database says.
func TestCommitThatOnlyLookedFailed(t *testing.T) {
	d, ctx := openTest(t), t.Context()
	before := epochOf(t, d)
	if _, err := d.Exec(ctx, `UPDATE head SET epoch = epoch + 1`); err != nil {
		t.Fatal(err)
	}
	d.doubt.Store(&errUnknown)
	if err := d.reread(ctx); err != nil {
		t.Fatal(err)
	}
	if got := epochOf(t, d); got != before+1 {
		t.Errorf("epoch %d, want the stored one, %d", got, before+1)
	}
}

func TestDatabaseThatWentBack(t *testing.T) { each(t, testDatabaseThatWentBack) }

func testDatabaseThatWentBack(t *testing.T, cfg Config) {
	notices := map[string]func(context.Context, *DB) error{
		"by a change": func(ctx context.Context, d *DB) error {
			return d.Change(ctx, func(tx *Tx) error { return insert(ctx, tx, 1) })
		},
		"by reading anew": func(ctx context.Context, d *DB) error {
			d.doubtEpoch()
			d.working.Wait()
			_, err := d.Epoch()
			return err
		},
	}
	if cfg.URL != "" {
		notices["by polling"] = func(ctx context.Context, d *DB) error { return d.readEpoch(ctx, patience) }
	}
	for name, notice := range notices {
		t.Run(name, func(t *testing.T) {
			d, ctx := open(t, another(t, cfg), notes()), t.Context()
			for range 3 {
				if err := d.Change(ctx, func(*Tx) error { return nil }); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := d.Exec(ctx, `UPDATE head SET epoch = 2`); err != nil {
				t.Fatal(err)
			}
			if err := notice(ctx, d); !errors.Is(err, ErrWentBack) || !strings.Contains(err.Error(), "from epoch 4 to 2") {
				t.Errorf("got error %v, want %v, from epoch 4 to 2", err, ErrWentBack)
			}
			if _, err := d.Epoch(); !errors.Is(err, ErrWentBack) {
				t.Errorf("Epoch: got error %v, want %v", err, ErrWentBack)
			}
			final := d.doubt.Load()
			if d.doubtEpoch(); d.doubt.Load() != final {
				t.Error("a doubt of another kind took its place")
			}
			if count(t, d) != 0 {
				t.Error("the change was stored all the same")
			}
		})
	}
}
