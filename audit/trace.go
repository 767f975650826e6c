package audit

import (
	"encoding/base64"
	"strconv"

	"golang.org/x/mod/sumdb/tlog"
)

// A trace is what is left of an entry whose content was dropped: its hash, for
// the tree, and its place in its chain.
type trace struct {
	index int64
	leaf  tlog.Hash
	seq   int64
	chain string
}

func (t *trace) line() []byte {
	b := strconv.AppendInt([]byte(`{"index":`), t.index, 10)
	b = append(b, `,"leaf":"`...)
	b = base64.StdEncoding.AppendEncode(b, t.leaf[:])
	b = append(b, `","seq":`...)
	b = strconv.AppendInt(b, t.seq, 10)
	b = append(b, `,"chain":"`...)
	b = append(b, t.chain...)
	return append(b, `"}`...)
}

// parseTrace reverses line.
func parseTrace(line []byte) (t trace, err error) {
	c := cursor{b: line}
	c.word(`{"index":`)
	t.index = c.number()
	c.word(`,"leaf":"`)
	c.bytes(t.leaf[:])
	c.word(`","seq":`)
	t.seq = c.number()
	c.word(`,"chain":"`)
	t.chain = string(c.text())
	c.word(`}`)
	if c.bad || len(c.b) > 0 {
		err = errNotEntry
	}
	return t, err
}
