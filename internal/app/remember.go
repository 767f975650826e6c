package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// epochFile is where a replica remembers the highest epoch that it has seen,
// outside the database: a database that was replaced does not know it.
func (c *Config) epochFile() string { return filepath.Join(c.file(c.Data), "epoch") }

// rememberedEpoch returns it, or 0 if none was ever seen.
func (c *Config) rememberedEpoch() (int64, error) {
	b, err := os.ReadFile(c.epochFile())
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s does not have a number in it", c.epochFile())
	}
	return n, nil
}

// rememberEpochs writes every epoch that is seen, until ctx is done. It is not
// waited for by anything: the audit log has the epochs in which something was
// decided, too.
func (a *App) rememberEpochs(ctx context.Context) error {
	for {
		changed := a.db.Changed()
		if epoch, err := a.db.Epoch(); err == nil {
			if err := replaceFile(a.epochs, strconv.FormatInt(epoch, 10)+"\n"); err != nil {
				a.log.Warn("remember the epoch", "err", err)
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
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
