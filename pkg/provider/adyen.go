package provider

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

var adyen = &Provider{
	Name:            "adyen",
	SecretHeaders:   []string{"Authorization"},
	SecurityHeaders: []string{adyenHeader, "Protocol"},
	Authenticity:    AuthPartial,
	credentials:     secretOnly(newAdyenKey),
	open:            openAdyen,
	sign:            signAdyen,
	sample:          sampleAdyen,
	split:           splitAdyen,
	Doc: Doc{
		Title:     "Adyen",
		URL:       "https://docs.adyen.com/development-resources/webhooks/secure-webhooks/verify-hmac-signatures",
		Signature: "payments: `additionalData.hmacSignature` (base64) in every item; platform and management: `HmacSignature: <base64>`",
		Signed:    "payments: `pspReference:originalReference:merchantAccountCode:merchantReference:amount.value:amount.currency:eventCode:success` of the item, what is missing empty, nothing escaped; platform: the body; HMAC-SHA256; the key is what the hex stands for",
		ID:        "payments: `pspReference`, `eventCode` and `success`, with colons between them (`8515131751004933:CAPTURE:true`), the same for every retry; platform: none, so the body's digest",
		Type:      "payments: the item's `eventCode`; platform: body `type`",
		Time:      "payments: the item's `eventDate`, which is not signed; platform: body `timestamp`",
		Batch:     "`notificationItems` is an array; an event's body is the element, `{\"NotificationRequestItem\":{…}}`",
		Retries:   "after 9, 18 and 27 s, 2, 5, 10, 15, 30 min, 1, 2, 4 h, then every 8 h, up to 30 days; the answer is `[accepted]`",
		Notes: []string{
			"Of a payments webhook the signature covers the eight members above and nothing else: `eventDate`, `reason`, `live`, and all of `additionalData` can be changed by whoever saw one delivery. Use them as hints.",
			"Every item must verify, or the whole delivery is refused. An item whose members contain a colon (but for `merchantReference`) is refused, because the signed text could then be taken apart in two ways.",
			"Adyen's own basic authentication is not looked at; the `Authorization` header is stored redacted.",
			"Keep the old key for a while after a new one was made: items in the queue are signed already.",
			"No time is signed.",
		},
		Unverified: []string{"That `pspReference`, `eventCode` and `success` together name an event; Adyen advises the first two to find duplicates."},
		Config:     "provider: adyen\nsecrets: [\"${ADYEN_HMAC_KEY}\"]",
	},
}

// adyenHeader is Adyen's HmacSignature, canonical.
const adyenHeader = "Hmacsignature"

type adyenScheme struct {
	noHandshake
	macs *macs
}

func openAdyen(o *opening) opened {
	return opened{scheme: &adyenScheme{macs: o.macs(sha256.New, adyenKey)}}
}

func adyenKey(text string) ([]byte, error) {
	b, err := hex.DecodeString(text)
	if err != nil {
		return nil, errors.New("the HMAC key is not hex")
	}
	return b, nil
}

// The members of an item, in the order in which they are signed.
const (
	adyenReference = iota
	adyenOriginal
	adyenAccount
	adyenMerchantReference
	adyenValue
	adyenCurrency
	adyenCode
	adyenSuccess
	adyenSigned // how many are signed
)

const (
	adyenSignature = adyenSigned + iota
	adyenDate
	adyenMembers
)

var (
	adyenItems = newFields("notificationItems")
	adyenItem  = newFields(
		"NotificationRequestItem.pspReference", "NotificationRequestItem.originalReference", "NotificationRequestItem.merchantAccountCode",
		"NotificationRequestItem.merchantReference", "NotificationRequestItem.amount.value", "NotificationRequestItem.amount.currency",
		"NotificationRequestItem.eventCode", "NotificationRequestItem.success",
		"NotificationRequestItem.additionalData.hmacSignature", "NotificationRequestItem.eventDate",
	)
	adyenPlatform = newFields("type", "timestamp")
)

// adyenElements finds the items of a payments webhook; nil: it is none.
func adyenElements(body []byte) ([]value, error) {
	var v [1]value
	if err := adyenItems.read(body, v[:]); err != nil {
		return nil, err
	}
	return v[0].elements(), nil
}

// readAdyenItem reads one element and the text that its signature covers.
func readAdyenItem(element value, v []value) (signed string, err error) {
	if err := adyenItem.read(element, v); err != nil {
		return "", err
	}
	var b strings.Builder
	for i, one := range v[:adyenSigned] {
		text := adyenText(one)
		if i != adyenMerchantReference && strings.Contains(text, ":") {
			return "", errMalformed
		}
		if i > 0 {
			b.WriteByte(':')
		}
		b.WriteString(text)
	}
	// A platform webhook ends in a brace: one that was captured cannot pass for an item.
	if success := adyenText(v[adyenSuccess]); success != "true" && success != "false" && success != "" {
		return "", errMalformed
	}
	return b.String(), nil
}

// adyenText is a string's value, or a number or a truth value as it stands.
func adyenText(v value) string {
	if t := string(v); t == "true" || t == "false" {
		return t
	}
	return v.text()
}

