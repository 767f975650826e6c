package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
)

// A fakeCustodian has one key, and does as it is told.
type fakeCustodian struct {
	err      error
	lockdown *mandate.Lockdown
	did      []string
}

func (f *fakeCustodian) do(what string) error {
	f.did = append(f.did, what)
	return f.err
}

func (f *fakeCustodian) Keys(context.Context) (KeyStatus, error) {
	return KeyStatus{Current: "k1", Shared: "s1", Where: "keys.txt", Keys: []KeyUse{{ID: "k1", Grants: 2, Tokens: 1, Here: true}}}, f.err
}

func (f *fakeCustodian) RotateKey(_ context.Context, shared bool) (Rotated, error) {
	if shared {
		return Rotated{KeyID: "k2", SharedKeyID: "s2"}, f.do("rotate shared")
	}
	return Rotated{KeyID: "k2", Left: "the other file"}, f.do("rotate")
}

func (f *fakeCustodian) ReloadKeys(context.Context) error { return f.do("reload") }

func (f *fakeCustodian) RetireKey(_ context.Context, id string) error { return f.do("retire " + id) }

func (f *fakeCustodian) Rewrap(_ context.Context, compromised bool, progress func(done, total int)) error {
	progress(1, 2)
	progress(2, 2)
	if compromised {
		return errors.New("one is left")
	}
	return f.do("rewrap")
}

func (f *fakeCustodian) Lockdown() (*mandate.Lockdown, error) { return f.lockdown, f.err }

func (f *fakeCustodian) Lock(_ context.Context, l mandate.Lockdown) error {
	f.lockdown = &l
	return f.err
}

func (f *fakeCustodian) Unlock(context.Context) error {
	if f.lockdown == nil {
		return mandate.ErrNotFound
	}
	f.lockdown = nil
	return f.err
}

func (f *fakeCustodian) Backup(_ context.Context, directory string) (io.ReadCloser, error) {
	if !filepath.IsAbs(directory) {
		return nil, mandate.Invalid("directory", "must be an absolute path")
	}
	return io.NopCloser(strings.NewReader("{\"end\":true}\n")), f.err
}

func (f *fakeCustodian) Release(_ context.Context, _ mandate.By, each func(ReleasedGrant)) error {
	each(ReleasedGrant{Partner: "contoso", Serves: true, Text: "was probed"})
	return f.err
}

// custodyScenes are those of TestOpenAPIAnswers.
func custodyScenes() []scene {
	down := func(w *world) { w.custodian.err = mandate.ErrUnavailable }
	unrecorded := func(w *world) { w.log.err = mandate.ErrUnavailable }
	return []scene{
		{op: "GET /v1/keys", status: "200"},
		{op: "GET /v1/keys", status: "503", damage: down},
		{op: "POST /v1/keys/rotate", status: "200", body: `{}`},
		{op: "POST /v1/keys/rotate", status: "400", body: `{"x":1}`},
		{op: "POST /v1/keys/rotate", status: "503", body: `{}`, damage: down},
		{op: "POST /v1/keys/reload", status: "200", body: `{}`},
		{op: "POST /v1/keys/reload", status: "400", body: `{"x":1}`},
		{op: "POST /v1/keys/reload", status: "503", body: `{}`, damage: unrecorded},
		{op: "POST /v1/keys/retire", status: "200", body: `{"key_id":"k0"}`},
		{op: "POST /v1/keys/retire", status: "400", body: `{}`},
		{op: "POST /v1/keys/retire", status: "503", body: `{"key_id":"k0"}`, damage: down},
		{op: "POST /v1/keys/rewrap", status: "200", body: `{}`},
		{op: "POST /v1/keys/rewrap", status: "400", body: `{"x":1}`},
		{op: "POST /v1/keys/rewrap", status: "503", body: `{}`, damage: unrecorded},
		{op: "GET /v1/lockdown", status: "200", damage: func(w *world) { w.custodian.lockdown = &mandate.Lockdown{Reason: "x", By: "uid:1"} }},
		{op: "GET /v1/lockdown", status: "503", damage: down},
		{op: "POST /v1/lockdown", status: "200", body: `{"reason":"drill"}`},
		{op: "POST /v1/lockdown", status: "400", body: `{"x":1}`},
		{op: "POST /v1/lockdown", status: "503", body: `{"reason":"drill"}`, damage: down},
		{op: "POST /v1/lockdown/end", status: "200", body: `{}`, damage: func(w *world) { w.custodian.lockdown = &mandate.Lockdown{Reason: "x"} }},
		{op: "POST /v1/lockdown/end", status: "400", body: `{"x":1}`},
		{op: "POST /v1/lockdown/end", status: "404", body: `{}`},
		{op: "POST /v1/lockdown/end", status: "503", body: `{}`, damage: unrecorded},
		{op: "GET /v1/backup", status: "200", query: "?directory=/tmp"},
		{op: "GET /v1/backup", status: "400", query: "?directory=x"},
		{op: "GET /v1/backup", status: "503", query: "?directory=/tmp", damage: down},
		{op: "POST /v1/restore/finish", status: "200", body: `{}`},
		{op: "POST /v1/restore/finish", status: "400", body: `{"x":1}`},
		{op: "POST /v1/restore/finish", status: "503", body: `{}`, damage: func(w *world) { w.epoch.err = mandate.ErrUnavailable }},
	}
}

