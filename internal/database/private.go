package database

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// ErrInUse: another server has the database open.
var ErrInUse = errors.New("in use by another process")

// claim makes sure that nobody else can touch file, creates it if need be, and
// returns the lock which keeps other servers out while it is open.
func claim(file string) (*os.File, error) {
	dir := filepath.Dir(file)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := PrivateDir(dir); err != nil {
		return nil, err
	}
	lock, err := exclusive(file)
	if err != nil {
		return nil, err
	}
	// SQLite gives its -wal and -shm files the permissions of the main file,
	// so that one is made before SQLite sees it.
	for _, name := range []string{file, file + "-wal", file + "-shm"} {
		if err := ensurePrivate(name, name == file); err != nil {
			lock.Close()
			return nil, err
		}
	}
	return lock, nil
}

func ensurePrivate(name string, create bool) error {
	f, err := OpenPrivate(name, os.O_RDWR)
	if errors.Is(err, fs.ErrNotExist) {
		if !create {
			return nil
		}
		f, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	}
	if err != nil {
		return err
	}
	return f.Close()
}

// exclusive takes the lock file beside file, and writes who has it into it.
// The lock goes with the process, however that ends; the file stays.
func exclusive(file string) (*os.File, error) {
	name := file + ".lock"
	lock, err := OpenPrivate(name, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s is %w%s: stop that one first, or use a file of its own for each", file, ErrInUse, holder(lock))
		}
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	if err := errors.Join(lock.Truncate(0), writePID(lock)); err != nil {
		lock.Close()
		return nil, err
	}
	return lock, nil
}

func writePID(lock *os.File) error {
	_, err := lock.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// holder names the process that wrote itself into the lock file.
func holder(lock *os.File) string {
	b, _ := io.ReadAll(io.LimitReader(lock, 32))
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return ""
	}
	return fmt.Sprintf(" (pid %d)", pid)
}

func release(lock *os.File) error {
	return errors.Join(lock.Truncate(0), lock.Close())
}

// PrivateDir reports an error unless nobody but the owner, who must be us or
// root, can put files into dir or replace them.
func PrivateDir(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a directory", dir)
	}
	return dirPrivateTo(dir, info.Mode().Perm(), owner(info), os.Geteuid())
}

func dirPrivateTo(dir string, mode fs.FileMode, owner, us int) error {
	if mode&0o022 != 0 {
		return fmt.Errorf("directory %s can be written by others (mode %04o): chmod 700 it, or use another", dir, mode)
	}
	if owner != us && owner != 0 {
		return fmt.Errorf("directory %s belongs to user %d, and this process is user %d", dir, owner, us)
	}
	return nil
}

// OpenPrivate opens a file that only its owner, who must be us, can read or
// write. A symbolic link is refused: what it leads to could be changed. With
// [os.O_CREATE] in flag the file is made so.
func OpenPrivate(name string, flag int) (*os.File, error) {
	f, err := os.OpenFile(name, flag|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if errors.Is(err, syscall.ELOOP) {
		return nil, fmt.Errorf("%s is a symbolic link; name the file itself", name)
	}
	if err != nil {
		return nil, err
	}
	if err := private(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func private(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", f.Name())
	}
	return privateTo(f.Name(), info.Mode().Perm(), owner(info), os.Geteuid())
}

func privateTo(name string, mode fs.FileMode, owner, us int) error {
	if mode&0o077 != 0 {
		return fmt.Errorf("%s can be read or written by others (mode %04o): chmod 600 it", name, mode)
	}
	if owner != us {
		return fmt.Errorf("%s belongs to user %d, and this process is user %d", name, owner, us)
	}
	return nil
}

func owner(info fs.FileInfo) int { return int(info.Sys().(*syscall.Stat_t).Uid) }
