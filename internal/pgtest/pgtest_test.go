package pgtest

import (
	"context"
	"database/sql"
	"errors"
	"net"
	"os"
	"testing"
	"time"
)

func open(t *testing.T, url string) *sql.DB {
	t.Helper()
	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func TestCluster(t *testing.T) {
	c := Start(t)
	url := c.Database(t)
	for _, u := range []string{url, c.TCP(url)} {
		var fsync string
		if err := open(t, u).QueryRow(`SHOW fsync`).Scan(&fsync); err != nil || fsync != "on" {
			t.Errorf("fsync is %q, error %v; want on", fsync, err)
		}
	}
	db := open(t, url)
	if _, err := db.Exec(`CREATE TABLE x (y BIGINT)`); err != nil {
		t.Fatal(err)
	}
	c.Stop(t)
	if err := db.Ping(); err == nil {
		t.Error("a stopped server answered")
	}
	c.StartAgain(t)
	if _, err := db.Exec(`INSERT INTO x VALUES (1)`); err != nil {
		t.Errorf("after starting again: %v", err)
	}
	if _, err := open(t, c.Database(t)).Exec(`SELECT * FROM x`); err == nil {
		t.Error("a new database has the tables of another")
	}
}

func TestFreeze(t *testing.T) {
	c := Start(t)
	db := open(t, c.Database(t))
	if err := db.Ping(); err != nil {
		t.Fatal(err)
	}
	c.Freeze(t)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := db.PingContext(ctx); !errors.Is(err, context.DeadlineExceeded) && !errors.As(err, new(net.Error)) {
		t.Errorf("ping of a frozen server: got error %v, want that time ran out", err)
	}
	c.Thaw(t)
	if err := db.Ping(); err != nil {
		t.Errorf("ping after thawing: %v", err)
	}
}

func TestPooler(t *testing.T) {
	c := Start(t)
	db := open(t, c.Pooler(t, c.Database(t))+"&default_query_exec_mode=exec")
	var mode string
	if _, err := db.Exec(`CREATE TABLE x (y BIGINT)`); err != nil {
		t.Fatal(err)
	}
	if err := db.QueryRow(`SELECT current_setting('server_version')`).Scan(&mode); err != nil {
		t.Error(err)
	}
}

func TestNothingIsLeft(t *testing.T) {
	var dir string
	t.Run("cluster", func(t *testing.T) {
		c := Start(t)
		dir = c.dir
		c.Freeze(t)
	})
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is still there (error %v)", dir, err)
	}
}
