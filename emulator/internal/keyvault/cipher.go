package keyvault

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	_ "crypto/sha512" // linked in for SHA-384 and SHA-512
	"hash"
	"math/big"
	"strings"

	josecipher "github.com/go-jose/go-jose/v4/cipher"
)

// message is what an operation takes and gives: a value, and what belongs to
// it with symmetric keys.
type message struct {
	Value octets `json:"value"`
	IV    octets `json:"iv,omitempty"`
	AAD   octets `json:"aad,omitempty"`
	Tag   octets `json:"tag,omitempty"`
}

func badAlgorithm(m *material, alg string) error {
	return badParameter("Algorithm %q is not supported by this key of type %s.", alg, m.kty())
}

var errDecrypt = badParameter("The value could not be decrypted with this key and algorithm.")

// encrypt is for wrapping too, which differs only in who asks.
func (m *material) encrypt(alg string, in message) (message, error) {
	switch {
	case m.rsa != nil:
		return m.encryptRSA(alg, in)
	case m.oct != nil && strings.HasSuffix(alg, "KW"):
		return m.wrap(alg, in)
	case m.oct != nil && strings.HasSuffix(alg, "GCM"):
		return m.sealGCM(alg, in)
	case m.oct != nil && strings.Contains(alg, "CBC"):
		return m.encryptCBC(alg, in)
	}
	return message{}, badAlgorithm(m, alg)
}

func (m *material) decrypt(alg string, in message) (message, error) {
	switch {
	case m.rsa != nil:
		return m.decryptRSA(alg, in)
	case m.oct != nil && strings.HasSuffix(alg, "KW"):
		return m.unwrap(alg, in)
	case m.oct != nil && strings.HasSuffix(alg, "GCM"):
		return m.openGCM(alg, in)
	case m.oct != nil && strings.Contains(alg, "CBC"):
		return m.decryptCBC(alg, in)
	}
	return message{}, badAlgorithm(m, alg)
}

var oaep = map[string]func() hash.Hash{"RSA-OAEP": sha1.New, "RSA-OAEP-256": sha256.New}

func (m *material) encryptRSA(alg string, in message) (message, error) {
	var out []byte
	var err error
	if h, ok := oaep[alg]; ok {
		out, err = rsa.EncryptOAEP(h(), rand.Reader, &m.rsa.PublicKey, in.Value, nil)
	} else if alg == "RSA1_5" {
		//lint:ignore SA1019 an algorithm of the API, for what was encrypted long ago
		out, err = rsa.EncryptPKCS1v15(rand.Reader, &m.rsa.PublicKey, in.Value)
	} else {
		return message{}, badAlgorithm(m, alg)
	}
	if err != nil {
		return message{}, badParameter("The value is too long for this key and algorithm.")
	}
	return message{Value: out}, nil
}

func (m *material) decryptRSA(alg string, in message) (message, error) {
	var out []byte
	var err error
	if h, ok := oaep[alg]; ok {
		out, err = rsa.DecryptOAEP(h(), nil, m.rsa, in.Value, nil)
	} else if alg == "RSA1_5" {
		//lint:ignore SA1019 an algorithm of the API, for what was encrypted long ago
		out, err = rsa.DecryptPKCS1v15(nil, m.rsa, in.Value)
	} else {
		return message{}, badAlgorithm(m, alg)
	}
	if err != nil {
		return message{}, errDecrypt
	}
	return message{Value: out}, nil
}

var aesBits = map[string]int{"A128": 16, "A192": 24, "A256": 32}

// block is the AES that the algorithm names: prefix A128, A192 or A256, and
// one of the suffixes. The key may be longer than it needs, but not shorter.
func (m *material) block(alg string, suffixes ...string) (cipher.Block, error) {
	size, ok := aesBits[alg[:min(4, len(alg))]]
	if !ok || len(m.oct) < size || !contains(suffixes, alg[4:]) {
		return nil, badAlgorithm(m, alg)
	}
	return aes.NewCipher(m.oct[:size])
}

// wrap is AES key wrap (RFC 3394).
func (m *material) wrap(alg string, in message) (message, error) {
	b, err := m.block(alg, "KW")
	if err != nil {
		return message{}, err
	}
	if len(in.Value) < 16 || len(in.Value)%8 != 0 {
		return message{}, badParameter("The key to wrap must be 16 or more bytes long, in steps of 8.")
	}
	out, err := josecipher.KeyWrap(b, in.Value)
	return message{Value: out}, err
}

func (m *material) unwrap(alg string, in message) (message, error) {
	b, err := m.block(alg, "KW")
	if err != nil {
		return message{}, err
	}
	if len(in.Value) < 24 || len(in.Value)%8 != 0 {
		return message{}, errDecrypt
	}
	out, err := josecipher.KeyUnwrap(b, in.Value)
	if err != nil {
		return message{}, errDecrypt
	}
	return message{Value: out}, nil
}

// sealGCM makes the nonce itself, as Azure does: one that the caller chose
// could be one that was used before.
func (m *material) sealGCM(alg string, in message) (message, error) {
	b, err := m.block(alg, "GCM")
	if err != nil {
		return message{}, err
	}
	g, err := cipher.NewGCM(b)
	if err != nil {
		return message{}, err
	}
	iv := make([]byte, g.NonceSize())
	rand.Read(iv) // never fails
	sealed := g.Seal(nil, iv, in.Value, in.AAD)
	cut := len(sealed) - g.Overhead()
	return message{Value: sealed[:cut], IV: iv, AAD: in.AAD, Tag: sealed[cut:]}, nil
}

