package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
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

// What is revoked and known to nobody is in force, and told, with what was
// perhaps meant: in an emergency a typo must not pass for the thing done.
func TestRevokeNotKnown(t *testing.T) {
	const stranger = "99999999-9999-4999-8999-999999999999"
	w := newWorld(t)
	for _, tt := range []struct {
		in   RevokeRequest
		want []NotKnown
	}{
		{RevokeRequest{Everything: true}, nil},
		{RevokeRequest{Caller: "billing"}, nil},
		{RevokeRequest{Caller: "biling"}, []NotKnown{{"caller", "biling", `no caller "biling" is known here; did you mean "billing"?`}}},
		{RevokeRequest{Caller: "payroll"}, []NotKnown{{"caller", "payroll", `no caller "payroll" is known here`}}},
		{RevokeRequest{Caller: fmt.Sprint("uid:", os.Getuid())}, nil},
		{RevokeRequest{Caller: "uid:4294967294"}, []NotKnown{{"caller", "uid:4294967294", `no caller "uid:4294967294" is known here`}}},
		{RevokeRequest{Caller: "oid:" + stranger}, nil},
		{RevokeRequest{Customer: adatumID.String()}, nil},
		{RevokeRequest{Customer: adatumID.String(), Partner: "contoso"}, nil},
		{RevokeRequest{Customer: contosoID.String()}, nil},
		{RevokeRequest{Customer: stranger}, []NotKnown{{"customer", stranger, "tenant " + stranger + " is not known here as a customer of any partner"}}},
		{RevokeRequest{Customer: stranger, Partner: "contoso", Caller: "biling"}, []NotKnown{
			{"caller", "biling", `no caller "biling" is known here; did you mean "billing"?`},
			{"customer", stranger, "tenant " + stranger + " is not known here as a customer of contoso"},
		}},
	} {
		tt.in.Reason = "x"
		w.revoker.all = nil
		out, err := w.operator.Revoke(t.Context(), tt.in)
		if err != nil || len(w.revoker.all) != 1 || !slices.Equal(out.NotKnown, tt.want) {
			t.Errorf("%+v: got %+v, %v, want %+v; revoked %+v", tt.in, out.NotKnown, err, tt.want, w.revoker.all)
		}
		if all, err := w.operator.Revocations(t.Context()); err != nil || len(all) != 1 || !slices.Equal(all[0].NotKnown, tt.want) {
			t.Errorf("%+v: listed as %+v, %v", tt.in, all, err)
		}
	}
	w.customers.err, w.store.err = mandate.ErrUnavailable, mandate.ErrUnavailable
	if out, err := w.operator.Revoke(t.Context(), RevokeRequest{Customer: stranger, Caller: "biling", Reason: "x"}); err != nil || out.NotKnown != nil {
		t.Errorf("where nothing can be looked up: %+v, %v", out, err)
	}
	w.customers.err, w.store.err = nil, nil
	w.revoker.all = []mandate.Revocation{{Reach: mandate.Reach{Partner: mandate.GrantKey{Cloud: "another"}, Customer: adatumID}}}
	if all, err := w.operator.Revocations(t.Context()); err != nil || len(all) != 1 || len(all[0].NotKnown) != 1 {
		t.Errorf("a customer of another partner than is meant: %+v, %v", all, err)
	}
}

// The last that is asked is asked when the answer is about to be sent.
func TestRevocationBeforeItIsSent(t *testing.T) {
	w := newWorld(t)
	w.epoch.later = 1
	status, _, body := post(t, w.caller, "/v1/tokens", goodToken)
	if status != http.StatusServiceUnavailable || strings.Contains(body, canary) || w.epoch.asked.Load() != 2 {
		t.Errorf("%d %s, and the epoch was asked for %d times", status, body, w.epoch.asked.Load())
	}
	// On the socket it is later still: all that is left is to send nothing.
	w.epoch.asked.Store(0)
	resp, err := w.operator.do(t.Context(), "POST", "/v1/tokens", TokenRequest{Partner: "contoso", Audience: "graph", Purpose: "support"})
	if err == nil {
		resp.Body.Close()
	}
	if !brokenOff(err) || w.epoch.asked.Load() != 2 {
		t.Errorf("got error %v, and the epoch was asked for %d times", err, w.epoch.asked.Load())
	}
}

// A token that was decided in an epoch that is over is not handed out.
func TestRevocationOnTheWayOut(t *testing.T) {
	w := newWorld(t)
	w.broker.epochs = []int64{thisEpoch - 1}
	if _, err := w.caller.Token(t.Context(), TokenRequest{Partner: "contoso", Audience: "graph", Purpose: "support"}); err != nil || len(w.broker.asked()) != 2 {
		t.Errorf("a token that was overtaken once: %v, asked %d times", err, len(w.broker.asked()))
	}
	if asked := w.broker.asked(); asked[0].ID == "" || asked[1].ID != "" {
		t.Errorf("two decisions share the id %q, %q", asked[0].ID, asked[1].ID)
	}
	for range handOvers {
		w.broker.epochs = append(w.broker.epochs, thisEpoch-1)
	}
	if _, err := w.caller.Token(t.Context(), TokenRequest{Partner: "contoso", Audience: "graph", Purpose: "support"}); !errors.Is(err, mandate.ErrUnavailable) {
		t.Errorf("a token that was overtaken again and again: %v", err)
	}
}
