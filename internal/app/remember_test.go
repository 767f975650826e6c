package app

import (
	"strings"
	"testing"

	"github.com/mandate-sam/mandate/audit"
)

// A log with another key than this host knows it by is refused with the file
// that says so, and with what to do if that is meant.
func TestCheckpointOfAnotherLog(t *testing.T) {
	c, _ := made(t, Example())
	c.Data = Path(t.TempDir())
	if err := audit.WriteKey(c.auditKeyFile(), "old.example/audit"); err != nil {
		t.Fatal(err)
	}
	write(t, c.checkpointFile(), "new.example/audit\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\n— new.example/audit aaaa\n")
	_, err := c.remembered()
	if err == nil || !strings.HasPrefix(err.Error(), c.checkpointFile()) || !strings.Contains(err.Error(), "put this file away") {
		t.Errorf("got %v", err)
	}
}
