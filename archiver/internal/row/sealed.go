package row

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// HeaderSealed is the one entry of headers in a row that is sealed: its value is what Seal has taken out of the row
// besides the body, encrypted, in base64.
const HeaderSealed = attributePrefix + "encrypted"

// Cipher encrypts what belongs to a place, and gives it back at that place only.
type Cipher interface {
	Seal(place, plain []byte) []byte
	Open(place, sealed []byte) ([]byte, error)
}

// covered is what a sealed row keeps in its headers, as JSON: all that a request may hold besides its body.
type covered struct {
	Headers    []Header    `json:"headers,omitempty"`
	Query      string      `json:"query,omitempty"`
	SignedURL  string      `json:"signed_url,omitempty"`
	RemoteAddr string      `json:"remote_addr,omitempty"`
	Attributes []Attribute `json:"attributes,omitempty"`
}

// Seal encrypts the body and, together, headers, query, signed_url, remote_addr and the attributes that may repeat any of
// those. All other columns stay as they are, body_sha256 too: it is that of the plain body. Of a result only the body is
// encrypted.
func (w *Row) Seal(keyID string, c Cipher) error {
	hide := covered{Headers: w.Headers, Query: w.Query, SignedURL: w.SignedURL, RemoteAddr: w.RemoteAddr}
	var stay []Attribute
	result := w.IsResult() && w.Attribute(AttributeUndecodable) == "" // its headers name operation, attempt and outcome
	for _, a := range w.Attributes {
		if result || stays(a.Name) {
			stay = append(stay, a)
		} else {
			hide.Attributes = append(hide.Attributes, a)
		}
	}
	plain, err := json.Marshal(hide)
	if err != nil {
		return fmt.Errorf("offset %d: %w", w.Offset, err)
	}
	w.Body = c.Seal(w.place("body"), w.Body)
	w.Headers = []Header{{HeaderSealed, []string{base64.StdEncoding.EncodeToString(c.Seal(w.place("headers"), plain))}}}
	w.Query, w.SignedURL, w.RemoteAddr, w.Attributes, w.BodyKeyID = "", "", "", stay, keyID
	return nil
}

// Unseal is the inverse of Seal: the row is what it was. After an error the row is as before.
func (w *Row) Unseal(c Cipher) error {
	if len(w.Headers) != 1 || w.Headers[0].Name != HeaderSealed || len(w.Headers[0].Values) != 1 {
		return fmt.Errorf("offset %d: expected one header, %s", w.Offset, HeaderSealed)
	}
	sealed, err := base64.StdEncoding.DecodeString(w.Headers[0].Values[0])
	if err != nil {
		return fmt.Errorf("offset %d: headers: %w", w.Offset, err)
	}
	plain, err := c.Open(w.place("headers"), sealed)
	if err != nil {
		return fmt.Errorf("offset %d: headers: %w", w.Offset, err)
	}
	body, err := c.Open(w.place("body"), w.Body)
	if err != nil {
		return fmt.Errorf("offset %d: body: %w", w.Offset, err)
	}
	var hidden covered
	if err := json.Unmarshal(plain, &hidden); err != nil {
		return fmt.Errorf("offset %d: headers: %w", w.Offset, errors.New("what is encrypted is not the JSON that was"))
	}
	w.Body, w.Headers, w.BodyKeyID = body, hidden.Headers, ""
	w.Query, w.SignedURL, w.RemoteAddr = hidden.Query, hidden.SignedURL, hidden.RemoteAddr
	all := attributes{}
	for _, a := range append(w.Attributes, hidden.Attributes...) {
		all[a.Name] = a.Value
	}
	w.Attributes = all.sorted()
	return nil
}

// stays says whether an attribute tells nothing that is sealed: what kind of record it is, and the exact bytes of columns
// that are not sealed.
func stays(name string) bool {
	switch column, exact := strings.CutPrefix(name, AttributeBase64); {
	case !exact:
		return name == AttributeUndecodable || name == AttributeControl || name == AttributeResult || name == "traceparent"
	default:
		switch column {
		case "source", "provider", "event_id", "type", "delivery_id", "content_type", "method", "path", "secret_id", "verdict":
			return true
		}
	}
	return false
}

// place is the column of this record, in its topic and partition at its offset.
func (w *Row) place(column string) []byte {
	b := append([]byte(column), 0)
	b = append(b, w.TopicID[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(w.Partition))
	return binary.BigEndian.AppendUint64(b, uint64(w.Offset))
}
