// Package seed is the emulator's source of chance: one generator, so that two
// runs with the same seed and the same requests make the same choices.
//
// It is not for keys. What must not be guessed by somebody else on the same
// machine (keys, the certificate authority) comes from crypto/rand.
package seed

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"sync"
)

// A Source yields ids and choices. It is safe for concurrent use.
type Source struct {
	// mu guards chacha, which is not safe for concurrent use by itself.
	mu     sync.Mutex
	chacha *rand.ChaCha8
}

// New returns a source that is determined by n.
func New(n uint64) *Source {
	s := &Source{}
	s.Reset(n)
	return s
}

// Reset starts the source again from n.
func (s *Source) Reset(n uint64) {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], n)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.chacha = rand.NewChaCha8(key)
}

func (s *Source) bytes(n int) []byte {
	b := make([]byte, n)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.chacha.Read(b) // never fails
	return b
}

// Text returns n bytes in unpadded base64url.
func (s *Source) Text(n int) string { return base64.RawURLEncoding.EncodeToString(s.bytes(n)) }

// GUID returns a random (version 4) GUID in lower case.
func (s *Source) GUID() string {
	b := s.bytes(16)
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	h := hex.EncodeToString(b)
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// Intn returns a number from 0 to n-1.
func (s *Source) Intn(n int) int {
	return int(binary.LittleEndian.Uint64(s.bytes(8)) % uint64(n))
}
