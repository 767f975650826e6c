package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/mandate-sam/mandate/api"
)

// maxRefresh is the longest refresh token that is read, in bytes. The server's
// own limit is lower.
const maxRefresh = 64 << 10

// An importRun is one run of "grant import".
type importRun struct {
	in  api.ImportRequest
	url string // of a Key Vault; "" for standard input
	as  string // the layout there
	who string // the server's identity there
	all bool
}

func (c *cli) importCommand() *cobra.Command {
	var run importRun
	var term string
	cmd := &cobra.Command{
		Use:   "import {PARTNER - | PARTNER --from-key-vault URL | --all --from-key-vault URL}",
		Short: "Take over a refresh token that was obtained elsewhere",
		Long: `Import makes a grant of a refresh token that another program obtained from the same
application. The partner must be known here: invite it first. The token is read from
standard input, where no other user of the machine can see it, or by the server out of
an Azure Key Vault, in one of two layouts:

  samples   that of Microsoft's samples: a secret named by the partner's tenant id
  cipp      CIPP's: RefreshToken, with TenantID and ApplicationID that must fit, or
            else a secret named by the tenant id

Everything that a consent proves is proven: tenant, user, MFA, agent groups and each
API. An imported grant lasts thirty days at most; a consent that is given here takes
its place. If the partner has a grant already, it waits for "mandate grant approve".

With --dry-run everything is proven and nothing is stored. Redeeming a token does not
make it useless to the program that it comes from.`,
		Example: `  mandate grant import contoso - --user ada@contoso.example --dry-run < refresh-token.txt
  mandate grant import contoso --from-key-vault https://old.vault.azure.net --identity importer
  mandate grant import --all --from-key-vault https://cipp.vault.azure.net --layout cipp --json`,
		Args:              run.args,
		ValidArgsFunction: c.complete(0, partnerNames),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if term != "" {
				if run.in.Term, err = seconds("term", term); err != nil {
					return err
				}
			}
			return c.importGrants(cmd.Context(), &run, args)
		},
	}
	f := cmd.Flags()
	f.StringVar(&run.url, "from-key-vault", "", "URL of the vault that has the refresh tokens, such as https://old.vault.azure.net")
	f.StringVar(&run.as, "layout", "", "whose layout the vault has: samples (default) or cipp")
	f.StringVar(&run.who, "identity", "", "as whom the server reads the vault: a name of identities in its configuration (default: the only one)")
	f.BoolVar(&run.all, "all", false, "all partners, out of a vault")
	f.StringVar(&run.in.User, "user", "", "whose it must be: a user name (UPN) or object id (default: any user of the tenant)")
	f.StringVar(&term, "term", "", "how long the grant may last, at most and by default 30d")
	f.BoolVar(&run.in.DryRun, "dry-run", false, "prove everything and store nothing")
	ticketFlag(cmd, &run.in.Ticket)
	_ = cmd.RegisterFlagCompletionFunc("layout", cobra.FixedCompletions([]string{api.LayoutSamples, api.LayoutCIPP}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// args wants a partner and a dash, or a partner and a vault, or all and a
// vault.
func (r *importRun) args(cmd *cobra.Command, args []string) error {
	switch {
	case r.all && r.url == "":
		return usage("--all needs --from-key-vault; see %s --help", cmd.CommandPath())
	case r.all && r.in.User != "":
		return usage("--user is one user, and --all is many partners")
	case r.all:
		return words()(cmd, args)
	case r.url != "":
		return words("PARTNER")(cmd, args)
	case r.as != "" || r.who != "":
		return usage("--layout and --identity go with --from-key-vault")
	}
	if len(args) == 1 {
		return usage("say where the refresh token is: - for standard input, or --from-key-vault URL; see %s --help", cmd.CommandPath())
	}
	if err := words("PARTNER", "-")(cmd, args); err != nil {
		return err
	}
	if args[1] != "-" {
		return usage("the refresh token is read from standard input: write - in its place, because every user of this machine can read a command line")
	}
	return nil
}

func (c *cli) importGrants(ctx context.Context, run *importRun, args []string) (err error) {
	client, err := c.client()
	if err != nil {
		return err
	}
	if run.url != "" {
		run.in.KeyVault = &api.KeyVaultSource{URL: run.url, Layout: run.as, Identity: run.who}
	} else if run.in.RefreshToken, err = c.readRefresh(); err != nil {
		return err
	}
	if run.all {
		return c.importAll(ctx, client, run)
	}
	out, err := client.Import(ctx, args[0], run.in)
	if err != nil {
		return err
	}
	if c.json {
		return c.printJSON(out)
	}
	c.note("%s", imported(out))
	head := fmt.Sprintf("%s, generation %d", out.Partner, out.Grant.Generation)
	if out.DryRun {
		head = out.Partner + ", not stored"
	}
	return table(c.out, []string{head, ""}, grantFacts(out.Partner, out.Grant, time.Now()))
}

// imported says in a sentence what became of an import.
func imported(out api.Imported) string {
	switch {
	case out.DryRun:
		return "It would do, as a grant of " + userOf(out.Grant) + ". Nothing was stored."
	case out.Waits != "":
		return fmt.Sprintf("It is proven, and waits for a decision (%s): mandate grant approve %s %d", out.Waits, out.Partner, out.Grant.Generation)
	}
	return "Imported, as a grant of " + userOf(out.Grant) + "; invite the partner to consent here before it ends on " + day(out.Grant.Until) + "."
}

// readRefresh reads a refresh token from standard input; from a terminal
// without showing it.
func (c *cli) readRefresh() (string, error) {
	var data []byte
	var err error
	if f, ok := c.in.(*os.File); ok && terminal(f) {
		fmt.Fprint(c.err, "Refresh token (not shown): ")
		data, err = term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(c.err)
	} else {
		data, err = io.ReadAll(io.LimitReader(c.in, maxRefresh+1))
	}
	if err != nil {
		return "", err
	}
	s := strings.TrimSpace(string(data))
	if s == "" || len(data) > maxRefresh {
		return "", usage("standard input has no refresh token")
	}
	return s, nil
}

// An importLine is what became of one of many.
type importLine struct {
	Partner  string        `json:"partner"`
	Imported *api.Imported `json:"imported,omitempty"`
	Error    string        `json:"error,omitempty"`
	Code     string        `json:"code,omitempty"`
}

// importAll imports for one partner after another. One that fails stops none
// of the others, but counts in the exit status.
func (c *cli) importAll(ctx context.Context, client *api.Client, run *importRun) error {
	partners, err := client.Partners(ctx)
	if err != nil {
		return err
	}
	lines := make([]importLine, 0, len(partners))
	failed := 0
	for i, p := range partners {
		c.note("%d of %d: %s", i+1, len(partners), p.Name)
		line := importLine{Partner: p.Name}
		out, err := client.Import(ctx, p.Name, run.in)
		if ctx.Err() != nil || errors.Is(err, api.ErrUnreachable) {
			return err
		}
		if err != nil {
			failed++
			line.Error = err.Error()
			_, line.Code = verdict(err)
		} else {
			line.Imported = &out
		}
		lines = append(lines, line)
	}
	if err := c.printImports(lines); err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d were not imported", failed, len(partners))
	}
	return nil
}

func (c *cli) printImports(lines []importLine) error {
	if c.json {
		return c.printJSON(map[string]any{"imports": lines})
	}
	rows := make([][]cell, 0, len(lines))
	for _, l := range lines {
		result, text := cell{"ok", green}, l.Error
		switch {
		case l.Imported == nil:
			result = cell{l.Code, red}
		case l.Imported.Waits != "":
			result, text = cell{"waits", yellow}, imported(*l.Imported)
		default:
			text = imported(*l.Imported)
		}
		rows = append(rows, []cell{{text: l.Partner}, result, {text: text}})
	}
	return table(c.out, []string{"PARTNER", "RESULT", ""}, rows)
}
