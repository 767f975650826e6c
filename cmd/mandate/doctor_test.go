package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
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
