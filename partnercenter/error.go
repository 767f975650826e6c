package partnercenter

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/upstream"
)

// An Error is a refusal by Partner Center.
type Error struct {
	Status        int    // HTTP status
	Code          string // such as "900421"; "" if the answer named none
	Description   string // Partner Center's words, in one line
	RequestID     string // MS-RequestId
	CorrelationID string // MS-CorrelationId, to quote to Microsoft
}

func (e *Error) Error() string {
	if e.Code == "" {
		return fmt.Sprintf("partner center answered %d", e.Status)
	}
	return fmt.Sprintf("partner center answered %d, code %s", e.Status, e.Code)
}

// codeMFA says that the token was obtained without MFA.
const codeMFA = "900421"

type finding struct {
	domain mandate.Domain
	remedy mandate.Remedy
}

// findings are the codes that are known, as Microsoft's "Partner Center error
// codes" explains them.
var findings = map[string]finding{
	"900420": {mandate.DomainApplication, mandate.RemedyConfigure}, // a token for the retired Azure AD Graph
	"900329": {mandate.DomainApplication, mandate.RemedyConfigure}, // needs a user's token
	codeMFA:  {mandate.DomainGrant, mandate.RemedyRenew},
	"900308": {mandate.DomainGrant, mandate.RemedyAdminister}, // insufficient privileges
	"900309": {mandate.DomainGrant, mandate.RemedyAdminister}, // conditional access
	"1002":   {mandate.DomainGrant, mandate.RemedyAdminister},
	"60003":  {mandate.DomainCustomer, mandate.RemedyConfigure}, // tenant not found
	"90000":  {mandate.DomainTransient, mandate.RemedyRetry},    // Entra did not answer Partner Center
}

// classify says whom a refusal concerns: by code, and by status where the code
// is not known.
func classify(e *Error) finding {
	if f, ok := findings[e.Code]; ok {
		return f
	}
	switch e.Status {
	case http.StatusUnauthorized:
		return finding{mandate.DomainGrant, mandate.RemedyRenew}
	case http.StatusForbidden:
		return finding{mandate.DomainGrant, mandate.RemedyAdminister}
	case http.StatusNotFound:
		return finding{mandate.DomainCustomer, mandate.RemedyConfigure}
	case http.StatusBadRequest, http.StatusConflict:
		return finding{mandate.DomainAudience, mandate.RemedyConfigure}
	}
	return finding{mandate.DomainTransient, mandate.RemedyRetry}
}

// fault makes a fault of an answer other than 200.
func fault(status int, h http.Header, body []byte, correlation string, token mandate.Secret) *mandate.Fault {
	var b struct {
		Code        json.RawMessage `json:"code"` // a string, or a number
		Description json.RawMessage `json:"description"`
	}
	_ = decode(h, body, &b) // an unreadable body leaves the status
	r := upstream.Redactor(token.Reveal())
	e := &Error{
		Status:        status,
		Code:          upstream.Clean(r.Replace(text(b.Code)), 32),
		Description:   upstream.Clean(r.Replace(text(b.Description)), 500),
		RequestID:     upstream.Clean(r.Replace(h.Get("MS-RequestId")), 64),
		CorrelationID: upstream.Clean(r.Replace(h.Get("MS-CorrelationId")), 64),
	}
	if e.CorrelationID == "" {
		e.CorrelationID = correlation
	}
	found := classify(e)
	return &mandate.Fault{
		Domain: found.domain, Remedy: found.remedy, Description: e.Description, CorrelationID: e.CorrelationID,
		Status: status, RetryAfter: upstream.RetryAfter(h, time.Now()), Cause: e,
	}
}

// text returns a JSON string, or a number as it is written.
func text(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	var n json.Number
	if json.Unmarshal(raw, &n) == nil {
		return n.String()
	}
	return ""
}
