//go:build !lifecycle

package main

import (
	"context"
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// components are what this binary can be, by name. One binary instead of six
// shares almost all of its code: it links and caches in a sixth of the space.
var components = map[string]func(args []string){
	etcdName:        etcdmain.Main,
	apiserverName:   func([]string) { os.Exit(cli.Run(apiserver.NewAPIServerCommand())) },
	controllersName: func([]string) { os.Exit(cli.Run(controllers.NewControllerManagerCommand())) },
	schedulerName:   func([]string) { os.Exit(cli.Run(scheduler.NewSchedulerCommand())) },
	kubeletName:     func([]string) { os.Exit(cli.Run(kubelet.NewKubeletCommand(context.Background()))) },
	proxyName:       func([]string) { os.Exit(cli.Run(proxy.NewProxyCommand())) },
}
