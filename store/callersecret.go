package store

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"hash/crc32"
	"math/big"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
)

// A callerKey is what is known of a secret.
type callerKey struct {
	hash    [sha256.Size]byte
	expires time.Time
}

// Authenticate returns the caller whose ID and secret these are. It does not
// wait for the database unless security state has just changed. The error
// wraps [mandate.ErrUnauthenticated], and says the same of an unknown caller
// as of a wrong secret.
func (s *Store) Authenticate(id, secret string) (mandate.CallerID, error) {
	snap, err := s.current()
	if err != nil {
		return "", err
	}
	keys := snap.keys[mandate.CallerID(id)]
	if len(keys) == 0 {
		keys = noKeys // as much work for an unknown caller
	}
	hash := sha256.Sum256(append(make([]byte, 0, secretSize), secret...))
	for _, k := range keys {
		if subtle.ConstantTimeCompare(hash[:], k.hash[:]) == 0 {
			continue
		}
		if !k.expires.IsZero() && !time.Now().Before(k.expires) {
			return "", fmt.Errorf("%w: the secret expired on %s", mandate.ErrUnauthenticated, k.expires.UTC().Format(time.DateOnly))
		}
		return mandate.CallerID(id), nil
	}
	if !wellFormed(secret) {
		return "", fmt.Errorf("%w: this is not a whole secret of ours; copy it again", mandate.ErrUnauthenticated)
	}
	return "", fmt.Errorf("%w: unknown caller or wrong secret", mandate.ErrUnauthenticated)
}

// noKeys matches nothing: nobody knows what hashes to zero.
var noKeys = []callerKey{{}}

// A secret is "mdt_", the key's ID, 256 random bits and a checksum of all that
// in base 62, without separators: a double click selects all of it, secret
// scanners know it by its beginning, and a typing error is told from a wrong
// secret.
const (
	secretPrefix = "mdt_"
	keyIDSize    = 8
	randomSize   = 43 // 256 bits in base 62
	checksumSize = 6  // 32 bits in base 62
	secretSize   = len(secretPrefix) + keyIDSize + randomSize + checksumSize
)

func newSecret() (keyID string, secret mandate.Secret) {
	keyID = rand.Text()[:keyIDSize]
	random := make([]byte, 32)
	rand.Read(random)
	body := secretPrefix + keyID + base62(new(big.Int).SetBytes(random), randomSize)
	return keyID, mandate.NewSecret(body + checksum(body))
}

func checksum(body string) string {
	var out [checksumSize]byte
	n := crc32.ChecksumIEEE([]byte(body))
	for i := len(out) - 1; i >= 0; i-- {
		out[i], n = digits[n%62], n/62
	}
	return string(out[:])
}

func wellFormed(secret string) bool {
	if len(secret) != secretSize || !strings.HasPrefix(secret, secretPrefix) {
		return false
	}
	body := secret[:secretSize-checksumSize]
	return checksum(body) == secret[secretSize-checksumSize:]
}

const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// base62 writes n with digits, capitals and small letters, zeros in front.
func base62(n *big.Int, width int) string {
	b, base, digit := make([]byte, width), big.NewInt(62), new(big.Int)
	n = new(big.Int).Set(n)
	for i := width - 1; i >= 0; i-- {
		n.DivMod(n, base, digit)
		b[i] = digits[digit.Int64()]
	}
	return string(b)
}
