package provider

import (
	"bytes"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// FuzzTwilioParameters compares our reading of a form with the standard library's: where both read it, they find the
// same distinct pairs, sorted.
func FuzzTwilioParameters(f *testing.F) {
	f.Add("a=1&b=2&a=0&a=1&c=%2B+x&=&d")
	f.Add("a=%zz")
	f.Add("a;b=1")
	f.Fuzz(func(t *testing.T, text string) {
		got, ok := formParameters(text)
		want, err := url.ParseQuery(text)
		if err != nil || !ok {
			if err == nil && strings.Count(text, "&") < maxParameters {
				t.Fatalf("%q is a form", text)
			}
			return
		}
		var plain parameters
		for name, values := range want {
			slices.Sort(values)
			values = slices.Compact(values)
			for _, v := range values {
				plain = append(plain, formParameter{name, v})
			}
			if only := got.only(name); only != "" && (len(values) != 1 || only != values[0]) {
				t.Fatalf("%q of %q: %q", name, text, only)
			}
		}
		slices.SortFunc(plain, func(a, b formParameter) int { return strings.Compare(a.name+"\x00"+a.value, b.name+"\x00"+b.value) })
		for _, p := range got {
			if !slices.Contains(plain, p) {
				t.Fatalf("%q: %q is not in %q", text, p, plain)
			}
		}
		if len(got) != len(plain) {
			t.Fatalf("%q: %q, plainly %q", text, got, plain)
		}
	})
}

// FuzzMeta holds the splitter to its promise: parts are pieces of the body, which stays as it was.
func FuzzMeta(f *testing.F) {
	f.Add([]byte(`{"entry":[{"time":1,"changes":[{"field":"messages","value":{"messages":[{"id":"a"}]}}]},{"messaging":[{"message":{"mid":"b","is_deleted":true}}]},{}]}`))
	f.Add([]byte(`{"entry":[{"changes":[],"standby":[1,"x",null]}]}`))
	f.Add([]byte(`{"entry":[{"changes":[{"value":{"statuses":[{"id":"a","status":"read"}]}}],"changes":[]}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		before := bytes.Clone(body)
		parts, err := splitMeta(&Request{Body: body})
		if !bytes.Equal(before, body) {
			t.Fatal("the body was changed")
		}
		if err != nil && parts != nil {
			t.Fatal("parts and an error")
		}
		for _, p := range parts {
			if len(p.Body) == 0 || !bytes.Contains(body, p.Body) {
				t.Fatalf("%q is not in the body", p.Body)
			}
		}
	})
}

// FuzzMailgunForms holds both readers of forms to one rule: what they read, the standard library reads as well.
func FuzzMailgunForms(f *testing.F) {
	f.Add("multipart/form-data; boundary=x", []byte("--x\r\nContent-Disposition: form-data; name=\"token\"\r\n\r\nabc\r\n--x--\r\n"))
	f.Add("multipart/form-data; boundary=x", []byte("--x\r\nContent-Disposition: form-data; name=\"token\"; filename=\"a\"\r\n\r\nabc\r\n--x"))
	f.Add("application/x-www-form-urlencoded", []byte("token=abc&timestamp=1&signature=%30"))
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		r := &Request{Method: http.MethodPost, Header: http.Header{"Content-Type": {contentType}}, Body: body}
		switch mediaType(r.Header) {
		case "application/x-www-form-urlencoded", "multipart/form-data":
		default:
			return
		}
		proofs, err := readMailgun(r)
		if err != nil || len(proofs) != 1 {
			return
		}
		plain, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "/", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		plain.Header = r.Header
		if err := plain.ParseMultipartForm(1 << 20); err != nil && plain.PostForm == nil {
			return
		}
		if token := plain.PostForm["token"]; len(token) == 1 && token[0] != proofs[0].token && proofs[0].token != "" {
			t.Fatalf("we read %q, others %q", proofs[0].token, token)
		}
	})
}
