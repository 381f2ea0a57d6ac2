package provider

import "net/http"

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
