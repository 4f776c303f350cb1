package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

// A node is a kubelet with containerd beside the control plane. It works in
// namespaces of its own (network, mounts, processes, host name), so that the
// machine keeps its addresses, its firewall, /var, /run and /etc as they are,
// and so that everything ends with one process: the kernel kills what is left
// in a process namespace when its first process ends.
//
// Three processes of this binary make that:
//
//	up --node     outside; waits, then removes what the kernel keeps (cgroups)
//	node-init     the first process inside; collects orphans, which containerd's
//	              shims become as soon as they start
//	node-up       the plane itself, as without a node

const (
	nodeInitName = "node-init"
	nodeUpName   = "node-up"
	nodeName     = "kbak-node"
	// The number of the descriptor by which node-up gets the outer network.
	outerNetwork = 3
)

// nodePrograms are what a node needs besides this binary; Debian's package of each.
var nodePrograms = map[string]string{
	"containerd": "containerd", "containerd-shim-runc-v2": "containerd", "ctr": "containerd",
	"runc": "runc", "iptables": "iptables", "ipset": "ipset", "ip": "iproute2",
}

// nodeObstacle says why this machine cannot run a node, or nothing.
func nodeObstacle() error {
	if os.Geteuid() != 0 {
		return errors.New("a node needs root")
	}
	if _, err := os.Stat("/sys/fs/cgroup/memory"); err != nil {
		if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err != nil {
			return errors.New("a node needs cgroups at /sys/fs/cgroup, with the memory controller")
		}
	}
	probe := filepath.Join(cgroupRoots()[0], fmt.Sprintf("kbak-probe-%d", os.Getpid()))
	if err := os.Mkdir(probe, 0o755); err != nil {
		return fmt.Errorf("a node needs to make cgroups: %w", err)
	}
	_ = os.Remove(probe)
	for program, from := range nodePrograms {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("a node needs %s (Debian's package %s)", program, from)
		}
	}
	if cniFolder() == "" {
		return errors.New("a node needs CNI's plug-ins (Debian's package containernetworking-plugins)")
	}
	return nil
}

// cgroupRoots are the places where containers' cgroups are made.
func cgroupRoots() []string {
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		return []string{"/sys/fs/cgroup"}
	}
	roots, _ := filepath.Glob("/sys/fs/cgroup/*/cgroup.procs")
	for i, file := range roots {
		roots[i] = filepath.Dir(file)
	}
	return append(roots, "/sys/fs/cgroup")
}

// withAdministratorsPath: Debian keeps iptables where plain users do not look.
func withAdministratorsPath() {
	_ = os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
}

// upNode runs the plane inside of new namespaces and returns its exit code.
func upNode(o *options, args []string, signals <-chan os.Signal) error {
	withAdministratorsPath()
	if err := nodeObstacle(); err != nil {
		return err
	}
	network, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return err
	}
	defer network.Close()
	cmd := exec.Command("/proc/self/exe", append([]string{nodeInitName}, args...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{network}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID |
			syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		Pdeathsig: syscall.SIGKILL,
		Setpgid:   true,
	}
	removeCgroups(o.dir)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("make namespaces: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err = <-ended:
	case sig := <-signals:
		fmt.Fprintln(os.Stderr, "kbak-testplane:", sig)
		// Nothing is lost by it, as in child.kill.
		_ = cmd.Process.Kill()
		<-ended
		err = errStopped
	}
	removeCgroups(o.dir)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		// node-up has said why.
		return errSilent
	}
	return err
}

// errSilent is a failure that has been reported.
var errSilent = errors.New("failed")

// removeCgroups removes the empty cgroups of the containers that a run in dir
// had. Their names are those in containerd's state.
func removeCgroups(dir string) {
	containers, _ := filepath.Glob(filepath.Join(dir, "containerd/state/io.containerd.runtime.v2.task/k8s.io/*"))
	for _, root := range cgroupRoots() {
		parent := filepath.Join(root, "k8s.io")
		for _, container := range containers {
			removeTree(filepath.Join(parent, filepath.Base(container)))
		}
		// Another cluster's containers keep it.
		_ = os.Remove(parent)
	}
}

// removeTree removes a cgroup with those below it: the files in it go by themselves.
func removeTree(cgroup string) {
	entries, _ := os.ReadDir(cgroup)
	for _, entry := range entries {
		if entry.IsDir() {
			removeTree(filepath.Join(cgroup, entry.Name()))
		}
	}
	_ = os.Remove(cgroup)
}

// nodeInit starts node-up and waits for every process that ends, until node-up does.
func nodeInit(args []string) int {
	// Only node-up itself is told to stop: by its input, or by the end of this process.
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	runtime.LockOSThread()
	pid, err := syscall.ForkExec("/proc/self/exe", append([]string{"kbak-testplane", nodeUpName}, args...),
		&syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2, outerNetwork}})
	if err != nil {
		fmt.Fprintln(os.Stderr, "kbak-testplane: start the plane:", err)
		return 1
	}
	for {
		var status syscall.WaitStatus
		ended, err := syscall.Wait4(-1, &status, 0, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return 1
		}
		if ended == pid {
			if status.Exited() {
				return status.ExitStatus()
			}
			return 1
		}
	}
}

// nodeUp is `up` in the namespaces that upNode made.
func nodeUp(args []string) int {
	syscall.CloseOnExec(outerNetwork)
	o, err := parse(args)
	if err == nil {
		err = enterNode(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "kbak-testplane up:", err)
		return 1
	}
	return runUntilStopped(o)
}

// enterNode makes the machine that the node sees out of the one that is there.
func enterNode(o *options) error {
	for _, path := range []string{"/run", "/var", "/etc"} {
		if strings.HasPrefix(o.dir+"/", path+"/") {
			return fmt.Errorf("--dir: a node has a %s of its own: choose a folder elsewhere", path)
		}
	}
	if err := mounts(o.dir); err != nil {
		return err
	}
	if err := syscall.Sethostname([]byte(nodeName)); err != nil {
		return err
	}
	for _, line := range []string{
		"link set lo up",
		// The node's address, on a device that leads nowhere.
		"link add node0 type bridge",
		"address add " + advertisedAddress + "/32 dev node0",
		"link set node0 up",
		// Addresses of Services have no route, and get as far as the firewall
		// that rewrites them only with a default one.
		"route add default dev node0",
	} {
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", line, err, out)
		}
	}
	return nil
}
