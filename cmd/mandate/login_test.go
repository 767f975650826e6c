package main

import (
	"bytes"
	"testing"
)

// The page to sign in at is shown as it is to be opened, on a line of its own,
// and to programs as JSON.
func TestAskToOpen(t *testing.T) {
	for _, tt := range []struct {
		json bool
		want string
	}{
		{false, "Open this page in a browser on this machine, and sign in:\n\n  https://login.test/a?b=%20\n\n"},
		{true, `{"open":"https://login.test/a?b=%20"}` + "\n"},
	} {
		var out bytes.Buffer
		c := &cli{stdio: stdio{err: &out}, json: tt.json}
		if c.askToOpen("https://login.test/a?b=%20"); out.String() != tt.want {
			t.Errorf("got %q, want %q", out.String(), tt.want)
		}
	}
}
