package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// dnsObjects is the cluster's DNS as kubeadm has it, with an image that was imported.
//
//go:embed node_dns.json
var dnsObjects []byte

// applyDNS is done once the API serves; the pod starts when the node is ready.
func (s *session) applyDNS() error {
	var list []struct {
		Path   string
		Object json.RawMessage
	}
	if err := json.Unmarshal(dnsObjects, &list); err != nil {
		return err
	}
	return s.waitFor(func(ctx context.Context, k *kube) error {
		for _, item := range list {
			if err := k.apply(ctx, item.Path, item.Object); err != nil {
				return err
			}
		}
		return nil
	})
}

// apply makes an object what it should be, whether it exists or not.
func (k *kube) apply(ctx context.Context, path string, object []byte) error {
	url := k.server + path + "?fieldManager=kbak-testplane&force=true"
	req, err := http.NewRequestWithContext(ctx, http.MethodPatch, url, bytes.NewReader(object))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/apply-patch+yaml")
	resp, err := k.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		why, _ := io.ReadAll(resp.Body)
		return fmt.Errorf("apply %s: %s: %s", path, resp.Status, why)
	}
	return nil
}

// dnsReady means that names of Services resolve, by the address that pods use:
// CoreDNS is ready before kube-proxy has heard of it.
func dnsReady(ctx context.Context) error {
	resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(dnsService, "53"))
	}}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err := resolver.LookupHost(ctx, "kubernetes.default.svc.cluster.local.")
	return err
}
