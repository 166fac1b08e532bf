package conversion

import (
	"bytes"
	"errors"

	"k8s.io/apimachinery/pkg/util/json"
)

// errLongExponent is the error for a quantity such as 1e999999999. Kubernetes computes all of its digits to decode it,
// which takes hours and gigabytes. The schemas refuse an exponent of three digits, but requests reach conversion before
// the schemas check them, and annotations are never checked.
var errLongExponent = errors.New("a quantity has an exponent of more than two digits")

// checkQuantities fails if a quantity in a spec has a long exponent.
func checkQuantities(spec []byte) error {
	if !hasLongExponent(spec) && !bytes.Contains(spec, []byte(`\u`)) { // an exponent may be hidden in an escaped character
		return nil
	}
	var tree any
	if err := json.Unmarshal(spec, &tree); err != nil {
		return err
	}
	return checkTree("", "", tree)
}

// checkTree looks at the values of limits and requests, and at config.quotaBackendBytes. Other texts are no quantities.
func checkTree(parent, name string, value any) error {
	branch, ok := value.(map[string]any)
	if !ok {
		if parent == "limits" || parent == "requests" || parent == "config" && name == "quotaBackendBytes" {
			if raw, err := json.Marshal(value); err != nil || hasLongExponent(raw) {
				return errLongExponent
			}
		}
		return nil
	}
	for key, part := range branch {
		if err := checkTree(name, key, part); err != nil {
			return err
		}
	}
	return nil
}

// hasLongExponent reports whether raw contains a digit or a dot, then e or E, then perhaps a sign, then three digits.
func hasLongExponent(raw []byte) bool {
	const digits = 3
	for n, b := range raw {
		if b != 'e' && b != 'E' || n == 0 || !isDigit(raw[n-1]) && raw[n-1] != '.' {
			continue
		}
		rest := raw[n+1:]
		if len(rest) > 0 && (rest[0] == '+' || rest[0] == '-') {
			rest = rest[1:]
		}
		if len(rest) >= digits && isDigit(rest[0]) && isDigit(rest[1]) && isDigit(rest[2]) {
			return true
		}
	}
	return false
}

func isDigit(b byte) bool { return '0' <= b && b <= '9' }
