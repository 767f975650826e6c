package main

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/mandate-sam/mandate/internal/spelling"
)

const rootLong = `Mandate keeps the consent that CSP partners gave, and turns it into access tokens
for the callers that a rule allows, for one tenant, one API and one purpose at a
time. Every decision is recorded before it takes effect.

"mandate serve" runs the server. The other commands talk to a running server
through its operator socket; the kernel tells the server which user is asking.
The socket is the first of these:

  --socket PATH
  $MANDATE_SOCKET
  $XDG_RUNTIME_DIR/mandate.sock   if it is there
  /run/mandate/mandate.sock       if it is there

Operators who sign in ("mandate login") name the server instead, with --server or
$MANDATE_SERVER.

Results go to standard output, everything else to standard error. With --json
both are JSON: one object, or one a line for lists that go on.

Exit status:
  0  done
  1  failed, or the API that was called answered with an error
  2  the command line, or a field of the request, is wrong
  3  denied: no rule allows it, or the token would be wider than the rule
  4  no server answers
  5  a person must act first: no active grant, or Microsoft refused
  6  not now: try again later`

// A cli is one run of the command line.
type cli struct {
	program
	stdio
	socket string
	server string
	json   bool

	breakGlass string
}

// run runs the command line args and returns the exit status.
func run(ctx context.Context, p program, args []string, s stdio) int {
	c := &cli{program: p, stdio: s}
	root := c.root()
	root.SetArgs(args)
	root.SetIn(s.in)
	root.SetOut(s.out)
	root.SetErr(s.err)
	err := root.ExecuteContext(ctx)
	// When the command line could not be read, neither was the flag.
	c.json = c.json || err != nil && slices.Contains(args, "--json")
	return c.report(err)
}

func (c *cli) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "mandate",
		Short: "Access tokens from partners' consents, under rules, on the record",
		Long:  rootLong,
		Example: `  mandate config example > mandate.yaml
  mandate serve --config mandate.yaml
  mandate partner invite contoso --tenant 11111111-2222-3333-4444-555555555555 --user ada@contoso.example
  mandate call contoso partnercenter GET /v1/customers --purpose support`,
		SilenceErrors:              true,
		SilenceUsage:               true,
		SuggestionsMinimumDistance: 2,
	}
	root.PersistentFlags().StringVar(&c.socket, "socket", "", "the server's operator socket (default: see \"mandate --help\")")
	root.PersistentFlags().StringVar(&c.server, "server", "", "the server's API, for operators who have signed in (default: $MANDATE_SERVER, else the socket)")
	root.PersistentFlags().StringVar(&c.breakGlass, "break-glass", "", "why this must be done over the socket although operators sign in; recorded and told")
	root.PersistentFlags().BoolVar(&c.json, "json", false, "write JSON, errors too")
	root.SetFlagErrorFunc(flagError)
	group(root)
	root.AddCommand(c.serveCommand(), c.configCommand(), c.partnerCommand(), c.customerCommand(), c.noticeCommand(), c.grantCommand(), c.callerCommand(), c.approvalCommand(), c.loginCommand(), c.logoutCommand(),
		c.tokenCommand(), c.callCommand(), c.auditCommand(), c.witnessCommand(), c.policyCommand(), c.forecastCommand(), c.doctorCommand(), c.versionCommand())
	root.AddCommand(c.keyCommand(), c.lockdownCommand(), c.revokeCommand(), c.backupCommand(), c.restoreCommand(), c.vaultCommand(), c.credentialCommand(), c.drillCommand())
	strictHelp(root)
	return root
}

// group makes cmd one that has only subcommands: alone it shows its help, and
// with a word that is none of them it says what may have been meant.
func group(cmd *cobra.Command) *cobra.Command {
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		return noCommand(cmd, args[0])
	}
	return cmd
}

// noCommand says that word is no command of cmd, and what may have been meant.
func noCommand(cmd *cobra.Command, word string) error {
	cmd.SuggestionsMinimumDistance = 2
	meant := cmd.SuggestionsFor(word)
	if len(meant) == 0 {
		meant = elsewhere(cmd.Root(), word)
	}
	if len(meant) == 0 {
		return usage("%q is not a command of %q; see %s --help", word, cmd.CommandPath(), cmd.CommandPath())
	}
	return usage("%q is not a command of %q; did you mean %s?", word, cmd.CommandPath(), strings.Join(meant, " or "))
}

// elsewhere returns the commands below cmd whose last word that is, in full;
// none if they are so many that nobody is helped.
func elsewhere(cmd *cobra.Command, word string) (paths []string) {
	for _, sub := range cmd.Commands() {
		if sub.Name() == word && sub.IsAvailableCommand() {
			paths = append(paths, sub.CommandPath())
		}
		paths = append(paths, elsewhere(sub, word)...)
	}
	if len(paths) > 3 {
		return nil
	}
	return paths
}

// strictHelp has "help" refuse a word that is no command, as the command line
// without it does.
func strictHelp(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	help, _, err := root.Find([]string{"help"})
	if err != nil {
		return
	}
	help.Run, help.Example = nil, "  mandate help partner invite"
	help.RunE = func(_ *cobra.Command, args []string) error {
		cmd, rest, err := root.Find(args)
		switch {
		case err != nil:
			return usage("%v", err)
		case len(rest) > 0:
			return noCommand(cmd, rest[0])
		}
		return cmd.Help()
	}
}

// flagError makes a mistake in the flags a usage error, with the flag that may
// have been meant.
func flagError(cmd *cobra.Command, err error) error {
	if errors.Is(err, pflag.ErrHelp) {
		return err
	}
	var bad *pflag.InvalidValueError
	if errors.As(err, &bad) {
		flag := bad.GetFlag()
		what := map[string]string{"bool": "true or false", "duration": "a time such as 90s, 15m or 24h"}[flag.Value.Type()]
		return usage("--%s: %.100q is not %s", flag.Name, bad.GetValue(), cmp.Or(what, "a number"))
	}
	word, ok := strings.CutPrefix(err.Error(), "unknown flag: --")
	if !ok {
		return usage("%v; see %s --help", err, cmd.CommandPath())
	}
	var flags []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { flags = append(flags, f.Name) })
	best := spelling.Nearest(word, flags, 2)
	if best == "" {
		return usage("unknown flag --%s; see %s --help", word, cmd.CommandPath())
	}
	return usage("unknown flag --%s; did you mean --%s?", word, best)
}

// words wants exactly the arguments that are named. The last of them may be
// left out if it is in brackets.
func words(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names) && !strings.HasPrefix(names[len(args)], "["):
			return usage("%s is missing; see %s --help", names[len(args)], cmd.CommandPath())
		case len(args) > len(names) && cmd.HasSubCommands():
			return noCommand(cmd, args[len(names)])
		case len(args) > len(names):
			return usage("%q is one argument too many; see %s --help", args[len(names)], cmd.CommandPath())
		}
		return nil
	}
}

// need makes flags required.
func need(cmd *cobra.Command, flags ...string) {
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		for _, name := range flags {
			if !cmd.Flags().Changed(name) {
				return usage("--%s is required; see %s --help", name, cmd.CommandPath())
			}
		}
		return run(cmd, args)
	}
}
