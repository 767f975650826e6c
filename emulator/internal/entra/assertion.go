package entra

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/mandate-sam/mandate/emulator/directory"
)

// assertion is a client assertion ("Microsoft identity platform certificate
// credentials"), parsed and not yet believed.
type assertion struct {
	alg      string
	sha1     []byte // x5t
	sha256   []byte // x5t#S256
	issuer   string
	subject  string
	audience []string
	id       string
	expiry   time.Time
	notYet   time.Time // nbf; zero if absent

	signed    string // what the signature is over, as sent
	signature []byte
}

const (
	assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
	skew          = 5 * time.Minute
	maxAssertion  = 32 << 10
)

var errMalformed = errors.New("malformed assertion")

// decode64 decodes base64 of every flavour that clients put in an assertion:
// of the URL or the standard alphabet, with padding or without.
func decode64(s string) ([]byte, error) {
	s = strings.TrimRight(strings.NewReplacer("+", "-", "/", "_").Replace(s), "=")
	return base64.RawURLEncoding.DecodeString(s)
}

// parseAssertion takes an assertion apart. Numbers may be floats.
func parseAssertion(raw string) (assertion, error) {
	parts := strings.Split(raw, ".")
	if len(parts) != 3 || len(raw) > maxAssertion {
		return assertion{}, errMalformed
	}
	var header struct {
		Alg    string `json:"alg"`
		SHA1   string `json:"x5t"`
		SHA256 string `json:"x5t#S256"`
	}
	var claims struct {
		Issuer   string          `json:"iss"`
		Subject  string          `json:"sub"`
		Audience json.RawMessage `json:"aud"`
		ID       string          `json:"jti"`
		Expiry   *float64        `json:"exp"`
		NotYet   *float64        `json:"nbf"`
	}
	sig, err := decode64(parts[2])
	if err = errors.Join(err, decodeJSON(parts[0], &header), decodeJSON(parts[1], &claims)); err != nil {
		return assertion{}, errMalformed
	}
	a := assertion{alg: header.Alg, issuer: claims.Issuer, subject: claims.Subject, id: claims.ID, signed: parts[0] + "." + parts[1], signature: sig}
	a.audience, err = parseAudience(claims.Audience)
	if err != nil || claims.Expiry == nil {
		return assertion{}, errMalformed
	}
	a.sha1, err = decode64(header.SHA1)
	a.sha256, _ = decode64(header.SHA256)
	if err != nil || len(a.sha1)+len(a.sha256) == 0 {
		return assertion{}, errMalformed
	}
	a.expiry = seconds(*claims.Expiry)
	if claims.NotYet != nil {
		a.notYet = seconds(*claims.NotYet)
	}
	return a, nil
}

func decodeJSON(segment string, v any) error {
	b, err := decode64(segment)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}

// parseAudience reads a string, or a list of them.
func parseAudience(raw json.RawMessage) ([]string, error) {
	var one string
	if json.Unmarshal(raw, &one) == nil && one != "" {
		return []string{one}, nil
	}
	var many []string
	if json.Unmarshal(raw, &many) != nil || len(many) == 0 {
		return nil, errMalformed
	}
	return many, nil
}

// seconds is a time that many seconds after the epoch, kept within reason.
func seconds(f float64) time.Time {
	return time.Unix(int64(max(-1e11, min(1e11, f))), 0)
}

// checkAssertion accepts the assertion as the application's, presented at the
// tenant's token endpoint, or says why not.
func (s *Server) checkAssertion(raw string, app directory.Application, tenant string, now time.Time) *refusal {
	if foreign, ok := parseForeign(raw); ok && !strings.EqualFold(foreign.issuer, app.ID) {
		return foreign.check(app, now)
	}
	a, err := parseAssertion(raw)
	if err != nil {
		return refuse(50027, "The client assertion cannot be read.")
	}
	if a.id == "" {
		return refuse(50027, "The client assertion has no jti.")
	}
	if !strings.EqualFold(a.issuer, app.ID) || !strings.EqualFold(a.subject, app.ID) {
		return refuse(700021)
	}
	if e := a.verify(app, now); e != nil {
		return e
	}
	if !slices.ContainsFunc(a.audience, func(aud string) bool { return s.isTokenEndpoint(aud, tenant) }) {
		return refuse(50048)
	}
	if now.After(a.expiry.Add(skew)) || now.Before(a.notYet.Add(-skew)) {
		return refuse(700024, now.UTC().Format(time.RFC3339), a.notYet.UTC().Format(time.RFC3339), a.expiry.UTC().Format(time.RFC3339))
	}
	return nil
}

// verify checks the signature with the certificate that the header names.
func (a assertion) verify(app directory.Application, now time.Time) *refusal {
	for _, der := range app.Certificates {
		if !a.names(der) {
			continue
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			continue
		}
		if now.After(c.NotAfter) {
			return refuse(700027, "The key used is expired.")
		}
		if key, ok := c.PublicKey.(*rsa.PublicKey); ok && a.signedBy(key) {
			return nil
		}
		return refuse(700027, "The key was found, but the signature is not valid.")
	}
	return refuse(700027, "The key was not found.")
}

func (a assertion) names(der []byte) bool {
	s1, s256 := sha1.Sum(der), sha256.Sum256(der)
	return subtle.ConstantTimeCompare(a.sha256, s256[:]) == 1 ||
		len(a.sha256) == 0 && subtle.ConstantTimeCompare(a.sha1, s1[:]) == 1
}

func (a assertion) signedBy(key *rsa.PublicKey) bool {
	sum := sha256.Sum256([]byte(a.signed))
	switch a.alg {
	case "RS256":
		return rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], a.signature) == nil
	case "PS256":
		return rsa.VerifyPSS(key, crypto.SHA256, sum[:], a.signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
	}
	return false
}

// cloudHosts are the names of the public cloud's login host. Clients that
// write the audience by hand write these.
var cloudHosts = []string{"login.microsoftonline.com", "login.windows.net", "login.microsoft.com", "sts.windows.net"}

// isTokenEndpoint reports whether the URL is the token endpoint, of either
// version, at which an assertion for the tenant may be presented. The tenant
// is an id, or "" for common.
func (s *Server) isTokenEndpoint(aud, tenant string) bool {
	u, err := url.Parse(aud)
	if err != nil || !s.isOurHost(u) && !slices.Contains(cloudHosts, strings.ToLower(u.Host)) {
		return false
	}
	name, rest, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	if rest != "oauth2/token" && rest != "oauth2/v2.0/token" {
		return false
	}
	if shared(name) {
		return true
	}
	t, ok := s.cfg.Directory.Tenant(name)
	return ok && (tenant == "" || t.ID == tenant)
}
