package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/mandate-sam/mandate/emulator"
)

// description is what --json prints.
type description struct {
	Endpoints   emulator.Endpoints  `json:"endpoints"`
	Hosts       []string            `json:"hosts"` // names that the certificates are for
	Vaults      []vault             `json:"vaults"`
	Seed        uint64              `json:"seed,string"`
	CAFile      string              `json:"ca_file,omitempty"`
	CA          string              `json:"ca_pem"`
	SPKI        string              `json:"ca_spki_sha256"`
	Application string              `json:"application_id"`
	Secret      string              `json:"application_secret"`
	Users       []emulator.User     `json:"users"` // of the partners
	Clients     map[string]settings `json:"clients"`
}

// A vault is one of Key Vault's, with its two addresses.
type vault struct {
	Name string `json:"name"`
	URL  string `json:"url"`

	// DNS is the address by which clients verify the challenge. Its name has
	// to be in the hosts file of most systems.
	DNS string `json:"dns_url"`
}

// settings are what the client libraries of a language have to be told.
type settings struct {
	Environment map[string]string `json:"environment"`
	Options     []string          `json:"options"`
}

func newDescription(e *emulator.Emulator, o options) description {
	d := description{
		Endpoints: e.Endpoints(), Hosts: []string{"localhost", "*.vault.localhost", "127.0.0.1", "::1"}, Vaults: vaults(e),
		Seed: e.Seed(), CAFile: o.caOut, CA: string(e.CA().PEM()), SPKI: e.CA().SPKI(),
		Users: users(e), Clients: clients(e.Endpoints(), o.caOut),
	}
	if a, ok := e.Application(emulator.ApplicationID); ok && len(a.Secrets) > 0 {
		d.Application, d.Secret = a.ID, a.Secrets[0]
	}
	return d
}

func vaults(e *emulator.Emulator) []vault {
	var all []vault
	for _, name := range e.Vaults() {
		u := e.Vault(name)
		all = append(all, vault{name, u, strings.Replace(u, "://localhost", "://"+strings.ToLower(name)+".vault.localhost", 1)})
	}
	return all
}

// clients are the settings without which Microsoft's libraries talk to
// Microsoft, or refuse to talk at all. caFile is empty if none was written.
func clients(p emulator.Endpoints, caFile string) map[string]settings {
	ca := cmp.Or(caFile, "FILE")
	return map[string]settings{
		"Go": {
			map[string]string{"SSL_CERT_FILE": ca, "AZURE_AUTHORITY_HOST": p.Login + "/"},
			[]string{`cloud.Configuration{ActiveDirectoryAuthorityHost: "` + p.Login + `/"}`, "DisableInstanceDiscovery: true", "azsecrets, azkeys: DisableChallengeResourceVerification: true"},
		},
		"Node": {
			map[string]string{"NODE_EXTRA_CA_CERTS": ca, "AZURE_AUTHORITY_HOST": p.Login},
			[]string{`authorityHost: "` + p.Login + `"`, "disableInstanceDiscovery: true", "Key Vault: disableChallengeResourceVerification: true"},
		},
		"Python": {
			map[string]string{"REQUESTS_CA_BUNDLE": ca, "SSL_CERT_FILE": ca, "AZURE_AUTHORITY_HOST": p.Login},
			[]string{`msal: authority="` + p.Login + `/TENANT", instance_discovery=False`, `azure-identity: authority="` + p.Login + `", disable_instance_discovery=True`, "Key Vault: verify_challenge_resource=False",
				`azure-mgmt: base_url="` + p.ARM + `", credential_scopes=["https://management.azure.com/.default"]`, `msgraph: adapter.base_url = "` + p.Graph + `/v1.0", allowed_hosts=["localhost"]`, "adal: validate_authority=False"},
		},
		"Java": {
			map[string]string{},
			[]string{"-Djavax.net.ssl.trustStore=STORE with the CA", `msal4j: authority("` + p.Login + `/common/"), instanceDiscovery(false); --login-port 443, for it leaves the port out when it refreshes`, `azure-identity: authorityHost("` + p.Login + `"), disableInstanceDiscovery()`, "Key Vault: disableChallengeResourceVerification()", `Partner Center: PartnerService.setApiRootUrl("` + p.PartnerCenter + `")`},
		},
	}
}

