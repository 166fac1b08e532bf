package simulation

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/pki"
)

// imprint is what a version of an object adds to a fingerprint: its text without its identifiers, and these.
type imprint struct {
	skeleton    uint64
	identifiers []string
}

// Fingerprint identifies the state of the world: two that differ in nothing but the numbers in UIDs, resource versions,
// IDs, keys, addresses and times have the same. key is the key whose value in etcd is to be the wanted one of its
// cluster; more is what else tells states apart.
func (w *World) Fingerprint(key string, wanted map[cluster.ID]string, more string) uint64 {
	hash := newDigest()
	ordinals := map[string]uint64{}
	var disks []string
	ordinal := func(identifier string) uint64 {
		if _, known := ordinals[identifier]; !known {
			ordinals[identifier] = uint64(len(ordinals))
		}
		return ordinals[identifier]
	}
	add := func(p *imprint) {
		hash.number(p.skeleton)
		for _, identifiers := range p.identifiers {
			if !strings.Contains(identifiers, ",") {
				hash.number(ordinal(identifiers))
				continue
			}
			var list []uint64 // in an order that no random number decides
			for identifier := range strings.SplitSeq(identifiers, ",") {
				list = append(list, ordinal(identifier))
			}
			slices.Sort(list)
			for _, number := range list {
				hash.number(number)
			}
		}
	}
	for _, secret := range all[*corev1.Secret](w.Server) { // the oldest authority has the lowest number
		for _, keys := range []pki.Keys{pki.PreviousKeys, pki.TLSKeys} {
			add(scan(strings.Join(Fingerprints(secret.Data[keys.Certificate]), ",")))
		}
	}
	for _, k := range w.sortedKinds() {
		if k.scoped {
			continue // volumes are told by their claims
		}
		for _, name := range sortedKeys(k.objects) {
			v := k.objects[name]
			if v.imprint == nil {
				v.imprint = imprintOf(v.object)
			}
			add(v.imprint)
			switch object := v.object.(type) {
			case *corev1.Secret:
				add(scan(w.validity(object)))
			case *corev1.PersistentVolumeClaim:
				disks = append(disks, w.Disk(object))
			case *corev1.Pod:
				if claimName(object) == "" {
					disks = append(disks, w.memoryOf(object))
				}
			}
		}
	}
	add(scan(w.Etcd.Describe(disks, key, wanted)))
	add(scan(more))
	return uint64(hash)
}

// digest is the hash FNV-1a.
type digest uint64

func newDigest() digest { return 14695981039346656037 }

func (d *digest) text(text string) {
	for i := range len(text) {
		*d = (*d ^ digest(text[i])) * 1099511628211
	}
}

func (d *digest) number(n uint64) {
	for shift := 0; shift < 64; shift += 8 {
		*d = (*d ^ digest(byte(n>>shift))) * 1099511628211
	}
}

// validity tells where a Secret's certificate is in its life.
func (w *World) validity(secret *corev1.Secret) string {
	r := w.trust.report(secret.Data[pki.TLSKeys.Certificate], secret.Data[pki.TLSKeys.Authorities])
	text := "valid"
	switch {
	case !w.Now.Before(r.NotAfter):
		text = "expired"
	case !w.Now.Before(r.RenewalDue):
		text = "due"
	}
	return text + " " + strings.Join(r.Issuers, ",")
}

func imprintOf(object client.Object) *imprint {
	var data string
	if secret, ok := object.(*corev1.Secret); ok {
		for _, keys := range []pki.Keys{pki.TLSKeys, pki.PreviousKeys} {
			data += strings.Join(Fingerprints(secret.Data[keys.Certificate]), ",") + ";"
		}
		data += strings.Join(Fingerprints(secret.Data[pki.TLSKeys.Authorities]), ",")
		bare := *secret
		bare.Data = nil
		object = &bare
	}
	text, err := json.Marshal(object)
	if err != nil {
		panic(err) // every stored object is plain data
	}
	return scan(strings.ReplaceAll(string(text), `\",\"`, ",") + data)
}

// counters are what stands before numbers that only grow.
var counters = []string{
	`"observedGeneration":`, `"generation":`, `"resourceVersion":"`, `"` + cluster.AnnotationNextMember + `":"`,
}

// memberName is the name of a member, or of one that a user added. Its number only grows, so it tells no states apart.
var memberName = regexp.MustCompile(`(prod|foreign)-[0-9]+`)

// scan parts a text from its identifiers: UIDs, hexadecimal IDs and hashes, addresses and members' names. Times are
// left out.
func scan(text string) *imprint {
	p := &imprint{}
	hash := newDigest()
	kept := 0 // what lies before is in the hash, or left out
	leaveOut := func(from, to int) {
		hash.text(text[kept:from])
		hash.text("\x00")
		kept = to
	}
	for i := 0; i < len(text); {
		end := i
		if counter := counterAt(text[i:]); counter > 0 {
			i += counter
			for end = i; end < len(text) && isDigit(text[end]); end++ {
			}
			leaveOut(i, end)
		}
		for ; end < len(text) && isWordByte(text[end]); end++ {
		}
		switch word := text[i:end]; {
		case isIdentifier(word):
			p.identifiers = append(p.identifiers, word)
			leaveOut(i, end)
		case isTime(word):
			leaveOut(i, end)
		case strings.Contains(word, "prod-"), strings.Contains(word, "foreign-"):
			for _, name := range memberName.FindAllStringIndex(word, -1) {
				p.identifiers = append(p.identifiers, word[name[0]:name[1]])
				leaveOut(i+name[0], i+name[1])
			}
		}
		i = max(end, i+1)
	}
	leaveOut(len(text), len(text))
	p.skeleton = uint64(hash)
	return p
}

// counterAt returns the length of what stands before a counter, where a text begins with it; zero where it does not.
func counterAt(text string) int {
	if text[0] != '"' {
		return 0
	}
	for _, counter := range counters {
		if strings.HasPrefix(text, counter) {
			return len(counter)
		}
	}
	return 0
}

func isDigit(b byte) bool { return b >= '0' && b <= '9' }

func isWordByte(b byte) bool {
	return isDigit(b) || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b == '.' || b == '-' || b == ':' || b == ','
}

func isTime(word string) bool {
	return len(word) == len("2026-01-02T03:04:05Z") && word[4] == '-' && word[10] == 'T'
}

// isIdentifier reports whether a word names one thing among others of its kind, or several.
func isIdentifier(word string) bool {
	switch {
	case strings.HasPrefix(word, "10.0.0."), strings.Contains(word, "uid-"), strings.HasPrefix(word, "rotation-"), strings.HasPrefix(word, "restart-"), strings.HasPrefix(word, "wish-"):
		return true
	case len(word) < 12:
		return false
	}
	for _, b := range []byte(word) {
		if !isDigit(b) && (b < 'a' || b > 'f') && b != ',' {
			return false
		}
	}
	return true
}
