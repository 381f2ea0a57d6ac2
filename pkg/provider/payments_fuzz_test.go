package provider

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// FuzzAdyenItems holds items to two rules: one signed text is that of one item alone, and what is read of an item is
// what every reader reads.
func FuzzAdyenItems(f *testing.F) {
	f.Add(`{"NotificationRequestItem":{"pspReference":"a","amount":{"value":1,"currency":"EUR"},"eventCode":"C","success":"true"}}`,
		`{"NotificationRequestItem":{"pspReference":"a","merchantReference":"x:y","amount":{"value":"1"},"eventCode":"C","success":true}}`)
	f.Add(`{"NotificationRequestItem":{"merchantAccountCode":"m:x","merchantReference":"y"}}`, `{"NotificationRequestItem":{"merchantAccountCode":"m","merchantReference":"x:y"}}`)
	f.Add(`{"NotificationRequestItem":{"success":"true","Success":"false"}}`, `[]`)
	f.Fuzz(func(t *testing.T, a, b string) {
		var va, vb [adyenMembers]value
		textA, errA := readAdyenItem(value(a), va[:])
		textB, errB := readAdyenItem(value(b), vb[:])
		if errA != nil || errB != nil {
			return
		}
		for i := range adyenSigned {
			if textA == textB && adyenText(va[i]) != adyenText(vb[i]) {
				t.Fatalf("%q and %q are both signed as %q", a, b, textA)
			}
		}
		var plain struct {
			NotificationRequestItem struct{ PspReference, EventCode any }
		}
		if err := json.Unmarshal([]byte(a), &plain); err != nil || va[adyenReference] == nil {
			return
		}
		if s, ok := plain.NotificationRequestItem.PspReference.(string); ok && cleanText(va[adyenReference].text()) && s != va[adyenReference].text() {
			t.Fatalf("we read %q, others %q", va[adyenReference].text(), s)
		}
	})
}

// FuzzBraintreeForm holds the form's parser to what the official libraries take.
func FuzzBraintreeForm(f *testing.F) {
	f.Add([]byte("bt_signature=a%7Cb&bt_payload=PG5vdGlmaWNhdGlvbj48a2luZD5jaGVjazwva2luZD48L25vdGlmaWNhdGlvbj4%3D%0A"))
	f.Add([]byte("bt_signature=a&bt_payload=a;b"))
	f.Fuzz(func(t *testing.T, body []byte) {
		r := &Request{Header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, Body: body}
		_, payload, err := parseBraintree(r)
		if err != nil {
			return
		}
		form, err := url.ParseQuery(string(body))
		if err != nil || form.Get("bt_payload") != payload || payload == "" {
			t.Fatalf("payload %q, plainly %q (%v)", payload, form.Get("bt_payload"), err)
		}
		for _, c := range []byte(payload) {
			if bytes.IndexByte([]byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=\n"), c) < 0 {
				t.Fatalf("the payload has %q", c)
			}
		}
		readBraintree(payload)
	})
}

// FuzzBraintreeXML reads any XML that somebody might have signed.
func FuzzBraintreeXML(f *testing.F) {
	f.Add([]byte(`<notification><timestamp type="datetime">2026-11-23T11:59:59Z</timestamp><kind>check</kind><subject/></notification>`))
	f.Add([]byte(`<!DOCTYPE n [<!ENTITY k "check">]><notification><kind>&k;</kind></notification>`))
	f.Add([]byte(strings.Repeat("<notification>", 200)))
	f.Fuzz(func(t *testing.T, text []byte) {
		id, ok := readBraintree(base64.StdEncoding.EncodeToString(text))
		if ok && (id.Type == "" || !bytes.Contains(text, []byte("notification")) || !bytes.Contains(text, []byte("<"))) {
			t.Fatalf("%+v out of %q", id, text)
		}
	})
}

// FuzzPayPalHeaders holds what may be fetched to PayPal's own hosts, and the signed text to one reading.
func FuzzPayPalHeaders(f *testing.F) {
	f.Add("69cd13f0", "2026-11-23T11:59:59Z", paypalCertURL, "AAAA")
	f.Add("a|b", "2026-11-23T11:59:59+01:00", "https://api.paypal.com@evil.example/", "AAAA")
	f.Add("a", "0001-01-01T00:00:00Z", "https://api.paypal.com/@", "0000")
	f.Add("a", "now", `https://api.paypal.com\@evil.example/`, "=")
	f.Fuzz(func(t *testing.T, id, at, cert, signature string) {
		p, err := parsePayPal(http.Header{
			"Paypal-Transmission-Id": {id}, "Paypal-Transmission-Time": {at}, "Paypal-Cert-Url": {cert},
			"Paypal-Transmission-Sig": {signature}, "Paypal-Auth-Algo": {"SHA256withRSA"},
		})
		if err != nil {
			var refusal *Refusal
			if !errors.As(err, &refusal) || refusal.Status != http.StatusUnauthorized {
				t.Fatal(err)
			}
			return
		}
		if !strings.HasPrefix(cert, "https://api.paypal.com/") && !strings.HasPrefix(cert, "https://api.sandbox.paypal.com/") {
			t.Fatalf("%q would be fetched", cert)
		}
		if !slices.Contains(paypalHosts[:], p.url.Host) || p.url.String() != cert || strings.ContainsAny(cert, "?#@\\ \r\n") {
			t.Fatalf("%q would be fetched as %q", cert, p.url)
		}
		if strings.Count(string(paypalSigned(p.id, p.time, "W", nil)), "|") != 3 {
			t.Fatalf("%q and %q can be taken apart in two ways", p.id, p.time)
		}
	})
}

