package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/audit"
)

// filters are the flags that select records, and what they are called in the
// API if that is something else.
var filters = []struct{ name, help string }{
	{"partner", "partner's short name or tenant id"}, {"kind", "issued, denied, failed, decided, refreshed, consented, refused, staged, changed"},
	{"caller", "who asked"}, {"tenant", "tenant id of a customer, or the partner's own"}, {"audience", "resource of the API"}, {"purpose", "purpose"},
	{"request", "joins the records of one request"}, {"fingerprint", "SHA-256 of a token, hex"}, {"uti", "Entra's id of a token"},
	{"correlation", "Entra's id of the redemption that brought a token"},
	{"ticket", "ticket, in full"}, {"user", "object id of a user"}, {"from", "from then on: 2026-11-21, or with a time, or 24h ago as 24h"}, {"to", "before then"},
}

// A selection is the flags of a search.
type selection map[string]*string

func selects(cmd *cobra.Command) selection {
	s := make(selection)
	for _, f := range filters {
		s[f.name] = cmd.Flags().String(f.name, "", f.help)
	}
	return s
}

// query returns the parameters for the API.
func (s selection) query() (url.Values, error) {
	q := make(url.Values)
	for name, v := range s {
		if *v == "" {
			continue
		}
		q.Set(name, *v)
		if name == "from" || name == "to" {
			t, err := parseWhen(name, *v)
			if err != nil {
				return nil, err
			}
			q.Set(name, t.UTC().Format(time.RFC3339))
		}
	}
	return q, nil
}

// parseWhen reads a day, a time, or how long ago.
func parseWhen(flag, s string) (time.Time, error) {
	for _, form := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.ParseInLocation(form, s, time.Local); err == nil {
			return t, nil
		}
	}
	d, err := parsePeriod(flag, s)
	return time.Now().Add(-d), err
}

func (c *cli) auditSearchCommand() *cobra.Command {
	var limit int
	var before int64
	cmd := &cobra.Command{
		Use:   "search",
		Short: "Find records",
		Long: `Search shows the records that fit all that is given, the newest first: whose rights
were used by whom, for which customer and what. Tickets and users are encrypted in
the log, and are found by their whole text only. For the next page, name the number of
the last record that was shown with --before: records that are added meanwhile move
nothing.`,
		Example: `  mandate audit search --partner contoso --from 7d
  mandate audit search --kind denied --before 1042
  mandate audit search --ticket INC-1042 --json
  mandate audit search --fingerprint 9f86d081884c7d65…`,
		Args: words(),
	}
	s := selects(cmd)
	cmd.Flags().IntVarP(&limit, "limit", "n", 50, "how many records at most, up to 1000")
	cmd.Flags().Int64Var(&before, "before", 0, "only records before the one with this number")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		q, err := s.query()
		if err != nil {
			return err
		}
		if limit < 1 || limit > 1000 {
			return usage("--limit must be from 1 to 1000; for more use --before, or mandate audit export")
		}
		q.Set("limit", strconv.Itoa(limit))
		if cmd.Flags().Changed("before") {
			q.Set("before", strconv.FormatInt(before, 10))
		}
		client, err := c.client()
		if err != nil {
			return err
		}
		found, err := client.SearchAudit(cmd.Context(), q)
		if err != nil {
			return err
		}
		for _, e := range found {
			line, err := json.Marshal(e)
			if err != nil {
				return err
			}
			if err := c.printRecord(line); err != nil {
				return err
			}
		}
		if len(found) == 0 {
			c.note("no record fits")
		}
		if n := len(found); n == limit && found[n-1].Index > 0 {
			c.note("there may be more: --before %d", found[n-1].Index)
		}
		return nil
	}
	return cmd
}

func (c *cli) auditReportCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "report",
		Short: "Count who used which partner's rights for what",
		Long: `Report counts the records that fit all that is given, by partner, caller, purpose,
tenant and API. What was allowed and has neither a token nor a failure on record is
counted as unknown: the server ended in between, and Microsoft may have issued one.`,
		Example: "  mandate audit report --from 30d\n  mandate audit report --partner contoso --from 2026-01-01 --json",
		Args:    words(),
	}
	s := selects(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		q, err := s.query()
		if err != nil {
			return err
		}
		client, err := c.client()
		if err != nil {
			return err
		}
		uses, err := client.ReportAudit(cmd.Context(), q)
		if err != nil {
			return err
		}
		if c.json {
			return c.printJSON(uses)
		}
		return c.printUses(uses)
	}
	return cmd
}

func (c *cli) printUses(uses []audit.Usage) error {
	if len(uses) == 0 {
		c.note("no record fits")
		return nil
	}
	var rows [][]cell
	for _, u := range uses {
		tenant := u.Tenant.String()
		if u.Tenant.IsZero() || strings.HasSuffix(u.Chain, "/"+tenant) {
			tenant = "own"
		}
		rows = append(rows, plain(u.Partner, string(u.Caller), u.Purpose, tenant, strings.TrimPrefix(string(u.Audience), "https://"),
			strconv.FormatInt(u.Issued, 10), strconv.FormatInt(u.Denied, 10), strconv.FormatInt(u.Failed, 10),
			strconv.FormatInt(u.Possibly, 10), day(u.Last)))
	}
	return table(c.out, []string{"PARTNER", "CALLER", "PURPOSE", "TENANT", "API", "ISSUED", "DENIED", "FAILED", "UNKNOWN", "LAST"}, rows)
}

