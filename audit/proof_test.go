package audit

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/tlog"
)

// Another implementation, which shares no code with ours, agrees about roots,
// inclusion and consistency; and so does its verdict on what is wrong.
func TestAuditAnotherImplementationAgrees(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config) {
		l := openLog(t, cfg)
		const n = 700 // two tiles and a part
		b := &batch{}
		for range n {
			b.items = append(b.items, &item{kind: "denied", body: must(bodyFor(t, l, testRecord(0, "x")))})
		}
		if _, err := l.store.write(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		var roots []tlog.Hash
		var leaves []tlog.Hash
		var front frontier
		for v, err := range l.lines(t.Context(), 0, n) {
			if err != nil {
				t.Fatal(err)
			}
			if want := rfc6962.DefaultHasher.HashLeaf(v.text); !bytes.Equal(want, v.leaf[:]) {
				t.Fatalf("record %d: leaf hash %x, want %x", v.index, v.leaf, want)
			}
			leaves = append(leaves, v.leaf)
			front.add(v.leaf)
			roots = append(roots, front.root())
		}
		tree := reader{t.Context(), l.store}
		for range 300 {
			size := rand.Int64N(n) + 1
			index := rand.Int64N(size)
			root := roots[size-1]
			if got := must(l.rootAt(t.Context(), size)); got != root {
				t.Fatalf("root of %d: %v, want %v", size, got, root)
			}
			p := must(tlog.ProveRecord(size, index, tree))
			if err := proof.VerifyInclusion(rfc6962.DefaultHasher, uint64(index), uint64(size), leaves[index][:], raw(p), root[:]); err != nil {
				t.Errorf("record %d of %d: %v", index, size, err)
			}
			wrong := leaves[(index+1)%n]
			if proof.VerifyInclusion(rfc6962.DefaultHasher, uint64(index), uint64(size), wrong[:], raw(p), root[:]) == nil {
				t.Errorf("record %d of %d: another leaf passes", index, size)
			}
			old := rand.Int64N(size) + 1
			c := must(tlog.ProveTree(size, old, tree))
			if err := proof.VerifyConsistency(rfc6962.DefaultHasher, uint64(old), uint64(size), raw(c), roots[old-1][:], root[:]); err != nil {
				t.Errorf("%d in %d: %v", old, size, err)
			}
		}
	})
}

func raw[P ~[]tlog.Hash](p P) (out [][]byte) {
	for _, h := range p {
		out = append(out, h[:])
	}
	return out
}

// The tree in memory, and the one that is folded from leaves and tiles, are
// the same.
func TestAuditTreeOfEverySize(t *testing.T) {
	var f frontier
	var m memory
	for i := range 1100 {
		h := tlog.RecordHash([]byte{byte(i), byte(i >> 8)})
		tile, full := f.add(h)
		m = append(m, h)
		if full != (len(m)%tileWidth == 0) || full && tile != must(m.tiles(context.Background(), int64(len(m)/tileWidth-1), 1))[0] {
			t.Fatalf("after %d leaves: a tile %v", len(m), full)
		}
		if want := must(tlog.TreeHash(int64(len(m)), reader{context.Background(), m})); f.root() != want {
			t.Fatalf("root of %d is %v, want %v", len(m), f.root(), want)
		}
		back, err := parseFrontier(f.size, f.bytes())
		if err != nil || back.root() != f.root() {
			t.Fatalf("size %d: %v", f.size, err)
		}
	}
}
