package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/mandate-sam/mandate/audit"
	"github.com/mandate-sam/mandate/internal/database"
)

// epochFile is where a replica remembers, outside the database, the highest
// epoch that it has seen and with which key that was proven: a database that
// was replaced knows neither.
func (c *Config) epochFile() string { return filepath.Join(c.file(c.Data), "epoch") }

// A memory is what is in it. The zero one is of a host that has seen nothing.
type memory struct {
	epoch int64
	key   string // fingerprint; empty if the database was not guarded
}

// remembered returns it. The audit log's last checkpoint has an epoch, too.
func (c *Config) remembered() (m memory, err error) {
	b, err := os.ReadFile(c.epochFile())
	if errors.Is(err, fs.ErrNotExist) {
		m.epoch, err = c.signedEpoch()
		return m, err
	}
	if err != nil {
		return m, err
	}
	epoch, key, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	if m.epoch, err = strconv.ParseInt(epoch, 10, 64); err != nil {
		return m, fmt.Errorf("%s does not begin with a number", c.epochFile())
	}
	m.key = key
	signed, err := c.signedEpoch()
	m.epoch = max(m.epoch, signed)
	return m, err
}

// notBefore refuses a database that is in an earlier epoch than this host has
// seen.
func (m memory) notBefore(db *database.DB) error {
	epoch, err := db.Epoch()
	if err != nil || epoch >= m.epoch {
		return nil // while the epoch is uncertain nothing is handed out
	}
	return fmt.Errorf("%w: it is in epoch %d, and this host has seen epoch %d; find out who put an older copy in its place, "+
		"bring the newer one back, or say: mandate restore --accept-rollback", database.ErrWentBack, epoch, m.epoch)
}

// remember writes the epoch and the key of a database whose state was
// verified.
func remember(path string, db *database.DB) error {
	epoch, err := db.Epoch()
	if err != nil || !db.Guarded() {
		return nil
	}
	return replaceFile(path, strconv.FormatInt(epoch, 10)+" "+db.Fingerprint()+"\n")
}

// rememberEpochs writes every epoch that is seen, until ctx is done. It is not
// waited for by anything: the audit log has the epochs in which something was
// decided, too.
func (a *App) rememberEpochs(ctx context.Context) error {
	for {
		changed := a.db.Changed()
		if err := remember(a.epochs, a.db); err != nil {
			a.log.Warn("remember the epoch", "err", err)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// checkpointFile is where the audit log's last checkpoint is kept outside of the
// database.
func (c *Config) checkpointFile() string { return filepath.Join(c.file(c.Data), "audit.checkpoint") }

// signedEpoch returns the epoch of that checkpoint, or 0.
func (c *Config) signedEpoch() (int64, error) {
	signed, err := os.ReadFile(c.checkpointFile())
	if errors.Is(err, fs.ErrNotExist) || len(bytes.TrimSpace(signed)) == 0 {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	_, key, err := c.auditKey()
	if err != nil {
		return 0, err
	}
	last, err := audit.ParseCheckpoint(signed, key)
	if err != nil {
		return 0, fmt.Errorf("%s, by which this host knows the audit log of before: %w; it belongs to another log or key: bring that back, or, if a new log begins on purpose, put this file away with the old log (docs/audit.md)", c.checkpointFile(), err)
	}
	return last.Epoch, nil
}

// replaceFile gives a file another content, all of it or nothing.
func replaceFile(path, text string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".epoch-*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
