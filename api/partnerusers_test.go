package api

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
)

// somebody is an object of contoso's tenant.
const somebody = "44444444-4444-4444-4444-444444444444"

// fakePartnerUsers keeps roles in memory.
type fakePartnerUsers struct {
	err   error
	users []mandate.PartnerUser
}

func (f *fakePartnerUsers) PartnerUsers(_ context.Context, k mandate.GrantKey) ([]mandate.PartnerUser, error) {
	if k != contoso.Key {
		return nil, errors.New("asked of another partner")
	}
	return f.users, f.err
}

func (f *fakePartnerUsers) AllowPartnerUser(_ context.Context, _ mandate.GrantKey, user mandate.ObjectID, role, by string) error {
	f.users = append(f.users, mandate.PartnerUser{User: user, Roles: []string{role}, Since: time.Now(), By: by})
	return f.err
}

func (f *fakePartnerUsers) RefusePartnerUser(_ context.Context, _ mandate.GrantKey, user mandate.ObjectID) error {
	n := len(f.users)
	f.users = slices.DeleteFunc(f.users, func(u mandate.PartnerUser) bool { return u.User == user })
	if f.err == nil && len(f.users) == n {
		return mandate.ErrNotFound
	}
	return f.err
}

func partnerUserScenes() []scene {
	down := func(w *world) { w.partnerUsers.err = mandate.ErrUnavailable }
	has := func(w *world) {
		w.partnerUsers.users = []mandate.PartnerUser{{User: must(mandate.ParseObjectID(somebody)), Roles: []string{"viewer"}}}
	}
	const list, allow, disallow = "GET /v1/partners/{partner}/users", "POST /v1/partners/{partner}/users", "POST /v1/partners/{partner}/users/disallow"
	const contosos, body, who = "/v1/partners/contoso/users", `{"user":"` + somebody + `","role":"viewer","ticket":"T-1"}`, `{"user":"` + somebody + `"}`
	return []scene{
		{op: list, status: "200", path: contosos, damage: has},
		{op: list, status: "400", path: "/v1/partners/a%20b/users"},
		{op: list, status: "404", path: "/v1/partners/nobody/users"},
		{op: list, status: "503", path: contosos, damage: down},
		{op: allow, status: "200", path: contosos, body: body},
		{op: allow, status: "400", path: contosos, body: strings.Replace(body, "viewer", "owner", 1)},
		{op: allow, status: "400", path: contosos, body: strings.Replace(body, somebody, "ada@contoso.example", 1)},
		{op: allow, status: "404", path: "/v1/partners/nobody/users", body: body},
		{op: allow, status: "429", path: contosos, body: body, damage: func(w *world) { w.notices.full = mandate.ErrRateLimited }},
		{op: allow, status: "503", path: contosos, body: body, damage: down},
		{op: allow, status: "503", path: contosos, body: body, damage: func(w *world) { w.log.err = errors.New("full") }},
		{op: disallow, status: "200", path: contosos + "/disallow", body: who, damage: has},
		{op: disallow, status: "400", path: contosos + "/disallow", body: `{"user":"ada@contoso.example"}`},
		{op: disallow, status: "404", path: contosos + "/disallow", body: who},
		{op: disallow, status: "503", path: contosos + "/disallow", body: who, damage: down},
	}
}

// What is given and taken is recorded first, with whom it is about; and giving
// makes things looser, taking them tighter.
func TestPartnerUsers(t *testing.T) {
	w := newWorld(t)
	users, err := w.operator.AllowPartnerUser(t.Context(), "contoso", AllowRequest{User: somebody, Role: mandate.PartnerRenewer, Ticket: "T-1"})
	if err != nil || len(users) != 1 || users[0].User.String() != somebody || users[0].By == "" {
		t.Fatalf("got %+v, %v", users, err)
	}
	if told := w.notices.told; len(told) != 1 || told[0].Kind != mandate.NoticePeople || *told[0].Grant != contoso.Key || !strings.Contains(told[0].About, somebody+" is a renewer") {
		t.Errorf("told %+v", told)
	}
	last := string(must(w.log.Last(1))[0])
	for _, want := range []string{somebody, "as renewer", "T-1", `"kind":"changed"`} {
		if !strings.Contains(last, want) {
			t.Errorf("the record lacks %q: %s", want, last)
		}
	}
	if users, err = w.operator.PartnerUsers(t.Context(), contosoID.String()); err != nil || len(users) != 1 {
		t.Errorf("got %+v, %v", users, err)
	}
	w.log.err = errors.New("full")
	if _, err := w.operator.AllowPartnerUser(t.Context(), "contoso", AllowRequest{User: somebody, Role: mandate.PartnerViewer}); err == nil || len(w.partnerUsers.users) != 1 {
		t.Errorf("a role was given without a record: %v", err)
	}
	w.log.err = nil
	if users, err = w.operator.DisallowPartnerUser(t.Context(), "contoso", DisallowRequest{User: somebody}); err != nil || len(users) != 0 {
		t.Errorf("got %+v, %v", users, err)
	}
	if _, err := w.operator.PartnerUsers(t.Context(), "../x"); !errors.Is(err, mandate.ErrInvalid) {
		t.Errorf("got %v", err)
	}
	if rights["POST /v1/partners/{partner}/users"] != loosens || rights["POST /v1/partners/{partner}/users/disallow"] != tightens {
		t.Error("giving a role must loosen, and taking it tighten")
	}
	w.server.cfg.PartnerUsers = nil
	if _, err := w.operator.PartnerUsers(t.Context(), "contoso"); !errors.Is(err, mandate.ErrNotFound) {
		t.Errorf("got %v", err)
	}
}
