package entra

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/mandate-sam/mandate"
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
	switch {
	case f.der == nil:
		return nil, mandate.Invalid("certificate", "no certificate in %s", strings.Join(paths, ", "))
	case f.key == nil:
		return nil, mandate.Invalid("certificate", "no private key in %s", strings.Join(paths, ", "))
	}
	c, err := NewCertificate(&f)
	if err != nil {
		return nil, fmt.Errorf("load certificate from %s: %w", strings.Join(paths, ", "), err)
	}
	if !f.key.PublicKey.Equal(c.cert.PublicKey) {
		return nil, mandate.Invalid("certificate", "the private key does not belong to it")
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
	rsaKey, ok := key.(*rsa.PrivateKey)
	if !ok {
		return mandate.Invalid("certificate", "the private key is a %T; Entra takes RSA only", key)
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

// read returns what is in a regular file of at most max bytes, and its mode,
// both of the file that was opened and not of one that took its place.
func read(path string, max int64) ([]byte, os.FileMode, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, mandate.Invalid("file", "%s is not a regular file", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, max+1))
	if err == nil && int64(len(b)) > max {
		err = mandate.Invalid("file", "%s is longer than %d bytes", path, max)
	}
	return b, info.Mode(), err
}

// checkMode refuses a file that others may read or write.
func checkMode(path string, mode os.FileMode) error {
	if mode.Perm()&^0o600 != 0 {
		return mandate.Invalid("file", "%s has mode %#o; others must not read it: chmod 600 %s", path, mode.Perm(), path)
	}
	return nil
}
