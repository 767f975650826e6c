package app

import (
	"strings"
	"testing"
)

func TestOperatorAndCallerConfiguration(t *testing.T) {
	const people = `
operators:
  tenant: 11111111-2222-3333-4444-555555555555
  client_id: 00000000-0000-0000-0000-0000000000bb
  authentication_context: c1
  allow: [{object: 11111111-2222-3333-4444-555555555555, roles: [viewer]}]
`
	const callers = `
callers:
  issuers:
    - {name: gh, kind: github, audience: "https://mandate.example.com/callers"}
    - {name: aks, kind: kubernetes, audience: mandate-callers, url: "https://cluster.example"}
    - {name: work, kind: entra, tenant: 11111111-2222-3333-4444-555555555555, audience: "api://mandate"}
  trust_domains: [{name: mesh.example, bundle: mesh.pem}]
  user_clients: [00000000-0000-0000-0000-0000000000cc]
`
	for _, tt := range []struct{ add, old, new, want string }{
		{people, "", "", ""},
		{callers, "", "", ""},
		{people, "  authentication_context: c1\n", "", "authentication_context"},
		{people, "  authentication_context: c1\n", "  endpoints: v1\n", ""},
		{people, "0000000000bb", "0000000000aa", "that of application"},
		{people, "roles: [viewer]", "roles: [root]", "roles"},
		{people, "roles: [viewer]", "group: 11111111-2222-3333-4444-555555555555, roles: [viewer]", "not both"},
		{people, "allow: [{object: 11111111-2222-3333-4444-555555555555, roles: [viewer]}]", "allow: []", "allow"},
		{people, "tenant: 11111111-2222-3333-4444-555555555555", "tenant: common", "tenant"},
		{people, "operators:", "operators:\n  uids: [-1]", "uids"},
		{people, "operators:", "operators:\n  second_person: [policy apply]", ""},
		{people, "operators:", "operators:\n  second_person: [approval give]", "operators.second_person"},
		{callers, "https://mandate.example.com/callers", "https://github.com/octo", "audience"},
		{callers, "api://mandate", "api://AzureADTokenExchange", "audience"},
		{callers, "mandate-callers", "https://kubernetes.default.svc", "audience"},
		{callers, "https://cluster.example", "http://cluster.example", "url"},
		{callers, "kind: github", "kind: gitlab", "kind"},
		{callers, "mesh.example", "mesh/x", "trust domain"},
		{callers, "0000000000cc", "x", "user_clients"},
		{"", "api:\n", "api:\n  public_url: http://mandate.example.com\n", "public_url"},
		{"", "api:\n", "api:\n  public_url: https://mandate.example.com\n  certificate_proxies: [10.0.0.0/8]\n", ""},
		{"", "api:\n", "api:\n  certificate_proxies: [0.0.0.0/0]\n", "certificate_proxies"},
	} {
		text := Example() + strings.Replace(tt.add, tt.old, tt.new, 1)
		if tt.add == "" {
			text = strings.Replace(Example(), tt.old, tt.new, 1)
		}
		_, err := load(t, text)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q for %q: got %v, want %q", tt.new, tt.old, err, tt.want)
		}
	}
}
