//go:build lifecycle

package main

// With -tags lifecycle only `up` is built, from the standard library, in
// seconds: for those who already have the components (KUBEBUILDER_ASSETS).
var components = map[string]func(args []string){}
