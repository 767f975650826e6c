package audit

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/mandate-sam/mandate"
)

// exportForm names the form of exports. Another form needs another name.
const exportForm = "mandate-audit/1"

// An exportHeader is the first line of an export.
type exportHeader struct {
	Form   string    `json:"export"`
	Origin string    `json:"origin"`
	Key    string    `json:"key"`   // which a verifier does not believe: it is for people
	Whole  bool      `json:"whole"` // every record of the log; else those of a chain
	Chain  string    `json:"chain"`
	Made   time.Time `json:"made"`
}

func parseExportHeader(b []byte) (h exportHeader, err error) {
	if err := strictJSON(b, &h); err != nil || h.Form != exportForm || h.Whole && h.Chain != "" {
		return h, fmt.Errorf("it is not an export of the form %s", exportForm)
	}
	return h, nil
}

// A proofLine proves something about the line before it, or about checkpoints.
type proofLine struct {
	Proof []tlog.Hash `json:"proof"`

	// Index is that of the record before, which the proof puts into the log;
	// or with Head, the place of the head among Of heads.
	Index *int64     `json:"index,omitempty"`
	Of    *int64     `json:"of,omitempty"`
	Head  *ChainHead `json:"head,omitempty"`

	// From is a smaller size at which the log is contained in itself.
	From *int64 `json:"from,omitempty"`
}

func parseProofLine(b []byte) (p proofLine, err error) {
	if !bytes.HasPrefix(b, []byte(`{"proof":`)) || len(b) > 64<<10 {
		return p, errors.New("it is not a proof")
	}
	return p, strictJSON(b, &p)
}

type headsLine struct {
	Heads []ChainHead `json:"heads"`
}

// headsAtOnce is how many last records are in a line, which has an end; see
// maxLine.
const headsAtOnce = 4000

func parseHeadsLine(b []byte) ([]ChainHead, error) {
	var v headsLine
	if err := strictJSON(b, &v); err != nil || v.Heads == nil {
		return nil, errors.New("it is not the list of last records")
	}
	return v.Heads, nil
}

// A keyLine gives the key of a month's personal data to whom it concerns.
type keyLine struct {
	Key struct {
		Chain  string `json:"chain"`
		Month  string `json:"month"`
		Secret string `json:"secret"` // base64
	} `json:"personal"`
}

// A lineWriter writes lines, and remembers the first error.
type lineWriter struct {
	w   *bufio.Writer
	err error
}

func newLineWriter(to io.Writer) *lineWriter { return &lineWriter{w: bufio.NewWriterSize(to, 1<<16)} }

func (w *lineWriter) raw(b []byte) {
	if w.err == nil {
		_, w.err = w.w.Write(b)
	}
	if w.err == nil {
		w.err = w.w.WriteByte('\n')
	}
}

func (w *lineWriter) json(v any) {
	b, err := json.Marshal(v)
	w.err = errors.Join(w.err, err)
	w.raw(b)
}

// heads writes the last records of the chains, in one line at least.
func (w *lineWriter) heads(heads []ChainHead) {
	for ; len(heads) > headsAtOnce; heads = heads[headsAtOnce:] {
		w.json(headsLine{heads[:headsAtOnce]})
	}
	w.json(headsLine{append([]ChainHead{}, heads...)}) // a list also where there is none
}

func (w *lineWriter) end() error {
	if w.err != nil {
		return fmt.Errorf("export: %w", w.err)
	}
	return w.w.Flush()
}

// An Export says what is exported.
type Export struct {
	// Chain is the partner whose records are wanted. With Whole, everybody's.
	Chain string
	Whole bool

	// Since are sizes of checkpoints that the reader has, and wants to see
	// contained in the log.
	Since []int64
}

// Export writes an export that [Verify] takes, and that shows no more than
// hashes of what is not asked for.
func (l *Log) Export(ctx context.Context, to io.Writer, x Export) error {
	signed, c, links, err := l.checkpoint(ctx)
	if err != nil && !errors.Is(err, ErrChanged) {
		err = fmt.Errorf("%w: %w", mandate.ErrUnavailable, err)
	}
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	for _, n := range x.Since {
		if n < 1 || n > c.Size {
			return mandate.Invalid("since", "must be from 1 to %d, which is what the log has: a checkpoint of more, if it is signed, shows that records were cut off", c.Size)
		}
	}
	w := newLineWriter(to)
	w.json(exportHeader{exportForm, l.Origin(), l.Key(), x.Whole, x.Chain, time.Now().UTC().Truncate(time.Second)})
	if x.Whole {
		err = l.exportWhole(ctx, w, signed, c, links)
	} else {
		err = l.exportPartner(ctx, w, x, signed, c, links)
	}
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	return w.end()
}

