// Command kbak-testkine is kine with PostgreSQL beneath: the other datastore that API servers stand
// on (k3s). Only what the tests need of kine is linked.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/k3s-io/kine/pkg/drivers/generic"
	_ "github.com/k3s-io/kine/pkg/drivers/pgsql"
	"github.com/k3s-io/kine/pkg/endpoint"
	"golang.org/x/sys/unix"
)

func main() {
	listen := flag.String("listen", "", "`address` to serve etcd's API on: 127.0.0.1:PORT")
	database := flag.String("database", "", "`URL` of the database: postgres://USER@HOST/NAME?sslmode=disable")
	flag.Parse()
	if *listen == "" || *database == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var group sync.WaitGroup
	// kine itself takes a port for itself alone, and tests hold theirs beside whom they give them to.
	folder, err := os.MkdirTemp("", "kine")
	if err != nil {
		fail(err)
	}
	defer os.RemoveAll(folder)
	socket := filepath.Join(folder, "socket")
	_, err = endpoint.Listen(ctx, endpoint.Config{
		WaitGroup:            &group,
		Listener:             "unix://" + socket,
		Endpoint:             *database,
		ConnectionPoolConfig: generic.ConnectionPoolConfig{MaxOpen: 16, MaxIdle: 4},
		// As kine's own command has them by default.
		NotifyInterval:      5 * time.Second,
		EmulatedETCDVersion: "3.6.11",
		CompactTimeout:      5 * time.Second,
		CompactMinRetain:    1000,
		CompactBatchSize:    1000,
		PollBatchSize:       500,
		PollInterval:        time.Second,
		LogFormat:           "plain",
	})
	if err != nil {
		fail(err)
	}
	if err := serve(ctx, *listen, socket); err != nil {
		fail(err)
	}
	<-ctx.Done()
	group.Wait()
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "kbak-testkine:", err)
	os.Exit(1)
}

// serve takes connections on an address and passes them on to a socket.
func serve(ctx context.Context, address, socket string) error {
	shared := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		control := func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		}
		return errors.Join(c.Control(control), err)
	}}
	listener, err := shared.Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	go func() {
		for {
			from, err := listener.Accept()
			if err != nil {
				return
			}
			go pass(from, socket)
		}
	}()
	return nil
}

func pass(from net.Conn, socket string) {
	defer from.Close()
	to, err := net.Dial("unix", socket)
	if err != nil {
		return
	}
	defer to.Close()
	go func() {
		_, _ = io.Copy(to, from)
		to.Close()
	}()
	_, _ = io.Copy(from, to)
}
