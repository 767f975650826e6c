package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// A WitnessConfig says who else gets the checkpoints. Exactly one of File, URL
// and Cosigner is set.
type WitnessConfig struct {
	Name string // for people

	// File is a file to which checkpoints are appended; it wants to be on
	// another machine's disk, and append-only there (chattr +a).
	File string

	// URL is where checkpoints are put as blobs, each under its size, and
	// none in the place of another: a container with an immutability policy.
	// Its query, if it has one, is a signature, and a secret.
	URL string

	// Cosigner is where a C2SP tlog-witness is, and Key verifies what it
	// signs.
	Cosigner string
	Key      note.Verifier

	// Every is how far apart checkpoints are sent at least. Zero means as
	// they are made.
	Every time.Duration
}

const (
	// witnessTimeout bounds one request to a witness.
	witnessTimeout = 20 * time.Second

	// witnessRetry is how long a witness that failed is left alone, at first
	// and at most.
	witnessRetry, witnessPause = time.Second, 30 * time.Second
)

// A WitnessStatus says how far a witness has come.
type WitnessStatus struct {
	Name   string    `json:"name"`
	Size   int64     `json:"size"`            // records under the last checkpoint that it took
	Time   time.Time `json:"time,omitzero"`   // when it took it
	Error  string    `json:"error,omitempty"` // why it did not take a later one
	Since  time.Time `json:"since,omitzero"`  // since when that fails
	Behind int64     `json:"behind"`          // records that were signed and that it does not know of
}

type witness struct {
	cfg    WitnessConfig
	submit func(ctx context.Context, l *Log, c Checkpoint, signed []byte) error
	client *http.Client

	turn sync.Mutex // held while something is sent

	mu       sync.Mutex // guards the fields below
	status   WitnessStatus
	cosigned []byte // the last checkpoint that it cosigned
}

func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

func newWitness(cfg WitnessConfig, client *http.Client) (*witness, error) {
	w := &witness{cfg: cfg, client: client, status: WitnessStatus{Name: cfg.Name}}
	switch {
	case cfg.File != "" && cfg.URL == "" && cfg.Cosigner == "":
		w.submit = w.toFile
	case cfg.URL != "" && cfg.File == "" && cfg.Cosigner == "":
		w.submit = w.toURL
	case cfg.Cosigner != "" && cfg.Key != nil && cfg.File == "" && cfg.URL == "":
		w.submit = w.toCosigner
	default:
		return nil, fmt.Errorf("witness %q needs a file, a URL, or a cosigner with its key", cfg.Name)
	}
	return w, nil
}

// Witnesses returns how far each witness has come.
func (l *Log) Witnesses() []WitnessStatus {
	l.mu.Lock()
	signed := l.signed.Size
	l.mu.Unlock()
	out := make([]WitnessStatus, 0, len(l.witnesses))
	for _, w := range l.witnesses {
		w.mu.Lock()
		s := w.status
		w.mu.Unlock()
		s.Behind = max(0, signed-s.Size)
		out = append(out, s)
	}
	return out
}