// users lists who can sign in at the partners.
func users(e *emulator.Emulator) []emulator.User {
	var all []emulator.User
	for _, t := range e.Tenants() {
		if t.Kind == "partner" {
			all = append(all, e.Users(t.ID)...)
		}
	}
	return all
}

// guestMail is the other name of a guest, the one that people type.
func guestMail(u emulator.User) string {
	if u.Guest() {
		return " (" + u.Mail + ")"
	}
	return ""
}

func text(e *emulator.Emulator, o options) string {
	var b strings.Builder
	p := e.Endpoints()
	fmt.Fprintf(&b, `Emulated cloud (not Microsoft), on this machine only.

  Identity platform  %s
  Partner Center     %s
  Graph              %s
  Resource Manager   %s
  Dials              %[5]s  (a page; the API behind it is described at %[5]s/emulator/openapi.json)

  Seed               %d  (--seed repeats this run)

`, p.Login, p.PartnerCenter, p.Graph, p.ARM, p.Admin, e.Seed())
	b.WriteString("Key Vault\n")
	some(&b, vaults(e), func(v vault) string { return fmt.Sprintf("%-24s %s or %s", v.Name, v.URL, v.DNS) })
	b.WriteString("\nApplications\n")
	some(&b, e.Applications(), func(a emulator.Application) string {
		line := a.ID + "  " + a.Name
		if len(a.Secrets) > 0 {
			line += "  (secret: " + a.Secrets[0] + ")"
		}
		return line
	})
	b.WriteString("\nTenants\n")
	some(&b, e.Tenants(), func(t emulator.Tenant) string {
		return fmt.Sprintf("%-9s %s  %-18s %s", t.Kind, t.ID, t.Domain, t.Name)
	})
	b.WriteString("\nPartner users (no passwords)\n")
	some(&b, users(e), func(u emulator.User) string { return u.UPN + guestMail(u) })
	b.WriteString("\n" + trust(e, o) + "\nStop with Ctrl-C. Everything is forgotten then.\n")
	return b.String()
}

// some writes a line for each, and for those beyond the thirtieth how many they
// are: a fixture may have 100,000.
func some[T any](b *strings.Builder, all []T, line func(T) string) {
	const most = 30
	for _, v := range all[:min(len(all), most)] {
		b.WriteString("  " + line(v) + "\n")
	}
	if n := len(all) - most; n > 0 {
		fmt.Fprintf(b, "  … and %d more\n", n)
	}
}

// trust says how clients come to trust the CA without a system store, and what
// else they have to be told.
func trust(e *emulator.Emulator, o options) string {
	var b strings.Builder
	if o.caOut == "" {
		b.WriteString("Trust: start with --ca-out FILE to get the CA's certificate.\n\nClients\n")
	} else {
		fmt.Fprintf(&b, `Trust (never install this CA in a system store)
  CA file    %[1]s
  curl       --cacert %[1]s
  Chromium   --ignore-certificate-errors-spki-list=%[2]s

Clients
`, o.caOut, e.CA().SPKI())
	}
	all := clients(e.Endpoints(), o.caOut)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		s := all[name]
		for _, variable := range slices.Sorted(maps.Keys(s.Environment)) {
			fmt.Fprintf(&b, "  %-10s %s=%s\n", name, variable, s.Environment[variable])
			name = ""
		}
		for _, option := range s.Options {
			fmt.Fprintf(&b, "  %-10s %s\n", name, option)
			name = ""
		}
	}
	return b.String()
}
