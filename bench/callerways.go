package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/audit"
	proving "github.com/mandate-sam/mandate/callers"
	"github.com/mandate-sam/mandate/internal/web"
	"github.com/mandate-sam/mandate/store"
)

// waysCase is POST /v1/tokens for a token that is in the cache, over 64
// connections, for each way in which a caller proves who it is, with the policy
// on and the records in memory: beside bare net/http of the same protocol,
// which gets the same requests and looks at nothing.
var waysCase = benchCase{rows: []string{"G5/key", "G5/mtls", "G5/jwt"}, run: runWays}

func runWays(ctx context.Context, e *env) (rows []row, err error) {
	err = withAudit(func(log *audit.Log, dir string) error {
		d, err := newDoors(ctx, dir, log)
		if err != nil {
			return err
		}
		defer d.close()
		w, err := newWays(ctx, d, log)
		if err != nil {
			return err
		}
		slice := choose(e, 800*time.Millisecond, 400*time.Millisecond)
		var contenders []func(context.Context) (float64, error)
		for _, l := range w {
			contenders = append(contenders, l.during(slice))
		}
		v, err := e.interleave(ctx, "G5", choose(e, 11, 5), contenders[0], contenders[1], contenders[2], contenders[3], contenders[4], contenders[5])
		if err != nil {
			return err
		}
		for i, name := range []string{"G5/key", "G5/mtls", "G5/jwt"} {
			r := compare(name, "req/s", v[2*i], v[2*i+1])
			r.Note = fmt.Sprintf("p50 %v ms, p99 %v ms; bare %v and %v", w[2*i].percentile(50), w[2*i].percentile(99), w[2*i+1].percentile(50), w[2*i+1].percentile(99))
			r.Note = join(w[2*i].costs(w[2*i+1]), r.Note)
			rows = append(rows, r.report())
		}
		return nil
	})
	return rows, err
}

const (
	jwtIssuer   = "https://issuer.example"
	jwtAudience = "https://mandate.example/callers"
)

// newWays returns loads in pairs: on the API and on bare net/http, by secret,
// by certificate and by workload token.
func newWays(ctx context.Context, d *doors, log *audit.Log) ([]*load, error) {
	st, err := store.Open(ctx, d.db)
	if err != nil {
		return nil, err
	}
	pair, err := newPair()
	if err != nil {
		return nil, err
	}
	pin := sha256.Sum256(pair.Certificate[0])
	signer, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	if _, _, err := st.Register(ctx, mandate.Caller{ID: "ledger", Credentials: []mandate.CallerCredential{
		{Kind: mandate.CredentialCertificate, Certificate: hex.EncodeToString(pin[:])},
		{Kind: mandate.CredentialWorkload, Issuer: "issuer", Claims: map[string]string{"sub": "robot"}},
	}}); err != nil {
		return nil, err
	}
	d.proofs, err = proving.New(proving.Config{Directory: st, Issuers: []proving.Issuer{{
		Name: "issuer", Kind: proving.KindOIDC, URL: jwtIssuer, Audience: jwtAudience, KeysURL: jwtIssuer + "/keys", HTTP: &http.Client{Transport: published{&signer.PublicKey}},
	}}})
	if err != nil {
		return nil, err
	}
	s, err := d.newAPI(st, new(memoryRecorder), log)
	if err != nil {
		return nil, err
	}
	token, err := signRS256(signer)
	if err != nil {
		return nil, err
	}
	bearer := "Authorization: Bearer " + token + "\r\n"
	var out []*load
	for _, way := range []struct {
		header string
		tls    *tls.Config
	}{
		{"", nil},
		{"none", &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequestClientCert}},
		{bearer, nil},
	} {
		requests := d.requests
		if way.header != "" {
			requests = withHeader(requests, strings.TrimPrefix(way.header, "none"))
		}
		size := 0
		for _, bare := range []bool{false, true} {
			h := s
			if bare {
				h = bareHandler(size)
			}
			addr, err := d.serveOver(h, way.tls)
			if err != nil {
				return nil, err
			}
			l, err := newLoadOver(ctx, addr, callers, requests, way.tls)
			if err != nil {
				return nil, err
			}
			d.loads = append(d.loads, l)
			if size, err = l.answerSize(); err != nil {
				return nil, err
			}
			out = append(out, l)
		}
	}
	return out, nil
}

// withHeader returns requests with another Authorization header, or none.
func withHeader(requests []string, header string) []string {
	var out []string
	for _, r := range requests {
		before, rest, _ := strings.Cut(r, "Authorization: ")
		_, after, _ := strings.Cut(rest, "\r\n")
		out = append(out, before+header+after)
	}
	return out
}

// bareHandler answers as many bytes as the API.
func bareHandler(size int) http.Handler {
	const empty = `{"access_token":""}` + "\n"
	body := []byte(`{"access_token":"` + strings.Repeat("a", size-len(empty)) + `"}` + "\n")
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(body)
	})
}

// serveOver serves on a port of its own, over TLS if there is a config.
func (d *doors) serveOver(h http.Handler, c *tls.Config) (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	addr := l.Addr().String()
	l = web.Hold(l)
	if c != nil {
		l = tls.NewListener(l, c)
	}
	s := newServer(h)
	d.servers = append(d.servers, s)
	go s.Serve(l) // ends when d is closed
	return addr, nil
}

// newLoadOver is newLoad over TLS with a client certificate, if there is a
// config.
func newLoadOver(ctx context.Context, addr string, n int, requests []string, c *tls.Config) (*load, error) {
	l, err := newLoad(ctx, addr, n, requests)
	if err != nil || c == nil {
		return l, err
	}
	client := &tls.Config{Certificates: c.Certificates, InsecureSkipVerify: true} // its own certificate, on loopback
	for _, conn := range l.conns {
		t := tls.Client(conn.Conn, client)
		if err := t.HandshakeContext(ctx); err != nil {
			l.close()
			return nil, err
		}
		conn.Conn = t
		conn.in.Reset(t)
	}
	return l, nil
}

// newPair makes a certificate for both sides.
func newPair() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// published answers for an issuer with one key.
type published struct{ key *rsa.PublicKey }

func (p published) RoundTrip(r *http.Request) (*http.Response, error) {
	enc := base64.RawURLEncoding.EncodeToString
	body, err := json.Marshal(map[string]any{"keys": []any{map[string]string{"kty": "RSA", "kid": "one", "use": "sig", "n": enc(p.key.N.Bytes()), "e": "AQAB"}}})
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(body)), Request: r}, err
}

// signRS256 returns a workload token that lasts for the measurement.
func signRS256(key *rsa.PrivateKey) (string, error) {
	now := time.Now().Unix()
	claims, err := json.Marshal(map[string]any{
		"iss": jwtIssuer, "aud": jwtAudience, "sub": "robot", "iat": now, "nbf": now, "exp": now + 3600,
		"job_workflow_ref": strings.Repeat("x", 400), // as long as GitHub's are
	})
	if err != nil {
		return "", err
	}
	enc := base64.RawURLEncoding.EncodeToString
	signed := enc([]byte(`{"alg":"RS256","kid":"one","typ":"JWT"}`)) + "." + enc(claims)
	sum := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	return signed + "." + enc(signature), err
}
