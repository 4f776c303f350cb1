package main

import (
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	etcdName        = "etcd"
	eventsEtcdName  = "etcd-events"
	apiserverName   = "kube-apiserver"
	controllersName = "kube-controller-manager"

	frontProxyName = "front-proxy-client"
	serviceRange   = "10.96.0.0/16"
	firstServiceIP = "10.96.0.1"
	// The address that the API server publishes in the Endpoints of the
	// `kubernetes` Service. Validation refuses loopback there, the default is
	// whatever interface the machine has (none at all fails the start), and
	// without a node nothing ever connects to it: an address reserved for
	// documentation. With a node it is the node's.
	advertisedAddress = "192.0.2.1"
)

// auditPolicy logs each request once, without bodies: they hold Secrets.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
`

// A plane is one control plane: its folder, its ports, its processes.
type plane struct {
	dir       string
	apiserver port
	server    string // the API server's URL for the caller
	etcds     []port // clients' ports: the main store, then the events' one
	children  []*child
	deaths    chan *child
	lock      *os.File
}

func newPlane(o *options) (*plane, error) {
	dir, err := filepath.Abs(o.dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	p := &plane{dir: dir, deaths: make(chan *child)}
	if err := p.lockDir(); err != nil {
		return nil, err
	}
	if err := makePKI(p.file("pki")); err != nil {
		return nil, err
	}
	if err := writeFile(p.file("audit.yaml"), auditPolicy); err != nil {
		return nil, err
	}
	number := 0
	if o.node {
		// As real ones have it; NetworkPolicies name it. This network is our own.
		number = 6443
	}
	if p.apiserver, err = reserve(number); err != nil {
		return nil, err
	}
	stores := []string{etcdName}
	if o.eventsEtcd {
		stores = append(stores, eventsEtcdName)
	}
	for _, label := range stores {
		if err := p.addEtcd(o, label); err != nil {
			return nil, err
		}
	}
	if err := p.add(o, apiserverName, apiserverName, append(p.apiserverArgs(o), o.apiserverArgs...)); err != nil {
		return nil, err
	}
	if o.controllers {
		if err := p.add(o, controllersName, controllersName, append(p.controllersArgs(), o.controllersArgs...)); err != nil {
			return nil, err
		}
		// It gives up when the API server is not there within ten seconds,
		// which on a busy machine it may not be.
		p.child(controllersName).before = (*session).untilServing
	}
	if o.node {
		if err := p.addNode(o); err != nil {
			return nil, err
		}
	}
	return p, p.writeKubeconfigs(o)
}

func (p *plane) file(name string) string { return filepath.Join(p.dir, name) }
func (p *plane) key(name string) string  { return filepath.Join(p.dir, "pki", name) }

// lockDir refuses a folder in which another plane runs. The lock goes with the
// process, so there is nothing to clean up after a crash.
func (p *plane) lockDir() error {
	f, err := os.OpenFile(p.file("lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("%s: another control plane runs here (%w)", p.dir, err)
	}
	p.lock = f
	return nil
}

func (p *plane) add(o *options, program, label string, args []string) error {
	path, err := o.find(program)
	if err != nil {
		return err
	}
	c := &child{program: program, label: label, path: path, args: args, log: p.file(label + ".log")}
	p.children = append(p.children, c)
	return nil
}

func (p *plane) addEtcd(o *options, label string) error {
	clients, err := reservePort()
	if err != nil {
		return err
	}
	peers, err := reservePort()
	if err != nil {
		return err
	}
	p.etcds = append(p.etcds, clients)
	args := []string{
		"--name=" + label,
		"--data-dir=" + p.file(label),
		"--listen-client-urls=" + clients.url("http"),
		"--advertise-client-urls=" + clients.url("http"),
		"--listen-peer-urls=" + peers.url("http"),
		"--initial-advertise-peer-urls=" + peers.url("http"),
		"--initial-cluster=" + label + "=" + peers.url("http"),
		"--socket-reuse-port",
		// State lives as long as a test: kill -9 is survived, a power cut is not.
		"--unsafe-no-fsync",
		// A member alone waits out one election timeout before it serves.
		"--heartbeat-interval=10",
		"--election-timeout=100",
		// Real clusters hold objects of over a megabyte; so must tests.
		"--max-request-bytes=10485760",
		"--quota-backend-bytes=8589934592",
		"--log-level=warn",
	}
	return p.add(o, etcdName, label, append(args, o.etcdArgs...))
}

func (p *plane) apiserverArgs(o *options) []string {
	args := []string{
		"--etcd-servers=" + p.etcds[0].url("http"),
		"--bind-address=" + bindAddress(o),
		fmt.Sprintf("--secure-port=%d", p.apiserver.number),
		"--permit-port-sharing=true",
		"--advertise-address=" + advertisedAddress,
		"--tls-cert-file=" + p.key("apiserver.crt"),
		"--tls-private-key-file=" + p.key("apiserver.key"),
		"--client-ca-file=" + p.key("ca.crt"),
		"--authorization-mode=Node,RBAC",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + p.key("service-account.pub"),
		"--service-account-signing-key-file=" + p.key("service-account.key"),
		"--service-cluster-ip-range=" + serviceRange,
		"--allow-privileged=true",
		// Aggregated APIs, with a Service's endpoints used as they stand: there
		// is no kube-proxy behind a Service's address here.
		"--enable-aggregator-routing=true",
		"--requestheader-client-ca-file=" + p.key("front-proxy-ca.crt"),
		"--requestheader-allowed-names=" + frontProxyName,
		"--requestheader-username-headers=X-Remote-User",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file=" + p.key(frontProxyName+".crt"),
		"--proxy-client-key-file=" + p.key(frontProxyName+".key"),
	}
	if o.audit {
		args = append(args, "--audit-policy-file="+p.file("audit.yaml"), "--audit-log-path="+p.file("audit.log"))
	}
	if o.eventsEtcd {
		args = append(args, "--etcd-servers-overrides=/events#"+p.etcds[1].url("http"))
	}
	if o.node {
		// For logs and exec.
		args = append(args, "--kubelet-preferred-address-types=InternalIP")
	}
	if !o.controllers {
		// Nobody makes service accounts then, and no pod could be created.
		args = append(args, "--disable-admission-plugins=ServiceAccount")
	}
	return args
}

func (p *plane) controllersArgs() []string {
	return []string{
		"--kubeconfig=" + p.file("controller-manager.kubeconfig"),
		// It serves nothing that a test asks for: no port.
		"--secure-port=0",
		"--leader-elect=false",
		"--use-service-account-credentials=true",
		"--service-account-private-key-file=" + p.key("service-account.key"),
		"--root-ca-file=" + p.key("ca.crt"),
		"--cluster-signing-cert-file=" + p.key("ca.crt"),
		"--cluster-signing-key-file=" + p.key("ca.key"),
		// Otherwise it makes its folder of plug-ins in /usr.
		"--flex-volume-plugin-dir=" + p.file("flexvolume"),
		// The default of 20 requests a second makes tests wait for the garbage
		// collector and for namespaces to end.
		"--kube-api-qps=500",
		"--kube-api-burst=1000",
	}
}

// bindAddress: pods reach the API server at the node's address.
func bindAddress(o *options) string {
	if o.node {
		return "0.0.0.0"
	}
	return "127.0.0.1"
}

func (p *plane) writeKubeconfigs(o *options) error {
	var users []string
	if o.controllers {
		users = append(users, "controller-manager")
	}
	if o.node {
		users = append(users, "scheduler", "kubelet", "proxy", "router")
	}
	for _, user := range users {
		if err := p.writeKubeconfig(user+".kubeconfig", user, p.apiserver.url("https")); err != nil {
			return err
		}
	}
	p.server = p.apiserver.url("https")
	if o.node {
		// The caller is in another network.
		number, err := publish(fmt.Sprintf("127.0.0.1:%d", p.apiserver.number))
		if err != nil {
			return err
		}
		p.server = fmt.Sprintf("https://127.0.0.1:%d", number)
	}
	return p.writeKubeconfig("kubeconfig", "admin", p.server)
}

// Certificates are embedded: tests copy this file elsewhere.
const kubeconfigTemplate = `apiVersion: v1
kind: Config
current-context: kbak-test
clusters:
- name: kbak-test
  cluster:
    server: %s
    certificate-authority-data: %s
