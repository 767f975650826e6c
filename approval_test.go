package mandate

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

// fakeApprovals asks, and remembers.
type fakeApprovals struct {
	trace *events
	asked map[string]*Approval
	err   error // of Approval
	full  error // of Ask
	deaf  bool  // has not heard of what is asked
}

func (f *fakeApprovals) Approval(digest string) (*Approval, error) {
	if f.deaf {
		return nil, f.err
	}
	return f.asked[digest], f.err
}

func (f *fakeApprovals) Ask(_ context.Context, a Approval) error {
	f.trace.add("ask %s", a.Rule)
	if f.full != nil {
		return f.full
	}
	if first := f.asked[a.Digest()]; first != nil {
		return fmt.Errorf("ask: %w", &AskedError{*first})
	}
	f.asked[a.Digest()] = &a
	return nil
}

func wanting(w *world) *fakeApprovals {
	w.policy.decision = Decision{Rule: "two", Reason: "needs the yes of a second person", NeedsApproval: time.Hour}
	f := &fakeApprovals{trace: &w.audit.events, asked: map[string]*Approval{}}
	w.cfg.Approvals = f
	return f
}

// A request that lacks nothing but a second person asks one: once, recorded
// first, and says so.
func TestApprovalIsAsked(t *testing.T) {
	w := newWorld(t)
	f := wanting(w)
	for range 3 {
		_, err := w.Token(t.Context(), ask())
		var denied *DeniedError
		if !errors.As(err, &denied) || denied.Decision.Approval == "" || !strings.Contains(err.Error(), "mandate approval give "+denied.Decision.Approval) {
			t.Fatalf("got %v", err)
		}
	}
	if len(f.asked) != 1 {
		t.Errorf("%d were asked", len(f.asked))
	}
	got := w.audit.events.list()
	if len(got) != 5 || !strings.HasPrefix(got[0], "record changed") || got[1] != "ask two" {
		t.Errorf("events %q", got)
	}
	for _, a := range f.asked {
		if a.State != ApprovalWanted || a.Lasts != 3600 || a.Caller != "billing" || a.Expires.Sub(a.Wanted) != MaxApproval {
			t.Errorf("asked %+v", a)
		}
	}
}

// Whoever asks at the same time as another gets the approval of who was first,
// and it is recorded that nothing was done; operators are told once.
func TestApprovalIsAskedAtOnce(t *testing.T) {
	w := newWorld(t)
	f, told := wanting(w), notifying(w)
	_, err := w.Token(t.Context(), ask())
	var first, second *DeniedError
	if !errors.As(err, &first) || first.Decision.Approval == "" {
		t.Fatal(err)
	}
	f.deaf = true
	_, err = w.Token(t.Context(), ask())
	if !errors.As(err, &second) || second.Decision.Approval != first.Decision.Approval || err.Error() != first.Error() {
		t.Errorf("got %v, want %v", err, first)
	}
	var asked []Record
	for _, r := range w.audit.records {
		if r.Kind != KindDenied {
			asked = append(asked, r)
		}
	}
	if len(asked) != 3 || asked[0].Kind != KindChanged || asked[1].Kind != KindChanged || asked[2].Kind != KindFailed || asked[2].Detail != asked[1].Detail ||
		!strings.Contains(asked[2].Reason, first.Decision.Approval) {
		t.Errorf("recorded %+v", asked)
	}
	if got := fmt.Sprint(told.trace.list()); strings.Count(got, "settle approval_wanted true") != 1 || strings.Count(got, "settle approval_wanted false") != 1 {
		t.Errorf("told %s", got)
	}
	w.audit.failKind.Store(KindFailed)
	if _, err := w.Token(t.Context(), ask()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("not recorded that nothing was done: %v", err)
	}
}

// What differs in any field is another question. That a field is added to a
// request and left out of the question is a mistake.
func TestApprovalIsForExactlyThat(t *testing.T) {
	base := ask()
	base.Method, base.Path = "GET", "/x"
	a := AskedBy("r", &base)
	digests := map[string]string{a.Digest(): "itself"}
	for name, change := range map[string]func(*Request){
		"caller": func(r *Request) { r.Caller = "other" }, "use": func(r *Request) { r.Use = UseCall }, "partner": func(r *Request) { r.Partner.Name = "fabrikam" },
		"cloud": func(r *Request) { r.Partner.Key.Cloud = "china" }, "application": func(r *Request) { r.Partner.Key.Application = AppID(litware) },
		"partner's tenant": func(r *Request) { r.Partner.Key.Partner = adatum },
		"tenant":           func(r *Request) { r.Tenant = adatum }, "audience": func(r *Request) { r.Audience = graph }, "scopes": func(r *Request) { r.Scopes = []Scope{"User.Read"} },
		"other scopes": func(r *Request) { r.Scopes = []Scope{"Mail.Read"} }, "both scopes": func(r *Request) { r.Scopes = []Scope{"Mail.Read", "User.Read"} },
		"purpose": func(r *Request) { r.Purpose = "support" }, "ticket": func(r *Request) { r.Ticket = "INC-1" }, "method": func(r *Request) { r.Method = "DELETE" }, "path": func(r *Request) { r.Path = "/y" },
	} {
		r := base
		change(&r)
		asked := AskedBy("r", &r)
		if same := digests[asked.Digest()]; same != "" {
			t.Errorf("another %s is the same as %s", name, same)
		}
		digests[asked.Digest()] = name
	}
	if b := AskedBy("s", &base); digests[b.Digest()] != "" {
		t.Error("another rule is the same")
	}
	left := map[string]bool{ // by which nothing more is given out
		"ID": true, "Claims": true, "MinLifetime": true, "Refused": true, "Address": true, "Detail": true, "User": true, "Bound": true, "MFATime": true,
	}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Request]()) {
		if _, ok := reflect.TypeFor[Asked]().FieldByName(f.Name); !ok && !left[f.Name] {
			t.Errorf("a request's field %s is not in what is asked", f.Name)
		}
	}
}

