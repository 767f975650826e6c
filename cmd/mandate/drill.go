package main

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mandate-sam/mandate/api"
)

const drillLong = `Drill rehearses, on this machine and against an emulator of Entra, that the
credential of the application has leaked: a thief redeems with a copy of it; a
first attempt to replace it cannot be completed, and is taken back; then it is
replaced while a service asks for tokens, the old one is shown to be refused, and
the grants that the leak has touched are listed. Your server, its database and its
credentials are not used.

It runs the demonstration program, because this one has no emulator in it:

  --demo PATH
  mandate-demo or demo beside this program, or on the PATH
  in a source tree of Mandate, cmd/demo, built with "go"

in a directory of its own, which is removed. Its progress goes to standard error
(not with --json: the steps are in the report), and the report to standard output.
The exit status is 0 if every step succeeded.`

func (c *cli) drillCommand() *cobra.Command {
	var path, kind string
	cmd := &cobra.Command{
		Use:     "drill [--kind secret] [--demo PATH]",
		Short:   "Rehearse that the application's credential has leaked",
		Long:    drillLong,
		Example: "  mandate drill\n  mandate drill --kind secret --json > report.json",
		Args:    words(),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if kind != "certificate" && kind != "secret" {
				return usage("--kind is certificate or secret, not %q", kind)
			}
			dir, err := os.MkdirTemp("", "mandate-drill-")
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
			demo, err := c.demo(cmd.Context(), path, dir)
			if err != nil {
				return err
			}
			args := []string{"-drill", "-json", "-dir", filepath.Join(dir, "d")}
			if kind == "secret" {
				args = append(args, "-secret")
			}
			return c.drill(cmd.Context(), demo, args)
		},
	}
	cmd.Flags().StringVar(&path, "demo", "", "the demonstration program")
	cmd.Flags().StringVar(&kind, "kind", "certificate", "certificate or secret: what the application has")
	return cmd
}

// A drillReport is what this program reads of the demonstration's report.
type drillReport struct {
	OK    bool `json:"ok"`
	Steps []struct {
		TookMS int64 `json:"took_ms"`
	} `json:"steps"`
	Tokens  int                   `json:"tokens"`
	Old     string                `json:"old"`
	New     string                `json:"new"`
	Undone  string                `json:"undone"`
	Refused string                `json:"refused"`
	Touched []api.CredentialGrant `json:"touched"`
	Error   string                `json:"error"`
}

// drill runs the demonstration program, passes on how it goes, and prints its
// report.
func (c *cli) drill(ctx context.Context, demo string, args []string) error {
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, demo, args...)
	cmd.Stdout, cmd.Stderr = &out, c.err
	if c.json {
		cmd.Stderr = io.Discard // the report has it
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	ended := cmd.Run()
	if err := ctx.Err(); err != nil {
		return err
	}
	var r drillReport
	report := bytes.TrimSpace(out.Bytes())
	if err := json.Unmarshal(report, &r); err != nil {
		return fmt.Errorf("the demonstration program %s ended without a report: %w", demo, errors.Join(ended, err))
	}
	if c.json {
		ended = errors.Join(ended, c.printJSON(json.RawMessage(report)))
	} else {
		c.printDrill(&r)
	}
	if !r.OK {
		return fmt.Errorf("the drill failed: %s", r.Error)
	}
	return ended
}

func (c *cli) printDrill(r *drillReport) {
	if !r.OK {
		return
	}
	var took time.Duration
	for _, s := range r.Steps {
		took += time.Duration(s.TookMS) * time.Millisecond
	}
	line := func(name, format string, args ...any) {
		fmt.Fprintf(c.out, "%-10s %s\n", name, clean(fmt.Sprintf(format, args...)))
	}
	line("drill", "all %d steps succeeded, in %v", len(r.Steps), took.Round(time.Second))
	line("old", "%s; a refresh token is refused with it: %s", r.Old, r.Refused)
	line("new", "%s; a grant is redeemed with it", r.New)
	line("undone", "a first attempt, which could not be completed: %s", r.Undone)
	line("meanwhile", "%d tokens were given, and none refused", r.Tokens)
	for _, g := range r.Touched {
		line("touched", "%s generation %d (%s): %s", g.Partner, g.Generation, g.State, g.Why)
	}
	c.note("For your own system: mandate credential rotate APPLICATION --compromised")
}

// demo finds the demonstration program, or builds it into dir.
func (c *cli) demo(ctx context.Context, path, dir string) (string, error) {
	if path != "" {
		if err := c.isDemo(path); err != nil {
			return "", usage("--demo: %v", err)
		}
		return path, nil
	}
	for _, name := range []string{"mandate-demo", "demo"} {
		if self, err := os.Executable(); err == nil {
			if beside := filepath.Join(filepath.Dir(self), name); c.isDemo(beside) == nil {
				return beside, nil
			}
		}
		if found, err := exec.LookPath(name); err == nil && c.isDemo(found) == nil {
			return found, nil
		}
	}
	tree := c.tree()
	if tree == "" {
		return "", errors.New(`the demonstration program is not here: this program has no emulator in it, so the drill runs in another; ` +
			`build it in a source tree of Mandate with "go build -o mandate-demo ./cmd/demo", and put it beside this program or on the PATH, or say where it is with --demo`)
	}
	c.note("building the demonstration in %s", tree)
	built := filepath.Join(dir, "demo")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", built, c.Demo)
	cmd.Dir, cmd.Stderr = tree, c.err
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("build the demonstration program in %s: %w", tree, err)
	}
	return built, nil
}

// isDemo reports why a file is not the demonstration program. Any program may
// be called "demo"; what a Go program was built from is read, and not run.
func (c *cli) isDemo(path string) error {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return err
	}
	if info.Path != c.Demo {
		return fmt.Errorf("%s is %s, and not %s", path, info.Path, c.Demo)
	}
	return nil
}

// tree returns the source tree that the working directory is in, or "".
func (c *cli) tree() string {
	module, _, _ := strings.Cut(c.Demo, "/cmd/")
	dir, err := os.Getwd()
	for ; err == nil; dir = filepath.Dir(dir) {
		mod, merr := os.ReadFile(filepath.Join(dir, "go.mod"))
		if first, _, _ := strings.Cut(string(mod), "\n"); merr == nil && strings.TrimSpace(first) == "module "+module {
			return dir
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	return ""
}
