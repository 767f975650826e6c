package audit

import (
	"context"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

// A store keeps a log.
type store interface {
	hashes

	// write appends the batch and returns the new size, once what was given a
	// place is durable. If it returns an error, nothing of the batch counts.
	// One goroutine at a time calls it.
	write(ctx context.Context, b *batch) (size int64, err error)

	// at returns the end of the log, with the last record of every chain.
	at(ctx context.Context) (tail, map[string]link, error)

	// read returns at most n lines from index from on; fewer if there are
	// fewer, or if it would be much.
	read(ctx context.Context, from, n int64) ([]line, error)

	// keep stores a checkpoint as the latest.
	keep(ctx context.Context, c stamped) error

	// latest returns the latest checkpoint, or nil.
	latest(ctx context.Context) ([]byte, error)

	// history returns the checkpoints that are kept, the oldest first.
	history(ctx context.Context) ([][]byte, error)

	// drop removes the content of entries that are older, and keeps their
	// hashes. It returns of how many.
	drop(ctx context.Context, before time.Time) (int64, error)

	close() error
}

// A line is an entry as stored, or what is left of it.
type line struct {
	index   int64
	text    []byte // without line feed
	leaf    tlog.Hash
	dropped bool
}

// stamped is a signed checkpoint.
type stamped struct {
	size    int64
	time    time.Time
	note    []byte
	history bool // also kept when there are later ones
}
