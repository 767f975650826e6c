package database

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mandate-sam/mandate/internal/pgtest"
)

// soon calls ok until it is true.
func soon(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

func add(t *testing.T, d *DB, id int) {
	t.Helper()
	if err := d.Change(t.Context(), func(tx *Tx) error { return insert(t.Context(), tx, id) }); err != nil {
		t.Fatal(err)
	}
}

func TestServerCheck(t *testing.T) {
	good := server{version: "150018", commit: "on", fsync: "on", encoding: "UTF8", readOnly: "off"}
	for _, tt := range []struct {
		harm func(*server)
		want string
	}{
		{func(*server) {}, ""},
		{func(s *server) { s.commit = "remote_apply" }, ""},
		{func(s *server) { s.version = "120022" }, "the server is PostgreSQL 12, and version 13 or later is needed"},
		{func(s *server) { s.version = "" }, "version 13"},
		{func(s *server) { s.standby = true }, "it is a standby; name the primary"},
		{func(s *server) { s.readOnly = "on" }, "default_transaction_read_only is on"},
		{func(s *server) { s.commit = "remote_write" }, "synchronous_commit is remote_write, with which"},
		{func(s *server) { s.commit = "local" }, "synchronous_commit is local"},
		{func(s *server) { s.fsync = "off" }, "fsync is off"},
		{func(s *server) { s.encoding = "LATIN1" }, "encoding is LATIN1, and must be UTF8"},
	} {
		s := good
		tt.harm(&s)
		if err := s.check(); (err == nil) != (tt.want == "") || !strings.Contains(fmt.Sprint(err), tt.want) {
			t.Errorf("%+v: got error %v, want %q", s, err, tt.want)
		}
	}
}

// TestOpenRefusesServers: what the check says reaches whoever opens.
func TestOpenRefusesServers(t *testing.T) {
	c := pgtest.Start(t)
	refused := func(url, want string) {
		t.Helper()
		_, err := Open(t.Context(), Config{URL: url, Schemas: []Schema{notes()}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got error %v, want %q in it", err, want)
		}
	}
	for statement, want := range map[string]string{
		"SET synchronous_commit = off":           "synchronous_commit is off",
		"SET default_transaction_read_only = on": "default_transaction_read_only is on",
	} {
		u := c.Database(t)
		c.Exec(t, "ALTER DATABASE "+nameOf(t, u)+" "+statement)
		refused(u, want)
	}
	refused(c.DatabaseWith(t, "ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0"), "encoding is LATIN1")

	u := c.Database(t)
	d := open(t, Config{URL: u}, notes())
	c.Stop(t)
	if err := os.WriteFile(filepath.Join(c.Data(), "standby.signal"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	c.StartAgain(t)
	refused(u, "it is a standby")
	soon(t, "a server that became a standby is not believed", func() bool { return errors.Is(d.readEpoch(t.Context(), patience), errReadOnly) })
}

func nameOf(t *testing.T, raw string) string {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(u.Path, "/")
}

func TestPasswordIsNotInErrors(t *testing.T) {
	c := pgtest.Shared(t)
	good := c.TCP(c.Database(t))
	const wrong = "Wrong%2FPassword"
	for name, u := range map[string]string{
		"wrong password":     strings.Replace(good, pgtest.Password, wrong, 1),
		"no such database":   strings.Replace(good, "/t", "/nosuch", 1),
		"nobody there":       "postgres://x:" + wrong + "@127.0.0.1:1/x",
		"no such host":       "postgres://x:" + wrong + "@nosuch.invalid/x",
		"no port":            "postgres://x:" + wrong + "@h:port/x",
		"port out of range":  "postgres://x:" + wrong + "@h:70000/x",
		"unescaped":          "postgres://x:Wrong/Password@h/x",
		"half escaped":       "postgres://x:" + wrong + "%@h/x",
		"another scheme":     "mysql://x:" + wrong + "@h/x",
		"no scheme":          "x:" + wrong + "@h/x",
		"unknown ssl mode":   "postgres://x:" + wrong + "@h/x?sslmode=maybe",
		"in the query":       "postgres://x@h/x?sslmode=maybe&password=" + wrong,
		"words":              "host=h user=x password=" + wrong,
		"unknown parameter":  good + "&nosuchsetting=1",
		"no certificate":     "postgres://x:" + wrong + "@h/x?sslmode=verify-full&sslrootcert=/nosuch",
		"certificate's word": "postgres://x:Other@h/x?sslcert=/nosuch&sslkey=/nosuch&sslpassword=" + wrong,
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			_, err := Open(ctx, Config{URL: u})
			if err == nil {
				t.Fatal("no error")
			}
			for _, secret := range []string{"Wrong", pgtest.Password} {
				if strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err), secret) {
					t.Errorf("the error has the password: %v", err)
				}
			}
		})
	}
	open(t, Config{URL: good}, notes()) // with the right password it is opened
}

