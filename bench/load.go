package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A load is some connections to one server that are kept open. It does less
// than an HTTP client does, because it shares the processors with the server:
// requests are ready bytes, and of an answer it reads status and length.
type load struct {
	conns []*loadConn

	answers int
	cpu     time.Duration // of this process, while they came
}

type loadConn struct {
	net.Conn
	in    *bufio.Reader
	out   []byte // the request
	waits []time.Duration
}

// newLoad opens n connections to addr, which send requests in turn.
func newLoad(ctx context.Context, addr string, n int, requests []string) (*load, error) {
	l := new(load)
	for i := range n {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err != nil {
			l.close()
			return nil, err
		}
		l.conns = append(l.conns, &loadConn{Conn: c, in: bufio.NewReaderSize(c, 8<<10), out: []byte(requests[i%len(requests)])})
	}
	return l, nil
}

func (l *load) close() {
	for _, c := range l.conns {
		c.Close()
	}
}

// answerSize asks once, and returns how long the answer is.
func (l *load) answerSize() (int, error) { return l.conns[0].do() }

// stuck is how long an answer may take.
const stuck = 10 * time.Second

// during returns the contender that sends requests for that long over all
// connections, each the next when the last was answered, and measures how
// many are answered in a second.
func (l *load) during(d time.Duration) contender {
	return func(ctx context.Context) (float64, error) {
		counts := make([]int, len(l.conns))
		start, cpu := time.Now(), cpuTime()
		err := concurrently(len(l.conns), func(i int) error {
			c := l.conns[i]
			if err := c.SetDeadline(start.Add(d + stuck)); err != nil {
				return err
			}
			for last := start; ctx.Err() == nil && last.Sub(start) < d; counts[i]++ {
				if _, err := c.do(); err != nil {
					return err
				}
				now := time.Now()
				c.waits = append(c.waits, now.Sub(last))
				last = now
			}
			return nil
		})
		total := 0
		for _, n := range counts {
			total += n
		}
		l.answers += total
		l.cpu += cpuTime() - cpu
		return float64(total) / time.Since(start).Seconds(), err
	}
}

// cost returns the microseconds of processor time for one answer, in all
// rounds: the server's, the load generator's and whatever else this process
// did meanwhile. Other processes do not matter to it as they do to the clock.
func (l *load) cost() number {
	return number(perOperation(l.cpu, l.answers))
}

// costs says what an answer costs, and how many times the floor's answers there
// would be if the processors were all that counts.
func (l *load) costs(floor *load) string {
	return fmt.Sprintf("%v us of processor time, %v x the floor's speed by that", l.cost(), floor.cost()/l.cost())
}

// cpuTime is the processor time that this process has taken.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// percentile returns the milliseconds within which p per cent of all answers
// came.
func (l *load) percentile(p float64) number {
	var all []time.Duration
	for _, c := range l.conns {
		all = append(all, c.waits...)
	}
	return number(milliseconds(percentile(all, p)))
}

// do sends the request, reads the answer and returns its length.
func (c *loadConn) do() (int, error) {
	if _, err := c.Write(c.out); err != nil {
		return 0, err
	}
	return c.read()
}

func (c *loadConn) read() (int, error) {
	status, err := c.in.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if !strings.HasPrefix(string(status), "HTTP/1.1 200 ") {
		return 0, fmt.Errorf("the server answered %q", status)
	}
	size := -1
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		if len(line) <= 2 {
			break
		}
		const name = "Content-Length: "
		if len(line) > len(name) && string(line[:len(name)]) == name {
			if size, err = strconv.Atoi(strings.TrimSpace(string(line[len(name):]))); err != nil {
				return 0, err
			}
		}
	}
	if size < 0 {
		return 0, fmt.Errorf("the answer does not say how long it is")
	}
	_, err = io.CopyN(io.Discard, c.in, int64(size))
	return size, err
}
