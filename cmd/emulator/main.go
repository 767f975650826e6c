// Command emulator runs the Microsoft side of the Secure Application Model on
// this machine: Entra ID, Partner Center, Graph and Azure Resource Manager,
// for tests and trials without a cloud account.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/mandate-sam/mandate/emulator"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command(os.Stdout, os.Stderr).ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "emulator:", err)
		stop()
		os.Exit(1)
	}
}

// options are the command's flags.
type options struct {
	ports   emulator.Ports
	seed    uint64
	caOut   string
	fixture string
	vaults  []string
	listen  string
	off     bool
	name    string
	json    bool
	verbose bool
}

const long = `Emulator runs a stand-in for the Microsoft side of the Secure Application Model
on this machine: Entra ID with real sign-in pages, Partner Center, Graph,
Azure Resource Manager and Key Vault. It listens on loopback, and elsewhere only
if it is told so twice. Everything it knows is lost when it ends, and its keys
are new at every start.

It is not made by or for Microsoft. Never type a real password into its pages.`

const example = `  # Start on the usual ports, and write down which CA to trust.
  emulator --ca-out /tmp/emulator-ca.pem

  # Then, in another terminal:
  curl --cacert /tmp/emulator-ca.pem \
    https://localhost:9443/contoso.example/v2.0/.well-known/openid-configuration

  # In a container, for others of the same network, which call it "entra".
  emulator --listen 0.0.0.0 --off-loopback --name entra --ca-out /shared/ca.pem

  # Any free ports, a repeatable run, and a description for a program to read.
  emulator --login-port 0 --partner-center-port 0 --graph-port 0 --arm-port 0 --key-vault-port 0 --admin-port 0 --seed 7 --json`

func command(out, errOut io.Writer) *cobra.Command {
	var o options
	c := &cobra.Command{
		Use:           "emulator",
		Short:         "Run an emulated Microsoft cloud for the Secure Application Model",
		Long:          long,
		Example:       example,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(c *cobra.Command, _ []string) error { return run(c.Context(), o, out, errOut) },
	}
	f := c.Flags()
	f.IntVar(&o.ports.Login, "login-port", 9443, "port of the identity platform; 0: any")
	f.IntVar(&o.ports.PartnerCenter, "partner-center-port", 9444, "port of Partner Center; 0: any")
	f.IntVar(&o.ports.Graph, "graph-port", 9445, "port of Graph; 0: any")
	f.IntVar(&o.ports.ARM, "arm-port", 9446, "port of Azure Resource Manager; 0: any")
	f.IntVar(&o.ports.KeyVault, "key-vault-port", 9447, "port of the first Key Vault; 0: any")
	f.IntVar(&o.ports.Admin, "admin-port", 9449, "port of the admin API; 0: any")
	f.Uint64Var(&o.seed, "seed", 0, "make ids and choices repeatable; 0: random")
	f.StringVar(&o.fixture, "fixture", "", "YAML or JSON file that says who exists, instead of the built-in tenants (see cmd/emulator/tenants.yaml)")
	f.StringArrayVar(&o.vaults, "vault", nil, "make a vault, NAME or NAME@TENANT (id or domain); may be repeated; none: "+emulator.DefaultVault)
	f.StringVar(&o.listen, "listen", "", "address to listen on instead of loopback; needs --off-loopback too")
	f.BoolVar(&o.off, "off-loopback", false, "yes, let others reach it: they can sign in as anybody in it and turn its dials")
	f.StringVar(&o.name, "name", "", "host name in all URLs, instead of localhost; the CA is for that name too")
	f.StringVar(&o.caOut, "ca-out", "", "write the CA's certificate (PEM) to this file, with mode 0600")
	f.BoolVar(&o.json, "json", false, "describe the emulator as one JSON object")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "log requests to standard error")
	return c
}

// run runs an emulator until the context ends.
func run(ctx context.Context, o options, out, errOut io.Writer) error {
	log := slog.New(slog.DiscardHandler)
	if o.verbose {
		log = slog.New(slog.NewTextHandler(errOut, nil))
	}
	fixture, err := readFixture(o.fixture)
	if err != nil {
		return err
	}
	e, err := emulator.Open(emulator.Config{Seed: o.seed, Ports: o.ports, Fixture: fixture, Vaults: o.vaults, Log: log, Listen: o.listen, OffLoopback: o.off, Name: o.name})
	if err != nil {
		return err
	}
	err = describe(e, o, out)
	if err == nil {
		<-ctx.Done()
	}
	return errors.Join(err, e.Close())
}

// readFixture reads the fixture in the file at path; "" is the built-in one.
func readFixture(path string) (*emulator.Fixture, error) {
	if path == "" {
		return nil, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	f, err := emulator.ParseFixture(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

func describe(e *emulator.Emulator, o options, out io.Writer) error {
	if o.caOut != "" {
		if err := writeFile(o.caOut, e.CA().PEM()); err != nil {
			return fmt.Errorf("write CA certificate: %w", err)
		}
	}
	if o.json {
		return json.NewEncoder(out).Encode(newDescription(e, o))
	}
	_, err := io.WriteString(out, text(e, o))
	return err
}

// writeFile replaces the file in one step, so that a reader never sees half a
// certificate, and so that an old file's mode does not stay.
func writeFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".emulator-ca-*") // with mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone already if all went well
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
