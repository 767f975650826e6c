package mandate

import (
	"context"
	"fmt"
	"sync"
)

const (
	// laneWidth is how many redemptions of one grant may be under way at
	// once, in each replica. A partner with a thousand customers is warmed
	// thirty-two at a time, and a slow partner holds up nobody but itself.
	laneWidth = 32

	// laneQueue is how many more may wait.
	laneQueue = 4096
)

// lanes bound what is under way for each grant.
type lanes struct {
	mu  sync.Mutex // guards all and each lane's users
	all map[GrantKey]*lane
}

type lane struct {
	users int           // under way or waiting
	slots chan struct{} // under way
}

// enter waits for a slot of k's, and returns what gives it back.
func (l *lanes) enter(ctx context.Context, k GrantKey) (leave func(), err error) {
	n, err := l.join(k)
	if err != nil {
		return nil, err
	}
	select {
	case n.slots <- struct{}{}:
		return func() { <-n.slots; l.part(k, n) }, nil
	case <-ctx.Done():
		l.part(k, n)
		return nil, fmt.Errorf("%w: redemptions for this partner; %d are under way", ErrRateLimited, laneWidth)
	}
}

func (l *lanes) join(k GrantKey) (*lane, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all == nil {
		l.all = make(map[GrantKey]*lane)
	}
	n := l.all[k]
	if n == nil {
		n = &lane{slots: make(chan struct{}, laneWidth)}
		l.all[k] = n
	}
	if n.users >= laneWidth+laneQueue {
		return nil, fmt.Errorf("%w: %d redemptions for this partner are waiting", ErrRateLimited, laneQueue)
	}
	n.users++
	return n, nil
}

// part forgets a lane that nobody uses.
func (l *lanes) part(k GrantKey, n *lane) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n.users--; n.users == 0 {
		delete(l.all, k)
	}
}
