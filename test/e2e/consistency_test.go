package e2e

import (
	"context"
	"encoding/json"
	"strconv"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

var _ = Describe("A member whose data are corrupt, while clients write", func() {
	It("is found by a comparison that its user asks for, and replaced, as a follower", func(ctx SpecContext) {
		c := create(ctx, makeCluster(newNamespace(ctx)))
		writers := appendOn(ctx, c)
		annotate(ctx, c, v1beta1.CheckConsistencyAnnotation+"=before")
		awaitConditions(ctx, c, wanted{kind: v1beta1.ConditionDataConsistent, status: metav1.ConditionTrue, reason: v1beta1.ReasonDataAgrees})
		awaitObeyed(ctx, c, v1beta1.CheckConsistencyAnnotation)
		Expect(kube.Get(ctx, client.ObjectKeyFromObject(c), c)).To(Succeed())
		corrupt := without([]string{"prod-0", "prod-1", "prod-2"}, c.Status.Leader)[0]
		corruptData(ctx, c, writers, corrupt)
		annotate(ctx, c, v1beta1.CheckConsistencyAnnotation+"=after")
		awaitMembers(ctx, c, append(without([]string{"prod-0", "prod-1", "prod-2"}, corrupt), "prod-3")...)
		expectEvent(ctx, c, v1beta1.EventMemberRemoved, "The data of "+corrupt+" differ", "a new member takes its place")
		awaitConditions(ctx, c, wanted{kind: v1beta1.ConditionDataConsistent, status: metav1.ConditionTrue})
		awaitObeyed(ctx, c, v1beta1.CheckConsistencyAnnotation)
		writers.end(ctx, c)
	})

	It("is found after the alarm of etcd's own check, and replaced once it has handed over, as the leader; the alarm ends", func(ctx SpecContext) {
		c := create(ctx, makeCluster(newNamespace(ctx), func(c *v1beta1.EtcdCluster) {
			c.Spec.Config = &v1beta1.Config{ExtraArgs: map[string]string{"compact-hash-check-time": "5s"}}
		}))
		writers := appendOn(ctx, c)
		Expect(kube.Get(ctx, client.ObjectKeyFromObject(c), c)).To(Succeed())
		corrupt := c.Status.Leader
		corruptData(ctx, c, writers, corrupt)
		compact(ctx, c)
		expectEvent(ctx, c, v1beta1.ReasonCorrupt, "etcd reports alarm CORRUPT")
		awaitMembers(ctx, c, append(without([]string{"prod-0", "prod-1", "prod-2"}, corrupt), "prod-3")...)
		expectEvent(ctx, c, v1beta1.EventMemberRemoved, "The data of "+corrupt+" differ")
		awaitConditions(ctx, c,
			wanted{kind: v1beta1.ConditionStorageAlarm, status: metav1.ConditionFalse, reason: v1beta1.ReasonNoAlarm},
			wanted{kind: v1beta1.ConditionDataConsistent, status: metav1.ConditionTrue})
		writers.end(ctx, c)
	})
})

// corruptData writes a key, and overwrites its value in the database of one member while etcd runs, which maps the file
// into its memory. Meanwhile there are no other writes: with them etcd would write its pages elsewhere, and take for
// something else the place that is overwritten. The page of this write may still come with the old value, so it must
// stay away for a while.
func corruptData(ctx context.Context, c *v1beta1.EtcdCluster, writers *appending, member string) {
	GinkgoHelper()
	defer writers.log.Pause()()
	const value = "a-value-that-one-disk-loses"
	write(ctx, c, member, "precious", value)
	runOnVolume(ctx, c, member, `f=$(find /volume -name db | head -1); changed=no; away=0
for i in $(seq 600); do
  away=$((away+1))
  for at in $(strings -t d "$f" | awk -v v=`+value+` '{ text = substr($0, index($0, $1) + length($1) + 1); at = index(text, v); if (at) print $1 + at - 1 }'); do
    printf X | dd of="$f" bs=1 seek="$at" conv=notrunc 2>/dev/null
    changed=yes; away=0
  done
  [ $changed = yes ] && [ $away -gt 10 ] && exit 0
  sleep 0.1
done
exit 1`)
}

// compact compacts all revisions but the newest ones: etcd then compares the hashes of the members.
func compact(ctx context.Context, c *v1beta1.EtcdCluster) {
	GinkgoHelper()
	member := firstReady(ctx, c)
	out, err := etcdctl(ctx, c, member, "get", "precious", "-w", "json")
	Expect(err).NotTo(HaveOccurred(), out)
	var answer struct {
		Header struct{ Revision int64 }
	}
	Expect(json.Unmarshal([]byte(out), &answer)).To(Succeed(), out)
	out, err = etcdctl(ctx, c, member, "compact", strconv.FormatInt(answer.Header.Revision-1, 10))
	Expect(err).NotTo(HaveOccurred(), out)
}
