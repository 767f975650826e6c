package entra

import (
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"
)

const (
	// near is how far clocks may be apart before it is of any account. The
	// Date of an answer has whole seconds and is some time under way.
	near = assertionSkew

	// far is how far apart they are for the Date not to be believed: whoever
	// answers in Entra's place must not get assertions for a distant day.
	far = time.Hour
)

// A clock tells Entra's time. Assertions and ID tokens are judged by that, so
// a host whose own clock is wrong goes by the Date of Entra's answers, which
// are as good as the tokens in them.
type clock struct {
	ahead atomic.Int64 // by which Entra's is ahead of ours, in nanoseconds
	log   *slog.Logger
}

// now returns the time at Entra.
func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

// hear learns the time from the answer that has just come to a request, which
// was sent at a time of ours and at another that was believed to be Entra's. It
// reports whether that was wrong.
func (c *clock) hear(h http.Header, sent, believed time.Time) (wrong bool) {
	date, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return false
	}
	ahead := date.Add(time.Second / 2).Sub(sent.Add(time.Since(sent) / 2).Round(0))
	if ahead.Abs() < near || ahead.Abs() > far {
		ahead = 0
	}
	was := time.Duration(c.ahead.Swap(int64(ahead)))
	if (ahead - was).Abs() >= near {
		c.log.Warn("how far Entra's clock is ahead of this host's has changed; what is sent to Entra goes by Entra's. Set this host's: its own records go by that", "ahead", ahead.Round(time.Second))
	}
	return (ahead - believed.Sub(sent)).Abs() >= near
}
