package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/mandate-sam/mandate/internal/app"
)

// acceptRollback takes the database as it is, and lists what counts from then
// on.
func (c *cli) acceptRollback(cmd *cobra.Command, config string) error {
	out, err := c.AcceptRollback(cmd.Context(), config, fmt.Sprintf("uid:%d", os.Getuid()))
	if err != nil {
		return err
	}
	if c.json {
		return c.printJSON(out)
	}
	if out.KeyOnly {
		c.note("%s; this host knows that now. Nothing else was done.", out.Was)
		return nil
	}
	return c.printAcceptance(&out)
}

func (c *cli) printAcceptance(out *app.Acceptance) error {
	c.note("It was: %s", out.Was)
	c.note("The database counts as it is, under epoch %d. Look at what is in it:", out.Epoch)
	var errs []error
	say := func(format string, args ...any) {
		_, err := fmt.Fprintf(c.out, format+"\n", args...)
		errs = append(errs, err)
	}
	for _, p := range out.Partners {
		say("partner %s", clean(p))
	}
	for _, id := range out.Callers {
		say("caller %s", clean(string(id)))
	}
	say("policy %s", clean(out.Policy))
	if out.Lockdown != nil {
		say("lockdown %s", clean(out.Lockdown.Reason))
	}
	c.note("%d grant(s) are suspended. Start the server, then for each: mandate grant resume PARTNER, or all with: mandate restore --finish", len(out.Suspended))
	return errors.Join(errs...)
}
