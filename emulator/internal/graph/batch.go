package graph

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/mandate-sam/mandate/emulator/directory"
	"github.com/mandate-sam/mandate/emulator/internal/bearer"
)

// maxBatch is how many requests a batch can have.
const maxBatch = 20

const batchPath = "/v1.0/$batch"

var (
	errBatch      = &apiError{status: 400, code: "BadRequest", text: "Invalid batch payload format."}
	errBatchSize  = &apiError{status: 400, code: "MaximumValueExceeded", text: "Number of batch request steps exceeds the maximum value of 20."}
	errBatchURL   = &apiError{status: 400, code: "BadRequest", text: "The URL of a batch request must be relative, and cannot be that of another batch."}
	errDependency = &apiError{status: 424, code: "FailedDependency", text: "The request was not executed because a request that it depends on has failed."}
)

// step is one request of a batch.
type step struct {
	ID      string            `json:"id"`
	Method  string            `json:"method"`
	URL     string            `json:"url"`
	Headers map[string]string `json:"headers"`
	Body    json.RawMessage   `json:"body"`
	After   []string          `json:"dependsOn"`
}

// outcome is the answer to one request of a batch.
type outcome struct {
	ID      string            `json:"id"`
	Status  int               `json:"status"`
	Headers map[string]string `json:"headers,omitempty"`
	Body    json.RawMessage   `json:"body,omitempty"`
}

// batch answers several requests at once, each as if it had come alone with
// the token of the batch. The answers come in the opposite order, because
// Graph promises none: a client has to find its answers by id.
func (s *Server) batch(w http.ResponseWriter, r *http.Request, each http.Handler) {
	steps, err := s.steps(r)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	failed := map[string]bool{}
	answers := []outcome{}
	for _, st := range steps {
		rec := &recorder{header: http.Header{}}
		if slices.ContainsFunc(st.After, func(id string) bool { return failed[id] }) {
			s.refuse(rec, r, errDependency)
		} else if inner, err := st.request(r); err != nil {
			s.refuse(rec, r, err)
		} else {
			each.ServeHTTP(rec, inner)
		}
		failed[st.ID] = rec.status >= 400
		answers = append(answers, rec.outcome(st.ID))
	}
	slices.Reverse(answers)
	bearer.WriteJSON(w, http.StatusOK, map[string]any{"responses": answers})
}

// steps reads the batch, and puts its requests into an order in which each
// comes after those that it depends on.
func (s *Server) steps(r *http.Request) ([]step, error) {
	t, err := s.cfg.Read(r)
	switch {
	case errors.Is(err, bearer.ErrMissing):
		return nil, errNoToken
	case err != nil && !errors.Is(err, bearer.ErrRevoked):
		return nil, errToken // one that was revoked each request answers for itself
	case t.Resource.ID != directory.Graph:
		return nil, errAudience
	}
	var in struct {
		Requests []step `json:"requests"`
	}
	if bearer.ReadJSON(r, &in) != nil || len(in.Requests) == 0 {
		return nil, errBatch
	}
	if len(in.Requests) > maxBatch {
		return nil, errBatchSize
	}
	return order(in.Requests)
}

// order sorts the requests by what they depend on. Ids are unique, and
// nothing depends on itself.
func order(steps []step) ([]step, error) {
	known := map[string]bool{}
	for _, st := range steps {
		if st.ID == "" || known[st.ID] || st.Method == "" || st.URL == "" {
			return nil, errBatch
		}
		known[st.ID] = true
		if len(st.Body) > 0 && st.header("Content-Type") == "" {
			return nil, &apiError{status: 400, code: "BadRequest", text: "Write request id : " + st.ID + " does not contain Content-Type header or body."}
		}
	}
	var sorted []step
	done := map[string]bool{}
	for len(sorted) < len(steps) {
		before := len(sorted)
		for _, st := range steps {
			if !done[st.ID] && !slices.ContainsFunc(st.After, func(id string) bool { return !done[id] }) {
				done[st.ID] = true
				sorted = append(sorted, st)
			}
		}
		if len(sorted) == before {
			return nil, errBatch
		}
	}
	return sorted, nil
}

func (st step) header(name string) string {
	for k, v := range st.Headers {
		if strings.EqualFold(k, name) {
			return v
		}
	}
	return ""
}

// request is the step as a request of its own.
func (st step) request(outer *http.Request) (*http.Request, error) {
	u, err := url.Parse(st.URL)
	if err != nil || u.IsAbs() || u.Host != "" {
		return nil, errBatchURL
	}
	u.Path, u.RawPath = "/v1.0/"+strings.TrimPrefix(u.Path, "/"), ""
	if strings.EqualFold(strings.TrimRight(u.Path, "/"), batchPath) {
		return nil, errBatchURL
	}
	r, err := http.NewRequestWithContext(outer.Context(), strings.ToUpper(st.Method), "/", bytes.NewReader(st.Body))
	if err != nil {
		return nil, errBatch // the method is none
	}
	r.URL, r.Host = u, outer.Host
	for k, v := range st.Headers {
		r.Header.Set(k, v)
	}
	r.Header.Set("Authorization", outer.Header.Get("Authorization"))
	return r, nil
}

// A recorder keeps the answer that a handler writes.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (rec *recorder) Header() http.Header { return rec.header }

func (rec *recorder) WriteHeader(status int) { rec.status = status }

func (rec *recorder) Write(b []byte) (int, error) { return rec.body.Write(b) }

func (rec *recorder) outcome(id string) outcome {
	o := outcome{ID: id, Status: rec.status, Headers: map[string]string{}}
	if json.Valid(rec.body.Bytes()) {
		o.Body = rec.body.Bytes()
	}
	for k, v := range rec.header {
		o.Headers[k] = v[0]
	}
	return o
}
