package database

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Scratch opens a database of the same kind and in the same place as the one
// that cfg names, which is touched by nobody else and goes with drop: beside
// the file, or as a schema of its own in PostgreSQL, for which the user needs
// the right to make one. What is there already is neither read nor written.
func Scratch(ctx context.Context, cfg Config) (d *DB, drop func() error, err error) {
	if cfg.File != "" {
		return scratchFile(ctx, cfg)
	}
	return scratchSchema(ctx, cfg)
}

func scratchFile(ctx context.Context, cfg Config) (*DB, func() error, error) {
	if err := os.MkdirAll(filepath.Dir(cfg.File), 0o700); err != nil {
		return nil, nil, err
	}
	dir, err := os.MkdirTemp(filepath.Dir(cfg.File), ".check-*") // 0700
	if err != nil {
		return nil, nil, err
	}
	cfg.File = filepath.Join(dir, "scratch.db")
	d, err := Open(ctx, cfg)
	if err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(dir))
	}
	return d, func() error { return errors.Join(d.Close(), os.RemoveAll(dir)) }, nil
}

// scratchSchema goes past a pooler where it can: the schema is a setting of
// the session.
func scratchSchema(ctx context.Context, cfg Config) (*DB, func() error, error) {
	if cfg.ListenURL != "" {
		cfg.URL, cfg.ListenURL = cfg.ListenURL, ""
	}
	schema := "mandate_check_" + strings.ToLower(rand.Text()[:12])
	if err := execOnce(ctx, cfg.URL, `CREATE SCHEMA `+schema); err != nil {
		return nil, nil, fmt.Errorf("make a schema to check in: %w", err)
	}
	remove := func() error {
		return execOnce(context.WithoutCancel(ctx), cfg.URL, `DROP SCHEMA `+schema+` CASCADE`)
	}
	separator := "?"
	if strings.Contains(cfg.URL, "?") {
		separator = "&"
	}
	inSchema := cfg
	inSchema.URL += separator + "search_path=" + schema
	d, err := Open(ctx, inSchema)
	if err != nil {
		return nil, nil, errors.Join(err, remove())
	}
	return d, func() error { return errors.Join(d.Close(), remove()) }, nil
}

func execOnce(ctx context.Context, url, statement string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c, err := parseURL(url, "check")
	if err != nil {
		return err
	}
	conn, err := pgx.ConnectConfig(ctx, c)
	if err != nil {
		return err
	}
	defer closeListener(conn)
	_, err = conn.Exec(ctx, statement)
	return err
}
