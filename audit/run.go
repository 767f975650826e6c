package audit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/mandate-sam/mandate"
)

const (
	// checkpointEvery is how often the log signs what is new.
	checkpointEvery = time.Second

	// historyEvery is how far apart the checkpoints are that are kept.
	historyEvery = time.Minute

	// forgetEvery is how long a key that another replica has destroyed may
	// still be in memory.
	forgetEvery = time.Minute
)

// Run signs a checkpoint every second while there are new records, sends it
// to the witnesses, and fills the index, until ctx is done; then it signs the
// last one. It returns nil.
func (l *Log) Run(ctx context.Context) error {
	var group sync.WaitGroup
	for _, w := range l.witnesses {
		group.Go(func() { w.run(ctx, l) })
	}
	group.Go(func() { l.index.run(ctx) })
	tick := time.NewTicker(checkpointEvery)
	defer tick.Stop()
	told, forgotten := false, time.Now()
	for done := false; !done; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			done = true
		}
		own, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
		_, err := l.Checkpoint(own)
		cancel()
		if err != nil && !told {
			l.cfg.Log.Error("audit log: no checkpoint; records are written all the same", "error", err)
		}
		told = err != nil
		if time.Since(forgotten) > forgetEvery {
			l.keys.forget()
			forgotten = time.Now()
		}
	}
	group.Wait()
	l.lastCall(ctx)
	return nil
}

// lastCall gives the witnesses the last checkpoint when the server stops.
func (l *Log) lastCall(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	var group sync.WaitGroup
	for _, w := range l.witnesses {
		group.Go(func() { w.offer(ctx, l) })
	}
	group.Wait()
}

// Checkpoint returns the latest signed checkpoint, and signs a new one before
// if there are new records.
func (l *Log) Checkpoint(ctx context.Context) ([]byte, error) {
	signed, _, _, err := l.checkpoint(ctx)
	return signed, err
}

// checkpoint also returns what it says, and the last records of the chains
// that it is about.
func (l *Log) checkpoint(ctx context.Context) ([]byte, Checkpoint, map[string]link, error) {
	latest, err := l.store.latest(ctx) // first, so that it cannot be ahead
	if err != nil {
		return nil, Checkpoint{}, nil, fmt.Errorf("read checkpoint: %w", err)
	}
	end, links, err := l.store.at(ctx)
	if err != nil {
		return nil, Checkpoint{}, nil, err
	}
	l.grew(end.front.size)
	if latest == nil {
		return l.sign(ctx, end, links)
	}
	before, err := ParseCheckpoint(latest, l.cfg.Public)
	if err != nil {
		return nil, before, nil, err
	}
	if before.Size == end.front.size {
		l.note(before)
		return latest, before, links, nil
	}
	if err := l.extends(ctx, before, end.front.size); err != nil {
		return nil, before, nil, err
	}
	return l.sign(ctx, end, links)
}

// sign signs and keeps a checkpoint.
func (l *Log) sign(ctx context.Context, end tail, links map[string]link) ([]byte, Checkpoint, map[string]link, error) {
	_, leaves := chainHeads(links)
	c := Checkpoint{Origin: l.Origin(), Size: end.front.size, Root: end.front.root(), Epoch: end.epoch, Time: time.Now().UTC().Truncate(time.Second), Chains: treeOf(leaves)}
	signed, err := note.Sign(&note.Note{Text: c.text()}, l.cfg.Signer)
	if err != nil {
		return nil, c, nil, fmt.Errorf("sign checkpoint: %w", err)
	}
	l.mu.Lock()
	last := l.signed
	l.mu.Unlock()
	stays := c.Time.Truncate(historyEvery).After(last.Time) || last.Size == 0
	if err := l.store.keep(ctx, stamped{c.Size, c.Time, signed, stays}); err != nil {
		return nil, c, nil, fmt.Errorf("keep checkpoint: %w", err)
	}
	if l.cfg.Memory != "" {
		if err := replaceFile(l.cfg.Memory, signed); err != nil {
			return nil, c, nil, fmt.Errorf("keep checkpoint: %w", err)
		}
	}
	l.note(c)
	return signed, c, links, nil
}

func (l *Log) note(c Checkpoint) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.Size > l.signed.Size {
		l.signed = c
	}
}

// ErrChanged: the log is not what was signed.
var ErrChanged = errors.New("the audit log does not contain what was signed")

// compare holds the log against the last checkpoint that was kept with it, and
// the one that was kept elsewhere.
func (l *Log) compare(ctx context.Context, size int64) error {
	kept, err := l.store.latest(ctx)
	if err != nil {
		return err
	}
	var memory []byte
	if l.cfg.Memory != "" {
		if memory, err = os.ReadFile(l.cfg.Memory); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	for i, signed := range [][]byte{kept, memory} {
		if signed == nil {
			continue // there is no such file, or row
		}
		c, err := ParseCheckpoint(signed, l.cfg.Public)
		if err != nil {
			return fmt.Errorf("the last %w; whoever moved the log or its key must bring both", err)
		}
		if err := l.extends(ctx, c, size); err != nil {
			where := [...]string{"", " (remembered outside of the database, in " + l.cfg.Memory + ")"}[i]
			return fmt.Errorf("%w%s; keep everything as it is, and see \"mandate audit verify --help\"", err, where)
		}
		l.note(c)
	}
	return nil
}

// extends returns [ErrChanged] if the log of that size is not the one of the
// checkpoint, or longer.
func (l *Log) extends(ctx context.Context, c Checkpoint, size int64) error {
	if c.Size > size {
		return fmt.Errorf("%w: a checkpoint of %s speaks of %d records, and there are %d", ErrChanged, c.Time.Format(time.RFC3339), c.Size, size)
	}
	root, err := l.rootAt(ctx, c.Size)
	if err != nil {
		return err
	}
	if root != c.Root {
		return fmt.Errorf("%w: one of the first %d records, or its hash, is not what it was when a checkpoint was signed at %s", ErrChanged, c.Size, c.Time.Format(time.RFC3339))
	}
	return nil
}

// rootAt returns the root hash of the first n records.
func (l *Log) rootAt(ctx context.Context, n int64) (tlog.Hash, error) {
	if n == 0 {
		var none frontier
		return none.root(), nil
	}
	root, err := tlog.TreeHash(n, reader{ctx, l.store})
	if errors.Is(err, ErrChanged) {
		return root, err
	}
	if err != nil {
		return root, fmt.Errorf("%w: %w", mandate.ErrUnavailable, err)
	}
	return root, nil
}
