package app

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mandate-sam/mandate"
)

// A process that is killed while it writes a credential leaves a private key
// behind, which the end of the rotation destroys, whichever it is.
func TestNothingIsLeftOfAWriteThatWasKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "application.pem")
	f := &fileMaterial{path: path}
	for name, end := range map[string]func() error{
		"finish":  func() error { return f.Finish(t.Context(), nil) },
		"discard": func() error { return f.Discard(t.Context(), nil) },
		"write":   func() error { return f.write(path, []byte("new")) },
	} {
		if err := os.WriteFile(f.writing(), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := end(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(f.writing()); !os.IsNotExist(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if b, _ := os.ReadFile(path); string(b) != "new" {
		t.Errorf("%q", b)
	}
}

func TestRotationOfNoApplication(t *testing.T) {
	r := &rotator{parts: &parts{upstream: &upstream{live: map[string]*liveCredential{"marketplace": {}}}}}
	for name, want := range map[string]string{"markteplace": `did you mean "marketplace"?`, "x": `there is no application "x"`, strings.Repeat("marketplace", 99): "there is no application"} {
		if _, err := r.application(name); !errors.Is(err, mandate.ErrNotFound) || !strings.Contains(err.Error(), want) || len(err.Error()) > 200 {
			t.Errorf("%.20q: got %v, want %s", name, err, want)
		}
	}
}
