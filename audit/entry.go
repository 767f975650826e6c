package audit

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strconv"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/mandate-sam/mandate"
)

// saltSize is how many random bytes hide what is in an entry from whoever has
// its hash, in bytes.
const saltSize = 16

// A head is what an entry says of its place in the log, and what verifying
// needs to know of its content. It stands first in the entry, in this order
// and in one way of writing, so that it can be read without parsing JSON and
// cannot be read in two ways.
type head struct {
	index int64
	seq   int64     // from 1, in its chain
	prev  tlog.Hash // leaf hash of the record before in the chain; zero in the first
	salt  [saltSize]byte
	epoch int64
	kind  string
	chain string // cloud and partner, or "" for what is about no partner
}

// personal is what an entry keeps encrypted, because it is, or may have in it,
// something about a person.
type personal struct {
	Address string            `json:"address,omitempty"`
	Ticket  string            `json:"ticket,omitempty"`
	Detail  string            `json:"detail,omitempty"` // of a call: its path may name a user
	Reason  string            `json:"reason,omitempty"` // as may the reason of a refusal
	User    *mandate.Identity `json:"user,omitempty"`
}

// monthForm is how a month is written.
const monthForm = "2006-01"

// chainOf names the chain that a record is in: that of its partner.
func chainOf(r *mandate.Record) string {
	if r.Grant == nil {
		return ""
	}
	return Chain(r.Grant.Cloud, r.Grant.Partner)
}

// Chain names the sequence of the records about one partner.
func Chain(cloud string, partner mandate.TenantID) string {
	var b [64]byte
	name, _ := partner.AppendText(append(append(b[:0], cloud...), '/')) // an ID has no error
	return string(name)
}

// newSalt returns random bytes.
func newSalt() (s [saltSize]byte) {
	rand.Read(s[:])
	return s
}

// appendSealing appends what binds what is encrypted to its place: chain,
// month and salt.
func appendSealing(b []byte, chain, month string, salt *[saltSize]byte) []byte {
	b = append(append(b, chain...), 0)
	b = append(append(b, month...), 0)
	return append(b, salt[:]...)
}

// leafHash returns [tlog.RecordHash] of b[start:]. It puts the prefix that is
// hashed with it in the place of the byte before, for that long, which spares
// a hash state on the heap for every record.
func leafHash(b []byte, start int) tlog.Hash {
	before := b[start-1]
	b[start-1] = 0
	h := tlog.Hash(sha256.Sum256(b[start-1:]))
	b[start-1] = before
	return h
}