func (m *material) openGCM(alg string, in message) (message, error) {
	b, err := m.block(alg, "GCM")
	if err != nil {
		return message{}, err
	}
	g, err := cipher.NewGCM(b)
	if err != nil {
		return message{}, err
	}
	if len(in.IV) != g.NonceSize() || len(in.Tag) != g.Overhead() {
		return message{}, badParameter("The iv must have %d bytes and the tag %d.", g.NonceSize(), g.Overhead())
	}
	out, err := g.Open(nil, in.IV, append(bytes.Clone(in.Value), in.Tag...), in.AAD)
	if err != nil {
		return message{}, errDecrypt
	}
	return message{Value: out}, nil
}

// encryptCBC is AES-CBC: without padding, or with that of PKCS #7 (CBCPAD).
func (m *material) encryptCBC(alg string, in message) (message, error) {
	b, err := m.block(alg, "CBC", "CBCPAD")
	if err != nil {
		return message{}, err
	}
	value, iv := bytes.Clone(in.Value), in.IV
	if len(iv) == 0 {
		iv = make([]byte, aes.BlockSize)
		rand.Read(iv) // never fails
	}
	if strings.HasSuffix(alg, "PAD") {
		n := aes.BlockSize - len(value)%aes.BlockSize
		value = append(value, bytes.Repeat([]byte{byte(n)}, n)...)
	}
	if len(iv) != aes.BlockSize || len(value)%aes.BlockSize != 0 {
		return message{}, badParameter("The iv must have %d bytes, and a value without padding a multiple of that.", aes.BlockSize)
	}
	cipher.NewCBCEncrypter(b, iv).CryptBlocks(value, value)
	return message{Value: value, IV: iv}, nil
}

func (m *material) decryptCBC(alg string, in message) (message, error) {
	b, err := m.block(alg, "CBC", "CBCPAD")
	if err != nil {
		return message{}, err
	}
	value := bytes.Clone(in.Value)
	if len(in.IV) != aes.BlockSize || len(value)%aes.BlockSize != 0 {
		return message{}, badParameter("The iv must have %d bytes, and the value a multiple of that.", aes.BlockSize)
	}
	cipher.NewCBCDecrypter(b, in.IV).CryptBlocks(value, value)
	if !strings.HasSuffix(alg, "PAD") {
		return message{Value: value}, nil
	}
	if len(value) == 0 {
		return message{}, errDecrypt
	}
	n := int(value[len(value)-1])
	if n < 1 || n > aes.BlockSize || !bytes.HasSuffix(value, bytes.Repeat([]byte{byte(n)}, n)) {
		return message{}, errDecrypt
	}
	return message{Value: value[:len(value)-n]}, nil
}

var hashes = map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}

// curveOf says which curve a signature algorithm belongs to.
var curveOf = map[string]string{"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}

// signing checks that the key has the algorithm and the digest its length.
func (m *material) signing(alg string, digest []byte) (crypto.Hash, error) {
	h, ok := hashes[alg[min(2, len(alg)):]]
	switch {
	case !ok, m.oct != nil,
		m.rsa != nil && alg[:2] != "RS" && alg[:2] != "PS",
		m.ec != nil && curveOf[alg] != m.ec.Curve.Params().Name:
		return 0, badAlgorithm(m, alg)
	case len(digest) != h.Size():
		return 0, badParameter("Invalid length of the digest for %s: %d bytes, not %d.", alg, len(digest), h.Size())
	}
	return h, nil
}

var pss = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}

// sign signs a digest. Signatures of EC keys are r and s, one after the other.
func (m *material) sign(alg string, digest []byte) (octets, error) {
	h, err := m.signing(alg, digest)
	switch {
	case err != nil:
		return nil, err
	case m.ec != nil:
		r, s, err := ecdsa.Sign(rand.Reader, m.ec, digest)
		if err != nil {
			return nil, err
		}
		size := (m.ec.Curve.Params().BitSize + 7) / 8
		return append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...), nil
	case alg[:2] == "PS":
		return rsa.SignPSS(rand.Reader, m.rsa, h, digest, pss)
	}
	return rsa.SignPKCS1v15(nil, m.rsa, h, digest)
}

func (m *material) verify(alg string, digest, signature []byte) (bool, error) {
	h, err := m.signing(alg, digest)
	switch {
	case err != nil:
		return false, err
	case m.ec != nil:
		half := (m.ec.Curve.Params().BitSize + 7) / 8
		if len(signature) != 2*half {
			return false, nil
		}
		return ecdsa.Verify(&m.ec.PublicKey, digest, new(big.Int).SetBytes(signature[:half]), new(big.Int).SetBytes(signature[half:])), nil
	case alg[:2] == "PS":
		return rsa.VerifyPSS(&m.rsa.PublicKey, h, digest, signature, pss) == nil, nil
	}
	return rsa.VerifyPKCS1v15(&m.rsa.PublicKey, h, digest, signature) == nil, nil
}
