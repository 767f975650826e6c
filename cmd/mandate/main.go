// Command mandate is the server and its command line.
//
// "mandate serve" runs the server. Every other command talks to a running one
// through its operator socket, where the user that runs the command is known
// by user id: there is nothing to log in with, and no secret on any command
// line or in the environment.
package main

import (
	"context"
	"io"
	"maps"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"syscall"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/app"
)

// A program is what the commands need of the rest of the system; a test gives
// its own.
type program struct {
	// Serve runs a server of the configuration at path until ctx is done.
	Serve func(ctx context.Context, path string) error

	// Check reads the configuration at path and the files that it names, and
	// changes nothing. The error is about the configuration itself.
	Check func(path string) ([]app.Finding, error)

	// Diagnose says what the configuration at path protects from.
	Diagnose func(path string) (app.Diagnosis, error)

	// Example and Policy return commented files to begin with.
	Example, Policy func() string

	// Clouds returns the clouds of the configuration at path, or Microsoft's if
	// that is empty.
	Clouds func(path string) ([]mandate.Cloud, error)

	// NewKey makes a key file, and RotateKey puts a new key into one.
	NewKey, RotateKey func(path string) (keyID string, err error)

	// Restore brings a backup into the database of a configuration.
	Restore func(ctx context.Context, config, backup string, logs []string) (app.Restoration, error)

	// AcceptRollback takes the database of a configuration as it is.
	AcceptRollback func(ctx context.Context, config, by string) (app.Acceptance, error)

	// Move brings everything from one configuration's places to another's.
	Move func(ctx context.Context, from, to string, progress func(done, total int)) error

	// Conform tests what keeps a configuration's grants.
	Conform func(ctx context.Context, config string, found func(app.Finding)) error

	// Demo is the package of the demonstration program.
	Demo string

	Version string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, wired(), os.Args[1:], stdio{os.Stdin, os.Stdout, os.Stderr})
	stop()
	os.Exit(code)
}

// wired returns the real program.
func wired() program {
	v := version()
	return program{
		Serve: func(ctx context.Context, path string) error {
			c, err := app.LoadConfig(path)
			if err != nil {
				return err
			}
			return app.Run(ctx, c, app.Options{Version: v})
		},
		Check: func(path string) ([]app.Finding, error) {
			c, err := app.LoadConfig(path)
			if err != nil {
				return nil, err
			}
			return app.CheckFiles(c), nil
		},
		Diagnose: func(path string) (app.Diagnosis, error) {
			c, err := app.LoadConfig(path)
			if err != nil {
				return app.Diagnosis{}, err
			}
			return app.Diagnose(c), nil
		},
		NewKey: app.NewKeyFile, RotateKey: app.RotateKeyFile,
		Restore: func(ctx context.Context, config, backup string, logs []string) (app.Restoration, error) {
			c, err := app.LoadConfig(config)
			if err != nil {
				return app.Restoration{}, err
			}
			return app.Restore(ctx, c, backup, logs)
		},
		AcceptRollback: func(ctx context.Context, config, by string) (app.Acceptance, error) {
			c, err := app.LoadConfig(config)
			if err != nil {
				return app.Acceptance{}, err
			}
			return app.AcceptRollback(ctx, c, by)
		},
		Move: func(ctx context.Context, from, to string, progress func(done, total int)) error {
			source, err := app.LoadConfig(from)
			if err != nil {
				return err
			}
			target, err := app.LoadConfig(to)
			if err != nil {
				return err
			}
			return app.Move(ctx, source, target, progress)
		},
		Conform: func(ctx context.Context, config string, found func(app.Finding)) error {
			c, err := app.LoadConfig(config)
			if err != nil {
				return err
			}
			return app.CheckVaults(ctx, c, found)
		},
		Example: app.Example, Policy: app.ExamplePolicy, Clouds: clouds, Version: v,
		Demo: "github.com/mandate-sam/mandate/cmd/demo",
	}
}

// clouds returns the clouds whose audiences a policy may name.
func clouds(config string) ([]mandate.Cloud, error) {
	if config != "" {
		c, err := app.LoadConfig(config)
		if err != nil {
			return nil, err
		}
		return c.PolicyClouds()
	}
	all := mandate.Clouds()
	out := []mandate.Cloud{all["global"]}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if name != "global" {
			out = append(out, all[name])
		}
	}
	return out, nil
}

// version returns what the Go toolchain wrote into this binary.
func version() string {
	if b, ok := debug.ReadBuildInfo(); ok && b.Main.Version != "" {
		return b.Main.Version
	}
	return "(devel)"
}

// stdio are the streams of one run.
type stdio struct {
	in       io.Reader
	out, err io.Writer
}
