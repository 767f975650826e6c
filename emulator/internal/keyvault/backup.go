package keyvault

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"fmt"
)

const maxBackup = 500 // versions

// A Seal closes backups, so that nobody takes them for a format: as with
// Azure's, only vaults of the same place can open them. The key is in memory
// and new at every start.
type Seal struct{ aead cipher.AEAD }

// NewSeal makes a seal.
func NewSeal() (*Seal, error) {
	key := make([]byte, 32)
	rand.Read(key) // never fails
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("make seal: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("make seal: %w", err)
	}
	return &Seal{aead}, nil
}

// close encodes what a backup of that kind holds, and closes it.
func (s *Seal) close(k kind, content any) (octets, error) {
	b, err := json.Marshal(content)
	if err != nil {
		return nil, fmt.Errorf("encode backup: %w", err)
	}
	return s.aead.Seal(nil, nil, b, []byte(k)), nil
}

// open reads a backup of that kind into what it held.
func (s *Seal) open(k kind, blob octets, into any) error {
	b, err := s.aead.Open(nil, nil, blob, []byte(k))
	if err != nil {
		return badParameter("Backup blob is corrupted, or is not that of a %s of this place.", k.word())
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("decode backup: %w", err)
	}
	return nil
}