users:
- name: kbak-test
  user:
    client-certificate-data: %s
    client-key-data: %s
contexts:
- name: kbak-test
  context:
    cluster: kbak-test
    user: kbak-test
`

func (p *plane) writeKubeconfig(name, user, server string) error {
	fields := []any{server}
	for _, file := range []string{"ca.crt", user + ".crt", user + ".key"} {
		text, err := os.ReadFile(p.key(file))
		if err != nil {
			return err
		}
		fields = append(fields, base64.StdEncoding.EncodeToString(text))
	}
	return writeFile(p.file(name), fmt.Sprintf(kubeconfigTemplate, fields...))
}

// writePids records who runs, one `PID NAME` a line, for tests that signal one
// component and for a person who looks for what is left over.
func (p *plane) writePids() error {
	var text strings.Builder
	fmt.Fprintf(&text, "%d kbak-testplane\n", os.Getpid())
	for _, c := range p.children {
		if c.cmd != nil {
			fmt.Fprintf(&text, "%d %s\n", c.cmd.Process.Pid, c.label)
		}
	}
	return writeFile(p.file("pids"), text.String())
}

// writeFile replaces a file at once: others read these while we run.
func writeFile(path, text string) error {
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func (p *plane) child(label string) *child {
	for _, c := range p.children {
		if c.label == label {
			return c
		}
	}
	return nil
}

// stop ends everything, clients before servers.
func (p *plane) stop() {
	for i := len(p.children) - 1; i >= 0; i-- {
		p.children[i].kill()
	}
	_ = os.Remove(p.file("pids"))
}

// find says which file is a component: one in --assets, or this binary.
func (o *options) find(name string) (string, error) {
	if o.assets != "" {
		return exec.LookPath(filepath.Join(o.assets, name))
	}
	if _, ok := components[name]; !ok {
		return "", fmt.Errorf("%s is not in this binary: give --assets DIR", name)
	}
	return os.Executable()
}
