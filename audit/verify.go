package audit

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/mandate-sam/mandate"
)

// maxLine bounds a line of an export, in bytes.
const maxLine = 1 << 20

// Verification is what an export is held against.
type Verification struct {
	// Key is the public key of the log. Required.
	Key note.Verifier

	// Checkpoints are signed checkpoints that were kept elsewhere.
	Checkpoints [][]byte

	// Receipts are what callers were given with their tokens.
	Receipts []mandate.Receipt

	// Witnesses are keys of cosigners. Each must have signed a checkpoint of
	// the export, or of Checkpoints.
	Witnesses []note.Verifier

	// Progress is told how many records were read, every so often. Nil is
	// told nothing.
	Progress func(records int64)
}

// A Verdict is what verifying an export found out.
type Verdict struct {
	OK      bool    `json:"ok"`
	Records int64   `json:"records"` // that the export is about
	Dropped int64   `json:"dropped"` // of those, without content
	Size    int64   `json:"size"`    // of the log at the last checkpoint
	Root    string  `json:"root"`    // of that
	Time    string  `json:"time"`    // of that
	Chains  int     `json:"chains"`  // partners whose sequences are complete
	Chain   string  `json:"chain,omitempty"`
	Witness []int64 `json:"witness,omitempty"` // the largest size under each witness's signature

	// What it was held against beside the key: the size of the largest
	// checkpoint that was kept elsewhere, and the number of receipts.
	Kept     int64 `json:"kept,omitempty"`
	Receipts int   `json:"receipts,omitempty"`

	// First is the first record that is wrong, or -1 if none is or it is
	// not one record; Problem says what is wrong.
	First   int64  `json:"first"`
	Problem string `json:"problem,omitempty"`
}

// A problem is why an export does not hold.
type problem struct {
	first int64 // -1: not one record's
	text  string
}

func (p *problem) Error() string { return p.text }

func wrong(first int64, format string, args ...any) *problem {
	return &problem{first, fmt.Sprintf(format, args...)}
}

// Verify verifies an export, of the whole log or of one partner's records. It
// needs nothing but the export and what is in v. The error is for what could
// not be read; an export that does not hold has a verdict that says so.
func Verify(r io.Reader, v Verification) (Verdict, error) {
	if v.Key == nil {
		return Verdict{}, errors.New("verify: a public key is required")
	}
	in := bufio.NewReaderSize(r, maxLine)
	first, err := in.ReadSlice('\n')
	if err != nil {
		return Verdict{}, fmt.Errorf("verify: it does not begin with the line of an export: %w", err)
	}
	h, err := parseExportHeader(first[:len(first)-1])
	if err != nil {
		return Verdict{}, fmt.Errorf("verify: %w", err)
	}
	verdict := Verdict{First: -1, Chain: h.Chain}
	if h.Origin != v.Key.Name() {
		err = wrong(-1, "it is an export of the log %q, and the key is that of %q", h.Origin, v.Key.Name())
	} else if h.Whole {
		ahead, _ := in.Peek(in.Buffered()) // what is in memory has no error
		err = verifyWhole(io.MultiReader(bytes.NewReader(ahead), r), &v, &verdict)
	} else {
		err = verifyPartner(in, h.Chain, &v, &verdict)
	}
	var p *problem
	if errors.As(err, &p) {
		verdict.First, verdict.Problem = p.first, p.text
		return verdict, nil
	}
	if err != nil {
		return verdict, fmt.Errorf("verify: %w", err)
	}
	verdict.OK, verdict.Receipts = true, len(v.Receipts)
	for size := range v.wantedSizes() {
		verdict.Kept = max(verdict.Kept, size)
	}
	return verdict, nil
}

// A sighting is a checkpoint and where it came from.
type sighting struct {
	Checkpoint
	signed []byte
	from   string
}

// sightings parses checkpoints. One of the export that the log's key has not
// signed is wrong; one that was kept says nothing of the export then.
func (v *Verification) sightings(exported [][]byte) (out []sighting, err error) {
	for i, list := range [][][]byte{exported, v.Checkpoints} {
		from := [...]string{"the export", "the checkpoints that were kept"}[i]
		for _, signed := range list {
			c, err := ParseCheckpoint(signed, v.Key)
			switch {
			case err != nil && i == 0:
				return nil, wrong(-1, "a checkpoint in %s is not signed by the log: %v", from, err)
			case err != nil:
				return nil, fmt.Errorf("one of %s is not signed with this key, so that nothing is held against it: is it of this log, and whole? %w", from, err)
			}
			out = append(out, sighting{c, signed, from})
		}
	}
	return out, nil
}

