package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// cacheCase is G1: the token cache alone. It is not exported, so the parent
// module's own benchmark does the work.
var cacheCase = benchCase{
	rows: []string{"G1/cache", "G1/cache-allocs"},
	run:  runCache,
}

func runCache(ctx context.Context, e *env) ([]row, error) {
	e.say("G1/cache: go test -bench in the parent module")
	dir, err := goTool(ctx, "", "list", "-m", "-f", "{{.Dir}}", "github.com/mandate-sam/mandate")
	if err != nil {
		return nil, err
	}
	out, err := goTool(ctx, strings.TrimSpace(dir), "test", "-run", "^$", "-bench", "^BenchmarkCache$", "-benchtime", "1x",
		".", "-args", "-bench.rounds", strconv.Itoa(choose(e, 41, 21)))
	if err != nil {
		return nil, err
	}
	m, err := benchMetrics(out, "BenchmarkCache", "cache-ns", "floor-ns", "ratio", "cache-allocs")
	if err != nil {
		return nil, err
	}
	return []row{
		row{Name: "G1/cache", Value: m["cache-ns"], Unit: "ns", Floor: m["floor-ns"], Ratio: m["ratio"]}.judge(
			&target{"ratio", "<=", 1.2}, "the key is wider than the floor's, since generation, application, cloud and scopes are part of it"),
		row{Name: "G1/cache-allocs", Value: m["cache-allocs"], Unit: "allocs", Floor: none, Ratio: none}.judge(
			&target{"value", "=", 0}, "a hit allocates"),
	}, nil
}

// goTool runs the go command and returns its output; interrupting this
// program interrupts it too.
func goTool(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%w: %.500s", err, strings.TrimSpace(string(exit.Stderr)+" "+string(out)))
	}
	if err != nil {
		return "", fmt.Errorf("go %s: %w", args[0], err)
	}
	return string(out), nil
}

// benchMetrics returns what a benchmark reported, from the output of go test.
func benchMetrics(out, name string, want ...string) (map[string]number, error) {
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != name && !strings.HasPrefix(f[0], name+"-") {
			continue
		}
		m := make(map[string]number)
		for i := 2; i+1 < len(f); i += 2 {
			v, err := strconv.ParseFloat(f[i], 64)
			if err != nil {
				return nil, fmt.Errorf("%s: %q is not a number", name, f[i])
			}
			m[f[i+1]] = number(v)
		}
		for _, unit := range want {
			if _, ok := m[unit]; !ok {
				return nil, fmt.Errorf("%s does not report %s", name, unit)
			}
		}
		return m, nil
	}
	return nil, fmt.Errorf("go test printed no result of %s", name)
}
