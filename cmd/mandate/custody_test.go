package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/mandate-sam/mandate/internal/app"
)

// Who restores without the log of what came after the backup is told so.
func TestRestoredWithoutLog(t *testing.T) {
	for records, want := range map[int64]bool{0: true, 7: false} {
		var out bytes.Buffer
		c := &cli{stdio: stdio{out: &out, err: &out}}
		if err := c.printRestoration(app.Restoration{Records: records}); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(out.String(), "nobody knows what was withdrawn") != want {
			t.Errorf("%d records: %s", records, out.String())
		}
	}
}
