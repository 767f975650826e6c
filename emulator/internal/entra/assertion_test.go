package entra

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/mandate-sam/mandate/emulator/directory"
	"github.com/mandate-sam/mandate/emulator/fault"
	"github.com/mandate-sam/mandate/emulator/internal/seed"
	"github.com/mandate-sam/mandate/emulator/internal/token"
)

const testURL = "https://localhost:9443"

// testServer returns a server with the fixture.
func testServer(t testing.TB) *Server {
	t.Helper()
	dials := &fault.Panel{}
	d := directory.New(dials.Now)
	if err := d.Load(); err != nil {
		t.Fatal(err)
	}
	key, err := token.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return New(Config{URL: testURL, Key: key, Directory: d, Dials: dials, Ledger: &token.Ledger{}, Chance: seed.New(1), Log: slog.New(slog.DiscardHandler)})
}

// signer is a client with a certificate.
type signer struct {
	key *rsa.PrivateKey
	der []byte
}

func newSigner(t testing.TB, expired bool) signer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	end := time.Now().Add(time.Hour)
	if expired {
		end = time.Now().Add(-time.Hour)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "client"}, NotBefore: end.Add(-24 * time.Hour), NotAfter: end}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return signer{key, der}
}

// encoding is how a client encodes bytes.
type encoding = *base64.Encoding

var (
	bare   = base64.RawURLEncoding
	padded = base64.URLEncoding
	std    = base64.StdEncoding
)

// recipe is how a client makes an assertion.
type recipe struct {
	alg      string
	sha256   bool     // x5t#S256 instead of x5t
	thumb    encoding // of the thumbprint
	segments encoding // of header and payload
	change   func(claims map[string]any)
}

func (s signer) make(t testing.TB, r recipe) string {
	t.Helper()
	header := map[string]any{"typ": "JWT", "alg": r.alg}
	s1, s256 := sha1.Sum(s.der), sha256.Sum256(s.der)
	if r.sha256 {
		header["x5t#S256"] = r.thumb.EncodeToString(s256[:])
	} else {
		header["x5t"] = r.thumb.EncodeToString(s1[:])
	}
	now := time.Now().Unix()
	claims := map[string]any{
		"iss": directory.ApplicationID, "sub": directory.ApplicationID, "jti": "j-1",
		"aud": testURL + "/" + directory.ContosoTenant + "/oauth2/v2.0/token",
		"nbf": now, "iat": now, "exp": now + 600,
	}
	if r.change != nil {
		r.change(claims)
	}
	signed := r.segments.EncodeToString(encode(t, header)) + "." + r.segments.EncodeToString(encode(t, claims))
	return signed + "." + base64.RawURLEncoding.EncodeToString(s.sign(t, r.alg, signed))
}

