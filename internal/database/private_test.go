package database

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestSQLiteMakesNoFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "test.db")
	d, err := connect(file)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.prepare(t.Context(), nil); err == nil {
		t.Error("SQLite made a file with permissions of its own")
	}
}

func TestFilesArePrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b?c#d%20e")
	d := openFile(t, filepath.Join(dir, "test.db"), notes())
	if err := d.Tx(t.Context(), func(tx *Tx) error { return insert(t.Context(), tx, 1) }); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "test.db", "test.db-wal", "test.db-shm", "test.db.lock"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%q has mode %v, want nothing for others", name, info.Mode())
		}
	}
}

func TestOpenRefusesUnsafeFiles(t *testing.T) {
	for _, tt := range []struct {
		name string
		harm func(dir, file string) error
		want string
	}{
		{"directory for all", func(dir, _ string) error { return os.Chmod(dir, 0o777) }, "can be written by others (mode 0777): chmod 700 it"},
		{"directory for the group", func(dir, _ string) error { return os.Chmod(dir, 0o720) }, "can be written by others"},
		{"file for the group", func(_, file string) error { return os.Chmod(file, 0o640) }, "can be read or written by others (mode 0640): chmod 600 it"},
		{"log for others", func(_, file string) error { return os.WriteFile(file+"-wal", nil, 0o604) }, "test.db-wal can be read"},
		{"shared memory for others", func(_, file string) error { return os.WriteFile(file+"-shm", nil, 0o604) }, "test.db-shm can be read"},
		{"lock for others", func(_, file string) error { return os.Chmod(file+".lock", 0o666) }, "test.db.lock can be read"},
		{"link", func(dir, file string) error {
			return errors.Join(os.Rename(file, file+"2"), os.Symlink("test.db2", file))
		}, "is a symbolic link"},
		{"no file", func(_, file string) error { return errors.Join(os.Remove(file), os.Mkdir(file, 0o700)) }, "is a directory"},
		{"no database", func(_, file string) error { return os.WriteFile(file, []byte(strings.Repeat("x", 4096)), 0o600) }, "not a database"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "test.db")
			d := openFile(t, file, notes())
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			if err := tt.harm(dir, file); err != nil {
				t.Fatal(err)
			}
			_, err := Open(t.Context(), Config{File: file, Schemas: []Schema{notes()}})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want %q in it", err, tt.want)
			}
		})
	}
	if _, err := Open(t.Context(), Config{}); err == nil {
		t.Error("a database without a name was opened")
	}
}

func TestPrivateTo(t *testing.T) {
	for _, tt := range []struct {
		test  func(name string, mode os.FileMode, owner, us int) error
		mode  os.FileMode
		owner int
		want  string
	}{
		{privateTo, 0o600, 7, ""},
		{privateTo, 0o400, 7, ""},
		{privateTo, 0o620, 7, "by others"},
		{privateTo, 0o604, 7, "by others"},
		{privateTo, 0o600, 8, "belongs to user 8, and this process is user 7"},
		{privateTo, 0o600, 0, "belongs to user 0"},
		{dirPrivateTo, 0o755, 7, ""},
		{dirPrivateTo, 0o700, 0, ""},
		{dirPrivateTo, 0o770, 7, "by others"},
		{dirPrivateTo, 0o702, 7, "by others"},
		{dirPrivateTo, 0o700, 8, "belongs to user 8, and this process is user 7"},
	} {
		err := tt.test("f", tt.mode, tt.owner, 7)
		if (err == nil) != (tt.want == "") || !strings.Contains(fmt.Sprint(err), tt.want) {
			t.Errorf("mode %o of user %d: got error %v, want %q", tt.mode, tt.owner, err, tt.want)
		}
	}
}

func TestOneProcess(t *testing.T) {
	file := filepath.Join(t.TempDir(), "test.db")
	if os.Getenv("DATABASE_TEST_FILE") != "" {
		file = os.Getenv("DATABASE_TEST_FILE")
		_, err := Open(t.Context(), Config{File: file})
		fmt.Println("child:", err)
		return
	}
	d := openFile(t, file)
	want := fmt.Sprintf("%s is in use by another process (pid %d): stop that one first", file, os.Getpid())
	if _, err := Open(t.Context(), Config{File: file}); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), want) {
		t.Errorf("in this process: got error %v, want %q", err, want)
	}
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestOneProcess$")
	child.Env = append(os.Environ(), "DATABASE_TEST_FILE="+file)
	if out, err := child.CombinedOutput(); err != nil || !strings.Contains(string(out), want) {
		t.Errorf("in another process: got %s, %v, want %q", out, err, want)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	openFile(t, file)
}
