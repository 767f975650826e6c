package graph

import (
	"bytes"
	"crypto/sha1"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/mandate-sam/mandate/emulator/directory"
)

// passwordBody is a secret that is asked for.
type passwordBody struct {
	DisplayName string     `json:"displayName"`
	Start       *time.Time `json:"startDateTime"`
	End         *time.Time `json:"endDateTime"`
}

// keyBody is a certificate as clients send it. One that is there already comes
// without its key.
type keyBody struct {
	KeyID       string  `json:"keyId"`
	Identifier  string  `json:"customKeyIdentifier"`
	DisplayName string  `json:"displayName"`
	Type        string  `json:"type"`
	Usage       string  `json:"usage"`
	Key         *string `json:"key"`
}

// usable is when the identity platform will know a credential made now, by the
// machine's clock, because the delay is waited for.
func (s *Server) usable() time.Time { return time.Now().Add(s.cfg.Dials.Dials().ReplicationDelay) }

// addPassword makes a secret. Its value is in this answer and in no other.
func (s *Server) addPassword(c call) (reply, error) {
	a, err := s.mine(c)
	if err != nil {
		return reply{}, err
	}
	var in struct {
		PasswordCredential passwordBody `json:"passwordCredential"`
	}
	if err := c.read(&in); err != nil {
		return reply{}, err
	}
	p := in.PasswordCredential
	cred := directory.Credential{ID: s.cfg.Chance.GUID(), Name: p.DisplayName, Start: s.cfg.Dials.Now(), Usable: s.usable()}
	if p.Start != nil {
		cred.Start = *p.Start
	}
	cred.End = cred.Start.AddDate(2, 0, 0)
	if p.End != nil {
		cred.End = *p.End
	}
	if !cred.End.After(cred.Start) || cred.End.Year() > 9999 {
		return reply{}, invalid("Key credential end date is invalid.")
	}
	if err := s.permitted(a, "passwordAddition", "passwordLifetime", cred.Start, cred.End); err != nil {
		return reply{}, err
	}
	if d := s.cfg.Dials.Dials().SecretLifetime; d > 0 && cred.End.Sub(cred.Start) > d {
		cred.End = cred.Start.Add(d)
	}
	value := s.cfg.Chance.Text(30)
	cred.Hint = value[:3]
	s.cfg.Directory.AddSecret(a.ID, value, cred)
	body := secretObject(cred, "")
	body["secretText"] = value
	body["@odata.context"] = context + "microsoft.graph.passwordCredential"
	return ok(body, nil)
}

func (s *Server) removePassword(c call) (reply, error) {
	a, err := s.mine(c)
	if err != nil {
		return reply{}, err
	}
	var in struct {
		KeyID string `json:"keyId"`
	}
	if err := c.read(&in); err != nil {
		return reply{}, err
	}
	if s.cfg.Directory.RemoveSecret(a.ID, strings.ToLower(in.KeyID)) != nil {
		return reply{}, invalid("No password credential found with keyId.")
	}
	return done, nil
}

// addKey adds a certificate to an application that has one already, to whose
// key the caller has access: the proof is signed with it.
func (s *Server) addKey(c call) (reply, error) {
	a, err := s.mine(c)
	if err != nil {
		return reply{}, err
	}
	var in struct {
		KeyCredential keyBody `json:"keyCredential"`
		Proof         string  `json:"proof"`
	}
	if err := c.read(&in); err != nil {
		return reply{}, err
	}
	if !s.proven(a, in.Proof) {
		return reply{}, errProof
	}
	der, err := in.KeyCredential.der()
	if err != nil {
		return reply{}, err
	}
	if slices.ContainsFunc(a.Certificates, func(old []byte) bool { return bytes.Equal(old, der) }) {
		return reply{}, invalid("The key credential exists already.")
	}
	if err := s.setKeys(a, append(slices.Clone(a.Certificates), der), map[string]string{string(der): in.KeyCredential.DisplayName}); err != nil {
		return reply{}, err
	}
	body := keyObject(s.cfg.Directory.Credential(a.ID, der), der)
	body["@odata.context"] = context + "microsoft.graph.keyCredential"
	return ok(body, nil)
}

