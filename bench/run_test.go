package main

import (
	"context"
	"errors"
	"io"
	"math"
	"regexp"
	"slices"
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	for _, tt := range []struct {
		in   []float64
		want float64
	}{
		{[]float64{3}, 3},
		{[]float64{9, 1, 5}, 5},
		{[]float64{4, 1, 2, 100}, 3},
	} {
		in := slices.Clone(tt.in)
		if got := median(tt.in); got != tt.want {
			t.Errorf("median(%v): got %v, want %v", in, got, tt.want)
		}
		if !slices.Equal(in, tt.in) {
			t.Errorf("median(%v) changed its argument to %v", in, tt.in)
		}
	}
	if got := median(nil); !math.IsNaN(got) {
		t.Errorf("median of nothing: got %v, want NaN", got)
	}
}

// One round in which the machine was busy must not move the ratio.
func TestRatioIsTakenRoundByRound(t *testing.T) {
	r := compare("x", "ns", []float64{10, 100, 10}, []float64{5, 50, 5})
	if r.Ratio != 2 || r.Value != 10 || r.Floor != 5 {
		t.Errorf("got value %v, floor %v, ratio %v; want 10, 5, 2", r.Value, r.Floor, r.Ratio)
	}
}

func TestPercentile(t *testing.T) {
	var d []time.Duration
	for i := range 100 {
		d = append(d, time.Duration(100-i))
	}
	for p, want := range map[float64]time.Duration{50: 50, 99: 99, 100: 100, 0: 1} {
		if got := percentile(slices.Clone(d), p); got != want {
			t.Errorf("percentile %v of 1…100: got %d, want %d", p, got, want)
		}
	}
	if got := percentile(nil, 99); got != 0 {
		t.Errorf("percentile of nothing: got %v, want 0", got)
	}
}

func TestInterleave(t *testing.T) {
	var order string
	contend := func(name string, v float64) contender {
		return func(context.Context) (float64, error) { order += name; return v, nil }
	}
	e := &env{progress: io.Discard}
	v, err := e.interleave(t.Context(), "test", 3, contend("a", 1), contend("b", 2))
	if err != nil {
		t.Fatal(err)
	}
	if order != "ab"+"ba"+"ab"+"ba" {
		t.Errorf("order: got %q, want a round to warm up and three, back and forth", order)
	}
	if !slices.Equal(v[0], []float64{1, 1, 1}) || !slices.Equal(v[1], []float64{2, 2, 2}) {
		t.Errorf("got %v, want three values of each, each in its place", v)
	}
}

func TestInterleaveEndsEarly(t *testing.T) {
	e := &env{progress: io.Discard}
	broken := errors.New("broken")
	if _, err := e.interleave(t.Context(), "test", 3, func(context.Context) (float64, error) { return 0, broken }); !errors.Is(err, broken) {
		t.Errorf("got %v, want the contender's error", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	_, err := e.interleave(ctx, "test", 3, func(context.Context) (float64, error) { n++; cancel(); return 0, nil })
	if n != 1 || !errors.Is(err, context.Canceled) {
		t.Errorf("after a cancellation: %d runs and %v, want 1 and context.Canceled", n, err)
	}
}

func TestPick(t *testing.T) {
	all := []benchCase{{rows: []string{"a/x", "a/y"}}, {rows: []string{"b/x"}}}
	picked := pick(all, regexp.MustCompile("x$"))
	if len(picked) != 2 || !slices.Equal(picked[0].rows, []string{"a/x"}) {
		t.Errorf("got %v, want one row of each case", picked)
	}
	if picked := pick(all, regexp.MustCompile("^b")); len(picked) != 1 || picked[0].rows[0] != "b/x" {
		t.Errorf("got %v, want the second case only", picked)
	}
}

// A case that measured more than was asked for shows only that; one that
// failed says so in each of its rows.
func TestCaseRows(t *testing.T) {
	c := benchCase{
		rows: []string{"a"}, want: map[string]bool{"a": true},
		run: func(context.Context, *env) ([]row, error) { return []row{{Name: "a", OK: true}, {Name: "b"}}, nil },
	}
	rows, err := c.measure(t.Context(), nil)
	if err != nil || len(rows) != 1 || rows[0].Name != "a" {
		t.Errorf("got %v and %v, want row a alone", rows, err)
	}
	c.run = func(context.Context, *env) ([]row, error) { return nil, errors.New("no disk") }
	rows, err = c.measure(t.Context(), nil)
	if err == nil || len(rows) != 1 || rows[0].OK || rows[0].Note != "not measured: no disk" {
		t.Errorf("got %v and %v, want row a, not ok, with the reason", rows, err)
	}
}

func TestRowNamesAreUnique(t *testing.T) {
	seen := make(map[string]bool)
	for _, c := range cases {
		for _, name := range c.rows {
			if seen[name] {
				t.Errorf("%s appears twice", name)
			}
			seen[name] = true
		}
	}
}
