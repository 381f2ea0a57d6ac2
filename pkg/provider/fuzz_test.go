package provider

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/catchment-dev/catchment/pkg/event"
)

var fuzzNow = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// FuzzVerify holds every verifier to one rule: what it accepts, somebody with the secret has signed. The fuzzer has
// not the secret, so of the schemes that sign the body nothing is accepted but the signed body, byte for byte.
func FuzzVerify(f *testing.F) {
	sources := make([]*Source, len(All))
	signed := make([]Signed, len(All))
	for i, p := range All {
		c := p.NewCredentials()
		cfg := Config{Source: "fuzz", Provider: p.Name, Options: c.Options}
		if c.Secret != "" {
			cfg.Secrets = []Secret{{ID: "k", Text: c.Secret}}
		}
		if c.Keys != nil {
			cfg.Keys = c.Keys
		}
		if cfg.PublicURL = "https://hooks.example.com"; c.Options["public_url"] != nil {
			cfg.PublicURL = ""
		}
		in := &SignInput{
			Secret: c.Signer, Options: c.Options, URL: "https://hooks.example.com/webhooks/fuzz", Now: fuzzNow,
			Sample: p.Sample(rand.New(rand.NewPCG(1, 1)), SampleInput{Now: fuzzNow}),
		}
		if p == hmacAny {
			cfg.HMAC = &HMAC{
				Header: "X-Sig", Prefix: "v1=", Separator: ",", Signed: "{id}.{timestamp}.{body}",
				TimestampHeader: "X-Time", IDHeader: "X-Id", TypeHeader: "X-Type",
			}
			in.HMAC = cfg.HMAC
		}
		in.Body = in.Sample.Body
		var err error
		if signed[i], err = p.Sign(in); err != nil {
			f.Fatal(p.Name, err)
		}
		if sources[i], err = New(cfg); err != nil {
			f.Fatal(p.Name, err)
		}
		f.Add(uint8(i), uint8(0), "", signed[i].Body)
		f.Add(uint8(i), uint8(1), strings.Repeat("0", 64), []byte(`{"id":"a","ID":"b"}`))
		f.Add(uint8(i), uint8(2), "v0=00", []byte(`[{"id":"a"},{"type":"b"}]`))
		f.Add(uint8(i), uint8(0), "", []byte(`{"id":"a","type":"b","created":"9999-12-31T23:59:59-00:01","time":"0001-01-01T00:00:00+00:01"}`))
	}
	f.Fuzz(func(t *testing.T, which, header uint8, value string, body []byte) {
		p, source, good := All[int(which)%len(All)], sources[int(which)%len(All)], signed[int(which)%len(All)]
		h := good.Header.Clone()
		if header > 0 {
			names := slices.Sorted(maps.Keys(h))
			h.Set(names[int(header)%len(names)], value)
		}
		path, query, _ := strings.Cut(strings.TrimPrefix(good.URL, "https://hooks.example.com"), "?")
		before := bytes.Clone(body)
		v, err := source.Receive(t.Context(), &Request{Method: good.Method, Path: path, RawQuery: query, Header: h, Body: body, Now: fuzzNow, FromProxy: true})
		if !bytes.Equal(before, body) {
			t.Fatal("the body was changed")
		}
		if err != nil {
			var refusal *Refusal
			if !errors.As(err, &refusal) || refusal.Status < 400 || refusal.Status > 503 {
				t.Fatalf("no refusal: %v", err)
			}
			return
		}
		if v.Handshake != nil {
			return
		}
		if p.Authenticity == AuthSigned && !bytes.Equal(body, good.Body) {
			t.Fatalf("%s accepted another body as %+v", p.Name, v)
		}
		if v.ID == "" || !utf8.ValidString(v.ID) || len(v.ID) > maxName {
			t.Fatalf("ID %q", v.ID)
		}
		readable(t, &v.Identity)
		for _, part := range v.Parts {
			readable(t, &part.Identity)
			if part.ID == "" || !utf8.ValidString(part.ID) || len(part.ID) > maxName || !bytes.Contains(body, part.Body) {
				t.Fatalf("part %+v", part)
			}
		}
	})
}

