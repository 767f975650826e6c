package demo

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/emulator"
	"github.com/mandate-sam/mandate/internal/app"
	"github.com/mandate-sam/mandate/internal/database"
	"github.com/mandate-sam/mandate/vault"
)

var rounds = flag.Int("rounds", 6, "rounds of each drill; ./test drills runs all of them")

// A product is a server in a process of its own.
type product struct {
	cmd *exec.Cmd
	log logbook
}

// launch starts the product, and returns once it serves.
func (d *Demo) launch(t *testing.T) *product {
	t.Helper()
	return launchConfig(t, d.File("mandate.yaml"))
}

// launchConfig starts the product with a configuration, and more of an
// environment, and returns once it serves.
func launchConfig(t *testing.T, config string, env ...string) *product {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &product{cmd: exec.Command(self)}
	p.cmd.Env = append(append(os.Environ(), serveVariable+"="+config), env...)
	p.cmd.Stderr = io.MultiWriter(t.Output(), &p.log)
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.kill() })
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("the product said %q, %v", line, err)
	}
	return p
}

// kill is kill -9, once.
func (p *product) kill() {
	if p.cmd.ProcessState == nil {
		p.cmd.Process.Signal(syscall.SIGKILL)
		p.cmd.Wait()
	}
}

// stored returns the number of the refresh token that the vault has. The
// product must not be running.
func (d *Demo) stored(t *testing.T) int {
	t.Helper()
	key, err := vault.OpenKeyFile(d.File("keys/mandate.key"))
	if err != nil {
		t.Fatal(err)
	}
	db, err := database.Open(t.Context(), database.Config{
		File: d.File("data/mandate.db"), Schemas: app.Schemas(),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	v, err := vault.New(vault.Config{DB: db, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	g, err := v.Open(t.Context(), contosoKey(t))
	if err != nil {
		t.Fatal(err)
	}
	n, ok := d.Emulator.RefreshTokenNumber(g.Refresh.Reveal())
	if !ok {
		t.Fatal("Entra never issued the stored refresh token")
	}
	return n
}

// The product is killed at a random moment between Entra's answer and the end
// of the write that follows it. Whenever that is, the stored refresh token is
// exactly the one that was presented or the one that was answered; and if
// anybody got the access token, it is the one that was answered.
func TestDrillKill(t *testing.T) {
	d, _ := begin(t, Config{Idle: true})
	p := d.launch(t)
	var err error
	if d.Operator, err = api.NewSocketClient(d.Socket); err != nil {
		t.Fatal(err)
	}
	if page := d.attempt(t, attempt{invited: User, user: User}); contains(page.Text(), "Consent stored and active") != nil {
		t.Fatal(page.Text())
	}
	var kept, replaced, handedOut int
	var window time.Duration // from Entra's answer to the caller's, as the first round takes it
	for round := range *rounds + 1 {
		p.kill()
		before := d.stored(t)
		p = d.launch(t)
		if d.Operator, err = api.NewSocketClient(d.Socket); err != nil {
			t.Fatal(err)
		}
		r, got := d.held(t)
		if r.Presented != before || r.Answered == 0 {
			t.Fatalf("round %d: refresh token %d is stored, %d was presented, %d answered", round, before, r.Presented, r.Answered)
		}
		released := time.Now()
		d.Emulator.Release()
		if round == 0 {
			if err := <-got; err != nil {
				t.Fatal(err)
			}
			window = time.Since(released) * 5 / 4
			continue
		}
		time.Sleep(rand.N(window))
		p.kill()
		err := <-got
		after := d.stored(t)
		switch {
		case after != r.Presented && after != r.Answered:
			t.Fatalf("round %d: refresh token %d is stored, %d was presented and %d answered", round, after, r.Presented, r.Answered)
		case err == nil && after != r.Answered:
			t.Fatalf("round %d: an access token was handed out before refresh token %d was durable", round, r.Answered)
		case after == r.Answered:
			replaced++
		default:
			kept++
		}
		if err == nil {
			handedOut++
		}
	}
	fmt.Printf("drill: %d kills between Entra's answer and the end of the write: %d times the presented refresh token was stored, %d times the answered one (%d times the caller had its access token); never another\n",
		*rounds, kept, replaced, handedOut)
}

// held asks for a token, and returns when Entra has made its answer, which it
// holds back until released.
func (d *Demo) held(t *testing.T) (emulator.TokenRequest, <-chan error) {
	t.Helper()
	asked := len(d.Emulator.TokenRequests())
	d.Emulator.Hold()
	got := make(chan error, 1)
	go func() {
		_, err := d.Operator.Token(t.Context(), api.TokenRequest{Partner: Partner, Audience: "graph", Purpose: Purpose})
		got <- err
	}()
	within(t, 20*time.Second, "the redemption", func() bool { return len(d.Emulator.TokenRequests()) > asked })
	return d.Emulator.TokenRequests()[asked], got
}

// A core file would hold every key that the process has. Where the system hands
// cores to a program, no limit counts: see [exposed], without which nothing is
// ready.
func TestNoCoreFile(t *testing.T) {
	d, _ := begin(t, Config{Idle: true})
	p := d.launch(t)
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(limits)) {
		if rest, ok := strings.CutPrefix(line, "Max core file size"); ok && strings.Join(strings.Fields(rest), " ") != "0 0 bytes" {
			t.Errorf("the limit of core files is %q", line)
		}
	}
}
