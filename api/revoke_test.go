package api

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
)

type fakeRevoker struct {
	all []mandate.Revocation
	err error
}

func (f *fakeRevoker) Revoke(_ context.Context, r mandate.Revocation) (mandate.Revocation, error) {
	r.ID, r.Since = "abc", time.Now()
	f.all = append(f.all, r)
	return r, f.err
}

func (f *fakeRevoker) Lift(_ context.Context, id string) error {
	if f.err == nil && id != "abc" {
		return mandate.ErrNotFound
	}
	return f.err
}

func (f *fakeRevoker) Revocations() ([]mandate.Revocation, error) { return f.all, f.err }

func (f *fakeRevoker) Alive(context.Context, mandate.Reach, time.Time) (int, time.Time, error) {
	return 2, time.Now().Add(time.Hour), f.err
}

// revokeScenes are those of TestOpenAPIAnswers.
func revokeScenes() []scene {
	down := func(w *world) { w.revoker.err = mandate.ErrUnavailable }
	return []scene{
		{op: "GET /v1/revocations", status: "200", damage: func(w *world) { w.revoker.all = []mandate.Revocation{{ID: "abc", By: "uid:1"}} }},
		{op: "GET /v1/revocations", status: "503", damage: down},
		{op: "POST /v1/revocations", status: "201", body: `{"everything":true,"reason":"drill"}`},
		{op: "POST /v1/revocations", status: "400", body: `{"reason":"drill"}`},
		{op: "POST /v1/revocations", status: "404", body: `{"partner":"nobody","reason":"drill"}`},
		{op: "POST /v1/revocations", status: "503", body: `{"everything":true,"reason":"drill"}`, damage: down},
		{op: "POST /v1/revocations/{id}/lift", path: "/v1/revocations/abc/lift", status: "200", body: `{}`},
		{op: "POST /v1/revocations/{id}/lift", path: "/v1/revocations/abc/lift", status: "400", body: `{"x":1}`},
		{op: "POST /v1/revocations/{id}/lift", path: "/v1/revocations/xyz/lift", status: "404", body: `{}`},
		{op: "POST /v1/revocations/{id}/lift", path: "/v1/revocations/abc/lift", status: "503", body: `{}`, damage: down},
	}
}

// What is revoked is what was said, and never more or less: nothing that is
// misspelt, and everything only in so many words.
func TestRevokeReach(t *testing.T) {
	w := newWorld(t)
	for _, in := range []RevokeRequest{
		{Reason: "x"}, {Everything: true, Caller: "billing", Reason: "x"}, {Partner: "nobody", Reason: "x"}, {Customer: "fabrikam.example", Reason: "x"},
		{Caller: "bill ing", Reason: "x"}, {Audience: "grahp", Reason: "x"}, {Partner: "a b", Reason: "x"},
	} {
		if out, err := w.operator.Revoke(t.Context(), in); err == nil {
			t.Errorf("%+v: revoked %+v", in, out)
		}
	}
	if len(w.revoker.all) != 0 {
		t.Errorf("revoked %+v", w.revoker.all)
	}
	out, err := w.operator.Revoke(t.Context(), RevokeRequest{Partner: "contoso", Caller: "billing", Audience: "graph", Reason: "x"})
	if err != nil || out.Reach.Partner.Partner.IsZero() || out.Reach.Caller != "billing" || out.Reach.Audience == "graph" || out.Reach.Audience == "" || out.Alive != 2 || out.PartnerName != "contoso" {
		t.Errorf("got %+v, %v", out, err)
	}
	w.log.err = mandate.ErrUnavailable
	if _, err := w.operator.Revoke(t.Context(), RevokeRequest{Everything: true, Reason: "x"}); !errors.Is(err, mandate.ErrUnavailable) || len(w.revoker.all) != 1 {
		t.Errorf("revoked without a record: %v", err)
	}
}

// A token that was decided in an epoch that is over is not handed out.
func TestRevocationOnTheWayOut(t *testing.T) {
	w := newWorld(t)
	w.broker.epochs = []int64{thisEpoch - 1}
	if _, err := w.caller.Token(t.Context(), TokenRequest{Partner: "contoso", Audience: "graph", Purpose: "support"}); err != nil || len(w.broker.asked()) != 2 {
		t.Errorf("a token that was overtaken once: %v, asked %d times", err, len(w.broker.asked()))
	}
	for range handOvers {
		w.broker.epochs = append(w.broker.epochs, thisEpoch-1)
	}
	if _, err := w.caller.Token(t.Context(), TokenRequest{Partner: "contoso", Audience: "graph", Purpose: "support"}); !errors.Is(err, mandate.ErrUnavailable) {
		t.Errorf("a token that was overtaken again and again: %v", err)
	}
}
