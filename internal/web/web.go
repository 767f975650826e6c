// Package web is what every HTTP handler of this program shares: handlers
// that return errors, one table between errors and their form on the wire,
// strict reading of JSON and forms, pages with their security headers, the
// client's address, rate limits, request ids and the access log.
//
// An error that a caller can act on has a row in the table; every other one
// is a fault of this program: status 500, logged in full with a request id,
// and withheld from the caller but for that id.
package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"
)

// A Handler is an HTTP handler that may fail. It either writes a response and
// returns nil, or writes nothing and returns an error.
type Handler func(w http.ResponseWriter, r *http.Request) error

// JSON adapts h for programs: its errors become a JSON body of the form
// {"error": {…}}, see [Problem], and are logged once.
func JSON(log *slog.Logger, h Handler) http.Handler {
	return Page(log, writeProblem, h)
}

// Page adapts h for people: fail writes the page that reports an error. If
// fail fails too, or h had begun an answer, there is a plain line of text, or
// a broken connection, and both errors are in the log.
func Page(log *slog.Logger, fail func(http.ResponseWriter, *http.Request, Problem) error, h Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := record(w)
		err := try(h, rec, r)
		if err == nil || hungUp(r, err) {
			return
		}
		p := NewProblem(err)
		p.RequestID = RequestID(r.Context())
		report(log, r, p.Status, err)
		if rec.status != 0 {
			panic(http.ErrAbortHandler) // half an answer must not look whole
		}
		p.setHeader(w.Header())
		if err := fail(rec, r, p); err != nil && rec.status == 0 {
			log.ErrorContext(r.Context(), "error page failed", "request_id", p.RequestID, "err", err)
			http.Error(rec, "internal error, request "+p.RequestID, http.StatusInternalServerError)
		}
	})
}

// try runs h and turns a panic into an error that carries the stack. The
// panic that asks net/http to break the connection passes.
func try(h Handler, w http.ResponseWriter, r *http.Request) (err error) {
	defer func() {
		if v := recover(); v == http.ErrAbortHandler {
			panic(v)
		} else if v != nil {
			err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
	}()
	return h(w, r)
}

// hungUp reports whether err is only that the client went away, which is
// nobody's fault and has nobody to read an answer.
func hungUp(r *http.Request, err error) bool {
	return errors.Is(err, context.Canceled) && r.Context().Err() != nil
}

// report logs err once: what is our fault as an error, the rest as news.
func report(log *slog.Logger, r *http.Request, status int, err error) {
	level := slog.LevelInfo
	if status >= 500 {
		level = slog.LevelError
	}
	log.Log(r.Context(), level, "request failed", "request_id", RequestID(r.Context()),
		"route", r.Pattern, "status", status, "err", err)
}

// setHeader sets what a status needs beside its body.
func (p *Problem) setHeader(h http.Header) {
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(p.RetryAfter, 10))
	}
	if p.Status == http.StatusUnauthorized && h.Get("WWW-Authenticate") == "" {
		h.Set("WWW-Authenticate", `Basic realm="mandate", charset="UTF-8"`)
	}
}

// A recorder remembers what was answered.
type recorder struct {
	http.ResponseWriter
	status int // 0 until the header is written
	bytes  int64
}

// record returns w as a recorder; one that already is stays the same.
func record(w http.ResponseWriter) *recorder {
	if r, ok := w.(*recorder); ok {
		return r
	}
	return &recorder{ResponseWriter: w}
}

func (w *recorder) WriteHeader(status int) {
	if status >= 200 && w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(b)
	w.bytes += int64(n)
	return n, err
}

// Unwrap lets [http.ResponseController] reach flush and deadlines.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// NewServer returns a server for h with limits on everything that a client
// can make slow or large. A handler that must stream for longer than the
// write limit of two minutes moves it with [http.ResponseController].
func NewServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      2 * time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		ConnContext:       HoldContext,
	}
}