// plainWord reports whether s means itself in JSON.
func plainWord[S string | []byte](s S) bool {
	for i := range len(s) {
		if c := s[i]; c < 0x21 || c > 0x7e || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// entryPlace is more than what an entry says of its place takes, and its line
// feed, in bytes.
const entryPlace = 128

// appendEntry appends the entry without a line feed: place, then body.
func appendEntry(b []byte, index int64, last link, body []byte) []byte {
	b = append(b, `{"index":`...)
	b = strconv.AppendInt(b, index, 10)
	b = append(b, `,"seq":`...)
	b = strconv.AppendInt(b, last.seq+1, 10)
	b = append(b, `,"prev":"`...)
	b = base64.StdEncoding.AppendEncode(b, last.hash[:])
	b = append(b, `",`...)
	return append(b, body...)
}

var errNotEntry = errors.New("it is not an entry in the one way that entries are written")

// parseHead reads the place of an entry, and returns what follows the chain.
func parseHead(line []byte) (h head, rest []byte, err error) {
	c := cursor{b: line}
	c.word(`{"index":`)
	h.index = c.number()
	c.word(`,"seq":`)
	h.seq = c.number()
	c.word(`,"prev":"`)
	c.bytes(h.prev[:])
	c.word(`","salt":"`)
	c.bytes(h.salt[:])
	c.word(`","epoch":`)
	h.epoch = c.number()
	c.word(`,"kind":"`)
	h.kind = kindName(c.text())
	c.word(`,"chain":"`)
	h.chain = string(c.text())
	if c.bad || h.seq < 1 {
		return h, nil, errNotEntry
	}
	return h, c.b, nil
}

// kindName returns the one string for a known kind, so that reading millions
// does not make millions of them.
func kindName(b []byte) string {
	switch string(b) {
	case mandate.KindDecided:
		return mandate.KindDecided
	case mandate.KindIssued:
		return mandate.KindIssued
	}
	return string(b)
}

// parts are the pieces of an entry behind its head.
type parts struct {
	time   []byte
	record []byte // JSON
	month  []byte
	sealed []byte // base64
}

// parseRest reads what follows the chain. The record must be balanced, so that
// nothing in it can pass for a field of the entry.
func parseRest(rest []byte) (p parts, err error) {
	c := cursor{b: rest}
	c.word(`,"time":"`)
	p.time = c.text()
	c.word(`,"record":`)
	// What is sealed has no quotes, so that what stands before it is found
	// from the end.
	at := bytes.LastIndexByte(c.b[:max(0, len(c.b)-2)], '"') - len(`,"month":"2006-01","sealed":`)
	if c.bad || at < 0 || !balanced(c.b[:at]) {
		return p, errNotEntry
	}
	p.record = c.b[:at]
	c.b = c.b[at:]
	c.word(`,"month":"`)
	p.month = c.text()
	c.word(`,"sealed":"`)
	p.sealed = c.text()
	c.word(`}`)
	if c.bad || len(c.b) > 0 || len(p.month) != len(monthForm) {
		return p, errNotEntry
	}
	return p, nil
}

// balanced reports whether b is one JSON object from its first byte to its
// last, as far as quotes and braces say.
func balanced(b []byte) bool {
	if len(b) == 0 || b[0] != '{' {
		return false
	}
	depth := 0
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			n := stringEnd(b[i+1:])
			if n < 0 {
				return false
			}
			i += n + 1
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i == len(b)-1
			}
		}
	}
	return false
}

// stringEnd returns where the quote is that ends a string, or -1.
func stringEnd(b []byte) int {
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			return i
		case '\\':
			i++
		}
	}
	return -1
}

// A cursor reads an entry from left to right. After the first surprise it
// reads nothing more.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) word(s string) {
	if c.bad || len(c.b) < len(s) || string(c.b[:len(s)]) != s {
		c.bad = true
		return
	}
	c.b = c.b[len(s):]
}

// number reads a number without sign or leading zeros.
func (c *cursor) number() (n int64) {
	i := 0
	for ; !c.bad && i < len(c.b) && i < 18 && c.b[i] >= '0' && c.b[i] <= '9'; i++ {
		n = n*10 + int64(c.b[i]-'0')
	}
	if i == 0 || c.b[0] == '0' && i > 1 {
		c.bad = true
		return 0
	}
	c.b = c.b[i:]
	return n
}

// strict is base64 that can be written in one way only.
var strict = base64.StdEncoding.Strict()

// bytes reads base64 of exactly as many bytes.
func (c *cursor) bytes(into []byte) {
	n := base64.StdEncoding.EncodedLen(len(into))
	if c.bad || len(c.b) < n {
		c.bad = true
		return
	}
	var buf [3 * 32]byte
	// A line feed, over which the decoder passes, leaves too few bytes.
	if got, err := strict.Decode(buf[:], c.b[:n]); err != nil || got != len(into) {
		c.bad = true
		return
	}
	copy(into, buf[:])
	c.b = c.b[n:]
}

// text reads to the end of a string that means itself, and past its quote.
func (c *cursor) text() []byte {
	if c.bad {
		return nil
	}
	i := bytes.IndexByte(c.b, '"')
	if i < 0 || !plainWord(c.b[:i]) {
		c.bad = true
		return nil
	}
	s := c.b[:i]
	c.b = c.b[i+1:]
	return s
}
