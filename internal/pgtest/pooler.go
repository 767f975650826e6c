package pgtest

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// Pooler starts a pgbouncer before a database of the cluster, and returns the
// database's URL through it. It pools transactions: of one client's, each may
// be in another session. It ends with the test.
func (c *Cluster) Pooler(t testing.TB, socket string) string {
	t.Helper()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		program = "/usr/sbin/pgbouncer" // which is in root's PATH only
	}
	if _, err := os.Stat(program); err != nil {
		t.Fatal("this test needs pgbouncer, which is not here: apt-get install pgbouncer")
	}
	dir, err := os.MkdirTemp(c.dir, "pool")
	if err != nil {
		t.Fatal(err)
	}
	const conf = `[databases]
* = host=%s port=%d user=%s
[pgbouncer]
listen_addr =
unix_socket_dir = %s
listen_port = %d
auth_type = any
pool_mode = transaction
default_pool_size = 3
logfile = %[4]s/log
`
	name := filepath.Join(dir, "pgbouncer.ini")
	if err := os.WriteFile(name, fmt.Appendf(nil, conf, c.dir, c.port, User, dir, c.port), 0o644); err != nil {
		t.Fatal(err)
	}
	if c.as != nil {
		if err := os.Chown(dir, int(c.as.Uid), int(c.as.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	life, err := c.outlive(`"$0" -q "$1" </dev/null >/dev/null 2>&1 & read _; kill $!; wait`, program, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { life.Close() })
	awaitSocket(t, filepath.Join(dir, ".s.PGSQL."+strconv.Itoa(c.port)), filepath.Join(dir, "log"))

	u, err := url.Parse(socket)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set("host", dir)
	u.RawQuery = q.Encode()
	return u.String()
}

func awaitSocket(t testing.TB, socket, log string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(end) {
			text, _ := os.ReadFile(log)
			t.Fatalf("pgbouncer does not answer: %v\n%s", err, text)
		}
	}
}
