package mandate

import (
	"time"
)

// A Consent is what came back from a partner's browser, together with what
// the server kept about the sign-in when it began.
type Consent struct {
	Partner Partner

	// User is whom the invitation is for: an object ID, or a user name that
	// the ID token must show. Empty lets any user of the tenant consent.
	User string

	Began       time.Time  // when the sign-in was started here
	Until       time.Time  // the end of the grant, as the partner read it
	Audiences   []Audience // all of them must answer; Partner Center is always among them
	Code        Secret
	Verifier    Secret // PKCE
	RedirectURI string
	Nonce       string
	Address     string // of the browser, for the record
}