// run offers checkpoints until ctx is done. A witness that cannot be reached
// stops nothing: it is tried again, and the next checkpoint it takes covers
// all that it missed.
func (w *witness) run(ctx context.Context, l *Log) {
	wait := witnessRetry
	for {
		if w.offer(ctx, l) {
			wait = max(w.cfg.Every, checkpointEvery)
		} else {
			wait = max(w.cfg.Every, min(2*wait, witnessPause))
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// offer sends the latest checkpoint, unless the witness has it, and reports
// whether it has it now.
func (w *witness) offer(ctx context.Context, l *Log) bool {
	w.turn.Lock()
	defer w.turn.Unlock()
	signed, err := l.store.latest(ctx)
	if err != nil || signed == nil {
		return err == nil
	}
	c, err := ParseCheckpoint(signed, l.cfg.Public)
	if err == nil && c.Size == w.size() {
		return true
	}
	if err == nil {
		err = w.submit(ctx, l, c, signed)
	}
	if ctx.Err() != nil {
		return false
	}
	w.settle(l, c.Size, err)
	return err == nil
}

func (w *witness) size() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.status.Size
}

// settle notes what came of it, and logs that it fails, or works again.
func (w *witness) settle(l *Log, size int64, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	failed := w.status.Error != ""
	switch {
	case err == nil:
		w.status.Size, w.status.Time, w.status.Error, w.status.Since = size, time.Now().UTC(), "", time.Time{}
		if failed {
			l.cfg.Log.Info("audit log: the witness takes checkpoints again", "witness", w.cfg.Name, "records", size)
		}
	case !failed:
		w.status.Since = time.Now().UTC()
		l.cfg.Log.Error("audit log: a witness does not take checkpoints; service goes on, and what it has not seen could be changed unnoticed", "witness", w.cfg.Name, "error", err)
		fallthrough
	default:
		w.status.Error = err.Error()
	}
}

// toFile appends to a file.
func (w *witness) toFile(ctx context.Context, l *Log, c Checkpoint, signed []byte) error {
	if w.size() == 0 {
		if err := w.checkFile(ctx, l, c.Size); err != nil {
			return err
		}
	}
	return appendLine(w.cfg.File, checkpointLine(signed))
}

// checkFile holds the log against the last checkpoint in the file.
func (w *witness) checkFile(ctx context.Context, l *Log, size int64) error {
	f, err := os.Open(w.cfg.File)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	buf := make([]byte, min(end, 2*maxNote))
	if _, err := f.ReadAt(buf, end-int64(len(buf))); err != nil {
		return err
	}
	lines := bytes.Split(bytes.TrimSuffix(buf, []byte("\n")), []byte("\n"))
	signed, err := parseCheckpointLine(lines[len(lines)-1])
	if err != nil {
		return nil // torn; the next line stands by itself
	}
	c, err := ParseCheckpoint(signed, l.cfg.Public)
	if err != nil {
		return fmt.Errorf("the last %w", err)
	}
	return l.extends(ctx, c, size)
}

// toURL puts a blob that must not be there yet. One that is there was put by
// another replica, or before an answer got lost.
func (w *witness) toURL(ctx context.Context, _ *Log, c Checkpoint, signed []byte) error {
	u, err := url.Parse(w.cfg.URL)
	if err != nil {
		return errors.New("its URL is not one")
	}
	u = u.JoinPath(fmt.Sprintf("%020d", c.Size))
	req, err := http.NewRequestWithContext(ctx, "PUT", u.String(), bytes.NewReader(signed))
	if err != nil {
		return errors.New("its URL is not one")
	}
	req.Header.Set("If-None-Match", "*")
	req.Header.Set("Content-Type", "text/plain; charset=utf-8")
	req.Header.Set("x-ms-blob-type", "BlockBlob")
	resp, err := w.client.Do(req)
	if err != nil {
		return fmt.Errorf("%s: %w", u.Host, withoutURL(err))
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK, http.StatusCreated, http.StatusNoContent, http.StatusPreconditionFailed, http.StatusConflict:
		return nil
	}
	return fmt.Errorf("%s answered %s", u.Host, resp.Status)
}

// withoutURL takes the URL out of an error, in which there may be a signature.
func withoutURL(err error) error {
	var e *url.Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

// toCosigner asks a witness to sign. It says what size it knows if that is not
// what we think.
func (w *witness) toCosigner(ctx context.Context, l *Log, c Checkpoint, signed []byte) error {
	old := w.size()
	for range 3 {
		body, err := l.addCheckpoint(ctx, old, c, signed)
		if err != nil {
			return err
		}
		status, answer, err := w.post(ctx, body)
		switch {
		case err != nil:
			return err
		case status == http.StatusOK:
			return w.cosign(signed, answer)
		case status != http.StatusConflict:
			return fmt.Errorf("it answered %d: %.200s", status, bytes.TrimSpace(answer))
		}
		if old, err = strconv.ParseInt(string(bytes.TrimSpace(answer)), 10, 64); err != nil || old < 0 {
			return fmt.Errorf("it refused: %.200s", answer)
		}
		if old > c.Size {
			return fmt.Errorf("%w: it has seen %d records, and there are %d", ErrChanged, old, c.Size)
		}
	}
	return errors.New("it says each time that it knows another size")
}

func (w *witness) post(ctx context.Context, body []byte) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, "POST", strings.TrimSuffix(w.cfg.Cosigner, "/")+"/add-checkpoint", bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return 0, nil, withoutURL(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxNote))
	return resp.StatusCode, answer, err
}

// cosign keeps the checkpoint with the witness's signature, once that is
// verified.
func (w *witness) cosign(signed, signatures []byte) error {
	both := append(bytes.Clone(signed), signatures...)
	if _, err := note.Open(both, note.VerifierList(w.cfg.Key)); err != nil {
		return fmt.Errorf("its signature: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cosigned = both
	return nil
}

// cosigned returns the latest checkpoints with the witnesses' signatures.
func (l *Log) cosigned() (out [][]byte) {
	for _, w := range l.witnesses {
		w.mu.Lock()
		if w.cosigned != nil {
			out = append(out, w.cosigned)
		}
		w.mu.Unlock()
	}
	return out
}
