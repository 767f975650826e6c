package audit

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/mandate-sam/mandate/internal/privatefile"
)

// algCosignature is the signature type of C2SP tlog-cosignature, version 1.
const algCosignature = 4

// A cosignature verifies or makes signatures of a witness: over the time, and
// the checkpoint.
type cosignature struct {
	name   string
	hash   uint32
	public ed25519.PublicKey
	secret ed25519.PrivateKey // nil where only verifying is wanted
}

// Name implements [note.Verifier] and [note.Signer].
func (c *cosignature) Name() string { return c.name }

// KeyHash implements [note.Verifier] and [note.Signer].
func (c *cosignature) KeyHash() uint32 { return c.hash }

func cosigned(msg []byte, at uint64) []byte {
	return append(fmt.Appendf(nil, "cosignature/v1\ntime %d\n", at), msg...)
}

// Verify implements [note.Verifier].
func (c *cosignature) Verify(msg, sig []byte) bool {
	return len(sig) == 8+ed25519.SignatureSize && ed25519.Verify(c.public, cosigned(msg, binary.BigEndian.Uint64(sig)), sig[8:])
}

// Sign implements [note.Signer].
func (c *cosignature) Sign(msg []byte) ([]byte, error) {
	now := uint64(time.Now().Unix())
	return append(binary.BigEndian.AppendUint64(nil, now), ed25519.Sign(c.secret, cosigned(msg, now))...), nil
}

func newCosignature(name string, public ed25519.PublicKey, secret ed25519.PrivateKey) *cosignature {
	sum := sha256.Sum256(append([]byte(name+"\n"), append([]byte{algCosignature}, public...)...))
	return &cosignature{name, binary.BigEndian.Uint32(sum[:]), public, secret}
}

// text returns the public key as others configure it.
func (c *cosignature) text() string {
	return fmt.Sprintf("%s+%08x+%s", c.name, c.hash, base64.StdEncoding.EncodeToString(append([]byte{algCosignature}, c.public...)))
}

// ParseWitnessKey reads the text of a witness's public key.
func ParseWitnessKey(text string) (note.Verifier, error) {
	bad := fmt.Errorf("%.80q is not the public key of a witness: name+hash+base64", text)
	name, rest, ok := strings.Cut(strings.TrimSpace(text), "+")
	hash, encoded, ok2 := strings.Cut(rest, "+")
	b, err := base64.StdEncoding.DecodeString(encoded)
	if !ok || !ok2 || err != nil || len(b) != 1+ed25519.PublicKeySize || b[0] != algCosignature || !plainWord(name) || name == "" {
		return nil, bad
	}
	c := newCosignature(name, b[1:], nil)
	if fmt.Sprintf("%08x", c.hash) != hash {
		return nil, bad
	}
	return c, nil
}

// A Cosigner is a witness: it remembers the last checkpoint of each log that
// it knows, and signs a later one only if that contains the one before. It is
// run by somebody else than the log, or at least somewhere else.
type Cosigner struct {
	dir  string
	key  *cosignature
	logs map[string]note.Verifier

	mu sync.Mutex // one answer at a time
}

// NewCosigner returns a witness with a key of the form that [NewKey] makes in
// keyFile, which it makes at the first start under the given name. It keeps
// what it has seen in dir.
func NewCosigner(dir, keyFile, name string, logs ...note.Verifier) (*Cosigner, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("witness: %w", err)
	}
	if _, err := os.Stat(keyFile); errors.Is(err, os.ErrNotExist) {
		if err := WriteKey(keyFile, name); err != nil {
			return nil, fmt.Errorf("witness: %w", err)
		}
	}
	b, mode, err := privatefile.Read(keyFile, 1<<10)
	if err == nil {
		err = privatefile.Private(keyFile, mode)
	}
	if err != nil {
		return nil, fmt.Errorf("witness: %w", err)
	}
	fields := strings.SplitN(strings.TrimSpace(string(b)), "+", 5)
	if len(fields) != 5 {
		return nil, fmt.Errorf("witness: %s does not hold a key", keyFile)
	}
	if fields[2] != name {
		return nil, fmt.Errorf("witness: %s is the key of %q, and not of %q", keyFile, fields[2], name)
	}
	seed, err := base64.StdEncoding.DecodeString(fields[4])
	if err != nil || len(seed) != 1+ed25519.SeedSize {
		return nil, fmt.Errorf("witness: %s does not hold a key", keyFile)
	}
	secret := ed25519.NewKeyFromSeed(seed[1:])
	c := &Cosigner{dir: dir, key: newCosignature(fields[2], ed25519Public(seed[1:]), secret), logs: make(map[string]note.Verifier)}
	for _, v := range logs {
		c.logs[v.Name()] = v
	}
	return c, nil
}

// Key returns the text of the public key.
func (c *Cosigner) Key() string { return c.key.text() }

