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

// The token cache and the wheel are not exported, so the parent module's own
// benchmarks do the work of these cases.
var (
	cacheCase  = benchCase{rows: []string{"G1/cache", "G1/cache-allocs"}, run: runCache}
	hotCase    = benchCase{rows: []string{"G3/hot-key"}, run: runHot}
	growthCase = benchCase{rows: []string{"G4/growth"}, run: runGrowth}
	memoryCase = benchCase{rows: []string{"G10/heap", "G10/heap-churned", "G10/gc"}, run: runMemory}
	wheelCase  = benchCase{rows: []string{"G11/reschedule", "G11/tick", "G11/bytes"}, run: runWheel}
)

func runCache(ctx context.Context, e *env) ([]row, error) {
	m, err := inner(ctx, e, "BenchmarkCache", choose(e, 41, 21), "cache-ns", "floor-ns", "ratio", "cache-allocs")
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

func runHot(ctx context.Context, e *env) ([]row, error) {
	m, err := inner(ctx, e, "BenchmarkCacheHot", choose(e, 31, 15), "speedup", "apart-speedup", "ratio")
	if err != nil {
		return nil, err
	}
	r := row{Name: "G3/hot-key", Value: m["speedup"], Unit: "times", Floor: m["apart-speedup"], Ratio: m["ratio"]}
	return []row{r.judge(&target{"ratio", ">=", 0.9}, "goroutines that want the same token are in each other's way")}, nil
}

func runGrowth(ctx context.Context, e *env) ([]row, error) {
	m, err := inner(ctx, e, "BenchmarkCacheGrowth", choose(e, 31, 15), "large-ns", "small-ns", "ratio")
	if err != nil {
		return nil, err
	}
	r := row{Name: "G4/growth", Value: m["large-ns"], Unit: "ns", Floor: m["small-ns"], Ratio: m["ratio"]}
	return []row{r.judge(&target{"ratio", "<=", 8}, "a random token is in no cache of the processor")}, nil
}

func runMemory(ctx context.Context, e *env) ([]row, error) {
	m, err := inner(ctx, e, "BenchmarkCacheMemory", choose(e, 11, 7), "heap-ratio", "churned-ratio", "token-bytes", "gc-ms")
	if err != nil {
		return nil, err
	}
	heap := func(name, metric string) row {
		return row{Name: name, Value: m[metric] * m["token-bytes"], Unit: "bytes", Floor: m["token-bytes"], Ratio: m[metric], Note: upkeepNote(e)}
	}
	gc := row{Name: "G10/gc", Value: m["gc-ms"], Unit: "ms", Floor: none, Ratio: none, Note: upkeepNote(e)}
	return []row{
		heap("G10/heap", "heap-ratio").judge(&target{"ratio", "<=", 1.1}, "what is kept beside the token is too long"),
		heap("G10/heap-churned", "churned-ratio").judge(&target{"ratio", "<=", 1.2}, "too much is dead before it is compacted"),
		gc.judge(&target{"value", "<=", 20}, "the garbage collector has too much to follow, or too little time"),
	}, nil
}

func runWheel(ctx context.Context, e *env) ([]row, error) {
	m, err := inner(ctx, e, "BenchmarkWheel", 1, "millions/s", "tick-us", "bytes")
	if err != nil {
		return nil, err
	}
	one := func(name, metric, unit string) row {
		return row{Name: name, Value: m[metric], Unit: unit, Floor: none, Ratio: none, Note: upkeepNote(e)}
	}
	return []row{
		one("G11/reschedule", "millions/s", "M/s").judge(&target{"value", ">=", 5}, "it takes too long"),
		one("G11/tick", "tick-us", "us").judge(&target{"value", "<=", 50}, "it takes too long"),
		one("G11/bytes", "bytes", "bytes").judge(&target{"value", "<=", 16}, "it is too large"),
	}, nil
}

// upkeepTokens is how many tokens there are where memory and upkeep are
// measured.
func upkeepTokens(e *env) int { return choose(e, 1_000_000, 100_000) }

func upkeepNote(e *env) string {
	if e.quick {
		return fmt.Sprintf("with %d tokens, not a million", upkeepTokens(e))
	}
	return ""
}

// inner runs a benchmark of the parent module's root package and returns what
// it reports.
func inner(ctx context.Context, e *env, name string, rounds int, want ...string) (map[string]number, error) {
	e.say("%s: go test -bench in the parent module", name)
	dir, err := goTool(ctx, "", "list", "-m", "-f", "{{.Dir}}", "github.com/mandate-sam/mandate")
	if err != nil {
		return nil, err
	}
	out, err := goTool(ctx, strings.TrimSpace(dir), "test", "-run", "^$", "-bench", "^"+name+"$", "-benchtime", "1x",
		".", "-args", "-bench.rounds", strconv.Itoa(rounds), "-bench.tokens", strconv.Itoa(upkeepTokens(e)))
	if err != nil {
		return nil, err
	}
	return benchMetrics(out, name, want...)
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
