package graph

import (
	"testing"

	"github.com/mandate-sam/mandate"
)

func TestEndSessions(t *testing.T) {
	for _, a := range []answer{
		{status: 200, body: `{"@odata.context":"c","value":true}`}, {status: 204},
	} {
		f := &fakeGraph{answers: []answer{a}}
		if err := newClient(t, f).EndSessions(ctx(), token); err != nil {
			t.Errorf("%+v: %v", a, err)
		}
		r := f.asked[0]
		if r.Method != "POST" || r.URL.String() != "https://graph.test:8443/v1.0/me/revokeSignInSessions" || r.Header.Get("Authorization") != "Bearer "+canary || r.Body != nil {
			t.Errorf("asked %s %s with %v", r.Method, r.URL, r.Header)
		}
	}
	for _, tt := range []struct {
		answer answer
		domain mandate.Domain
		remedy mandate.Remedy
	}{
		{answer{status: 403, body: `{"error":{"code":"Authorization_RequestDenied","message":"Insufficient privileges."}}`}, mandate.DomainAudience, mandate.RemedyConfigure},
		{answer{status: 503}, mandate.DomainTransient, mandate.RemedyRetry},
		{answer{status: 200, body: `{"value":false}`}, mandate.DomainTransient, mandate.RemedyRetry},
		{answer{status: 200, body: `{}`}, mandate.DomainTransient, mandate.RemedyRetry},
		{answer{status: 200, body: "done"}, mandate.DomainTransient, mandate.RemedyRetry},
	} {
		err := newClient(t, &fakeGraph{answers: []answer{tt.answer}}).EndSessions(ctx(), token)
		if f := wantFault(t, err, tt.domain, tt.remedy); tt.answer.status != 200 && f.Status != tt.answer.status {
			t.Errorf("%+v: status %d", tt.answer, f.Status)
		}
	}
}