func (c *cli) auditExportCommand() *cobra.Command {
	var format, output string
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write the log to a file",
		Long: `Export writes records to standard output, or to a new file that only you can read.

  --format jsonl  the whole log as it is, or with --partner that partner's records with
                  their proofs: what "mandate audit verify" takes. Personal data in it is
                  encrypted; --format keys --partner NAME writes what opens it.
  --format csv    for a spreadsheet; what would be a formula there is made harmless
  --format ocsf   one OCSF 1.4 event a line, for a SIEM`,
		Example: `  mandate audit export --output export.jsonl
  mandate audit export --format csv --partner contoso --from 30d > contoso.csv`,
		Args: words(),
	}
	s := selects(cmd)
	cmd.Flags().StringVar(&format, "format", "jsonl", "jsonl, csv, ocsf or keys")
	cmd.Flags().StringVarP(&output, "output", "o", "", "new file to write to")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		q, err := s.query()
		if err != nil {
			return err
		}
		if len(q) > 1 && format == "jsonl" || len(q) == 1 && q.Get("partner") == "" && format == "jsonl" {
			return usage("--format jsonl takes --partner and nothing else: it is complete or it proves nothing")
		}
		if format == "keys" && (q.Get("partner") == "" || len(q) > 1) {
			return usage("--format keys needs --partner, and takes nothing else")
		}
		q.Set("format", format)
		return c.export(cmd, q, output)
	}
	return cmd
}

func (c *cli) auditProveCommand() *cobra.Command {
	var since []int
	var output string
	cmd := &cobra.Command{
		Use:   "prove PARTNER",
		Short: "Prove to a partner which records are about it",
		Long: `Prove writes an export for one partner: each record about it, with the proof that it
is in the log; the proof that these are all; and for each --since the proof that the
log at that many records, under a checkpoint that the partner has kept, is contained
in the log of now. Of other partners it shows nothing but hashes. The partner verifies
it with "mandate audit verify", or any program that follows docs/audit.md.`,
		Example: "  mandate audit prove contoso --since 1042 --output contoso.jsonl",
		Args:    words("PARTNER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := url.Values{"partner": {args[0]}}
			var sizes []string
			for _, n := range since {
				sizes = append(sizes, strconv.Itoa(n))
			}
			if len(sizes) > 0 {
				q.Set("since", strings.Join(sizes, ","))
			}
			return c.export(cmd, q, output)
		},
	}
	cmd.Flags().IntSliceVar(&since, "since", nil, "`size` of a checkpoint that the partner has")
	cmd.Flags().StringVarP(&output, "output", "o", "", "new file to write to")
	return cmd
}

// export copies an export to standard output, or to a file that gets its name
// only when it is whole.
func (c *cli) export(cmd *cobra.Command, q url.Values, output string) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	if output == "" {
		return client.ExportAudit(cmd.Context(), c.out, q)
	}
	if _, err := os.Lstat(output); err == nil {
		return usage("--output: %s is there already", output)
	}
	f, err := os.CreateTemp(filepath.Dir(output), ".export-*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // after the renaming there is none
	defer f.Close()
	if err := client.ExportAudit(cmd.Context(), &counting{f, c.progress("bytes written"), 0}, q); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return os.Rename(f.Name(), output)
}

// A counting writer tells how much was written.
type counting struct {
	*os.File
	tell func(int64)
	n    int64
}

// Write implements [io.Writer].
func (w *counting) Write(b []byte) (int, error) {
	n, err := w.File.Write(b)
	if w.n += int64(n); w.tell != nil {
		w.tell(w.n)
	}
	return n, err
}

func (c *cli) auditStateCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "state",
		Short:   "Show the latest checkpoint, and how far the witnesses are",
		Long:    "State shows who vouches for the log. A witness that is behind has not seen everything.",
		Example: "  mandate audit state --json",
		Args:    words(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			s, err := client.AuditState(cmd.Context())
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(s)
			}
			return c.printState(s)
		},
	}
}

func (c *cli) printState(s api.AuditState) error {
	if len(s.Witnesses) == 0 {
		c.note("there is no witness: whoever has the server can rewrite the log and sign it again")
	}
	fmt.Fprintf(c.out, "key: %s\n\n%s\n", clean(s.Key), s.Checkpoint)
	var rows [][]cell
	for _, w := range s.Witnesses {
		rows = append(rows, []cell{{text: w.Name}, {text: strconv.FormatInt(w.Size, 10)}, {text: strconv.FormatInt(w.Behind, 10)}, witnessState(&w)})
	}
	return table(c.out, []string{"WITNESS", "RECORDS", "BEHIND", "STATE"}, rows)
}

func witnessState(w *audit.WitnessStatus) cell {
	switch since := moment(w.Since); {
	case w.Changed:
		return cell{"has seen another log, noticed at " + since + ": " + w.Error, red}
	case w.Error != "":
		return cell{"takes none since " + since + ": " + w.Error, red}
	case w.Time.IsZero():
		return cell{"has none yet", yellow}
	}
	return cell{"takes checkpoints", green}
}
