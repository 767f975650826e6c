package api

import (
	"errors"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/mandate-sam/mandate"
)

func TestListenSocket(t *testing.T) {
	dir := filepath.Join(shortDir(t), "run")
	path := filepath.Join(dir, "mandate.sock")
	l, err := ListenSocket(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, want := range map[string]fs.FileMode{dir: 0o700 | fs.ModeDir, path: 0o600 | fs.ModeSocket} {
		if st, err := os.Stat(name); err != nil || st.Mode() != want {
			t.Errorf("%s: mode %v, %v, want %v", name, st.Mode(), err, want)
		}
	}
	if _, err := ListenSocket(path); err == nil || !strings.Contains(err.Error(), "another server answers") {
		t.Errorf("beside a living server: got %v, want a refusal", err)
	}
	if c, err := net.Dial("unix", path); err != nil {
		t.Errorf("the living server's socket: %v", err)
	} else {
		c.Close()
	}
}

// stale leaves a socket behind as a killed server does.
func stale(t *testing.T, path string) {
	t.Helper()
	l := must(net.Listen("unix", path))
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
}

func TestListenSocketStale(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	stale(t, path)
	l, err := ListenSocket(path)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

func TestListenSocketRefuses(t *testing.T) {
	for _, tt := range []struct {
		name    string
		prepare func(dir string) (path string)
		want    string
	}{
		{"no path", func(string) string { return "" }, "no path"},
		{"too long", func(dir string) string { return filepath.Join(dir, strings.Repeat("a", 108-len(dir)-1)) }, "108 bytes long and the system allows 107"},
		{"a file", func(dir string) string {
			os.WriteFile(filepath.Join(dir, "s"), []byte("precious"), 0o600)
			return filepath.Join(dir, "s")
		}, "not a socket"},
		{"a link to a stale socket", func(dir string) string {
			l := must(net.Listen("unix", filepath.Join(dir, "other")))
			l.(*net.UnixListener).SetUnlinkOnClose(false)
			l.Close()
			os.Symlink(filepath.Join(dir, "other"), filepath.Join(dir, "s"))
			return filepath.Join(dir, "s")
		}, "not a socket"},
		{"others can write", func(dir string) string { os.Chmod(dir, 0o777); return filepath.Join(dir, "s") }, "others can write"},
		{"the group can write", func(dir string) string { os.Chmod(dir, 0o770); return filepath.Join(dir, "s") }, "others can write"},
		{"a file for a folder", func(dir string) string {
			os.WriteFile(filepath.Join(dir, "f"), nil, 0o600)
			return filepath.Join(dir, "f", "s")
		}, "not a"},
		{"no folder above", func(dir string) string { return filepath.Join(dir, "a", "b", "s") }, "no such file"},
	} {
		dir := shortDir(t)
		path := tt.prepare(dir)
		l, err := ListenSocket(path)
		if err == nil {
			l.Close()
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want an error with %q", tt.name, err, tt.want)
		}
		if data, err := os.ReadFile(filepath.Join(dir, "s")); tt.name == "a file" && string(data) != "precious" {
			t.Errorf("%s: it is now %q, %v", tt.name, data, err)
		}
	}
}

// The longest path works, and the sticky bit protects a shared folder.
func TestListenSocketAllows(t *testing.T) {
	dir := shortDir(t)
	os.Chmod(dir, 0o777|os.ModeSticky)
	path := filepath.Join(dir, strings.Repeat("a", maxSocketPath-len(dir)-1))
	if len(path) != 107 {
		t.Fatalf("path of %d bytes", len(path))
	}
	l, err := ListenSocket(path)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

func TestClientSocket(t *testing.T) {
	if _, err := NewSocketClient("/" + strings.Repeat("a", 107)); !errors.Is(err, mandate.ErrInvalid) {
		t.Errorf("got %v, want ErrInvalid", err)
	}
	path := filepath.Join(shortDir(t), "s")
	for range 2 { // absent, then dead
		c := must(NewSocketClient(path))
		if _, err := c.Status(t.Context()); !errors.Is(err, ErrUnreachable) {
			t.Errorf("got %v, want ErrUnreachable", err)
		}
		if _, err := os.Stat(path); err != nil {
			stale(t, path)
		}
	}
}

func TestNewClient(t *testing.T) {
	for url, ok := range map[string]bool{
		"https://mandate.example": true, "https://mandate.example:8443/": true, "http://127.0.0.1:80": true, "http://[::1]:80": true,
		"http://mandate.example": false, "http://localhost:80": false, "ftp://127.0.0.1": false, "https://u:p@mandate.example": false,
		"https://mandate.example/api": false, "https://mandate.example?x": false, "mandate.example": false, "": false,
	} {
		if _, err := NewClient(url, nil, "billing", mandate.NewSecret("x")); (err == nil) != ok {
			t.Errorf("%q: got %v, want ok %v", url, err, ok)
		}
	}
	for _, id := range []string{"", "a b"} {
		if _, err := NewClient("https://a.b", nil, id, mandate.NewSecret("x")); err == nil {
			t.Errorf("id %q: no error", id)
		}
	}
	if _, err := NewClient("https://a.b", nil, "billing", mandate.Secret{}); err == nil {
		t.Error("no secret: no error")
	}
}

// A client does not carry its secret to wherever a server redirects it.
func TestClientNoRedirect(t *testing.T) {
	var followed atomic.Bool
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { followed.Store(true) }))
	defer other.Close()
	first := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusTemporaryRedirect))
	defer first.Close()
	c := must(NewClient(first.URL, nil, "billing", mandate.NewSecret("x")))
	if _, err := c.Token(t.Context(), TokenRequest{}); err == nil || followed.Load() {
		t.Errorf("got %v; followed: %v", err, followed.Load())
	}
}
