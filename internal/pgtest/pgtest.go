// Package pgtest runs a PostgreSQL of its own for tests: fsync on, as in
// production, on a Unix socket and a loopback port that nobody else uses. It
// never touches a cluster that the machine has, and it never skips: a machine
// without PostgreSQL fails the test, and is told what to install.
package pgtest

import (
	"bytes"
	"database/sql"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
)

// The superuser of every cluster. Its password is asked for over TCP only.
const (
	User     = "mandate"
	Password = "pgtest-password-that-must-not-show"
)

// A Cluster is a PostgreSQL server with its data.
type Cluster struct {
	bin  string // directory of initdb and pg_ctl
	dir  string // holds data, the log and the socket
	port int
	as   *syscall.Credential // nil: ourselves
	life io.WriteCloser      // whose end, however it comes, is the cluster's

	mu      sync.Mutex
	stopped []int // processes that are frozen
}

// Start makes a cluster, starts it, and removes it when the test ends.
func Start(t testing.TB) *Cluster {
	t.Helper()
	c, err := start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.remove)
	return c
}

var shared = sync.OnceValues(start)

// Shared returns the one cluster of this test binary, which goes when the
// binary ends. Whoever stops or freezes it disturbs other tests: they use
// [Start].
func Shared(t testing.TB) *Cluster {
	t.Helper()
	c, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func start() (*Cluster, error) {
	bin, err := binaries()
	if err != nil {
		return nil, err
	}
	c := &Cluster{bin: bin}
	// Root cannot run PostgreSQL, whose package made a user for that.
	if os.Geteuid() == 0 {
		if c.as, err = credential("postgres"); err != nil {
			return nil, err
		}
	}
	// Short, because the path of a socket has at most 107 bytes.
	if c.dir, err = os.MkdirTemp("/tmp", "pgtest"); err != nil {
		return nil, err
	}
	if err := c.create(); err != nil {
		os.RemoveAll(c.dir)
		return nil, err
	}
	return c, nil
}

// binaries finds Debian's package, or whatever is in PATH.
func binaries() (string, error) {
	if path, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(path), nil
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		return "", fmt.Errorf("these tests need PostgreSQL, which is not here: apt-get install postgresql")
	}
	return filepath.Dir(slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) })), nil
}

// version reads Debian's paths: /usr/lib/postgresql/15/bin/initdb.
func version(path string) int {
	_, rest, _ := strings.Cut(path, "/postgresql/")
	number, _, _ := strings.Cut(rest, "/")
	n, _ := strconv.Atoi(number)
	return n
}

