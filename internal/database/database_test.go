package database

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"
)

// notes is a schema for tests.
func notes(files ...string) Schema {
	fsys := fstest.MapFS{"migrations/001_notes.sql": {Data: []byte("CREATE TABLE notes (id BIGINT PRIMARY KEY, body BYTES);\n" +
		"CREATE TABLE tags (note BIGINT REFERENCES notes (id) DEFERRABLE INITIALLY DEFERRED);")}}
	for i := 0; i+1 < len(files); i += 2 {
		fsys["migrations/"+files[i]] = &fstest.MapFile{Data: []byte(files[i+1])}
	}
	return Schema{"notes", fsys}
}

func openTest(t *testing.T) *DB {
	t.Helper()
	return openFile(t, filepath.Join(t.TempDir(), "test.db"), notes())
}

func openFile(t *testing.T, file string, schemas ...Schema) *DB {
	t.Helper()
	d, err := Open(t.Context(), Config{File: file, Schemas: schemas})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func insert(ctx context.Context, tx *Tx, id int) error {
	_, err := tx.Exec(ctx, `INSERT INTO notes (id) VALUES ($1)`, id)
	return err
}

func count(t *testing.T, d *DB) int {
	t.Helper()
	var n int
	if err := d.QueryRow(t.Context(), `SELECT count(*) FROM notes`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func epochOf(t *testing.T, d *DB) int64 {
	t.Helper()
	e, err := d.Epoch()
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestSettings(t *testing.T) {
	d := openTest(t)
	for _, tt := range []struct {
		pragma string
		want   string
	}{
		{"journal_mode", "wal"},
		{"synchronous", "2"},
		{"foreign_keys", "1"},
		{"secure_delete", "1"},
		{"busy_timeout", "5000"},
	} {
		var got string
		if err := d.writer.QueryRow("PRAGMA " + tt.pragma).Scan(&got); err != nil || got != tt.want {
			t.Errorf("%s: got %s, %v, want %s", tt.pragma, got, err, tt.want)
		}
	}
	if n := d.writer.Stats().MaxOpenConnections; n != 1 {
		t.Errorf("%d connections may write, want 1", n)
	}
	if _, err := d.reader.Exec(`DELETE FROM notes`); err == nil {
		t.Error("a reading connection could write")
	}
}

// TestTransactionsBeginWithTheLock: whoever is in a transaction is alone with
// what it read, so that nothing has to be tried again.
func TestTransactionsBeginWithTheLock(t *testing.T) {
	d := openTest(t)
	other, err := connect(d.file)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := other.writer.Exec(`PRAGMA busy_timeout = 0`); err != nil {
		t.Fatal(err)
	}
	err = d.Tx(t.Context(), func(*Tx) error { return other.Tx(t.Context(), func(*Tx) error { return nil }) })
	if err == nil || !strings.Contains(err.Error(), "locked") {
		t.Errorf("two transactions at once: got error %v, want that the database is locked", err)
	}
}

func TestSQLiteMakesNoFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "test.db")
	d, err := connect(file)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.prepare(t.Context(), nil); err == nil {
		t.Error("SQLite made a file with permissions of its own")
	}
}

func TestFilesArePrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b?c#d%20e")
	d := openFile(t, filepath.Join(dir, "test.db"), notes())
	if err := d.Tx(t.Context(), func(tx *Tx) error { return insert(t.Context(), tx, 1) }); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "test.db", "test.db-wal", "test.db-shm", "test.db.lock"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%q has mode %v, want nothing for others", name, info.Mode())
		}
	}
}

func TestOpenRefusesUnsafeFiles(t *testing.T) {
	for _, tt := range []struct {
		name string
		harm func(dir, file string) error
		want string
	}{
		{"directory for all", func(dir, _ string) error { return os.Chmod(dir, 0o777) }, "can be written by others (mode 0777): chmod 700 it"},
		{"directory for the group", func(dir, _ string) error { return os.Chmod(dir, 0o720) }, "can be written by others"},
		{"file for the group", func(_, file string) error { return os.Chmod(file, 0o640) }, "can be read or written by others (mode 0640): chmod 600 it"},
		{"log for others", func(_, file string) error { return os.WriteFile(file+"-wal", nil, 0o604) }, "test.db-wal can be read"},
		{"shared memory for others", func(_, file string) error { return os.WriteFile(file+"-shm", nil, 0o604) }, "test.db-shm can be read"},
		{"lock for others", func(_, file string) error { return os.Chmod(file+".lock", 0o666) }, "test.db.lock can be read"},
		{"link", func(dir, file string) error {
			return errors.Join(os.Rename(file, file+"2"), os.Symlink("test.db2", file))
		}, "is a symbolic link"},
		{"no file", func(_, file string) error { return errors.Join(os.Remove(file), os.Mkdir(file, 0o700)) }, "is a directory"},
		{"no database", func(_, file string) error { return os.WriteFile(file, []byte(strings.Repeat("x", 4096)), 0o600) }, "not a database"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "test.db")
			d := openFile(t, file, notes())
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			if err := tt.harm(dir, file); err != nil {
				t.Fatal(err)
			}
			_, err := Open(t.Context(), Config{File: file, Schemas: []Schema{notes()}})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want %q in it", err, tt.want)
			}
		})
	}
	if _, err := Open(t.Context(), Config{}); err == nil {
		t.Error("a database without a name was opened")
	}
}

