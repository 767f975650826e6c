package portal

import (
	"testing"
	"time"
)

// What records say of a change is in the words of the other pages, and times
// are said once where they read the same.
func TestPlainWords(t *testing.T) {
	for in, want := range map[string]string{
		"suspend the grant":                                 "suspend the consent",
		"approve the candidate, generation 3":               "approve the new consent, generation 3",
		"somebody of the partner begins to renew the grant": "somebody of your organisation begins to renew the consent",
		"withdrawn: local failed, upstream done, tokens done (0 alive), copies not permitted; revoked at Entra": "withdrawn. The key that we kept: failed; at Microsoft: done; to take back passes that were handed out: done (0 still good); to destroy copies out of our reach: not possible; Microsoft refuses the key, so it is revoked",
		"invite partner contoso: a named user, for 365 days":                                                    "invite partner contoso: a named user, for 365 days",
	} {
		if got := plainDetail.Replace(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
	if got := methodNames([]string{"pwd", "new"}); got != "password and new" {
		t.Errorf("got %q", got)
	}
	at := time.Date(2026, 11, 21, 20, 8, 3, 0, time.UTC)
	for want, e := range map[bool]Event{true: {Times: 2, First: at.Add(-time.Minute), Time: at}, false: {Times: 2, First: at, Time: at.Add(time.Second)}} {
		if e.Spans() != want {
			t.Errorf("%+v spans: %v", e, !want)
		}
	}
}
