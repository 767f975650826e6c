package graph

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
)

const registrationBody = `{"id":"object","web":{"implicitGrantSettings":{"enableIdTokenIssuance":true,"enableAccessTokenIssuance":false}},
"passwordCredentials":[{"keyId":"p","hint":"abc","displayName":"first","customKeyIdentifier":null,"startDateTime":"2026-01-01T00:00:00Z","endDateTime":"2027-01-01T00:00:00Z"}],
"keyCredentials":[{"keyId":"k","customKeyIdentifier":"AAECAwQFBgcICQoLDA0ODxAREhM=","displayName":null,"key":null},{"keyId":"l","customKeyIdentifier":"000102030405060708090a0b0c0d0e0f10111213"}]}`

func someApplication(t *testing.T) mandate.AppID {
	t.Helper()
	id, err := mandate.ParseAppID("b0000000-0000-4000-8000-00000000c0de")
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// body returns what was sent.
func body(t *testing.T, r *http.Request) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestRegistration(t *testing.T) {
	f := &fakeGraph{answers: []answer{{status: 200, body: registrationBody}}}
	r, err := newClient(t, f).Registration(ctx(), token, someApplication(t))
	if err != nil || r.Object != "object" || !r.ImplicitIDs || r.ImplicitTokens || len(r.Credentials) != 3 {
		t.Fatalf("%+v, %v", r, err)
	}
	const thumbprint = "000102030405060708090A0B0C0D0E0F10111213"
	if k, l, p := r.Credentials[0], r.Credentials[1], r.Credentials[2]; k.Thumbprint != thumbprint || l.Thumbprint != thumbprint || k.Secret ||
		!p.Secret || p.KeyID != "p" || p.Hint != "abc" || p.Name != "first" || !p.End.Equal(time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("%+v", r.Credentials)
	}
	if got := f.asked[0].URL.Path; got != "/v1.0/applications(appId='b0000000-0000-4000-8000-00000000c0de')" {
		t.Errorf("asked %s", got)
	}
}

// Each change is the request that Graph documents.
func TestCredentialRequests(t *testing.T) {
	f := &fakeGraph{answers: []answer{
		{status: 200, body: `{"keyId":"p2","secretText":"abc-CANARY","hint":"abc","endDateTime":"2027-01-01T00:00:00Z"}`},
		{status: 204}, {status: 200, body: `{}`}, {status: 204}, {status: 200, body: registrationBody}, {status: 204},
	}}
	c, proof := newClient(t, f), mandate.NewSecret("a-proof")
	made, value, err := c.AddSecret(ctx(), token, "object", "mandate r1", time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC))
	if err != nil || made.KeyID != "p2" || value.Reveal() != "abc-CANARY" {
		t.Errorf("%+v, %v", made, err)
	}
	for _, err := range []error{
		c.RemoveSecret(ctx(), token, "object", "p"),
		c.AddCertificate(ctx(), token, someApplication(t), "object", "mandate r1", []byte("der"), proof),
		c.RemoveCertificate(ctx(), token, "object", "k", proof),
		c.AddCertificate(ctx(), token, someApplication(t), "object", "mandate r1", []byte("der"), mandate.Secret{}),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	for n, want := range []struct{ path, body string }{
		{"addPassword", `"displayName":"mandate r1"`}, {"removePassword", `"keyId":"p"`}, {"addKey", `"proof":"a-proof"`}, {"removeKey", `"keyId":"k"`},
		{")", ""}, {"object", `"keyId":"l"`},
	} {
		r := f.asked[n]
		if !strings.HasSuffix(r.URL.Path, want.path) || want.body != "" && !strings.Contains(body(t, r), want.body) {
			t.Errorf("%d: got %s %s, want %s with %s", n, r.Method, r.URL.Path, want.path, want.body)
		}
	}
}

// What Graph says of a refusal holds neither the token nor the proof, and an
// answer that is none is not believed.
func TestCredentialFaults(t *testing.T) {
	f := &fakeGraph{answers: []answer{{status: 403, body: `{"error":{"code":"Authorization_RequestDenied","message":"no: a-proof ` + canary + `"}}`}}}
	err := newClient(t, f).RemoveCertificate(ctx(), token, "object", "k", mandate.NewSecret("a-proof"))
	if fault := wantFault(t, err, mandate.DomainAudience, mandate.RemedyConfigure); strings.Contains(fault.Error()+fault.Description, "a-proof") || strings.Contains(fault.Description, canary) {
		t.Errorf("got %q", fault.Description)
	}
	for _, text := range []string{`{}`, `[]`, `{"keyId":"p"}`} {
		f := &fakeGraph{answers: []answer{{status: 200, body: text}}}
		if _, _, err := newClient(t, f).AddSecret(ctx(), token, "object", "n", time.Now()); err == nil {
			t.Errorf("%s: no error", text)
		}
		f = &fakeGraph{answers: []answer{{status: 200, body: text}}}
		if _, err := newClient(t, f).Registration(ctx(), token, someApplication(t)); err == nil {
			t.Errorf("%s: no error", text)
		}
	}
}
