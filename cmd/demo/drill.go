package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/mandate-sam/mandate/internal/demo"
)

// runDrill rehearses the loss of the application's credential, and prints a
// report.
func runDrill(ctx context.Context, cfg demo.Config, asJSON bool, stdout, stderr *os.File) error {
	out := stdout
	if asJSON {
		out = stderr // standard output is for the machine
	}
	fmt.Fprintln(out, "A drill: the application's credential has leaked. Mandate and an emulator of the Microsoft side; everything on this machine.")
	d := demo.Drill{Progress: newProgress(out)}
	var err error
	if d.Demo, err = demo.Start(ctx, cfg); err == nil {
		err = errors.Join(d.Run(ctx), d.Close())
	}
	if err != nil {
		d.Report.OK, d.Report.Error = false, err.Error()
	}
	if asJSON {
		return errors.Join(err, json.NewEncoder(stdout).Encode(d.Report))
	}
	if err == nil {
		fmt.Fprintf(out, "\nDone: the old credential is refused, %d tokens were given meanwhile and none refused.\nFor your own system: mandate credential rotate APPLICATION --compromised\n", d.Report.Tokens)
	}
	return err
}