func (l *Log) exportWhole(ctx context.Context, w *lineWriter, signed []byte, c Checkpoint, links map[string]link) error {
	history, err := l.store.history(ctx)
	if err != nil {
		return err
	}
	for _, old := range slices.Concat(history, l.cosigned()) {
		if k, err := ParseCheckpoint(old, l.cfg.Public); err == nil && k.Size <= c.Size {
			w.raw(checkpointLine(old))
		}
	}
	w.raw(checkpointLine(signed))
	for v, err := range l.lines(ctx, 0, c.Size) {
		if err != nil {
			return err
		}
		w.raw(v.text)
	}
	heads, _ := chainHeads(links)
	w.heads(heads)
	return nil
}

func (l *Log) exportPartner(ctx context.Context, w *lineWriter, x Export, signed []byte, c Checkpoint, links map[string]link) error {
	heads, leaves := chainHeads(links)
	at := slices.IndexFunc(heads, func(h ChainHead) bool { return h.Chain == x.Chain })
	if at < 0 {
		return fmt.Errorf("%w: no records about %s", mandate.ErrNotFound, chainName(x.Chain))
	}
	w.raw(checkpointLine(signed))
	since := slices.Clone(x.Since)
	for _, both := range l.cosigned() {
		if k, err := ParseCheckpoint(both, l.cfg.Public); err == nil && k.Size <= c.Size {
			w.raw(checkpointLine(both))
			since = append(since, k.Size)
		}
	}
	tree := &cachedReader{reader: reader{ctx, l.store}, high: make(map[int64]tlog.Hash)}
	if err := proveSizes(w, tree, since, c.Size); err != nil {
		return err
	}
	for index, err := range l.index.chain(ctx, x.Chain, c.Size) {
		if err == nil {
			err = l.exportProven(ctx, w, tree, index, c.Size)
		}
		if err != nil {
			return err
		}
	}
	proof, err := tlog.ProveRecord(int64(len(leaves)), int64(at), reader{ctx, memory(leaves)})
	if err != nil {
		return err
	}
	place, of := int64(at), int64(len(heads))
	w.json(proofLine{Proof: full(proof), Index: &place, Of: &of, Head: &heads[at]})
	return nil
}

// proveSizes proves that the log contains itself at smaller sizes.
func proveSizes(w *lineWriter, tree tlog.HashReader, since []int64, size int64) error {
	slices.Sort(since)
	for _, n := range slices.Compact(since) {
		if n <= 0 || n >= size {
			continue
		}
		proof, err := tlog.ProveTree(size, n, tree)
		if err != nil {
			return err
		}
		w.json(proofLine{Proof: full(proof), From: &n})
	}
	return nil
}

// exportProven writes a record and the proof that it is in the log.
func (l *Log) exportProven(ctx context.Context, w *lineWriter, tree tlog.HashReader, index, size int64) error {
	for v, err := range l.lines(ctx, index, index+1) {
		if err != nil {
			return err
		}
		proof, err := tlog.ProveRecord(size, index, tree)
		if err != nil {
			return err
		}
		w.raw(v.text)
		w.json(proofLine{Proof: full(proof), Index: &index})
	}
	return w.err
}

// full makes an empty list of nil.
func full[P ~[]tlog.Hash](p P) []tlog.Hash { return append([]tlog.Hash{}, p...) }

// A cachedReader remembers hashes of large subtrees, which many proofs share.
type cachedReader struct {
	reader
	high map[int64]tlog.Hash
}

// ReadHashes implements [tlog.HashReader].
func (r *cachedReader) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		if h, ok := r.high[x]; ok {
			out[i] = h
			continue
		}
		h, err := r.reader.ReadHashes(indexes[i : i+1])
		if err != nil {
			return nil, err
		}
		out[i] = h[0]
		if level, _ := tlog.SplitStoredHashIndex(x); level >= tileHeight {
			r.high[x] = h[0]
		}
	}
	return out, nil
}

// PersonalKeys writes the keys of a partner's personal data, one line each, so
// that the holder of an export can read what is encrypted in it.
func (l *Log) PersonalKeys(ctx context.Context, to io.Writer, chain string) error {
	names, err := l.keys.months(ctx, chain, false, "", "9999-99")
	if err != nil {
		return err
	}
	w := newLineWriter(to)
	for _, n := range names {
		k, err := l.keys.get(ctx, n.chain, n.month, false)
		if errors.Is(err, errErased) {
			continue
		}
		if err != nil {
			return err
		}
		var v keyLine
		v.Key.Chain, v.Key.Month, v.Key.Secret = n.chain, n.month, base64.StdEncoding.EncodeToString(k.plain)
		w.json(v)
	}
	return w.end()
}

// ProveSize returns the proof that the log contains itself at a smaller size,
// with the checkpoint that it leads to.
func (l *Log) ProveSize(ctx context.Context, old int64) (proof []tlog.Hash, signed []byte, err error) {
	signed, c, _, err := l.checkpoint(ctx)
	if err != nil {
		return nil, nil, err
	}
	if old < 1 || old > c.Size {
		return nil, nil, mandate.Invalid("since", "must be from 1 to %d", c.Size)
	}
	p, err := tlog.ProveTree(c.Size, old, reader{ctx, l.store})
	return full(p), signed, err
}
