package mandate

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// atSecond is a moment of a world that began at 10,000.
func atSecond(s float64) time.Time {
	return time.Unix(10_000, 0).Add(time.Duration(s * float64(time.Second)))
}

func TestWheelIsNeverEarlyAndASecondLate(t *testing.T) {
	w := newWheel(4, atSecond(0))
	w.add(0, atSecond(1))
	w.add(1, atSecond(1.001))
	w.add(2, atSecond(-5)) // in the past: due at once
	w.add(3, atSecond(60))
	for _, tt := range []struct {
		at   float64
		want []uint32
	}{
		{0.9, nil},
		{1, []uint32{0, 2}},
		{1.9, nil},
		{2, []uint32{1}},
		{59.9, nil},
		{60.5, []uint32{3}},
		{9000, nil},
	} {
		got := slices.Sorted(w.due(atSecond(tt.at)))
		if !slices.Equal(got, tt.want) {
			t.Errorf("at %v: got %v, want %v", tt.at, got, tt.want)
		}
	}
}

// A thing that is added while it is given out comes again, but not at once.
func TestWheelAddsAgainWhileItGivesOut(t *testing.T) {
	w := newWheel(1, atSecond(0))
	w.add(0, atSecond(1))
	for second := 1.0; second <= 3; second++ {
		n := 0
		for id := range w.due(atSecond(second)) {
			w.add(id, atSecond(0))
			if n++; n > 1 {
				t.Fatalf("at %v: due again at once", second)
			}
		}
		if n != 1 {
			t.Errorf("at %v: due %d times, want once", second, n)
		}
	}
}

func TestWheelRemembersWhatALoopDidNotSee(t *testing.T) {
	w := newWheel(10, atSecond(0))
	for id := range uint32(10) {
		w.add(id, atSecond(float64(1+id/5)))
	}
	var got []uint32
	for len(got) < 10 {
		before := len(got)
		for id := range w.due(atSecond(5)) {
			got = append(got, id)
			if len(got)%3 == 0 {
				break
			}
		}
		if len(got) == before {
			t.Fatalf("after loops that ended early: got %v of ten", got)
		}
	}
	slices.Sort(got)
	if len(slices.Compact(got)) != 10 {
		t.Errorf("got %v, want each of ten once", got)
	}
}

// What is further away than the circle reaches comes at its end, and what was
// asleep for longer comes once.
func TestWheelReachesOnce(t *testing.T) {
	w := newWheel(2, atSecond(0))
	w.add(0, atSecond(100_000))
	w.add(1, atSecond(wheelSize-1))
	if got := slices.Collect(w.due(atSecond(wheelSize - 2))); got != nil {
		t.Errorf("got %v before the end of the circle", got)
	}
	if got := slices.Sorted(w.due(atSecond(50 * wheelSize))); !slices.Equal(got, []uint32{0, 1}) {
		t.Errorf("after a long sleep: got %v, want both", got)
	}
}

// The wheel does what a list of times does.
func TestWheelAgainstAList(t *testing.T) {
	const things = 300
	w := newWheel(things, atSecond(0))
	due := make(map[uint32]float64)
	now := 0.0
	for range 20_000 {
		id := rand.Uint32N(things)
		switch rand.IntN(10) {
		case 0:
			w.remove(id)
			delete(due, id)
		case 1:
			now += rand.Float64() * 30
			for id := range w.due(atSecond(now)) {
				when, ok := due[id]
				if !ok || when > now {
					t.Fatalf("at %v: %d is due, want it at %v, %v", now, id, when, ok)
				}
				delete(due, id)
			}
			for id, when := range due {
				if when <= now-1 {
					t.Fatalf("at %v: %d was due at %v and did not come", now, id, when)
				}
			}
		default:
			when := now + rand.Float64()*(wheelSize-2)
			w.add(id, atSecond(when))
			due[id] = when
		}
	}
}
