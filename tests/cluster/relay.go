package main

import (
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// A socket belongs to the network in which it was made, whatever its process
// does later. So one thread of node-up that has moved to the outer network
// makes the sockets by which the two meet:
//
//	outside, 127.0.0.1:N    -> inside, the API server, or what `publish` names
//	inside, 192.0.2.1:PORT  -> outside, 127.0.0.1:PORT, for what pods may reach

// outside runs f on a thread of the outer network.
func outside(f func() error) error {
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine.
		runtime.LockOSThread()
		if err := unix.Setns(outerNetwork, unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter the outer network: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}

// publish makes an inner address reachable at a loopback port outside, whose
// number it returns.
func publish(inner string) (int, error) {
	var listener net.Listener
	err := outside(func() (err error) {
		listener, err = net.Listen("tcp4", "127.0.0.1:0")
		return err
	})
	if err != nil {
		return 0, err
	}
	go relay(listener, func() (net.Conn, error) { return net.Dial("tcp4", inner) })
	return listener.Addr().(*net.TCPAddr).Port, nil
}

// reach lets pods reach a loopback port outside at the node's address.
func reach(port string) error {
	listener, err := net.Listen("tcp4", net.JoinHostPort(advertisedAddress, port))
	if err != nil {
		return err
	}
	go relay(listener, func() (conn net.Conn, err error) {
		err = outside(func() error {
			conn, err = net.Dial("tcp4", net.JoinHostPort("127.0.0.1", port))
			return err
		})
		return conn, err
	})
	return nil
}

func relay(listener net.Listener, dial func() (net.Conn, error)) {
	for {
		from, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			to, err := dial()
			if err != nil {
				// A reset, as a closed port answers.
				_ = from.(*net.TCPConn).SetLinger(0)
				_ = from.Close()
				return
			}
			var both sync.WaitGroup
			both.Go(func() { half(to, from) })
			both.Go(func() { half(from, to) })
			both.Wait()
			_, _ = from.Close(), to.Close()
		}()
	}
}

// half copies one direction and passes its end on.
func half(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	_ = to.(*net.TCPConn).CloseWrite()
}
