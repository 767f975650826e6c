package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func (c *cli) callerCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "caller",
		Short: "Register the workloads that may ask for tokens",
		Long: `Caller has commands about the workloads that authenticate to the API. What one may
have is for the policy to say; a new caller may have nothing.`,
		Example: "  mandate caller add billing\n  mandate caller list",
	})
	cmd.AddCommand(c.callerAddCommand(), c.callerListCommand())
	return cmd
}

func (c *cli) callerAddCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "add NAME",
		Short: "Register a workload and print its secret once",
		Long: `Add registers a workload and prints its secret. The server keeps a hash of it, so
it cannot be shown again: send it straight to where it is to be kept.`,
		Example: "  mandate caller add billing > /run/secrets/mandate-billing",
		Args:    words("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			secret, err := client.AddCaller(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(map[string]string{"id": args[0], "secret": secret.Reveal()})
			}
			c.note("Added caller %s. This is its secret, which is not shown again:", args[0])
			_, err = fmt.Fprintln(c.out, secret.Reveal())
			return err
		},
	}
}

func (c *cli) callerListCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the registered workloads",
		Long:    `List shows every registered workload. Secrets are not kept, and not shown.`,
		Example: "  mandate caller list",
		Args:    words(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			all, err := client.Callers(cmd.Context())
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(map[string]any{"callers": all})
			}
			rows := make([][]cell, 0, len(all))
			for _, caller := range all {
				rows = append(rows, plain(string(caller.ID), day(caller.Created)))
			}
			return table(c.out, []string{"NAME", "ADDED"}, rows)
		},
	}
}
