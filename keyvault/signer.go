package keyvault

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"github.com/mandate-sam/mandate"
)

// A Signer signs with a key that never leaves the vault. It is what package
// entra wants of the private key of an application's certificate.
type Signer struct {
	vault        *Vault
	key, version string
	cert         *x509.Certificate
}

// NewSigner returns the signer for a key, whose certificate is elsewhere: der
// is the one that was registered with Entra. The key may be NAME or
// NAME/VERSION.
func (v *Vault) NewSigner(key string, der []byte) (*Signer, error) {
	name, version, err := splitName(key)
	if err != nil {
		return nil, err
	}
	return v.newSigner(name, version, der)
}

func (v *Vault) newSigner(key, version string, der []byte) (*Signer, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, mandate.Invalid("certificate", "is not readable: %v", err)
	}
	if _, ok := cert.PublicKey.(*rsa.PublicKey); !ok {
		return nil, mandate.Invalid("certificate", "has a key of type %v; Entra takes RSA only", cert.PublicKeyAlgorithm)
	}
	return &Signer{v, key, version, cert}, nil
}

// splitName splits NAME or NAME/VERSION.
func splitName(s string) (name, version string, err error) {
	name, version, named := strings.Cut(s, "/")
	err = CheckName(name)
	if err == nil && named {
		err = CheckName(version)
	}
	return name, version, err
}

// CheckObject reports whether s can be NAME or NAME/VERSION.
func CheckObject(s string) error {
	_, _, err := splitName(s)
	return err
}

// OpenSigner reads a certificate from the vault, NAME or NAME/VERSION, and
// returns the signer for its key. The key's version is the certificate's: a
// vault that renews the certificate by itself does not change what is signed
// with until this is called again, because Entra does not know the new one.
func (v *Vault) OpenSigner(ctx context.Context, certificate string) (*Signer, error) {
	name, version, err := splitName(certificate)
	if err != nil {
		return nil, err
	}
	o := operation{"read", "certificate " + name, "certificates get"}
	c, err := call(ctx, v, o, 1, func(ctx context.Context) (certificateBundle, error) { return v.certificate(ctx, name, version) })
	if err != nil {
		return nil, err
	}
	kid := azkeys.ID(c.KeyID)
	prefix := v.url + "/keys/" + name + "/"
	if !strings.HasPrefix(strings.ToLower(c.KeyID), strings.ToLower(prefix)) {
		return nil, mandate.Invalid("certificate", "%s in %s has no key in this vault", name, v)
	}
	// The API's examples have the ordinary alphabet, and its other fields that
	// of URLs.
	der, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(strings.NewReplacer("-", "+", "_", "/").Replace(c.DER), "="))
	if err != nil {
		return nil, mandate.Invalid("certificate", "%s in %s is not readable", name, v)
	}
	return v.newSigner(kid.Name(), kid.Version(), der)
}

// A certificateBundle is what the API says of a certificate ("Get
// Certificate"). The SDK's module for it would be for this one request.
type certificateBundle struct {
	KeyID string `json:"kid"`
	DER   string `json:"cer"`
}

// certificate gets a certificate. Unlike the SDK's clients it names the
// resource of the token itself and believes no challenge.
func (v *Vault) certificate(ctx context.Context, name, version string) (c certificateBundle, err error) {
	return c, v.askCertificates(ctx, http.MethodGet, name+"/"+version, nil, &c)
}

// askCertificates makes one request about certificates, whose answer goes to
// out.
func (v *Vault) askCertificates(ctx context.Context, method, path string, in, out any) error {
	client, err := azcore.NewClient("mandate/keyvault", "v1.0.0", runtime.PipelineOptions{
		PerRetry: []policy.Policy{runtime.NewBearerTokenPolicy(v.credential, []string{v.scope}, nil)},
	}, &v.options)
	if err != nil {
		return err
	}
	req, err := runtime.NewRequest(ctx, method, v.url+"/certificates/"+path+"?api-version=7.4")
	if err != nil {
		return err
	}
	if in != nil {
		if err := runtime.MarshalAsJSON(req, in); err != nil {
			return err
		}
	}
	resp, err := client.Pipeline().Do(req)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusAccepted {
		return runtime.NewResponseError(resp)
	}
	body, err := runtime.Payload(resp)
	if err != nil {
		return err
	}
	return json.Unmarshal(body, out)
}

// CertificateDER returns the certificate.
func (s *Signer) CertificateDER() []byte { return s.cert.Raw }

// Sign returns the PS256 signature of a SHA-256 digest. It is verified with
// the certificate before it is used: a key that was rotated in the vault
// without Entra's knowing makes signatures that nobody takes, and Entra's
// refusal would not say why.
func (s *Signer) Sign(ctx context.Context, digest []byte) ([]byte, error) {
	alg := azkeys.SignatureAlgorithmPS256
	o := operation{"sign with", "key " + s.key, "keys sign"}
	pub := s.cert.PublicKey.(*rsa.PublicKey)
	r, err := call(ctx, s.vault, o, cost(pub), func(ctx context.Context) (azkeys.SignResponse, error) {
		return s.vault.keys.Sign(ctx, s.key, s.version, azkeys.SignParameters{Algorithm: &alg, Value: digest}, nil)
	})
	if err != nil {
		return nil, err
	}
	opts := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
	if rsa.VerifyPSS(pub, crypto.SHA256, digest, r.Result, opts) != nil {
		return nil, mandate.Invalid("certificate", "does not belong to key %s in %s as it is now; the operator registers the key's new certificate with Entra, or names the version that the certificate was made for", s.key, s.vault)
	}
	return r.Result, nil
}

// SignPKCS1 returns the RS256 signature of a SHA-256 digest, verified as in
// [Signer.Sign].
func (s *Signer) SignPKCS1(ctx context.Context, digest []byte) ([]byte, error) {
	alg := azkeys.SignatureAlgorithmRS256
	o := operation{"sign with", "key " + s.key, "keys sign"}
	pub := s.cert.PublicKey.(*rsa.PublicKey)
	r, err := call(ctx, s.vault, o, cost(pub), func(ctx context.Context) (azkeys.SignResponse, error) {
		return s.vault.keys.Sign(ctx, s.key, s.version, azkeys.SignParameters{Algorithm: &alg, Value: digest}, nil)
	})
	if err != nil {
		return nil, err
	}
	if rsa.VerifyPKCS1v15(pub, crypto.SHA256, digest, r.Result) != nil {
		return nil, mandate.Invalid("certificate", "does not belong to key %s in %s as it is now", s.key, s.vault)
	}
	return r.Result, nil
}

// Version returns the version of the key that signs, which is that of its
// certificate too.
func (s *Signer) Version() string { return s.version }

func cost(k *rsa.PublicKey) int {
	switch {
	case k.Size() > 384:
		return 8
	case k.Size() > 256:
		return 4
	}
	return 1
}
