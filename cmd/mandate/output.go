package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/mandate-sam/mandate/api"
)

// terminal reports whether w is a terminal.
func terminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// colored reports whether w takes colour: https://no-color.org.
func colored(w io.Writer) bool {
	return terminal(w) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// printJSON writes v as one line, or indented for a person.
func (c *cli) printJSON(v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if terminal(c.out) {
		e.SetIndent("", "  ")
	}
	if err := e.Encode(v); err != nil {
		return err
	}
	_, err := c.out.Write(harmless(b.Bytes()))
	return err
}

// harmless makes JSON from elsewhere harmless to a terminal: what does not print
// is escaped, which is the same to whoever reads it as JSON. Of what acts on a
// terminal JSON itself forbids only a part.
func harmless(text []byte) []byte {
	out := make([]byte, 0, len(text))
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		switch {
		case r == '\n' || unicode.IsPrint(r) && (r != utf8.RuneError || n > 1):
			out = append(out, text[:n]...)
		default:
			for _, u := range utf16.Encode([]rune{r}) {
				out = fmt.Appendf(out, `\u%04x`, u)
			}
		}
		text = text[n:]
	}
	return out
}

// showAll returns what a command does that asks for a list and shows it: under a
// name as JSON, or to a person.
func showAll[T any](c *cli, name string, ask func(*api.Client, context.Context) ([]T, error), show func([]T) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, _ []string) error {
		client, err := c.client()
		if err != nil {
			return err
		}
		all, err := ask(client, cmd.Context())
		if err != nil {
			return err
		}
		if c.json {
			return c.printJSON(map[string]any{name: all})
		}
		return show(all)
	}
}

// showOne is [showAll] for what its argument names.
func showOne[T any](c *cli, ask func(*api.Client, context.Context, string) (T, error), show func(T) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		client, err := c.client()
		if err != nil {
			return err
		}
		one, err := ask(client, cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if c.json {
			return c.printJSON(one)
		}
		return show(one)
	}
}

// note tells a person something beside the result.
func (c *cli) note(format string, args ...any) {
	if !c.json {
		fmt.Fprintln(c.err, clean(fmt.Sprintf(format, args...)))
	}
}

// clean makes text from elsewhere harmless to a terminal: what does not print
// is shown as Go would write it.
func clean(s string) string {
	if utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return s
	}
	q := strconv.Quote(s)
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}

// A paint is an ANSI colour, or "" for none.
type paint string

// The colours.
const (
	green  paint = "\x1b[32m"
	yellow paint = "\x1b[33m"
	red    paint = "\x1b[31m"
	bold   paint = "\x1b[1m"
)

// A cell is a text and its colour.
type cell struct {
	text  string
	paint paint
}

func plain(texts ...string) []cell {
	out := make([]cell, len(texts))
	for i, t := range texts {
		out[i] = cell{text: t}
	}
	return out
}

// table writes rows in columns under a head. Colour is added after the widths
// are known, and only where it is wanted.
func table(w io.Writer, head []string, rows [][]cell) error {
	all := [][]cell{plain(head...)}
	for i := range all[0] {
		all[0][i].paint = bold
	}
	all = append(all, rows...)
	width := make([]int, len(head))
	for _, row := range all {
		for i := range row {
			row[i].text = clean(row[i].text)
			width[i] = max(width[i], utf8.RuneCountInString(row[i].text))
		}
	}
	var b strings.Builder
	color := colored(w)
	for _, row := range all {
		end := len(row) // no line ends in spaces
		for end > 1 && row[end-1].text == "" {
			end--
		}
		for i, c := range row[:end] {
			pad := width[i] - utf8.RuneCountInString(c.text)
			if i == end-1 {
				pad = -2
			}
			b.WriteString(c.painted(color) + strings.Repeat(" ", pad+2))
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (c cell) painted(color bool) string {
	if !color || c.paint == "" {
		return c.text
	}
	return string(c.paint) + c.text + "\x1b[0m"
}

// moment and minute write a time for a person, in the zone of this machine and
// with its name: what a server says stands beside it, in UTC.
func moment(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05 MST") }
func minute(t time.Time) string { return t.Local().Format("2006-01-02 15:04 MST") }

// day writes a date for a person.
func day(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format(time.DateOnly)
}

// parsePeriod reads a duration such as 365d, 72h or 90m.
func parsePeriod(flag, s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		if err == nil {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, usage("--%s: %q is not a time such as 365d, 72h or 90m", flag, s)
	}
	return d, nil
}
