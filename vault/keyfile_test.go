package vault

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/mandate-sam/mandate"
)

func TestKeyFileIsMadeOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	path := filepath.Join(dir, "keys")
	var ids [8]string
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			k, err := OpenKeyFile(path)
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = k.KeyID()
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id == "" || id != ids[0] {
			t.Errorf("got keys %v, want the same for all who opened the file at once", ids)
			break
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("the file's mode is %v (error %v), want 0600", info.Mode(), err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("%d files are left (error %v), want only the key file", len(entries), err)
	}
}

// TestKeyFileIsWholeOrAbsent stops a creation after each of its steps, by
// leaving what that step leaves, and starts again.
func TestKeyFileIsWholeOrAbsent(t *testing.T) {
	text := keyText([]fileKey{newKey()})
	for n := range len(text) + 1 {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, ".keys.new-1"), text[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenKeyFile(filepath.Join(dir, "keys")); err != nil {
			t.Fatalf("after %d bytes of an interrupted creation: %v", n, err)
		}
	}
	for n := range len(text) - 1 { // the last byte is a line's end
		if _, err := parseKeys(text[:n]); err == nil {
			t.Errorf("a key file of which only %d of %d bytes are left was accepted", n, len(text))
		}
	}
}

func TestKeyFileIsPrivate(t *testing.T) {
	for _, tt := range []struct {
		name string
		harm func(t *testing.T, dir, path string)
		want string
	}{
		{"readable by the group", func(t *testing.T, _, path string) { chmod(t, path, 0o640) }, "can be read or written by others (mode 0640): chmod 600 it"},
		{"writable by others", func(t *testing.T, _, path string) { chmod(t, path, 0o602) }, "mode 0602"},
		{"directory writable by the group", func(t *testing.T, dir, _ string) { chmod(t, dir, 0o770) }, "can be written by others (mode 0770)"},
		{"a symbolic link", func(t *testing.T, dir, path string) {
			if err := os.Rename(path, filepath.Join(dir, "elsewhere")); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink("elsewhere", path); err != nil {
				t.Fatal(err)
			}
		}, "is a symbolic link"},
		{"a directory", func(t *testing.T, _, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, "is not a regular file"},
		{"a pipe", func(t *testing.T, _, path string) {
			if err := errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o600)); err != nil {
				t.Fatal(err)
			}
		}, "is not a regular file"},
		{"somebody else's", func(t *testing.T, _, path string) {
			if err := os.Chown(path, 12345, -1); err != nil {
				t.Skip(err) // only root may give a file away; TestPrivateTo in internal/database holds the rule for everybody
			}
		}, "belongs to user 12345"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "keys")
			openKeys(t, path)
			tt.harm(t, dir, path)
			if _, err := OpenKeyFile(path); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want %q in it", err, tt.want)
			}
		})
	}
}

func chmod(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// keyLine returns a line of a key file for a key of 32 equal bytes.
func keyLine(id string, b byte) string {
	k := fileKey{id, bytes.Repeat([]byte{b}, keySize)}
	return fmt.Sprintf("key %s %s %s\n", k.id, base64.StdEncoding.EncodeToString(k.bytes), k.checksum())
}

func TestKeyFileErrors(t *testing.T) {
	const head, end = "mandate-keys 1\n", "end\n"
	a := keyLine("a", 1)
	f := strings.Fields(a)
	for _, tt := range []struct{ name, text, want string }{
		{"empty", "", "is empty"},
		{"only spaces", " \n", "is empty"},
		{"too long", head + strings.Repeat("# x\n", maxKeyFile/4) + end, "is longer than"},
		{"another file", "-----BEGIN PRIVATE KEY-----\n", "is not a key file"},
		{"a later format", "mandate-keys 2\n" + a + end, "is not a key file"},
		{"cut before the end", head + a, "is cut short"},
		{"cut in a key", head + a[:30], "is cut short"},
		{"something after the end", head + a + end + a, "is cut short"},
		{"no key", head + "# none\n" + end, "has no key in it"},
		{"not a key", head + "kay x y z\n" + end, "line 2: is not of the form"},
		{"a field too many", head + strings.TrimSpace(a) + " x\n" + end, "is not of the form"},
		{"an ID with a slash", head + strings.Replace(a, "key a", "key a/b", 1) + end, "a key's ID has at most"},
		{"an ID too long", head + strings.Replace(a, "key a", "key "+strings.Repeat("a", 65), 1) + end, "a key's ID has at most"},
		{"a key too short", head + "key a AAAA " + f[3] + "\n" + end, "is not 32 bytes in base64"},
		{"no base64", head + "key a !!!! " + f[3] + "\n" + end, "is not 32 bytes in base64"},
		{"another key's checksum", head + strings.Join(append(f[:3:3], strings.Fields(keyLine("b", 1))[3]), " ") + "\n" + end, "the checksum of key \"a\" is wrong"},
		{"twice", head + a + keyLine("b", 2) + a + end, "line 4: key \"a\" is there twice"},
	} {
		_, err := parseKeys([]byte(tt.text))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got error %v, want %q in it", tt.name, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), f[2]) {
			t.Errorf("%s: the error shows the key: %v", tt.name, err)
		}
	}
}

