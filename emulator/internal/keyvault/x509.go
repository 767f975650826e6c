package keyvault

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"time"

	"software.sslmate.com/src/go-pkcs12"
)

// Content types of a certificate's secret.
const (
	typePFX = "application/x-pkcs12"
	typePEM = "application/x-pem-file"
)

// A leaf is a certificate with its key and those that vouch for it.
type leaf struct {
	certificate *x509.Certificate
	chain       []*x509.Certificate
	key         *material
}

var errCertificate = badParameter("The specified certificate content is not valid: it must be a PFX file in base64, or PEM with a key in PKCS#8 and the certificate.")

// parseCertificate reads a certificate with its key.
func parseCertificate(value, password string) (l leaf, contentType string, err error) {
	var private any
	if text, err := base64.StdEncoding.DecodeString(value); err == nil && bytes.Contains(text, []byte("-----BEGIN")) {
		value = string(text) // some clients encode PEM as they do PFX
	}
	if strings.Contains(value, "-----BEGIN") {
		contentType = typePEM
		private, err = l.readPEM([]byte(value))
	} else {
		contentType = typePFX
		private, err = l.readPFX(value, password)
	}
	if err != nil || l.certificate == nil {
		return leaf{}, "", errCertificate
	}
	l.key = &material{}
	l.key.rsa, _ = private.(*rsa.PrivateKey)
	l.key.ec, _ = private.(*ecdsa.PrivateKey)
	public, known := l.certificate.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	signer := l.key.signer()
	if signer == nil || !known || !public.Equal(signer.Public()) {
		return leaf{}, "", badParameter("The private key does not belong to the certificate, or is of a kind that is not supported.")
	}
	if l.key.rsa != nil && l.key.rsa.N.BitLen() < 2048 || l.key.ec != nil && l.key.ec.Curve.Params().BitSize < 256 {
		return leaf{}, "", badParameter("The private key is too small.")
	}
	return l, contentType, nil
}

// signer is the key in the standard library's terms, nil if it cannot sign.
func (m *material) signer() crypto.Signer {
	switch {
	case m.rsa != nil:
		return m.rsa
	case m.ec != nil:
		return m.ec
	}
	return nil
}

func (l *leaf) readPEM(text []byte) (private any, err error) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		switch block.Type {
		case "PRIVATE KEY":
			private, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "CERTIFICATE":
			var crt *x509.Certificate
			if crt, err = x509.ParseCertificate(block.Bytes); l.certificate == nil {
				l.certificate = crt
			} else {
				l.chain = append(l.chain, crt)
			}
		default:
			err = errCertificate
		}
		if err != nil {
			return nil, err
		}
	}
	return private, nil
}

func (l *leaf) readPFX(value, password string) (private any, err error) {
	b, err := base64.StdEncoding.DecodeString(value)
	if err != nil {
		return nil, err
	}
	private, l.certificate, l.chain, err = pkcs12.DecodeChain(b, password)
	return private, err
}

// secret is the value of the certificate's secret: all of it, without a
// password.
func (l leaf) secret(contentType string) (string, error) {
	if contentType == typePFX {
		b, err := pkcs12.LegacyDES.Encode(l.key.signer(), l.certificate, l.chain, "")
		if err != nil {
			return "", fmt.Errorf("encode certificate: %w", err)
		}
		return base64.StdEncoding.EncodeToString(b), nil
	}
	private, err := x509.MarshalPKCS8PrivateKey(l.key.signer())
	if err != nil {
		return "", fmt.Errorf("encode certificate: %w", err)
	}
	var b bytes.Buffer
	pem.Encode(&b, &pem.Block{Type: "PRIVATE KEY", Bytes: private}) // a buffer takes everything
	for _, crt := range append([]*x509.Certificate{l.certificate}, l.chain...) {
		pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: crt.Raw})
	}
	return b.String(), nil
}

// parseSubject reads a distinguished name, as far as policies use it.
func parseSubject(text string) (name pkix.Name, err error) {
	for _, part := range strings.Split(text, ",") {
		k, v, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch {
		case v == "":
			return name, badParameter("Property subject has invalid value.")
		case strings.EqualFold(k, "CN"):
			name.CommonName = v
		case strings.EqualFold(k, "O"):
			name.Organization = append(name.Organization, v)
		case strings.EqualFold(k, "OU"):
			name.OrganizationalUnit = append(name.OrganizationalUnit, v)
		case strings.EqualFold(k, "C"):
			name.Country = append(name.Country, v)
		case strings.EqualFold(k, "L"):
			name.Locality = append(name.Locality, v)
		case strings.EqualFold(k, "ST"), strings.EqualFold(k, "S"):
			name.Province = append(name.Province, v)
		default:
			return name, badParameter("Property subject has invalid value.")
		}
	}
	return name, nil
}

// sign makes a certificate that the key itself signs.
func sign(m *material, subject pkix.Name, from, to time.Time) (leaf, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return leaf{}, fmt.Errorf("make certificate: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: subject, NotBefore: from, NotAfter: to, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, m.signer().Public(), m.signer())
	if err != nil {
		return leaf{}, badParameter("Property subject has invalid value.")
	}
	crt, err := x509.ParseCertificate(der)
	if err != nil {
		return leaf{}, fmt.Errorf("make certificate: %w", err)
	}
	return leaf{certificate: crt, key: m}, nil
}

// requestFor is the signing request for a certificate that was made here.
func requestFor(m *material, der []byte) ([]byte, error) {
	crt, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("make signing request: %w", err)
	}
	b, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: crt.Subject}, m.signer())
	if err != nil {
		return nil, fmt.Errorf("make signing request: %w", err)
	}
	return b, nil
}
