package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// beginNode starts a plane with a node, or skips where none can run.
func beginNode(t *testing.T) *running {
	t.Helper()
	arguments := strings.Fields(os.Getenv("KBAK_TEST_NODE"))
	if len(arguments) == 0 {
		t.Skip("KBAK_TEST_NODE is empty: scripts/tools --need node says why")
	}
	return begin(t, t.TempDir(), arguments...)
}

const podTemplate = `{"metadata":{"name":"probe"},"spec":{"restartPolicy":"Never","containers":[
	{"name":"probe","image":"kbak.test/busybox:1","imagePullPolicy":"Never","command":["sh","-c",%q]}]}}`

// pod runs a script in a pod and returns its log when it has ended, well or not.
func (r *running) pod(script string) string {
	r.t.Helper()
	const pods = "/api/v1/namespaces/default/pods"
	check(r.t, r.api("POST", pods, fmt.Sprintf(podTemplate, script), nil))
	eventually(r.t, func() error {
		var pod struct{ Status struct{ Phase string } }
		if err := r.api("GET", pods+"/probe", "", &pod); err != nil {
			return err
		}
		if phase := pod.Status.Phase; phase != "Succeeded" && phase != "Failed" {
			return fmt.Errorf("the pod is %s", phase)
		}
		return nil
	})
	k, err := newKube(&plane{dir: r.dir})
	check(r.t, err)
	resp, err := k.client.Get(r.Server + pods + "/probe/log")
	check(r.t, err)
	defer resp.Body.Close()
	log := make([]byte, 1<<16)
	n, _ := resp.Body.Read(log)
	return string(log[:n])
}

// left says what a node has left behind on this machine: mounts, processes, cgroups.
func left(t *testing.T, dir string, containers []string) []string {
	t.Helper()
	var found []string
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	check(t, err)
	for _, line := range strings.Split(string(mounts), "\n") {
		if strings.Contains(line, dir) {
			found = append(found, "mount "+line)
		}
	}
	commands, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range commands {
		text, _ := os.ReadFile(file)
		if strings.Contains(string(text), dir) {
			found = append(found, "process "+strings.ReplaceAll(string(text), "\x00", " "))
		}
	}
	for _, root := range cgroupRoots() {
		for _, container := range containers {
			cgroup := filepath.Join(root, "k8s.io", container)
			if _, err := os.Stat(cgroup); err == nil {
				found = append(found, "cgroup "+cgroup)
			}
		}
	}
	return found
}

func (r *running) containers() []string {
	r.t.Helper()
	paths, err := filepath.Glob(filepath.Join(r.dir, "containerd/state/io.containerd.runtime.v2.task/k8s.io/*"))
	check(r.t, err)
	if len(paths) == 0 {
		r.t.Fatal("no containers")
	}
	for i, path := range paths {
		paths[i] = filepath.Base(path)
	}
	return paths
}

func TestPodsResolveNamesAndReachTheMachine(t *testing.T) {
	r := beginNode(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "hello from outside")
	}))
	defer server.Close()
	port := server.URL[strings.LastIndex(server.URL, ":")+1:]
	if answer := r.command("reach " + port); answer != `{"ok":true}` {
		t.Fatal(answer)
	}
	log := r.pod("nslookup kubernetes.default.svc.cluster.local && wget -q -O- http://192.0.2.1:" + port)
	if !strings.Contains(log, firstServiceIP) || !strings.Contains(log, "hello from outside") {
		t.Fatal(log)
	}
}

func TestAddressOfTheNodeIsReachableFromTheMachine(t *testing.T) {
	r := beginNode(t)
	var answer struct{ Port int }
	check(t, json.Unmarshal([]byte(r.command("publish "+dnsService+":53")), &answer))
	resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp4", fmt.Sprintf("127.0.0.1:%d", answer.Port))
	}}
	found, err := resolver.LookupHost(t.Context(), "kubernetes.default.svc.cluster.local.")
	check(t, err)
	if len(found) != 1 || found[0] != firstServiceIP {
		t.Fatal(found)
	}
}

func TestNodeLeavesNothingWhenItStops(t *testing.T) {
	before, err := os.ReadFile("/proc/sys/vm/overcommit_memory")
	check(t, err)
	r := beginNode(t)
	containers := r.containers()
	check(t, r.cmd.Process.Signal(syscall.SIGTERM))
	check(t, r.cmd.Wait())
	if found := left(t, r.dir, containers); len(found) > 0 {
		t.Fatal(strings.Join(found, "\n"))
	}
	after, err := os.ReadFile("/proc/sys/vm/overcommit_memory")
	check(t, err)
	if string(before) != string(after) {
		t.Fatalf("vm.overcommit_memory was %s and is %s", before, after)
	}
}

func TestKilledNodeTakesItsProcessesAlong(t *testing.T) {
	r := beginNode(t)
	check(t, r.cmd.Process.Kill())
	_ = r.cmd.Wait()
	deadline := time.Now().Add(20 * time.Second)
	for {
		found := left(t, r.dir, nil)
		if len(found) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(strings.Join(found, "\n"))
		}
		time.Sleep(50 * time.Millisecond)
	}
	removeCgroups(r.dir)
}
