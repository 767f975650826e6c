package graph

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/mandate-sam/mandate"
)

// An Error is a refusal by Graph.
type Error struct {
	Status    int    // HTTP status
	Code      string // such as "Authorization_RequestDenied"; "" if the answer named none
	Message   string // Graph's words, in one line
	RequestID string // to quote to Microsoft
}

func (e *Error) Error() string {
	if e.Code == "" {
		return fmt.Sprintf("graph answered %d", e.Status)
	}
	return fmt.Sprintf("graph answered %d, %s", e.Status, e.Code)
}

// classify says whom a refusal concerns.
func classify(status int) (mandate.Domain, mandate.Remedy) {
	switch status {
	case http.StatusUnauthorized:
		return mandate.DomainGrant, mandate.RemedyRenew
	case http.StatusForbidden:
		return mandate.DomainAudience, mandate.RemedyConfigure // a permission is missing
	case http.StatusBadRequest, http.StatusNotFound:
		return mandate.DomainAudience, mandate.RemedyConfigure
	}
	return mandate.DomainTransient, mandate.RemedyRetry
}

// fault makes a fault of an answer other than 200.
func fault(status int, h http.Header, body []byte, id string, token mandate.Secret) *mandate.Fault {
	var b struct {
		Error struct {
			Code       string `json:"code"`
			Message    string `json:"message"`
			InnerError struct {
				RequestID string `json:"request-id"`
			} `json:"innerError"`
		} `json:"error"`
	}
	if isJSON(h) {
		_ = json.Unmarshal(body, &b) // an unreadable body leaves the status
	}
	e := &Error{
		Status:    status,
		Code:      clean(hide(b.Error.Code, token), 64),
		Message:   clean(hide(b.Error.Message, token), 500),
		RequestID: clean(hide(b.Error.InnerError.RequestID, token), 64),
	}
	if e.RequestID == "" {
		e.RequestID = clean(hide(h.Get("request-id"), token), 64)
	}
	f := &mandate.Fault{Description: e.Message, CorrelationID: e.RequestID, Status: status, RetryAfter: retryAfter(h, time.Now()), Cause: e}
	if f.CorrelationID == "" {
		f.CorrelationID = id
	}
	f.Domain, f.Remedy = classify(status)
	return f
}

// hide takes the token out of a text, should an answer have repeated it.
func hide(s string, token mandate.Secret) string {
	if token.IsZero() {
		return s
	}
	return strings.ReplaceAll(s, token.Reveal(), "[secret]")
}

// clean makes one line of at most max bytes out of s, with nothing in it that a
// terminal or a page would act upon.
func clean(s string, max int) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return -1
		}
		return r
	}, strings.ToValidUTF8(s[:min(len(s), 4*max)], ""))
	s = strings.Join(strings.Fields(s), " ")
	return strings.ToValidUTF8(s[:min(len(s), max)], "")
}

// retryAfter reads the header of RFC 9110, section 10.2.3: seconds, or a date.
// More than a day is a day.
func retryAfter(h http.Header, now time.Time) time.Duration {
	v := h.Get("Retry-After")
	var d time.Duration
	if n, err := strconv.ParseInt(v, 10, 32); err == nil {
		d = time.Duration(n) * time.Second
	} else if t, err := http.ParseTime(v); err == nil {
		d = t.Sub(now)
	}
	return min(max(d, 0), 24*time.Hour)
}
