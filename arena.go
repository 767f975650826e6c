package mandate

import (
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// An arena keeps tokens in slabs: a million of them are a few thousand objects
// to the garbage collector, and nothing in them is a pointer.
//
// A slab is written once, from its beginning to its end. What is written never
// changes, so that readers take no lock, and a token's text is a part of the
// slab that nobody copies. A slab that is given up leaves memory with the last
// reader of it. Its number is never used again: a reference either leads to
// the record that it was made for, or nowhere.
type arena struct {
	slabs []atomic.Pointer[slab] // by number, modulo a power of two

	// Of the writer alone, like everything that is not atomic.
	open   *slab     // the one that is written; nil before the first
	number uint32    // of the last slab
	total  int       // bytes of all slabs that are here
	dead   int       // of those, bytes that no reference leads to any more
	mean   int       // bytes of text of a record, as the last slab had them
	before []*shared // what the records of the slab before the open one share
}

const (
	slabText    = 512 << 10 // bytes of text in a slab
	maxRecord   = slabText / 8
	headerBytes = 64
)

// A slab is records and what many of them share. What is at the beginning of a
// record stands by itself, so that a search touches few pages of memory.
type slab struct {
	number  uint32
	headers []header // none beyond count is written yet
	written atomic.Pointer[written]

	text  strings.Builder // never grows, so its bytes stay where they are
	count int
	dead  int // bytes that no reference leads to any more
}

// written is what readers may see of a slab, apart from headers.
type written struct {
	text   string
	shared []*shared
}

// shared is what the records of a slab have in common with many others.
type shared struct {
	cloud       string
	application AppID
	audience    Audience
	scopes      []Scope // granted
}

// A ref is a reference to a record: the slab's number, the record's place in
// it, and what is noted of the token. Zero leads nowhere.
type ref uint64

const (
	refUsed   ref = 1  // it was used since it was stored
	claimBits     = 15 // the second in which somebody last wanted to renew it
	noteBits      = 1 + claimBits
	refNotes  ref = 1<<noteBits - 1
	placeBits     = 16
)

func newRef(number uint32, at int) ref {
	return ref(number)<<(placeBits+noteBits) | ref(at)<<noteBits
}

func (r ref) number() uint32 { return uint32(r >> (placeBits + noteBits)) }
func (r ref) at() int        { return int(r>>noteBits) & (1<<placeBits - 1) }
func (r ref) place() ref     { return r &^ refNotes }
func (r ref) notes() ref     { return r & refNotes }

// claimable reports whether nobody wanted to renew the token for as long as
// retryRenewal. Nine hours later that is asked in vain for once.
func (r ref) claimable(now time.Time) bool {
	then := (r & refNotes) >> 1
	return then == 0 || (second(now)-then)&(1<<claimBits-1) >= ref(retryRenewal/time.Second)
}

// claimed returns r with a note that somebody wants to renew the token now.
func (r ref) claimed(now time.Time) ref {
	return r.place() | second(now)<<1 | r&refUsed
}

// second is the second of now, with as many bits as are noted, and never 0.
func second(now time.Time) ref {
	return max(1, ref(now.Unix())&(1<<claimBits-1))
}

// newArena returns an arena for that many bytes of text, rounded up a little.
func newArena(size int) *arena {
	n := 4
	for n*slabText < size {
		n *= 2
	}
	return &arena{slabs: make([]atomic.Pointer[slab], n), mean: 2000}
}

// slab returns the slab that a reference leads to, or nil if it was given up.
func (a *arena) slab(number uint32) *slab {
	s := a.slabs[number&uint32(len(a.slabs)-1)].Load()
	if s == nil || s.number != number {
		return nil
	}
	return s
}

// at returns the record that r leads to, or none if its slab was given up.
func (a *arena) at(r ref) entry {
	if s := a.slab(r.number()); s != nil {
		return s.entry(r)
	}
	return entry{}
}

func (s *slab) entry(r ref) entry {
	h, w := &s.headers[r.at()], s.written.Load()
	return entry{header: h, shared: w.shared[h.shared], text: w.text, ref: r}
}

// records calls f for every record of s, dead ones too.
func (s *slab) records(f func(entry)) {
	for i := range s.count {
		f(s.entry(newRef(s.number, i)))
	}
}

// size is how many bytes there are in a slab.
func (s *slab) size() int { return s.text.Cap() + len(s.headers)*headerBytes }

// left is how many bytes of it are not written.
func (s *slab) left() int {
	return s.text.Cap() - s.text.Len() + (len(s.headers)-s.count)*headerBytes
}

// room makes sure that the next record, with so much text, fits into the open
// slab. It returns false if there is no room for another slab: the caller must
// give one up.
func (a *arena) room(text int) bool {
	if s := a.open; s != nil && s.text.Len()+text <= slabText && s.count < len(s.headers) {
		return true
	}
	for range a.slabs {
		a.number++ // 2³² slabs are two petabytes of tokens
		if place := &a.slabs[a.number&uint32(len(a.slabs)-1)]; place.Load() == nil && a.number != 0 {
			a.close()
			a.open = a.newSlab()
			place.Store(a.open)
			return true
		}
	}
	return false
}

// newSlab returns a slab with so many headers as there were in the last one for
// as much text, and a few more.
func (a *arena) newSlab() *slab {
	n := slabText/a.mean*17/16 + 1
	s := &slab{number: a.number, headers: make([]header, min(n, 1<<placeBits))}
	s.text.Grow(slabText)
	s.written.Store(new(written))
	a.total += s.size()
	return s
}

// close counts what is left at the end of the open slab as dead, so that it is
// not kept for the sake of a few bytes.
func (a *arena) close() {
	if s := a.open; s != nil && s.count > 0 {
		a.lost(s, s.left())
		a.before = s.written.Load().shared
		a.mean = max(64, s.text.Len()/s.count)
	}
}

// write appends a record, for which there must be room, and returns the
// reference to it.
func (a *arena) write(h header, sh *shared, text ...string) ref {
	s := a.open
	list := s.written.Load().shared
	i := slices.IndexFunc(list, sh.equal)
	if i < 0 {
		i = len(list)
		list = append(list, a.known(sh))
	}
	h.shared, h.at = uint16(i), uint32(s.text.Len())
	for _, t := range text {
		s.text.WriteString(t)
	}
	s.headers[s.count] = h
	s.count++
	s.written.Store(&written{s.text.String(), list})
	return newRef(s.number, s.count-1)
}

// known returns what equals sh and is there already, or a copy that is the
// arena's own.
func (a *arena) known(sh *shared) *shared {
	if i := slices.IndexFunc(a.before, sh.equal); i >= 0 {
		return a.before[i]
	}
	own := *sh
	own.scopes = slices.Clone(sh.scopes)
	return &own
}

// forget counts the record that r leads to as dead.
func (a *arena) forget(r ref) {
	if s := a.slab(r.number()); s != nil {
		a.lost(s, s.entry(r).size())
	}
}

func (a *arena) lost(s *slab, n int) {
	s.dead += n
	a.dead += n
}

// drop gives up a slab with whatever is in it.
func (a *arena) drop(s *slab) {
	a.slabs[s.number&uint32(len(a.slabs)-1)].Store(nil)
	a.total -= s.size()
	a.dead -= s.dead
}

// wasteful returns the slab in which most is dead, if so much is dead in all
// of them that it should be made use of, and otherwise nil. It is never the
// open slab.
func (a *arena) wasteful() *slab {
	if a.dead*maxDead < a.total {
		return nil
	}
	s := a.pick(func(s, than *slab) bool { return s.dead > than.dead })
	if s == nil || s.dead*maxDead < s.size() {
		return nil // it is the open one that is wasteful
	}
	return s
}

// maxDead: one byte in so many may be dead before slabs are compacted.
const maxDead = 16

// oldest returns the slab that was opened first, except for the open one.
func (a *arena) oldest() *slab {
	return a.pick(func(s, than *slab) bool { return a.number-s.number > a.number-than.number })
}

func (a *arena) pick(better func(s, than *slab) bool) (best *slab) {
	for i := range a.slabs {
		if s := a.slabs[i].Load(); s != nil && s != a.open && (best == nil || better(s, best)) {
			best = s
		}
	}
	return best
}

func (s *shared) equal(o *shared) bool {
	return s == o || s.audience == o.audience && s.application == o.application && s.cloud == o.cloud && slices.Equal(s.scopes, o.scopes)
}
