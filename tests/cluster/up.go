package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

type options struct {
	dir             string
	assets          string
	controllers     bool
	eventsEtcd      bool
	audit           bool
	node            bool
	images          list
	dns             bool
	kubeRouter      string
	timeout         time.Duration
	etcdArgs        list
	apiserverArgs   list
	controllersArgs list
}

type list []string

func (l *list) String() string     { return strings.Join(*l, " ") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func parse(args []string) (*options, error) {
	o := &options{}
	var withoutControllers bool
	flags := flag.NewFlagSet("kbak-testplane up", flag.ContinueOnError)
	flags.StringVar(&o.dir, "dir", "", "folder for all `state`: keys, kubeconfig, data, logs; used again, it is the same cluster")
	flags.StringVar(&o.assets, "assets", os.Getenv("KUBEBUILDER_ASSETS"),
		"run the components from this `folder` instead of from this binary (default $KUBEBUILDER_ASSETS)")
	flags.BoolVar(&withoutControllers, "without-controllers", false, "no kube-controller-manager (implied where --assets has none)")
	flags.BoolVar(&o.eventsEtcd, "events-etcd", false, "keep Events in an etcd of their own")
	flags.BoolVar(&o.audit, "audit", false, "log each request with its user and the answer's code to audit.log in --dir")
	flags.BoolVar(&o.node, "node", false, "also a scheduler, containerd, a kubelet and kube-proxy: pods run (root only)")
	flags.Var(&o.images, "image", "with --node: import this `archive` of images (repeatable); one must have "+sandboxImage+"")
	flags.BoolVar(&o.dns, "dns", false, "with --node: names of Services resolve, by "+dnsImage+" of an --image")
	flags.StringVar(&o.kubeRouter, "kube-router", "", "with --node: this `program` enforces NetworkPolicies")
	flags.DurationVar(&o.timeout, "timeout", 2*time.Minute, "give up when not ready by then")
	flags.Var(&o.etcdArgs, "etcd-arg", "one more `argument` for etcd (repeatable; the last of a kind wins)")
	flags.Var(&o.apiserverArgs, "apiserver-arg", "one more `argument` for kube-apiserver")
	flags.Var(&o.controllersArgs, "controller-manager-arg", "one more `argument` for kube-controller-manager")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if o.dir == "" {
		return nil, errors.New("--dir is missing")
	}
	o.controllers = !withoutControllers
	dir, err := filepath.Abs(o.dir)
	if err != nil {
		return nil, err
	}
	o.dir = dir
	for i, image := range o.images {
		if o.images[i], err = filepath.Abs(image); err != nil {
			return nil, err
		}
	}
	if o.node && (withoutControllers || len(o.images) == 0) {
		return nil, errors.New("--node needs controllers and an --image")
	}
	if o.assets != "" {
		// Absolute, because components run in --dir.
		assets, err := filepath.Abs(o.assets)
		if err != nil {
			return nil, err
		}
		o.assets = assets
		// What setup-envtest downloads has no controller manager.
		if _, err := os.Stat(filepath.Join(assets, controllersName)); err != nil {
			o.controllers = false
		}
	}
	return o, nil
}

// up runs a control plane until its stdin ends, a signal comes or a component
// dies, and returns the exit code.
func up(args []string) int {
	o, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "kbak-testplane up:", err)
		return 2
	}
	if o.node {
		return exitCode(upNode(o, args, stopSignals()))
	}
	return runUntilStopped(o)
}

// stopSignals: called before anything starts, so that no signal finds children
// unattended.
func stopSignals() <-chan os.Signal {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	return signals
}

func runUntilStopped(o *options) int { return exitCode(run(o, stopSignals())) }

func exitCode(err error) int {
	switch {
	case err == nil || errors.Is(err, errStopped):
		return 0
	case !errors.Is(err, errSilent):
		fmt.Fprintln(os.Stderr, "kbak-testplane up:", err)
	}
	return 1
}

// errStopped ends run without being a failure.
var errStopped = errors.New("stopped")

func run(o *options, signals <-chan os.Signal) error {
	p, err := newPlane(o)
	if err != nil {
		return err
	}
	defer p.stop()
	s := &session{plane: p, o: o, signals: signals, commands: readLines(os.Stdin), out: json.NewEncoder(os.Stdout)}
	err = s.bringUp()
	for err == nil {
		err = s.serve()
	}
	return err
}

// A session is a running plane and the one who runs it. It lives on the main
// goroutine (see child.go); what takes time runs beside it and reports back.
type session struct {
	plane    *plane
	o        *options
	signals  <-chan os.Signal
	commands <-chan string
	out      *json.Encoder
}

