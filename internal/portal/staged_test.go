package portal_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
)

// A consent that waits for the operator says so, and until when: nothing on its
// page says that it was refused or that nothing was kept.
func TestWaitingConsent(t *testing.T) {
	until := time.Now().Add(mandate.CandidateLife).UTC().Format("2 January 2006")
	for _, reason := range []mandate.Reason{mandate.ReasonOtherUser, mandate.ReasonWeaker, mandate.ReasonSuspended} {
		s := open(t)
		s.broker.err = &mandate.Refusal{Reason: reason, Detail: "detail-for-the-operator", Staged: 2}
		id, form := s.begin()
		s.post(callback, form)
		res := s.get("/consent/" + id)
		if res.StatusCode != http.StatusOK || res.reason() != reason {
			t.Fatalf("%s: status %d, reason %q\n%s", reason, res.StatusCode, res.reason(), res.text)
		}
		for _, want := range []string{`class="status notyet">Proven, and waiting<`, "Everything about your consent was proven", until, "need not sign in again", "sealed and unused", "now exist</strong>"} {
			if want == "need not sign in again" && reason == mandate.ReasonWeaker {
				want = "not mean to give less"
			}
			if !strings.Contains(res.text, want) {
				t.Errorf("%s: the page lacks %q", reason, want)
			}
		}
		for _, not := range []string{"No consent was stored", "kept nothing", "did not keep", "detail-for-the-operator", "{until}", "{publisher}", "{partner}"} {
			if strings.Contains(res.text, not) {
				t.Errorf("%s: the page has %q", reason, not)
			}
		}
		// It is an answer, but the invitation stays open: what waits may never
		// become active.
		if o := s.store.signIns[id].outcome; o.Receipt != nil || o.Refused.Waits.IsZero() {
			t.Errorf("%s: outcome %+v", reason, o)
		}
	}
}