func (s *Server) removeKey(c call) (reply, error) {
	a, err := s.mine(c)
	if err != nil {
		return reply{}, err
	}
	var in struct {
		KeyID string `json:"keyId"`
		Proof string `json:"proof"`
	}
	if err := c.read(&in); err != nil {
		return reply{}, err
	}
	if !s.proven(a, in.Proof) {
		return reply{}, errProof
	}
	rest := slices.DeleteFunc(slices.Clone(a.Certificates), func(der []byte) bool {
		return strings.EqualFold(s.cfg.Directory.Credential(a.ID, der).ID, in.KeyID)
	})
	if len(rest) == len(a.Certificates) {
		return reply{}, invalid("No credentials found to be removed.")
	}
	if err := s.setKeys(a, rest, nil); err != nil {
		return reply{}, err
	}
	return done, nil
}

// replaceKeys makes the list the application's certificates. One that comes
// without its key is found by its id or thumbprint. What is not in the list
// goes.
func (s *Server) replaceKeys(a directory.Application, list *[]keyBody) error {
	if list == nil {
		return nil
	}
	var ders [][]byte
	names := map[string]string{}
	for _, k := range *list {
		der, found := s.existing(a, k)
		if !found {
			var err error
			if der, err = k.der(); err != nil {
				return err
			}
		}
		names[string(der)] = k.DisplayName
		ders = append(ders, der)
	}
	return s.setKeys(a, ders, names)
}

func (s *Server) setKeys(a directory.Application, ders [][]byte, names map[string]string) error {
	for _, der := range ders {
		old := slices.ContainsFunc(a.Certificates, func(o []byte) bool { return bytes.Equal(o, der) })
		crt, err := x509.ParseCertificate(der)
		if old || err != nil {
			continue
		}
		if err := s.permitted(a, "", "asymmetricKeyLifetime", s.cfg.Dials.Now(), crt.NotAfter); err != nil {
			return err
		}
	}
	err := s.cfg.Directory.SetCertificates(a.ID, ders, func(der []byte) directory.Credential {
		cred := directory.Credential{ID: s.cfg.Chance.GUID(), Name: names[string(der)], Usable: s.usable()}
		if crt, err := x509.ParseCertificate(der); err == nil {
			cred.Start, cred.End = crt.NotBefore, crt.NotAfter
		}
		return cred
	})
	if err != nil {
		return invalid("Key credential has an invalid value for 'key'.")
	}
	return nil
}

// existing is the application's certificate that the entry stands for.
func (s *Server) existing(a directory.Application, k keyBody) ([]byte, bool) {
	if k.Key != nil && *k.Key != "" {
		return nil, false
	}
	for _, der := range a.Certificates {
		if k.KeyID != "" && strings.EqualFold(s.cfg.Directory.Credential(a.ID, der).ID, k.KeyID) || k.KeyID == "" && k.identifies(der) {
			return der, true
		}
	}
	return nil, false
}

// identifies reports whether the entry has the certificate's thumbprint,
// which clients write in base64 or in hex.
func (k keyBody) identifies(der []byte) bool {
	sum := sha1.Sum(der)
	return k.Identifier == base64.StdEncoding.EncodeToString(sum[:]) || strings.EqualFold(k.Identifier, hex.EncodeToString(sum[:]))
}

// der is the certificate in the entry.
func (k keyBody) der() ([]byte, error) {
	bad := invalid("Key credential has an invalid value for 'key'.")
	if k.Key == nil || !strings.EqualFold(k.Type, "AsymmetricX509Cert") || !strings.EqualFold(k.Usage, "Verify") {
		return nil, bad
	}
	der, err := base64.StdEncoding.DecodeString(*k.Key)
	if err != nil || len(der) == 0 {
		return nil, bad
	}
	return der, nil
}

const (
	proofAudience = "00000002-0000-0000-c000-000000000000"
	proofLifetime = 10 * time.Minute
	proofSkew     = 5 * time.Minute
)

// proven reports whether the proof is signed with a key that the application
// has, now, for this purpose.
func (s *Server) proven(a directory.Application, proof string) bool {
	t, err := jwt.ParseSigned(proof, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		return false
	}
	current, _ := s.cfg.Directory.Application(a.ID) // only credentials in force
	now := s.cfg.Dials.Now()
	for _, der := range current.Certificates {
		crt, err := x509.ParseCertificate(der)
		var c jwt.Claims
		if err != nil || now.After(crt.NotAfter) || t.Claims(crt.PublicKey, &c) != nil {
			continue
		}
		if c.NotBefore == nil || c.Expiry == nil || c.Expiry.Time().Sub(c.NotBefore.Time()) > proofLifetime {
			return false
		}
		return strings.EqualFold(c.Issuer, directory.ObjectID(a.ID)) && c.Audience.Contains(proofAudience) &&
			!now.Before(c.NotBefore.Time().Add(-proofSkew)) && now.Before(c.Expiry.Time().Add(proofSkew))
	}
	return false
}