// TestPrimaryOfSeveral: of several servers the one that writes is looked for.
func TestPrimaryOfSeveral(t *testing.T) {
	for url, want := range map[string]bool{
		"postgres://h/x":                            false, // which is tried with and without TLS
		"postgres://h1:5432,h2:5433/x":              true,
		"postgres://h1,h2/x":                        true,
		"postgres:///x?host=/a,/b&port=1,2":         true,
		"postgres://h:1/x?target_session_attrs=any": false,
	} {
		c, err := parseURL(url, "")
		if err != nil {
			t.Fatal(err)
		}
		if got := c.ValidateConnect != nil; got != want {
			t.Errorf("%s: the primary is looked for: %v, want %v", url, got, want)
		}
	}
	// Two addresses, and nobody at the first.
	u := pgtest.Shared(t).TCP(pgtest.Shared(t).Database(t))
	open(t, Config{URL: strings.Replace(u, "@", "@127.0.0.1:1,", 1)}, notes())
}

// TestEightReplicasMigrateAtOnce, of an empty database.
func TestEightReplicasMigrateAtOnce(t *testing.T) {
	u := pgtest.Shared(t).Database(t)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			d, err := Open(t.Context(), Config{URL: u, Connections: 2, Schemas: []Schema{notes()}})
			if err != nil {
				t.Error(err)
				return
			}
			d.Close()
		})
	}
	all.Wait()
}

// TestTwoVersions: what runs goes on when a newer version has migrated, and
// both share the epoch.
func TestTwoVersions(t *testing.T) {
	u := pgtest.Shared(t).Database(t)
	old := running(t, Config{URL: u})
	add(t, old, 1)
	newer := open(t, Config{URL: u}, notes("002_title.sql", "ALTER TABLE notes ADD COLUMN title TEXT;"))
	add(t, old, 2)
	if _, err := newer.Exec(t.Context(), `UPDATE notes SET title = 'x'`); err != nil {
		t.Error(err)
	}
	if got := count(t, old); got != 2 {
		t.Errorf("the older version sees %d rows, want 2", got)
	}
	if _, err := Open(t.Context(), Config{URL: u, Schemas: []Schema{notes()}}); !errors.Is(err, ErrNewer) {
		t.Errorf("opening with the older version: got error %v, want %v", err, ErrNewer)
	}
}