func credential(name string) (*syscall.Credential, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL does not run as root, and there is no user to run it as: %w", err)
	}
	uid, uerr := strconv.ParseUint(u.Uid, 10, 32)
	gid, gerr := strconv.ParseUint(u.Gid, 10, 32)
	if uerr != nil || gerr != nil {
		return nil, fmt.Errorf("user %s has no numbers", name)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

func (c *Cluster) create() error {
	password := filepath.Join(c.dir, "password")
	if err := os.WriteFile(password, []byte(Password), 0o600); err != nil {
		return err
	}
	if c.as != nil {
		for _, name := range []string{c.dir, password} {
			if err := os.Chown(name, int(c.as.Uid), int(c.as.Gid)); err != nil {
				return err
			}
		}
	}
	var err error
	if c.port, err = freePort(); err != nil {
		return err
	}
	if err := c.guard(); err != nil {
		return err
	}
	err = c.run("initdb", "-D", c.data(), "-U", User, "--pwfile", password, "--auth-local=trust", "--auth-host=scram-sha-256",
		"-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
	if err != nil {
		return err
	}
	return c.ctl("start")
}

// guard starts what ends the cluster when this process has ended.
func (c *Cluster) guard() (err error) {
	c.life, err = c.outlive(`read _
pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null) && kill -CONT "$pid"
"$0/pg_ctl" -D "$1/data" -m immediate stop >/dev/null 2>&1
rm -rf "$1"`, c.bin, c.dir)
	return err
}

// outlive runs a script for a shell that reads until the end of a pipe, which
// comes when it is closed or this process has ended, even if it was killed.
func (c *Cluster) outlive(script string, args ...string) (io.WriteCloser, error) {
	cmd := exec.Command("/bin/sh", append([]string{"-c", script}, args...)...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.as, Setsid: true}
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &ending{pipe, cmd}, nil
}

// ending closes a pipe, and waits for the process that reads from it.
type ending struct {
	io.WriteCloser
	cmd *exec.Cmd
}

func (e *ending) Close() error {
	e.WriteCloser.Close()
	return e.cmd.Wait()
}

func (c *Cluster) remove() {
	c.thaw()
	c.life.Close()
	os.RemoveAll(c.dir) // the directory itself, if /tmp is sticky
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

// Version returns the major version of the server.
func (c *Cluster) Version(t testing.TB) int {
	t.Helper()
	out, err := exec.Command(filepath.Join(c.bin, "initdb"), "--version").Output() // initdb (PostgreSQL) 15.18 (Debian …)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(out), ") ")
	n, err := strconv.Atoi(rest[:strings.IndexFunc(rest+" ", func(r rune) bool { return r < '0' || r > '9' })])
	if err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	return n
}

// Data returns the directory of the cluster's data.
func (c *Cluster) Data() string { return c.data() }

func (c *Cluster) data() string { return filepath.Join(c.dir, "data") }

func (c *Cluster) ctl(args ...string) error {
	options := fmt.Sprintf("-k %s -p %d -c listen_addresses=127.0.0.1 -c max_connections=200 -c shared_buffers=16MB", c.dir, c.port)
	return c.run("pg_ctl", append([]string{"-D", c.data(), "-w", "-t", "60", "-l", filepath.Join(c.dir, "log"), "-o", options}, args...)...)
}

// run runs one of PostgreSQL's programs to its end. Its output goes to a file,
// because a server that it starts would keep a pipe open.
func (c *Cluster) run(name string, args ...string) error {
	out, err := os.CreateTemp("", "pgtest")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	cmd := exec.Command(filepath.Join(c.bin, name), args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.as}
	if err := cmd.Run(); err != nil {
		said, _ := os.ReadFile(out.Name())
		log, _ := os.ReadFile(filepath.Join(c.dir, "log"))
		return fmt.Errorf("%s: %w\n%s%s", name, err, bytes.TrimSpace(said), log)
	}
	return nil
}

var databases atomic.Int64

// Database makes an empty database, and returns its URL over the Unix socket.
// It is dropped when the test ends.
func (c *Cluster) Database(t testing.TB) string {
	t.Helper()
	return c.DatabaseWith(t, "")
}

// DatabaseWith is [Cluster.Database] with options of CREATE DATABASE.
func (c *Cluster) DatabaseWith(t testing.TB, options string) string {
	t.Helper()
	name := fmt.Sprintf("t%d", databases.Add(1))
	c.Exec(t, "CREATE DATABASE "+name+" "+options)
	t.Cleanup(func() {
		if db, err := sql.Open("pgx", c.url("postgres")); err == nil {
			db.Exec("DROP DATABASE IF EXISTS " + name + " WITH (FORCE)") // or it goes with the cluster
			db.Close()
		}
	})
	return c.url(name)
}

// Exec executes a statement as superuser, in the database "postgres".
func (c *Cluster) Exec(t testing.TB, statement string) {
	t.Helper()
	ExecIn(t, c.url("postgres"), statement)
}

// ExecIn executes a statement in the database at url.
func ExecIn(t testing.TB, url, statement string) {
	t.Helper()
	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func (c *Cluster) url(name string) string {
	q := url.Values{"host": {c.dir}, "port": {strconv.Itoa(c.port)}}
	u := url.URL{Scheme: "postgres", User: url.User(User), Path: "/" + name, RawQuery: q.Encode()}
	return u.String()
}

// TCP returns the form of a URL from [Cluster.Database] that goes over
// loopback, and needs [Password].
func (c *Cluster) TCP(socket string) string {
	u, err := url.Parse(socket)
	if err != nil {
		panic(err)
	}
	u.User, u.Host, u.RawQuery = url.UserPassword(User, Password), net.JoinHostPort("127.0.0.1", strconv.Itoa(c.port)), "sslmode=disable"
	return u.String()
}

// Stop ends the server as a crash would: without a checkpoint, and without
// waiting for anybody.
func (c *Cluster) Stop(t testing.TB) {
	t.Helper()
	if err := c.ctl("stop", "-m", "immediate"); err != nil {
		t.Fatal(err)
	}
}

// StartAgain starts a server that was stopped.
func (c *Cluster) StartAgain(t testing.TB) {
	t.Helper()
	if err := c.ctl("start"); err != nil {
		t.Fatal(err)
	}
}

// Restart stops the server as a crash would, and starts it again.
func (c *Cluster) Restart(t testing.TB) {
	t.Helper()
	c.Stop(t)
	c.StartAgain(t)
}

// Freeze stops all processes of the server where they are: connections stay,
// new ones are accepted by the kernel, and nobody answers.
func (c *Cluster) Freeze(t testing.TB) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(c.data(), "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	pid, err := strconv.Atoi(line)
	if err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	t.Cleanup(c.thaw)
	// The parent first, which then makes no more children.
	c.freeze(t, pid)
	for _, child := range children(pid) {
		c.freeze(t, child)
	}
}

// freeze returns when the process stands still: the signal alone is not yet
// that, as a process that is running meets it a little later.
func (c *Cluster) freeze(t testing.TB, pid int) {
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil && err != syscall.ESRCH {
		t.Error(err)
	}
	c.stopped = append(c.stopped, pid)
	for started := time.Now(); ; time.Sleep(time.Millisecond) {
		if f, ok := stat(pid); !ok || f[0] == "T" || f[0] == "Z" {
			return
		}
		if time.Since(started) > 10*time.Second {
			t.Fatalf("process %d does not stop", pid)
		}
	}
}

// Thaw lets the server go on.
func (c *Cluster) Thaw(t testing.TB) { c.thaw() }

func (c *Cluster) thaw() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, pid := range c.stopped {
		syscall.Kill(pid, syscall.SIGCONT)
	}
	c.stopped = nil
}

// children returns the processes whose parent is pid.
func children(pid int) []int {
	names, _ := filepath.Glob("/proc/[0-9]*")
	var all []int
	for _, name := range names {
		child, _ := strconv.Atoi(filepath.Base(name))
		if f, ok := stat(child); ok && f[1] == strconv.Itoa(pid) {
			all = append(all, child)
		}
	}
	return all
}

// stat returns what the system says of a process, from its state ("T" for
// stopped) and its parent on; false if there is no such process.
func stat(pid int) ([]string, bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, false
	}
	// "pid (name) state ppid …", and the name may have anything in it.
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	return f, len(f) > 1
}
