package api

import (
	"net/url"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/audit"
)

func TestUsage(t *testing.T) {
	w := newWorld(t)
	r, err := w.operator.Usage(t.Context(), "contoso", url.Values{"days": {"30"}, "customer": {adatumID.String()}})
	if err != nil || r.Partner != "contoso" || r.Days != 30 || r.Customer != adatumID || r.To.Sub(r.From) < 29*24*time.Hour {
		t.Errorf("got %+v, %v", r, err)
	}
	q := w.archive.query
	if q.Chain != audit.Chain("test", contosoID) || q.Kind != mandate.KindIssued || q.Tenant != adatumID.String() || !q.From.Equal(r.From) {
		t.Errorf("asked %+v", q)
	}
	if r, err := w.operator.Usage(t.Context(), "contoso", nil); err != nil || r.Days != 90 || w.archive.query.Tenant != "" {
		t.Errorf("got %+v, %v, asked %+v", r, err, w.archive.query)
	}
	for query, field := range map[string]string{"days=31": "days", "customer=adatum": "customer", "x=1": "x", "days=30&days=90": "days", "%": "query"} {
		status, _, body := send(t, w.operator, "GET", "/v1/partners/contoso/usage?"+query, "")
		if status != 400 {
			t.Errorf("%s: got status %d", query, status)
		}
		wantField(t, status, body, field)
	}
}
