package mandate

import "time"

// A renewal is a token that should be renewed: it is due, and somebody has
// used it since it was stored. What nobody uses is left to expire.
type renewal struct {
	key         cacheKey
	fingerprint string // of the token that is to be renewed
}

// sweep forgets what has expired, and returns what is due to be renewed. A
// token that is not renewed then is returned again after recheck, until it
// expires. It costs what is due, not what there is.
func (c *tokenCache) sweep(now time.Time) []renewal {
	var out []renewal
	for more := true; more; {
		out, more = c.sweepSome(now, out)
	}
	return out
}

func (c *tokenCache) sweepSome(now time.Time, out []renewal) (_ []renewal, more bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.compact()
	n := 0
	for id := range c.wheel.due(now) {
		out = c.look(id, now, out)
		if n++; n == batch {
			return out, true
		}
	}
	return out, false
}

// look decides what becomes of a token whose time has come: it is forgotten,
// or looked at again later, and appended to out if it is to be renewed.
func (c *tokenCache) look(id uint32, now time.Time, out []renewal) []renewal {
	e := c.entry(id)
	again := time.Unix(0, e.expires)
	switch {
	case !again.After(now):
		c.remove(id)
		return out
	case e.due() > now.UnixNano():
		again = time.Unix(0, e.due()) // it lay further ahead than the wheel reaches
	default:
		if e.ref&refUsed != 0 {
			out = append(out, renewal{e.key(), e.fingerprint()})
		}
		if soon := now.Add(recheck); soon.Before(again) {
			again = soon
		}
	}
	c.wheel.add(id, again)
	return out
}

// drop forgets every token of one grant, whatever its generation.
func (c *tokenCache) drop(g GrantKey) {
	for from, end := uint32(0), uint32(1); from < end; from += batch {
		end = c.dropSome(g, from)
	}
}

// dropSome looks at a batch of numbers, and returns how many there are.
func (c *tokenCache) dropSome(g GrantKey, from uint32) uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.compact()
	for id := from; id < min(from+batch, c.used); id++ {
		if e := c.entry(id); e.header != nil && e.of(&g) {
			c.remove(id)
		}
	}
	return c.used
}

// victim returns the number of the token to forget when there are too many:
// one of the next that has expired, or else one that nobody has used since it
// was stored, or else the next.
func (c *tokenCache) victim(now time.Time) uint32 {
	const candidates = 64
	best, unused := c.hand, false
	for range min(candidates, c.used) {
		id := c.hand
		c.hand = (c.hand + 1) % c.used
		e := c.entry(id)
		if e.expires <= now.UnixNano() {
			return id
		}
		if !unused && e.ref&refUsed == 0 {
			best, unused = id, true
		}
	}
	return best
}

// makeRoom makes sure that a record of that size can be written. A cache whose
// bytes are at their limit gives up the slab that was begun first.
func (c *tokenCache) makeRoom(size int) {
	for !c.arena.room(size) {
		s := c.arena.oldest()
		s.records(func(e entry) {
			if c.alive(&e) {
				c.remove(e.id)
			}
		})
		c.giveUp(s)
	}
}

// compact moves what is alive in the slabs in which most is dead, until little
// is dead in all of them.
func (c *tokenCache) compact() {
	for s := c.arena.wasteful(); s != nil; s = c.arena.wasteful() {
		s.records(c.move)
		c.giveUp(s)
	}
}

// move writes a record to the open slab, if it is alive.
func (c *tokenCache) move(e entry) {
	if !c.alive(&e) {
		return
	}
	if !c.arena.room(e.textSize()) {
		c.remove(e.id)
		return
	}
	to := c.arena.write(*e.header, e.shared, e.text[e.header.at:][:e.textSize()])
	c.refs[e.id].Store(uint64(to | e.ref.notes()))
	c.arena.forget(e.ref)
}

// alive reports whether a record is the token with some number, and completes
// e by what is known of that.
func (c *tokenCache) alive(e *entry) bool {
	mask := uint32(len(c.slots) - 1)
	for i := c.hashOf(*e) & mask; ; i = (i + 1) & mask {
		slot := c.slots[i].Load()
		if slot == 0 {
			return false
		}
		id := numberIn(slot)
		if r := ref(c.refs[id].Load()); r.place() == e.ref {
			e.id, e.ref = id, r
			return true
		}
	}
}

// giveUp drops a slab in which nothing is alive.
func (c *tokenCache) giveUp(s *slab) {
	c.moves.Add(1)
	c.arena.drop(s)
	c.moves.Add(1)
}
