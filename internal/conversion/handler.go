package conversion

import (
	"bufio"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/json"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/etcd-warden/etcd-warden/api/v1alpha1"
	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

// Handler returns the handler of the conversion webhook. It gives the same answers as the handler of
// controller-runtime. It is faster: it copies the metadata, except the annotations of this package, and it uses all
// processors. A list of 10,000 objects takes less than a second.
func Handler() http.Handler { return http.HandlerFunc(serve) }

// review is the part of a ConversionReview that the handler reads.
type review struct {
	apiVersion []byte
	uid        []byte
	desired    string
	objects    [][]byte
}

func serve(w http.ResponseWriter, r *http.Request) {
	body, reserve, err := receive(r)
	if err != nil {
		http.Error(w, "receiving a ConversionReview: "+err.Error(), http.StatusBadRequest)
		return
	}
	asked, err := read(body, reserve)
	if err != nil {
		http.Error(w, "reading a ConversionReview: "+err.Error(), http.StatusBadRequest)
		return
	}
	converted, err := convertAll(asked.objects, asked.desired, reserve)
	answer(w, asked, converted, err)
}

func read(body []byte, reserve func(int) error) (review, error) {
	var asked review
	err := members(body, func(key string, value []byte) error {
		switch key {
		case "apiVersion":
			asked.apiVersion = value
		case "request":
			return members(value, func(key string, value []byte) error {
				switch key {
				case "uid":
					asked.uid = value
				case "desiredAPIVersion":
					if len(value) > maxVersionBytes {
						return errors.New("its desiredAPIVersion is no version")
					}
					return json.Unmarshal(value, &asked.desired)
				case "objects":
					return elements(value, func(object []byte) error {
						if err := reserve(bytesPerObject); err != nil {
							return err
						}
						asked.objects = append(asked.objects, object)
						return nil
					})
				}
				return nil
			})
		}
		return nil
	})
	if err == nil && (asked.uid == nil || asked.apiVersion == nil) {
		err = errors.New("it has no request with a uid")
	}
	return asked, err
}

// answer writes the response. It ignores write errors: the client is gone then.
func answer(w http.ResponseWriter, asked review, converted [][]byte, err error) {
	parts := [][]byte{[]byte(`{"kind":"ConversionReview","apiVersion":`), asked.apiVersion, []byte(`,"response":{"uid":`), asked.uid}
	if err != nil {
		parts = append(parts, []byte(`,"convertedObjects":null,"result":{"status":"Failure","message":`), quote(err.Error()), []byte(`}}}`))
	} else {
		parts = append(parts, []byte(`,"result":{"status":"Success"},"convertedObjects":[`))
		for n, object := range converted {
			if n > 0 {
				parts = append(parts, []byte(","))
			}
			parts = append(parts, object)
		}
		parts = append(parts, []byte(`]}}`))
	}
	length := 0
	for _, part := range parts {
		length += len(part)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(length))
	const chunk = 64 << 10
	out := bufio.NewWriterSize(w, chunk)
	for _, part := range parts {
		_, _ = out.Write(part)
	}
	_ = out.Flush()
}

// convertAll converts the objects on all processors. After the first error it starts no further conversion.
func convertAll(objects [][]byte, desired string, reserve func(int) error) ([][]byte, error) {
	converted, errs := make([][]byte, len(objects)), make([]error, len(objects))
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(cap(decoders), len(objects)) {
		workers.Go(func() {
			for {
				n := int(next.Add(1)) - 1
				if n >= len(objects) {
					return
				}
				decoders <- struct{}{}
				converted[n], errs[n] = convertObject(objects[n], desired)
				<-decoders
				if errs[n] == nil {
					errs[n] = reserve(cap(converted[n]))
				}
				if errs[n] != nil {
					next.Store(int64(len(objects)))
				}
			}
		})
	}
	workers.Wait()
	return converted, errors.Join(errs...)
}

// object is an EtcdCluster whose parts are still JSON.
type object struct {
	apiVersion, kind, namespace, name string
	metadata, spec, status            []byte
	annotations                       map[string]string      // only those of this package
	annotated                         struct{ from, to int } // the position of all annotations in the metadata
}

// convertObject converts one object in JSON.
func convertObject(raw []byte, desired string) (converted []byte, err error) {
	defer func() {
		if caught := recover(); caught != nil {
			logf.Log.WithName("conversion").Error(nil, "Conversion panicked", "panic", caught, "stack", string(debug.Stack()))
			err = fmt.Errorf("converting an object to %s: internal error, see the log of etcd-warden", desired)
		}
	}()
	if err := checkSize(raw); err != nil {
		return nil, fmt.Errorf("reading an object to convert: %w", err)
	}
	o, err := parse(raw)
	if err != nil {
		return nil, fmt.Errorf("reading an object to convert: %w", err)
	}
	if err := o.checkStructs(); err != nil {
		return nil, fmt.Errorf("EtcdCluster %s/%s: %w", o.namespace, o.name, err)
	}
	switch hub, spoke := v1beta1.GroupVersion.String(), v1alpha1.GroupVersion.String(); {
	case o.kind != v1beta1.EtcdClusterKind:
		return nil, fmt.Errorf("there is no conversion of %s %s", o.apiVersion, o.kind)
	case o.apiVersion == spoke && desired == hub:
		converted, err = o.toHub()
	case o.apiVersion == hub && desired == spoke:
		converted, err = o.fromHub()
	default:
		err = fmt.Errorf("there is no conversion from %s to %s", o.apiVersion, desired)
	}
	if err != nil {
		return nil, fmt.Errorf("EtcdCluster %s/%s: %w", o.namespace, o.name, err)
	}
	return converted, nil
}

func parse(raw []byte) (object, error) {
	var o object
	err := members(raw, func(key string, value []byte) (err error) {
		switch key {
		case "apiVersion":
			o.apiVersion, err = text(value)
		case "kind":
			o.kind, err = text(value)
		case "metadata":
			o.metadata = value
			err = spans(value, o.parseMeta)
		case "spec":
			o.spec = value
		case "status":
			o.status = value
		}
		return err
	})
	if err == nil && o.metadata == nil {
		err = errors.New("it has no metadata")
	}
	return o, err
}

func (o *object) parseMeta(key string, from, to int) (err error) {
	value := o.metadata[from:to]
	switch key {
	case "namespace":
		o.namespace, err = text(value)
	case "name":
		o.name, err = text(value)
	case "annotations":
		o.annotated.from, o.annotated.to = from, to
		err = members(value, func(key string, value []byte) error {
			if !strings.HasPrefix(key, HubPrefix) && !strings.HasPrefix(key, SpokePrefix) {
				return nil
			}
			saved, err := text(value)
			if err != nil {
				return nil // conversion did not write this annotation
			}
			if o.annotations == nil {
				o.annotations = map[string]string{}
			}
			o.annotations[key] = saved
			return nil
		})
	}
	return err
}

func (o *object) toHub() ([]byte, error) {
	var spoke v1alpha1.EtcdCluster
	var hub v1beta1.EtcdCluster
	if err := o.decode(&spoke.ObjectMeta, &spoke.Spec, &spoke.Status); err != nil {
		return nil, err
	}
	ToHub(&spoke, &hub)
	return o.encode(v1beta1.GroupVersion.String(), hub.Annotations, &hub.Spec, &hub.Status)
}

func (o *object) fromHub() ([]byte, error) {
	var hub v1beta1.EtcdCluster
	var spoke v1alpha1.EtcdCluster
	if err := o.decode(&hub.ObjectMeta, &hub.Spec, &hub.Status); err != nil {
		return nil, err
	}
	FromHub(&hub, &spoke)
	return o.encode(v1alpha1.GroupVersion.String(), spoke.Annotations, &spoke.Spec, &spoke.Status)
}

// decode decodes the parts that conversion needs.
func (o *object) decode(meta *metav1.ObjectMeta, spec, status any) error {
	meta.Namespace, meta.Name, meta.Annotations = o.namespace, o.name, o.annotations
	if o.spec != nil {
		if err := checkQuantities(o.spec); err != nil {
			return fmt.Errorf("reading spec: %w", err)
		}
		if err := json.Unmarshal(o.spec, spec); err != nil {
			return fmt.Errorf("reading spec: %w", err)
		}
	}
	if o.status != nil {
		if err := json.Unmarshal(o.status, status); err != nil {
			return fmt.Errorf("reading status: %w", err)
		}
	}
	return nil
}

// encode returns the converted object in JSON. The annotations replace those of this package.
func (o *object) encode(apiVersion string, annotations map[string]string, spec, status any) ([]byte, error) {
	const room = 512
	out := make([]byte, 0, len(o.metadata)+len(o.spec)+len(o.status)+room)
	out = append(out, `{"apiVersion":"`+apiVersion+`","kind":"`+v1beta1.EtcdClusterKind+`","metadata":`...)
	if maps.Equal(annotations, o.annotations) {
		out = append(out, o.metadata...)
	} else {
		var err error
		if out, err = o.appendMeta(out, annotations); err != nil {
			return nil, err
		}
	}
	raw, err := json.Marshal(spec)
	if err != nil {
		return nil, fmt.Errorf("writing spec: %w", err)
	}
	out = append(append(out, `,"spec":`...), raw...)
	if o.status != nil {
		if raw, err = json.Marshal(status); err != nil {
			return nil, fmt.Errorf("writing status: %w", err)
		}
		out = append(append(out, `,"status":`...), raw...)
	}
	return append(out, '}'), nil
}

// appendMeta appends the metadata. The annotations replace those of this package.
func (o *object) appendMeta(out []byte, annotations map[string]string) ([]byte, error) {
	all := []byte{'{'}
	had := o.metadata[o.annotated.from:o.annotated.to]
	if len(had) > 0 {
		err := members(had, func(key string, value []byte) error {
			if _, ours := o.annotations[key]; !ours {
				all = appendMember(all, key, value)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		all = appendMember(all, key, quote(annotations[key]))
	}
	all = append(all, '}')
	if len(had) > 0 && len(all) > len("{}") {
		return append(append(append(out, o.metadata[:o.annotated.from]...), all...), o.metadata[o.annotated.to:]...), nil
	}
	meta := []byte{'{'}
	if len(all) > len("{}") {
		meta = appendMember(meta, "annotations", all)
	}
	err := members(o.metadata, func(key string, value []byte) error {
		if key != "annotations" {
			meta = appendMember(meta, key, value)
		}
		return nil
	})
	return append(append(out, meta...), '}'), err
}

func appendMember(to []byte, key string, value []byte) []byte {
	if len(to) > 1 {
		to = append(to, ',')
	}
	return append(append(append(to, quote(key)...), ':'), value...)
}

func quote(s string) []byte {
	raw, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string can always be encoded
	}
	return raw
}
