package entra

import (
	"encoding/json" // lenient here: an error must not get lost over its form
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/upstream"
)

const (
	maxDescription = 500     // bytes of Microsoft's words that are kept
	maxID          = 64      // bytes of an id or an error's name
	maxCodes       = 16      // AADSTS numbers
	maxChallenge   = 4 << 10 // bytes of a claims challenge
)

// failure is the body of RFC 6749, section 5.2, with Entra's additions.
type failure struct {
	Error         string          `json:"error"`
	Description   string          `json:"error_description"`
	Codes         json.RawMessage `json:"error_codes"`
	Suberror      string          `json:"suberror"`
	Claims        string          `json:"claims"`
	Timestamp     string          `json:"timestamp"`
	TraceID       string          `json:"trace_id"`
	CorrelationID string          `json:"correlation_id"`
}

// fault says what an answer other than 200 means.
func (x exchange) fault(status int, h http.Header, body []byte) *mandate.Fault {
	var e failure
	if !upstream.IsJSON(h) || json.Unmarshal(body, &e) != nil || e.Error == "" {
		f := x.unusable(status, "status "+strconv.Itoa(status)+" without an OAuth error; is there a proxy in between?")
		f.RetryAfter = upstream.RetryAfter(h, time.Now())
		return f
	}
	for _, s := range []*string{&e.Error, &e.Description, &e.Suberror, &e.Claims, &e.Timestamp, &e.TraceID, &e.CorrelationID} {
		*s = x.censor.Replace(*s)
	}
	f := describe(e.Error, e.Description)
	if codes := numbers(e.Codes); len(codes) > 0 {
		f.Codes = codes
	}
	f.Suberror = upstream.Clean(e.Suberror, maxID)
	f.TraceID = first(upstream.Clean(e.TraceID, maxID), f.TraceID, upstream.Clean(x.censor.Replace(h.Get("x-ms-request-id")), maxID))
	f.Timestamp = first(upstream.Clean(e.Timestamp, maxID), f.Timestamp)
	f.CorrelationID = x.correlation(first(e.CorrelationID, f.CorrelationID), h)
	f.Status = status
	f.RetryAfter = upstream.RetryAfter(h, time.Now())
	if len(e.Claims) <= maxChallenge && json.Valid([]byte(e.Claims)) {
		f.Claims = e.Claims
	}
	f.Domain, f.Remedy = classify(f, x.own)
	return f
}

var (
	// tail is where the ids begin that Entra appends to a description. Until
	// about 2023 they were on lines of their own; now spaces part them.
	tail = regexp.MustCompile(`\s+(Trace ID|Correlation ID|Timestamp):\s`)

	aadsts        = regexp.MustCompile(`\bAADSTS(\d{1,9})\b`)
	traceID       = regexp.MustCompile(`\sTrace ID:\s+(\S{1,64})`)
	correlationID = regexp.MustCompile(`\sCorrelation ID:\s+(\S{1,64})`)
	timestamp     = regexp.MustCompile(`\sTimestamp:\s+([0-9:. TZ-]{1,40})`)
)

// describe takes apart what Entra says in words: at the token endpoint as on
// the way through a browser.
func describe(oauthError, description string) *mandate.Fault {
	f := &mandate.Fault{
		OAuthError:    upstream.Clean(oauthError, maxID),
		TraceID:       upstream.Clean(submatch(traceID, description), maxID),
		CorrelationID: upstream.Clean(submatch(correlationID, description), maxID),
		Timestamp:     upstream.Clean(submatch(timestamp, description), maxID),
	}
	for _, m := range aadsts.FindAllStringSubmatch(description, maxCodes) {
		n, _ := strconv.Atoi(m[1])
		f.Codes = append(f.Codes, n)
	}
	if at := tail.FindStringIndex(description); at != nil {
		description = description[:at[0]]
	}
	f.Description = upstream.Clean(description, maxDescription)
	return f
}

func submatch(re *regexp.Regexp, s string) string {
	if m := re.FindStringSubmatch(s); m != nil {
		return m[1]
	}
	return ""
}

func first(s ...string) string {
	for _, v := range s {
		if v != "" {
			return v
		}
	}
	return ""
}

// numbers reads error_codes, which may be missing, or hold what is no number.
func numbers(raw json.RawMessage) []int {
	var all []json.RawMessage
	if json.Unmarshal(raw, &all) != nil {
		return nil
	}
	var out []int
	for _, v := range all[:min(len(all), maxCodes)] {
		var n number
		if n.UnmarshalJSON(v) == nil && n > 0 && n < 1e9 {
			out = append(out, int(n))
		}
	}
	return out
}

// secretFields are those parameters of a token request that nobody may read in
// an error.
var secretFields = []string{"client_secret", "client_assertion", "refresh_token", "code", "code_verifier"}

// censor returns what takes the confidential parameters of a form out of a
// text, as they are and as a form holds them. Texts are censored before they
// are shortened: half a refresh token is still nobody's business.
func censor(form url.Values) *strings.Replacer {
	var secrets []string
	for _, name := range secretFields {
		v := form.Get(name)
		secrets = append(secrets, v, url.QueryEscape(v))
	}
	return upstream.Redactor(secrets...)
}
