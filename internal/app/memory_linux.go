package app

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// hideMemory keeps the process's memory, which has every key, to itself: no core
// that the system hands to a program of its own, which asks no limit, and nobody
// but root who attaches to the process or reads it.
func hideMemory() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("keep others from the memory: %w", err)
	}
	return nil
}
