package audit

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/mandate-sam/mandate/internal/privatefile"
)

// A Checkpoint is a signed statement of what the log was at a time: a C2SP
// tlog-checkpoint with three extension lines.
type Checkpoint struct {
	Origin string
	Size   int64
	Root   tlog.Hash
	Epoch  int64     // the highest that any of its records may be of
	Time   time.Time // when it was made, in seconds
	Chains tlog.Hash // root of the tree of chains; see [ChainHead]
}

// A ChainHead is the last record of one chain. The tree of chains has one leaf
// for each, in the order of their names.
type ChainHead struct {
	Chain string    `json:"chain"`
	Seq   int64     `json:"seq"`
	Hash  tlog.Hash `json:"hash"`
}

// leaf returns the head's leaf hash in the tree of chains. The hash in it is
// that of a salted entry, so that nobody can guess at another partner's.
func (h *ChainHead) leaf() tlog.Hash {
	return tlog.RecordHash([]byte(h.Chain + "\n" + strconv.FormatInt(h.Seq, 10) + "\n" + h.Hash.String() + "\n"))
}

// chainHeads returns the heads in order, and their leaves.
func chainHeads(links map[string]link) (heads []ChainHead, leaves []tlog.Hash) {
	for chain, k := range links {
		heads = append(heads, ChainHead{chain, k.seq, k.hash})
	}
	slices.SortFunc(heads, func(a, b ChainHead) int { return strings.Compare(a.Chain, b.Chain) })
	for i := range heads {
		leaves = append(leaves, heads[i].leaf())
	}
	return heads, leaves
}

// text returns what is signed.
func (c *Checkpoint) text() string {
	return fmt.Sprintf("%s\n%d\n%s\nepoch %d\ntime %s\nchains %s\n",
		c.Origin, c.Size, c.Root, c.Epoch, c.Time.UTC().Format(time.RFC3339), c.Chains)
}

// parseCheckpointText reverses text, and takes it in no other form.
func parseCheckpointText(s string) (c Checkpoint, err error) {
	bad := errors.New("it is not a checkpoint of an audit log")
	lines := strings.Split(s, "\n")
	if len(lines) != 7 {
		return c, bad
	}
	c.Origin = lines[0]
	if c.Size, err = strconv.ParseInt(lines[1], 10, 64); err != nil || c.Size < 0 {
		return c, bad
	}
	if c.Root, err = tlog.ParseHash(lines[2]); err != nil {
		return c, bad
	}
	if c.Epoch, err = strconv.ParseInt(strings.TrimPrefix(lines[3], "epoch "), 10, 64); err != nil {
		return c, bad
	}
	if c.Time, err = time.Parse(time.RFC3339, strings.TrimPrefix(lines[4], "time ")); err != nil {
		return c, bad
	}
	if c.Chains, err = tlog.ParseHash(strings.TrimPrefix(lines[5], "chains ")); err != nil || c.text() != s {
		return c, bad
	}
	return c, nil
}

// maxNote bounds a signed checkpoint, in bytes.
const maxNote = 16 << 10

// ParseCheckpoint verifies the log's signature on a signed checkpoint and
// returns what it says. Other signatures may be on it.
func ParseCheckpoint(signed []byte, key note.Verifier) (c Checkpoint, err error) {
	if len(signed) > maxNote {
		return c, errors.New("checkpoint: it is too long")
	}
	n, err := note.Open(signed, note.VerifierList(key))
	if err != nil {
		return c, fmt.Errorf("checkpoint: %w", err)
	}
	if c, err = parseCheckpointText(n.Text); err != nil {
		return c, fmt.Errorf("checkpoint: %w", err)
	}
	if c.Origin != key.Name() {
		return c, fmt.Errorf("checkpoint: it is of the log %q, and the key of %q", c.Origin, key.Name())
	}
	return c, nil
}

// checkpointLine is how a checkpoint stands among the lines of an export.
func checkpointLine(signed []byte) []byte {
	b, err := json.Marshal(map[string]string{"checkpoint": string(signed)})
	if err != nil {
		panic(err) // a string can always be encoded
	}
	return b
}