// What is changed is recorded first, and not done if it cannot be.
func TestCustodyIsRecorded(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	if r, err := w.operator.RotateKey(ctx, RotateRequest{Shared: true}); err != nil || r.KeyID != "k2" || r.SharedKeyID != "s2" {
		t.Errorf("rotate: %v, %v", r, err)
	}
	if err := w.operator.ReloadKeys(ctx); err != nil {
		t.Error(err)
	}
	if err := w.operator.RetireKey(ctx, "k0"); err != nil {
		t.Error(err)
	}
	var told [][2]int
	if err := w.operator.Rewrap(ctx, RewrapRequest{}, func(done, total int) { told = append(told, [2]int{done, total}) }); err != nil || len(told) < 2 {
		t.Errorf("rewrap: %v, %v", told, err)
	}
	if err := w.operator.Rewrap(ctx, RewrapRequest{Compromised: true}, nil); err == nil || err.Error() != "one is left" {
		t.Errorf("rewrap with something left: %v", err)
	}
	if st, err := w.operator.Lock(ctx, LockRequest{"drill"}); err != nil || !st.Locked || !strings.HasPrefix(string(st.Lockdown.By), "uid:") || time.Since(st.Lockdown.Since) > time.Minute {
		t.Errorf("lock: %+v, %v", st, err)
	}
	if st, err := w.operator.Lockdown(ctx); err != nil || st.Alive == nil || *st.Alive != 2 || st.Until.IsZero() || st.Unknown != "" {
		t.Errorf("what is still alive: %+v, %v", st, err)
	}
	w.revoker.err = errors.New("the log cannot be read")
	if st, err := w.operator.Lockdown(ctx); err != nil || !st.Locked || st.Alive != nil || st.Unknown != "the log cannot be read" {
		t.Errorf("what is still alive is not known: %+v, %v", st, err)
	}
	w.revoker.err = nil
	if st, err := w.operator.Unlock(ctx); err != nil || st.Locked || st.Alive != nil {
		t.Errorf("unlock: %+v, %v", st, err)
	}
	var b bytes.Buffer
	if err := w.operator.Backup(ctx, "/elsewhere", &b); err != nil || b.String() != "{\"end\":true}\n" {
		t.Errorf("backup: %q, %v", &b, err)
	}
	var released []ReleasedGrant
	if err := w.operator.Release(ctx, func(g ReleasedGrant) { released = append(released, g) }); err != nil || len(released) != 1 || !released[0].Serves {
		t.Errorf("release: %v, %v", released, err)
	}
	w.log.err = errors.New("the disk is full")
	did := len(w.custodian.did)
	if _, err := w.operator.RotateKey(ctx, RotateRequest{}); err == nil || len(w.custodian.did) != did {
		t.Errorf("what was not recorded was done: %v, %v", w.custodian.did, err)
	}
}
