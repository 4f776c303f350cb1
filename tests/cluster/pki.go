package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// makePKI writes the keys of a new cluster below dir. A folder that has them
// already keeps them: a plane started again on the same folder is the same
// cluster, and its service account tokens and kubeconfigs stay valid.
func makePKI(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, "complete")); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	ca, err := newAuthority(dir, "ca", "kbak-test-ca")
	if err != nil {
		return err
	}
	// The front proxy has its own CA: with the cluster's, every client
	// certificate could pose as any user by request headers.
	front, err := newAuthority(dir, "front-proxy-ca", "kbak-test-front-proxy-ca")
	if err != nil {
		return err
	}
	server := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "kube-apiserver"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
			"kubernetes.default.svc.cluster.local"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.ParseIP(firstServiceIP), net.ParseIP(advertisedAddress)},
	}
	client := func(name string, groups ...string) *x509.Certificate {
		return &x509.Certificate{
			Subject:     pkix.Name{CommonName: name, Organization: groups},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		}
	}
	for _, leaf := range []struct {
		by   *authority
		file string
		cert *x509.Certificate
	}{
		{ca, "apiserver", server},
		{ca, "admin", client("kbak-test-admin", "system:masters")},
		{ca, "controller-manager", client("system:kube-controller-manager")},
		{ca, "scheduler", client("system:kube-scheduler")},
		{ca, "kubelet", client("system:node:"+nodeName, "system:nodes")},
		{ca, "proxy", client("system:kube-proxy")},
		{ca, "router", client("kube-router", "system:masters")},
		{front, "front-proxy-client", client(frontProxyName)},
	} {
		if err := leaf.by.issue(dir, leaf.file, leaf.cert); err != nil {
			return err
		}
	}
	if err := makeServiceAccountKey(dir); err != nil {
		return err
	}
	// Last, so that a folder whose making was cut short is made afresh.
	return os.WriteFile(filepath.Join(dir, "complete"), nil, 0o600)
}

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(dir, file, name string) (*authority, error) {
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	key, err := newKey(dir, file)
	if err != nil {
		return nil, err
	}
	a := &authority{cert: template, key: key}
	if err := a.sign(dir, file, template, key); err != nil {
		return nil, err
	}
	return a, nil
}

func (a *authority) issue(dir, file string, template *x509.Certificate) error {
	key, err := newKey(dir, file)
	if err != nil {
		return err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	return a.sign(dir, file, template, key)
}

func (a *authority) sign(dir, file string, template *x509.Certificate, key *ecdsa.PrivateKey) error {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return err
	}
	template.SerialNumber = serial
	// An hour back: test clocks and container clocks may differ a little.
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = template.NotBefore.AddDate(1, 0, 0)
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return fmt.Errorf("certificate %s: %w", file, err)
	}
	if template == a.cert {
		if a.cert, err = x509.ParseCertificate(der); err != nil {
			return err
		}
	}
	return writePEM(filepath.Join(dir, file+".crt"), "CERTIFICATE", der)
}

func newKey(dir, file string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, writePEM(filepath.Join(dir, file+".key"), "EC PRIVATE KEY", der)
}

func makeServiceAccountKey(dir string) error {
	key, err := newKey(dir, "service-account")
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	return writePEM(filepath.Join(dir, "service-account.pub"), "PUBLIC KEY", der)
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
