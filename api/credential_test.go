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

// A fakeCredentials has the credential of one application.
type fakeCredentials struct {
	err error
	in  CredentialRequest
	by  mandate.By
}

func (f *fakeCredentials) Credentials(_ context.Context, application string) ([]CredentialStatus, error) {
	if application == "nobody" {
		return nil, mandate.ErrNotFound
	}
	return []CredentialStatus{{
		Application: "marketplace", Kind: "certificate", ID: "AB", Expires: time.Now(),
		Rotation: &CredentialRotation{ID: "r", Begun: time.Now()}, Warnings: []string{"w"},
		Entra: []EntraCredential{{KeyID: "k", Kind: "secret", Hint: "abc"}},
	}}, f.err
}

func (f *fakeCredentials) RotateCredential(_ context.Context, in CredentialRequest, by mandate.By, tell func(CredentialLine)) error {
	f.in, f.by = in, by
	if in.Application == "nobody" {
		return mandate.ErrNotFound
	}
	if f.err != nil {
		return f.err
	}
	tell(CredentialLine{Step: "make", Text: "made", TookMS: 1})
	tell(CredentialLine{Grant: &CredentialGrant{Partner: "contoso", State: "active", Generation: 1}})
	if in.Undo {
		tell(CredentialLine{Undone: true})
		return errors.New("as asked")
	}
	return nil
}

// What is told on the way arrives line by line, and the last line says how it
// ended.
func TestRotateCredential(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct {
		in   CredentialRequest
		err  string
		want string
	}{
		{CredentialRequest{Application: "marketplace", Compromised: true}, "", "make  finished"},
		{CredentialRequest{Application: "marketplace", Undo: true}, "as asked", "make   undone finished"},
		{CredentialRequest{Application: "nobody"}, "not found", ""},
		{CredentialRequest{Application: "marketplace", KeepOldSecs: -1}, "keep_old_secs", ""},
		{CredentialRequest{Application: "marketplace", KeepOldSecs: 1 << 40}, "keep_old_secs", ""},
		{CredentialRequest{Application: "marketplace", Undo: true, Compromised: true}, "undo", ""},
		{CredentialRequest{Application: "marketplace", Undo: true, KeepOldSecs: 1}, "undo", ""},
	} {
		var got []string
		err := w.operator.RotateCredential(t.Context(), tt.in, func(l CredentialLine) {
			s := l.Step
			if l.Finished && l.Undone {
				s = "undone finished"
			} else if l.Finished {
				s = "finished"
			}
			got = append(got, s)
		})
		if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) || strings.Join(got, " ") != tt.want {
			t.Errorf("%+v: got %q, %v", tt.in, strings.Join(got, " "), err)
		}
		if tt.want != "" && (w.credentials.in != tt.in || w.credentials.by.Caller == "") {
			t.Errorf("asked %+v as %+v", w.credentials.in, w.credentials.by)
		}
	}
	w.server.cfg.Credentials = nil
	if _, err := w.operator.Credentials(t.Context(), ""); !errors.Is(err, mandate.ErrNotFound) {
		t.Errorf("without any: %v", err)
	}
	if err := w.operator.RotateCredential(t.Context(), CredentialRequest{}, nil); !errors.Is(err, mandate.ErrNotFound) {
		t.Errorf("without any: %v", err)
	}
}

func TestCredentials(t *testing.T) {
	w := newWorld(t)
	all, err := w.operator.Credentials(t.Context(), "marketplace")
	if err != nil || len(all) != 1 || !slices.Equal(all[0].Warnings, []string{"w"}) || all[0].Entra[0].KeyID != "k" {
		t.Errorf("%+v, %v", all, err)
	}
	if _, err := w.operator.Credentials(t.Context(), "nobody"); !errors.Is(err, mandate.ErrNotFound) {
		t.Errorf("nobody's: %v", err)
	}
}

// credentialScenes are for TestOpenAPIAnswers.
func credentialScenes() []scene {
	const rotate = `{"application":"marketplace"}`
	down := func(w *world) { w.credentials.err = mandate.ErrUnavailable }
	return []scene{
		{op: "GET /v1/credentials", status: "200"},
		{op: "GET /v1/credentials", status: "404", query: "?application=nobody"},
		{op: "GET /v1/credentials", status: "503", damage: down},
		{op: "POST /v1/credentials/rotate", status: "200", body: rotate},
		{op: "POST /v1/credentials/rotate", status: "400", body: `{"application":"marketplace","keep_old_secs":-1}`},
		{op: "POST /v1/credentials/rotate", status: "404", body: `{"application":"nobody"}`},
		{op: "POST /v1/credentials/rotate", status: "503", body: rotate, damage: down},
	}
}