// witnessed checks that every witness has signed something, and notes up to
// where.
func (v *Verification) witnessed(all []sighting, verdict *Verdict) error {
	for _, key := range v.Witnesses {
		largest := int64(-1)
		for _, s := range all {
			if _, err := note.Open(s.signed, note.VerifierList(key)); err == nil {
				largest = max(largest, s.Size)
			}
		}
		if largest < 0 {
			return wrong(-1, "no checkpoint has the signature of the witness %s", key.Name())
		}
		verdict.Witness = append(verdict.Witness, largest)
	}
	return nil
}

// A receiptBook has the receipts by index.
type receiptBook map[int64]string

func newReceiptBook(receipts []mandate.Receipt) (receiptBook, error) {
	b := make(receiptBook)
	for _, r := range receipts {
		if other, ok := b[r.Index]; ok && other != r.Hash {
			return nil, wrong(r.Index, "two receipts of record %d have different hashes: the log was shown in two versions", r.Index)
		}
		b[r.Index] = strings.ToLower(r.Hash)
	}
	return b, nil
}

// see holds a leaf against the receipt of that index, if there is one.
func (b receiptBook) see(index int64, leaf tlog.Hash) error {
	if len(b) == 0 {
		return nil
	}
	want, ok := b[index]
	if !ok {
		return nil
	}
	delete(b, index)
	if got := hex.EncodeToString(leaf[:]); got != want {
		return wrong(index, "record %d is not the one that its receipt is of: its leaf hash is %s, and was %s", index, got, want)
	}
	return nil
}

// rest returns the problem of a receipt whose record was not there.
func (b receiptBook) rest(of string) error {
	if len(b) == 0 {
		return nil
	}
	first := slices.Min(slices.Collect(maps.Keys(b)))
	return wrong(first, "record %d is missing from %s: there is a receipt of it", first, of)
}

// A sequence follows the records of chains.
type sequence struct {
	links map[string]*step
	epoch int64 // the highest so far
	since int64 // the record that had it first
	whole int64 // the first record that has its content, or -1
}

// A step is the last record of a chain, and where it is.
type step struct {
	link
	index int64
}

func newSequence() *sequence { return &sequence{links: make(map[string]*step), since: -1, whole: -1} }

// follow takes the next record in.
func (s *sequence) follow(h *head, leaf tlog.Hash) error {
	last := s.links[h.chain]
	switch {
	case last == nil && h.seq != 1:
		return wrong(h.index, "record %d is number %d of the records about %s, and none came before it: %d are missing", h.index, h.seq, chainName(h.chain), h.seq-1)
	case last == nil && h.prev != tlog.Hash{}:
		return wrong(h.index, "record %d is the first about %s, and names one before it", h.index, chainName(h.chain))
	case last != nil && h.seq != last.seq+1:
		return wrong(h.index, "record %d is number %d of the records about %s, and the one before it is number %d", h.index, h.seq, chainName(h.chain), last.seq)
	case last != nil && h.prev != last.hash:
		return wrong(last.index, "record %d is not the one that record %d was written after: its content has changed, or another was put in its place", last.index, h.index)
	}
	if ofToken(h.kind) && h.epoch < s.epoch {
		return wrong(h.index, "record %d is of a token that was decided in epoch %d, and follows record %d of epoch %d: a revocation lies in between", h.index, h.epoch, s.since, s.epoch)
	}
	if h.epoch > s.epoch {
		s.epoch, s.since = h.epoch, h.index
	}
	if s.whole < 0 {
		s.whole = h.index
	}
	if last == nil {
		s.links[h.chain] = &step{link{h.seq, leaf}, h.index}
	} else {
		last.link, last.index = link{h.seq, leaf}, h.index
	}
	return nil
}

// skip takes in what is left of a dropped record. Only the oldest are dropped:
// with one in the middle somebody hides what is in it.
func (s *sequence) skip(t *trace) error {
	if s.whole >= 0 {
		return wrong(t.index, "record %d has no content, and record %d before it has, while the oldest lose theirs first: it was taken out; if the export was made while records were being dropped, make a new one", t.index, s.whole)
	}
	last := s.links[t.chain]
	if last != nil && t.seq != last.seq+1 || last == nil && t.seq != 1 {
		return wrong(t.index, "record %d, whose content was dropped, says that it is number %d of the records about %s, which does not fit", t.index, t.seq, chainName(t.chain))
	}
	s.links[t.chain] = &step{link{t.seq, t.leaf}, t.index}
	return nil
}

// heads returns the last records of all chains.
func (s *sequence) heads() map[string]link {
	out := make(map[string]link, len(s.links))
	for chain, k := range s.links {
		out[chain] = k.link
	}
	return out
}

// behind says where a line is that is not a record's.
func behind(index int64) string {
	if index < 0 {
		return "before the first record"
	}
	return fmt.Sprintf("behind record %d", index)
}

func chainName(chain string) string {
	if chain == "" {
		return "no partner"
	}
	return "partner " + chain
}
