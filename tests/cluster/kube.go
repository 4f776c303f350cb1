package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// kube asks the API server the few things that tell whether it can be used.
type kube struct {
	server string
	client *http.Client
}

func newKube(p *plane) (*kube, error) {
	ca, err := os.ReadFile(p.key("ca.crt"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	pair, err := tls.LoadX509KeyPair(p.key("admin.crt"), p.key("admin.key"))
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}},
		// No proxy: this never leaves loopback.
		Proxy: nil,
		// A component may be killed between two polls.
		DisableKeepAlives: true,
	}
	return &kube{p.apiserver.url("https"), &http.Client{Transport: transport, Timeout: 5 * time.Second}}, nil
}

func (k *kube) get(ctx context.Context, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, k.server+path, nil)
	if err != nil {
		return err
	}
	resp, err := k.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", path, resp.Status)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(body, into)
}

// serving is enough for the controller manager to start on.
func (k *kube) serving(ctx context.Context) error { return k.get(ctx, "/healthz", nil) }

// ready means that a test can begin: the API server says so, and what the
// controllers make in every namespace is made, so that it does not turn up in
// the middle of a listing.
func (k *kube) ready(ctx context.Context, controllers bool) error {
	if err := k.get(ctx, "/readyz", nil); err != nil {
		return err
	}
	namespaces, err := k.names(ctx, "/api/v1/namespaces")
	if err != nil {
		return err
	}
	expected := []string{"default", "kube-system", "kube-public", "kube-node-lease"}
	for _, ns := range expected {
		if !namespaces[object{Name: ns}] {
			return fmt.Errorf("namespace %s is not there yet", ns)
		}
	}
	if !controllers {
		return nil
	}
	accounts, err := k.names(ctx, "/api/v1/serviceaccounts")
	if err != nil {
		return err
	}
	maps, err := k.names(ctx, "/api/v1/configmaps")
	if err != nil {
		return err
	}
	for ns := range namespaces {
		if !accounts[object{ns.Name, "default"}] || !maps[object{ns.Name, "kube-root-ca.crt"}] {
			return fmt.Errorf("namespace %s has no default service account and root CA yet", ns.Name)
		}
	}
	return nil
}

// nodeReady means that pods can be started.
func (k *kube) nodeReady(ctx context.Context) error {
	var node struct {
		Status struct {
			Conditions []struct{ Type, Status, Message string }
		}
	}
	if err := k.get(ctx, "/api/v1/nodes/"+nodeName, &node); err != nil {
		return err
	}
	for _, c := range node.Status.Conditions {
		if c.Type == "Ready" && c.Status == "True" {
			return nil
		} else if c.Type == "Ready" {
			return fmt.Errorf("the node is not ready: %s", c.Message)
		}
	}
	return errors.New("the node has no conditions yet")
}

type object struct{ Namespace, Name string }

func (k *kube) names(ctx context.Context, path string) (map[object]bool, error) {
	var page struct {
		Items []struct {
			Metadata struct{ Namespace, Name string }
		}
	}
	if err := k.get(ctx, path, &page); err != nil {
		return nil, err
	}
	names := make(map[object]bool, len(page.Items))
	for _, item := range page.Items {
		names[object{item.Metadata.Namespace, item.Metadata.Name}] = true
	}
	return names, nil
}

func (k *kube) version(ctx context.Context) (string, error) {
	var v struct{ GitVersion string }
	err := k.get(ctx, "/version", &v)
	return v.GitVersion, err
}

// poll tries until it works or time is up, and then says why it last did not.
func poll(ctx context.Context, try func() error) error {
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}
