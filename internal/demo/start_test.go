package demo

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mandate-sam/mandate/internal/app"
)

// startAgain starts the product once more, after change has changed its
// configuration, and returns why it did not start.
func (d *Demo) startAgain(t *testing.T, change func(string) string) error {
	t.Helper()
	text, err := os.ReadFile(d.File("mandate.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	path := d.File("changed.yaml")
	if err := os.WriteFile(path, []byte(change(string(text))), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := app.LoadConfig(path)
	if err != nil {
		return err
	}
	a, err := app.New(t.Context(), c, app.Options{Log: d.cfg.Log})
	if err == nil {
		t.Cleanup(func() { a.Close() })
	}
	return err
}

func same(s string) string { return s }

// What must keep a server from starting does, in a sentence, and leaves
// everything as it was.
func TestStartRefuses(t *testing.T) {
	d, _ := begin(t, Config{})
	if err := d.startAgain(t, same); err == nil || contains(err.Error(), "another") != nil {
		t.Errorf("a second server on the same data: %v", err)
	}
	d.attempt(t, attempt{invited: User, user: User})
	d.stopProduct(t)

	global := func(s string) string { return strings.ReplaceAll(s, "cloud: emulator", "cloud: global") }
	if err := d.startAgain(t, global); err == nil || contains(err.Error(), "contoso", "emulator", "database of its own") != nil {
		t.Errorf("an emulator's database under Microsoft's cloud: %v", err)
	}
	key := d.File("keys/mandate.key")
	if err := os.Rename(key, key+".away"); err != nil {
		t.Fatal(err)
	}
	if err := d.startAgain(t, same); err == nil || contains(err.Error(), "mandate.key is missing", "1 grant", "restore") != nil {
		t.Errorf("a lost key: %v", err)
	}
	if _, err := os.Stat(key); !os.IsNotExist(err) {
		t.Error("a key was made in place of the lost one")
	}
	if err := os.Rename(key+".away", key); err != nil {
		t.Fatal(err)
	}
	if err := d.startAgain(t, same); err != nil {
		t.Errorf("with everything in place again: %v", err)
	}
}

// A server stops at once though somebody follows the log.
func TestStopsWhileFollowed(t *testing.T) {
	d, _ := begin(t, Config{})
	if _, err := d.Invite(t.Context()); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	first := make(chan bool, 1)
	go func() {
		for _, err := range d.Operator.FollowAudit(t.Context(), 1) {
			if err != nil {
				ended <- err
				return
			}
			first <- true
		}
		ended <- nil
	}()
	<-first
	start := time.Now()
	d.stopProduct(t)
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("stopping took %v", took)
	}
	<-ended
}

// The demonstration writes only where nothing is, or where it wrote before.
func TestDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "demo")
	for range 2 {
		d, err := Start(t.Context(), Config{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "mandate.yaml")); err != nil {
		t.Errorf("a directory that was named is kept: %v", err)
	}
	mine := t.TempDir()
	precious := filepath.Join(mine, "precious")
	if err := os.WriteFile(precious, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), Config{Dir: mine}); err == nil || contains(err.Error(), "not empty") != nil {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(precious); err != nil {
		t.Error(err)
	}
}
