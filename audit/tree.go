package audit

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"

	"golang.org/x/mod/sumdb/tlog"
)

const (
	// tileHeight is the height of the subtrees whose hashes are kept: those of
	// 256 leaves, as in tlog-tiles. What is between is computed from these.
	tileHeight = 8
	tileWidth  = 1 << tileHeight
)

// A frontier is the right edge of a tree: the hashes of the complete subtrees
// that it is made of, the largest first. It is all that appending needs.
type frontier struct {
	size   int64
	hashes []tlog.Hash
}

func (f *frontier) clone() frontier { return frontier{f.size, slices.Clone(f.hashes)} }

// add appends a leaf. If that completes a subtree of 256 leaves, it returns
// its hash.
func (f *frontier) add(h tlog.Hash) (tile tlog.Hash, full bool) {
	n := f.size
	for level := 1; n&1 == 1; level++ {
		last := len(f.hashes) - 1
		h = tlog.NodeHash(f.hashes[last], h)
		f.hashes = f.hashes[:last]
		if n >>= 1; level == tileHeight {
			tile, full = h, true
		}
	}
	f.hashes = append(f.hashes, h)
	f.size++
	return tile, full
}

// root returns the hash of the tree.
func (f *frontier) root() tlog.Hash {
	if f.size == 0 {
		return sha256.Sum256(nil)
	}
	last := len(f.hashes) - 1
	h := f.hashes[last]
	for _, left := range slices.Backward(f.hashes[:last]) {
		h = tlog.NodeHash(left, h)
	}
	return h
}

// bytes returns the hashes one after the other.
func (f *frontier) bytes() []byte {
	out := make([]byte, 0, len(f.hashes)*tlog.HashSize)
	for _, h := range f.hashes {
		out = append(out, h[:]...)
	}
	return out
}

// parseFrontier reverses bytes.
func parseFrontier(size int64, b []byte) (frontier, error) {
	f := frontier{size: size}
	ones := 0
	for n := size; n > 0; n >>= 1 {
		ones += int(n & 1)
	}
	if size < 0 || len(b) != ones*tlog.HashSize {
		return f, fmt.Errorf("the edge of a tree of %d records has %d bytes", size, len(b))
	}
	for h := range slices.Chunk(b, tlog.HashSize) {
		f.hashes = append(f.hashes, tlog.Hash(h))
	}
	return f, nil
}

// hashes is where the hashes of a log are.
type hashes interface {
	// leaves returns the leaf hashes from index from on, n of them.
	leaves(ctx context.Context, from, n int64) ([]tlog.Hash, error)

	// tiles returns the hashes of complete subtrees of 256 leaves.
	tiles(ctx context.Context, from, n int64) ([]tlog.Hash, error)
}

// A reader reads hashes for package tlog.
type reader struct {
	ctx context.Context
	hashes
}

// ReadHashes implements [tlog.HashReader].
func (r reader) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		level, n := tlog.SplitStoredHashIndex(x)
		var below []tlog.Hash
		var err error
		if level < tileHeight {
			below, err = r.leaves(r.ctx, n<<level, 1<<level)
		} else {
			below, err = r.tiles(r.ctx, n<<(level-tileHeight), 1<<(level-tileHeight))
		}
		if err != nil {
			return nil, fmt.Errorf("read hashes: %w", err)
		}
		out[i] = fold(below)
	}
	return out, nil
}

// fold returns the hash of a complete subtree. It works in place.
func fold(h []tlog.Hash) tlog.Hash {
	for ; len(h) > 1; h = h[:len(h)/2] {
		for i := range len(h) / 2 {
			h[i] = tlog.NodeHash(h[2*i], h[2*i+1])
		}
	}
	return h[0]
}

// treeOf returns the root hash of a list of leaves.
func treeOf(leaves []tlog.Hash) tlog.Hash {
	var f frontier
	for _, h := range leaves {
		f.add(h)
	}
	return f.root()
}

// memory is hashes in memory, of a tree that is built at once.
type memory []tlog.Hash

func (m memory) leaves(_ context.Context, from, n int64) ([]tlog.Hash, error) {
	return slices.Clone(m[from : from+n]), nil
}

func (m memory) tiles(_ context.Context, from, n int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, n)
	for i := range out {
		at := (from + int64(i)) * tileWidth
		out[i] = fold(slices.Clone(m[at : at+tileWidth]))
	}
	return out, nil
}
