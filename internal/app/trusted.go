package app

import (
	"crypto/x509"
	"fmt"
	"os"

	"github.com/mandate-sam/mandate/internal/privatefile"
)

// maxTrusted is the longest file of certificate authorities that is read, in
// bytes; a system's own has a quarter of a megabyte.
const maxTrusted = 8 << 20

// addAuthorities adds the certificate authorities in a PEM file to a pool.
// Whoever could write that file would be believed by their word, so it is read
// only if others cannot.
func addAuthorities(to *x509.CertPool, file string) error {
	pem, mode, err := privatefile.Read(file, maxTrusted)
	if err == nil {
		err = privatefile.Unwritable(file, mode)
	}
	if err != nil {
		return err
	}
	if !to.AppendCertsFromPEM(pem) {
		return fmt.Errorf("%s has no certificate in PEM form", file)
	}
	return nil
}

// checkMode refuses a configuration that others can write: it says who may do
// what, and where everything is.
func checkMode(path string) error {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		return nil // for whoever reads it to say
	}
	return privatefile.Unwritable(path, info.Mode())
}
