// Package app wires a configuration into a running system. It is the only
// package that knows all the others.
package app

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/entra"
	"github.com/mandate-sam/mandate/internal/yamlfile"
)

// Config is a configuration file as written. Paths in it are relative to the
// file's directory. It holds no secret, only the paths of files that do.
type Config struct {
	// Data is the directory of the database and the audit log, mode 0700.
	Data Path `yaml:"data"`

	// Database is what replicas share. Without one the server is alone, with
	// an SQLite file in Data.
	Database Database `yaml:"database"`

	KeepAlive KeepAlive `yaml:"keep_alive"`
	Customers Customers `yaml:"customers"`

	// KeyFile seals the grants. Empty means key.txt in Data, which is
	// convenient and means that whoever takes the directory takes the grants.
	KeyFile Path `yaml:"key_file"`

	// Key seals the grants where KeyFile does not: it is in Key Vault, in
	// OpenBao, or in a file too. OldKeys are those of earlier, which still open
	// what was sealed with them. SharedKey seals the access tokens that
	// replicas share; a key file brings one of its own.
	Key       Key   `yaml:"key"`
	OldKeys   []Key `yaml:"old_keys"`
	SharedKey Key   `yaml:"shared_key"`

	// Grants says where sealed grants are kept, if not in the database.
	Grants Grants `yaml:"grants"`

	Audit Audit `yaml:"audit"`

	// Identities are who we are to key vaults, by name.
	Identities []Identity `yaml:"identities"`

	// Policy is who may have which tokens: a directory of .cedar files, or one
	// such file. A new database begins with it; from then on the policy in force
	// is in the database, and changed with "mandate policy apply".
	Policy Path `yaml:"policy"`

	// Rules was the file of rules in YAML, of which "mandate policy convert"
	// makes a policy.
	Rules Path `yaml:"rules"`

	// Socket is the operator's Unix socket. Empty means
	// $XDG_RUNTIME_DIR/mandate.sock, else /run/mandate/mandate.sock.
	Socket Path `yaml:"socket"`

	Portal Portal `yaml:"portal"`
	API    API    `yaml:"api"`

	// Operators says who runs the server.
	Operators Operators `yaml:"operators"`

	// Notices says how people are told what they may not have wanted.
	Notices Notices `yaml:"notices"`

	// Callers says whose tokens and certificates may stand for workloads.
	Callers Callers `yaml:"callers"`

	// Metrics is where Prometheus finds /metrics, beside the operator socket.
	// Nobody has to say who they are there, and the answer names partners:
	// who can reach it is for the network to decide. Empty is nowhere.
	Metrics Listener `yaml:"metrics"`

	// TrustedProxies are the addresses or networks whose X-Forwarded-For
	// counts.
	TrustedProxies []string `yaml:"trusted_proxies"`

	// UpstreamRoots is a PEM file of certificate authorities that are trusted
	// towards Microsoft beside the system's, as behind an inspecting proxy.
	// There is no setting that turns verification off.
	UpstreamRoots Path `yaml:"upstream_roots"`

	Applications []Application `yaml:"applications"`

	// Clouds are clouds that are not Microsoft's, such as an emulator.
	Clouds []Cloud `yaml:"clouds"`

	Log Log `yaml:"log"`

	dir string // of the file; what relative paths are relative to
}

// A Path is the path of a file. In the configuration it stands where a careless
// hand might put a secret, so what looks like one is refused with its line.
type Path string

// UnmarshalYAML refuses what looks like a secret.
func (p *Path) UnmarshalYAML(node ast.Node) error {
	s, ok := node.(*ast.StringNode)
	line := node.GetToken().Position.Line
	if !ok {
		return fmt.Errorf("line %d: must be the path of a file, as text", line)
	}
	if looksSecret(s.Value) {
		return fmt.Errorf("line %d: this looks like a secret; put it into a file that only the server can read, and its path here", line)
	}
	*p = Path(s.Value)
	return nil
}

// looksSecret reports whether s is rather a credential than a path: a key
// block, a caller's secret, a token of OpenBao's or of an issuer's, an Entra
// client secret, or a long run of letters and digits with neither a separator
// nor an extension.
func looksSecret(s string) bool {
	switch {
	case strings.Contains(s, "-----BEGIN") || len(s) > 1024:
		return true
	case slices.ContainsFunc([]string{"mdt_", "hvs.", "hvb.", "hvr.", "eyJ"}, func(p string) bool { return strings.HasPrefix(s, p) }):
		return true
	case strings.ContainsAny(s, "/\\"):
		return false
	}
	return len(s) >= 32 && (strings.Contains(s, "~") || !strings.Contains(s, "."))
}

