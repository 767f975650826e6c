package keyvault_test

import (
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"math/big"
	"net/http"
	"strings"
	"testing"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/keyvault"
)

// public returns the public key of the newest version of a key, and its ID.
func (w *world) public(name string) (*rsa.PublicKey, string) {
	w.t.Helper()
	k := must(w.keys().GetKey(w.t.Context(), name, "", nil))(w.t)
	return &rsa.PublicKey{N: new(big.Int).SetBytes(k.Key.N), E: int(new(big.Int).SetBytes(k.Key.E).Int64())}, string(*k.Key.KID)
}

// A key that is rotated in the vault no longer fits the certificate, and it is
// said before Entra is asked.
func TestSignerAfterRotation(t *testing.T) {
	w := start(t)
	w.makeKey("app", 2048)
	pub, kid := w.public("app")
	der, v, ctx := certificate(t, pub), w.open(), t.Context()
	newest := must(v.NewSigner("app", der))(t)
	fixed := must(v.NewSigner("app/"+kid[strings.LastIndex(kid, "/")+1:], der))(t)
	digest := sha256.Sum256([]byte("x"))
	for _, s := range []*keyvault.Signer{newest, fixed} {
		if sig, err := s.Sign(ctx, digest[:]); err != nil || len(sig) != 256 || string(s.CertificateDER()) != string(der) {
			t.Errorf("got %d bytes, %v", len(sig), err)
		}
	}
	must(w.keys().RotateKey(ctx, "app", nil))(t)
	_, err := newest.Sign(ctx, digest[:])
	wantError(t, err, mandate.ErrInvalid, "does not belong to key app", "registers the key's new certificate with Entra")
	if _, err := fixed.Sign(ctx, digest[:]); err != nil {
		t.Errorf("with the version named: %v", err)
	}
	w.permit([]string{"get"}, nil)
	_, err = fixed.Sign(ctx, digest[:])
	wantError(t, err, nil, `"keys sign"`)
}

func TestNewSignerRefuses(t *testing.T) {
	v := start(t).open()
	der := certificate(t, &must(testKey())(t).PublicKey)
	for _, name := range []string{"", "a b", "a/", "a/b/c", "/b"} {
		_, err := v.NewSigner(name, der)
		wantError(t, err, mandate.ErrInvalid)
		_, err = v.OpenSigner(t.Context(), name)
		wantError(t, err, mandate.ErrInvalid)
	}
	_, err := v.NewSigner("app", []byte("x"))
	wantError(t, err, mandate.ErrInvalid, "not readable")
}

// fakeCertificates answers GET /certificates as "Get Certificate" describes
// it, which the emulator has not.
func fakeCertificates(t *testing.T, w *world, kid string, der []byte, asked *[]*http.Request) {
	w.http.Transport = middleman{next: w.http.Transport, reply: func(r *http.Request) *http.Response {
		if !strings.HasPrefix(r.URL.Path, "/certificates/") {
			return nil
		}
		*asked = append(*asked, r)
		status, body := 200, map[string]any{"id": "x", "kid": kid, "cer": base64.StdEncoding.EncodeToString(der)}
		if !strings.HasPrefix(r.URL.Path, "/certificates/app/") {
			status, body = 404, map[string]any{"error": map[string]any{"code": "CertificateNotFound", "message": "A certificate with (name/id) x was not found"}}
		}
		b := string(must(json.Marshal(body))(t))
		return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}, "X-Ms-Request-Id": {"r-1"}}, Body: io.NopCloser(strings.NewReader(b))}
	}}
}

func TestFakeCertificate(t *testing.T) {
	w := start(t)
	w.makeKey("app", 2048)
	pub, kid := w.public("app")
	var asked []*http.Request
	fakeCertificates(t, w, kid, certificate(t, pub), &asked)
	v, ctx := w.open(), t.Context()
	s := must(v.OpenSigner(ctx, "app"))(t)
	must(w.keys().RotateKey(ctx, "app", nil))(t)
	digest := sha256.Sum256([]byte("x"))
	if _, err := s.Sign(ctx, digest[:]); err != nil {
		t.Errorf("it signs with the key of the certificate, whatever the newest is: %v", err)
	}
	if len(asked) != 1 || !strings.HasPrefix(asked[0].Header.Get("Authorization"), "Bearer ey") || asked[0].URL.Query().Get("api-version") == "" {
		t.Errorf("asked %v", asked)
	}
	must(v.OpenSigner(ctx, "app/0123456789abcdef"))(t)
	if got := asked[1].URL.Path; got != "/certificates/app/0123456789abcdef" {
		t.Errorf("asked for %s", got)
	}
	_, err := v.OpenSigner(ctx, "other")
	wantError(t, err, mandate.ErrNotFound, "certificate other", "r-1")

	for name, fake := range map[string]struct {
		kid string
		der []byte
	}{
		"the key is elsewhere":    {"https://evil.test/keys/app/0123", certificate(t, pub)},
		"another key":             {strings.Replace(kid, "/app/", "/other/", 1), certificate(t, pub)},
		"no certificate, but 'x'": {kid, []byte("x")},
	} {
		fakeCertificates(t, w, fake.kid, fake.der, &asked)
		if _, err := w.open().OpenSigner(ctx, "app"); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
