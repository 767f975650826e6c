package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/mandate-sam/mandate"
)

// maxBody is the longest request body that [Read] and [ReadForm] accept, in
// bytes.
const maxBody = 64 << 10

// shortBody is how long a body may be that memory is made for by the client's
// word, in bytes.
const shortBody = 4 << 10

// Read decodes the request body, a JSON object, into a T, which must be a
// struct. It refuses other content types, bodies over 64 KiB, fields that T
// does not have, fields given twice (two parsers might see two requests), text
// that is not UTF-8, and anything after the object. The error is a
// [*mandate.InvalidError] that names the field.
func Read[T any](w http.ResponseWriter, r *http.Request) (T, error) {
	return ReadLong[T](w, r, maxBody)
}

// ReadLong is [Read] with another limit, in bytes: for what operators send.
func ReadLong[T any](w http.ResponseWriter, r *http.Request, limit int64) (T, error) {
	body, err := readBody(w, r, "application/json", limit)
	if err != nil {
		var none T
		return none, err
	}
	return decode[T](body)
}

// ReadQuick is [Read] for what is asked all the time. quick decodes a body in
// the form in which nearly everybody writes it; where it returns false, Read's
// decoder has the say. It must not return true for what that would refuse or
// read in another way.
func ReadQuick[T any](w http.ResponseWriter, r *http.Request, quick func([]byte) (T, bool)) (T, error) {
	body, err := readBody(w, r, "application/json", maxBody)
	if err != nil {
		var none T
		return none, err
	}
	if v, ok := quick(body); ok {
		return v, nil
	}
	return decode[T](body)
}

// decode decodes one JSON object strictly.
func decode[T any](body []byte) (T, error) {
	var v T
	if !utf8.Valid(body) {
		return v, mandate.Invalid("body", "is not UTF-8")
	}
	if err := checkKeys(body); err != nil {
		return v, err
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	return v, fieldError(d.Decode(&v))
}

// fieldError names the field in an error of encoding/json.
func fieldError(err error) error {
	var invalid *mandate.InvalidError
	var mistyped *json.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &invalid):
		return invalid
	case errors.As(err, &mistyped) && mistyped.Field != "":
		return mandate.Invalid(mistyped.Field, "must not be a JSON %s", mistyped.Value)
	}
	// encoding/json has no type for this one.
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return mandate.Invalid(strings.Trim(name, `"`), "is not a field of this request")
	}
	return mandate.Invalid("body", "is not the JSON that was expected: %v", err)
}

// ReadForm returns the fields of a form in the request body, and only of the
// body: what a link puts into the query is not part of a form. It refuses
// other content types and bodies over 64 KiB. Fields may be there twice; see
// [Duplicate].
func ReadForm(w http.ResponseWriter, r *http.Request) (url.Values, error) {
	body, err := readBody(w, r, "application/x-www-form-urlencoded", maxBody)
	if err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, mandate.Invalid("body", "is not a form")
	}
	return form, nil
}

// Duplicate returns the name of a field that form has more than once, or "".
func Duplicate(form url.Values) string {
	for name, values := range form {
		if len(values) > 1 {
			return name
		}
	}
	return ""
}

// readBody returns the body of r, which must be of the given media type.
func readBody(w http.ResponseWriter, r *http.Request, media string, limit int64) ([]byte, error) {
	if kind := r.Header.Get("Content-Type"); kind != media { // as nearly everybody writes it
		got, params, err := mime.ParseMediaType(kind)
		charset := params["charset"]
		if err != nil || got != media || charset != "" && !strings.EqualFold(charset, "utf-8") {
			return nil, mandate.Invalid("Content-Type", "must be %s", media)
		}
	}
	if r.Header.Get("Content-Encoding") != "" {
		return nil, mandate.Invalid("Content-Encoding", "must not be used")
	}
	if n := r.ContentLength; n >= 0 && n <= min(shortBody, limit) {
		body := make([]byte, n)
		if _, err := io.ReadFull(r.Body, body); err != nil {
			return nil, errBody
		}
		return body, nil
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var tooLong *http.MaxBytesError
	switch {
	case errors.As(err, &tooLong):
		return nil, mandate.Invalid("body", "is longer than %d bytes", limit)
	case err != nil:
		return nil, errBody
	}
	return body, nil
}

var errBody = mandate.Invalid("body", "could not be read to its end")

// Values of headers, made once. Nobody may change them.
var (
	jsonType = []string{"application/json"}
	noStore  = []string{"no-store"}
	noSniff  = []string{"nosniff"}
)

// Write answers with v as JSON. Nothing that this program answers may be
// cached: much of it is secret.
func Write(w http.ResponseWriter, status int, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode response: %w", err)
	}
	WriteEncoded(w, status, append(data, '\n'))
	return nil
}

// WriteEncoded is [Write] for what is JSON already. It does not keep data.
func WriteEncoded(w http.ResponseWriter, status int, data []byte) {
	h := w.Header()
	h["Content-Type"], h["Cache-Control"], h["X-Content-Type-Options"] = jsonType, noStore, noSniff
	h["Content-Length"] = []string{strconv.Itoa(len(data))} // or a longer token would go out in chunks
	w.WriteHeader(status)
	_, _ = w.Write(data) // too late to tell anybody
}

func writeProblem(w http.ResponseWriter, _ *http.Request, p Problem) error {
	return Write(w, p.Status, struct {
		Error Problem `json:"error"`
	}{p})
}
