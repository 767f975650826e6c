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
	"slices"
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

	// Changed: it has seen records that are not in this log, which was set
	// back or rewritten.
	Changed bool `json:"changed,omitempty"`
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

// settle notes what came of it, and logs that it fails, that the log is not
// what the witness has seen, or that it works again.
func (w *witness) settle(l *Log, size int64, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	failed, known := w.status.Error != "", w.status.Changed
	if err == nil {
		w.status = WitnessStatus{Name: w.cfg.Name, Size: size, Time: time.Now().UTC()}
		if failed {
			l.cfg.Log.Info("audit log: the witness takes checkpoints again", "witness", w.cfg.Name, "records", size)
		}
		return
	}
	if !failed {
		w.status.Since = time.Now().UTC()
	}
	w.status.Error, w.status.Changed = err.Error(), known || errors.Is(err, ErrChanged)
	switch {
	case w.status.Changed && !known:
		l.cfg.Log.Error("audit log: a witness has seen records that are not in this log, which was set back or rewritten; service goes on. Keep everything as it is, export the log, and verify that with the witness's checkpoints", "witness", w.cfg.Name, "error", err)
	case !failed:
		l.cfg.Log.Error("audit log: a witness does not take checkpoints; service goes on, and what it has not seen could be changed unnoticed", "witness", w.cfg.Name, "error", err)
	}
}

// toFile appends to a file, after a line that was torn on a line of its own. A
// file that is gone is not made anew: what was in it is missing, or the disk.
func (w *witness) toFile(ctx context.Context, l *Log, c Checkpoint, signed []byte) error {
	end, err := endOf(w.cfg.File)
	switch {
	case errors.Is(err, os.ErrNotExist) && w.size() > 0:
		return fmt.Errorf("the file with what it has seen is gone; if that is right, make an empty one: %w", err)
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return err
	case w.size() == 0:
		if err := l.extendsLast(ctx, end, c.Size); err != nil {
			return err
		}
	}
	line := checkpointLine(signed)
	if len(end) > 0 && end[len(end)-1] != '\n' {
		line = append([]byte("\n"), line...)
	}
	return appendLine(w.cfg.File, line)
}

// endOf returns the end of a file, with its last two lines at least.
func endOf(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	buf := make([]byte, min(end, 4*maxNote))
	_, err = f.ReadAt(buf, end-int64(len(buf)))
	return buf, err
}

// extendsLast holds the log of that size against the last checkpoint in some
// lines, if there is one.
func (l *Log) extendsLast(ctx context.Context, lines []byte, size int64) error {
	for _, line := range slices.Backward(bytes.Split(lines, []byte("\n"))) {
		signed, err := parseCheckpointLine(line)
		if err != nil {
			continue // torn
		}
		c, err := ParseCheckpoint(signed, l.cfg.Public)
		if err != nil {
			return fmt.Errorf("the last %w", err)
		}
		return l.extends(ctx, c, size)
	}
	return nil
}

// toURL puts a blob that must not be there yet. One that is there was put by
// another replica, or before an answer got lost.
func (w *witness) toURL(ctx context.Context, l *Log, c Checkpoint, signed []byte) error {
	u, err := url.Parse(w.cfg.URL)
	if err != nil {
		return errors.New("its URL is not one")
	}
	u = u.JoinPath(fmt.Sprintf("%020d", c.Size))
	status, _, err := w.blob(ctx, http.MethodPut, u, signed)
	if err != nil {
		return err
	}
	switch status {
	case http.StatusOK, http.StatusCreated, http.StatusNoContent:
		return nil
	case http.StatusPreconditionFailed, http.StatusConflict:
		return w.sameBlob(ctx, l, u, c)
	}
	return fmt.Errorf("%s answered %d", u.Host, status)
}

// sameBlob holds a blob that was there against the checkpoint. One that may
// not be read is believed: the signature of a URL is often for writing alone.
func (w *witness) sameBlob(ctx context.Context, l *Log, u *url.URL, c Checkpoint) error {
	status, signed, err := w.blob(ctx, http.MethodGet, u, nil)
	switch {
	case err != nil:
		return err
	case status == http.StatusUnauthorized || status == http.StatusForbidden || status == http.StatusMethodNotAllowed:
		return nil
	case status != http.StatusOK:
		return fmt.Errorf("%s took no checkpoint of %d records, as if it had one, and answered %d when asked for that", u.Host, c.Size, status)
	}
	there, err := ParseCheckpoint(signed, l.cfg.Public)
	if err != nil {
		return fmt.Errorf("what %s has for %d records: %w", u.Host, c.Size, err)
	}
	if there.Size != c.Size || there.Root != c.Root {
		return fmt.Errorf("%w: %s has another checkpoint of %d records, of %s", ErrChanged, u.Host, c.Size, there.Time.Format(time.RFC3339))
	}
	return nil
}

// blob puts a new blob, or reads one.
func (w *witness) blob(ctx context.Context, method string, u *url.URL, body []byte) (status int, answer []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return 0, nil, errors.New("its URL is not one")
	}
	if method == http.MethodPut {
		req.Header.Set("If-None-Match", "*")
		req.Header.Set("Content-Type", "text/plain; charset=utf-8")
		req.Header.Set("x-ms-blob-type", "BlockBlob")
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return 0, nil, fmt.Errorf("%s: %w", u.Host, withoutURL(err))
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(resp.Body, maxNote))
	return resp.StatusCode, answer, err
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
		case status == http.StatusUnprocessableEntity:
			return fmt.Errorf("%w: it has cosigned a checkpoint that does not fit", ErrChanged)
		case status != http.StatusConflict:
			return fmt.Errorf("it answered %d: %.200s", status, bytes.TrimSpace(answer))
		}
		seen, err := strconv.ParseInt(string(bytes.TrimSpace(answer)), 10, 64)
		if err != nil || seen < 0 {
			return fmt.Errorf("it refused: %.200s", answer)
		}
		if seen == old {
			return fmt.Errorf("%w: it has cosigned another checkpoint of %d records", ErrChanged, old)
		}
		if old = seen; old > c.Size {
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
