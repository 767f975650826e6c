//go:build !linux

package app

import (
	"fmt"
	"syscall"
)

// hideMemory switches core files off: they would have every key.
func hideMemory() error {
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}); err != nil {
		return fmt.Errorf("switch core files off: %w", err)
	}
	return nil
}