func (s *adyenScheme) verify(_ context.Context, r *Request) (proof, error) {
	items, err := adyenElements(r.Body)
	if err != nil {
		return proof{}, err
	}
	if items == nil {
		return s.verifyPlatform(r)
	}
	if len(items) == 0 {
		return proof{}, errUnsigned
	}
	p := proof{key: noKey}
	var v [adyenMembers]value
	for _, item := range items {
		key, err := s.verifyItem(r, item, v[:])
		if err != nil {
			return proof{}, err
		}
		if p.key == noKey {
			p.key = key
		}
	}
	return p, nil
}

func (s *adyenScheme) verifyItem(r *Request, item value, v []value) (key int, err error) {
	signed, err := readAdyenItem(item, v)
	if err != nil {
		return noKey, err
	}
	signature := v[adyenSignature].str()
	if signature == "" {
		return noKey, errUnsigned
	}
	var space [sha256.Size]byte
	sent, ok := appendBase64(space[:0], signature, sha256.Size)
	if !ok {
		return noKey, errMalformed
	}
	return s.macs.find(r.Now, sent, func(m *mac) { m.string(signed) })
}

// verifyPlatform takes nothing but a JSON object. Items are signed with the same key, but what they sign is no object:
// a captured item cannot pass for a platform webhook.
func (s *adyenScheme) verifyPlatform(r *Request) (proof, error) {
	b := bodyMAC{macs: s.macs, decode: appendBase64}
	p, err := b.verify(r, get(r.Header, adyenHeader))
	if err == nil && !bytes.HasPrefix(bytes.TrimLeft(r.Body, " \t\r\n"), []byte("{")) {
		return proof{}, errMalformed
	}
	return p, err
}

// identify names a platform webhook; the items of a payments webhook are named by split.
func (s *adyenScheme) identify(r *Request) (Identity, error) {
	var v [2]value
	if err := adyenPlatform.read(r.Body, v[:]); err != nil {
		return Identity{}, err
	}
	return Identity{Type: v[0].str(), Time: v[1].isoTime()}, nil
}

func (s *adyenScheme) answer(*Request) *Response { return textResponse("[accepted]") }

func splitAdyen(r *Request) ([]Part, error) {
	var v [1]value
	if err := adyenItems.read(r.Body, v[:]); err != nil {
		return nil, err
	}
	return partsOf(v[0], adyenItem, func(v []value) Identity {
		id := Identity{Type: v[adyenCode].str(), Time: v[adyenDate].isoTime()}
		if reference := v[adyenReference].text(); reference != "" {
			id.ID = reference + ":" + id.Type + ":" + adyenText(v[adyenSuccess])
		}
		return id
	})
}

// signAdyen writes the signatures into the items; a body without items is signed as a whole.
func signAdyen(in *SignInput) (Signed, error) {
	key, err := decodeSecret(in.Secret, adyenKey)
	if err != nil {
		return Signed{}, err
	}
	h := signedHeaders(in)
	items, err := adyenElements(in.Body)
	if err != nil {
		return Signed{}, fmt.Errorf("sign: %w", err)
	}
	if items == nil {
		h.Set(adyenHeader, base64Sum(sha256.New, key, func(m *mac) { m.bytes(in.Body) }))
		h.Set("Protocol", "HmacSHA256")
		return Signed{Header: h}, nil
	}
	body := bytes.Clone(in.Body)
	for i := len(items) - 1; i >= 0; i-- {
		signed, err := signAdyenItem(key, items[i])
		if err != nil {
			return Signed{}, fmt.Errorf("sign: notificationItems[%d]: %w", i, err)
		}
		start := bytes.LastIndex(body, items[i])
		body = append(bytes.Clone(body[:start]), append(signed, body[start+len(items[i]):]...)...)
	}
	return Signed{Header: h, Body: body}, nil
}

// signAdyenItem puts the signature into a copy of the element.
func signAdyenItem(key []byte, element value) ([]byte, error) {
	var v [adyenMembers]value
	text, err := readAdyenItem(element, v[:])
	if err != nil {
		return nil, err
	}
	signature := base64Sum(sha256.New, key, func(m *mac) { m.string(text) })
	if old := v[adyenSignature]; len(old) > 0 && bytes.Count(element, old) == 1 {
		return bytes.Replace(element, old, []byte(`"`+signature+`"`), 1), nil
	}
	var wrapper map[string]map[string]any
	dec := json.NewDecoder(bytes.NewReader(element))
	dec.UseNumber()
	if err := dec.Decode(&wrapper); err != nil || wrapper["NotificationRequestItem"] == nil {
		return nil, errors.New("expected a NotificationRequestItem")
	}
	item := wrapper["NotificationRequestItem"]
	more, _ := item["additionalData"].(map[string]any)
	if more == nil {
		more = map[string]any{}
		item["additionalData"] = more
	}
	more["hmacSignature"] = signature
	return json.Marshal(wrapper)
}

func newAdyenKey() string { return strings.ToUpper(hex.EncodeToString(randomBytes(32))) }
