package database

import (
	"context"
	"errors"
	"strings"
	"sync"
)

// maxNotice is how long a payload may be: PostgreSQL takes 7,999 bytes with
// the topic.
const maxNotice = 7000

// topics of this package's own.
const (
	topicEpoch = "epoch" // the epoch has been raised
	topicHello = "hello" // does this arrive?
)

type notice struct{ topic, payload string }

// Notify tells all replicas, this one too, once the transaction is committed;
// see [DB.Notify].
func (t *Tx) Notify(ctx context.Context, topic, payload string) error {
	if err := notifiable(topic, payload); err != nil {
		return err
	}
	if t.db.pg == nil {
		t.notices = append(t.notices, notice{topic, payload})
		return nil
	}
	_, err := t.Exec(ctx, sendNotice, topic+":"+payload)
	return err
}

// Notify tells all replicas, this one too, as well as it can. A notice may be
// lost, or come from anybody who can connect to the database: it says that
// something is worth looking at, and whoever waits for it must look from time
// to time all the same.
func (d *DB) Notify(ctx context.Context, topic, payload string) error {
	if err := notifiable(topic, payload); err != nil {
		return err
	}
	if d.pg == nil {
		d.deliver([]notice{{topic, payload}})
		return d.open()
	}
	_, err := d.Exec(ctx, sendNotice, topic+":"+payload)
	return err
}

const sendNotice = `SELECT pg_notify('mandate', $1)`

func notifiable(topic, payload string) error {
	switch {
	case topic == "" || strings.Contains(topic, ":") || topic == topicEpoch || topic == topicHello || !ValidText(topic, payload):
		return errors.New("notify: not a topic, or not text")
	case len(topic)+len(payload) > maxNotice:
		return errors.New("notify: the payload is too long")
	}
	return nil
}

// Subscribe returns the payloads of a topic's notices, until cancel is called.
// Of those that nobody takes 16 are kept.
func (d *DB) Subscribe(topic string) (payloads <-chan string, cancel func()) {
	c := make(chan string, 16)
	d.notices.add(topic, c)
	return c, sync.OnceFunc(func() { d.notices.remove(topic, c) })
}

func (d *DB) deliver(notices []notice) {
	for _, n := range notices {
		d.notices.deliver(n)
	}
}

// A hub has the subscribers of this process.
type hub struct {
	mu     sync.Mutex
	topics map[string]map[chan string]bool // guarded by mu
}

func (h *hub) add(topic string, c chan string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.topics == nil {
		h.topics = make(map[string]map[chan string]bool)
	}
	if h.topics[topic] == nil {
		h.topics[topic] = make(map[chan string]bool)
	}
	h.topics[topic][c] = true
}

func (h *hub) remove(topic string, c chan string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.topics[topic], c)
	if len(h.topics[topic]) == 0 {
		delete(h.topics, topic)
	}
}

// deliver never waits for a subscriber.
func (h *hub) deliver(n notice) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.topics[n.topic] {
		select {
		case c <- n.payload:
		default:
		}
	}
}
