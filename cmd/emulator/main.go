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
	"strings"
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
	json    bool
	verbose bool
}

const long = `Emulator runs a stand-in for the Microsoft side of the Secure Application Model
on this machine: Entra ID with real sign-in pages, Partner Center, Graph,
Azure Resource Manager and Key Vault. It listens on loopback only. Everything it knows is
lost when it ends, and its keys are new at every start.

It is not made by or for Microsoft. Never type a real password into its pages.`

const example = `  # Start on the usual ports, and write down which CA to trust.
  emulator --ca-out /tmp/emulator-ca.pem

  # Then, in another terminal:
  curl --cacert /tmp/emulator-ca.pem \
    https://localhost:9443/contoso.example/v2.0/.well-known/openid-configuration

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
	f.StringVar(&o.fixture, "fixture", "", "YAML file that says who exists, instead of the built-in tenants (see cmd/emulator/tenants.yaml)")
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
	e, err := emulator.Start(emulator.Config{Seed: o.seed, Ports: o.ports, Fixture: fixture, Log: log})
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

// description is what --json prints.
type description struct {
	Endpoints   emulator.Endpoints `json:"endpoints"`
	Seed        uint64             `json:"seed,string"`
	CAFile      string             `json:"ca_file,omitempty"`
	CA          string             `json:"ca_pem"`
	SPKI        string             `json:"ca_spki_sha256"`
	Application string             `json:"application_id"`
	Secret      string             `json:"application_secret"`
	Users       []emulator.User    `json:"users"`
}

func newDescription(e *emulator.Emulator, o options) description {
	return description{
		Endpoints: e.Endpoints(), Seed: e.Seed(), CAFile: o.caOut, CA: string(e.CA().PEM()), SPKI: e.CA().SPKI(),
		Application: emulator.ApplicationID, Secret: emulator.ApplicationSecret, Users: users(e),
	}
}

// users lists who can sign in at the partners.
func users(e *emulator.Emulator) []emulator.User {
	var all []emulator.User
	for _, t := range e.Tenants() {
		if t.Kind == "partner" {
			all = append(all, e.Users(t.ID)...)
		}
	}
	return all
}

// guestMail is the other name of a guest, the one that people type.
func guestMail(u emulator.User) string {
	if u.Guest() {
		return " (" + u.Mail + ")"
	}
	return ""
}

func text(e *emulator.Emulator, o options) string {
	var b strings.Builder
	p := e.Endpoints()
	fmt.Fprintf(&b, `Emulated cloud (not Microsoft), on this machine only.

  Identity platform  %s
  Partner Center     %s
  Graph              %s
  Resource Manager   %s
  Key Vault          %s
  Dials              %[6]s  (a page; the API behind it is described at %[6]s/emulator/openapi.json)

  Seed               %d  (--seed repeats this run)

`, p.Login, p.PartnerCenter, p.Graph, p.ARM, p.KeyVault, p.Admin, e.Seed())
	b.WriteString("Applications\n")
	for _, a := range e.Applications() {
		fmt.Fprintf(&b, "  %s  %s", a.ID, a.Name)
		if len(a.Secrets) > 0 {
			fmt.Fprintf(&b, "  (secret: %s)", a.Secrets[0])
		}
		b.WriteString("\n")
	}
	b.WriteString("\nTenants\n")
	for _, t := range e.Tenants() {
		fmt.Fprintf(&b, "  %-9s %s  %-18s %s\n", t.Kind, t.ID, t.Domain, t.Name)
	}
	b.WriteString("\nPartner users (no passwords)\n")
	for _, u := range users(e) {
		fmt.Fprintf(&b, "  %s%s\n", u.UPN, guestMail(u))
	}
	b.WriteString("\n" + trust(e, o) + "\nStop with Ctrl-C. Everything is forgotten then.\n")
	return b.String()
}

// trust says how clients come to trust the CA without a system store.
func trust(e *emulator.Emulator, o options) string {
	if o.caOut == "" {
		return "Trust: start with --ca-out FILE to get the CA's certificate.\n"
	}
	return fmt.Sprintf(`Trust (never install this CA in a system store)
  curl       --cacert %[1]s
  Go         SSL_CERT_FILE=%[1]s
  Node       NODE_EXTRA_CA_CERTS=%[1]s
  Python     REQUESTS_CA_BUNDLE=%[1]s
  Chromium   --ignore-certificate-errors-spki-list=%[2]s
`, o.caOut, e.CA().SPKI())
}
