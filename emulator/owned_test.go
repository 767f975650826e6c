package emulator_test

import (
	"testing"

	"github.com/mandate-sam/mandate/emulator"
	"github.com/mandate-sam/mandate/emulator/directory"
)

// With the permission for what it owns, an application changes its own
// registration and no other; and lists none.
func TestOwnedApplications(t *testing.T) {
	e := start(t)
	register(t, e, emulator.Application{ID: daemon, Name: "Daemon", Tenant: emulator.ContosoTenant, RedirectURIs: []string{redirect}, Secrets: []string{"daemon"}})
	register(t, e, emulator.Application{ID: partnerApp, Name: "Another", Tenant: emulator.ContosoTenant, RedirectURIs: []string{redirect}, Secrets: []string{"other"}})
	if err := e.AssignRoles(emulator.ContosoTenant, daemon, emulator.Graph, directory.OwnedApplications); err != nil {
		t.Fatal(err)
	}
	own := token(t, e, 2, "contoso.example", "client_credentials", "client_id", daemon, "client_secret", "daemon", "scope", "https://graph.microsoft.com/.default").str("access_token")
	at := e.Endpoints().Graph + "/v1.0/applications"
	for _, tt := range []struct {
		method, path, body string
		want               int
	}{
		{"GET", "/" + directory.ObjectID(daemon), "", 200},
		{"GET", "(appId='" + daemon + "')", "", 200},
		{"POST", "/" + directory.ObjectID(daemon) + "/addPassword", `{}`, 200},
		{"GET", "/" + directory.ObjectID(partnerApp), "", 403},
		{"POST", "/" + directory.ObjectID(partnerApp) + "/addPassword", `{}`, 403},
		{"GET", "", "", 403},
	} {
		if a := exchange(t, e, tt.method, at+tt.path, own, tt.body); a.status != tt.want {
			t.Errorf("%s %s: got %d %v, want %d", tt.method, tt.path, a.status, a.raw, tt.want)
		}
	}
}