func TestApprovalCannotBeAsked(t *testing.T) {
	w := newWorld(t)
	f := wanting(w)
	f.full = fmt.Errorf("%w: too many", ErrRateLimited)
	_, err := w.Token(t.Context(), ask())
	if !errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), "could not be asked") {
		t.Errorf("full: got %v", err)
	}
	f.full = ErrUnavailable
	if _, err := w.Token(t.Context(), ask()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("unavailable: got %v", err)
	}
	f.full, f.err = nil, ErrUnavailable
	if _, err := w.Token(t.Context(), ask()); !errors.Is(err, ErrUnavailable) || len(f.asked) != 0 {
		t.Errorf("not known: got %v, asked %d", err, len(f.asked))
	}
	f.err = nil
	w.policy.decision = Decision{Reason: "no rule allows it"}
	if _, err := w.Token(t.Context(), ask()); !errors.Is(err, ErrDenied) || len(f.asked) != 0 {
		t.Errorf("no rule: got %v, asked %d", err, len(f.asked))
	}
}

// One that was refused is not asked again, and the caller is told.
func TestApprovalRefused(t *testing.T) {
	w := newWorld(t)
	f := wanting(w)
	req := ask()
	a := NewApproval(AskedBy("two", &req), time.Hour)
	a.State, a.By = ApprovalRefused, "oid:x"
	f.asked[a.Digest()] = &a
	if _, err := w.Token(t.Context(), req); !errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), "refused by oid:x") {
		t.Errorf("got %v", err)
	}
}

// Who was asked and said yes is in the records of what was allowed by it.
func TestApprovalIsRecorded(t *testing.T) {
	w := newWorld(t)
	w.policy.decision.Approval = "abc"
	if _, err := w.Token(t.Context(), ask()); err != nil {
		t.Fatal(err)
	}
	for _, r := range w.audit.records {
		if r.Approval != "abc" {
			t.Errorf("recorded %+v", r)
		}
	}
}

func TestApprovalGives(t *testing.T) {
	const ada, ben = "https://issuer ada", "https://issuer ben"
	request := func(caller CallerID) Approval { return Approval{Asked: Asked{Caller: caller, Use: UseToken}} }
	act := func(caller CallerID, who string) Approval {
		return Approval{Asked: Asked{Caller: caller, Act: "policy apply"}, Requester: who}
	}
	for _, tt := range []struct {
		name           string
		a              Approval
		by             CallerID
		decider, owner string
		ok             bool
	}{
		{"another than the owner", request("billing"), "oid:ben", ben, ada, true},
		{"the owner", request("billing"), "oid:ada", ada, ada, false},
		{"an owner whom nobody knows", request("billing"), "oid:ben", ben, "", false},
		{"the owner is a host account", request("billing"), "oid:ben", ben, "uid:1000", false},
		{"a host account for a person's", request("billing"), "uid:1000", "uid:1000", ada, false},
		{"a host account for another's", request("billing"), "uid:1000", "uid:1000", "uid:1001", true},
		{"a host account for its own", request("billing"), "uid:1000", "uid:1000", "uid:1000", false},
		{"a person's own request", request("oid:ada"), "oid:ada", ada, "", false},
		{"another person's request", request("oid:ada"), "oid:ben", ben, "", true},
		{"a host account's request", request("uid:1000"), "oid:ben", ben, "", false},
		{"a host account's own request", request("uid:1000"), "uid:1000", "uid:1000", "", false},
		{"another host account's request", request("uid:1000"), "uid:1001", "uid:1001", "", true},
		{"another person's act", act("oid:ada", ada), "oid:ben", ben, "", true},
		{"one's own act", act("oid:ada", ada), "oid:ada", ada, "", false},
		{"one's own act under another name", act("oid:ada", ada), "oid:x", ada, "", false},
		{"one's own act by another issuer", act("oid:ada", ada), "oid:ada", "https://other ada", "", false},
		{"a host account's act", act("uid:1000", "uid:1000"), "oid:ben", ben, "", false},
		{"another host account's act", act("uid:1000", "uid:1000"), "uid:0", "uid:0", "", true},
		{"a person's act by a host account", act("oid:ada", ada), "uid:0", "uid:0", "", false},
	} {
		if err := tt.a.Gives(tt.by, tt.decider, tt.owner); (err == nil) != tt.ok || err != nil && !errors.Is(err, ErrDenied) {
			t.Errorf("%s: got %v", tt.name, err)
		}
	}
}

func TestApprovalGivenAt(t *testing.T) {
	now := time.Now()
	a := Approval{State: ApprovalGiven, Decided: now.Add(-time.Hour), Expires: now.Add(time.Hour)}
	for _, tt := range []struct {
		name   string
		change func(*Approval)
		want   bool
	}{
		{"given", func(*Approval) {}, true}, {"ended", func(a *Approval) { a.Expires = now }, false}, {"not yet", func(a *Approval) { a.Decided = now.Add(1) }, false},
		{"wanted", func(a *Approval) { a.State = ApprovalWanted }, false}, {"refused", func(a *Approval) { a.State = ApprovalRefused }, false},
	} {
		b := a
		tt.change(&b)
		if b.GivenAt(now) != tt.want {
			t.Errorf("%s: got %v", tt.name, !tt.want)
		}
	}
	if (*Approval)(nil).GivenAt(now) {
		t.Error("none is given")
	}
	if got := NewApproval(Asked{}, 48*time.Hour).Lasts; got != 24*3600 {
		t.Errorf("a yes lasts %d s", got)
	}
}
