package fault

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A Panel holds the dials in force. It is safe for concurrent use. The zero
// value has every dial at zero.
type Panel struct {
	// mu is held while the dials change; reading needs no lock.
	mu  sync.Mutex
	now atomic.Pointer[Dials]
}

// Dials returns the dials in force. The caller must not change what its maps
// and slices hold.
func (p *Panel) Dials() Dials {
	if d := p.now.Load(); d != nil {
		return *d
	}
	return Dials{}
}

// Now is the moment by the emulator's clock; see [Dials.ClockOffset].
func (p *Panel) Now() time.Time { return time.Now().Add(p.Dials().ClockOffset) }

// Set lets f change the dials, one caller at a time. What f sets is in force
// when Set returns, all of it at once.
func (p *Panel) Set(f func(*Dials)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := p.Dials().clone()
	f(&d)
	p.now.Store(&d)
}

// Patch changes the dials as the JSON object says: what it does not name stays,
// maps are merged, lists are replaced. It returns an error, and changes
// nothing, if the object names a dial, or a position of one, that does not exist.
func (p *Panel) Patch(r io.Reader) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := p.Dials().clone()
	text, err := io.ReadAll(r)
	if err != nil {
		return fmt.Errorf("read dials: %w", err)
	}
	if err := d.emptyLists(text); err != nil {
		return fmt.Errorf("read dials: %w", err)
	}
	w := d.wire()
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(w); err != nil {
		return fmt.Errorf("read dials: %w", err)
	}
	w.apply(&d)
	if err := d.check(); err != nil {
		return fmt.Errorf("read dials: %w", err)
	}
	p.now.Store(&d)
	return nil
}

// check reports the first dial that is in a position that it does not have.
func (d Dials) check() error {
	if !slices.Contains([]string{"", "absent", "old", "always"}, d.AuthTime) {
		return fmt.Errorf("auth_time cannot be %q", d.AuthTime)
	}
	if !slices.Contains([]string{"", "absent", "body", "contradict", "garbage", "true", "false"}, d.MFAVerdict) {
		return fmt.Errorf("mfa_verdict cannot be %q", d.MFAVerdict)
	}
	if a := d.IDToken.Algorithm; a != "" && a != "HS256" {
		return fmt.Errorf("id_token.algorithm cannot be %q", a)
	}
	if err := d.checkServices(); err != nil {
		return err
	}
	if err := d.checkWeather(); err != nil {
		return err
	}
	if min(d.ReplicationDelay, d.TokenLatency, d.AccessTokenLifetime, d.IDTokenLifetime, d.SecretLifetime, d.CodeLifetime) < 0 {
		return errors.New("a duration cannot be negative")
	}
	if err := d.KeyVault.check(); err != nil {
		return err
	}
	if err := d.SignIn.check(); err != nil {
		return err
	}
	for _, r := range d.Refusals {
		if !slices.Contains([]string{"", EndpointToken, EndpointAuthorize, EndpointDeviceCode}, r.Endpoint) {
			return fmt.Errorf("refusals cannot have endpoint %q", r.Endpoint)
		}
		if r.Code <= 0 || r.Cause < 0 || r.Times < 0 {
			return fmt.Errorf("refusals cannot have code %d, times %d", r.Code, r.Times)
		}
	}
	for _, t := range d.Throttles {
		if !slices.Contains([]string{"", "login", "partnercenter", "graph", "arm", "keyvault"}, t.Service) {
			return fmt.Errorf("throttles cannot have service %q", t.Service)
		}
		if t.Status != 0 && (t.Status < 400 || t.Status > 599) || t.Times < 0 || t.RetryAfter < 0 {
			return fmt.Errorf("throttles cannot have status %d, times %d, retry_after %d", t.Status, t.Times, t.RetryAfter)
		}
	}
	return nil
}

func (w *wire) apply(d *Dials) {
	hold := d.Hold
	*d = Dials(*w.fields)
	d.Hold = hold
	d.ClockOffset = durationOf(w.ClockOffset)
	d.TokenLatency = durationOf(w.TokenLatency)
	d.ReplicationDelay = durationOf(w.ReplicationDelay)
	d.AccessTokenLifetime = durationOf(w.AccessTokenLifetime)
	d.IDTokenLifetime = durationOf(w.IDTokenLifetime)
	d.SecretLifetime = durationOf(w.SecretLifetime)
	d.CodeLifetime = durationOf(w.CodeLifetime)
}

// An Attempt is what a Refusal's conditions are held against.
type Attempt struct {
	Endpoint                    string // one of the three
	Grant, Tenant, Client, User string

	// Names reports whether a name is one of the resource asked for.
	Names func(name string) bool
}

// Refuse returns the first refusal that matches the attempt, and counts it.
func (p *Panel) Refuse(a Attempt) (Refusal, bool) {
	if len(p.Dials().Refusals) == 0 {
		return Refusal{}, false
	}
	var hit Refusal
	var ok bool
	p.Set(func(d *Dials) {
		for i, r := range d.Refusals {
			if !r.matches(a) {
				continue
			}
			hit, ok = r, true
			if r.Times == 1 {
				d.Refusals = append(d.Refusals[:i], d.Refusals[i+1:]...)
			} else if r.Times > 1 {
				d.Refusals[i].Times--
			}
			return
		}
	})
	return hit, ok
}

func (r Refusal) matches(a Attempt) bool {
	return cmp.Or(r.Endpoint, EndpointToken) == a.Endpoint &&
		is(r.Grant, a.Grant) && is(r.Tenant, a.Tenant) && is(r.Client, a.Client) && is(r.User, a.User) &&
		(r.Resource == "" || a.Names != nil && a.Names(r.Resource))
}

func is(condition, value string) bool {
	return condition == "" || strings.EqualFold(condition, value)
}

// Throttled returns the throttle that the service's next request meets, and
// counts it. An outage is one that is not counted.
func (p *Panel) Throttled(service string) (Throttle, bool) {
	if p.Dials().out(service) {
		return Throttle{Service: service, Status: 503}, true
	}
	if len(p.Dials().Throttles) == 0 {
		return Throttle{}, false
	}
	var hit Throttle
	var ok bool
	p.Set(func(d *Dials) {
		for i, t := range d.Throttles {
			if !is(t.Service, service) {
				continue
			}
			hit, ok = t, true
			if d.Throttles[i].Times--; d.Throttles[i].Times <= 0 {
				d.Throttles = append(d.Throttles[:i], d.Throttles[i+1:]...)
			}
			break
		}
	})
	if hit.Status == 0 {
		hit.Status = 429
	}
	return hit, ok
}

// emptyLists empties the lists that a patch names: encoding/json fills the
// elements that are there, so what an old one had would stay in the new one.
func (d *Dials) emptyLists(patch []byte) error {
	var named map[string]json.RawMessage
	if err := json.Unmarshal(patch, &named); err != nil {
		return err
	}
	v := reflect.ValueOf(d).Elem()
	for f := range v.Type().Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		// encoding/json does not care for the case of letters either.
		ok := slices.ContainsFunc(slices.Collect(maps.Keys(named)), func(n string) bool { return strings.EqualFold(n, name) })
		if ok && f.Type.Kind() == reflect.Slice {
			v.FieldByIndex(f.Index).SetZero()
		}
	}
	return nil
}
