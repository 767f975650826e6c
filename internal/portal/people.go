package portal

import (
	"context"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/footprint"
)

const (
	// sessionName is a cookie of this host alone, for every path of it.
	sessionName = "__Host-session"

	// sessionLife is the longest that somebody stays signed in, as in
	// [People].
	sessionLife = 8 * time.Hour
)

// A SignIn is what came back from the browser of somebody who looks.
type SignIn struct {
	Partner     mandate.Partner
	Code        mandate.Secret
	Verifier    mandate.Secret
	RedirectURI string
	Nonce       string
	Began       time.Time // when the sign-in was started here
	Address     string    // of the browser, for the record
}

// A Person is somebody of a partner who has signed in.
type Person struct {
	Partner  mandate.Partner
	User     mandate.Identity
	UserName string // for people to read
	Roles    []string

	// SignedIn is when the person signed in, by the issuer's word; zero if
	// that does not say a time after the sign-in was started here.
	SignedIn time.Time
}

// freshFor is for how long somebody who signed in may change something.
const freshFor = 10 * time.Minute

// fresh reports whether the person signed in just now. If that is not known it
// was long ago.
func (p *Person) fresh(now time.Time) bool { return now.Sub(p.SignedIn) < freshFor }

// may reports whether a person has a role. Whoever has any can look.
func (p *Person) may(role string) bool {
	return role == mandate.PartnerViewer && len(p.Roles) > 0 || slices.Contains(p.Roles, role)
}

// People lets people of partners sign in. Who somebody is, is (tenant, object),
// and roles are those of now.
type People interface {
	// Partner returns the partner with that tenant, of one application. The
	// error wraps [mandate.ErrUnknownPartner].
	Partner(ctx context.Context, cloud string, a mandate.AppID, t mandate.TenantID) (mandate.Partner, error)

	// SignIn verifies who signed in, records it, and returns the secret of a
	// new session of at most eight hours, which ends when it is not used for
	// half an hour. The error is, or wraps, a [*mandate.Refusal], which is
	// recorded; its reason is [mandate.ReasonRole] if the person has no role,
	// and [mandate.ReasonRoleUnknown] if that cannot be asked.
	SignIn(context.Context, SignIn) (mandate.Secret, error)

	// Session returns whose session a secret is for. The error wraps
	// [mandate.ErrUnauthenticated], also if the person has no role any more,
	// or is a [*mandate.Refusal] as of SignIn if it cannot be asked whether.
	Session(context.Context, mandate.Secret) (Person, error)

	// End ends a session.
	End(context.Context, mandate.Secret) error
}

// Grants does with a partner's grant what people of the partner ask for. Who
// asks is recorded before it is done, and all contacts are told.
type Grants interface {
	// Renew records that somebody begins to renew the grant. The consent that
	// comes of it is [Consenter]'s.
	Renew(ctx context.Context, who Person, address string) error

	// Withdraw destroys the grant for good, and asks Entra to end the sessions
	// of who consented if endSessions. The error wraps [mandate.ErrNoGrant] if
	// there is nothing to withdraw; after any other the report says whether
	// the local copy is destroyed.
	Withdraw(ctx context.Context, who Person, endSessions bool, address string) (mandate.Withdrawal, error)
}

// A Filter says what of the history is looked for. Empty fields do not matter.
type Filter struct {
	Month    time.Time // its first moment, in UTC
	Caller   string
	Customer string // tenant
	Before   int64  // only records before this one, if it is not zero
}

// An Event is a record, as a partner reads it.
type Event struct {
	Index      int64
	Time       time.Time
	Kind       string
	Caller     string
	Purpose    string
	Tenant     mandate.TenantID
	Audience   mandate.Audience
	Scopes     []mandate.Scope
	Generation int64
	Detail     string // what was changed

	// Times is how often the same was done without anything else between, on
	// one day; the event is the last of them. Of the first, if it is more than
	// once, there are the time and the index.
	Times      int
	First      time.Time
	FirstIndex int64
}

// Often is how often, in words.
func (e *Event) Often() string { return grouped(int64(e.Times)) + " times" }

// Spans reports whether the first was in another minute than the last, as times
// are written here.
func (e *Event) Spans() bool { return e.Times > 1 && when(e.First) != when(e.Time) }

// A DayCount counts one day's events, in UTC.
type DayCount struct {
	Day    time.Time
	Issued int64 // uses of the grant
	Denied int64 // requests that were denied or failed
}

// A History is one page of events, the newest first, and the counts of all.
type History struct {
	Events    []Event
	Older     int64 // to go on before; zero if there is no more
	Days      []DayCount
	Callers   []string // to choose from
	Customers []string
}

// Records knows a partner's grant, and what was done with it.
type Records interface {
	// Grant returns the last generation, without its refresh token, and when it
	// was last used. The error wraps [mandate.ErrNotFound] if there is none.
	Grant(context.Context, mandate.GrantKey) (g mandate.Grant, used time.Time, err error)

	// History returns what was done with a grant, and nothing of another
	// partner.
	History(context.Context, mandate.GrantKey, Filter) (History, error)

	// Names returns what Microsoft calls the partner's customers, by tenant,
	// as far as it is known.
	Names(context.Context, mandate.GrantKey) (map[string]string, error)

	// Usage compares what was consented to with what was used of it, in so
	// many days and for one customer, or all of them if that is zero. The
	// error wraps [mandate.ErrNotFound] if there is no consent.
	Usage(ctx context.Context, k mandate.GrantKey, days int, customer mandate.TenantID) (footprint.Report, error)

	// Export writes the partner's own records with proofs that they are in the
	// log and that none is missing. What is about persons stays encrypted.
	Export(ctx context.Context, k mandate.GrantKey, to io.Writer) error
}

// sessionCookie holds a session. Lax lets a link from elsewhere open the page,
// and no form from elsewhere act.
func sessionCookie(value string, life time.Duration) *http.Cookie {
	return &http.Cookie{
		Name: sessionName, Value: value, Path: "/", MaxAge: int(life.Seconds()),
		Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	}
}

// session returns the secret of the session that the browser shows, which must
// be there once.
func session(r *http.Request) (mandate.Secret, bool) {
	cookies := r.CookiesNamed(sessionName)
	if len(cookies) != 1 || !plain(cookies[0].Value) {
		return mandate.Secret{}, false
	}
	return mandate.NewSecret(cookies[0].Value), true
}
