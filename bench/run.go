package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"time"
)

// A benchCase measures some rows together, because they share a floor.
type benchCase struct {
	rows []string // in the order in which run returns them
	run  func(context.Context, *env) ([]row, error)
	want map[string]bool // rows to be shown; nil means all
}

// cases are all there are.
var cases = []benchCase{
	cacheCase, tokenCase, tokenDiskCase, msalHitCase, handleCase, hotCase, growthCase, stampedeCase, msalCase,
	replicasCase, warmCase, memoryCase, wheelCase, pipelineCase, postgresCase, coldCase, httpCase, waysCase, auditHitCase, auditBatchCase, auditVerifyCase, emulatorCase, policyCase,
}

// pick returns the cases that have rows whose names match, to show only those.
func pick(all []benchCase, pattern *regexp.Regexp) []benchCase {
	var out []benchCase
	for _, c := range all {
		rows := slices.DeleteFunc(slices.Clone(c.rows), func(name string) bool { return !pattern.MatchString(name) })
		if len(rows) == 0 {
			continue
		}
		p := benchCase{rows: rows, run: c.run, want: make(map[string]bool)}
		for _, name := range rows {
			p.want[name] = true
		}
		out = append(out, p)
	}
	return out
}

// measure runs the case. If that fails, its rows say why instead.
func (c *benchCase) measure(ctx context.Context, e *env) ([]row, error) {
	rows, err := c.run(ctx, e)
	if err != nil {
		rows = nil
		for _, name := range c.rows {
			rows = append(rows, row{Name: name, Value: none, Floor: none, Ratio: none, Note: "not measured: " + err.Error()})
		}
	}
	return slices.DeleteFunc(rows, func(r row) bool { return c.want != nil && !c.want[r.Name] }), err
}

// env is what a case is told.
type env struct {
	quick    bool
	progress io.Writer
}

// choose returns full, or quick if time is short.
func choose[T any](e *env, full, quick T) T {
	if e.quick {
		return quick
	}
	return full
}

func (e *env) say(format string, args ...any) {
	fmt.Fprintf(e.progress, "bench: "+format+"\n", args...)
}

// A contender is one of the things measured side by side.
type contender func(context.Context) (float64, error)

// interleave runs every contender once a round, and returns what each
// measured in each round. A first round warms up and does not count; every
// other round goes in the opposite order, so that none always comes first.
func (e *env) interleave(ctx context.Context, name string, rounds int, contenders ...contender) ([][]float64, error) {
	out := make([][]float64, len(contenders))
	for round := range rounds + 1 {
		e.say("%s: round %d of %d", name, round, rounds)
		for i := range contenders {
			if round%2 == 1 {
				i = len(contenders) - 1 - i
			}
			v, err := contenders[i](ctx)
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				return nil, err
			}
			if round > 0 {
				out[i] = append(out[i], v)
			}
		}
	}
	return out, nil
}

// median returns the middle of v, or the mean of the two in the middle.
func median(v []float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(v))
	n := len(s)
	return (s[(n-1)/2] + s[n/2]) / 2
}

// ratio returns the median over rounds of a to b.
func ratio(a, b []float64) number {
	out := make([]float64, len(a))
	for i := range a {
		out[i] = a[i] / b[i]
	}
	return number(median(out))
}

// compare returns the row of a contender beside its floor, round by round.
func compare(name, unit string, value, floor []float64) row {
	return row{Name: name, Value: number(median(value)), Unit: unit, Floor: number(median(floor)), Ratio: ratio(value, floor)}
}

// percentile returns the smallest of d that p per cent of them do not exceed.
// It sorts d.
func percentile(d []time.Duration, p float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[max(0, int(math.Ceil(float64(len(d))*p/100))-1)]
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
