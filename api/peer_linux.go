package api

import "golang.org/x/sys/unix"

// peer returns the user id of the process at the other end of a Unix socket,
// as the kernel noted it when that process connected.
func peer(fd int) (int, error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 0, err
	}
	return int(cred.Uid), nil
}