func TestPrivateTo(t *testing.T) {
	for _, tt := range []struct {
		test  func(name string, mode os.FileMode, owner, us int) error
		mode  os.FileMode
		owner int
		want  string
	}{
		{privateTo, 0o600, 7, ""},
		{privateTo, 0o400, 7, ""},
		{privateTo, 0o620, 7, "by others"},
		{privateTo, 0o604, 7, "by others"},
		{privateTo, 0o600, 8, "belongs to user 8, and this process is user 7"},
		{privateTo, 0o600, 0, "belongs to user 0"},
		{dirPrivateTo, 0o755, 7, ""},
		{dirPrivateTo, 0o700, 0, ""},
		{dirPrivateTo, 0o770, 7, "by others"},
		{dirPrivateTo, 0o702, 7, "by others"},
		{dirPrivateTo, 0o700, 8, "belongs to user 8, and this process is user 7"},
	} {
		err := tt.test("f", tt.mode, tt.owner, 7)
		if (err == nil) != (tt.want == "") || !strings.Contains(fmt.Sprint(err), tt.want) {
			t.Errorf("mode %o of user %d: got error %v, want %q", tt.mode, tt.owner, err, tt.want)
		}
	}
}

func TestOneProcess(t *testing.T) {
	file := filepath.Join(t.TempDir(), "test.db")
	if os.Getenv("DATABASE_TEST_FILE") != "" {
		file = os.Getenv("DATABASE_TEST_FILE")
		_, err := Open(t.Context(), Config{File: file})
		fmt.Println("child:", err)
		return
	}
	d := openFile(t, file)
	want := fmt.Sprintf("%s is in use by another process (pid %d): stop that one first", file, os.Getpid())
	if _, err := Open(t.Context(), Config{File: file}); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), want) {
		t.Errorf("in this process: got error %v, want %q", err, want)
	}
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestOneProcess$")
	child.Env = append(os.Environ(), "DATABASE_TEST_FILE="+file)
	if out, err := child.CombinedOutput(); err != nil || !strings.Contains(string(out), want) {
		t.Errorf("in another process: got %s, %v, want %q", out, err, want)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	openFile(t, file)
}

func TestTx(t *testing.T) {
	d, ctx := openTest(t), t.Context()
	before := epochOf(t, d)
	if err := d.Tx(ctx, func(tx *Tx) error { return insert(ctx, tx, 1) }); err != nil {
		t.Fatal(err)
	}
	if n, err := d.Exec(ctx, `UPDATE notes SET body = $1 WHERE id = $2`, []byte("x"), 1); n != 1 || err != nil {
		t.Errorf("Exec: got %d, %v, want 1 row", n, err)
	}
	sorry := errors.New("sorry")
	if err := d.Tx(ctx, func(tx *Tx) error { return errors.Join(insert(ctx, tx, 2), sorry) }); !errors.Is(err, sorry) {
		t.Errorf("got error %v, want the function's", err)
	}
	func() {
		defer func() { recover() }()
		d.Tx(ctx, func(tx *Tx) error {
			insert(ctx, tx, 3)
			panic("sorry")
		})
	}()
	gone, cancel := context.WithCancel(ctx)
	err := d.Tx(gone, func(tx *Tx) error {
		defer cancel()
		return insert(ctx, tx, 4)
	})
	if err == nil {
		t.Error("a transaction was committed after its context had ended")
	}
	if got := count(t, d); got != 1 {
		t.Errorf("%d rows, want only the one whose transaction succeeded", got)
	}
	if after := epochOf(t, d); after != before {
		t.Errorf("Tx and Exec changed the epoch from %d to %d", before, after)
	}
	if _, err := d.Exec(ctx, `INSERT INTO tags (note) VALUES (77)`); err == nil {
		t.Error("a foreign key was not enforced")
	}
}

