package audit

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"golang.org/x/mod/sumdb/tlog"
)

// verifyPartner verifies the export of one partner: its records, numbered and
// chained without a gap, each with the proof that it is in the log, the last
// one with the proof that it is the last.
func verifyPartner(in *bufio.Reader, chain string, v *Verification, verdict *Verdict) error {
	receipts, err := newReceiptBook(v.Receipts)
	if err != nil {
		return err
	}
	p := &partnerLog{v: v, chain: chain, verdict: verdict, receipts: receipts, seq: newSequence(), highest: -1, proofs: make(map[int64][]tlog.Hash)}
	for {
		b, err := in.ReadSlice('\n')
		if err == io.EOF && len(b) == 0 {
			return p.finish()
		}
		if err == io.EOF {
			return wrong(-1, "its last line was cut off: %.60q", b)
		}
		if err != nil {
			return fmt.Errorf("read the export: %w", err)
		}
		if err := p.line(b[:len(b)-1]); err != nil {
			return err
		}
	}
}

type partnerLog struct {
	v        *Verification
	chain    string
	verdict  *Verdict
	receipts receiptBook
	seq      *sequence
	signed   [][]byte
	last     *Checkpoint // that the proofs are for
	leaf     *tlog.Hash  // of the record whose proof comes next
	index    int64
	highest  int64                 // index so far, or -1
	closed   bool                  // the last record was proven to be it
	proofs   map[int64][]tlog.Hash // that the log contains itself at a smaller size
}

func (p *partnerLog) line(b []byte) error {
	if signed, err := parseCheckpointLine(b); err == nil {
		p.signed = append(p.signed, signed)
		c, err := ParseCheckpoint(signed, p.v.Key)
		if err != nil {
			return wrong(-1, "a checkpoint in the export is not signed by the log: %v", err)
		}
		if p.last == nil {
			p.last = &c
		}
		return nil
	}
	if p.last == nil {
		return wrong(-1, "the export does not begin with its checkpoint")
	}
	switch proof, err := parseProofLine(b); {
	case err != nil:
		return p.record(b)
	case proof.From != nil:
		p.proofs[*proof.From] = proof.Proof
		return nil
	case proof.Head != nil:
		return p.end(proof)
	default:
		return p.prove(proof)
	}
}

func (p *partnerLog) record(b []byte) error {
	if p.leaf != nil {
		return wrong(p.index, "record %d has no proof", p.index)
	}
	l := checkLine(b)
	chain, index := l.head.chain, l.head.index
	if l.kind == lineTrace {
		chain, index = l.gone.chain, l.gone.index
	}
	switch {
	case l.err != nil && index > p.highest:
		return wrong(index, "record %d: %v", index, l.err)
	case l.kind == lineOther || l.err != nil:
		return wrong(-1, "%s is a line that is none of an export's: %.60q", behind(p.highest), b)
	case chain != p.chain:
		return wrong(index, "record %d is about %s", index, chainName(chain))
	case index <= p.highest:
		return wrong(index, "record %d comes after record %d", index, p.highest)
	case p.closed:
		return wrong(index, "record %d comes after the proof that record %d is the last one about %s", index, p.highest, chainName(p.chain))
	}
	var err error
	if l.kind == lineTrace {
		p.verdict.Dropped++
		err = p.seq.skip(&l.gone)
	} else {
		err = p.seq.follow(&l.head, l.leaf)
	}
	if err == nil {
		err = p.receipts.see(index, l.leaf)
	}
	p.leaf, p.index, p.highest = &l.leaf, index, index
	p.verdict.Records++
	return err
}

func (p *partnerLog) prove(proof proofLine) error {
	if p.leaf == nil || proof.Index == nil || *proof.Index != p.index {
		return wrong(p.index, "a proof belongs to no record")
	}
	if err := tlog.CheckRecord(tlog.RecordProof(proof.Proof), p.last.Size, p.last.Root, p.index, *p.leaf); err != nil {
		return wrong(p.index, "record %d is not in the log that was signed: %v", p.index, err)
	}
	p.leaf = nil
	return nil
}

// end proves that the last record is the last.
func (p *partnerLog) end(proof proofLine) error {
	h := *proof.Head
	if h.Chain != p.chain || proof.Index == nil || proof.Of == nil {
		return wrong(-1, "the end of the records is that of %s", chainName(h.Chain))
	}
	last := p.seq.links[p.chain]
	if err := tlog.CheckRecord(tlog.RecordProof(proof.Proof), *proof.Of, p.last.Chains, *proof.Index, h.leaf()); err != nil {
		return wrong(-1, "the end of the records is not what was signed: %v", err)
	}
	if last == nil || last.seq != h.Seq || last.hash != h.Hash {
		got := int64(0)
		if last != nil {
			got = last.seq
		}
		return wrong(p.highest+1, "there are %d records about %s, and the export has the first %d", h.Seq, chainName(p.chain), got)
	}
	p.closed = true
	return nil
}

func (p *partnerLog) finish() error {
	if p.last == nil {
		return wrong(-1, "there is no checkpoint: nothing says what the log should be")
	}
	if p.leaf != nil {
		return wrong(p.index, "record %d has no proof", p.index)
	}
	if !p.closed {
		return wrong(p.highest+1, "nothing proves that there are no more records about %s, %s", chainName(p.chain), behind(p.highest))
	}
	all, err := p.v.sightings(p.signed)
	if err != nil {
		return err
	}
	for _, c := range all {
		if err := p.contains(c); err != nil {
			return err
		}
	}
	if err := p.receipts.rest("the export"); err != nil {
		return err
	}
	c := p.last
	p.verdict.Size, p.verdict.Root, p.verdict.Time, p.verdict.Chains = c.Size, c.Root.String(), c.Time.Format("2006-01-02T15:04:05Z"), 1
	return p.v.witnessed(all, p.verdict)
}

// errNoProof: two checkpoints cannot be compared without more.
var errNoProof = errors.New("no proof leads from one checkpoint to the other")

// contains holds another checkpoint against the export's.
func (p *partnerLog) contains(c sighting) error {
	proof, ok := p.proofs[c.Size]
	switch {
	case c.Size > p.last.Size:
		return wrong(-1, "a checkpoint in %s is of %d records, and the export of %d: ask for a newer export", c.from, c.Size, p.last.Size)
	case c.Size == p.last.Size && c.Root != p.last.Root:
		return wrong(-1, "two checkpoints of %d records have different root hashes: the log was shown in two versions", c.Size)
	case c.Size == p.last.Size || c.Size == 0:
		return nil
	case !ok:
		return fmt.Errorf("%w, of %d and of %d records: ask for an export with --since %d, or hold it against fewer checkpoints, such as the last line of a witness's file", errNoProof, c.Size, p.last.Size, c.Size)
	}
	if err := tlog.CheckTree(tlog.TreeProof(proof), p.last.Size, p.last.Root, c.Size, c.Root); err != nil {
		return wrong(-1, "the log at %d records does not contain what was signed at %d records, in %s: it was changed in between, or shown in two versions", p.last.Size, c.Size, c.from)
	}
	return nil
}
