package entra

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/privatefile"
)

// maxPEM is the longest certificate or key file, in bytes.
const maxPEM = 64 << 10

// LoadSecret returns the client secret in a file: one line of at most 1 KiB,
// whose line end is left out. A file that anybody but its owner may read or
// write is refused.
func LoadSecret(path string) (*Secret, error) {
	b, err := readPrivate(path, maxSecret+2)
	if err != nil {
		return nil, fmt.Errorf("load client secret: %w", err)
	}
	s, err := NewSecret(mandate.NewSecret(strings.TrimRight(string(b), "\r\n")))
	if err != nil {
		return nil, fmt.Errorf("load client secret from %s: %w", path, err)
	}
	return s, nil
}

// LoadCertificate returns the credential in PEM files: a certificate and its
// unencrypted RSA key, in one file or in two. If there are several
// certificates, the first is used. Only the file with the key must be its
// owner's alone.
func LoadCertificate(paths ...string) (*Certificate, error) {
	var f fileSigner
	for _, path := range paths {
		if err := f.load(path); err != nil {
			return nil, fmt.Errorf("load certificate from %s: %w", path, err)
		}
	}
	return f.credential(strings.Join(paths, ", "))
}

// LoadPFX returns the credential in a PFX file (PKCS #12, as Windows and Key
// Vault export it), whose password is in another file: one line. Without that
// file the password is empty. Both must be their owner's alone.
func LoadPFX(path, passwordFile string) (*Certificate, error) {
	var f fileSigner
	if err := f.loadPFX(path, passwordFile); err != nil {
		return nil, fmt.Errorf("load certificate from %s: %w", path, err)
	}
	return f.credential(path)
}

// IsPFX reports whether a file looks like a PFX file and not like a PEM file.
func IsPFX(path string) bool {
	b, _, err := read(path, maxPEM)
	return err == nil && len(b) > 0 && b[0] == 0x30 // an ASN.1 sequence; no text begins so
}

// LoadPair returns the certificate and the key in PEM files or, if there is
// just one, in a PFX file: for an identity that is not the application's.
func LoadPair(passwordFile string, paths ...string) (*x509.Certificate, *rsa.PrivateKey, error) {
	var f fileSigner
	for _, path := range paths {
		load := f.load
		if IsPFX(path) {
			load = func(path string) error { return f.loadPFX(path, passwordFile) }
		}
		if err := load(path); err != nil {
			return nil, nil, fmt.Errorf("load certificate from %s: %w", path, err)
		}
	}
	c, err := f.credential(strings.Join(paths, ", "))
	if err != nil {
		return nil, nil, err
	}
	return c.cert, f.key, nil
}

// LoadCertificateDER returns the first certificate in a PEM file, for a key
// that is elsewhere.
func LoadCertificateDER(path string) ([]byte, error) {
	rest, _, err := read(path, maxPEM)
	if err != nil {
		return nil, fmt.Errorf("load certificate: %w", err)
	}
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, mandate.Invalid("certificate", "no certificate in %s", path)
		}
		if block.Type == "CERTIFICATE" {
			return block.Bytes, nil
		}
	}
}

// credential returns what was loaded, if it is all there and fits together.
func (f *fileSigner) credential(from string) (*Certificate, error) {
	switch {
	case f.der == nil:
		return nil, mandate.Invalid("certificate", "no certificate in %s: the operator adds the one that is registered with Entra", from)
	case f.key == nil:
		return nil, mandate.Invalid("certificate", "no private key in %s: the operator adds the certificate's, or names the file that has it", from)
	}
	c, err := NewCertificate(f)
	if err != nil {
		return nil, fmt.Errorf("load certificate from %s: %w", from, err)
	}
	if !f.key.PublicKey.Equal(c.cert.PublicKey) {
		return nil, mandate.Invalid("certificate", "the private key does not belong to the certificate in %s: the operator names the key that it was made for", from)
	}
	return c, nil
}

// A fileSigner signs with a key in memory.
type fileSigner struct {
	der []byte
	key *rsa.PrivateKey
}

// CertificateDER implements [Signer].
func (f *fileSigner) CertificateDER() []byte { return f.der }

// Sign implements [Signer].
func (f *fileSigner) Sign(_ context.Context, digest []byte) ([]byte, error) {
	return rsa.SignPSS(rand.Reader, f.key, crypto.SHA256, digest, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256})
}

// SignPKCS1 implements [PKCS1Signer].
func (f *fileSigner) SignPKCS1(_ context.Context, digest []byte) ([]byte, error) {
	return rsa.SignPKCS1v15(rand.Reader, f.key, crypto.SHA256, digest)
}

// load takes the certificate and the key that a file has.
func (f *fileSigner) load(path string) error {
	rest, mode, err := read(path, maxPEM)
	if err != nil {
		return err
	}
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil
		}
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			if err := checkMode(path, mode); err != nil {
				return err
			}
		}
		if err := f.take(block); err != nil {
			return err
		}
	}
}

// take keeps the first certificate and the only key.
func (f *fileSigner) take(block *pem.Block) error {
	switch block.Type {
	case "CERTIFICATE":
		if f.der == nil {
			f.der = block.Bytes
		}
		return nil
	case "PRIVATE KEY", "RSA PRIVATE KEY":
		return f.takeKey(block)
	case "ENCRYPTED PRIVATE KEY", "EC PRIVATE KEY":
		return mandate.Invalid("certificate", "a block of type %s cannot be used; an unencrypted RSA key is needed", block.Type)
	default:
		return nil
	}
}

func (f *fileSigner) takeKey(block *pem.Block) error {
	if f.key != nil {
		return mandate.Invalid("certificate", "there is more than one private key")
	}
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		f.key = key
		return nil
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return mandate.Invalid("certificate", "the private key is not readable; is it encrypted?")
	}
	return f.setKey(key)
}

func (f *fileSigner) setKey(key any) error {
	rsaKey, ok := key.(*rsa.PrivateKey)
	if !ok {
		return mandate.Invalid("certificate", "the private key is a %T; Entra takes RSA only: the operator registers a certificate with an RSA key", key)
	}
	f.key = rsaKey
	return nil
}

// readPrivate reads a file that only its owner may read and write.
func readPrivate(path string, max int64) ([]byte, error) {
	b, mode, err := read(path, max)
	if err != nil {
		return nil, err
	}
	return b, checkMode(path, mode)
}

// read returns what is in a regular file of at most max bytes, and its mode.
func read(path string, max int64) ([]byte, fs.FileMode, error) {
	b, mode, err := privatefile.Read(path, max)
	return b, mode, fileError(err)
}

// checkMode refuses a file that others may read or write.
func checkMode(path string, mode fs.FileMode) error {
	return fileError(privatefile.Private(path, mode))
}

// fileError says of what is wrong with a file that waiting does not mend it,
// and leaves alone what the system says of it.
func fileError(err error) error {
	if err == nil || errors.As(err, new(*fs.PathError)) {
		return err
	}
	return mandate.Invalid("file", "%v", err)
}