// readable wants the record of a delivery with that name to be read as it was written.
func readable(t *testing.T, id *Identity) {
	t.Helper()
	got, err := event.Decode(event.Encode(&event.Delivery{
		Source: "fuzz", Provider: "stripe", ID: id.ID, Type: id.Type, Time: id.Time, ReceivedAt: fuzzNow,
		DeliveryID: "01a21f19-7836-7327-ab8b-d400abdfda47", Method: http.MethodPost, Path: "/webhooks/fuzz", RemoteAddr: "192.0.2.1",
	}))
	if err != nil {
		t.Fatalf("%+v: %v", id, err)
	}
	if got.ID != id.ID || got.Type != id.Type || !got.Time.Equal(id.Time) {
		t.Fatalf("%+v was read as %q, %q at %s", id, got.ID, got.Type, got.Time)
	}
}

// FuzzSignatureHeaders compares the header parsers with plain ones, after the official libraries.
func FuzzSignatureHeaders(f *testing.F) {
	mac := hmac.New(sha256.New, []byte("k")).Sum(nil)
	f.Add("t=1,v1=" + hex.EncodeToString(mac) + ",v0=x")
	f.Add(" v1=" + hex.EncodeToString(mac) + " ,v2=x, v1=00")
	pagerduty := pagerdutyRules.rules()
	f.Add("v1," + base64.StdEncoding.EncodeToString(mac) + " v1a,x")
	f.Fuzz(func(t *testing.T, header string) {
		stamp, sent, err := parseStripe(header, nil)
		if err == nil {
			plain := plainStripe(header)
			if stamp == "" || !bytes.Equal(sent, plain) || len(sent)%sha256.Size != 0 {
				t.Fatalf("stripe: %q %x, plainly %x", stamp, sent, plain)
			}
		}
		if got, want := parseStandard(header, nil), plainStandard(header); !bytes.Equal(got, want) {
			t.Fatalf("standard: %x, plainly %x", got, want)
		}
		if got, want := pagerduty.signatures(nil, header, sha256.Size), plainPagerDuty(header); !bytes.Equal(got, want) {
			t.Fatalf("pagerduty: %x, plainly %x", got, want)
		}
	})
}

func plainStripe(header string) (sent []byte) {
	for _, pair := range strings.Split(header, ",") {
		parts := strings.Split(pair, "=")
		if len(parts) != 2 || parts[0] != "v1" {
			continue
		}
		if b, err := hex.DecodeString(parts[1]); err == nil && len(b) == sha256.Size {
			sent = append(sent, b...)
		}
	}
	return sent
}

func plainPagerDuty(header string) (sent []byte) {
	for _, part := range strings.Split(header, ",") {
		version, text, _ := strings.Cut(strings.TrimSpace(part), "=")
		if b, err := hex.DecodeString(text); err == nil && version == "v1" && len(b) == sha256.Size {
			sent = append(sent, b...)
		}
	}
	return sent
}

func plainStandard(header string) (sent []byte) {
	for _, part := range strings.Split(header, " ") {
		version, text, _ := strings.Cut(part, ",")
		if b, err := base64.StdEncoding.DecodeString(text); err == nil && version == "v1" && base64.StdEncoding.EncodeToString(b) == text && len(b) == sha256.Size {
			sent = append(sent, b...)
		}
	}
	return sent
}

// FuzzFields compares the extractor with encoding/json: where it names an event, every reader names the same.
func FuzzFields(f *testing.F) {
	for _, seed := range []string{
		`{"id":"a","event":{"type":"t"},"n":1}`, `{"id":"a","ID":"b"}`, `{"\u0069d":"a"}`, `{"id":"\ud800"}`, `[{"id":1}]`, "{\"id\":\"\xff\"}",
		`{"event":{"TYPE":"x","type":"y"}}`, `{"ıd":"x","id":"y"}`, `{"id":"a"} x`, `{"id":" "}`, strings.Repeat("[", 100),
	} {
		f.Add([]byte(seed))
	}
	set := newFields("id", "event.type", "n")
	f.Fuzz(func(t *testing.T, body []byte) {
		var v [3]value
		before := bytes.Clone(body)
		err := set.read(body, v[:])
		if !bytes.Equal(before, body) {
			t.Fatal("the body was changed")
		}
		if err != nil || v[0] == nil || v[0][0] != '"' {
			return
		}
		id, err := cleanID(v[0].text())
		if err != nil || id == "" || len(id) > maxName {
			return // no ID by cleanID's rules, white space among them: the digest names the event
		}
		var exact map[string]any
		if err := json.Unmarshal(body, &exact); err != nil {
			t.Fatalf("encoding/json: %v", err)
		}
		var folded struct{ ID string }
		if err := json.Unmarshal(body, &folded); err != nil {
			t.Fatalf("encoding/json: %v", err)
		}
		if len(v[0].text()) <= maxName && (exact["id"] != id || folded.ID != id) {
			t.Fatalf("we read %q, others %q and %q", id, exact["id"], folded.ID)
		}
	})
}

