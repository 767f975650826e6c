package emulator_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/mandate-sam/mandate/emulator"
)

// A certificate for another name does not verify, though the CA signed it.
func TestCAIsConstrained(t *testing.T) {
	ca, err := emulator.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(ca.PEM())
	root, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(root)
	for host, want := range map[string]bool{
		"localhost": true, "127.0.0.1": true, "::1": true,
		"evil.example": false, "login.microsoftonline.com": false, "127.0.0.2": false, "192.168.0.1": false, "10.0.0.1": false,
	} {
		cert, err := ca.Issue(host)
		if err != nil {
			t.Fatal(err)
		}
		_, err = cert.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: host})
		if (err == nil) != want {
			t.Errorf("%s: got %v, want it to verify: %v", host, err, want)
		}
		if len(cert.Certificate) != 2 {
			t.Errorf("%s: the chain has %d certificates, want the CA's as well", host, len(cert.Certificate))
		}
	}
	if len(ca.SPKI()) != 44 {
		t.Errorf("got SPKI hash %q", ca.SPKI())
	}
}

func TestClientTrustsOnlyTheCA(t *testing.T) {
	a, b := start(t), start(t)
	_, err := a.Client().Get(b.Endpoints().Login)
	var unknown x509.UnknownAuthorityError
	if !errors.As(err, &unknown) {
		t.Errorf("got %v, want an unknown authority", err)
	}
	_, err = http.Get(a.Endpoints().Login)
	if !errors.As(err, &unknown) {
		t.Errorf("a client that was told nothing: got %v, want an unknown authority", err)
	}
}

// The emulator listens on loopback, by both protocols where there are both.
func TestListensOnLoopback(t *testing.T) {
	e := start(t)
	_, port, _ := strings.Cut(strings.TrimPrefix(e.Endpoints().Graph, "https://"), ":")
	for _, host := range []string{"127.0.0.1", "::1"} {
		if host == "::1" && !hasIPv6() {
			continue
		}
		c, err := net.Dial("tcp", net.JoinHostPort(host, port))
		if err != nil {
			t.Errorf("%s: %v", host, err)
			continue
		}
		c.Close()
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		ip, ok := a.(*net.IPNet)
		if !ok || ip.IP.IsLoopback() || ip.IP.To4() == nil {
			continue
		}
		if c, err := net.Dial("tcp", net.JoinHostPort(ip.IP.String(), port)); err == nil {
			c.Close()
			t.Errorf("it listens on %s too", ip.IP)
		}
	}
}

func hasIPv6() bool {
	l, err := net.Listen("tcp6", "[::1]:0")
	if err == nil {
		l.Close()
	}
	return err == nil
}

func TestPortInUse(t *testing.T) {
	e := start(t)
	_, port, _ := strings.Cut(strings.TrimPrefix(e.Endpoints().Graph, "https://"), ":")
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	if other, err := emulator.Open(emulator.Config{Ports: emulator.Ports{ARM: n}}); err == nil {
		other.Close()
		t.Error("two emulators share a port")
	}
}

func TestGivenCA(t *testing.T) {
	ca, err := emulator.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	e, err := emulator.Open(emulator.Config{CA: ca})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.PEM())
	c, err := tls.Dial("tcp", strings.TrimPrefix(e.Endpoints().Admin, "https://"), &tls.Config{RootCAs: roots})
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if e.CA() != ca || e.Seed() == 0 {
		t.Errorf("got seed %d", e.Seed())
	}
}
