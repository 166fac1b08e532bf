package conversion

import (
	"bytes"
	"errors"
	"unicode/utf8"
)

// The decoder of Kubernetes computes all digits of a quantity. Requests reach conversion before the schemas check them,
// and annotations are never checked. So conversion refuses these quantities itself.
var (
	// errLongExponent is the error for a quantity such as 1e999999999, which takes hours and gigabytes.
	// The schemas refuse an exponent of three digits.
	errLongExponent = errors.New("a quantity has an exponent of more than two digits")
	// errLongQuantity is the error for a quantity of many digits: the time grows with the square of their number.
	errLongQuantity = errors.New("a quantity has more than 64 characters")
)

const (
	// maxQuantity is the limit of the schemas.
	maxQuantity = 64
	// maxQuantityDepth is more than the depth of spec.storage.volumeClaimTemplate.spec.resources.requests.storage.
	maxQuantityDepth = 8
)

// checkQuantities fails if a quantity in a spec has a long exponent or many digits.
func checkQuantities(spec []byte) error {
	if !isExpensive(spec) && !bytes.Contains(spec, []byte(`\u`)) { // a digit may be hidden in an escaped character
		return nil
	}
	return checkQuantitiesIn("", "", spec, maxQuantityDepth)
}

// checkQuantitiesIn looks at the values of limits and requests, and at config.quotaBackendBytes. Other values are no
// quantities. It reads the text that the decoder reads: that has each of several equal keys, and 1e-999999999 as such.
func checkQuantitiesIn(parent, name string, value []byte, depth int) error {
	if depth == 0 || len(value) == 0 {
		return nil
	}
	if value[0] == '{' {
		return members(value, func(key string, part []byte) error { return checkQuantitiesIn(name, key, part, depth-1) })
	}
	if parent == "limits" || parent == "requests" || parent == "config" && name == "quotaBackendBytes" {
		return checkQuantity(value)
	}
	return nil
}

// checkQuantity checks one quantity: a string or a number in JSON.
func checkQuantity(value []byte) error {
	decoded := string(value)
	if value[0] == '"' {
		var err error
		if decoded, err = text(value); err != nil {
			return err
		}
	}
	switch {
	case utf8.RuneCountInString(decoded) > maxQuantity:
		return errLongQuantity
	case hasLongExponent([]byte(decoded)):
		return errLongExponent
	}
	return nil
}

// isExpensive reports whether raw contains what would be an expensive quantity.
func isExpensive(raw []byte) bool { return hasLongExponent(raw) || hasManyDigits(raw) }

// hasManyDigits reports whether raw contains more digits and dots in a row than a valid quantity has.
func hasManyDigits(raw []byte) bool {
	row := 0
	for _, b := range raw {
		if !isDigit(b) && b != '.' {
			row = 0
		} else if row++; row > maxQuantity {
			return true
		}
	}
	return false
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
