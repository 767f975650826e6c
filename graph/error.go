package graph

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/upstream"
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
func fault(status int, h http.Header, body []byte, id string, confidential ...mandate.Secret) *mandate.Fault {
	var b struct {
		Error struct {
			Code       string `json:"code"`
			Message    string `json:"message"`
			InnerError struct {
				RequestID string `json:"request-id"`
			} `json:"innerError"`
		} `json:"error"`
	}
	if upstream.IsJSON(h) {
		_ = json.Unmarshal(body, &b) // an unreadable body leaves the status
	}
	r := redactor(confidential)
	e := &Error{
		Status:    status,
		Code:      upstream.Clean(r.Replace(b.Error.Code), 64),
		Message:   upstream.Clean(r.Replace(b.Error.Message), 500),
		RequestID: upstream.Clean(r.Replace(b.Error.InnerError.RequestID), 64),
	}
	if e.RequestID == "" {
		e.RequestID = upstream.Clean(r.Replace(h.Get("request-id")), 64)
	}
	f := &mandate.Fault{Description: e.Message, CorrelationID: e.RequestID, Status: status, RetryAfter: upstream.RetryAfter(h, time.Now()), Cause: e}
	if f.CorrelationID == "" {
		f.CorrelationID = id
	}
	f.Domain, f.Remedy = classify(status)
	return f
}
