package emulator_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/mandate-sam/mandate/emulator"
)

// The emulator listens where others reach it only if it is told so twice, and
// never by a name of Microsoft's.
func TestOffLoopback(t *testing.T) {
	for _, tt := range []struct {
		cfg  emulator.Config
		want string
	}{
		{emulator.Config{Listen: "0.0.0.0"}, "is not loopback"},
		{emulator.Config{Listen: "::"}, "is not loopback"},
		{emulator.Config{Listen: "192.0.2.1"}, "is not loopback"},
		{emulator.Config{Listen: "everywhere", OffLoopback: true}, "not an address"},
		{emulator.Config{Name: "login.microsoftonline.com"}, "Microsoft's"},
		{emulator.Config{Name: "MICROSOFT.com"}, "Microsoft's"},
		{emulator.Config{Name: "x/y"}, "not a host's name"},
	} {
		e, err := emulator.Open(tt.cfg)
		if err == nil {
			e.Close()
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: got %v, want %q", tt.cfg, err, tt.want)
		}
	}
}

// With another name, URLs, issuer and certificates are of that name.
func TestNamed(t *testing.T) {
	e := emulator.Start(t, emulator.Config{Listen: "0.0.0.0", OffLoopback: true, Name: "Entra.test"})
	u, err := url.Parse(e.Endpoints().Login)
	if err != nil || u.Hostname() != "entra.test" {
		t.Fatalf("login is at %s, %v", e.Endpoints().Login, err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(e.CA().PEM())
	hc := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, "127.0.0.1:"+u.Port())
		},
	}}
	resp, err := hc.Get(e.Endpoints().Login + "/common/v2.0/.well-known/openid-configuration")
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("got %v, %v", resp, err)
	}
	resp.Body.Close()
}
