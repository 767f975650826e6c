package audit

import (
	"errors"
	"testing"
	"time"
)

// The index gives way to the log, but not for ever.
func TestIndexPauses(t *testing.T) {
	for _, tt := range []struct {
		took time.Duration
		left int64
		err  error
		want time.Duration
	}{
		{time.Millisecond, 0, nil, 50 * time.Millisecond},
		{time.Second, 0, nil, 9 * time.Second},
		{time.Second, indexBehind, nil, 9 * time.Second},
		{time.Second, indexBehind + 1, nil, 0},
		{time.Second, indexBehind + 1, errors.New("gone"), time.Second},
	} {
		if got := pauseAfter(tt.took, tt.left, tt.err); got != tt.want {
			t.Errorf("after %v, %d left, %v: got %v, want %v", tt.took, tt.left, tt.err, got, tt.want)
		}
	}
}
