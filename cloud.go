package mandate

import (
	"net/url"
	"slices"
	"strings"
)

// The names of the audiences that every cloud has.
const (
	PartnerCenter = "partnercenter"
	Graph         = "graph"
	ARM           = "arm"
)

// An Endpoint is an API: what its tokens are for, and where it is called.
type Endpoint struct {
	Resource Audience // as in the token's aud and in policy
	URL      string   // scheme, host and port; no trailing slash
}

// A Cloud is a set of endpoints that belong together. Nothing in an answer
// from the network changes them: token, authorize and key hosts come from
// here and not from downloaded metadata.
type Cloud struct {
	Name      string
	Authority string // scheme, host and port of Entra; no trailing slash

	// IssuerV1 and IssuerV2 are the issuers of tokens, with "{tenantid}" in
	// place of the tenant.
	IssuerV1, IssuerV2 string

	// Audiences by short name.
	Audiences map[string]Endpoint

	// Custom marks a cloud that is not Microsoft's: an emulator.
	Custom bool
}

// Clouds returns Microsoft's clouds by name. The values are copies.
func Clouds() map[string]Cloud {
	return map[string]Cloud{
		"global": microsoft("global", "https://login.microsoftonline.com", "https://sts.windows.net",
			"https://api.partnercenter.microsoft.com", "https://graph.microsoft.com", "https://management.azure.com"),
		"usgov": microsoft("usgov", "https://login.microsoftonline.us", "https://sts.windows.net",
			"https://api.partnercenter.microsoft.com", "https://graph.microsoft.us", "https://management.usgovcloudapi.net"),
		"china": microsoft("china", "https://login.partner.microsoftonline.cn", "https://sts.chinacloudapi.cn",
			"https://partner.partnercenterapi.microsoftonline.cn", "https://microsoftgraph.chinacloudapi.cn", "https://management.chinacloudapi.cn"),
	}
}

func microsoft(name, authority, sts, pc, graph, arm string) Cloud {
	return Cloud{
		Name: name, Authority: authority,
		IssuerV1: sts + "/{tenantid}/", IssuerV2: authority + "/{tenantid}/v2.0",
		Audiences: map[string]Endpoint{
			PartnerCenter: {Audience(pc), pc},
			Graph:         {Audience(graph), graph},
			ARM:           {Audience(arm), arm},
		},
	}
}

// Resolve returns the audience that s names: an alias of the cloud, or the
// resource URI of one of its audiences, with or without a final slash. Any
// other is an error wrapping [ErrInvalid], which lists the aliases.
func (c *Cloud) Resolve(s string) (Audience, error) {
	if e, ok := c.Audiences[s]; ok {
		return e.Resource, nil
	}
	for _, e := range c.Audiences {
		if s != "" && strings.TrimSuffix(s, "/") == strings.TrimSuffix(string(e.Resource), "/") {
			return e.Resource, nil
		}
	}
	return "", Invalid("audience", "%.80q is not configured; use one of %s", s, strings.Join(c.aliases(), ", "))
}

// Alias returns the short name of an audience, or the audience itself if it
// has none.
func (c *Cloud) Alias(a Audience) string {
	for _, name := range c.aliases() {
		if c.Audiences[name].Resource == a {
			return name
		}
	}
	return string(a)
}

// Endpoint returns where an audience is called.
func (c *Cloud) Endpoint(a Audience) (Endpoint, bool) {
	for _, e := range c.Audiences {
		if e.Resource == a {
			return e, true
		}
	}
	return Endpoint{}, false
}

func (c *Cloud) aliases() []string {
	names := make([]string, 0, len(c.Audiences))
	for name := range c.Audiences {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Check reports the first thing wrong with a cloud. A custom one must not
// name a host of Microsoft's, so that an emulator's grant and a real one can
// never meet.
func (c *Cloud) Check() error {
	if c.Name == "" {
		return Invalid("cloud", "has no name")
	}
	if err := c.checkURL("authority", c.Authority); err != nil {
		return err
	}
	for _, name := range []string{PartnerCenter, Graph, ARM} {
		if _, ok := c.Audiences[name]; !ok {
			return Invalid("cloud", "%s has no audience %q", c.Name, name)
		}
	}
	for _, name := range c.aliases() {
		if err := c.checkURL(name, c.Audiences[name].URL); err != nil {
			return err
		}
	}
	if err := checkIssuer("issuer_v1", c.IssuerV1); err != nil {
		return err
	}
	return checkIssuer("issuer_v2", c.IssuerV2)
}

func checkIssuer(field, s string) error {
	if strings.Count(s, "{tenantid}") != 1 || !strings.HasPrefix(s, "https://") {
		return Invalid(field, "%q must be an https URL with {tenantid} in it once", s)
	}
	return nil
}

func (c *Cloud) checkURL(field, s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" {
		return Invalid(field, "%q must be https://host or https://host:port, and nothing else", s)
	}
	if c.Custom && MicrosoftHost(u.Hostname()) {
		return Invalid(field, "%q is Microsoft's; a custom cloud may not use it", s)
	}
	return nil
}

// microsoftDomains are the domains under which Microsoft's clouds live.
var microsoftDomains = []string{
	"microsoftonline.com", "microsoftonline.us", "microsoftonline.cn", "microsoftonline.de",
	"microsoft.com", "microsoft.us", "windows.net", "windows-ppe.net", "microsoft-ppe.com",
	"azure.com", "azure.us", "azure.cn", "azure.net", "usgovcloudapi.net", "chinacloudapi.cn", "cloudapi.de",
	"sovcloud-identity.fr", "sovcloud-identity.de", "sovcloud-identity.sg",
}

// MicrosoftHost reports whether a host name belongs to Microsoft.
func MicrosoftHost(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return slices.ContainsFunc(microsoftDomains, func(d string) bool {
		return host == d || strings.HasSuffix(host, "."+d)
	})
}
