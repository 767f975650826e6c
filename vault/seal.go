package vault

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mandate-sam/mandate"
)

// A KeyWrapper encrypts data keys with a key-encryption key that it does not
// give out: a key file, Key Vault, OpenBao. What is wrapped has 64 bytes.
type KeyWrapper interface {
	// Wrap encrypts plain with the current key and returns that key's ID,
	// which is stored beside the result. Neither returned value may depend on
	// plain after Wrap has returned: plain is cleared.
	Wrap(ctx context.Context, plain []byte) (keyID string, wrapped []byte, err error)

	// Unwrap reverses Wrap with the key of that ID, current or not. The
	// result is the caller's to clear.
	Unwrap(ctx context.Context, keyID string, wrapped []byte) ([]byte, error)
}

// The kinds of what is sealed. None can stand in for another.
const (
	kindRefresh = "refresh-token"
	kindAccess  = "access-token"
)

// format is the version of everything below: of the additional data, and of
// the blob. Another way of sealing needs another number. Format 1, in which
// there were only refresh tokens, is still opened.
const format = 2

// maxWrapped bounds a wrapped data key; RSA-4096 makes 512 bytes.
const maxWrapped = 4096

// A label is all that a sealed value is bound to. Moved to any other place in
// the database, or replayed there after the row has moved on, it does not
// open.
type label struct {
	key        mandate.GrantKey
	kind       string
	generation int64
	version    int64 // of the row; 0 of an access token

	// Of an access token only.
	tenant   mandate.TenantID
	audience mandate.Audience
	scopes   []mandate.Scope // as asked; what was granted is in the sealed value
	claims   string
	epoch    int64
	expires  int64 // Unix milliseconds of the database's clock
}

// data returns the additional data of a format: every field with its length in
// front, so that no two labels have the same.
func (l label) data(format byte) []byte {
	fields := [][]byte{
		[]byte("mandate sealed value"), number(int64(format)),
		[]byte(l.key.Cloud), []byte(l.key.Application.String()), []byte(l.kind), []byte(l.key.Partner.String()),
		number(l.generation), number(l.version),
	}
	if l.kind != kindRefresh {
		claims := sha256.Sum256([]byte(l.claims))
		fields = append(fields, []byte(l.tenant.String()), []byte(l.audience), lengthPrefixed(texts(l.scopes)...),
			claims[:], number(l.epoch), number(l.expires))
	}
	return lengthPrefixed(fields...)
}

func lengthPrefixed(fields ...[]byte) []byte {
	var b []byte
	for _, field := range fields {
		b = binary.BigEndian.AppendUint32(b, uint32(len(field)))
		b = append(b, field...)
	}
	return b
}

func texts(all []string) [][]byte {
	var out [][]byte
	for _, s := range all {
		out = append(out, []byte(s))
	}
	return out
}

func number(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }

// A sealed value is a secret encrypted with a data key of its own, and that
// key, wrapped.
type sealed struct {
	format  byte   // in which it is sealed
	keyID   string // of the key-encryption key; stored beside the blob
	wrapped []byte // data key ‖ SHA-256(additional data), wrapped
	box     []byte // nonce ‖ AES-256-GCM of the secret
}

// seal encrypts secret for l under a fresh data key.
//
// The hash is wrapped together with the data key because RSA wrapping has no
// additional data: a wrapped key does not fit another label even for a
// keyholder who sees nothing but wrapped keys.
func seal(ctx context.Context, w KeyWrapper, l label, secret mandate.Secret) (sealed, error) {
	return sealWith(ctx, w, format, l.data(format), secret)
}

// sealWith is seal in a format, with additional data.
func sealWith(ctx context.Context, w KeyWrapper, format byte, additional []byte, secret mandate.Secret) (sealed, error) {
	sum := sha256.Sum256(additional)
	plain := make([]byte, dataKeySize, wrappedSize)
	rand.Read(plain)
	plain = append(plain, sum[:]...)
	defer clear(plain)
	aead, err := newGCM(plain[:dataKeySize])
	if err != nil {
		return sealed{}, err
	}
	box := aead.Seal(nil, nil, []byte(secret.Reveal()), additional)
	keyID, wrapped, err := wrapKey(ctx, w, plain)
	return sealed{format, keyID, wrapped, box}, err
}

const (
	dataKeySize = 32
	wrappedSize = dataKeySize + sha256.Size // of what is wrapped
)

// wrapKey wraps a data key, and looks at the result.
func wrapKey(ctx context.Context, w KeyWrapper, plain []byte) (keyID string, wrapped []byte, err error) {
	keyID, wrapped, err = w.Wrap(ctx, plain)
	if err != nil {
		return "", nil, fmt.Errorf("wrap data key: %w", err)
	}
	if keyID == "" || len(wrapped) == 0 || len(wrapped) > maxWrapped {
		return "", nil, errors.New("wrap data key: the key wrapper returned no usable result")
	}
	return keyID, wrapped, nil
}

var errMoved = errors.New("the sealed value was moved, altered or replayed: it was not sealed for this row as it is now")

// open reverses seal, if s was sealed for exactly l.
func (s sealed) open(ctx context.Context, w KeyWrapper, l label) (mandate.Secret, error) {
	if s.format == 1 && l.kind != kindRefresh {
		return mandate.Secret{}, errMoved
	}
	plain, err := w.Unwrap(ctx, s.keyID, s.wrapped)
	if err != nil {
		return mandate.Secret{}, fmt.Errorf("unwrap data key: %w", err)
	}
	defer clear(plain)
	additional := l.data(s.format)
	sum := sha256.Sum256(additional)
	if len(plain) != wrappedSize || subtle.ConstantTimeCompare(plain[dataKeySize:], sum[:]) == 0 {
		return mandate.Secret{}, errMoved
	}
	aead, err := newGCM(plain[:dataKeySize])
	if err != nil {
		return mandate.Secret{}, err
	}
	secret, err := aead.Open(nil, nil, s.box, additional)
	if err != nil {
		return mandate.Secret{}, errMoved
	}
	defer clear(secret)
	return mandate.NewSecret(string(secret)), nil
}

// blob returns the stored form: format, length of the wrapped key, wrapped
// key, box.
func (s sealed) blob() []byte {
	b := make([]byte, 0, 3+len(s.wrapped)+len(s.box))
	b = append(b, s.format)
	b = binary.BigEndian.AppendUint16(b, uint16(len(s.wrapped)))
	b = append(b, s.wrapped...)
	return append(b, s.box...)
}

func parseSealed(keyID string, b []byte) (sealed, error) {
	if len(b) < 3 {
		return sealed{}, errors.New("the sealed value is cut short")
	}
	if b[0] != 1 && b[0] != format {
		return sealed{}, fmt.Errorf("the sealed value has format %d, which this version of the program does not know", b[0])
	}
	n := int(binary.BigEndian.Uint16(b[1:]))
	if n == 0 || n > maxWrapped || len(b) < 3+n {
		return sealed{}, errors.New("the sealed value is cut short")
	}
	return sealed{b[0], keyID, b[3 : 3+n], b[3+n:]}, nil
}

// newGCM returns AES-256-GCM which puts a random nonce in front of what it
// seals. A data key seals once, so nonces cannot meet.
func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}
