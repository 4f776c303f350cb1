package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

func init() {
	// PDEATHSIG fires when the thread that forked ends, not the process, and
	// the Go runtime ends threads as it likes. Children are started from the
	// main goroutine only, so it is tied to the main thread, which lives as
	// long as the process.
	runtime.LockOSThread()
}

// A child is one component and, while cmd is set, its process. All fields
// belong to the main goroutine; exited is closed once the process is waited for.
type child struct {
	program string
	label   string // its name in the pids file, in commands and of its log
	path    string
	args    []string
	log     string
	before  func(*session) error // what to wait for before its first start
	cmd     *exec.Cmd
	exited  chan struct{}
}

// start runs the component. When its process ends, for whatever reason, the
// child is sent to deaths; whether that was wanted is for died to say.
func (c *child) start(deaths chan<- *child) error {
	log, err := os.OpenFile(c.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := &exec.Cmd{
		Path:   c.path,
		Args:   append([]string{c.program}, c.args...),
		Dir:    filepath.Dir(c.log),
		Env:    childEnv(),
		Stdout: log,
		Stderr: log,
		SysProcAttr: &syscall.SysProcAttr{
			// Killed with us even when we are killed with -9.
			Pdeathsig: syscall.SIGKILL,
			// Its own group, so that Ctrl-C or a runner's signal to our group
			// reaches us alone and we end the children in order.
			Setpgid: true,
		},
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", c.label, err)
	}
	exited := make(chan struct{})
	c.cmd, c.exited = cmd, exited
	go func() {
		_ = cmd.Wait()
		close(exited)
		deaths <- c
	}()
	return nil
}

// kill ends the process at once. Nothing is lost by it: what etcd has written
// is in the page cache, and nothing else holds state.
func (c *child) kill() {
	if c.cmd == nil {
		return
	}
	_ = c.cmd.Process.Kill()
	<-c.exited
	c.cmd = nil
}

// died tells whether it ended without being killed by us.
func (c *child) died() bool {
	if c.cmd == nil {
		return false
	}
	select {
	case <-c.exited:
		return true
	default:
		return false
	}
}

// failure says how the process ended and what it last logged.
func (c *child) failure() error {
	text, _ := os.ReadFile(c.log)
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	lines = lines[max(0, len(lines)-15):]
	return fmt.Errorf("%s ended (%s); the end of %s:\n%s",
		c.label, c.cmd.ProcessState, c.log, bytes.Join(lines, []byte("\n")))
}

// childEnv is what components may see of our environment: no cluster, proxy or
// cloud settings of the shell that runs the tests.
func childEnv() []string {
	keep := []string{"PATH=", "HOME=", "TMPDIR=", "GODEBUG=", "GOGC=", "GOMAXPROCS=", "GOMEMLIMIT="}
	var env []string
	for _, entry := range os.Environ() {
		for _, prefix := range keep {
			if strings.HasPrefix(entry, prefix) {
				env = append(env, entry)
			}
		}
	}
	return env
}
