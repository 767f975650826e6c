package database

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
)

// Seal returns a MAC, by the key of [DB.Guard], over something that is too long
// to be guarded, which means to be read by every replica in every epoch: its
// hash, with all that says what it is. Whoever reads that again compares. It is
// nil while the database is not guarded.
//
// What was sealed once stays so: that an older one was put back must be told by
// something that is guarded.
func (d *DB) Seal(what string, parts ...string) []byte {
	g := d.guard.Load()
	if g == nil {
		return nil
	}
	h := hmac.New(sha256.New, g.key)
	h.Write([]byte("sealed 1\x00"))
	for _, p := range append([]string{what, g.name}, parts...) {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(p))))
		h.Write([]byte(p))
	}
	return h.Sum(nil)
}
