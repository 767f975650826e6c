package vault

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestRecent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := recent[int, int]{max: 100, life: time.Minute}
		for i := range 1000 {
			r.put(1, i, -i)
			if n := len(r.young) + len(r.old); n > 100 {
				t.Fatalf("it remembers %d things, want 100 at most", n)
			}
		}
		for i := 951; i < 1000; i++ { // at least half of what fits is always there
			if v, ok := r.get(1, i); !ok || v != -i {
				t.Errorf("%d: got %d, %v", i, v, ok)
			}
		}
		r.put(1, 960, 7)
		if v, _ := r.get(1, 960); v != 7 {
			t.Errorf("got %d, want what was put last", v)
		}
		time.Sleep(time.Minute)
		if _, ok := r.get(1, 999); ok {
			t.Error("it remembers for longer than a minute")
		}
		r.put(1, 1, 1)
		r.put(0, 2, 2)
		if _, ok := r.get(1, 2); ok {
			t.Error("it remembers what was learned in an epoch that is over")
		}
		if _, ok := r.get(2, 1); ok {
			t.Error("it remembers in another epoch")
		}
	})
}
