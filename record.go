package mandate

import (
	"encoding/hex"
	"slices"
	"time"
)

// A header is the beginning of a record: what a search looks at, in one line of
// the processor's cache. The rest is text: what was asked, the token, and what
// else is known of it; see newRecord.
type header struct {
	tenant, partner guid
	since           int64
	expires         int64  // Unix nanoseconds
	generation      uint32 // of the key
	at              uint32 // where the text begins in the slab
	shared          uint16 // index among what the slab's records share
	asked, token    uint16 // lengths
	renewal         uint16 // how many seconds before its expiry it is to be renewed
}

// newRecord returns the header and the text of the record for a token, and false
// if the token is not one that can be kept.
//
// After the token, the text has a byte that says by how many generations the
// token's is before the key's, the SHA-256 of the token, and then, each after
// a byte with its length, the UTI and the correlation ID.
func newRecord(k *cacheKey, t *cached) (h header, text [3]string, ok bool) {
	before := k.generation - t.Generation
	if k.generation < 0 || k.generation >= 1<<32 || before < 0 || before > 255 || len(t.UTI) > 255 || len(t.CorrelationID) > 255 {
		return h, text, false
	}
	known := make([]byte, 0, 96)
	known = append(known, byte(before))
	known, ok = appendSum(known, t.Fingerprint)
	known = append(append(known, byte(len(t.UTI))), t.UTI...)
	known = appendCorrelation(known, t.CorrelationID)
	text = [3]string{k.asked, t.Access.Reveal(), string(known)}
	h = header{
		tenant: k.tenant.guid, partner: k.partner.guid, since: k.since, expires: t.Expires.UnixNano(), generation: uint32(k.generation),
		asked: uint16(len(text[0])), token: uint16(len(text[1])), renewal: lead(t),
	}
	return h, text, ok && length(text) < maxRecord
}

func length(text [3]string) int { return len(text[0]) + len(text[1]) + len(text[2]) }

// lead is how many seconds before its expiry t is to be renewed. It is rounded
// up: sooner, not later.
func lead(t *cached) uint16 {
	refresh := t.refresh.Load()
	if refresh == 0 {
		return 0
	}
	d := time.Duration(t.Expires.UnixNano() - refresh + int64(time.Second) - 1)
	return uint16(min(max(d/time.Second, 0), 1<<16-1))
}

// appendSum appends the bytes of a fingerprint, zeros if there is none.
func appendSum(b []byte, fingerprint string) ([]byte, bool) {
	var sum [32]byte
	if fingerprint == "" {
		return append(b, sum[:]...), true
	}
	if len(fingerprint) != 64 {
		return b, false
	}
	_, err := hex.Decode(sum[:], []byte(fingerprint))
	return append(b, sum[:]...), err == nil
}

// isGUID stands instead of a length before the sixteen bytes of a GUID.
const isGUID = 255

// appendCorrelation appends a correlation ID, which is a GUID as a rule.
func appendCorrelation(b []byte, id string) []byte {
	var g guid
	if g.parse(id) && g.String() == id {
		return append(append(b, isGUID), g[:]...)
	}
	id = id[:min(len(id), isGUID-1)]
	return append(append(b, byte(len(id))), id...)
}

// An entry is a token in the cache: a record with what it shares with others.
// The zero entry is none.
type entry struct {
	*header
	shared *shared
	text   string // of the slab
	id     uint32 // its number
	ref    ref    // as it was when it was found
}

// asked is what the caller asked for.
func (e entry) asked() string { return e.text[e.header.at:][:e.header.asked] }

// access is the token itself. It is a part of the slab, and keeps all of that
// in memory for as long as anybody has it.
func (e entry) access() string {
	return e.text[e.header.at+uint32(e.header.asked):][:e.header.token]
}

// known is what follows the token.
func (e entry) known() (before int64, sum, uti, correlation string) {
	s := e.text[e.header.at+uint32(e.header.asked)+uint32(e.header.token):]
	before, sum, s = int64(s[0]), s[1:33], s[33:]
	n := int(s[0])
	uti, s = s[1:1+n], s[1+n:]
	if s[0] == isGUID {
		var g guid
		copy(g[:], s[1:])
		return before, sum, uti, g.String()
	}
	return before, sum, uti, s[1 : 1+int(s[0])]
}

// knownSize is how long that is.
func (e entry) knownSize() int {
	s := e.text[e.header.at+uint32(e.header.asked)+uint32(e.header.token):]
	n := 33 + 1 + int(s[33])
	if s[n] == isGUID {
		return n + 1 + len(guid{})
	}
	return n + 1 + int(s[n])
}

// textSize is how long the record's text is, size what it takes in its slab.
func (e entry) textSize() int { return int(e.header.asked) + int(e.header.token) + e.knownSize() }
func (e entry) size() int     { return e.textSize() + headerBytes }

// is reports whether e is the token for k. All of the key is compared: a hash
// alone proves nothing.
func (e entry) is(k *cacheKey) bool {
	h, s := e.header, e.shared
	return h.tenant == k.tenant.guid && h.partner == k.partner.guid && h.since == k.since && int64(h.generation) == k.generation &&
		e.asked() == k.asked && s.audience == k.audience && s.application == k.application && s.cloud == k.cloud
}

// of reports whether e was redeemed for g.
func (e entry) of(g *GrantKey) bool {
	return e.partner == g.Partner.guid && e.shared.application == g.Application && e.shared.cloud == g.Cloud
}

// due is from when on the token is to be renewed, in Unix nanoseconds.
func (e entry) due() int64 { return e.expires - int64(e.renewal)*int64(time.Second) }

// key returns the key that e was stored for.
func (e entry) key() cacheKey {
	return cacheKey{
		partner: TenantID{e.partner}, tenant: TenantID{e.tenant}, application: e.shared.application,
		generation: int64(e.generation), since: e.since, cloud: e.shared.cloud, audience: e.shared.audience, asked: e.asked(),
	}
}

// fingerprint returns the hex form of the SHA-256 of the token.
func (e entry) fingerprint() string {
	_, sum, _, _ := e.known()
	return fingerprint(sum)
}

func fingerprint(sum string) string {
	var b [32]byte
	copy(b[:], sum)
	if b == [32]byte{} {
		return ""
	}
	var text [2 * len(b)]byte
	hex.Encode(text[:], b[:])
	return string(text[:])
}

// copy returns what was stored. Its scopes are a copy too: others share them,
// and a caller can change what it is given.
func (e entry) copy() Token {
	before, sum, uti, correlation := e.known()
	return Token{
		Access: NewSecret(e.access()), Expires: time.Unix(0, e.expires), Tenant: TenantID{e.tenant}, Audience: e.shared.audience,
		Scopes: slices.Clone(e.shared.scopes), Generation: int64(e.generation) - before, Fingerprint: fingerprint(sum), UTI: uti, CorrelationID: correlation,
	}
}
