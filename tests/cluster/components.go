//go:build !lifecycle

package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
)

// components are what this binary can be, by name. One binary instead of three
// shares almost all of its code: it links and caches in a third of the space.
var components = map[string]func(args []string){
	etcdName:        etcdmain.Main,
	apiserverName:   func([]string) { os.Exit(cli.Run(apiserver.NewAPIServerCommand())) },
	controllersName: func([]string) { os.Exit(cli.Run(controllers.NewControllerManagerCommand())) },
}
