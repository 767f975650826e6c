package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/audit"
	"github.com/mandate-sam/mandate/internal/app"
)

// Of the small world's application Entra lets a browser have ID tokens.
type someCredentials struct{}

func (someCredentials) Credentials(context.Context, string) ([]api.CredentialStatus, error) {
	return []api.CredentialStatus{{Application: "marketplace", Entra: []api.EntraCredential{}, Implicit: []string{"ID tokens"}, Warnings: []string{}}}, nil
}

func (someCredentials) RotateCredential(context.Context, api.CredentialRequest, mandate.By, func(api.CredentialLine)) error {
	return mandate.ErrNotFound
}

// What Entra lets others do with an application is bad, and what is not known
// of it is not called good.
func TestRegistrationRemarks(t *testing.T) {
	ours := api.EntraCredential{Ours: "in use", End: time.Now().Add(time.Hour)}
	stranger, ended := api.EntraCredential{End: ours.End}, api.EntraCredential{End: time.Now().Add(-time.Hour)}
	for name, tt := range map[string]struct {
		st   api.CredentialStatus
		want string // the first word of each remark's message after its grade
	}{
		"as it should be":       {api.CredentialStatus{Entra: []api.EntraCredential{ours, ended}}, "good hands"},
		"implicit grants":       {api.CredentialStatus{Implicit: []string{"access tokens"}}, "bad lets"},
		"a stranger":            {api.CredentialStatus{Entra: []api.EntraCredential{ours, stranger}}, "bad has"},
		"both":                  {api.CredentialStatus{Implicit: []string{"ID tokens"}, Entra: []api.EntraCredential{stranger}}, "bad lets, bad has"},
		"nobody could be asked": {api.CredentialStatus{Unasked: "home_tenant is not configured", Entra: []api.EntraCredential{}}, "advice was"},
	} {
		var got []string
		for _, r := range registrationRemarks(&tt.st) {
			word, _, _ := strings.Cut(r.Message, " ")
			got = append(got, r.Grade+" "+word)
		}
		if s := strings.Join(got, ", "); s != tt.want {
			t.Errorf("%s: got %q, want %q", name, s, tt.want)
		}
	}
}

// A witness that has seen another log is not called one that cannot be reached.
func TestWitnessRemarks(t *testing.T) {
	at := time.Now()
	for name, tt := range map[string]struct {
		w             audit.WitnessStatus
		state, remark string
	}{
		"has all":         {audit.WitnessStatus{Size: 3, Time: at}, "takes checkpoints", "good has all 3"},
		"has some":        {audit.WitnessStatus{Size: 3, Time: at, Behind: 1}, "takes checkpoints", "good has 3 records; the last 1 are on their way"},
		"has none":        {audit.WitnessStatus{Behind: 2}, "has none yet", "good has 0 records; the last 2 are on their way"},
		"is out of reach": {audit.WitnessStatus{Since: at, Error: "refused"}, "takes none since", "bad takes no checkpoints since"},
		"saw another log": {audit.WitnessStatus{Since: at, Error: "17 records", Changed: true}, "has seen another log", "bad has seen records that are not in this log"},
	} {
		if got := witnessState(&tt.w).text; !strings.HasPrefix(got, tt.state) || !strings.HasSuffix(got, tt.w.Error) {
			t.Errorf("%s: state %q", name, got)
		}
		got := witnessRemarks(&api.AuditState{Witnesses: []audit.WitnessStatus{tt.w}})
		if text := got[0].Grade + " " + got[0].Message; len(got) != 1 || !strings.HasPrefix(text, tt.remark) || !strings.HasSuffix(text, tt.w.Error) {
			t.Errorf("%s: remark %q", name, text)
		}
	}
}

// A server that can do nothing is bad, and the rest is said all the same.
func TestDoctorOfAnUnavailableServer(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var answers atomic.Bool // about everything but whether it is ready
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case answers.Load() && strings.HasSuffix(r.URL.Path, "/status"):
			io.WriteString(w, `{"ready":false,"reason":"row \"x\" of callers was edited"}`)
		case answers.Load():
			io.WriteString(w, `{}`)
		default:
			w.WriteHeader(http.StatusServiceUnavailable)
			io.WriteString(w, `{"error":{"code":"unavailable","message":"temporarily unavailable: nothing was heard from the database","retry_after":2}}`)
		}
	}))
	for _, want := range []string{"nothing was heard from the database", `row "x" of callers was edited`} {
		got, err := (&cli{socket: socket}).askServer(t.Context())
		if err != nil || len(got) != 1 || got[0].Grade != app.Bad || !strings.Contains(got[0].Message, want) {
			t.Errorf("got %+v, %v, want %s", got, err, want)
		}
		answers.Store(true)
	}
}
