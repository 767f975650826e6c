package keyset

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// One request begins at a time, whoever found that one is needed.
func TestBegin(t *testing.T) {
	s := New(time.Hour, func(context.Context) (map[string]int, error) { return nil, nil })
	if !s.begin() || s.begin() {
		t.Error("a second request begins right after the first")
	}
}

// Unknown ids ask once a minute, and the version tells that keys came.
func TestSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		s := New(time.Hour, func(context.Context) (map[string]int, error) {
			asked++
			return map[string]int{"one": asked}, nil
		})
		for i := range 100 {
			if _, err := s.Get(t.Context(), fmt.Sprint("made up ", i)); !errors.Is(err, ErrUnknown) {
				t.Fatalf("got %v", err)
			}
		}
		if asked != 1 || s.Version() != 1 {
			t.Errorf("asked %d times, version %d", asked, s.Version())
		}
		time.Sleep(time.Hour)
		if k, err := s.Get(t.Context(), "one"); err != nil || k != 2 || s.Version() != 2 {
			t.Errorf("after an hour: %d, %v, version %d", k, err, s.Version())
		}
	})
}

// Without any key the error says so, and is not that a key is unknown.
func TestNoKeys(t *testing.T) {
	down := errors.New("down")
	s := New(time.Hour, func(context.Context) (map[string]int, error) { return nil, down })
	if _, err := s.Get(t.Context(), "one"); !errors.Is(err, down) {
		t.Errorf("the first: %v", err)
	}
	if _, err := s.Get(t.Context(), "one"); err == nil || errors.Is(err, ErrUnknown) {
		t.Errorf("the second: %v", err)
	}
}
