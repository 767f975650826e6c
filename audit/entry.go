package audit

import (
	"bytes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

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

// open is the rest of a record. The fields above the record hide those of the
// same name in it, which are written elsewhere.
type open struct {
	mandate.Record
	Time   *struct{} `json:"time,omitempty"`
	Kind   *struct{} `json:"kind,omitempty"`
	Epoch  *struct{} `json:"epoch,omitempty"`
	Ticket *struct{} `json:"ticket,omitempty"`
	Addr   *struct{} `json:"address,omitempty"`
	Reason *struct{} `json:"reason,omitempty"`
	User   *struct{} `json:"user,omitempty"`
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
func Chain(cloud string, partner mandate.TenantID) string { return cloud + "/" + partner.String() }

// newSalt returns random bytes.
func newSalt() (s [saltSize]byte) {
	rand.Read(s[:])
	return s
}

// sealing binds what is encrypted to its place: chain, month and salt.
func sealing(chain, month string, salt []byte) []byte {
	return append([]byte(chain+"\x00"+month+"\x00"), salt...)
}

// body returns the part of an entry that does not depend on its place in the
// log: all behind the hash of the record before.
func body(r *mandate.Record, month string, salt [saltSize]byte, key cipher.AEAD) ([]byte, error) {
	chain := chainOf(r)
	secret, shared := personal{r.Address, r.Ticket, "", r.Reason, r.User}, *r
	if r.Use != "" {
		secret.Detail, shared.Detail = r.Detail, ""
	}
	hidden, err := json.Marshal(secret)
	if err != nil {
		return nil, fmt.Errorf("encode record: %w", err)
	}
	shown, err := json.Marshal(open{Record: shared})
	if err != nil {
		return nil, fmt.Errorf("encode record: %w", err)
	}
	if !plainWord(r.Kind) || !plainWord(chain) {
		return nil, fmt.Errorf("encode record: kind %q or chain %q cannot be written", r.Kind, chain)
	}
	sealed := key.Seal(nil, salt[:key.NonceSize()], hidden, sealing(chain, month, salt[:]))
	b := make([]byte, 0, len(shown)+base64.StdEncoding.EncodedLen(len(sealed))+256)
	b = append(b, `"salt":"`...)
	b = base64.StdEncoding.AppendEncode(b, salt[:])
	b = append(b, `","epoch":`...)
	b = strconv.AppendInt(b, r.Epoch, 10)
	b = append(b, `,"kind":"`...)
	b = append(b, r.Kind...)
	b = append(b, `","chain":"`...)
	b = append(b, chain...)
	b = append(b, `","time":"`...)
	b = r.Time.UTC().AppendFormat(b, time.RFC3339Nano)
	b = append(b, `","record":`...)
	b = append(b, shown...)
	b = append(b, `,"month":"`...)
	b = append(b, month...)
	b = append(b, `","sealed":"`...)
	b = base64.StdEncoding.AppendEncode(b, sealed)
	return append(b, `"}`...), nil
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
	month  string
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
	p.month = string(c.text())
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
	if got, err := strict.Decode(buf[:], c.b[:n]); err != nil || got != len(into) || bytes.ContainsAny(c.b[:n], "\r\n") {
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
