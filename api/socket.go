package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/web"
)

// maxSocketPath is how long the path of a Unix socket may be on Linux, in
// bytes: sun_path has 108, one of them for the final NUL.
const maxSocketPath = 107

// ListenSocket listens on a Unix socket that only this user can open (0600).
//
// Its folder is created with mode 0700 if it is absent; one in which others
// could put a socket of their own is refused. A socket that a dead server
// left behind is replaced; one that somebody answers on, and anything that is
// no socket, is not touched.
func ListenSocket(path string) (net.Listener, error) {
	if err := CheckSocketPath(path); err != nil {
		return nil, err
	}
	if err := prepareFolder(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if err := removeStale(path); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return web.Hold(l), nil
}

// CheckSocketPath reports what is wrong with the path of a socket, as an error
// wrapping [mandate.ErrInvalid]. It does not look at the disk.
func CheckSocketPath(path string) error {
	if path == "" {
		return mandate.Invalid("socket", "has no path")
	}
	if len(path) > maxSocketPath {
		return mandate.Invalid("socket", "the path is %d bytes long and the system allows %d; choose a shorter one, such as /run/mandate/mandate.sock: %s", len(path), maxSocketPath, path)
	}
	return nil
}

// prepareFolder makes sure that dir exists and that nobody else can replace
// what is in it. The sticky bit is enough, because then others cannot.
func prepareFolder(dir string) error {
	st, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return os.Mkdir(dir, 0o700)
	}
	if err != nil {
		return err
	}
	if !st.IsDir() {
		return fmt.Errorf("%s is not a folder", dir)
	}
	if st.Mode().Perm()&0o022 != 0 && st.Mode()&fs.ModeSticky == 0 {
		return fmt.Errorf("others can write to the folder %s (mode %v); make it 0700", dir, st.Mode().Perm())
	}
	return nil
}

// removeStale removes a socket that nobody answers on.
func removeStale(path string) error {
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.Mode().Type() != fs.ModeSocket {
		return errors.New("there is something that is not a socket; it was left alone")
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		return errors.Join(errors.New("another server answers there already"), c.Close())
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("there is a socket, and whether a server is behind it cannot be told: %w", err)
	}
	return os.Remove(path)
}

// peerKey is the context key of the peer's user id.
type peerKey struct{}

// ConnContext is for [http.Server.ConnContext]: it keeps the user id of the
// process that opened the connection, as the kernel reports it. It does what
// [web.HoldContext] does, too.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	ctx = web.HoldContext(ctx, c)
	if under, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = under.NetConn()
	}
	uc, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return ctx
	}
	var uid int
	var cerr error
	if err := raw.Control(func(fd uintptr) { uid, cerr = peer(int(fd)) }); err != nil || cerr != nil {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, uid)
}

func peerUID(ctx context.Context) (int, bool) {
	uid, ok := ctx.Value(peerKey{}).(int)
	return uid, ok
}

// PeerCaller returns the caller that a connection of the operator socket
// stands for, such as "uid:1000": a host account, not a person. It reports
// false if the connection was not one or its peer is unknown.
func PeerCaller(ctx context.Context) (mandate.CallerID, bool) {
	uid, ok := peerUID(ctx)
	if !ok {
		return "", false
	}
	return uidCaller(uid), true
}

func uidCaller(uid int) mandate.CallerID {
	return mandate.CallerID("uid:" + strconv.Itoa(uid))
}
