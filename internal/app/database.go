package app

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/audit"
	"github.com/mandate-sam/mandate/internal/database"
	"github.com/mandate-sam/mandate/internal/privatefile"
	"github.com/mandate-sam/mandate/internal/rotation"
	"github.com/mandate-sam/mandate/notify"
	"github.com/mandate-sam/mandate/store"
	"github.com/mandate-sam/mandate/vault"
)

// A Database is PostgreSQL, which several replicas share. Without one, a server
// is alone and keeps an SQLite file in its data directory.
type Database struct {
	// URL is postgres://user@host/database?sslmode=verify-full, without a
	// password.
	URL string `yaml:"url"`

	// ListenURL leads to the same database past a connection pooler, for
	// notices. Empty means URL.
	ListenURL string `yaml:"listen_url"`

	// PasswordFile holds the password for both, if there is one.
	PasswordFile Path `yaml:"password_file"`

	// Connections bounds the connections of this replica. Zero means 16.
	Connections int `yaml:"connections"`

	// Replica is this replica's name in PostgreSQL's list of connections.
	// Empty means the host's name.
	Replica string `yaml:"replica"`
}

func (d *Database) check() error {
	if d.URL == "" {
		if *d != (Database{}) {
			return mandate.Invalid("database.url", "is required where anything else of database is set")
		}
		return nil
	}
	for _, u := range []struct{ field, value string }{{"database.url", d.URL}, {"database.listen_url", d.ListenURL}} {
		if err := checkPostgres(u.field, u.value); err != nil {
			return err
		}
	}
	if d.Connections < 0 || d.Connections > 1000 {
		return mandate.Invalid("database.connections", "must be from 1 to 1000")
	}
	return nil
}

// checkPostgres refuses a URL with a password in it, and one whose connection
// could be read on the way.
func checkPostgres(field, s string) error {
	if s == "" {
		return nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return mandate.Invalid(field, "must be postgres://user@host/database")
	}
	q := u.Query()
	if _, has := u.User.Password(); has || q.Has("password") || q.Has("sslpassword") {
		return mandate.Invalid(field, "has a password in it; put that into a file and its path into database.password_file")
	}
	local := u.Hostname() == "localhost" || u.Hostname() == "127.0.0.1" || u.Hostname() == "::1" ||
		u.Hostname() == "" && (q.Get("host") == "" || strings.HasPrefix(q.Get("host"), "/"))
	if mode := q.Get("sslmode"); !local && mode != "verify-full" && mode != "verify-ca" {
		return mandate.Invalid(field, "needs sslmode=verify-full: the database is on another host, and whoever is in between could read and change everything")
	}
	return nil
}

// Schemas returns the tables of every package that keeps something in the
// server's database, which must be opened with all of them.
func Schemas() []database.Schema {
	return []database.Schema{store.Schema(), vault.Schema(), audit.Schema(), rotation.Schema(), notify.Schema()}
}

// openDatabase opens what the configuration names, with the tables of every
// package.
func (c *Config) openDatabase(ctx context.Context, log *slog.Logger) (*database.DB, error) {
	cfg, err := c.databaseConfig(log)
	if err != nil {
		return nil, err
	}
	return database.Open(ctx, cfg)
}

func (c *Config) databaseConfig(log *slog.Logger) (cfg database.Config, err error) {
	cfg = database.Config{Log: log, Schemas: Schemas()}
	if c.Database.URL == "" {
		cfg.File = filepath.Join(c.file(c.Data), "mandate.db")
		return cfg, nil
	}
	host, _ := os.Hostname() // "" will do
	cfg.Connections, cfg.Replica = c.Database.Connections, cmp.Or(c.Database.Replica, host)
	if cfg.URL, err = c.withPassword(c.Database.URL); err != nil {
		return cfg, err
	}
	cfg.ListenURL, err = c.withPassword(c.Database.ListenURL)
	return cfg, err
}

// maxPassword is the longest password of a database, in bytes.
const maxPassword = 1 << 10

func (c *Config) withPassword(s string) (string, error) {
	if s == "" || c.Database.PasswordFile == "" {
		return s, nil
	}
	path := c.file(c.Database.PasswordFile)
	password, mode, err := privatefile.Read(path, maxPassword)
	if err == nil {
		err = privatefile.Private(path, mode)
	}
	if err != nil {
		return "", fmt.Errorf("database.password_file: %w", err)
	}
	u, err := url.Parse(s)
	if err != nil {
		return "", mandate.Invalid("database.url", "is not a URL")
	}
	u.User = url.UserPassword(u.User.Username(), strings.TrimRight(string(password), "\r\n"))
	return u.String(), nil
}

// KeepAlive says how grants that nobody asks for are kept from lapsing.
type KeepAlive struct {
	// WindowDays is after how many days without use a refresh token lapses.
	// Zero means 90, Entra's own; a tenant's policy can make it shorter.
	WindowDays int `yaml:"window_days"`

	// EveryDays is how many days a grant may go unused. Zero means a tenth of
	// the window.
	EveryDays int `yaml:"every_days"`

	// PerMinute bounds the redemptions of each replica. Zero means 60.
	PerMinute int `yaml:"per_minute"`
}

func (k *KeepAlive) config(s mandate.Schedule) mandate.KeepAlive {
	const day = 24 * time.Hour
	return mandate.KeepAlive{Schedule: s, Window: time.Duration(k.WindowDays) * day, Every: time.Duration(k.EveryDays) * day, PerMinute: k.PerMinute}
}
