package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/audit"
)

func (c *cli) auditEraseCommand() *cobra.Command {
	var partner, month string
	cmd := &cobra.Command{
		Use:   "erase",
		Short: "Make a partner's personal data of one month unreadable",
		Long: `Erase destroys the key under which users, addresses, tickets, the paths of calls and
the reasons of refusals are encrypted in the records about a partner, for one month
that is over. The records stay, and so does everything that verifies them. It cannot
be undone; keys in backups of the database are yours to destroy, and so are those
that were exported. That it was done is recorded.`,
		Example: "  mandate audit erase --partner contoso --month 2026-10",
		Args:    words(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			out, err := client.EraseAudit(cmd.Context(), api.EraseRequest{Partner: partner, Month: month})
			if err != nil {
				return err
			}
			return c.printTidied(out, "erased")
		},
	}
	cmd.Flags().StringVar(&partner, "partner", "", "short name or tenant id")
	cmd.Flags().StringVar(&month, "month", "", "month such as 2026-10")
	need(cmd, "partner", "month")
	return cmd
}

func (c *cli) auditDropCommand() *cobra.Command {
	var older string
	cmd := &cobra.Command{
		Use:   "drop",
		Short: "Remove the content of old records",
		Long: `Drop removes the content of records that are older, and keeps their hashes, so that
the rest of the log can be verified as before. A server that keeps its log in files
drops whole files of 64 MB. Export first what you have to keep. That it was done is
recorded.`,
		Example: "  mandate audit drop --older-than 730d",
		Args:    words(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			age, err := parsePeriod("older-than", older)
			if err != nil {
				return err
			}
			if age < 24*time.Hour {
				return usage("--older-than must be at least 1d")
			}
			client, err := c.client()
			if err != nil {
				return err
			}
			out, err := client.DropAudit(cmd.Context(), api.DropRequest{Before: time.Now().Add(-age)})
			if err != nil {
				return err
			}
			return c.printTidied(out, fmt.Sprintf("%d record(s) lost their content", out.Records))
		},
	}
	cmd.Flags().StringVar(&older, "older-than", "", "age such as 730d")
	need(cmd, "older-than")
	return cmd
}

func (c *cli) printTidied(t api.Tidied, text string) error {
	if c.json {
		return c.printJSON(t)
	}
	_, err := fmt.Fprintf(c.out, "%s; record %d\n", text, t.Record.Index)
	return err
}

func (c *cli) auditKeyCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:     "key",
		Short:   "Make or show the key that signs checkpoints",
		Long:    `Key has commands about the key that signs the audit log's checkpoints.`,
		Example: "  mandate audit key show /var/lib/mandate/audit.key",
	})
	var origin string
	fresh := &cobra.Command{
		Use:   "new FILE",
		Short: "Make a key for replicas that share a log",
		Long: `New makes a key in a new file that only you can read, and prints its public half:
give that to whoever is to verify exports. A server that is alone makes its key by
itself.`,
		Example: "  mandate audit key new audit.key --origin consent.example.com/audit",
		Args:    words("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := audit.WriteKey(args[0], origin); err != nil {
				return err
			}
			return c.showKey(args[0])
		},
	}
	fresh.Flags().StringVar(&origin, "origin", "", "name of the log, such as consent.example.com/audit")
	need(fresh, "origin")
	show := &cobra.Command{
		Use:     "show FILE",
		Short:   "Print the public half of a key",
		Long:    "Show prints the public half of the key in a file.",
		Example: "  mandate audit key show audit.key > log.pub",
		Args:    words("FILE"),
		RunE:    func(_ *cobra.Command, args []string) error { return c.showKey(args[0]) },
	}
	cmd.AddCommand(fresh, show)
	return cmd
}

func (c *cli) showKey(path string) error {
	_, public, err := audit.ReadKey(path)
	if err != nil {
		return err
	}
	if c.json {
		return c.printJSON(map[string]string{"key": audit.Public(public)})
	}
	_, err = fmt.Fprintln(c.out, audit.Public(public))
	return err
}

// witnessFlags are what a witness is told.
type witnessFlags struct {
	listen, dir, key, name, cert, certKey string
	logs                                  []string
}

func (c *cli) witnessCommand() *cobra.Command {
	var f witnessFlags
	cmd := &cobra.Command{
		Use:   "witness",
		Short: "Run a witness of somebody's audit log",
		Long: `Witness remembers the last checkpoint of each log it knows, and signs a later one only
if the log still contains everything that was in the one before. Run it on a machine
that the administrators of the log do not have. It speaks C2SP tlog-witness
(POST /add-checkpoint). Its key is made at the first start; the public half is printed,
for audit.witnesses in the log's configuration and for "mandate audit verify --witness".`,
		Example: `  mandate witness --listen 127.0.0.1:8480 --log-key log.pub --dir /var/lib/witness --name witness.example.org
  mandate witness --listen :8480 --tls-cert w.pem --tls-key w.key --log-key log.pub --dir /var/lib/witness --name w1`,
		Args: words(),
		RunE: func(cmd *cobra.Command, _ []string) error { return c.witness(cmd.Context(), f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.listen, "listen", "127.0.0.1:8480", "host:port")
	flags.StringArrayVar(&f.logs, "log-key", nil, "public key of a log, or a file with it")
	flags.StringVar(&f.dir, "dir", "", "directory of what was seen")
	flags.StringVar(&f.key, "key-file", "", "key of the witness (default: witness.key in the directory)")
	flags.StringVar(&f.name, "name", "", "name of the witness, which its key has too")
	flags.StringVar(&f.cert, "tls-cert", "", "certificate chain, PEM")
	flags.StringVar(&f.certKey, "tls-key", "", "its key, PEM")
	need(cmd, "log-key", "dir", "name")
	return cmd
}

func (c *cli) witness(ctx context.Context, f witnessFlags) error {
	var logs []audit.Verifier
	for _, s := range f.logs {
		text, err := textOrFile("log-key", s)
		if err != nil {
			return err
		}
		key, err := audit.ParseKey(text)
		if err != nil {
			return usage("--log-key: %v", err)
		}
		logs = append(logs, key)
	}
	if f.key == "" {
		f.key = f.dir + "/witness.key"
	}
	w, err := audit.NewCosigner(f.dir, f.key, f.name, logs...)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", f.listen)
	if err != nil {
		return err
	}
	if c.json {
		err = c.printJSON(map[string]string{"key": w.Key(), "address": l.Addr().String()})
	} else {
		_, err = fmt.Fprintln(c.out, w.Key())
		c.note("listening on %s", l.Addr())
	}
	if err != nil {
		return err
	}
	return serveWitness(ctx, l, w, f)
}

func serveWitness(ctx context.Context, l net.Listener, h http.Handler, f witnessFlags) error {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 20 * time.Second, WriteTimeout: 20 * time.Second, MaxHeaderBytes: 16 << 10}
	defer context.AfterFunc(ctx, func() { s.Close() })()
	var err error
	if f.cert != "" {
		err = s.ServeTLS(l, f.cert, f.certKey)
	} else {
		err = s.Serve(l)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
