package conversion

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// boundedBody is the body of a server that bounds its requests. Up to left bytes can be reserved.
type boundedBody struct {
	io.ReadCloser
	content string
	left    *atomic.Int64
}

func (b boundedBody) Bytes() []byte { return []byte(b.content) }

func (b boundedBody) Reserve(n int) error {
	if b.left.Add(-int64(n)) < 0 {
		return errors.New("no memory left")
	}
	return nil
}

func TestRefusesObjectsThatGrowWhenDecoded(t *testing.T) {
	object := func(spec, saved string) string {
		return `{"apiVersion":"operator.etcd-warden.io/v1alpha1","kind":"EtcdCluster","metadata":{"name":"prod",` +
			`"annotations":{"` + HubPrefix + `spec":"` + saved + `"}},"spec":` + spec + `}`
	}
	list := func(element string, n int) string {
		return `{"size":3,"pod":{"tolerations":[` + strings.Repeat(element+",", n) + element + `]}}`
	}
	inString := `{"size":3,"repository":"` + strings.Repeat(`{\"`, 2*maxObjectStructs) + `"}`
	for name, test := range map[string]struct {
		object string
		says   string
	}{
		"few":                        {object(list("{}", 10), ""), ""},
		"as many as allowed":         {object(list("{}", maxObjectStructs-3), ""), ""},
		"braces in a string":         {object(inString, ""), ""},
		"too many":                   {object(list("{}", maxObjectStructs), ""), "too many JSON objects"},
		"too many nulls":             {object(list("null", maxObjectStructs), ""), "too many JSON objects"},
		"too many in an annotation":  {object(list("{}", 1), strings.Repeat("{},", maxObjectStructs)), "too many JSON objects"},
		"more than etcd would store": {object(`{"repository":"`+strings.Repeat("x", maxObjectBytes)+`"}`, ""), "more than"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := convertObject([]byte(test.object), "operator.etcd-warden.io/v1beta1")
			switch {
			case test.says == "" && err != nil:
				t.Errorf("%.300v", err)
			case test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)):
				t.Errorf("the error is %.300v, want %q", err, test.says)
			}
		})
	}
}

func TestReservesTheMemoryOfTheAnswer(t *testing.T) {
	one := `{"apiVersion":"operator.etcd-warden.io/v1alpha1","kind":"EtcdCluster","metadata":{"name":"prod"},"spec":{"size":3}}`
	review := func(objects string) string {
		return `{"kind":"ConversionReview","apiVersion":"apiextensions.k8s.io/v1","request":{"uid":"1",` +
			`"desiredAPIVersion":"operator.etcd-warden.io/v1beta1","objects":[` + objects + `]}}`
	}
	for name, test := range map[string]struct {
		body   string
		memory int64
		status int
		says   string
	}{
		"enough":                   {review(one), 1 << 20, http.StatusOK, `"status":"Success"`},
		"not for the objects":      {review(one + "," + one), bytesPerObject, http.StatusBadRequest, "no memory left"},
		"not for what they become": {review(one), bytesPerObject, http.StatusOK, "no memory left"},
		"a version without end": {
			strings.Replace(review(one), "v1beta1", strings.Repeat("x", maxVersionBytes), 1), 1 << 20, http.StatusBadRequest, "no version",
		},
	} {
		t.Run(name, func(t *testing.T) {
			left := &atomic.Int64{}
			left.Store(test.memory)
			request := httptest.NewRequest(http.MethodPost, "/convert", http.NoBody)
			request.Body = boundedBody{ReadCloser: http.NoBody, content: test.body, left: left}
			recorder := httptest.NewRecorder()
			Handler().ServeHTTP(recorder, request)
			if recorder.Code != test.status || !strings.Contains(recorder.Body.String(), test.says) {
				t.Errorf("%d: %.300s", recorder.Code, recorder.Body)
			}
		})
	}
}
