package callers

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"

	"github.com/go-jose/go-jose/v4"

	"github.com/mandate-sam/mandate"
)

const (
	minKeyBits = 2048
	maxKeyBits = 8192
	maxKeyFile = 64 << 10 // bytes
)

// fits reports whether a public key is one that an algorithm of ours is for.
// The key decides the algorithm, and not the token.
func fits(public any, algorithm string) error {
	switch k := public.(type) {
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < minKeyBits || bits > maxKeyBits {
			return errors.New("an RSA key must have 2048 to 8192 bits")
		}
		if algorithm == "" || algorithm == string(jose.RS256) || algorithm == string(jose.PS256) {
			return nil
		}
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() && (algorithm == "" || algorithm == string(jose.ES256)) {
			return nil
		}
	case ed25519.PublicKey:
		if algorithm == "" || algorithm == string(jose.EdDSA) {
			return nil
		}
	}
	return errors.New("a key must be RSA, P-256 or Ed25519, and the algorithm RS256, PS256, ES256 or EdDSA to match")
}

// parseKey reads a JSON Web Key that is public and for signatures.
func parseKey(data []byte) (jose.JSONWebKey, error) {
	var k jose.JSONWebKey
	if err := k.UnmarshalJSON(data); err != nil || !k.Valid() {
		return k, errors.New("is not a JSON Web Key")
	}
	switch {
	case !k.IsPublic():
		return k, errors.New("is private, or a shared secret: whoever holds it must not give it away, so make another, and send its public half")
	case k.Use != "" && k.Use != "sig":
		return k, errors.New("is not for signatures")
	}
	return k, fits(k.Key, k.Algorithm)
}

// ParseKeys returns the public keys in data as credentials: a JSON Web Key, a
// set of them, or a PEM file with public keys or certificates. The error wraps
// [mandate.ErrInvalid], and repeats nothing of data.
func ParseKeys(data []byte) ([]mandate.CallerCredential, error) {
	if len(data) > maxKeyFile {
		return nil, mandate.Invalid("keys", "are more than %d bytes", maxKeyFile)
	}
	raw, err := splitKeys(data)
	if err != nil {
		return nil, err
	}
	if len(raw) == 0 || len(raw) > mandate.MaxCredentials {
		return nil, mandate.Invalid("keys", "must be from 1 to %d", mandate.MaxCredentials)
	}
	var out []mandate.CallerCredential
	for i, r := range raw {
		k, err := parseKey(r)
		if err != nil {
			return nil, mandate.Invalid("keys", "number %d %v", i+1, err)
		}
		text, err := jose.JSONWebKey{Key: k.Key, KeyID: k.KeyID, Use: "sig"}.MarshalJSON()
		if err != nil || len(k.KeyID) > 200 {
			return nil, mandate.Invalid("keys", "number %d cannot be stored", i+1)
		}
		out = append(out, mandate.CallerCredential{Kind: mandate.CredentialKey, Key: string(text)})
	}
	return out, nil
}

// splitKeys returns every key in data as a JSON Web Key.
func splitKeys(data []byte) ([]json.RawMessage, error) {
	if block, _ := pem.Decode(data); block != nil {
		return pemKeys(data)
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, mandate.Invalid("keys", "are neither JSON Web Keys nor PEM")
	}
	if set.Keys == nil {
		return []json.RawMessage{data}, nil
	}
	return set.Keys, nil
}

func pemKeys(data []byte) ([]json.RawMessage, error) {
	var out []json.RawMessage
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return out, nil
		}
		var public any
		var err error
		switch block.Type {
		case "PUBLIC KEY":
			public, err = x509.ParsePKIXPublicKey(block.Bytes)
		case "CERTIFICATE":
			var c *x509.Certificate
			if c, err = x509.ParseCertificate(block.Bytes); err == nil {
				public = c.PublicKey
			}
		default:
			return nil, mandate.Invalid("keys", "have a PEM block that is neither PUBLIC KEY nor CERTIFICATE; a private key belongs nowhere but with its caller")
		}
		if err != nil {
			return nil, mandate.Invalid("keys", "have a PEM block that cannot be read")
		}
		text, err := jose.JSONWebKey{Key: public}.MarshalJSON()
		if err != nil {
			return nil, mandate.Invalid("keys", "have one of a kind that cannot be used")
		}
		out = append(out, text)
	}
}
