package main

// These start real planes, with the binary that KBAK_TEST_PLANE names:
//
//	KBAK_TEST_PLANE=... go test -tags lifecycle ./...
//
// The tag leaves the components out of the test itself, which then builds in
// seconds; they come from the binary under test.

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

type running struct {
	ready
	t     *testing.T
	dir   string
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines *bufio.Scanner
	err   bytes.Buffer
}

func begin(t *testing.T, dir string, args ...string) *running {
	t.Helper()
	r := launch(t, dir, args...)
	r.await()
	return r
}

func (r *running) await() {
	r.t.Helper()
	if !r.lines.Scan() {
		_ = r.cmd.Wait()
		r.t.Fatalf("no plane: %s", r.err.String())
	}
	check(r.t, json.Unmarshal(r.lines.Bytes(), &r.ready))
	r.t.Logf("ready after %d ms", r.StartMillis)
}

// launch starts a plane without waiting for it.
func launch(t *testing.T, dir string, args ...string) *running {
	t.Helper()
	binary := os.Getenv("KBAK_TEST_PLANE")
	if binary == "" {
		t.Skip("KBAK_TEST_PLANE is not set: scripts/tools --need control-plane")
	}
	r := &running{t: t, dir: dir, cmd: exec.Command(binary, append([]string{"up", "--dir", dir}, args...)...)}
	stdout, err := r.cmd.StdoutPipe()
	check(t, err)
	r.stdin, err = r.cmd.StdinPipe()
	check(t, err)
	r.cmd.Stderr = &r.err
	check(t, r.cmd.Start())
	t.Cleanup(func() { _ = r.cmd.Process.Kill(); _ = r.cmd.Wait() })
	r.lines = bufio.NewScanner(stdout)
	return r
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// command sends a line and returns the answer.
func (r *running) command(line string) string {
	r.t.Helper()
	_, err := fmt.Fprintln(r.stdin, line)
	check(r.t, err)
	if !r.lines.Scan() {
		r.t.Fatalf("%s: no answer: %s", line, r.err.String())
	}
	return r.lines.Text()
}

func (r *running) pids() map[string]int {
	r.t.Helper()
	text, err := os.ReadFile(filepath.Join(r.dir, "pids"))
	check(r.t, err)
	pids := map[string]int{}
	for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		var pid int
		var name string
		_, err := fmt.Sscanf(line, "%d %s", &pid, &name)
		check(r.t, err)
		pids[name] = pid
	}
	return pids
}

// api asks the plane's server as its admin.
func (r *running) api(method, path, body string, into any) error {
	k, err := newKube(&plane{dir: r.dir})
	if err != nil {
		return err
	}
	req, err := http.NewRequest(method, r.Server+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := k.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, text)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(text, into)
}

func (r *running) clusterUID() string {
	r.t.Helper()
	var ns struct{ Metadata struct{ UID string } }
	check(r.t, r.api("GET", "/api/v1/namespaces/kube-system", "", &ns))
	return ns.Metadata.UID
}

// gone waits until none of the processes is left, zombies aside: who reaps an
// orphan is not ours to say.
func gone(t *testing.T, pids map[string]int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	check(t, poll(ctx, func() error {
		for name, pid := range pids {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			if err == nil && !bytes.Contains(stat, []byte(") Z ")) {
				return fmt.Errorf("%s (%d) is still there", name, pid)
			}
		}
		return nil
	}))
}

func eventually(t *testing.T, try func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	check(t, poll(ctx, try))
}

func TestSideBySide(t *testing.T) {
	planes := []*running{launch(t, t.TempDir()), launch(t, t.TempDir()), launch(t, t.TempDir())}
	uids := map[string]bool{}
	for _, r := range planes {
		r.await()
		uids[r.clusterUID()] = true
	}
	if len(uids) != len(planes) {
		t.Fatalf("not three clusters: %v", uids)
	}
}

func TestStdinEndStopsAndTheFolderIsTheSameClusterAgain(t *testing.T) {
	dir := t.TempDir()
	first := begin(t, dir)
	uid, pids := first.clusterUID(), first.pids()
	check(t, first.stdin.Close())
	check(t, first.cmd.Wait())
	gone(t, pids)
	if again := begin(t, dir).clusterUID(); again != uid {
		t.Fatalf("cluster %s came back as %s", uid, again)
	}
}

func TestKilledParentLeavesNoChildren(t *testing.T) {
	r := begin(t, t.TempDir())
	pids := r.pids()
	check(t, r.cmd.Process.Kill())
	gone(t, pids)
}

func TestSigtermStops(t *testing.T) {
	r := begin(t, t.TempDir(), "--without-controllers")
	pids := r.pids()
	check(t, r.cmd.Process.Signal(syscall.SIGTERM))
	if err := r.cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, r.err.String())
	}
	gone(t, pids)
}