// FuzzNames holds event_id to its promise: two tokens that differ in text never give one ID. Text is a string's
// value or a number's digits.
func FuzzNames(f *testing.F) {
	for _, seed := range [][2]string{
		{"12345678901234567890", "12345678901234567891"},
		{"1.50", "1.5"},
		{"1e3", "1000"},
		{"-0", "0"},
		{`"\u0061"`, `"a"`},
		{`"1"`, "1"},
		{`{"a":1}`, `[1]`},
		{"true", "null"},
		{`"  "`, `" "`},
		{`"\ud800"`, `"\ud801"`},
		{"\"\xff\"", "\"\xfe\""},
	} {
		f.Add([]byte(seed[0]), []byte(seed[1]))
	}
	o := &opening{Config: Config{EventID: "body.id"}}
	n := o.naming()
	if len(o.errs) > 0 {
		f.Fatal(o.errs)
	}
	name := func(token []byte) string {
		var v Identity
		_, err := n.apply(&Request{Body: slices.Concat([]byte(`{"id":`), token, []byte(`}`))}, &v)
		if err != nil {
			return ""
		}
		id, _ := cleanID(v.ID)
		return id
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		id := name(a)
		if id == "" || id != name(b) {
			return
		}
		var text [2]string
		for i, token := range [][]byte{a, b} {
			var v json.RawMessage
			if err := json.Unmarshal(token, &v); err != nil {
				return // further members behind the ID
			}
			if text[i] = strings.TrimSpace(string(token)); v[0] == '"' {
				if err := json.Unmarshal(v, &text[i]); err != nil {
					t.Fatal(err)
				}
			}
		}
		if text[0] != text[1] {
			t.Fatalf("%q and %q are both %q", a, b, id)
		}
	})
}

// FuzzTemplate holds templates to their promise: two different inputs never give the same signed bytes.
func FuzzTemplate(f *testing.F) {
	f.Add("{id}.{timestamp}.{body}", "a", "1795435200", []byte("x"), "a.1795435200", "1795435201", []byte("y"))
	f.Add("v0:{timestamp}-{id}:{body}", "a", "2026-11-23T12:00:00Z", []byte("x"), "a:", "179543520", []byte(""))
	f.Add("{body}|{id}|{timestamp}", "a", "1795435200", []byte("x"), "b", "1795435200", []byte("x|a"))
	f.Fuzz(func(t *testing.T, text, id1, stamp1 string, body1 []byte, id2, stamp2 string, body2 []byte) {
		tpl, err := parseTemplate(text)
		if err != nil || !tpl.has(partID) || !tpl.has(partStamp) || strings.Contains(text, "}{") {
			return
		}
		_, ok1 := anyStamp(stamp1)
		_, ok2 := anyStamp(stamp2)
		a := templateInput{id: id1, stamp: stamp1, body: body1}
		b := templateInput{id: id2, stamp: stamp2, body: body2}
		if !ok1 || !ok2 || tpl.check(&a) != nil || tpl.check(&b) != nil {
			return
		}
		var s1, s2 mac
		s1.h, s2.h = &collector{}, &collector{}
		tpl.write(&s1, &a)
		tpl.write(&s2, &b)
		same := id1 == id2 && stamp1 == stamp2 && bytes.Equal(body1, body2)
		if !same && bytes.Equal(s1.h.Sum(nil), s2.h.Sum(nil)) {
			t.Fatalf("%q signs %+v and %+v alike", text, a, b)
		}
	})
}

// collector is a hash that keeps what it is fed.
type collector struct{ bytes.Buffer }

func (c *collector) Sum(b []byte) []byte { return append(b, c.Bytes()...) }
func (c *collector) Size() int           { return 0 }
func (c *collector) BlockSize() int      { return 1 }