// TestReplicasShareTheEpoch: changes of several replicas are one after the
// other, and each learns of those of the others.
func TestReplicasShareTheEpoch(t *testing.T) {
	u := pgtest.Shared(t).Database(t)
	replicas := []*DB{running(t, Config{URL: u, Replica: "a"}), running(t, Config{URL: u, Replica: "b"}), running(t, Config{URL: u})}
	first := epochOf(t, replicas[0])
	var all sync.WaitGroup
	for _, d := range replicas {
		for range 2 {
			all.Go(func() {
				for range 5 {
					if err := d.Change(t.Context(), func(*Tx) error { return nil }); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	all.Wait()
	for _, d := range replicas {
		soon(t, "a replica has the last epoch", func() bool { return epochOf(t, d) == first+30 })
	}
}

func TestChangedTellsOfOthers(t *testing.T) {
	u := pgtest.Shared(t).Database(t)
	a, b := running(t, Config{URL: u}), running(t, Config{URL: u})
	changed := b.Changed()
	before := epochOf(t, b)
	add(t, a, 1)
	<-changed
	if got := epochOf(t, b); got != before+1 {
		t.Errorf("epoch %d, want %d", got, before+1)
	}
}

// TestNoticeOfAChange: it comes with the commit, and is a reason to read.
func TestNoticeOfAChange(t *testing.T) {
	u := pgtest.Shared(t).Database(t)
	a, b := open(t, Config{URL: u}, notes()), open(t, Config{URL: u}, notes())
	var listening sync.WaitGroup
	listening.Go(func() { b.listen(t.Context()) }) // and does not poll
	t.Cleanup(listening.Wait)
	id := 0
	soon(t, "a notice arrives", func() bool {
		id++
		add(t, a, id)
		return len(b.pg.wake) > 0
	})
}

// TestDoubtWaitsForTheCommit that may still be under way in another session.
func TestDoubtWaitsForTheCommit(t *testing.T) {
	u := pgtest.Shared(t).Database(t)
	a, b := open(t, Config{URL: u}, notes()), open(t, Config{URL: u}, notes())
	before := a.epoch.Load()
	err := b.Change(t.Context(), func(tx *Tx) error {
		a.doubtEpoch()
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if err := a.reread(ctx); err == nil {
			t.Error("the epoch was read before the commit that may raise it")
		}
		if _, err := a.Epoch(); !errors.Is(err, ErrUnknownEpoch) {
			t.Errorf("got error %v, want %v", err, ErrUnknownEpoch)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	a.working.Wait()
	if got := a.epoch.Load(); got != before+1 {
		t.Errorf("epoch %d, want %d", got, before+1)
	}
}

func TestCutOffWithoutRun(t *testing.T) {
	d := open(t, Config{URL: pgtest.Shared(t).Database(t)}, notes())
	long := time.Now().Add(-2 * cutOff)
	d.read.Store(&long)
	if _, err := d.Epoch(); !errors.Is(err, ErrCutOff) {
		t.Errorf("got error %v, want %v", err, ErrCutOff)
	}
	// A machine that was suspended: its monotonic clock stood still.
	suspended := time.Now().Add(-2 * cutOff).Round(0)
	d.read.Store(&suspended)
	if _, err := d.Epoch(); !errors.Is(err, ErrCutOff) {
		t.Errorf("got error %v, want %v", err, ErrCutOff)
	}
	if err := d.readEpoch(t.Context(), patience); err != nil {
		t.Fatal(err)
	}
	if d.cutOff() {
		t.Error("cut off after a good read")
	}
}

// TestReadBeginsBeforeItEnds: what is known is as old as the beginning of the
// read. And a session in which nothing can be written is not believed.
func TestReadBeginsBeforeItEnds(t *testing.T) {
	d := open(t, Config{URL: pgtest.Shared(t).Database(t)}, notes())
	var began time.Time
	var reading sync.WaitGroup
	err := d.Tx(t.Context(), func(tx *Tx) error {
		if _, err := tx.Exec(t.Context(), `LOCK TABLE head IN ACCESS EXCLUSIVE MODE`); err != nil {
			return err
		}
		began = time.Now()
		reading.Go(func() {
			if err := d.readEpoch(t.Context(), patience); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(200 * time.Millisecond)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	reading.Wait()
	if late := d.read.Load().Sub(began); late > 150*time.Millisecond {
		t.Errorf("the read counts from %v after its beginning", late)
	}
	if _, err := d.pg.poller.Exec(`SET default_transaction_read_only = on`); err != nil {
		t.Fatal(err)
	}
	if err := d.readEpoch(t.Context(), patience); !errors.Is(err, errReadOnly) {
		t.Errorf("got error %v, want %v", err, errReadOnly)
	}
}

// TestRestart: a server that was restarted in the middle is found again, for
// queries, changes, the epoch and notices.
func TestRestart(t *testing.T) {
	c := pgtest.Start(t)
	u := c.Database(t)
	a, b := running(t, Config{URL: u}), running(t, Config{URL: u})
	notices, cancel := b.Subscribe("word")
	defer cancel()
	hears := func() bool {
		select {
		case got := <-notices:
			return got == "hello: world"
		default:
			a.Notify(t.Context(), "word", "hello: world") // fails while there is no server
			return false
		}
	}
	soon(t, "a notice arrives", hears)
	for id := range 2 {
		add(t, a, id)
		c.Restart(t)
		soon(t, "a change is possible", func() bool {
			return a.Change(t.Context(), func(tx *Tx) error { return insert(t.Context(), tx, 10+id) }) == nil
		})
		for len(notices) > 0 {
			<-notices
		}
		soon(t, "a notice arrives again", hears)
	}
	soon(t, "both have one epoch", func() bool { return epochOf(t, a) == epochOf(t, b) })
	if got := count(t, b); got != 4 {
		t.Errorf("%d rows, want 4", got)
	}
}

// TestFrozenServer: a server that does not answer any more, and does not say
// so, cuts the replica off in time.
func TestFrozenServer(t *testing.T) {
	c := pgtest.Start(t)
	d := running(t, Config{URL: c.TCP(c.Database(t))})
	add(t, d, 1)
	before := epochOf(t, d)
	c.Freeze(t)
	frozen := time.Now()
	for {
		_, err := d.Epoch()
		if errors.Is(err, ErrCutOff) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if late := time.Since(frozen); late > cutOff+200*time.Millisecond {
			t.Fatalf("the epoch is still believed %v after the server froze", late)
		}
		time.Sleep(5 * time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := d.Change(ctx, func(*Tx) error { return nil }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a change meanwhile: got error %v, want %v", err, context.DeadlineExceeded)
	}
	c.Thaw(t)
	soon(t, "the epoch is known again", func() bool { _, err := d.Epoch(); return err == nil })
	add(t, d, 2)
	if got := epochOf(t, d); got < before+1 {
		t.Errorf("epoch %d, want at least %d", got, before+1)
	}
}

// logged collects a log.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), s)
}

// TestPollingOnly: without notices changes arrive all the same, and the log
// says so once.
func TestPollingOnly(t *testing.T) {
	c := pgtest.Shared(t)
	u := c.Database(t)
	for name, listen := range map[string]string{
		"nobody listens there":  strings.Replace(c.TCP(u), pgtest.Password, "wrong", 1),
		"notices do not arrive": c.Database(t), // they are those of one database
	} {
		t.Run(name, func(t *testing.T) {
			log := new(logged)
			a := running(t, Config{URL: u})
			b := running(t, Config{URL: u, ListenURL: listen, Log: slog.New(slog.NewTextHandler(io.MultiWriter(log, t.Output()), nil))})
			const line = "changes are seen by polling"
			soon(t, "the log says so", func() bool { return log.count(line) > 0 })
			changed := b.Changed()
			if err := a.Change(t.Context(), func(*Tx) error { return nil }); err != nil {
				t.Fatal(err)
			}
			<-changed
			// Long enough for several tries more.
			time.Sleep(time.Second)
			if n := log.count(line); n != 1 {
				t.Errorf("the log says so %d times, want once", n)
			}
			if log.count(pgtest.Password) > 0 {
				t.Error("the log has the password")
			}
		})
	}
}

// TestUnknownCommit: the connection is lost at the commit.
func TestUnknownCommit(t *testing.T) {
	d := running(t, Config{URL: pgtest.Shared(t).Database(t)})
	before := epochOf(t, d)
	err := d.Change(t.Context(), func(tx *Tx) error {
		tx.Exec(t.Context(), `SELECT pg_terminate_backend(pg_backend_pid())`) // an error, and the function goes on
		return nil
	})
	if err == nil {
		t.Fatal("no error")
	}
	soon(t, "the epoch is certain again", func() bool { _, err := d.Epoch(); return err == nil })
	if got := epochOf(t, d); got != before {
		t.Errorf("epoch %d, want %d: nothing was stored", got, before)
	}
}

// TestDoubtOutlivesAnotherReading: a commit that became unknown while the
// outcome of another was found out is found out too.
func TestDoubtOutlivesAnotherReading(t *testing.T) {
	d := open(t, Config{URL: pgtest.Shared(t).Database(t)}, notes())
	d.doubt.Store(&errUnknown)
	before := d.unknowns()
	d.doubtEpoch()
	if err := d.believe(before); !errors.Is(err, errStillUnknown) {
		t.Errorf("got error %v, want %v", err, errStillUnknown)
	}
	if _, err := d.Epoch(); !errors.Is(err, ErrUnknownEpoch) {
		t.Errorf("got error %v, want %v", err, ErrUnknownEpoch)
	}
	if err := d.reread(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Epoch(); errors.Is(err, ErrUnknownEpoch) {
		t.Errorf("got error %v after reading again", err)
	}
}

// TestDeadlockIsTriedAgain: of two transactions in each other's way PostgreSQL
// undoes one, which then runs again.
func TestDeadlockIsTriedAgain(t *testing.T) {
	d := running(t, Config{URL: pgtest.Shared(t).Database(t)})
	add(t, d, 1)
	add(t, d, 2)
	var both, all sync.WaitGroup
	both.Add(2)
	for i := range 2 {
		var meet sync.Once
		all.Go(func() {
			ctx := t.Context()
			err := d.Tx(ctx, func(tx *Tx) error {
				for n := range 2 {
					if _, err := tx.Exec(ctx, `UPDATE notes SET body = $1 WHERE id = $2`, []byte("x"), 1+(i+n)%2); err != nil {
						return err
					}
					meet.Do(func() { both.Done(); both.Wait() })
				}
				return nil
			})
			if err != nil {
				t.Errorf("transaction %d: %v", i, err)
			}
		})
	}
	all.Wait()
}

// TestFrozenReplica: whoever stops in the middle of a change does not keep the
// others from changing anything.
func TestFrozenReplica(t *testing.T) {
	u := pgtest.Shared(t).Database(t)
	a, b := running(t, Config{URL: u}), running(t, Config{URL: u})
	release, held := make(chan struct{}), make(chan struct{})
	var frozen sync.WaitGroup
	frozen.Go(func() {
		err := a.Change(t.Context(), func(tx *Tx) error {
			close(held)
			<-release
			return nil
		})
		if err == nil {
			t.Error("the frozen replica's change was committed")
		}
	})
	<-held
	add(t, b, 1)
	close(release)
	frozen.Wait()
	epochOf(t, b)
}

// TestTextIsComparedByBytes, whatever the locale of the database.
func TestTextIsComparedByBytes(t *testing.T) {
	c := pgtest.Shared(t)
	english := "TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en'"
	if c.Version(t) < 15 {
		english = "" // there are only the machine's locales
	}
	words := notes("002_words.sql", "CREATE TABLE words (word TEXT PRIMARY KEY);")
	for name, cfg := range map[string]Config{
		"SQLite":     {File: filepath.Join(t.TempDir(), "test.db")},
		"PostgreSQL": {URL: c.DatabaseWith(t, english)},
	} {
		d := open(t, cfg, words)
		if _, err := d.Exec(t.Context(), `INSERT INTO words (word) VALUES ('b'), ('a-c'), ('ab'), ('B'), ('é')`); err != nil {
			t.Fatal(err)
		}
		rows, err := d.Query(t.Context(), `SELECT word FROM words ORDER BY word`)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for rows.Next() {
			var word string
			if err := rows.Scan(&word); err != nil {
				t.Fatal(err)
			}
			got = append(got, word)
		}
		rows.Close()
		if want := "B a-c ab b é"; strings.Join(got, " ") != want {
			t.Errorf("%s: got %v, want %s", name, got, want)
		}
	}
}

// TestTransactionPooling: of one connection each transaction may be in another
// session. Notices need a way of their own, and where they have none the log
// says so.
func TestTransactionPooling(t *testing.T) {
	c := pgtest.Shared(t)
	direct := c.Database(t)
	pooled := c.Pooler(t, direct)
	log := new(logged)
	a := running(t, Config{URL: pooled, Log: slog.New(slog.NewTextHandler(io.MultiWriter(log, t.Output()), nil))})
	b := running(t, Config{URL: pooled, ListenURL: direct})
	var all sync.WaitGroup
	for id := range 40 {
		all.Go(func() {
			d, ctx := []*DB{a, b}[id%2], t.Context()
			if err := d.Change(ctx, func(tx *Tx) error { return insert(ctx, tx, id) }); err != nil {
				t.Error(err)
			}
			if n, err := d.Exec(ctx, `UPDATE notes SET body = $1 WHERE id = $2`, []byte("x"), id); n != 1 || err != nil {
				t.Errorf("got %d rows, error %v; want 1", n, err)
			}
			count(t, d)
		})
	}
	all.Wait()
	soon(t, "both have one epoch", func() bool { return epochOf(t, a) == epochOf(t, b) })
	words, cancel := b.Subscribe("word")
	defer cancel()
	soon(t, "a notice arrives", func() bool { a.Notify(t.Context(), "word", ""); return len(words) > 0 })
	soon(t, "the log says so", func() bool { return log.count("set a listen URL") > 0 })
}
