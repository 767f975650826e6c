package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

func (c *cli) serveCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "serve --config FILE",
		Short: "Run the server",
		Long: `Serve runs the server: the onboarding site for partners, the API for callers and
the operator socket. It writes its log to standard error and stays until it is
interrupted (SIGINT or SIGTERM); requests under way are finished first.`,
		Example: `  mandate serve --config /etc/mandate/mandate.yaml`,
		Args:    words(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.Serve(cmd.Context(), path)
		},
	}
	cmd.Flags().StringVar(&path, "config", "", "configuration file")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml")
	need(cmd, "config")
	return cmd
}

func (c *cli) configCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:     "config",
		Short:   "Write and check configuration files",
		Long:    `Config has commands about configuration files. None of them needs a server.`,
		Example: "  mandate config example > mandate.yaml\n  mandate config check mandate.yaml",
	})
	cmd.AddCommand(c.configCheckCommand(), c.configExampleCommand())
	return cmd
}

func (c *cli) configCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE",
		Short: "Check a configuration file and the files that it names",
		Long: `Check reads a configuration file as the server would, and then the files that it
names: policy, keys, certificates. It changes nothing. Unknown keys are mistakes,
and are reported with their line and what may have been meant.

The exit status is 1 if anything is wrong.`,
		Example: `  mandate config check /etc/mandate/mandate.yaml`,
		Args:    words("FILE"),
		RunE:    func(_ *cobra.Command, args []string) error { return c.checkConfig(args[0]) },
	}
}

func (c *cli) checkConfig(path string) error {
	findings, err := c.Check(path)
	if err != nil {
		return err
	}
	return c.printFindings(findings)
}

func (c *cli) configExampleCommand() *cobra.Command {
	var policy bool
	cmd := &cobra.Command{
		Use:   "example",
		Short: "Print a commented configuration file",
		Long: `Example prints a configuration file with comments, to begin with. With --policy it
prints a policy file: who may have which tokens.`,
		Example: "  mandate config example > mandate.yaml\n  mandate config example --policy > policy/policy.cedar",
		Args:    words(),
		RunE: func(*cobra.Command, []string) error {
			text := c.Example()
			if policy {
				text = c.Policy()
			}
			if c.json {
				return c.printJSON(map[string]string{"file": text})
			}
			_, err := fmt.Fprint(c.out, text)
			return err
		},
	}
	cmd.Flags().BoolVar(&policy, "policy", false, "a policy file instead")
	return cmd
}

func (c *cli) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Long:    `Version prints the version of this program and of the Go that it was built with.`,
		Example: `  mandate version --json`,
		Args:    words(),
		RunE: func(*cobra.Command, []string) error {
			if c.json {
				return c.printJSON(map[string]string{"version": c.Version, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH})
			}
			_, err := fmt.Fprintf(c.out, "mandate %s, %s, %s/%s\n", c.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}
