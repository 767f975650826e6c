//go:build !(linux && amd64)

package demo

import (
	"errors"
	"time"
)

func moveClock(time.Duration) error {
	return errors.New("the clock of one process can be moved on linux/amd64 alone")
}
