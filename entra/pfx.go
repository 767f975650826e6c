package entra

import (
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	"software.sslmate.com/src/go-pkcs12"

	"github.com/mandate-sam/mandate"
)

// maxPassword is the longest password of a PFX file, in bytes.
const maxPassword = 1 << 10

// loadPFX takes the key in a PFX file and the certificate that it belongs to.
func (f *fileSigner) loadPFX(path, passwordFile string) error {
	data, err := readPrivate(path, maxPEM)
	if err != nil {
		return err
	}
	password := ""
	if passwordFile != "" {
		b, err := readPrivate(passwordFile, maxPassword+2)
		if err != nil {
			return fmt.Errorf("password: %w", err)
		}
		password = strings.TrimRight(string(b), "\r\n")
	}
	key, cert, others, err := pkcs12.DecodeChain(data, password)
	if err != nil {
		return pfxError(err, passwordFile)
	}
	if err := f.setKey(key); err != nil {
		return err
	}
	f.der = matching(f.key, append([]*x509.Certificate{cert}, others...)).Raw
	return nil
}

// pfxError says whose move it is. The library's words have nothing of the
// file's content.
func pfxError(err error, passwordFile string) error {
	wrong := errors.Is(err, pkcs12.ErrIncorrectPassword) || errors.Is(err, pkcs12.ErrDecryption)
	switch {
	case wrong && passwordFile == "":
		return mandate.Invalid("certificate", "the PFX file has a password: the operator puts it into a file and names that as password_file")
	case wrong:
		return mandate.Invalid("certificate", "the password in %s is not the PFX file's: the operator corrects it, on one line", passwordFile)
	case strings.Contains(err.Error(), "private key missing"):
		return mandate.Invalid("certificate", "the PFX file has no private key: the operator exports it again, with its key")
	case strings.Contains(err.Error(), "certificate missing"):
		return mandate.Invalid("certificate", "the PFX file has no certificate: the operator exports it again, with its certificate")
	}
	return mandate.Invalid("certificate", "the PFX file is not readable: %v; openssl can make it anew, or a PEM file of it", err)
}

// matching returns the certificate that the key belongs to; in doubt the
// first. A PFX file may have its chain in any order.
func matching(key *rsa.PrivateKey, all []*x509.Certificate) *x509.Certificate {
	for _, c := range all {
		if key.PublicKey.Equal(c.PublicKey) {
			return c
		}
	}
	return all[0]
}
