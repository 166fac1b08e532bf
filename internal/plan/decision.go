// Package plan is the vocabulary between deciding and doing: what analyse returns, act carries out and status reports.
package plan

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

// Decision is what one pass will do, and why.
type Decision struct {
	// Rule is the name of the rule that decided. It is empty when the cluster is as its spec says.
	Rule string
	// Reason is the reason of the Progressing condition, Message its text.
	Reason, Message string
	// Progressing tells whether the cluster is on its way to its spec.
	Progressing bool
	// Refusals are the guards that refused a step.
	Refusals []Refusal
	// Problems are what is wrong with the objects that the cluster needs, whatever the rule decided.
	Problems []Problem
	// Action is the one step that may disturb members, nil for none. It is claimed before it is carried out.
	Action Action
	// Voluntary tells that the action begins an operation that could wait, or that upkeep could.
	// It may disturb members, and repairs nothing that is down.
	Voluntary bool
	// Urgent tells that the action is taken even if the API server refused upkeep: members are down without it.
	Urgent bool
	// HandOver tells that the action takes over the operation under way, for the same member.
	HandOver bool
	// Claim is the operation that is claimed for the action, nil without one.
	Claim *v1beta1.Operation
	// Upkeep are the writes that disturb no member, in their order.
	// If one fails, the others are still done, except those that require it.
	Upkeep []Upkeep
	// Finished tells that the operation ended: the status has none afterwards.
	Finished bool
	// Abandoned says why the operation ended before it was done; empty where it is done.
	Abandoned string
	// Plan answers the value AnsweredPlan of the plan annotation; both are empty where there is nothing to answer.
	Plan, AnsweredPlan string
	// StaleTemplates names the members whose StatefulSet makes another pod today than the one that runs.
	StaleTemplates []string
	// RequeueAfter is the delay until the next pass. Changes in etcd raise no watch event.
	RequeueAfter time.Duration
	// DueAt is when the next member counts as lost, as overdue or as healthy with its template; zero for none. The next
	// pass comes then, however long this one took: one that waits for a silent member takes seconds.
	DueAt time.Time
	// InvalidatesSecrets tells that the upkeep changes Secrets. What was read of them before is out of date.
	InvalidatesSecrets bool
}

// IsRoll reports whether a reason is that of restarts for what the spec asks for.
func IsRoll(reason string) bool {
	return slices.Contains([]string{v1beta1.ReasonRollingMembers, v1beta1.ReasonUpgrading, v1beta1.ReasonDowngrading}, reason)
}

// downgradeSteps name the steps of OperationDowngrade by their reasons. An upgrade has some of them too.
var downgradeSteps = map[string]string{
	v1beta1.ReasonDowngrading:         "preparation of the data",
	v1beta1.ReasonRenewingLog:         "renewal of the log",
	v1beta1.ReasonCancellingDowngrade: "cancellation",
}

// NameOf names an operation for users: its type, and its member or its step.
func NameOf(op *v1beta1.Operation) string {
	name := string(op.Type)
	if op.Member != "" {
		name += " of " + op.Member
	}
	if step := downgradeSteps[op.Reason]; step != "" && op.Type == v1beta1.OperationDowngrade {
		name += " (" + step + ")"
	}
	return name
}

// WritesObjects reports whether upkeep writes objects of Kubernetes. Those are watched, so they bring the next pass.
func (d *Decision) WritesObjects() bool {
	return slices.ContainsFunc(d.Upkeep, func(u Upkeep) bool { return u.Writes() != ObjectName{} })
}

// ResizedPods names the pods that got the resources of their templates without a restart.
func (d *Decision) ResizedPods() []string {
	var names []string
	for _, u := range d.Upkeep {
		if a, ok := u.(AnnotatePod); ok && a.Resized {
			names = append(names, a.Pod)
		}
	}
	return names
}

// Problem is something wrong with an object that the cluster needs.
type Problem struct {
	// Reason is a condition reason. Message says what is, why, and what to do.
	Reason, Message string
}

// WithRefusals returns the decision as it turned out. If outcome holds refusals, they replace reason and message.
func (d *Decision) WithRefusals(outcome error) *Decision {
	refusals, _ := Refusals(outcome)
	if len(refusals) == 0 {
		return d
	}
	refused := *d
	refused.Progressing, refused.Reason, refused.Message = false, refusals[0].Reason, Messages(refusals)
	refused.Refusals = append(slices.Clip(d.Refusals), refusals...)
	return &refused
}

// Refusal is a guard that refused a step, or a write that the API server refused. As an error it is for users.
type Refusal struct {
	// Guard is the guard's name.
	Guard string
	// Reason is a condition reason. Message says what is, why, and what to do.
	Reason, Message string
}

func (r *Refusal) Error() string { return r.Message }

func (r Refusal) message() string { return r.Message }
func (p Problem) message() string { return p.Message }

// Messages joins the messages of refusals or problems.
func Messages[T interface{ message() string }](list []T) string {
	messages := make([]string, len(list))
	for i := range list {
		messages[i] = list[i].message()
	}
	return strings.Join(messages, " ")
}

// Refusals splits the error of a pass into refusals and everything else, which is nil for nothing.
func Refusals(err error) (refusals []Refusal, otherErr error) {
	if err == nil {
		return nil, nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var others []error
		for _, e := range joined.Unwrap() {
			more, other := Refusals(e)
			refusals, others = append(refusals, more...), append(others, other)
		}
		return refusals, errors.Join(others...)
	}
	var refusal *Refusal
	if errors.As(err, &refusal) {
		return []Refusal{*refusal}, nil
	}
	return nil, err
}

// RefuseForeignObject is the refusal to use an object that is not the cluster's.
func RefuseForeignObject(x cluster.ForeignObject) *Refusal {
	if x.Unreadable != "" {
		return &Refusal{
			Guard:  "noForeignObject",
			Reason: v1beta1.ReasonReadRefused,
			Message: fmt.Sprintf("The operator cannot read %s %s: %s. It does not change what it cannot read. "+
				"Grant its ServiceAccount get on that %s.", x.Kind, x.Name, x.Unreadable, x.Kind),
		}
	}
	return &Refusal{
		Guard:  "noForeignObject",
		Reason: v1beta1.ReasonForeignObject,
		Message: fmt.Sprintf("%s %s exists and %s. %s", x.Kind, x.Name, x.Owner, cmp.Or(x.Advice,
			"The operator never takes over what it did not make. Rename or delete it, or create this cluster under another name.")),
	}
}