// Portal configures the onboarding site.
type Portal struct {
	// PublicURL is the origin at which partners' browsers see the site, such
	// as https://consent.example.com. The redirect URI to register with Entra
	// is PublicURL + /consent/callback/ + the cloud's name.
	PublicURL string `yaml:"public_url"`
	Listener  `yaml:",inline"`

	// Contact is where a partner asks for help: a mail address or https URL.
	Contact string `yaml:"contact"`
}

// A Listener is an address and how it ends TLS.
type Listener struct {
	// Listen is host:port. Without TLS the host must be a loopback address.
	Listen string `yaml:"listen"`
	TLS    TLS    `yaml:"tls"`
}

// TLS names the PEM files of a certificate chain and its key. They are read
// again when they change.
type TLS struct {
	Certificate Path `yaml:"certificate"`
	Key         Path `yaml:"key"`
}

// An Application is an Entra app registration whose identity is presented.
type Application struct {
	Name        string       `yaml:"name"`      // short, for the command line
	ClientID    string       `yaml:"client_id"` //
	Cloud       string       `yaml:"cloud"`     // global (default), usgov, china, or one of clouds
	Endpoints   string       `yaml:"endpoints"` // v2 (default) or v1
	DisplayName string       `yaml:"display_name"`
	Publisher   string       `yaml:"publisher"`
	Credential  Credential   `yaml:"credential"`
	Audiences   []string     `yaml:"audiences"`   // default: partnercenter, graph, arm
	HomeTenant  string       `yaml:"home_tenant"` // where it is registered; for rotating its credential
	Permissions []Permission `yaml:"permissions"` // what the registration asks for, as partners read it
}

// A Permission is one delegated permission, as the onboarding site explains it.
type Permission struct {
	API     string `yaml:"api"`
	Scope   string `yaml:"scope"`
	Meaning string `yaml:"meaning"`
}

// A Cloud is a set of endpoints that is not Microsoft's.
type Cloud struct {
	Name      string              `yaml:"name"`
	Authority string              `yaml:"authority"`
	IssuerV1  string              `yaml:"issuer_v1"` // with {tenantid}
	IssuerV2  string              `yaml:"issuer_v2"`
	Audiences map[string]Endpoint `yaml:"audiences"`

	// Roots is the PEM file of the only certificate authorities that count for
	// this cloud's hosts. Required.
	Roots Path `yaml:"roots"`
}

// An Endpoint is an API of a custom cloud.
type Endpoint struct {
	Resource string `yaml:"resource"`
	URL      string `yaml:"url"` // default: the resource
}

// Log says what is logged to standard error, and how.
type Log struct {
	Level  string `yaml:"level"`  // debug, info (default), warn, error
	Format string `yaml:"format"` // text (default) or json
}

// LoadConfig reads and checks the configuration file at path. An error names
// the file and the line, or the field.
func LoadConfig(path string) (Config, error) {
	var c Config
	if err := checkMode(path); err != nil {
		return c, err
	}
	if err := yamlfile.Read(path, &c); err != nil {
		return c, err
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return c, err
	}
	c.dir = filepath.Dir(abs)
	if err := c.Check(); err != nil {
		return c, inFile(path, err)
	}
	return c, nil
}

// file returns the path of p as the process opens it; "" stays "".
func (c *Config) file(p Path) string {
	if p == "" || filepath.IsAbs(string(p)) {
		return string(p)
	}
	return filepath.Join(c.dir, string(p))
}

// keyFile returns the key file, or "" if the key is elsewhere.
func (c *Config) keyFile() string {
	switch {
	case c.KeyFile != "":
		return c.file(c.KeyFile)
	case !c.Key.isZero():
		return c.file(c.Key.File)
	}
	return filepath.Join(c.file(c.Data), "key.txt")
}

// PolicyClouds returns the clouds whose audiences a policy may name.
func (c *Config) PolicyClouds() ([]mandate.Cloud, error) {
	all, err := c.clouds()
	return c.usedClouds(all), err
}

