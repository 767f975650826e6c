package entra

import (
	"encoding/json" // lenient here: an error must not get lost over its form
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/mandate-sam/mandate"
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
	if !isJSON(h) || json.Unmarshal(body, &e) != nil || e.Error == "" {
		f := x.unusable(status, "status "+strconv.Itoa(status)+" without an OAuth error; is there a proxy in between?")
		f.RetryAfter = retryAfter(h, time.Now())
		return f
	}
	for _, s := range []*string{&e.Error, &e.Description, &e.Suberror, &e.Claims, &e.Timestamp, &e.TraceID, &e.CorrelationID} {
		*s = x.censor.Replace(*s)
	}
	f := describe(e.Error, e.Description)
	if codes := numbers(e.Codes); len(codes) > 0 {
		f.Codes = codes
	}
	f.Suberror = clean(e.Suberror, maxID)
	f.TraceID = first(clean(e.TraceID, maxID), f.TraceID, clean(x.censor.Replace(h.Get("x-ms-request-id")), maxID))
	f.Timestamp = first(clean(e.Timestamp, maxID), f.Timestamp)
	f.CorrelationID = x.correlation(first(e.CorrelationID, f.CorrelationID), h)
	f.Status = status
	f.RetryAfter = retryAfter(h, time.Now())
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
		OAuthError:    clean(oauthError, maxID),
		TraceID:       clean(submatch(traceID, description), maxID),
		CorrelationID: clean(submatch(correlationID, description), maxID),
		Timestamp:     clean(submatch(timestamp, description), maxID),
	}
	for _, m := range aadsts.FindAllStringSubmatch(description, maxCodes) {
		n, _ := strconv.Atoi(m[1])
		f.Codes = append(f.Codes, n)
	}
	if at := tail.FindStringIndex(description); at != nil {
		description = description[:at[0]]
	}
	f.Description = clean(description, maxDescription)
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

// clean makes one line of at most max bytes out of s, with nothing in it that a
// terminal or a page would act upon.
func clean(s string, max int) string {
	s = s[:min(len(s), 4*max)]
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
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

// secretFields are those parameters of a token request that nobody may read in
// an error.
var secretFields = []string{"client_secret", "client_assertion", "refresh_token", "code", "code_verifier"}

// censor returns what takes the confidential parameters of a form out of a
// text. Texts are censored before they are shortened: half a refresh token is
// still nobody's business.
func censor(form url.Values) *strings.Replacer {
	var pairs []string
	for _, name := range secretFields {
		if v := form.Get(name); v != "" {
			pairs = append(pairs, v, "[secret]", url.QueryEscape(v), "[secret]")
		}
	}
	return strings.NewReplacer(pairs...)
}

// hide returns err, or only its censored text if that differs.
func hide(r *strings.Replacer, err error) error {
	if text := r.Replace(err.Error()); text != err.Error() {
		return errors.New(text)
	}
	return err
}
