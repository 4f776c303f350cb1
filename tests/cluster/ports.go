package main

import (
	"fmt"
	"os"
	"syscall"
)

// SO_REUSEPORT on amd64 and arm64; package syscall does not name it there.
const soReusePort = 0xf

// A port is a loopback port that is ours for as long as this process lives.
//
// Asking the kernel for a free port, closing it and passing its number on lets
// another process take it in between, and with many planes side by side one
// sooner or later does. So the socket stays bound, with SO_REUSEPORT, and never
// listens: the kernel gives the number to nobody else, sends it no connection,
// and lets the component (same user, told to set SO_REUSEPORT too) bind beside
// it, again after every restart.
type port struct {
	fd     int
	number int
}

func reservePort() (port, error) { return reserve(0) }

// reserve takes the port of this number, or any for 0.
func reserve(number int) (port, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return port{}, os.NewSyscallError("socket", err)
	}
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, soReusePort, 1); err != nil {
		return port{}, os.NewSyscallError("setsockopt SO_REUSEPORT", err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Port: number, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return port{}, os.NewSyscallError("bind", err)
	}
	addr, err := syscall.Getsockname(fd)
	if err != nil {
		return port{}, os.NewSyscallError("getsockname", err)
	}
	return port{fd, addr.(*syscall.SockaddrInet4).Port}, nil
}

func (p port) url(scheme string) string {
	return fmt.Sprintf("%s://127.0.0.1:%d", scheme, p.number)
}