func keysOf(t *testing.T, lines ...string) *KeyFile {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys")
	text := keysHeader + "\n" + strings.Join(lines, "") + keysEnd + "\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return openKeys(t, path)
}

func TestSeveralKeys(t *testing.T) {
	old := keysOf(t, keyLine("old", 1))
	both := keysOf(t, "# rotated\n", keyLine("new", 2), "\n", keyLine("old", 1))
	if got := both.KeyID(); got != "new" {
		t.Errorf("the current key is %q, want the first in the file, %q", got, "new")
	}
	plain := []byte("data key")
	id, wrapped, err := old.Wrap(t.Context(), plain)
	if err != nil || id != "old" {
		t.Fatalf("Wrap: key %q, error %v", id, err)
	}
	if got, err := both.Unwrap(t.Context(), id, wrapped); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("Unwrap with a key that is no longer current: got %q, %v", got, err)
	}
	if id, _, err := both.Wrap(t.Context(), plain); err != nil || id != "new" {
		t.Errorf("Wrap used key %q (error %v), want %q", id, err, "new")
	}
	if _, again, err := old.Wrap(t.Context(), plain); err != nil || bytes.Equal(again[:saltSize], wrapped[:saltSize]) {
		t.Errorf("two wrappings have the same salt, and so the same key (error %v)", err)
	}
	for _, tt := range []struct {
		name    string
		keyID   string
		wrapped []byte
		want    string
	}{
		{"unknown key", "gone", wrapped, `the grant was sealed with key "gone", which the key file`},
		{"the other key", "new", wrapped, `was not wrapped by key "new"`},
		{"cut short", "old", wrapped[:saltSize-1], "cut short"},
		{"only salt", "old", wrapped[:saltSize], `was not wrapped by key "old"`},
	} {
		if _, err := both.Unwrap(t.Context(), tt.keyID, tt.wrapped); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got error %v, want %q in it", tt.name, err, tt.want)
		}
	}
}

func TestGrantSealedWithALostKey(t *testing.T) {
	v, db, _ := openVault(t)
	activate(t, v, candidate(db, contoso, 1, canary))
	lost := v.key.(*KeyFile).KeyID()
	v = newVault(t, db, openKeys(t, filepath.Join(t.TempDir(), "keys")))
	_, err := v.Open(t.Context(), contoso)
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("sealed with key %q, which the key file", lost)) {
		t.Errorf("got error %v, want one that names key %q", err, lost)
	}
	if err := mandateErr(err); err != nil {
		t.Errorf("a lost key looks like %v", err)
	}
}

// mandateErr returns which of the errors that callers branch on err is.
func mandateErr(err error) error {
	for _, e := range []error{mandate.ErrNoGrant, mandate.ErrUnavailable, mandate.ErrSuperseded, mandate.ErrInvalid} {
		if strings.Contains(err.Error(), e.Error()) {
			return e
		}
	}
	return nil
}

func FuzzParseKeys(f *testing.F) {
	f.Add([]byte(keysHeader + "\n" + keyLine("a", 1) + "#\n\n" + keyLine("b", 2) + keysEnd))
	f.Add(keyText([]fileKey{newKey()}))
	f.Fuzz(func(t *testing.T, text []byte) {
		keys, err := parseKeys(text)
		if err != nil {
			return
		}
		seen := make(map[string]bool)
		for _, k := range keys {
			if len(k.bytes) != keySize || !keyName(k.id) || seen[k.id] {
				t.Errorf("accepted key %q of %d bytes", k.id, len(k.bytes))
			}
			seen[k.id] = true
			if again, err := parseKeys(keyText([]fileKey{k})); err != nil || again[0].id != k.id || !bytes.Equal(again[0].bytes, k.bytes) {
				t.Errorf("key %q does not come back as written: %v", k.id, err)
			}
		}
	})
}
