package keyvault

import (
	"regexp"
	"strconv"
	"strings"
	"time"
)

// A rotation is a key's rotation policy. The emulator keeps it and gives new
// versions the end that it wants; it rotates nothing by itself.
type rotation struct {
	Actions    []action `json:"lifetimeActions"`
	Attributes struct {
		Expiry  string `json:"expiryTime,omitempty"`
		Created int64  `json:"created,omitempty"`
		Updated int64  `json:"updated,omitempty"`
	} `json:"attributes"`
}

type action struct {
	Trigger struct {
		AfterCreate  string `json:"timeAfterCreate,omitempty"`
		BeforeExpiry string `json:"timeBeforeExpiry,omitempty"`
	} `json:"trigger"`
	Action struct {
		Type string `json:"type"`
	} `json:"action"`
}

// notify is what Azure does for every key: tell 30 days before the end.
var notify = func() (a action) {
	a.Trigger.BeforeExpiry, a.Action.Type = "P30D", "Notify"
	return a
}()

var iso8601 = regexp.MustCompile(`^P(?:(\d{1,4})Y)?(?:(\d{1,4})M)?(?:(\d{1,5})D)?$`)

// after returns the moment that long after t: years, months and days.
func after(t time.Time, duration string) (time.Time, bool) {
	m := iso8601.FindStringSubmatch(duration)
	if m == nil || duration == "P" {
		return t, false
	}
	n := func(i int) int { v, _ := strconv.Atoi(m[i]); return v } // digits, or empty for 0
	return t.AddDate(n(1), n(2), n(3)), true
}

func (r *rotation) check() error {
	if r.Attributes.Expiry != "" {
		if _, ok := after(time.Time{}, r.Attributes.Expiry); !ok {
			return badParameter("Property expiryTime has invalid value.")
		}
	}
	if len(r.Actions) > 2 {
		return badParameter("Property lifetimeActions has more than two entries.")
	}
	for i, a := range r.Actions {
		d := a.Trigger.AfterCreate + a.Trigger.BeforeExpiry
		if _, ok := after(time.Time{}, d); !ok {
			return badParameter("Property trigger of lifetimeActions has invalid value.")
		}
		switch strings.ToLower(a.Action.Type) {
		case "rotate":
			r.Actions[i].Action.Type = "Rotate"
		case "notify":
			r.Actions[i].Action.Type = "Notify"
		default:
			return badParameter("Property action of lifetimeActions has invalid value.")
		}
	}
	return nil
}

// expiry is the end of a version that is made at that moment.
func (r *rotation) expiry(now time.Time) (int64, bool) {
	if r == nil || r.Attributes.Expiry == "" {
		return 0, false
	}
	end, ok := after(now, r.Attributes.Expiry)
	return end.Unix(), ok
}