// Check reports the first thing wrong with the configuration, without reading
// the files that it names: see [CheckFiles] for those.
func (c *Config) Check() error {
	if c.Rules != "" {
		return mandate.Invalid("rules", "is gone: convert the file (mandate policy convert %s), and name the result as `policy`", c.Rules)
	}
	for _, required := range []struct{ field, value string }{
		{"data", string(c.Data)}, {"policy", string(c.Policy)},
		{"portal.public_url", c.Portal.PublicURL}, {"portal.listen", c.Portal.Listen}, {"api.listen", c.API.Listen},
	} {
		if required.value == "" {
			return mandate.Invalid(required.field, "is required")
		}
	}
	if err := checkOrigin("portal.public_url", c.Portal.PublicURL); err != nil {
		return err
	}
	if err := c.Portal.Listener.check("portal"); err != nil {
		return err
	}
	if err := c.API.check(); err != nil {
		return err
	}
	if c.Metrics != (Listener{}) {
		if err := c.Metrics.check("metrics"); err != nil {
			return err
		}
	}
	if _, err := c.proxies(); err != nil {
		return err
	}
	if err := c.Log.check(); err != nil {
		return err
	}
	if err := c.Database.check(); err != nil {
		return err
	}
	if k := c.KeepAlive.config(nil); k.Check() != nil {
		return k.Check()
	}
	if k := c.Customers.config(); k.Check() != nil {
		return k.Check()
	}
	if err := c.Audit.check(); err != nil {
		return err
	}
	clouds, err := c.clouds()
	if err != nil {
		return err
	}
	if err := c.checkApplications(clouds); err != nil {
		return err
	}
	if err := c.checkCallers(clouds); err != nil {
		return err
	}
	if err := c.checkOperators(clouds); err != nil {
		return err
	}
	if err := c.checkNotices(); err != nil {
		return err
	}
	if err := c.checkIdentities(); err != nil {
		return err
	}
	if err := c.checkKeys(clouds); err != nil {
		return err
	}
	return c.checkGrants(clouds)
}

func checkOrigin(field, s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" || u.Host == "" || s != "https://"+u.Host {
		return mandate.Invalid(field, "%.100q must be https://host or https://host:port, and nothing else", s)
	}
	return nil
}

func (l *Listener) check(name string) error {
	host, _, err := net.SplitHostPort(l.Listen)
	if err != nil {
		return mandate.Invalid(name+".listen", "%.100q must be host:port", l.Listen)
	}
	if (l.TLS.Certificate == "") != (l.TLS.Key == "") {
		return mandate.Invalid(name+".tls", "needs both certificate and key")
	}
	if ip, err := netip.ParseAddr(host); l.TLS.Certificate == "" && host != "localhost" && (err != nil || !ip.IsLoopback()) {
		return mandate.Invalid(name+".listen", "%q without tls must be on a loopback address: tokens do not cross a network in the clear", l.Listen)
	}
	return nil
}

func (c *Config) proxies() ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, s := range c.TrustedProxies {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			a, aerr := netip.ParseAddr(s)
			if aerr != nil {
				return nil, mandate.Invalid("trusted_proxies", "%.60q is neither an address nor a network such as 10.1.0.0/16", s)
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		if p.Bits() == 0 {
			return nil, mandate.Invalid("trusted_proxies", "%s trusts the whole internet", s)
		}
		out = append(out, p)
	}
	return out, nil
}

func (l *Log) check() error {
	if !slices.Contains([]string{"", "debug", "info", "warn", "error"}, l.Level) {
		return mandate.Invalid("log.level", "%.40q is none of debug, info, warn, error", l.Level)
	}
	if !slices.Contains([]string{"", "text", "json"}, l.Format) {
		return mandate.Invalid("log.format", "%.40q is neither text nor json", l.Format)
	}
	return nil
}

