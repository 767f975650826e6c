package policy

import (
	"reflect"
	"testing"

	"github.com/mandate-sam/mandate"
)

// Every attribute that a rule can look at is in the record of the decision;
// one that is added without a place there fails here. That each field is
// filled is shown by the broker's tests.
func TestAuditEveryAttributeIsRecorded(t *testing.T) {
	in := map[string]string{
		"audience": "Audience", "cloud": "Grant", "purpose": "Purpose", "ticket": "Ticket", "asked": "Asked", "ip": "Address",
		"now": "Time", "weekday": "Time", "mfa_age": "MFATime", "method": "Detail", "path": "Detail",
	}
	for name := range attributes {
		if _, ok := reflect.TypeFor[mandate.Record]().FieldByName(in[name]); !ok {
			t.Errorf("context.%s is in no field of a record", name)
		}
	}
}
