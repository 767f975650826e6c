package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"

	"github.com/mandate-sam/mandate"
)

// Offline returns the records of a log that is not open, as far as they are in
// the clear: those of the directory of a log in files, of an export, or of a
// log of the earlier form, which was a record a line. It proves nothing: that
// is what [Verify] is for.
func Offline(path string) iter.Seq2[mandate.Record, error] {
	return func(yield func(mandate.Record, error) bool) {
		names := []string{path}
		st, err := os.Stat(path)
		if err == nil && st.IsDir() {
			if names, err = segmentFiles(path); err == nil && len(names) == 0 {
				err = fmt.Errorf("%s has no segment of an audit log", path)
			}
		}
		if err != nil {
			yield(mandate.Record{}, err)
			return
		}
		for _, name := range names {
			if !offlineFile(name, yield) {
				return
			}
		}
	}
}

// offlineFile yields the records of a file, and reports whether to go on.
func offlineFile(name string, yield func(mandate.Record, error) bool) bool {
	fail := func(err error) bool {
		yield(mandate.Record{}, err)
		return false
	}
	f, err := os.Open(name)
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	in := bufio.NewReaderSize(f, maxLine)
	for n := 1; ; n++ {
		b, err := in.ReadSlice('\n')
		if errors.Is(err, io.EOF) || bytes.IndexByte(b, 0) >= 0 {
			return true // what has no end, or a hole, was never acknowledged
		}
		if err != nil {
			return fail(fmt.Errorf("audit log %s, line %d: %w", name, n, err))
		}
		b = bytes.TrimSuffix(b, []byte("\n"))
		if _, err := parseTrace(b); err == nil || isFrame(b) {
			continue
		}
		r, err := offlineRecord(b)
		if err != nil {
			return fail(fmt.Errorf("audit log %s, line %d: is not a record", name, n))
		}
		if !yield(r, nil) {
			return false
		}
	}
}

// isFrame reports whether a line of an export is none of its records.
func isFrame(b []byte) bool {
	if _, err := parseExportHeader(b); err == nil {
		return true
	}
	if _, err := parseCheckpointLine(b); err == nil {
		return true
	}
	if _, err := parseProofLine(b); err == nil {
		return true
	}
	_, err := parseHeadsLine(b)
	return err == nil
}

func offlineRecord(b []byte) (r mandate.Record, err error) {
	h, rest, err := parseHead(b)
	if err != nil {
		if earlier := json.Unmarshal(b, &r); earlier == nil && r.Kind != "" {
			return r, nil
		}
		return r, err
	}
	p, err := parseRest(rest)
	if err != nil {
		return r, err
	}
	return r, decodeRecord(&r, &h, &p)
}
