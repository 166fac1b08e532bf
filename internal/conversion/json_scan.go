package conversion

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// Conversion copies most of an object unchanged. encoding/json reads every byte several times to find the end of a
// value. The functions in this file only find the ends of values. They do not check the values: the decoder does that
// later.

var errTruncated = errors.New("unexpected end of JSON")

// members calls visit for each member of a JSON object.
func members(object []byte, visit func(key string, value []byte) error) error {
	return spans(object, func(key string, from, to int) error { return visit(key, object[from:to]) })
}

// spans calls visit for each member of a JSON object, with the position of the value in the object.
func spans(object []byte, visit func(key string, from, to int) error) error {
	return each(object, '{', '}', func(at int) (int, error) {
		end, err := skip(object, at)
		if err != nil {
			return 0, err
		}
		key, err := text(object[at:end])
		if err != nil {
			return 0, err
		}
		if at = space(object, end); at == len(object) || object[at] != ':' {
			return 0, fmt.Errorf("no value for %q", key)
		}
		at = space(object, at+1)
		if end, err = skip(object, at); err != nil {
			return 0, err
		}
		return end, visit(key, at, end)
	})
}

// elements calls visit for each element of a JSON array.
func elements(array []byte, visit func(value []byte) error) error {
	return each(array, '[', ']', func(at int) (int, error) {
		end, err := skip(array, at)
		if err != nil {
			return 0, err
		}
		return end, visit(array[at:end])
	})
}

// each calls next for each item of a list in brackets. next gets the start of an item and returns its end.
func each(raw []byte, open, closed byte, next func(at int) (end int, err error)) error {
	if string(raw) == "null" {
		return nil
	}
	at := space(raw, 0)
	if at == len(raw) || raw[at] != open {
		return fmt.Errorf("no JSON that begins with %c", open)
	}
	for separator := open; ; separator = ',' {
		at = space(raw, at+1)
		if separator == open && at < len(raw) && raw[at] == closed {
			return nil
		}
		end, err := next(at)
		if err != nil {
			return err
		}
		switch at = space(raw, end); {
		case at == len(raw):
			return errTruncated
		case raw[at] == closed:
			return nil
		case raw[at] != ',':
			return fmt.Errorf("no comma before %q", raw[at])
		}
	}
}

// text decodes a JSON string.
func text(raw []byte) (string, error) {
	if len(raw) >= 2 && raw[0] == '"' && bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1 : len(raw)-1]), nil
	}
	var s string
	err := json.Unmarshal(raw, &s)
	return s, err
}

func space(raw []byte, at int) int {
	for at < len(raw) && (raw[at] == ' ' || raw[at] == '\n' || raw[at] == '\r' || raw[at] == '\t') {
		at++
	}
	return at
}

// skip returns the end of the value that starts at a position.
func skip(raw []byte, at int) (int, error) {
	for depth := 0; at < len(raw); {
		switch raw[at] {
		case '"':
			end, err := skipString(raw, at)
			if err != nil {
				return 0, err
			}
			at = end
		case '{', '[':
			depth++
			at++
			continue
		case '}', ']':
			if depth--; depth < 0 {
				return 0, fmt.Errorf("no value before %q", raw[at])
			}
			at++
		case ',', ':', ' ', '\n', '\r', '\t':
			if depth == 0 {
				return 0, fmt.Errorf("no value before %q", raw[at])
			}
			at++
			continue
		default:
			at = skipWord(raw, at)
		}
		if depth == 0 {
			return at, nil
		}
	}
	return 0, errTruncated
}

func skipString(raw []byte, at int) (int, error) {
	for at++; at < len(raw); at++ {
		switch raw[at] {
		case '\\':
			at++
		case '"':
			return at + 1, nil
		}
	}
	return 0, errTruncated
}

// skipWord skips a number, true, false or null.
func skipWord(raw []byte, at int) int {
	for at < len(raw) && bytes.IndexByte([]byte("{}[],: \n\r\t\""), raw[at]) < 0 {
		at++
	}
	return at
}
