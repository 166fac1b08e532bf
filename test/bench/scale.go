package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

// benchScale measures the growth to three and to five members, with names that are always fresh and with a DNS cache,
// in turn with the creation of a plain StatefulSet.
func (d *day2) benchScale(ctx context.Context) error {
	const plain, fresh, cached = "creation of a plain set", "growth", "growth, DNS cache"
	times, err := steady(plain, relativeSpread, spreadBound, "s", func() (samples, error) {
		times := samples{}
		for range d.runs {
			took, err := measure(ctx, d.lab, contender{plain, plainManifest, removePlain}, plainName)
			if err != nil {
				return nil, err
			}
			fmt.Printf("creation of a plain StatefulSet: %.2f s\n", took.Seconds())
			times.add(plain, took.Seconds())
			if d.wants(scaleUp) {
				if took, err = d.grow(ctx, "grow"); err != nil {
					return nil, err
				}
				times.add(fresh, took.Seconds())
			}
			if d.wants(scaleCached) {
				if err = d.withCachedNames(ctx, func() error { took, err = d.grow(ctx, "grow"); return err }); err != nil {
					return nil, fmt.Errorf("with a DNS cache: %w", err)
				}
				times.add(cached, took.Seconds())
			}
		}
		return times, nil
	})
	if err != nil {
		return err
	}
	if d.wants(scaleUp) {
		d.result(scaleUp, times.median(fresh), "s")
	}
	if d.wants(scaleCached) {
		d.result(scaleCached, times.median(cached), "s")
	}
	return nil
}

// grow scales a cluster of one to three and to five. It returns the time of both, without that between them.
func (d *day2) grow(ctx context.Context, name string) (time.Duration, error) {
	a, err := d.start(ctx, name, wardenManifest(d.lab, name, 1), 1)
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, size := range []int{3, 5} {
		seen := timeline{start: time.Now(), text: map[string]string{}}
		if seen.before, err = d.uids(ctx, name); err != nil {
			return 0, err
		}
		c := &v1beta1.EtcdCluster{ObjectMeta: metav1.ObjectMeta{Namespace: d.namespace, Name: name}}
		wish := &autoscalingv1.Scale{ObjectMeta: c.ObjectMeta, Spec: autoscalingv1.ScaleSpec{Replicas: int32(size)}}
		if err := d.SubResource("scale").Update(ctx, c, client.WithSubResourceBody(wish)); err != nil {
			return 0, err
		}
		if err := d.awaitUpToDate(ctx, name, size, nil, seen.look); err != nil {
			return 0, err
		}
		if err := d.awaitVoters(ctx, name, size, a.credentials); err != nil {
			return 0, err
		}
		took := time.Since(seen.start)
		sum += took
		fmt.Printf("growth to %d: %.2f s%s\n", size, took.Seconds(), seen.String())
	}
	return sum, d.removeAll(ctx, func() error { return removeCluster(ctx, d.lab, name) })
}

const (
	cachePort = 5353
	// cacheMark is a name that only the cache knows. Who can look it up, asks the cache.
	cacheMark = "dns-cache.bench"
)

// cacheConfig is that of clusters which kubeadm makes, where names and their absence are kept for 30 s.
const cacheConfig = `.:%[1]d {
  errors
  bind %[2]s
  hosts {
    %[2]s %[3]s
    fallthrough
  }
  cache 30
  kubernetes cluster.local in-addr.arpa {
    kubeconfig %[4]s
    ttl 30
  }
}
`

// withCachedNames lets all pods ask another CoreDNS, which keeps answers for 30 s, while use runs.
// It needs the local cluster, whose Service of the DNS leads to this machine.
func (d *day2) withCachedNames(ctx context.Context, use func() error) error {
	slice := &discoveryv1.EndpointSlice{}
	if err := d.Get(ctx, client.ObjectKey{Namespace: "kube-system", Name: "kube-dns-host"}, slice); err != nil {
		return fmt.Errorf("looking for the DNS of the local cluster: %w", err)
	}
	dir, err := os.MkdirTemp("", "etcd-warden-dns-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	config := fmt.Sprintf(cacheConfig, cachePort, slice.Endpoints[0].Addresses[0], cacheMark, os.Getenv("KUBECONFIG"))
	if err := os.WriteFile(filepath.Join(dir, "Corefile"), []byte(config), 0o600); err != nil {
		return err
	}
	command := exec.CommandContext(ctx, os.Getenv("COREDNS"), "-conf", filepath.Join(dir, "Corefile"))
	command.Stderr = os.Stderr
	if err := command.Start(); err != nil {
		return fmt.Errorf("starting COREDNS=%s: %w", os.Getenv("COREDNS"), err)
	}
	defer func() { _ = command.Process.Kill(); _ = command.Wait() }()
	if err := d.redirectNames(ctx, cachePort, true); err != nil {
		return err
	}
	defer func() {
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		if err := d.redirectNames(bounded, 53, false); err != nil {
			fmt.Fprintln(os.Stderr, "leading names back to the cluster's DNS: ", err)
		}
	}()
	return use()
}

// redirectNames changes the port behind the Service of the DNS, and waits until the change is in force.
func (l *lab) redirectNames(ctx context.Context, port int32, cached bool) error {
	slice := &discoveryv1.EndpointSlice{}
	if err := l.Get(ctx, client.ObjectKey{Namespace: "kube-system", Name: "kube-dns-host"}, slice); err != nil {
		return err
	}
	for i := range slice.Ports {
		slice.Ports[i].Port = &port
	}
	if err := l.Update(ctx, slice); err != nil {
		return err
	}
	var service corev1.Service
	if err := l.Get(ctx, client.ObjectKey{Namespace: "kube-system", Name: "kube-dns"}, &service); err != nil {
		return err
	}
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(service.Spec.ClusterIP, "53"))
	}}
	return wait.PollUntilContextTimeout(ctx, pollEvery, patience, true, func(ctx context.Context) (bool, error) {
		_, err := resolver.LookupHost(ctx, cacheMark+".")
		return (err == nil) == cached, nil
	})
}