func TestDeadComponentEndsThePlaneWithItsLog(t *testing.T) {
	r := begin(t, t.TempDir(), "--without-controllers")
	pids := r.pids()
	check(t, syscall.Kill(pids[etcdName], syscall.SIGKILL))
	if err := r.cmd.Wait(); err == nil {
		t.Fatal("it ended with success")
	}
	if !strings.Contains(r.err.String(), "etcd ended (signal: killed)") {
		t.Fatalf("it said: %s", r.err.String())
	}
	gone(t, pids)
}

func TestBadArgumentIsReported(t *testing.T) {
	r := launch(t, t.TempDir(), "--apiserver-arg", "--no-such-flag")
	if r.lines.Scan() {
		t.Fatalf("it started: %s", r.lines.Text())
	}
	if err := r.cmd.Wait(); err == nil || !strings.Contains(r.err.String(), "unknown flag: --no-such-flag") {
		t.Fatalf("%v: %s", err, r.err.String())
	}
}

func TestOneFolderOnePlane(t *testing.T) {
	r := begin(t, t.TempDir(), "--without-controllers")
	out, err := exec.Command(r.cmd.Path, "up", "--dir", r.dir).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "another control plane runs here") {
		t.Fatalf("%v: %s", err, out)
	}
}

func TestApiserverIsTakenAwayAndComesBackOnItsPort(t *testing.T) {
	r := begin(t, t.TempDir())
	uid := r.clusterUID()
	if answer := r.command("kill kube-apiserver"); answer != `{"ok":true}` {
		t.Fatal(answer)
	}
	if err := r.api("GET", "/readyz", "", nil); err == nil {
		t.Fatal("it still answers")
	}
	if answer := r.command("start kube-apiserver"); answer != `{"ok":true}` {
		t.Fatal(answer)
	}
	if r.clusterUID() != uid {
		t.Fatal("another cluster")
	}
	if answer := r.command("kill nothing"); !strings.Contains(answer, "no component") {
		t.Fatal(answer)
	}
}

func TestGarbageCollectorWorks(t *testing.T) {
	r := begin(t, t.TempDir())
	const maps = "/api/v1/namespaces/default/configmaps"
	var owner struct{ Metadata struct{ UID string } }
	check(t, r.api("POST", maps, `{"metadata":{"name":"owner"}}`, &owner))
	check(t, r.api("POST", maps, fmt.Sprintf(`{"metadata":{"name":"owned","ownerReferences":[
		{"apiVersion":"v1","kind":"ConfigMap","name":"owner","uid":%q}]}}`, owner.Metadata.UID), nil))
	check(t, r.api("DELETE", maps+"/owner", "", nil))
	eventually(t, func() error {
		if err := r.api("GET", maps+"/owned", "", nil); err == nil {
			return fmt.Errorf("the owned object is still there")
		}
		return nil
	})
}

func TestEventsHaveTheirOwnStoreAndArgumentsArePassed(t *testing.T) {
	r := begin(t, t.TempDir(), "--events-etcd", "--without-controllers",
		"--apiserver-arg", "--runtime-config=api/all=true", "--apiserver-arg", "--etcd-compaction-interval=15s",
		"--etcd-arg", "--log-level=info")
	if len(r.Etcd) != 2 || r.pids()[eventsEtcdName] == 0 {
		t.Fatalf("%+v %v", r.Etcd, r.pids())
	}
	var groups struct{ Groups []struct{ Name string } }
	check(t, r.api("GET", "/apis", "", &groups))
	names := fmt.Sprint(groups)
	if !strings.Contains(names, "internal.apiserver.k8s.io") {
		t.Fatalf("runtime-config was not passed: %s", names)
	}
}

func TestNothingListensBeyondLoopback(t *testing.T) {
	r := begin(t, t.TempDir(), "--events-etcd")
	for name, pid := range r.pids() {
		for _, address := range listening(t, pid) {
			if !strings.HasPrefix(address, "0100007F:") {
				t.Errorf("%s listens on %s", name, address)
			}
		}
	}
}

// listening gives the local addresses, in the kernel's hexadecimal, on which
// one process accepts TCP connections.
func listening(t *testing.T, pid int) []string {
	t.Helper()
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	check(t, err)
	open := map[string]bool{}
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err == nil {
			open[target] = true
		}
	}
	var found []string
	for _, table := range []string{"tcp", "tcp6"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		check(t, err)
		for _, line := range strings.Split(string(text), "\n")[1:] {
			f := strings.Fields(line)
			if len(f) > 9 && f[3] == "0A" && open["socket:["+f[9]+"]"] {
				found = append(found, f[1])
			}
		}
	}
	return found
}
