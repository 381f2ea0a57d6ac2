package provider

import (
	"net/http"
	"strings"
)

// textResponse echoes a provider's challenge in a form that no browser takes for anything but text.
func textResponse(text string) *Response {
	return &Response{
		Status: http.StatusOK,
		Header: http.Header{
			"Content-Type":           {"text/plain; charset=utf-8"},
			"X-Content-Type-Options": {"nosniff"},
		},
		Body: []byte(text),
	}
}

// visible says whether s is ASCII without spaces and control characters.
func visible(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// jsonResponse answers with a JSON text.
func jsonResponse(text string) *Response {
	return &Response{Status: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Body: []byte(text)}
}

// isNonce says whether s is a random text as providers send it to be signed or echoed: letters, digits and
// +/=_-.~ alone. No JSON object is one, so the answer is no signature of a delivery.
func isNonce(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		if !letter && (c < '0' || c > '9') && !strings.ContainsRune("+/=_-.~", rune(c)) {
			return false
		}
	}
	return s != "" && len(s) <= 256
}