func encode(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (s signer) sign(t testing.TB, alg, signed string) []byte {
	t.Helper()
	sum := sha256.Sum256([]byte(signed))
	var opts crypto.SignerOpts = crypto.SHA256
	if strings.HasPrefix(alg, "PS") {
		opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
	}
	sig, err := s.key.Sign(rand.Reader, sum[:], opts)
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

// The flavours that client libraries send, and what is wrong with others.
func TestAssertions(t *testing.T) {
	s := testServer(t)
	client, stranger, old := newSigner(t, false), newSigner(t, false), newSigner(t, true)
	app, _ := s.cfg.Directory.Application(directory.ApplicationID)
	app.Certificates = [][]byte{old.der, client.der}
	put := func(name string, v any) func(map[string]any) {
		return func(c map[string]any) {
			if c[name] = v; v == nil {
				delete(c, name)
			}
		}
	}
	now := time.Now().Unix()
	for _, row := range []struct {
		name string
		with signer
		recipe
		code int
	}{
		{"as documented", client, recipe{"PS256", true, bare, bare, nil}, 0},
		{"standard base64 thumbprint", client, recipe{"PS256", true, std, bare, put("iat", nil)}, 0},
		{"SHA-1, unpadded", client, recipe{"RS256", false, bare, bare, nil}, 0},
		{"SHA-1, padded, floats", client, recipe{"RS256", false, padded, bare, put("exp", float64(now)+600.25)}, 0},
		{"SHA-256 with RS256", client, recipe{"RS256", true, std, bare, nil}, 0},
		{"v1 audience", client, recipe{"RS256", false, std, bare, put("aud", testURL+"/contoso.example/oauth2/token")}, 0},
		{"segments in standard base64", client, recipe{"PS256", true, bare, std, nil}, 0},
		{"segments padded", client, recipe{"PS256", true, padded, padded, nil}, 0},
		{"no nbf", client, recipe{"PS256", true, bare, bare, put("nbf", nil)}, 0},
		{"nbf a second ahead", client, recipe{"PS256", true, bare, bare, put("nbf", now+1)}, 0},
		{"just expired", client, recipe{"PS256", true, bare, bare, put("exp", now-60)}, 0},
		{"audience common", client, recipe{"PS256", true, bare, bare, put("aud", testURL+"/common/oauth2/v2.0/token")}, 0},
		{"audience without port", client, recipe{"PS256", true, bare, bare, put("aud", "https://localhost/contoso.example/oauth2/v2.0/token")}, 0},
		{"audience of the public cloud", client, recipe{"PS256", true, bare, bare, put("aud", "https://login.microsoftonline.com/"+directory.ContosoTenant+"/oauth2/v2.0/token")}, 0},
		{"audience in a list", client, recipe{"PS256", true, bare, bare, put("aud", []string{testURL + "/common/oauth2/token"})}, 0},

		{"another key", stranger, recipe{"PS256", true, bare, bare, nil}, 700027},
		{"expired certificate", old, recipe{"PS256", true, bare, bare, nil}, 700027},
		{"unknown algorithm", client, recipe{"PS512", true, bare, bare, nil}, 700027},
		{"no algorithm", client, recipe{"none", true, bare, bare, nil}, 700027},
		{"issuer", client, recipe{"PS256", true, bare, bare, put("iss", "x")}, 700021},
		{"subject", client, recipe{"PS256", true, bare, bare, put("sub", "x")}, 700021},
		{"no jti", client, recipe{"PS256", true, bare, bare, put("jti", nil)}, 50027},
		{"no exp", client, recipe{"PS256", true, bare, bare, put("exp", nil)}, 50027},
		{"no aud", client, recipe{"PS256", true, bare, bare, put("aud", nil)}, 50027},
		{"exp is text", client, recipe{"PS256", true, bare, bare, put("exp", "soon")}, 50027},
		{"expired", client, recipe{"PS256", true, bare, bare, put("exp", now-600)}, 700024},
		{"not yet", client, recipe{"PS256", true, bare, bare, put("nbf", now+600)}, 700024},
		{"absurd exp", client, recipe{"PS256", true, bare, bare, put("exp", -1e300)}, 700024},
		{"other tenant", client, recipe{"PS256", true, bare, bare, put("aud", testURL+"/fabrikam.example/oauth2/v2.0/token")}, 50048},
		{"other host", client, recipe{"PS256", true, bare, bare, put("aud", "https://evil.example/contoso.example/oauth2/token")}, 50048},
		{"other path", client, recipe{"PS256", true, bare, bare, put("aud", testURL+"/contoso.example/oauth2/authorize")}, 50048},
		{"the client itself", client, recipe{"PS256", true, bare, bare, put("aud", directory.ApplicationID)}, 50048},
	} {
		t.Run(row.name, func(t *testing.T) {
			got := 0
			if e := s.checkAssertion(row.with.make(t, row.recipe), app, directory.ContosoTenant, time.Now()); e != nil {
				got = e.code
			}
			if got != row.code {
				t.Errorf("got %d, want %d", got, row.code)
			}
		})
	}
}

// A signature for one thing is none for another.
func TestAssertionTampered(t *testing.T) {
	s := testServer(t)
	client := newSigner(t, false)
	app, _ := s.cfg.Directory.Application(directory.ApplicationID)
	app.Certificates = [][]byte{client.der}
	good := client.make(t, recipe{"PS256", true, bare, bare, nil})
	other := client.make(t, recipe{"PS256", true, bare, bare, func(c map[string]any) { c["jti"] = "j-2" }})
	mixed := good[:strings.LastIndex(good, ".")] + other[strings.LastIndex(other, "."):]
	if e := s.checkAssertion(mixed, app, directory.ContosoTenant, time.Now()); e == nil || e.code != 700027 {
		t.Errorf("got %v, want 700027", e)
	}
}

func FuzzAssertion(f *testing.F) {
	s := testServer(f)
	client := newSigner(f, false)
	app, _ := s.cfg.Directory.Application(directory.ApplicationID)
	app.Certificates = [][]byte{client.der}
	f.Add("a.b.c")
	f.Add("..")
	f.Add("e30.e30.")
	f.Add("eyJhbGciOiJub25lIn0.eyJhdWQiOltdfQ.")
	good := client.make(f, recipe{"RS256", false, bare, bare, nil})
	f.Add(good[:strings.LastIndex(good, ".")] + ".AAAA")
	f.Fuzz(func(t *testing.T, raw string) {
		if e := s.checkAssertion(raw, app, directory.ContosoTenant, time.Now()); e == nil && raw != good {
			t.Errorf("accepted %q", raw)
		}
	})
}
