// Package demo runs Mandate and an emulator of the Microsoft side together, on
// embedded defaults and in one process, and walks the whole way of a consent
// and of the tokens that come of it. cmd/demo shows it to people; the tests of
// the whole system start from it.
package demo

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"text/template"
	"time"

	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/emulator"
	"github.com/mandate-sam/mandate/internal/app"
	"github.com/mandate-sam/mandate/internal/rotation"
)

// marker is the file by which the demonstration knows a directory that it
// made. It never writes into any other.
const marker = "made-by-mandate-demo"

// Config says how a demonstration is set up. The zero value works.
type Config struct {
	// Dir takes what is made: a directory that is absent, empty, or of an
	// earlier demonstration. Empty means a temporary one that [Demo.Close]
	// removes.
	Dir string

	// Ports are where things listen. The zero value means any free ones.
	Ports Ports

	// Version is the generation of Entra's endpoints, "v1" or "v2" (default).
	Version string

	// Secret makes the application prove itself with a client secret instead
	// of a certificate.
	Secret bool

	// Idle leaves the product unstarted: what it needs is written, for a
	// process of its own.
	Idle bool

	// Pace is how often Entra is asked while a credential is replaced.
	Pace rotation.Pace

	Log *slog.Logger // nil discards
}

// Ports are where things listen.
type Ports struct {
	Emulator    emulator.Ports
	Portal, API string
}

// WellKnown are the ports of a demonstration for people.
func WellKnown() Ports {
	return Ports{emulator.Ports{Login: 8450, PartnerCenter: 8451, Graph: 8452, ARM: 8453, KeyVault: 8454, Admin: 8459}, "8443", "8444"}
}

// A Demo is emulator and product, running.
type Demo struct {
	Dir      string // what was made is here; see [Demo.File]
	Emulator *emulator.Emulator
	Portal   string // origin of the onboarding site
	API      string // and of the API
	Socket   string // path of the operator's
	Operator *api.Client
	Done     chan error // has the product's end, once

	cfg  Config
	own  bool // Dir is removed at the end
	app  *app.App
	stop func()
}

// Start brings everything up.
func Start(ctx context.Context, cfg Config) (_ *Demo, err error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	d := &Demo{cfg: cfg, Dir: cfg.Dir, Done: make(chan error, 1)}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Close())
		}
	}()
	if err := d.directory(); err != nil {
		return nil, err
	}
	if d.Emulator, err = emulator.Open(emulator.Config{Ports: cfg.Ports.Emulator, Log: cfg.Log}); err != nil {
		return nil, fmt.Errorf("start emulator: %w", err)
	}
	for tries := 5; ; tries-- {
		if err := d.configure(); err != nil {
			return nil, err
		}
		if cfg.Idle {
			return d, nil
		}
		// A port that was free a moment ago may be somebody else's by now.
		if err = d.serve(ctx); tries == 0 || cfg.Ports.Portal != "" || !errors.Is(err, syscall.EADDRINUSE) {
			return d, err
		}
	}
}

// directory makes the directory, or takes an empty one or one of its own.
func (d *Demo) directory() (err error) {
	if d.Dir == "" {
		d.own = true
		d.Dir, err = os.MkdirTemp("", "mandate-demo-")
		return err
	}
	if d.Dir, err = filepath.Abs(d.Dir); err != nil {
		return err
	}
	if err := os.MkdirAll(d.Dir, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(d.Dir)
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(d.Dir, marker)); err != nil && len(entries) > 0 {
		return fmt.Errorf("%s is not empty and was not made by the demonstration; name another directory", d.Dir)
	}
	// The emulator forgets everything at its end, so a grant of an earlier run
	// would be of no use.
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(d.Dir, e.Name())); err != nil {
			return err
		}
	}
	return os.Chmod(d.Dir, 0o700)
}

// File returns the path of a file that was made.
func (d *Demo) File(name string) string { return filepath.Join(d.Dir, name) }

