// Package jsontext writes JSON by hand, for what is on the way of every token:
// encoding/json takes several times as long, and an allocation for each value.
package jsontext

import (
	"encoding/json"
	"unicode/utf8"
)

// AppendString appends s to b as encoding/json writes it. It copies what means
// itself, and leaves all else to encoding/json.
func AppendString(b []byte, s string) []byte {
	if !plain(s) {
		quoted, err := json.Marshal(s)
		if err != nil {
			panic(err) // a string always has a JSON form
		}
		return append(b, quoted...)
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// plain reports whether nothing of s is written in another way. It looks at
// eight bytes at once, and at all of them, because nearly every text is
// plain: the top bit of a byte of found is set if that byte of x has it
// set, or if a subtraction has wrapped, which it does below 0x20 and where what
// is looked for was made zero. A byte that borrows from its neighbour was
// found itself.
func plain(s string) bool {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	var found uint64
	for ; len(s) >= 8; s = s[8:] {
		x := uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 | uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
		angle := (x | 2*ones) ^ '>'*ones // '<' and '>'
		quote := (x | 4*ones) ^ '&'*ones // '"' and '&'
		slash := x ^ '\\'*ones
		found |= x | (x - ' '*ones) | (angle - ones) | (quote - ones) | (slash - ones)
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c < 0x20, c >= utf8.RuneSelf, c == '"', c == '\\', c == '<', c == '>', c == '&':
			return false
		}
	}
	return found&tops == 0
}
