// Command bench measures Mandate beside what it could at best cost, and
// prints a table. README.md says how to read it.
//
//	go run .                     everything, in some minutes
//	go run . -quick              everything, in a minute or two once built
//	go run . -run 'G8/' -json    some rows, one JSON object a line
//
// A missed target is a row that says so, and not a failure. The exit code is
// 1 if a row could not be measured, and 130 after Ctrl-C, when whatever was
// measured until then is printed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"syscall"
)

const usage = `usage: go run . [flags]

Measures Mandate beside a floor, in interleaved rounds, and prints a table of
medians and of their ratios. README.md explains every row.

  go run .
  go run . -quick -run 'G1/|tokens-http/'
  go run . -json > results.jsonl

`

// errRows: some row could not be measured; the table says which and why.
var errRows = errors.New("not every row could be measured")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case err == nil:
		return
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(os.Stderr, "bench: interrupted; the table is not whole")
		os.Exit(130)
	}
	fmt.Fprintln(os.Stderr, "bench:", err)
	os.Exit(1)
}

// options are what the command line says.
type options struct {
	json, quick, list bool
	pick              *regexp.Regexp
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.BoolVar(&o.json, "json", false, "one JSON object a line instead of a table")
	flags.BoolVar(&o.quick, "quick", false, "fewer and shorter rounds: a minute or two once built")
	flags.BoolVar(&o.list, "list", false, "print the names of the rows and end")
	pick := flags.String("run", "", "measure only the rows whose names match `regexp`")
	flags.Usage = func() {
		fmt.Fprint(stderr, usage)
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("there are no arguments, only flags: %q", flags.Arg(0))
	}
	var err error
	if o.pick, err = regexp.Compile(*pick); err != nil {
		return o, fmt.Errorf("-run: %w", err)
	}
	return o, nil
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	picked := pick(cases, o.pick)
	if len(picked) == 0 {
		return fmt.Errorf("no row matches -run %q; -list shows them all", o.pick)
	}
	if o.list {
		for _, c := range picked {
			for _, name := range c.rows {
				fmt.Fprintln(stdout, name)
			}
		}
		return nil
	}
	return measure(ctx, picked, o, stdout, stderr)
}

// measure runs the cases one after the other and prints their rows: as JSON
// when each is known, as a table at the end.
func measure(ctx context.Context, picked []benchCase, o options, stdout, stderr io.Writer) error {
	e := &env{quick: o.quick, progress: stderr}
	var all []row
	var failed bool
	for _, c := range picked {
		rows, err := c.measure(ctx, e)
		if ctx.Err() != nil {
			break
		}
		failed = failed || err != nil
		if o.json {
			if err := writeJSON(stdout, rows); err != nil {
				return err
			}
		}
		all = append(all, rows...)
	}
	if !o.json {
		if err := writeTable(stdout, all); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if failed {
		return errRows
	}
	return nil
}
