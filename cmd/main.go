// etcd-warden runs etcd clusters on Kubernetes.
package main

import (
	"fmt"
	"os"
)

// Version is set when a release is built.
var Version = "0.0.0-dev"

const usage = `etcd-warden runs etcd clusters on Kubernetes.

Usage:
  etcd-warden manager [flags]   run the operator; -h lists the flags
  etcd-warden webhook [flags]   run the conversion webhook; -h lists the flags
  etcd-warden version           print the version
`

func main() {
	if len(os.Args) < 2 {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	switch os.Args[1] {
	case "manager":
		exitOn(runManager(os.Args[2:]))
	case "webhook":
		exitOn(runWebhook(os.Args[2:]))
	case "image-check":
		exitOn(runImageCheck(os.Args[2:]))
	case "version":
		fmt.Println(Version)
	case "help", "-h", "--help":
		fmt.Print(usage)
	default:
		fmt.Fprintf(os.Stderr, "etcd-warden: unknown command %q\n\n%s", os.Args[1], usage)
		os.Exit(2)
	}
}

func exitOn(err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "etcd-warden %s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
}