// ready is the line on stdout that says that the plane can be used.
type ready struct {
	Kubeconfig  string   `json:"kubeconfig"`
	Pid         int      `json:"pid"`
	Server      string   `json:"server"`
	Etcd        []string `json:"etcd"`
	Version     string   `json:"version"`
	Controllers bool     `json:"controllers"`
	StartMillis int64    `json:"start_ms"`
}

func (s *session) bringUp() error {
	begin := time.Now()
	p := s.plane
	for _, c := range p.children {
		if c.before != nil {
			if err := c.before(s); err != nil {
				return err
			}
		}
		if err := c.start(p.deaths); err != nil {
			return err
		}
		if err := p.writePids(); err != nil {
			return err
		}
	}
	if s.o.dns {
		if err := s.applyDNS(); err != nil {
			return err
		}
	}
	line := ready{
		Kubeconfig:  p.file("kubeconfig"),
		Pid:         os.Getpid(),
		Server:      p.server,
		Controllers: s.o.controllers,
	}
	for _, e := range p.etcds {
		line.Etcd = append(line.Etcd, e.url("http"))
	}
	err := s.waitFor(func(ctx context.Context, k *kube) (err error) {
		if err = k.ready(ctx, s.o.controllers); err == nil {
			line.Version, err = k.version(ctx)
		}
		if err == nil && s.o.node {
			err = k.nodeReady(ctx)
		}
		if err == nil && s.o.dns {
			err = dnsReady(ctx)
		}
		return err
	})
	if err != nil {
		return err
	}
	line.StartMillis = time.Since(begin).Milliseconds()
	return s.out.Encode(line)
}

// serve does the next thing that is asked of a running plane.
func (s *session) serve() error {
	select {
	case sig := <-s.signals:
		fmt.Fprintln(os.Stderr, "kbak-testplane:", sig)
		return errStopped
	case line, open := <-s.commands:
		if !open {
			return errStopped
		}
		return s.command(line)
	case c := <-s.plane.deaths:
		if c.died() {
			return c.failure()
		}
		return nil
	}
}

// command is `kill NAME` or `start NAME`: how a test takes a component away and
// brings it back, on the same port and with the same data. With a node also
// `reach PORT`, `publish ADDRESS` and `import FILE`.
func (s *session) command(line string) error {
	verb, label, _ := strings.Cut(strings.TrimSpace(line), " ")
	type answer struct {
		OK    bool   `json:"ok"`
		Port  int    `json:"port,omitempty"`
		Error string `json:"error,omitempty"`
	}
	c := s.plane.child(label)
	switch {
	case s.o.node && verb == "reach":
		if err := reach(label); err != nil {
			return s.out.Encode(answer{Error: err.Error()})
		}
	case s.o.node && verb == "publish":
		number, err := publish(label)
		if err != nil {
			return s.out.Encode(answer{Error: err.Error()})
		}
		return s.out.Encode(answer{OK: true, Port: number})
	case s.o.node && verb == "import":
		if err := s.plane.importImage(label); err != nil {
			return s.out.Encode(answer{Error: err.Error()})
		}
	case c == nil:
		return s.out.Encode(answer{Error: fmt.Sprintf("no component %q", label)})
	case verb == "kill":
		c.kill()
	case verb == "start":
		if c.cmd == nil {
			if err := c.start(s.plane.deaths); err != nil {
				return err
			}
		}
		if err := s.waitFor(func(ctx context.Context, k *kube) error { return k.ready(ctx, false) }); err != nil {
			return err
		}
	default:
		return s.out.Encode(answer{Error: fmt.Sprintf("no command %q: kill, start, and with a node reach, publish, import", verb)})
	}
	if err := s.plane.writePids(); err != nil {
		return err
	}
	return s.out.Encode(answer{OK: true})
}

// waitFor polls until the check passes, and stops early on anything that makes
// waiting pointless.
func (s *session) waitFor(check func(context.Context, *kube) error) error {
	k, err := newKube(s.plane)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.o.timeout)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- poll(ctx, func() error { return check(ctx, k) }) }()
	for {
		select {
		case err := <-done:
			if err != nil {
				return fmt.Errorf("not ready within %s: %w; logs are in %s", s.o.timeout, err, s.plane.dir)
			}
			return nil
		case <-s.signals:
			return errStopped
		case line, open := <-s.commands:
			if !open {
				return errStopped
			}
			fmt.Fprintf(os.Stderr, "kbak-testplane: %q came before the answer to the last command, ignored\n", line)
		case c := <-s.plane.deaths:
			if c.died() {
				return c.failure()
			}
		}
	}
}

func readLines(f *os.File) <-chan string {
	lines := make(chan string)
	go func() {
		defer close(lines)
		for scanner := bufio.NewScanner(f); scanner.Scan(); {
			lines <- scanner.Text()
		}
	}()
	return lines
}
