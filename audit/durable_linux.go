package audit

import "syscall"

// writeThrough opens a segment so that what is written to it is on the disk when
// the write returns: one call where there would be two.
const writeThrough = syscall.O_DSYNC

// persist waits until the disk has what was written to a segment.
func persist(file) error { return nil }
