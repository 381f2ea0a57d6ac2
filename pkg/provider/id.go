package provider

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxName is the length of the longest event ID or type, in bytes. IDs are keys of Kafka records and of database
// indexes.
const maxName = 512

// cleanID checks an event ID: UTF-8 without control characters. A longer one than maxName becomes id-sha256: and
// its digest. It is the same for every retry, so nothing is lost; refusing it would make a provider retry in vain.
// White space alone is no ID.
func cleanID(id string) (string, error) {
	if strings.TrimSpace(id) == "" {
		return "", nil
	}
	if !cleanText(id) {
		return "", errIDForm
	}
	if len(id) > maxName {
		sum := sha256.Sum256([]byte(id))
		return "id-sha256:" + hex.EncodeToString(sum[:]), nil
	}
	return id, nil
}

// digestID names a delivery that has no name of its own. One that carries several events is named by its source
// as well, for its key is all that their names may rest on.
func digestID(source string, body []byte, several bool) string {
	h := sha256.New()
	if several {
		h.Write([]byte(source + "\n"))
	}
	h.Write(body)
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

// commonType is the type of all parts, if they have one.
func commonType(parts []Part) string {
	if len(parts) == 0 {
		return ""
	}
	for _, p := range parts[1:] {
		if p.Type != parts[0].Type {
			return ""
		}
	}
	return parts[0].Type
}

func checkType(typ string) error {
	if len(typ) > maxName || !cleanText(typ) {
		return errTypeForm
	}
	return nil
}

func cleanText(s string) bool {
	for i, c := range s {
		if unicode.IsControl(c) {
			return false
		}
		if c == utf8.RuneError {
			if _, n := utf8.DecodeRuneInString(s[i:]); n == 1 {
				return false
			}
		}
	}
	return true
}
