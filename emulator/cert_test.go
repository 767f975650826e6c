package emulator_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"math/big"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/mandate-sam/mandate/emulator"
)

// A certificate of the registration signs a client in, and its tokens say so.
func TestCertificate(t *testing.T) {
	e := start(t)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "client"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Register(emulator.Application{ID: emulator.ApplicationID, RedirectURIs: []string{redirect}, Certificates: [][]byte{der}}); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(der)
	opts := (&jose.SignerOptions{}).WithType("JWT").WithHeader("x5t#S256", base64.RawURLEncoding.EncodeToString(sum[:]))
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.PS256, Key: key}, opts)
	if err != nil {
		t.Fatal(err)
	}
	login := e.Endpoints().Login
	assertion, err := jwt.Signed(signer).Claims(jwt.Claims{
		Issuer: emulator.ApplicationID, Subject: emulator.ApplicationID, ID: "j", Audience: jwt.Audience{login + "/adatum.example/oauth2/v2.0/token"},
		Expiry: jwt.NewNumericDate(time.Now().Add(time.Minute)),
	}).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	form := []string{"client_secret", "", "client_assertion", assertion, "client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer", "scope", "https://graph.microsoft.com/.default"}
	a := token(t, e, 2, "adatum.example", "client_credentials", form...)
	if a.status != 200 {
		t.Fatal(a.raw)
	}
	c := claims(t, a.str("access_token"))
	if c["appidacr"] != "2" || c["idtyp"] != "app" || c["scp"] != nil || c["oid"] != c["sub"] {
		t.Errorf("got %v", c)
	}
	refused(t, token(t, e, 2, "litware.example", "client_credentials", form...), 401, 50048, "invalid_client", "")
	refused(t, token(t, e, 2, "adatum.example", "client_credentials", "scope", "https://graph.microsoft.com/.default"), 401, 7000215, "invalid_client", "")
}

// Runs with the same seed and the same requests make the same choices.
func TestSeed(t *testing.T) {
	var tokens []string
	for range 2 {
		tokens = append(tokens, consented(t, start(t), 2, "admin@contoso.example").str("refresh_token"))
	}
	if tokens[0] != tokens[1] {
		t.Error("two runs with one seed differ")
	}
}
