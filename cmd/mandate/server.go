package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mandate-sam/mandate/api"
)

// client returns a client of the running server.
func (c *cli) client() (*api.Client, error) {
	if c.server != "" && c.socket != "" {
		return nil, usage("--server and --socket do not go together")
	}
	if c.serverURL() != "" {
		return c.overNetwork()
	}
	path, err := c.findSocket()
	if err != nil {
		return nil, err
	}
	client, err := api.NewSocketClient(path)
	if err != nil || c.breakGlass == "" {
		return client, err
	}
	return client.BreakGlass(c.breakGlass), nil
}

// findSocket returns the socket that was named, or else the first of the usual
// ones that is there. One that was named is never passed over for another
// server's.
func (c *cli) findSocket() (string, error) {
	if c.socket != "" {
		return c.socket, nil
	}
	looked := []string{"--socket (not given)"}
	if path := os.Getenv("MANDATE_SOCKET"); path != "" {
		return path, nil
	}
	looked = append(looked, "$MANDATE_SOCKET (not set)")
	var usual []string
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		usual = append(usual, filepath.Join(dir, "mandate.sock"))
	} else {
		looked = append(looked, "$XDG_RUNTIME_DIR/mandate.sock (not set)")
	}
	for _, path := range append(usual, "/run/mandate/mandate.sock") {
		_, err := os.Stat(path)
		if err == nil {
			return path, nil
		}
		reason := "not there"
		if !os.IsNotExist(err) {
			reason = err.Error()
		}
		looked = append(looked, fmt.Sprintf("%s (%s)", path, reason))
	}
	return "", fmt.Errorf("%w: looked for its socket at %s", api.ErrUnreachable, strings.Join(looked, ", "))
}

// A completer returns the values that begin an argument.
type completer func(context.Context, *api.Client) ([]string, error)

// complete asks the server for values while the user presses Tab. A server
// that does not answer at once completes nothing.
func (c *cli) complete(position int, values completer) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		const none = cobra.ShellCompDirectiveNoFileComp
		if len(args) != position && position >= 0 {
			return nil, none
		}
		client, err := c.client()
		if err != nil {
			return nil, none
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), time.Second)
		defer cancel()
		all, err := values(ctx, client)
		if err != nil {
			return nil, none
		}
		var out []string
		for _, v := range all {
			if strings.HasPrefix(v, prefix) {
				out = append(out, v)
			}
		}
		return out, none
	}
}

func partnerNames(ctx context.Context, client *api.Client) ([]string, error) {
	all, err := client.Partners(ctx)
	var names []string
	for _, p := range all {
		names = append(names, p.Name)
	}
	return names, err
}

func audiences(ctx context.Context, client *api.Client) ([]string, error) {
	st, err := client.Status(ctx)
	return st.Audiences, err
}

func applications(ctx context.Context, client *api.Client) ([]string, error) {
	st, err := client.Status(ctx)
	return st.Applications, err
}

// byPosition completes each argument in its own way.
func byPosition(each ...cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= len(each) {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return each[len(args)](cmd, args, prefix)
	}
}