func TestChangeRaisesTheEpoch(t *testing.T) {
	file := filepath.Join(t.TempDir(), "test.db")
	d, ctx := openFile(t, file, notes()), t.Context()
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
	if got := epochOf(t, openFile(t, file, notes())); got != first+1 {
		t.Errorf("epoch %d after opening again, want %d", got, first+1)
	}
}

// TestEpochIsMonotonicAndVisible: whoever's change has returned sees it.
func TestEpochIsMonotonicAndVisible(t *testing.T) {
	d, ctx := openTest(t), t.Context()
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
			if err != nil || now < last {
				t.Errorf("epoch %d after %d (error %v)", now, last, err)
				return
			}
			last = now
		}
	})
	for range workers {
		changing.Go(func() {
			for range rounds {
				var mine int64
				err := d.Change(ctx, func(tx *Tx) error { return tx.QueryRow(ctx, `SELECT epoch FROM head`).Scan(&mine) })
				if now, eerr := d.Epoch(); err != nil || eerr != nil || now < mine {
					t.Errorf("a change to epoch %d returned (error %v), and the epoch is %d (error %v)", mine, err, now, eerr)
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
	d.doubts(ErrUnknownEpoch)
	if err := d.reread(ctx); err != nil {
		t.Fatal(err)
	}
	if got := epochOf(t, d); got != before+1 {
		t.Errorf("epoch %d, want the stored one, %d", got, before+1)
	}
}

func TestDatabaseThatWentBack(t *testing.T) {
	for name, notice := range map[string]func(context.Context, *DB) error{
		"by a change": func(ctx context.Context, d *DB) error {
			return d.Change(ctx, func(tx *Tx) error { return insert(ctx, tx, 1) })
		},
		"by reading anew": func(ctx context.Context, d *DB) error {
			d.doubtEpoch()
			d.settling.Wait()
			_, err := d.Epoch()
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			d, ctx := openTest(t), t.Context()
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

func TestClose(t *testing.T) {
	d, ctx := openTest(t), t.Context()
	for range 2 {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	_, epoch := d.Epoch()
	_, exec := d.Exec(ctx, `DELETE FROM notes`)
	for name, err := range map[string]error{
		"Epoch": epoch, "Exec": exec,
		"Tx":     d.Tx(ctx, func(*Tx) error { return nil }),
		"Change": d.Change(ctx, func(*Tx) error { return nil }),
		"Scrub":  d.Scrub(ctx),
		"View":   d.View(ctx, func(*Tx) error { return nil }),
	} {
		if err == nil {
			t.Errorf("%s of a closed database: no error", name)
		}
	}
}

func TestWaitToWriteEnds(t *testing.T) {
	d := openTest(t)
	err := d.Tx(t.Context(), func(*Tx) error {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		return d.Change(ctx, func(*Tx) error { return nil })
	})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got error %v, want %v", err, context.DeadlineExceeded)
	}
	epochOf(t, d) // a change that never began leaves no doubt
}

func TestViewSeesOneState(t *testing.T) {
	d, ctx := openTest(t), t.Context()
	err := d.View(ctx, func(tx *Tx) error {
		var before, after int
		if err := tx.QueryRow(ctx, `SELECT count(*) FROM notes`).Scan(&before); err != nil {
			return err
		}
		if err := d.Tx(ctx, func(tx *Tx) error { return insert(ctx, tx, 1) }); err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, `SELECT count(*) FROM notes`).Scan(&after); err != nil {
			return err
		}
		if before != after {
			t.Errorf("%d rows, then %d in the same view", before, after)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestScrub(t *testing.T) {
	file := filepath.Join(t.TempDir(), "test.db")
	d, ctx := openFile(t, file, notes()), t.Context()
	body := []byte("a body that must go")
	if _, err := d.Exec(ctx, `INSERT INTO notes (id, body) VALUES (1, $1)`, body); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Exec(ctx, `UPDATE notes SET body = NULL`); err != nil {
		t.Fatal(err)
	}
	if err := d.Scrub(ctx); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{file, file + "-wal"} {
		if b, err := os.ReadFile(name); err != nil || strings.Contains(string(b), string(body)) {
			t.Errorf("%s still has what was deleted (error %v)", name, err)
		}
	}
	var timeout int
	if err := d.writer.QueryRow(`PRAGMA busy_timeout`).Scan(&timeout); err != nil || timeout != 5000 {
		t.Errorf("busy_timeout is %d (error %v) afterwards, want 5000", timeout, err)
	}
}
