package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"
)

// A progress says on w what is going on, in colour on a terminal.
type progress struct {
	w      io.Writer
	colour bool
	n      int
	began  time.Time
}

func newProgress(f *os.File) *progress {
	return &progress{w: f, colour: term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == ""}
}

// Begin implements [demo.Progress].
func (p *progress) Begin(step string) {
	p.n++
	p.began = time.Now()
	fmt.Fprintf(p.w, "%2d. %s … ", p.n, step)
}

// End implements [demo.Progress].
func (p *progress) End(note string) {
	fmt.Fprintf(p.w, "%s %v\n", p.paint("32", "✓"), time.Since(p.began).Round(time.Millisecond))
	if note != "" {
		fmt.Fprintf(p.w, "    %s\n", p.paint("2", note))
	}
}

// Fail implements [demo.Progress].
func (p *progress) Fail(err error) {
	fmt.Fprintf(p.w, "%s\n    %v\n", p.paint("31", "✗"), err)
}

func (p *progress) paint(code, s string) string {
	if !p.colour {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}
