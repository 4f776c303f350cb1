package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const (
	schedulerName  = "kube-scheduler"
	kubeletName    = "kubelet"
	proxyName      = "kube-proxy"
	routerName     = "kube-router"
	containerdName = "containerd"

	podRange   = "10.244.0.0/24"
	dnsService = "10.96.0.10"
)

// addNode adds what runs pods. containerd does not need the rest, and comes first.
func (p *plane) addNode(o *options) error {
	if err := os.MkdirAll(p.file("containerd/cni"), 0o755); err != nil {
		return err
	}
	files := map[string]string{
		"containerd/config.toml":          p.containerdConfig(),
		"containerd/cni/10-kbak.conflist": cniConfig,
		"kubelet.yaml":                    p.kubeletConfig(),
		"proxy.yaml":                      p.proxyConfig(),
	}
	for name, text := range files {
		if err := writeFile(p.file(name), text); err != nil {
			return err
		}
	}
	path, err := exec.LookPath(containerdName)
	if err != nil {
		return err
	}
	runtime := &child{program: containerdName, label: containerdName, path: path,
		args: []string{"--config", p.file("containerd/config.toml")}, log: p.file("containerd.log")}
	p.children = append([]*child{runtime}, p.children...)

	for _, part := range []struct {
		name   string
		args   []string
		before func(*session) error
	}{
		{schedulerName, []string{
			"--kubeconfig=" + p.file("scheduler.kubeconfig"), "--leader-elect=false", "--secure-port=0",
		}, nil},
		{kubeletName, []string{
			"--config=" + p.file("kubelet.yaml"),
			"--kubeconfig=" + p.file("kubelet.kubeconfig"),
			"--hostname-override=" + nodeName,
			"--node-ip=" + advertisedAddress,
			"--root-dir=" + p.file("kubelet"),
			"--cert-dir=" + p.file("kubelet-pki"),
		}, func(s *session) error { return p.importImages(s) }},
		{proxyName, []string{"--config=" + p.file("proxy.yaml"), "--hostname-override=" + nodeName}, nil},
	} {
		if err := p.add(o, part.name, part.name, part.args); err != nil {
			return err
		}
		p.child(part.name).before = part.before
	}
	if o.kubeRouter != "" {
		p.addRouter(o.kubeRouter)
	}
	return nil
}

// addRouter adds kube-router for NetworkPolicies alone: the rest of what it can
// do is done by CNI's plug-ins and kube-proxy.
func (p *plane) addRouter(path string) {
	p.children = append(p.children, &child{program: routerName, label: routerName, path: path, args: []string{
		"--kubeconfig=" + p.file("router.kubeconfig"),
		"--hostname-override=" + nodeName,
		"--run-firewall=true", "--run-router=false", "--run-service-proxy=false",
		"--service-cluster-ip-range=" + serviceRange,
		"--health-port=0", "--metrics-port=0",
	}, log: p.file(routerName + ".log"), before: func(s *session) error {
		// It ends where its node is not registered yet.
		return s.waitFor(func(ctx context.Context, k *kube) error {
			return k.get(ctx, "/api/v1/nodes/"+nodeName, nil)
		})
	}})
}

func (s *session) untilServing() error {
	return s.waitFor(func(ctx context.Context, k *kube) error { return k.serving(ctx) })
}

// importImages waits for containerd, too.
func (p *plane) importImages(s *session) error {
	err := s.waitFor(func(ctx context.Context, _ *kube) error {
		return p.ctr(ctx, "version")
	})
	if err != nil {
		return err
	}
	for _, image := range s.o.images {
		if err := p.importImage(image); err != nil {
			return err
		}
	}
	return nil
}

func (p *plane) importImage(file string) error {
	return p.ctr(context.Background(), "images", "import", file)
}

func (p *plane) ctr(ctx context.Context, args ...string) error {
	all := append([]string{"--address", p.file("containerd/socket"), "--namespace", "k8s.io"}, args...)
	out, err := exec.CommandContext(ctx, "ctr", all...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ctr %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// cniFolder is where CNI's plug-ins are: Debian's place, then upstream's.
func cniFolder() string {
	for _, folder := range []string{"/usr/lib/cni", "/opt/cni/bin"} {
		if _, err := os.Stat(filepath.Join(folder, "bridge")); err == nil {
			return folder
		}
	}
	return ""
}

// These are imported: there is no registry.
const (
	sandboxImage = "kbak.test/busybox:1"
	dnsImage     = "kbak.test/coredns:1"
)

func (p *plane) containerdConfig() string {
	return fmt.Sprintf(`version = 2
root = %q
state = %q
[grpc]
  address = %q
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %q
  # Small machines may not raise a process's priority for the OOM killer.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = %q
    conf_dir = %q
`, p.file("containerd/root"), p.file("containerd/state"), p.file("containerd/socket"),
		sandboxImage, cniFolder(), p.file("containerd/cni"))
}

// Pods keep their addresses when they speak to each other, to Services and to
// the node: nothing lies beyond.
const cniConfig = `{"cniVersion":"1.0.0","name":"kbak","plugins":[
 {"type":"bridge","bridge":"pods0","isGateway":true,"hairpinMode":true,"ipMasq":false,
  "ipam":{"type":"host-local","ranges":[[{"subnet":"` + podRange + `"}]],"routes":[{"dst":"0.0.0.0/0"}]}},
 {"type":"portmap","capabilities":{"portMappings":true}}]}
`

// What differs from the defaults is what small machines need, with cgroups of
// either version, and no limits by the disk of whoever runs the tests.
func (p *plane) kubeletConfig() string {
	return fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
address: %s
readOnlyPort: 0
healthzPort: 0
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
failSwapOn: false
failCgroupV1: false
localStorageCapacityIsolation: false
containerRuntimeEndpoint: unix://%s
evictionHard: {nodefs.available: "0%%", imagefs.available: "0%%"}
imageGCHighThresholdPercent: 100
clusterDNS: [%s]
clusterDomain: cluster.local
resolvConf: ""
volumePluginDir: %s
`, advertisedAddress, p.file("containerd/socket"), dnsService, p.file("flexvolume"))
}

// The connection tracker's settings belong to the whole machine: left as they are.
func (p *plane) proxyConfig() string {
	return fmt.Sprintf(`apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
clientConnection: {kubeconfig: %s}
clusterCIDR: %s
healthzBindAddress: ""
metricsBindAddress: ""
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
iptables: {minSyncPeriod: 0s}
`, p.file("proxy.kubeconfig"), podRange)
}
