// Command kbak-testplane is the Kubernetes control plane that kbak's tests
// run against: etcd and Kubernetes' components linked into one binary, and `up`,
// which starts them on loopback with their own keys, with a node if wanted, and
// takes them down again. README.md beside this file says how to use it.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const usage = `usage: kbak-testplane up --dir DIR [options]   start a control plane (up --help)
       kbak-testplane COMPONENT [args]         run one component by itself
components in this binary: %s
`

func main() {
	// The name it was started under comes first, so that a component's process
	// can be told apart by ps and so that symlinks work.
	args := os.Args
	name := filepath.Base(args[0])
	if _, ok := components[name]; !ok {
		if len(args) < 2 {
			fmt.Fprintf(os.Stderr, usage, linked())
			os.Exit(2)
		}
		args = args[1:]
		name = args[0]
	}
	if run, ok := components[name]; ok {
		os.Args = args
		run(args)
		return
	}
	switch name {
	case "up":
		os.Exit(up(args[1:]))
	case nodeInitName:
		os.Exit(nodeInit(args[1:]))
	case nodeUpName:
		os.Exit(nodeUp(args[1:]))
	case "help", "-h", "--help":
		fmt.Printf(usage, linked())
	default:
		fmt.Fprintf(os.Stderr, "kbak-testplane: unknown command %q\n", name)
		fmt.Fprintf(os.Stderr, usage, linked())
		os.Exit(2)
	}
}

func linked() string {
	names := make([]string, 0, len(components))
	for name := range components {
		names = append(names, name)
	}
	if len(names) == 0 {
		return "none (built with -tags lifecycle; give up --assets)"
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}
