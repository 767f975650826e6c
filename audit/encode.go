package audit

import (
	"crypto/cipher"
	"encoding"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/jsontext"
)

// Entries are written by hand, because a record is on the way of every token:
// encoding/json takes several times as long, and an allocation for each value.
// What is written is byte for byte what encoding/json would write, which a
// fuzz test holds it to.

// A scratch is memory that one encoding needs and leaves behind. It held
// personal data, in a process that has the keys to it anyway.
type scratch struct {
	hidden, bound []byte
	nonce         [saltSize]byte
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// body returns the part of an entry that does not depend on its place in the
// log: all behind the hash of the record before.
func body(r *mandate.Record, chain, month string, salt [saltSize]byte, key cipher.AEAD) ([]byte, error) {
	if !plainWord(r.Kind) || !plainWord(chain) {
		return nil, fmt.Errorf("encode record: kind %q or chain %q cannot be written", r.Kind, chain)
	}
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	s.hidden = appendPersonal(s.hidden[:0], r)
	s.nonce = salt
	s.bound = appendSealing(s.bound[:0], chain, month, &salt)
	s.hidden = key.Seal(s.hidden[:0], s.nonce[:key.NonceSize()], s.hidden, s.bound)
	b := make([]byte, 0, 1024+base64.StdEncoding.EncodedLen(len(s.hidden)))
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
	b, err := appendShown(b, r)
	if err != nil {
		return nil, fmt.Errorf("encode record: %w", err)
	}
	b = append(b, `,"month":"`...)
	b = append(b, month...)
	b = append(b, `","sealed":"`...)
	b = base64.StdEncoding.AppendEncode(b, s.hidden)
	return append(b, `"}`...), nil
}

// appendPersonal appends what is encrypted of a record, as [personal].
func appendPersonal(b []byte, r *mandate.Record) []byte {
	o := object{b: append(b, '{')}
	o.text("address", r.Address)
	o.text("ticket", r.Ticket)
	if r.Use != "" {
		o.text("detail", r.Detail)
	}
	o.text("reason", r.Reason)
	if r.User != nil {
		o.name("user")
		user := object{b: append(o.b, '{')}
		user.id("tenant", &r.User.Tenant)
		user.id("object", &r.User.Object)
		o.b = user.end()
	}
	return o.end()
}

// appendShown appends what is not encrypted of a record and is not written
// elsewhere in the entry.
func appendShown(b []byte, r *mandate.Record) ([]byte, error) {
	o := object{b: append(b, '{')}
	o.text("request", r.Request)
	o.flag("emulated", r.Emulated)
	o.text("caller", string(r.Caller))
	o.text("use", string(r.Use))
	o.text("purpose", r.Purpose)
	o.text("partner", r.Partner)
	if r.Grant != nil {
		o.name("grant")
		grant := object{b: append(o.b, '{')}
		grant.name("cloud")
		grant.b = jsontext.AppendString(grant.b, r.Grant.Cloud)
		grant.id("application", &r.Grant.Application)
		grant.id("partner", &r.Grant.Partner)
		o.b = grant.end()
	}
	o.number("generation", r.Generation)
	if !r.Tenant.IsZero() {
		o.id("tenant", &r.Tenant)
	}
	o.text("audience", string(r.Audience))
	o.list("asked", r.Asked)
	o.list("granted", r.Granted)
	o.text("rule", r.Rule)
	o.text("policy", r.Policy)
	o.list("shadow", r.Shadow)
	o.text("fingerprint", r.Fingerprint)
	o.text("uti", r.UTI)
	o.text("correlation", r.Correlation)
	o.time("expires", r.Expires)
	o.flag("cached", r.Cached)
	if r.Evidence != nil {
		o.rare("evidence", r.Evidence)
	}
	if r.Use == "" {
		o.text("detail", r.Detail)
	}
	o.list("bound", r.Bound)
	o.time("mfa_time", r.MFATime)
	o.text("approval", r.Approval)
	return o.end(), o.err
}

// An object is a JSON object that is being written. Its methods leave out what
// omitempty and omitzero would.
type object struct {
	b   []byte // ends with its brace or a value
	err error
}

func (o *object) end() []byte { return append(o.b, '}') }

// name appends a field's name, which must need no escaping.
func (o *object) name(s string) {
	if o.b[len(o.b)-1] != '{' {
		o.b = append(o.b, ',')
	}
	o.b = append(o.b, '"')
	o.b = append(o.b, s...)
	o.b = append(o.b, '"', ':')
}

func (o *object) text(name, s string) {
	if s != "" {
		o.name(name)
		o.b = jsontext.AppendString(o.b, s)
	}
}

func (o *object) flag(name string, v bool) {
	if v {
		o.name(name)
		o.b = append(o.b, "true"...)
	}
}

func (o *object) number(name string, v int64) {
	if v != 0 {
		o.name(name)
		o.b = strconv.AppendInt(o.b, v, 10)
	}
}

func (o *object) list(name string, v []string) {
	if len(v) == 0 {
		return
	}
	o.name(name)
	o.b = append(o.b, '[')
	for i, s := range v {
		if i > 0 {
			o.b = append(o.b, ',')
		}
		o.b = jsontext.AppendString(o.b, s)
	}
	o.b = append(o.b, ']')
}

// id appends an ID, which has nothing in it to escape, even if it is zero.
func (o *object) id(name string, v encoding.TextAppender) {
	o.name(name)
	o.b, _ = v.AppendText(append(o.b, '"')) // an ID has no error
	o.b = append(o.b, '"')
}

func (o *object) time(name string, t time.Time) {
	if t.IsZero() {
		return
	}
	o.name(name)
	b, err := t.AppendText(append(o.b, '"'))
	if err != nil {
		o.err = err
		return
	}
	o.b = append(b, '"')
}

// rare appends what few records have.
func (o *object) rare(name string, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		o.err = err
		return
	}
	o.name(name)
	o.b = append(o.b, b...)
}