// clouds returns Microsoft's clouds and the configured ones by name.
func (c *Config) clouds() (map[string]mandate.Cloud, error) {
	all := mandate.Clouds()
	for _, cc := range c.Clouds {
		if _, ok := all[cc.Name]; ok {
			return nil, mandate.Invalid("clouds", "%q is there twice, or is one of Microsoft's", cc.Name)
		}
		if cc.Roots == "" {
			return nil, mandate.Invalid("clouds", "%s: roots is required: a cloud that is not Microsoft's needs its own certificate authority pinned", cc.Name)
		}
		cloud := mandate.Cloud{
			Name: cc.Name, Authority: cc.Authority, IssuerV1: cc.IssuerV1, IssuerV2: cc.IssuerV2,
			Audiences: make(map[string]mandate.Endpoint), Custom: true,
		}
		for name, e := range cc.Audiences {
			if e.URL == "" {
				e.URL = e.Resource
			}
			cloud.Audiences[name] = mandate.Endpoint{Resource: mandate.Audience(e.Resource), URL: e.URL}
		}
		if err := cloud.Check(); err != nil {
			return nil, fmt.Errorf("clouds: %s: %w", cc.Name, err)
		}
		all[cc.Name] = cloud
	}
	return all, nil
}

func (c *Config) checkApplications(clouds map[string]mandate.Cloud) error {
	if len(c.Applications) == 0 {
		return mandate.Invalid("applications", "is empty: there is nothing to consent to")
	}
	seen := make(map[string]bool)
	custom := 0
	for i := range c.Applications {
		a := &c.Applications[i]
		if err := a.check(c, clouds); err != nil {
			return at(fmt.Sprintf("applications[%d]", i), fmt.Errorf("applications: %d (%.40q): %w", i+1, a.Name, err))
		}
		if seen[a.Name] || seen[a.cloud()+"/"+a.ClientID] {
			return mandate.Invalid("applications", "%q or its client_id is there twice", a.Name)
		}
		seen[a.Name], seen[a.cloud()+"/"+a.ClientID] = true, true
		if clouds[a.cloud()].Custom {
			custom++
		}
	}
	if custom > 0 && custom < len(c.Applications) {
		return mandate.Invalid("applications", "some are in one of Microsoft's clouds and some in a custom one; a server has either")
	}
	return nil
}

func (a *Application) cloud() string {
	if a.Cloud == "" {
		return "global"
	}
	return a.Cloud
}

func (a *Application) version() entra.Version {
	if a.Endpoints == "" {
		return entra.V2
	}
	return entra.Version(a.Endpoints)
}

func (a *Application) check(c *Config, clouds map[string]mandate.Cloud) error {
	if !mandate.Name(a.Name) {
		return mandate.Invalid("name", "must be a short name of letters, digits, '-', '_' or '.'")
	}
	if _, err := mandate.ParseAppID(a.ClientID); err != nil {
		return mandate.Invalid("client_id", "%.60q is not a client id", a.ClientID)
	}
	cloud, ok := clouds[a.cloud()]
	if !ok {
		return mandate.Invalid("cloud", "%.40q is neither one of Microsoft's (global, usgov, china) nor in clouds", a.Cloud)
	}
	if a.version() != entra.V1 && a.version() != entra.V2 {
		return mandate.Invalid("endpoints", "%.40q is neither v1 nor v2", a.Endpoints)
	}
	if a.DisplayName == "" || a.Publisher == "" || len(a.DisplayName) > 120 || len(a.Publisher) > 120 {
		return mandate.Invalid("display_name", "and publisher are required, at most 120 bytes each: partners must know who asks")
	}
	if err := a.Credential.check(c, clouds); err != nil {
		return err
	}
	if _, err := mandate.ParseTenantID(a.HomeTenant); a.HomeTenant != "" && err != nil {
		return renamed("home_tenant", err)
	}
	if _, err := a.audiences(cloud); err != nil {
		return err
	}
	for _, p := range a.Permissions {
		if _, err := cloud.Resolve(p.API); err != nil || !mandate.Name(p.Scope) || len(p.Meaning) > 500 {
			return mandate.Invalid("permissions", "%.60q %.60q needs an api that the cloud has, a scope's name, and a meaning of at most 500 bytes", p.API, p.Scope)
		}
	}
	return nil
}

// audiences returns what is redeemed before a consent is accepted: Partner
// Center, Graph, then the others in the order written.
func (a *Application) audiences(cloud mandate.Cloud) ([]mandate.Audience, error) {
	names := a.Audiences
	if len(names) == 0 {
		names = []string{mandate.ARM}
	}
	out := []mandate.Audience{cloud.Audiences[mandate.PartnerCenter].Resource, cloud.Audiences[mandate.Graph].Resource}
	for _, name := range names {
		r, err := cloud.Resolve(name)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(out, r) {
			out = append(out, r)
		}
	}
	return out, nil
}
