package token

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"sync"
	"time"
)

// A SignIn is what an authorization code or a refresh token goes back to: who
// signed in, how, and for which application. It never changes on the way.
type SignIn struct {
	User     string    // object id
	Tenant   string    // in which the user signed in
	Client   string    // application id
	AMR      []string  // how; contains "mfa" only if it was done
	Time     time.Time // when
	Nonce    string    // of the authorization request
	ACRs     []string  // authentication contexts satisfied
	AuthTime bool      // the request asked for the auth_time claim
	Resource string    // asked for first; what a request that names none gets
	Public   bool      // the client showed no credential
	SPA      time.Time // a single-page application's: when the code was redeemed
}

// MFA reports whether the sign-in was made with a second factor.
func (s SignIn) MFA() bool { return slices.Contains(s.AMR, "mfa") }

// Session is the id of the session that the sign-in began, as the claim sid has
// it.
func (s SignIn) Session() string {
	sum := sha256.Sum256([]byte(s.User + "|" + s.Time.UTC().Format(time.RFC3339Nano)))
	h := hex.EncodeToString(sum[:16])
	return h[:8] + "-" + h[8:12] + "-4" + h[13:16] + "-8" + h[17:20] + "-" + h[20:]
}

// A Refresh is a refresh token as the ledger shows it, without its value.
type Refresh struct {
	Number int       `json:"number"` // from 1, in order of issue
	Parent int       `json:"parent"` // the refresh token redeemed for it; 0: a code was
	User   string    `json:"user"`   // object id
	Tenant string    `json:"tenant"` // in which the user signed in
	Client string    `json:"client"`
	Issued time.Time `json:"issued"`
	Used   time.Time `json:"used,omitzero"` // last redemption

	// Replaced is when it was first exchanged for another refresh token.
	Replaced time.Time `json:"-"`

	// Revoked is set by those who list, who know the user.
	Revoked bool `json:"revoked"`
}

// A Ledger numbers refresh tokens and remembers what they stand for. It keeps
// hashes, not tokens. It is safe for concurrent use; the zero value is empty.
type Ledger struct {
	// mu guards the two fields below.
	mu      sync.Mutex
	numbers map[[32]byte]int // hash of the value to number
	entries []entry          // by number - 1
}

type entry struct {
	refresh Refresh
	signIn  SignIn
}

// Add records a refresh token and returns its number.
func (l *Ledger) Add(value string, parent int, s SignIn, now time.Time) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.numbers == nil {
		l.numbers = map[[32]byte]int{}
	}
	n := len(l.entries) + 1
	l.numbers[sha256.Sum256([]byte(value))] = n
	l.entries = append(l.entries, entry{
		Refresh{Number: n, Parent: parent, User: s.User, Tenant: s.Tenant, Client: s.Client, Issued: now}, s,
	})
	return n
}

// Find returns the refresh token with that value.
func (l *Ledger) Find(value string) (Refresh, SignIn, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, ok := l.numbers[sha256.Sum256([]byte(value))]
	if !ok {
		return Refresh{}, SignIn{}, false
	}
	e := l.entries[n-1]
	return e.refresh, e.signIn, true
}

// Use notes that the refresh token was redeemed, and exchanged for another.
func (l *Ledger) Use(number int, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if number >= 1 && number <= len(l.entries) {
		r := &l.entries[number-1].refresh
		r.Used = now
		if r.Replaced.IsZero() {
			r.Replaced = now
		}
	}
}

// List returns all refresh tokens by number.
func (l *Ledger) List() []Refresh {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]Refresh, len(l.entries))
	for i, e := range l.entries {
		all[i] = e.refresh
	}
	return all
}

// Clear forgets every refresh token; numbers start again from 1.
func (l *Ledger) Clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.numbers, l.entries = nil, nil
}