// configure writes what an operator would: certificates, credential, rules and
// configuration.
func (d *Demo) configure() error {
	ports, err := d.ports()
	if err != nil {
		return err
	}
	d.Portal, d.API = "https://127.0.0.1:"+ports.Portal, "https://127.0.0.1:"+ports.API
	d.Socket = d.File("mandate.sock")
	server, err := d.Emulator.CA().Issue("127.0.0.1")
	if err != nil {
		return err
	}
	serverCert, serverKey, err := encodePair(server)
	if err != nil {
		return err
	}
	appCert, appKey, err := applicationCertificate()
	if err != nil {
		return err
	}
	application, _ := d.Emulator.Application(emulator.ApplicationID)
	application.RedirectURIs = []string{d.Portal + "/consent/callback/emulator"}
	application.Certificates = [][]byte{appCert.Raw}
	application.Secrets = []string{rand.Text()}
	credential := "certificate: application.pem"
	if d.cfg.Secret {
		application.Certificates, credential = nil, "secret: application.secret"
	} else {
		application.Secrets = nil
	}
	if err := d.Emulator.Register(application); err != nil {
		return err
	}
	// It may change its own registration, as rotating its credential takes.
	if err := d.Emulator.AssignRoles(application.Tenant, application.ID, emulator.Graph, "Application.ReadWrite.OwnedBy"); err != nil {
		return err
	}
	config, err := d.config(ports, credential)
	if err != nil {
		return err
	}
	for name, data := range map[string][]byte{
		marker: []byte("The demonstration may empty this directory.\n"), "ca.pem": d.Emulator.CA().PEM(),
		"server.pem": serverCert, "server.key": serverKey,
		"application.pem":    append(pemBlock("CERTIFICATE", appCert.Raw), appKey...),
		"policy/demo.cedar":  []byte(fmt.Sprintf(rules, os.Getuid(), time.Now().AddDate(0, 1, 0).Format(time.DateOnly))),
		"policy/groups.yaml": []byte(groups),
		"mandate.yaml":       config,
		"application.secret": []byte(strings.Join(application.Secrets, "")),
	} {
		if err := os.MkdirAll(filepath.Dir(d.File(name)), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(d.File(name), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

const rules = `// Who may have which tokens. What no rule permits is denied.

@id("demo-service")
@until("%[2]s")
@scopes("consented")
@customers("all")
permit (principal == Caller::"demo-service", action, resource in PartnerGroup::"demo")
when {
  context.audience in [Audience::"partnercenter", Audience::"graph", Audience::"arm"] &&
  context.purpose == Purpose::"demo"
};

@id("demo-operator")
@until("%[2]s")
@scopes("consented")
@customers("all")
permit (principal == Caller::"uid:%[1]d", action, resource in PartnerGroup::"demo")
when {
  context.audience in [Audience::"partnercenter", Audience::"graph", Audience::"arm"] &&
  context.purpose == Purpose::"demo"
};
`

const groups = `# Who is in which group of the policy.
partners:
  demo: [contoso, fabrikam]
`

var configText = template.Must(template.New("").Parse(`# Written by the demonstration. The cloud is an emulator; its certificate
# authority lives as long as the demonstration runs.
data: data
key_file: keys/mandate.key
policy: policy
socket: mandate.sock
portal:
  public_url: {{.Portal}}
  listen: {{.PortalListen}}
  tls: {certificate: server.pem, key: server.key}
  contact: help@northwind.example
api:
  listen: {{.APIListen}}
  tls: {certificate: server.pem, key: server.key}
applications:
  - name: marketplace
    client_id: {{.ClientID}}
    cloud: emulator
    home_tenant: {{.Home}}
    display_name: {{.Name}}
    publisher: {{.Publisher}}
    credential: {{"{"}}{{.Credential}}}{{with .Version}}
    endpoints: {{.}}{{end}}
    permissions:{{range .Permissions}}
      - {api: {{.API}}, scope: {{.Scope}}}{{end}}
clouds:
  - name: emulator
    authority: {{.Endpoints.Login}}
    issuer_v1: {{.Endpoints.Login}}/{tenantid}/
    issuer_v2: {{.Endpoints.Login}}/{tenantid}/v2.0
    roots: ca.pem
    audiences:
      partnercenter: {resource: "{{.Endpoints.PartnerCenter}}"}
      graph: {resource: "{{.Endpoints.Graph}}"}
      arm: {resource: "{{.Endpoints.ARM}}"}
log: {level: warn}
`))

func (d *Demo) config(ports Ports, credential string) ([]byte, error) {
	application, _ := d.Emulator.Application(emulator.ApplicationID)
	type permission struct{ API, Scope string }
	var permissions []permission
	names := map[string]string{emulator.PartnerCenter: "partnercenter", emulator.Graph: "graph", emulator.ARM: "arm"}
	for _, a := range application.Access {
		for _, s := range a.Scopes {
			permissions = append(permissions, permission{names[a.Resource], s})
		}
	}
	var b bytes.Buffer
	err := configText.Execute(&b, map[string]any{
		"Portal": d.Portal, "PortalListen": "127.0.0.1:" + ports.Portal, "APIListen": "127.0.0.1:" + ports.API,
		"ClientID": application.ID, "Home": application.Tenant, "Name": application.Name, "Publisher": application.Publisher,
		"Version": d.cfg.Version, "Credential": credential, "Permissions": permissions, "Endpoints": d.Emulator.Endpoints(),
	})
	return b.Bytes(), err
}

// serve starts the product as its own command would.
func (d *Demo) serve(ctx context.Context) error {
	config, err := app.LoadConfig(d.File("mandate.yaml"))
	if err != nil {
		return err
	}
	if d.app, err = app.New(ctx, config, app.Options{Log: d.cfg.Log, Version: "demo", Pace: d.cfg.Pace}); err != nil {
		return fmt.Errorf("start mandate: %w", err)
	}
	ctx, d.stop = context.WithCancel(ctx)
	go func() { d.Done <- d.app.Run(ctx) }()
	d.Operator, err = api.NewSocketClient(d.Socket)
	return err
}

// Close stops everything and removes what was made in a temporary directory.
func (d *Demo) Close() error {
	var errs []error
	if d.stop != nil {
		d.stop()
		errs = append(errs, <-d.Done)
	}
	if d.Emulator != nil {
		errs = append(errs, d.Emulator.Close())
	}
	if d.own {
		errs = append(errs, os.RemoveAll(d.Dir))
	}
	return errors.Join(errs...)
}

// ports returns where the product is to listen. Free ports are looked for below
// those that the system gives to outgoing connections: one of these could be
// somebody else's by the time that the product listens.
func (d *Demo) ports() (Ports, error) {
	p := d.cfg.Ports
	for _, port := range []*string{&p.Portal, &p.API} {
		for tries := 100; *port == ""; tries-- {
			l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(firstPort+mathrand.N(lastPort-firstPort)))
			if err != nil && tries > 0 {
				continue
			}
			if err != nil {
				return p, err
			}
			defer l.Close() // not before both are chosen
			if _, *port, err = net.SplitHostPort(l.Addr().String()); err != nil {
				return p, err
			}
		}
	}
	return p, nil
}

const firstPort, lastPort = 15000, 32000

func encodePair(c tls.Certificate) (cert, key []byte, err error) {
	for _, der := range c.Certificate {
		cert = append(cert, pemBlock("CERTIFICATE", der)...)
	}
	private, ok := c.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, nil, fmt.Errorf("a %T cannot be written", c.PrivateKey)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	return cert, pemBlock("PRIVATE KEY", der), err
}

// applicationCertificate makes the credential that the application registers:
// self-signed, as one that is uploaded to Entra usually is.
func applicationCertificate() (*x509.Certificate, []byte, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "Mandate demonstration"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(0, 1, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	return cert, pemBlock("PRIVATE KEY", private), err
}

func pemBlock(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
