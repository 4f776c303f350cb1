// Command kbak-testdns is CoreDNS, with the plug-ins that a cluster's DNS needs: names of Services
// resolve in pods of the test node as they do in real clusters.
package main

import (
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/template"

	"github.com/coredns/coredns/coremain"
)

func main() { coremain.Run() }
