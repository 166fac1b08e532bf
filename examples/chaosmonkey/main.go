// Command chaosmonkey breaks what carries its label, from time to time: it kills a pod, cuts a pod off the network, or
// raises a number in a spec and lowers it again. With the same seed it makes the same choices.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	utilwait "k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/util/retry"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// allowed is the label of what may be broken. cutOff is that of a pod that is cut off.
const allowed, cutOff = "chaos.etcd-warden.io/allowed=true", "chaos.etcd-warden.io/cut-off"

var (
	namespace   = flag.String("namespace", "default", "where the pods and objects are")
	selector    = flag.String("selector", "", "which of those that have the label "+allowed+": all by default")
	kind        = flag.String("kind", "EtcdCluster.v1beta1.operator.etcd-warden.io", "the objects with the number, as Kind.version.group")
	field       = flag.String("field", "spec.updateStrategy.progressDeadlineSeconds", "the number in their spec, which must be set")
	faults      = flag.String("faults", "kill,cut,flip", "what may happen")
	every       = flag.Duration("every", 10*time.Second, "the time between two attempts")
	lasting     = flag.Duration("lasting", 5*time.Second, "how long a pod is cut off, and a number raised")
	probability = flag.Float64("probability", 0.5, "how likely it is that an attempt breaks something")
	seed        = flag.Uint64("seed", rand.Uint64(), "what the choices depend on")
)

type object = unstructured.Unstructured

var known = map[string]func(context.Context, client.Client, *object) error{"kill": kill, "cut": cut, "flip": flip}

func main() {
	flag.Parse()
	// The end of its terminal is a signal too, and a second one changes nothing: it always mends what it has broken.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "chaosmonkey:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	names := strings.Split(*faults, ",")
	if unknown := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return known[name] != nil }); len(unknown) > 0 {
		return fmt.Errorf("--faults: unknown are %s, known are %s", unknown, slices.Sorted(maps.Keys(known)))
	}
	config, err := ctrl.GetConfig()
	if err != nil {
		return err
	}
	c, err := client.New(config, client.Options{})
	if err != nil {
		return err
	}
	if targets, err := list(ctx, c, names[0]); err != nil || len(targets) == 0 {
		return cmp.Or(err, fmt.Errorf("nothing to %s in namespace %s has the label %s: set it where something may break", names[0], *namespace, allowed))
	}
	fmt.Printf("to make the same choices again: --seed=%d\n", *seed)
	for random := rand.New(rand.NewPCG(*seed, 0)); wait(ctx, *every); {
		isDue, name, which := choose(random, names)
		if !isDue {
			continue
		}
		targets, err := list(ctx, c, name)
		if len(targets) > 0 {
			target := &targets[int(which*float64(len(targets)))]
			fmt.Println(time.Now().Format(time.TimeOnly), name, target.GetKind(), target.GetName())
			err = known[name](ctx, c, target)
		}
		if err != nil {
			fmt.Println("failed:", err)
		}
	}
	return nil
}

// choose returns whether an attempt breaks something, how, and what: from 0, the oldest, to 1. It takes three random
// numbers in any case, so that what is found does not change the later choices.
func choose(random *rand.Rand, names []string) (isDue bool, name string, which float64) {
	return random.Float64() < *probability, names[random.IntN(len(names))], random.Float64()
}

// list returns the objects that a fault may break, oldest first.
func list(ctx context.Context, c client.Client, fault string) ([]object, error) {
	parsed, _ := schema.ParseKindArg(map[bool]string{true: *kind, false: "Pod.v1."}[fault == "flip"])
	selected, err := labels.Parse(strings.Trim(*selector+","+allowed, ","))
	if err != nil || parsed == nil {
		return nil, errors.Join(errors.New("--selector must be of labels, and --kind be Kind.version.group"), err)
	}
	var all unstructured.UnstructuredList
	all.SetGroupVersionKind(*parsed)
	err = c.List(ctx, &all, client.InNamespace(*namespace), client.MatchingLabelsSelector{Selector: selected})
	slices.SortStableFunc(all.Items, func(a, b object) int {
		return a.GetCreationTimestamp().Compare(b.GetCreationTimestamp().Time) // the API server sorts by name
	})
	return all.Items, err
}

// kill deletes a pod. Its kubelet ends the processes before the API server forgets the pod: no second pod of a
// StatefulSet may run beside it.
func kill(ctx context.Context, c client.Client, pod *object) error { return c.Delete(ctx, pod) }

// cut stops a pod's traffic by a NetworkPolicy. Not every cluster enforces them: a connection that could be made
// before must not be possible then. Some networks go on with connections that are open already.
func cut(ctx context.Context, c client.Client, target *object) error {
	var pod corev1.Pod
	if err := errors.Join(runtime.DefaultUnstructuredConverter.FromUnstructured(target.Object, &pod), dial(&pod)); err != nil {
		return fmt.Errorf("from here it cannot be seen whether the pod is cut off: %w", err)
	}
	marked, mark := pod.DeepCopy(), map[string]string{cutOff: string(pod.UID)}
	marked.Labels = labels.Merge(pod.Labels, mark)
	policy := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: "cut-off-" + string(pod.UID)}}
	// The policy goes with the pod at the latest.
	policy.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}}
	policy.Spec.PodSelector.MatchLabels = mark
	policy.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}
	whole := context.WithoutCancel(ctx) // no write is given up half-way
	err := errors.Join(c.Patch(whole, marked.DeepCopy(), client.MergeFrom(&pod)), c.Create(whole, policy))
	if err == nil && wait(ctx, *lasting) && dial(&pod) == nil {
		err = errors.New("the pod was still reached: no NetworkPolicy is enforced here, or another one allows it")
	}
	return errors.Join(err, retry.OnError(utilwait.Backoff{Steps: 30, Duration: time.Second}, func(error) bool { return true }, func() error {
		unmark := c.Patch(whole, pod.DeepCopy(), client.MergeFrom(marked))
		return errors.Join(client.IgnoreNotFound(c.Delete(whole, policy)), client.IgnoreNotFound(unmark))
	}))
}

// dial connects to the first port of a pod.
func dial(pod *corev1.Pod) error {
	if len(pod.Spec.Containers[0].Ports) == 0 || pod.Status.PodIP == "" {
		return errors.New("the pod has no address, or its first container has no port")
	}
	address := net.JoinHostPort(pod.Status.PodIP, fmt.Sprint(pod.Spec.Containers[0].Ports[0].ContainerPort))
	connection, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return err
	}
	return connection.Close()
}

// flip raises a number in a spec, and lowers it again, unless somebody else has changed it: then the test in the patch
// fails.
func flip(ctx context.Context, c client.Client, target *object) error {
	number, found, err := unstructured.NestedInt64(target.Object, strings.Split(*field, ".")...)
	if !found {
		return errors.Join(fmt.Errorf("it has no number %s", *field), err)
	}
	path := "/" + strings.ReplaceAll(*field, ".", "/")
	change := func(from, to int64) error {
		patch := fmt.Appendf(nil, `[{"op": "test", "path": %q, "value": %d}, {"op": "replace", "path": %[1]q, "value": %[3]d}]`, path, from, to)
		return c.Patch(context.WithoutCancel(ctx), target, client.RawPatch(types.JSONPatchType, patch))
	}
	if err := change(number, number+1); err != nil {
		return err
	}
	wait(ctx, *lasting)
	return change(number+1, number)
}

// wait reports whether there is still time after a while.
func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
