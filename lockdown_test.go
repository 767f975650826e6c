package mandate

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestLockedError(t *testing.T) {
	e := &LockedError{Lockdown{Reason: "drill", Since: time.Unix(0, 0), By: "uid:7"}}
	for _, want := range []string{"drill", "uid:7", "1970-01-01", "mandate lockdown off"} {
		if !strings.Contains(e.Error(), want) {
			t.Errorf("there is no %q in %q", want, e)
		}
	}
	if !errors.Is(e, ErrLocked) {
		t.Error("it is no ErrLocked")
	}
}

// What the records of operators' changes say is what a restore goes by.
func TestRecordsThatEnd(t *testing.T) {
	end := time.Unix(9, 0)
	for _, tt := range []struct {
		kind, detail string
		withdraws    bool
		ends         bool
		want         Ended
	}{
		{KindChanged, "withdraw the grant, and end the sessions of who consented", true, false, Ended{}},
		{KindChanged, "withdrawn: local done", true, false, Ended{}},
		{KindFailed, "withdraw the grant", false, false, Ended{}},
		{KindChanged, "withdraw an application that is nobody's", false, false, Ended{}},
		{KindChanged, "suspend the grant", false, false, Ended{}},
		{KindChanged, "remove caller billing", false, true, Ended{Caller: "billing"}},
		{KindFailed, "remove caller billing", false, false, Ended{}},
		{KindChanged, "rotate the secret of caller billing", false, true, Ended{Caller: "billing", Secrets: true}},
		{KindChanged, "expire credential k1 of caller billing", false, true, Ended{Caller: "billing", Credential: "k1", At: end}},
		{KindChanged, "add caller billing", false, false, Ended{}},
	} {
		r := Record{Kind: tt.kind, Detail: tt.detail, Grant: &GrantKey{}, Expires: end}
		if strings.Contains(tt.detail, "nobody's") {
			r.Grant = nil
		}
		if r.Withdraws() != tt.withdraws {
			t.Errorf("%s %q: withdraws: %v", tt.kind, tt.detail, r.Withdraws())
		}
		if got, ok := r.EndsCaller(); ok != tt.ends || ok && got != tt.want {
			t.Errorf("%s %q: got %+v, %v, want %+v", tt.kind, tt.detail, got, ok, tt.want)
		}
	}
}
