package mandate

import (
	"iter"
	"time"
)

// A wheel says which of many things are due, at a cost that does not depend on
// how many there are: it is a circle of lists, one for every second of the
// next two hours and a quarter, and each thing is in one of them.
//
// Things are numbered from 0. The lists are doubly linked through two arrays
// without pointers, eight bytes a thing, so that the garbage collector has
// nothing to follow. A wheel must not be used concurrently.
type wheel struct {
	next, prev []link // by number
	first      [wheelSize]link
	last       int64 // the second, in Unix time, whose list was given out last
}

// wheelSize is how many seconds the circle has; a power of two.
const wheelSize = 8192

// A link leads to a thing: it is its number and one, and 0 leads nowhere. In
// prev, a link with the bit heads leads to the beginning of a list instead.
type link uint32

const heads link = 1 << 31

// newWheel returns a wheel for n things, none of which is due at any time.
func newWheel(n int, now time.Time) *wheel {
	return &wheel{next: make([]link, n), prev: make([]link, n), last: now.Unix()}
}

// add makes a thing due at when, and no longer at the time that was said of it
// before. It is never due early and at most a second late, with one exception:
// what lies further ahead than the circle reaches is due at its end, and must
// be added again then.
func (w *wheel) add(id uint32, when time.Time) {
	w.remove(id)
	second := when.Unix()
	if when.Nanosecond() > 0 {
		second++
	}
	second = min(max(second, w.last+1), w.last+wheelSize-1)
	w.push(id, uint32(second%wheelSize))
}

func (w *wheel) push(id, list uint32) {
	was := w.first[list]
	if was != 0 {
		w.prev[was-1] = link(id + 1)
	}
	w.first[list] = link(id + 1)
	w.next[id], w.prev[id] = was, heads|link(list)
}

// remove makes a thing due at no time, if it was.
func (w *wheel) remove(id uint32) {
	next, prev := w.next[id], w.prev[id]
	switch {
	case prev == 0:
		return
	case prev&heads != 0:
		w.first[prev&^heads] = next
	default:
		w.next[prev-1] = next
	}
	if next != 0 {
		w.prev[next-1] = prev
	}
	w.next[id], w.prev[id] = 0, 0
}

// due gives out everything that is due by now, each thing once. While it does,
// things may be added and removed. What a loop that ends early has not seen is
// given out by the next.
func (w *wheel) due(now time.Time) iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		end := now.Unix()
		// A circle that stood still for longer than it is round is gone
		// through once.
		w.last = max(w.last, end-wheelSize)
		for w.last < end {
			list := (w.last + 1) % wheelSize
			for w.first[list] != 0 {
				id := uint32(w.first[list] - 1)
				w.remove(id)
				w.last++ // what is added now must not come into the same list
				more := yield(id)
				w.last--
				if !more {
					return
				}
			}
			w.last++
		}
	}
}