// FuzzPlaidToken holds JWTs to one spelling: what is accepted is, part for part, the encoding of what was read.
func FuzzPlaidToken(f *testing.F) {
	encode := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	claims := encode(`{"iat":1795435200,"request_body_sha256":"` + strings.Repeat("0", 64) + `"}`)
	f.Add(encode(`{"alg":"ES256","kid":"`+plaidKid+`"}`) + "." + claims + "." + encode(strings.Repeat("s", 64)))
	f.Add(encode(`{"alg":"none","ALG":"ES256","kid":"`+plaidKid+`"}`) + "." + claims + ".")
	f.Add("..")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := parsePlaid(text)
		if err != nil {
			return
		}
		parts := strings.Split(text, ".")
		if len(parts) != 3 || encode(string(p.signature)) != parts[2] || p.signed != parts[0]+"."+parts[1] {
			t.Fatalf("%q is not the one spelling of what it says", text)
		}
		head, err := base64.RawURLEncoding.DecodeString(parts[0])
		var h struct{ Alg, Kid string }
		if err != nil || json.Unmarshal(head, &h) != nil || h.Alg != "ES256" || h.Kid != p.kid || !looksLikeUUID(p.kid) {
			t.Fatalf("we read %+v, others %+v of %q", p, h, head)
		}
	})
}

// FuzzPaymentHeaders compares the parsers of headers with several signatures with plain ones.
func FuzzPaymentHeaders(f *testing.F) {
	mac := strings.Repeat("ab", 32)
	f.Add("ts=1795435200;h1="+mac+";h1="+strings.ToUpper(mac), "sha256="+mac, mac+", "+mac)
	f.Fuzz(func(t *testing.T, paddle, line1, line2 string) {
		if stamp, sent, err := parsePaddle(paddle, nil); err == nil && (stamp == "" || len(sent) == 0 || len(sent)%32 != 0 || len(sent)/32 > strings.Count(paddle, "h1=")) {
			t.Fatalf("paddle: %q gives %q and %x", paddle, stamp, sent)
		}
		sent, err := parseMollie([]string{line1, line2})
		one, _ := parseMollie([]string{line1})
		two, _ := parseMollie([]string{line2})
		if (err == nil) != (len(sent) > 0) || !bytes.Equal(sent, slices.Concat(one, two)) {
			t.Fatalf("mollie: %q and %q give %x (%v)", line1, line2, sent, err)
		}
	})
}

// FuzzWooSecret compares the decoding of entities with one that is done character by character.
func FuzzWooSecret(f *testing.F) {
	f.Add("a&amp;b&lt;&gt;&quot;&#039;&#x27;&#0038;&amp;amp;&#X00022;&copy;&#x3c;&")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := wooSecret(text)
		if err != nil || string(got) != plainWoo(text) {
			t.Fatalf("%q becomes %q, plainly %q (%v)", text, got, plainWoo(text), err)
		}
	})
}

func plainWoo(text string) string {
	var b strings.Builder
	for text != "" {
		end := strings.IndexByte(text, ';')
		if text[0] != '&' || end < 0 {
			b.WriteByte(text[0])
			text = text[1:]
			continue
		}
		if c, ok := plainEntity(text[1:end]); ok {
			b.WriteByte(c)
			text = text[end+1:]
			continue
		}
		b.WriteByte('&')
		text = text[1:]
	}
	return b.String()
}

func plainEntity(name string) (byte, bool) {
	if c, ok := map[string]byte{"lt": '<', "gt": '>', "amp": '&', "quot": '"'}[name]; ok {
		return c, true
	}
	digits, decimal := strings.CutPrefix(name, "#")
	codes := map[string]byte{"60": '<', "62": '>', "38": '&', "39": '\'', "34": '"'}
	if strings.HasPrefix(digits, "x") || strings.HasPrefix(digits, "X") {
		digits, codes = digits[1:], map[string]byte{"26": '&', "27": '\'', "22": '"'}
	}
	c, ok := codes[strings.TrimLeft(digits, "0")]
	return c, ok && decimal
}