func parseCheckpointLine(line []byte) ([]byte, error) {
	var v struct {
		Checkpoint *string `json:"checkpoint"`
	}
	if err := strictJSON(line, &v); err != nil || v.Checkpoint == nil {
		return nil, errors.New("it is not a line with a checkpoint")
	}
	return []byte(*v.Checkpoint), nil
}

// NewKey makes a key that signs the checkpoints of the log of that name, in
// the form of [golang.org/x/mod/sumdb/note].
func NewKey(origin string) (secret, public string, err error) {
	return note.GenerateKey(rand.Reader, origin)
}

// ReadKey reads a file with a key that signs checkpoints, which only its owner
// may read.
func ReadKey(path string) (note.Signer, note.Verifier, error) {
	b, mode, err := privatefile.Read(path, 1<<10)
	if err == nil {
		err = privatefile.Private(path, mode)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("checkpoint key: %w", err)
	}
	text := strings.TrimSpace(string(b))
	signer, err := note.NewSigner(text)
	if err != nil {
		return nil, nil, fmt.Errorf("checkpoint key: %s does not hold one", path)
	}
	public, err := publicOf(text)
	if err != nil {
		return nil, nil, fmt.Errorf("checkpoint key: %s: %w", path, err)
	}
	return signer, public, nil
}

// WriteKey makes a new key in a new file. Its name stands in signatures, where a
// space or a plus sign would end it.
func WriteKey(path, origin string) error {
	if origin == "" || !plainWord(origin) || strings.Contains(origin, "+") {
		return fmt.Errorf("checkpoint key: %q cannot be its name: one word of ASCII without quotes and plus signs, such as log.example.com", origin)
	}
	secret, _, err := NewKey(origin)
	if err != nil {
		return fmt.Errorf("checkpoint key: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("checkpoint key: %w", err)
	}
	_, err = f.WriteString(secret + "\n")
	return errors.Join(err, f.Sync(), f.Close())
}

// Public returns the text by which others verify the key's signatures.
func Public(v note.Verifier) string {
	if p, ok := v.(*publicKey); ok {
		return p.text
	}
	return ""
}

// A publicKey remembers its text, which note does not.
type publicKey struct {
	note.Verifier
	text string
}

// ParseKey reads the text of a public key.
func ParseKey(text string) (note.Verifier, error) {
	text = strings.TrimSpace(text)
	v, err := note.NewVerifier(text)
	if err != nil {
		return nil, fmt.Errorf("%.80q is not the public key of a log: name+hash+base64", text)
	}
	return &publicKey{v, text}, nil
}

// publicOf makes the public key of a secret one.
func publicOf(secret string) (note.Verifier, error) {
	// PRIVATE+KEY+name+hash+base64 of one byte for the algorithm and the seed
	fields := strings.SplitN(secret, "+", 5)
	if len(fields) != 5 {
		return nil, errors.New("it is not a key")
	}
	seed, err := base64.StdEncoding.DecodeString(fields[4])
	if err != nil || len(seed) != 33 {
		return nil, errors.New("it is not a key")
	}
	text, err := note.NewEd25519VerifierKey(fields[2], ed25519Public(seed[1:]))
	if err != nil {
		return nil, err
	}
	return ParseKey(text)
}

// A Signer signs checkpoints, and a Verifier verifies them, as those of
// [golang.org/x/mod/sumdb/note] do.
type (
	Signer   = note.Signer
	Verifier = note.Verifier
)

// SplitCheckpoints returns the checkpoints in a file of a witness: one signed
// checkpoint as it is, or lines with one each.
func SplitCheckpoints(data []byte) (out [][]byte, err error) {
	if !bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
		return [][]byte{data}, nil
	}
	line := 0
	for b := range bytes.Lines(data) {
		line++
		signed, err := parseCheckpointLine(bytes.TrimSpace(b))
		if err != nil {
			return nil, fmt.Errorf("line %d: %w; if it was torn when a disk was full or a machine died, take it out", line, err)
		}
		out = append(out, signed)
	}
	return out, nil
}
