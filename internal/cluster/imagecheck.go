package cluster

import (
	"regexp"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// ImageCheck is the pod that looks at the image of another version before a member runs it.
type ImageCheck struct {
	UID      types.UID
	Deleting bool
	// Forced tells that it is deleted without a time of grace: only a finalizer keeps it.
	Forced bool
	// Target is the ImageTarget that the pod was made for.
	Target    string
	CreatedAt time.Time
	// Version is what the image says that its etcd is; empty where it did not say.
	Version string
	// Failure is why the image has not said its version, in a clause; empty while it may still.
	Failure string
}

// ImageCheckPodName returns the name of the pod that looks at an image.
func ImageCheckPodName(cluster string) string { return cluster + "-image-check" }

// ImageTarget identifies the image of an intent, and the version that it should have.
func ImageTarget(i Intent) string { return i.Version + " " + i.Image() }

// MaxImageCheckMessage is how many bytes of the termination message of the pod are read.
const MaxImageCheckMessage = 256

var imageCheckMessage = regexp.MustCompile(`^etcd ([0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3})(\+[0-9A-Za-z.-]{1,40})?$`)

// ImageCheckMessage is what the pod writes as its termination message.
func ImageCheckMessage(version string) string { return "etcd " + version }

// ImageCheckVersion returns the version in a termination message, without build metadata. It returns "" for any other
// text: the message comes from an image that nobody has vetted.
func ImageCheckVersion(message string) string {
	if len(message) > MaxImageCheckMessage {
		return ""
	}
	found := imageCheckMessage.FindStringSubmatch(message)
	if found == nil {
		return ""
	}
	return found[1]
}
