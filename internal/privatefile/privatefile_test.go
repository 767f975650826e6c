package privatefile

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte("12345"), 0o600); err != nil {
		t.Fatal(err)
	}
	b, mode, err := Read(path, 5)
	if err != nil || string(b) != "12345" || mode != 0o600 {
		t.Errorf("got %q, %v, %v", b, mode, err)
	}
	for _, tt := range []struct {
		path, want string
		most       int64
	}{
		{path, "longer than 4 bytes", 4},
		{filepath.Dir(path), "not a regular file", 9},
		{path + "x", "no such file", 9},
	} {
		if _, _, err := Read(tt.path, tt.most); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Read(%s, %d): got %v, want %q", tt.path, tt.most, err, tt.want)
		}
	}
}

func TestModes(t *testing.T) {
	for _, tt := range []struct {
		mode                         fs.FileMode
		private, guarded, unwritable bool
	}{
		{0o600, true, true, true}, {0o400, true, true, true}, {0o640, false, true, true}, {0o440, false, true, true},
		{0o660, false, false, false}, {0o604, false, false, true}, {0o602, false, false, false}, {0o700, false, false, true},
		{0o644, false, false, true}, {0o620, false, false, false},
	} {
		if err := Private("f", tt.mode); (err == nil) != tt.private {
			t.Errorf("Private of %#o: %v", tt.mode, err)
		}
		if err := Guarded("f", tt.mode); (err == nil) != tt.guarded {
			t.Errorf("Guarded of %#o: %v", tt.mode, err)
		}
		if err := Unwritable("f", tt.mode); (err == nil) != tt.unwritable {
			t.Errorf("Unwritable of %#o: %v", tt.mode, err)
		}
	}
}
