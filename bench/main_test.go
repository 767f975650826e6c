package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	o, err := parse([]string{"-json", "-quick", "-run", "^G8/"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if !o.json || !o.quick || o.list || o.pick.String() != "^G8/" {
		t.Errorf("got %+v", o)
	}
	for _, args := range [][]string{{"-run", "("}, {"-fast"}, {"G1"}} {
		if _, err := parse(args, io.Discard); err == nil {
			t.Errorf("%q was accepted", args)
		}
	}
}

func TestRun(t *testing.T) {
	var out, progress bytes.Buffer
	if err := run(t.Context(), []string{"-list", "-run", "G8/first|tokens-http/d"}, &out, &progress); err != nil {
		t.Fatal(err)
	}
	if got, want := out.String(), "G8/first-caller-cancelled\ntokens-http/disk\n"; got != want {
		t.Errorf("-list: got %q, want %q", got, want)
	}
	if err := run(t.Context(), []string{"-run", "nothing"}, &out, &progress); err == nil || !strings.Contains(err.Error(), "-list") {
		t.Errorf("-run nothing: got %v, want an error that tells of -list", err)
	}
	if err := run(t.Context(), []string{"-help"}, &out, &progress); err != nil || !strings.Contains(progress.String(), "usage:") {
		t.Errorf("-help: got %v and %q", err, progress.String())
	}
}

func TestMeasure(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	good := benchCase{rows: []string{"good"}, run: func(context.Context, *env) ([]row, error) {
		return []row{row{Name: "good", Value: 1, Unit: "ns", Floor: none, Ratio: none}.report()}, nil
	}}
	bad := benchCase{rows: []string{"bad"}, run: func(context.Context, *env) ([]row, error) { return nil, errors.New("no disk") }}
	interrupted := benchCase{rows: []string{"late"}, run: func(context.Context, *env) ([]row, error) { cancel(); return nil, ctx.Err() }}

	var out bytes.Buffer
	if err := measure(ctx, []benchCase{bad, good}, options{json: true}, &out, io.Discard); !errors.Is(err, errRows) {
		t.Errorf("a row that could not be measured: got %v, want errRows", err)
	}
	if n := strings.Count(out.String(), "\n"); n != 2 {
		t.Errorf("got %d rows, want both:\n%s", n, &out)
	}
	out.Reset()
	if err := measure(ctx, []benchCase{good, interrupted, bad}, options{}, &out, io.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: got %v, want context.Canceled", err)
	}
	if got := out.String(); !strings.Contains(got, "good") || strings.Contains(got, "late") || strings.Contains(got, "bad") {
		t.Errorf("interrupted: got\n%s\nwant what was measured until then", got)
	}
}
