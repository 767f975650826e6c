package keyvault

import (
	"regexp"
	"strconv"
	"strings"
	"time"
)

// A rotation is a key's rotation policy. It gives new versions the end that it
// wants, and makes one when it is time; see [Vault.rotateDue].
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

// due reports whether the policy wants another version now.
func (r *rotation) due(ver *version, now time.Time) bool {
	if r == nil {
		return false
	}
	for _, a := range r.Actions {
		if a.Action.Type != "Rotate" {
			continue
		}
		if at, ok := after(time.Unix(ver.Created, 0), a.Trigger.AfterCreate); ok && !now.Before(at) {
			return true
		}
		if at, ok := after(now, a.Trigger.BeforeExpiry); ok && ver.Expires != nil && at.Unix() >= *ver.Expires {
			return true
		}
	}
	return false
}

// rotateDue makes a new version of the key that the call names, if its policy
// says that it is time. Nothing happens until somebody asks for the key, which
// nobody can tell from its having happened before.
func (v *Vault) rotateDue(c *call) error {
	if c.kind != keys || c.name == "" {
		return nil
	}
	old := v.overdue(c)
	if old == nil {
		return nil
	}
	m, err := old.Key.again()
	if err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if o, err := v.live(c); err == nil && o.latest() == old { // nobody was faster
		v.addKey(c, o, &version{Enabled: true, Key: m, Ops: old.Ops, Tags: old.Tags})
	}
	return nil
}

// overdue is the version that should have been followed by another one, nil
// if there is none.
func (v *Vault) overdue(c *call) *version {
	v.mu.Lock()
	defer v.mu.Unlock()
	o, err := v.live(c)
	if err != nil || !o.Rotation.due(o.latest(), v.now()) {
		return nil
	}
	return o.latest()
}
