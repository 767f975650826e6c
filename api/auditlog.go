package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/web"
)

const (
	defaultLast = 20
	maxLast     = 10_000

	// streamTimeout is how long one write of a stream may take before the
	// reader counts as gone.
	streamTimeout = 30 * time.Second

	// ndjson is the media type of JSON lines.
	ndjson = "application/x-ndjson"
)

type auditAnswer struct {
	Records []json.RawMessage `json:"records"`
}

// audit is GET /v1/audit?last=N: the last records as one document, or with
// follow=1 as lines that go on for as long as the reader listens.
func (s *Server) audit(w http.ResponseWriter, r *http.Request, _ mandate.CallerID) error {
	last, follow, err := parseAudit(r.URL.RawQuery)
	if err != nil {
		return err
	}
	count := s.cfg.Audit.Count() // before reading, so that no record falls between
	records, err := s.cfg.Audit.Last(last)
	if err != nil {
		return fmt.Errorf("read audit log: %w", err)
	}
	if !follow {
		return web.Write(w, http.StatusOK, auditAnswer{append([]json.RawMessage{}, records...)})
	}
	ctx, cancel := context.WithCancel(r.Context())
	var stopping sync.WaitGroup
	stopping.Go(func() {
		select {
		case <-s.cfg.Stopping:
			cancel()
		case <-ctx.Done():
		}
	})
	defer stopping.Wait()
	defer cancel()
	return s.follow(ctx, newStream(w), records, count, s.mayListen(r))
}

// mayListen returns what reports, again and again, why whoever has made a
// request may no longer listen: they have signed in, and the session is over
// or has no role any more. Sessions are security state, so they are looked at
// in every epoch once.
func (s *Server) mayListen(r *http.Request) func() error {
	o, seen := signedIn(r.Context()), int64(-1)
	return func() error {
		if o == nil {
			return nil // at the socket, of which the kernel knows who is there
		}
		epoch, err := s.cfg.Epoch.Epoch()
		if err != nil || epoch == seen && time.Now().Before(o.Expires) {
			return err
		}
		now, err := s.person(r)
		if err != nil {
			return err
		}
		seen = epoch
		return now.check(views, time.Now())
	}
}

func parseAudit(query string) (last int, follow bool, err error) {
	q, err := url.ParseQuery(query)
	if err != nil {
		return 0, false, mandate.Invalid("query", "is malformed")
	}
	last = defaultLast
	for name, values := range q {
		if len(values) != 1 {
			return 0, false, mandate.Invalid(name, "is given twice")
		}
		switch v := values[0]; name {
		case "last":
			if last, err = strconv.Atoi(v); err != nil || last < 0 || last > maxLast {
				return 0, false, mandate.Invalid("last", "must be from 0 to %d", maxLast)
			}
		case "follow":
			if follow = v == "1"; !follow && v != "0" {
				return 0, false, mandate.Invalid("follow", "must be 0 or 1")
			}
		default:
			return 0, false, mandate.Invalid(name, "is not a parameter of this request")
		}
	}
	return last, follow, nil
}

// follow writes records, and then every one that is added, none twice and
// none left out, for as long as the reader may listen. It ends without an error
// when ctx does.
func (s *Server) follow(ctx context.Context, out *stream, records []json.RawMessage, next int64, mayListen func() error) error {
	for {
		if err := mayListen(); err != nil {
			return fmt.Errorf("a reader of new records: %w", err)
		}
		for _, line := range records {
			index, err := indexOf(line)
			if err != nil {
				return err
			}
			next = index + 1
			if err := out.line(line); err != nil {
				return nil // the reader is gone
			}
		}
		if err := out.flush(); err != nil {
			return nil
		}
		if err := s.cfg.Audit.Wait(ctx, next); err != nil {
			return nil
		}
		var err error
		if records, err = s.since(next); err != nil {
			return err
		}
	}
}

// since returns the records from index next on.
func (s *Server) since(next int64) ([]json.RawMessage, error) {
	records, err := s.cfg.Audit.Last(int(s.cfg.Audit.Count() - next))
	if err != nil {
		return nil, fmt.Errorf("read audit log: %w", err)
	}
	// More may have been added between counting and reading; then these are
	// later ones, and the first are still missing. Twice as many outrun a log
	// that grows meanwhile.
	for len(records) > 0 {
		first, err := indexOf(records[0])
		if err != nil {
			return nil, err
		}
		if first <= next {
			return records[next-first:], nil
		}
		if records, err = s.cfg.Audit.Last(2*len(records) + int(first-next)); err != nil {
			return nil, fmt.Errorf("read audit log: %w", err)
		}
	}
	return nil, nil
}

func indexOf(line json.RawMessage) (int64, error) {
	var v struct {
		Index *int64 `json:"index"`
	}
	if err := json.Unmarshal(line, &v); err != nil || v.Index == nil {
		return 0, fmt.Errorf("audit log: a line is not a record: %.80q", line)
	}
	return *v.Index, nil
}

// A stream is an answer of JSON lines that may last for hours.
type stream struct {
	w    http.ResponseWriter
	ctrl *http.ResponseController
}

// newStream begins the answer.
func newStream(w http.ResponseWriter) *stream {
	h := w.Header()
	h.Set("Content-Type", ndjson)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(http.StatusOK)
	return &stream{w, http.NewResponseController(w)}
}

// line writes one line. Each write has a time limit of its own.
func (s *stream) line(data []byte) error {
	if err := s.ctrl.SetWriteDeadline(time.Now().Add(streamTimeout)); err != nil {
		return err
	}
	_, err := s.w.Write(append(data[:len(data):len(data)], '\n'))
	return err
}

func (s *stream) flush() error {
	if err := s.ctrl.SetWriteDeadline(time.Now().Add(streamTimeout)); err != nil {
		return err
	}
	return s.ctrl.Flush()
}
