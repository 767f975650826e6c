// Command demo shows the whole Secure Application Model on one machine:
// Mandate and an emulator of the Microsoft side, in one process, on embedded
// defaults, with no cloud account.
//
//	go run ./cmd/demo            stays up; prints what to open and what to type
//	go run ./cmd/demo -once      walks the whole way by itself and exits
//	go run ./cmd/demo -drill     rehearses that the application's credential has leaked
//
// With -once and -drill the exit code is 0 if every step succeeded, else 1.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/mandate-sam/mandate/emulator"
	"github.com/mandate-sam/mandate/internal/demo"
)

const usage = `usage: go run ./cmd/demo [flags]

Starts Mandate and an emulator of Entra ID, Partner Center, Graph and Azure
Resource Manager, and prints what to open and what to type. Ctrl-C ends it and
removes what it made.

  go run ./cmd/demo
  go run ./cmd/demo -once -json
  go run ./cmd/demo -drill

`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr *os.File) error {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(stderr)
	once := flags.Bool("once", false, "walk the whole way without a person, then exit")
	drill := flags.Bool("drill", false, "rehearse that the application's credential has leaked, then exit")
	secret := flags.Bool("secret", false, "with -drill: the application has a client secret instead of a certificate")
	asJSON := flags.Bool("json", false, "with -once or -drill: the last line on standard output is one JSON object")
	dir := flags.String("dir", "", "`directory` for what is made: empty, or one of an earlier demonstration (default: a temporary one)")
	verbose := flags.Bool("v", false, "show the logs of both programs")
	flags.Usage = func() {
		fmt.Fprint(stderr, usage)
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		if err == flag.ErrHelp {
			return nil
		}
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("there are no arguments, only flags: %q", flags.Arg(0))
	}
	log := slog.New(slog.DiscardHandler)
	if *verbose {
		log = slog.New(slog.NewTextHandler(stderr, nil))
	}
	if *drill {
		return runDrill(ctx, demo.Config{Dir: *dir, Secret: *secret, Log: log}, *asJSON, stdout, stderr)
	}
	if *once {
		return runOnce(ctx, *dir, *asJSON, log, stdout, stderr)
	}
	return stayUp(ctx, *dir, log, stdout)
}

func runOnce(ctx context.Context, dir string, asJSON bool, log *slog.Logger, stdout, stderr *os.File) (err error) {
	out := stdout
	if asJSON {
		out = stderr // standard output is for the machine
	}
	fmt.Fprintln(out, "Mandate and an emulator of the Microsoft side; everything on this machine.")
	w := demo.Walk{Progress: newProgress(out)}
	if w.Demo, err = demo.Start(ctx, demo.Config{Dir: dir, Log: log}); err == nil {
		err = w.Run(ctx)
		if cerr := w.Close(); err == nil && cerr != nil {
			w.Result.OK, w.Result.Failed, w.Result.Error = false, "stop", cerr.Error()
			err = cerr
		}
	} else {
		w.Result.Failed, w.Result.Error = "start", err.Error()
	}
	if asJSON {
		if jerr := json.NewEncoder(stdout).Encode(w.Result); err == nil {
			err = jerr
		}
		return err
	}
	if err == nil {
		fmt.Fprintf(out, "\nDone: one consent, %d audiences, %d customers with %d users, %d audit records.\nTo try it yourself: go run ./cmd/demo\n",
			len(w.Result.Audiences), w.Result.Customers, w.Result.Users, w.Result.AuditRecords)
	}
	return err
}

func stayUp(ctx context.Context, dir string, log *slog.Logger, stdout io.Writer) error {
	d, err := demo.Start(ctx, demo.Config{Dir: dir, Ports: demo.WellKnown(), Log: log})
	if err != nil {
		return fmt.Errorf("%w\n(Is a demonstration running already? `go run ./cmd/demo -once` uses other ports.)", err)
	}
	in, err := d.Invite(ctx)
	if err == nil {
		instructions(stdout, d, in.Link, dir == "")
		select {
		case <-ctx.Done():
		case err = <-d.Done:
			d.Done <- err
		}
	}
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return err
}

func instructions(w io.Writer, d *demo.Demo, link string, temporary bool) {
	e := d.Emulator.Endpoints()
	fmt.Fprintf(w, `Mandate is running, with an emulator of the Microsoft side.

1. Be the partner. Open this invitation in a browser and sign in as %[1]s:

     %[2]s

   The certificate is of a new authority, made for this run. Either pass the
   browser's warning (twice: for this site and for the emulated Entra), or
   start a browser that trusts this one authority and nothing else new:

     chromium --user-data-dir="$(mktemp -d)" \
       --ignore-certificate-errors-spki-list=%[3]s \
       %[2]s

2. Be the service. In another terminal:

     export MANDATE_SOCKET=%[4]s
     go run ./cmd/mandate partner show contoso
     go run ./cmd/mandate token contoso graph --purpose demo > token.txt
     go run ./cmd/mandate call contoso partnercenter GET /v1/customers --all --purpose demo
     go run ./cmd/mandate audit tail

3. Over the network, as a caller with a secret of its own:

     go run ./cmd/mandate caller add demo-service
     curl --cacert %[5]s -u demo-service %[6]s/v1/tokens \
       --json '{"partner":"contoso","audience":"graph","purpose":"demo"}'

4. See it refuse. Invite anybody of Contoso, and sign in as nomfa@ (no MFA),
   tech@ (no agent of the partner) or helpdesk@contoso.example (may not consent):

     go run ./cmd/mandate partner invite contoso --tenant %[14]s --any-user

Emulated   Entra %[7]s, Partner Center %[8]s,
           Graph %[9]s, ARM %[10]s,
           dials, to make trouble: %[11]s
Files      %[12]s

Ctrl-C ends it%[13]s.
`, demo.User, link, d.Emulator.CA().SPKI(), d.Socket, d.File("ca.pem"), d.API,
		e.Login, e.PartnerCenter, e.Graph, e.ARM, e.Admin, d.Dir, map[bool]string{true: " and removes the files"}[temporary], emulator.ContosoTenant)
}
