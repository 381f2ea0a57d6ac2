package provider

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// FuzzGiteaForms holds forms to one payload: what is taken out is all that the form says, and what a sender puts in
// comes out.
func FuzzGiteaForms(f *testing.F) {
	f.Add("payload=%7B%22a%22%3A+1%7D")
	f.Add("payload=a&payload=b")
	f.Add("payload=a&x=1;y")
	f.Add("%70ayload=%zz")
	h := http.Header{"Content-Type": {"application/x-www-form-urlencoded; charset=utf-8"}}
	f.Fuzz(func(t *testing.T, text string) {
		back, ok := giteaPayload(&Request{Method: http.MethodPost, Header: h, Body: []byte(url.Values{"payload": {text}}.Encode())})
		if !ok || string(back) != text {
			t.Fatalf("%q came back as %q", text, back)
		}
		if payload, ok := giteaPayload(&Request{Method: http.MethodPost, Header: h, Body: []byte(text)}); ok {
			plain, err := url.ParseQuery(text)
			if err != nil || plain.Encode() != (url.Values{"payload": {string(payload)}}).Encode() {
				t.Fatalf("%q holds more than %q", text, payload)
			}
		}
		payload, ok := giteaPayload(&Request{Method: http.MethodGet, RawQuery: text})
		if plain, err := url.ParseQuery(text); ok && (err != nil || plain.Get("payload") != string(payload)) {
			t.Fatalf("%q holds another payload than %q", text, payload)
		}
	})
}

// FuzzHubSpotURL compares the decoding with a plain one, and holds the boundary to its promise: the signed text can
// be taken apart in one way only.
func FuzzHubSpotURL(f *testing.F) {
	f.Add("https://hooks.example.com/a?b=%3Ac%2f%253A%20d", `[{"eventId":1}]`, uint8(3))
	f.Add("https://hooks.example.com/a?b=", `{"a":"[{"}`, uint8(30))
	f.Add("%%3A%3%2f", "", uint8(1))
	f.Fuzz(func(t *testing.T, called, body string, at uint8) {
		if got, want := hubspotDecode(called), plainHubSpotDecode(called); got != want {
			t.Fatalf("%q: %q, plainly %q", called, got, want)
		}
		whole := called + body
		cut := int(at) % (len(whole) + 1)
		if cut != len(called) && body != "" && cut != len(whole) &&
			hubspotBoundary(called, []byte(body)) && hubspotBoundary(whole[:cut], []byte(whole[cut:])) {
			t.Fatalf("%q ends at %d as well as at %d", whole, len(called), cut)
		}
		if body != "" && hubspotBoundary(called, []byte(body)) && hubspotBoundary(whole, nil) {
			t.Fatalf("%q is a URL without a body as well", whole)
		}
	})
}

func plainHubSpotDecode(called string) string {
	var b strings.Builder
	for i := 0; i < len(called); i++ {
		if i+3 <= len(called) && called[i] == '%' {
			if c, err := url.PathUnescape(called[i : i+3]); err == nil && strings.Contains(":/?@!$'()*,;", c) {
				b.WriteString(c)
				i += 2
				continue
			}
		}
		b.WriteByte(called[i])
	}
	return b.String()
}

// FuzzElements compares the taking apart of arrays with encoding/json.
func FuzzElements(f *testing.F) {
	for _, seed := range []string{`[{"a":1}, [2] ,"x",null]`, "[]", ` [ 1 ] `, `[1] x`, `[1,]`, `{"a":[1]}`, "[\"\xff\"]", ""} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		before := bytes.Clone(body)
		list := value(body).elements()
		if !bytes.Equal(before, body) {
			t.Fatal("the body was changed")
		}
		if list == nil {
			return
		}
		var plain []json.RawMessage
		if err := json.Unmarshal(body, &plain); err != nil || len(plain) != len(list) {
			t.Fatalf("%d elements, plainly %d: %v", len(list), len(plain), err)
		}
		for i, one := range list {
			if !bytes.Equal(one, plain[i]) || !bytes.Contains(body, one) {
				t.Fatalf("element %d is %q, plainly %q", i, one, plain[i])
			}
		}
	})
}

// FuzzStampMember writes a time into bodies, and wants to read it again.
func FuzzStampMember(f *testing.F) {
	for _, seed := range []string{`{"webhookTimestamp":1,"a":2}`, `{"a":{"webhookTimestamp":1}}`, ` { } `, "", "[]", `{"WebhookTimestamp":1}`} {
		f.Add([]byte(seed))
	}
	set := newFields("webhookTimestamp")
	f.Fuzz(func(t *testing.T, body []byte) {
		before := bytes.Clone(body)
		stamped, err := withStamp(body, "webhookTimestamp", fuzzNow)
		if !bytes.Equal(before, body) {
			t.Fatal("the body was changed")
		}
		if err != nil {
			return
		}
		var v [1]value
		if err := set.read(stamped, v[:]); err != nil || string(v[0]) != writeMillis(fuzzNow) {
			t.Fatalf("%q has the time %q: %v", stamped, v[0], err)
		}
	})
}

// TestUnixMillis has the edges of what is a time of signing in milliseconds.
func TestUnixMillis(t *testing.T) {
	for text, want := range map[string]time.Time{
		"1795435200000": fuzzNow, "1795435200": {}, "01795435200000": {}, "0795435200000": {}, "17954352000000": {}, "1795435200.00": {}, "-179543520000": {}, "": {},
	} {
		got, ok := unixMillis(text)
		if ok == want.IsZero() || !got.Equal(want) {
			t.Errorf("%q: %v %v", text, got, ok)
		}
	}
}
