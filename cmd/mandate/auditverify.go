package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/audit"
)

// errDoesNotHold: an export is not what was signed.
var errDoesNotHold = errors.New("the export does not hold")

// verifyFlags are what an auditor has beside the export.
type verifyFlags struct {
	key                              string
	checkpoints, receipts, witnesses []string
}

func (c *cli) auditVerifyCommand() *cobra.Command {
	var f verifyFlags
	cmd := &cobra.Command{
		Use:   "verify EXPORT",
		Short: "Verify an export, offline and with the public key alone",
		Long: `Verify computes everything in an export anew: each record's hash, the tree over
them, what was signed, the number and chain of every partner's records, and that no
token was recorded in an epoch that a revocation had ended. It needs no server and no
network: only the export, "-" for standard input, and the log's public key, which you
have from somebody you trust and not from whoever gave you the export.

An export can be whole in itself and still not the truth: an older one, or another
one that was signed with a stolen key. So hold it against what was kept elsewhere,
and fetch that before the export, which must not be the older one:

  --checkpoint FILE    checkpoints from a witness: its file, or a blob; for one partner's
                       records those that they lead to (mandate audit prove --since)
  --witness KEY        public key of a cosigner that must have signed
  --receipt INDEX:HASH the record of a token's answer, or a file with one a line

The first record that is wrong is named, and the exit status is 1.`,
		Example: `  mandate audit verify export.jsonl --key log.pub
  mandate audit verify export.jsonl --key log.pub --checkpoint /mnt/witness/checkpoints --receipt 1042:9f86d081…`,
		Args: words("EXPORT"),
		RunE: func(_ *cobra.Command, args []string) error { return c.verify(args[0], f) },
	}
	cmd.Flags().StringVar(&f.key, "key", "", "public key of the log: name+hash+base64, or a file with it")
	cmd.Flags().StringArrayVar(&f.checkpoints, "checkpoint", nil, "file with checkpoints that were kept elsewhere")
	cmd.Flags().StringArrayVar(&f.witnesses, "witness", nil, "public key of a cosigner, or a file with it")
	cmd.Flags().StringArrayVar(&f.receipts, "receipt", nil, "INDEX:HASH, or a file with receipts as JSON, one a line")
	need(cmd, "key")
	return cmd
}

func (c *cli) verify(path string, f verifyFlags) error {
	v, err := f.verification()
	if err != nil {
		return err
	}
	in := c.in
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		in = file
	}
	v.Progress = c.progress("verified")
	verdict, err := audit.Verify(in, v)
	if err != nil {
		return err
	}
	if err := c.printVerdict(verdict); err != nil || verdict.OK {
		return err
	}
	return fmt.Errorf("%w: %s", errDoesNotHold, verdict.Problem)
}

func (c *cli) printVerdict(v audit.Verdict) error {
	if c.json {
		return c.printJSON(v)
	}
	if !v.OK {
		if v.First >= 0 {
			fmt.Fprintf(c.out, "first bad record: %d\n", v.First)
		}
		return nil
	}
	about := "the whole log"
	if v.Chain != "" {
		about = "all that are about " + v.Chain
	}
	if v.Dropped > 0 {
		about += fmt.Sprintf(", of which the first %d have lost their content", v.Dropped)
	}
	_, err := fmt.Fprintf(c.out, "%s: %d record(s), %s\nsigned: %d record(s), root %s, at %s\n",
		cell{"holds", green}.painted(colored(c.out)), v.Records, clean(about), v.Size, v.Root, v.Time)
	if v.Kept > 0 {
		fmt.Fprintf(c.out, "fits the checkpoints that were kept, of up to %d record(s)\n", v.Kept)
	}
	if v.Receipts > 0 {
		fmt.Fprintf(c.out, "fits %d receipt(s)\n", v.Receipts)
	}
	for _, size := range v.Witness {
		fmt.Fprintf(c.out, "a witness signed the first %d\n", size)
	}
	if v.Kept == 0 && v.Receipts == 0 && len(v.Witness) == 0 {
		c.note("held against the key alone: an older export would hold too, and one that was signed with a stolen key; see mandate audit verify --help")
	}
	return err
}

// progress returns a function that tells a person at a terminal how far
// something is, twice a second.
func (c *cli) progress(what string) func(int64) {
	if c.json || !terminal(c.err) {
		return nil
	}
	next := time.Now().Add(time.Second)
	return func(n int64) {
		if now := time.Now(); now.After(next) {
			next = now.Add(time.Second / 2)
			fmt.Fprintf(c.err, "\r%d records %s", n, what)
		}
	}
}

func (f *verifyFlags) verification() (v audit.Verification, err error) {
	text, err := textOrFile("key", f.key)
	if err != nil {
		return v, err
	}
	if v.Key, err = audit.ParseKey(text); err != nil {
		return v, usage("--key: %v", err)
	}
	for _, w := range f.witnesses {
		if text, err = textOrFile("witness", w); err != nil {
			return v, err
		}
		key, err := audit.ParseWitnessKey(text)
		if err != nil {
			return v, usage("--witness: %v", err)
		}
		v.Witnesses = append(v.Witnesses, key)
	}
	for _, path := range f.checkpoints {
		data, err := os.ReadFile(path)
		if err != nil {
			return v, err
		}
		if len(bytes.TrimSpace(data)) == 0 {
			return v, fmt.Errorf("%s: it is empty: whatever was kept there is gone", path)
		}
		found, err := audit.SplitCheckpoints(data)
		if err != nil {
			return v, fmt.Errorf("%s: %w", path, err)
		}
		v.Checkpoints = append(v.Checkpoints, found...)
	}
	for _, r := range f.receipts {
		some, err := parseReceipts(r)
		if err != nil {
			return v, err
		}
		v.Receipts = append(v.Receipts, some...)
	}
	return v, nil
}

// textOrFile returns s if it is a key, or what is in the file of that name.
func textOrFile(flag, s string) (string, error) {
	if strings.Contains(s, "+") {
		return s, nil
	}
	b, err := os.ReadFile(s)
	if err != nil {
		return "", usage("--%s: %.100q is neither a public key nor a file that can be read", flag, s)
	}
	return strings.TrimSpace(string(b)), nil
}

// parseReceipts reads INDEX:HASH, or a file with answers of the token API or
// receipts out of them, one a line.
func parseReceipts(s string) ([]mandate.Receipt, error) {
	if index, hash, ok := strings.Cut(s, ":"); ok {
		n, err := strconv.ParseInt(index, 10, 64)
		if err == nil && n >= 0 && len(hash) == 64 {
			return []mandate.Receipt{{Index: n, Hash: hash}}, nil
		}
	}
	data, err := os.ReadFile(s)
	if err != nil {
		return nil, usage("--receipt: %.100q is neither INDEX:HASH nor a file", s)
	}
	var out []mandate.Receipt
	for d := json.NewDecoder(bytes.NewReader(data)); ; {
		var v struct {
			mandate.Receipt
			Record *mandate.Receipt `json:"record"`
		}
		err := d.Decode(&v)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if v.Record != nil {
			v.Receipt = *v.Record
		}
		if err != nil || v.Index < 0 || len(v.Hash) != 64 {
			return nil, fmt.Errorf("%s: receipt %d is not one", s, len(out)+1)
		}
		out = append(out, v.Receipt)
	}
}
