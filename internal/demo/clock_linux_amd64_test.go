package demo

import (
	"encoding/binary"
	"errors"
	"syscall"
	"time"
	"unsafe"
)

// The function of the kernel's that Go's runtime asks for the time, by the
// calling convention of C; the runtime lets packages have this variable.
//
//go:linkname clockGettime runtime.vdsoClockgettimeSym
var clockGettime uintptr

// moveClock sets the wall clock of this process ahead, for all that runs in it.
// The monotonic clock goes on as it was, as on a host whose clock is wrong.
// Whole seconds count.
func moveClock(ahead time.Duration) error {
	if clockGettime == 0 {
		return errors.New("this kernel gives the time by system call alone, so the clock of one process cannot be moved")
	}
	page, err := syscall.Mmap(-1, 0, syscall.Getpagesize(), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return err
	}
	code := []byte{0x57, 0x56, 0x48, 0x83, 0xec, 0x08} // push rdi; push rsi; sub rsp, 8
	code = append(code, 0x48, 0xb8)                    // mov rax, the kernel's function
	code = binary.LittleEndian.AppendUint64(code, uint64(clockGettime))
	code = append(code, 0xff, 0xd0)                         // call rax
	code = append(code, 0x48, 0x83, 0xc4, 0x08, 0x5e, 0x5f) // add rsp, 8; pop rsi; pop rdi
	code = append(code, 0x85, 0xff, 0x75, 0x0d)             // test edi, edi; jnz, unless it was CLOCK_REALTIME, to the ret
	code = append(code, 0x48, 0xb9)                         // mov rcx, the seconds
	code = binary.LittleEndian.AppendUint64(code, uint64(int64(ahead/time.Second)))
	code = append(code, 0x48, 0x01, 0x0e) // add [rsi], rcx
	code = append(code, 0xc3)             // ret
	copy(page, code)
	if err := syscall.Mprotect(page, syscall.PROT_READ|syscall.PROT_EXEC); err != nil {
		return err
	}
	clockGettime = uintptr(unsafe.Pointer(&page[0]))
	return nil
}
