//go:build !linux

package audit

// writeThrough: elsewhere, such a write may end in the disk's own memory.
const writeThrough = 0

// persist waits until the disk has what was written to a segment.
func persist(f file) error { return f.Sync() }
