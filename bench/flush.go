package main

import (
	"bytes"
	"net/http"
	"os"
	"runtime"
	"sync"
	"syscall"
)

// A flusher is the least that a durable answer costs: whoever answers waits
// until bytes as many as a record's are on the disk, together with all who wait
// then. The bytes are ready, there are zeros where they go, and they say
// nothing.
type flusher struct {
	file *os.File
	line []byte
	room int64 // bytes of the file, which is written again from its beginning

	mu      sync.Mutex // guards the fields below
	waiting int
	done    chan struct{} // closed when those who wait need not any more
	writing bool
	failed  error
}

// newFlusher makes a file for lines of that many bytes.
func newFlusher(path string, size int) (*flusher, error) {
	const room = 64 << 20
	if err := os.WriteFile(path, make([]byte, room), 0o600); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|syscall.O_DSYNC, 0o600)
	return &flusher{file: file, line: bytes.Repeat([]byte("a"), size), room: room, done: make(chan struct{})}, err
}

// wait waits for a flush that begins from now on.
func (f *flusher) wait() error {
	f.mu.Lock()
	f.waiting++
	done := f.done
	if !f.writing {
		f.writing = true
		go f.run()
	}
	f.mu.Unlock()
	<-done
	return f.failed
}

func (f *flusher) run() {
	for at := int64(0); ; {
		for before := -1; before != f.count(); runtime.Gosched() {
			before = f.count()
		}
		f.mu.Lock()
		n, done := f.waiting, f.done
		f.waiting, f.done, f.writing = 0, make(chan struct{}), n > 0
		f.mu.Unlock()
		if n == 0 {
			return
		}
		batch := bytes.Repeat(f.line, n)
		if at+int64(len(batch)) > f.room {
			at = 0
		}
		if _, err := f.file.WriteAt(batch, at); err != nil {
			f.failed = err
		}
		at += int64(len(batch))
		close(done)
	}
}

func (f *flusher) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.waiting
}

// flushed returns h behind a flush, and behind the body of the request.
func (f *flusher) flushed(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body bytes.Buffer
		if _, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, 4<<10)); err != nil || f.wait() != nil {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		h.ServeHTTP(w, r)
	})
}