// ServeHTTP answers POST /add-checkpoint as C2SP tlog-witness says.
func (c *Cosigner) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/add-checkpoint" || r.Method != http.MethodPost {
		http.NotFound(w, r)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxNote))
	if err != nil {
		http.Error(w, "too long", http.StatusRequestEntityTooLarge)
		return
	}
	signature, err := c.add(body)
	var e *refusal
	switch {
	case errors.As(err, &e):
		if e.status == http.StatusConflict {
			w.Header().Set("Content-Type", "text/x.tlog.size")
		}
		w.WriteHeader(e.status)
		io.WriteString(w, e.text+"\n")
	case err != nil:
		http.Error(w, "cannot remember", http.StatusInternalServerError)
	default:
		w.Write(signature)
	}
}

// A refusal is an answer that is no signature.
type refusal struct {
	status int
	text   string
}

func (r *refusal) Error() string { return r.text }

// add takes a checkpoint, remembers it, and only then signs.
func (c *Cosigner) add(body []byte) ([]byte, error) {
	old, proof, signed, err := parseAddCheckpoint(body)
	if err != nil {
		return nil, &refusal{http.StatusBadRequest, err.Error()}
	}
	origin, _, _ := strings.Cut(string(signed), "\n")
	key, ok := c.logs[origin]
	if !ok {
		return nil, &refusal{http.StatusNotFound, "this witness does not know that log"}
	}
	next, err := ParseCheckpoint(signed, key)
	if err != nil {
		return nil, &refusal{http.StatusForbidden, fmt.Sprintf("this witness has another key for %s, or it is no checkpoint: %v", origin, err)}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	last, err := c.last(key)
	if err != nil {
		return nil, err
	}
	if err := follows(last, next, old, proof); err != nil {
		return nil, err
	}
	if next.Size > last.Size {
		if err := replaceFile(c.path(origin), signed); err != nil {
			return nil, err
		}
	}
	both, err := note.Sign(&note.Note{Text: next.text()}, c.key)
	if err != nil {
		return nil, err
	}
	_, lines, _ := bytes.Cut(both, []byte("\n\n"))
	return lines, nil
}

// follows refuses a checkpoint that does not contain the last one.
func follows(last, next Checkpoint, old int64, proof tlog.TreeProof) error {
	switch {
	case old > next.Size:
		return &refusal{http.StatusBadRequest, "the old size is larger than the checkpoint's"}
	case old != last.Size:
		return &refusal{http.StatusConflict, strconv.FormatInt(last.Size, 10)}
	case next.Size == last.Size && next.Root != last.Root && last.Size > 0:
		return &refusal{http.StatusConflict, strconv.FormatInt(last.Size, 10)}
	case last.Size == 0 || next.Size == last.Size:
		if len(proof) > 0 {
			return &refusal{http.StatusBadRequest, "a proof where none is needed"}
		}
		return nil
	}
	if err := tlog.CheckTree(proof, next.Size, next.Root, last.Size, last.Root); err != nil {
		return &refusal{http.StatusUnprocessableEntity, "the checkpoint does not contain the one that was cosigned before"}
	}
	return nil
}

func (c *Cosigner) path(origin string) string {
	sum := sha256.Sum256([]byte(origin))
	return filepath.Join(c.dir, hex.EncodeToString(sum[:])+".checkpoint")
}

// last returns the last checkpoint that was signed, or a zero one.
func (c *Cosigner) last(key note.Verifier) (Checkpoint, error) {
	signed, err := os.ReadFile(c.path(key.Name()))
	if errors.Is(err, os.ErrNotExist) {
		return Checkpoint{}, nil
	}
	if err != nil {
		return Checkpoint{}, err
	}
	return ParseCheckpoint(signed, key)
}

// addCheckpoint returns the body of a request to a witness that knows the
// first old records.
func (l *Log) addCheckpoint(ctx context.Context, old int64, c Checkpoint, signed []byte) ([]byte, error) {
	b := fmt.Appendf(nil, "old %d\n", old)
	if old > 0 && old < c.Size {
		proof, err := tlog.ProveTree(c.Size, old, reader{ctx, l.store})
		if err != nil {
			return nil, err
		}
		for _, h := range proof {
			b = append(b, h.String()+"\n"...)
		}
	}
	return append(append(b, '\n'), signed...), nil
}

// parseAddCheckpoint reads the body of such a request.
func parseAddCheckpoint(body []byte) (old int64, proof tlog.TreeProof, signed []byte, err error) {
	head, signed, ok := bytes.Cut(body, []byte("\n\n"))
	lines := strings.Split(string(head), "\n")
	first, isOld := strings.CutPrefix(lines[0], "old ")
	if !ok || !isOld || len(lines) > 64 {
		return 0, nil, nil, errors.New("the body is not: old size, proof, empty line, checkpoint")
	}
	if old, err = strconv.ParseInt(first, 10, 64); err != nil || old < 0 || strconv.FormatInt(old, 10) != first {
		return 0, nil, nil, errors.New("the old size is not a number")
	}
	for _, s := range lines[1:] {
		h, err := tlog.ParseHash(s)
		if err != nil {
			return 0, nil, nil, errors.New("a line of the proof is not a hash")
		}
		proof = append(proof, h)
	}
	return old, proof, signed, nil
}
