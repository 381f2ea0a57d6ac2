package provider

import (
	"context"
	"crypto/sha256"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

var mollie = &Provider{
	Name:        "mollie",
	credentials: secretOnly(newHexSecret),
	options:     []string{"classic"},
	open:        openMollie,
	sign:        signMollie,
	sample:      sampleMollie,
	Doc: Doc{
		Title:     "Mollie",
		URL:       "https://docs.mollie.com/reference/webhooks-best-practices",
		Signature: "`X-Mollie-Signature: sha256=<hex>`; the prefix may be missing, and the header may be there several times (or hold a list with commas), of which any may fit",
		Signed:    "body, HMAC-SHA256; the key is the text of the signing secret",
		ID:        "body `id` (`event_…`), the same for every retry",
		Type:      "body `type`",
		Time:      "body `createdAt`, RFC 3339",
		Notes: []string{
			"Classic webhooks (a form with nothing but `id=tr_…`) are unsigned by design: anybody can send one, and all it says is that the object should be fetched. Only a source without secrets and with `options: {classic: true}` takes them, and it marks every delivery `unverified`. Classic and signed webhooks are two sources.",
			"The same form comes again with every change of the object, so a classic delivery is called by the object and the microsecond of its receipt: a retry is an event of its own, and no change is taken for a duplicate.",
			"No time is signed.",
		},
		Unverified: []string{"Retries about 10 times over 26 h; waits 15 s."},
		Config:     "provider: mollie\nsecrets: [\"${MOLLIE_SIGNING_SECRET}\"]",
	},
}

// mollieHeader is no security header: while a secret is replaced there is one line per secret.
const mollieHeader = "X-Mollie-Signature"

type mollieScheme struct {
	noHandshake
	macs *macs
}

func openMollie(o *opening) opened {
	if !o.flag("classic") {
		return opened{scheme: &mollieScheme{macs: o.macs(sha256.New, plainSecret)}}
	}
	if len(o.Secrets) > 0 {
		o.errorf("options.classic", "is for a source without secrets: classic webhooks are unsigned, and next to signed ones anybody could send them")
	}
	return opened{scheme: mollieClassic{}, idUnsigned: true, unchecked: true}
}

func (s *mollieScheme) verify(_ context.Context, r *Request) (proof, error) {
	sent, err := parseMollie(r.Header[mollieHeader])
	if err != nil {
		return proof{}, err
	}
	key, err := s.macs.find(r.Now, sent, func(m *mac) { m.bytes(r.Body) })
	return proof{key: key}, err
}

// parseMollie decodes the MACs in all lines of the header.
func parseMollie(lines []string) (sent []byte, err error) {
	err = errUnsigned
	for _, line := range lines {
		for one := range strings.SplitSeq(line, ",") {
			if one = strings.TrimSpace(one); one != "" {
				err = errMalformed
				sent, _ = appendHex(sent, strings.TrimPrefix(one, "sha256="), sha256.Size) // what is no MAC cannot fit
			}
		}
	}
	if len(sent) > 0 {
		return sent, nil
	}
	return nil, err
}

var mollieFields = newFields("id", "type", "createdAt")

func (s *mollieScheme) identify(r *Request) (Identity, error) {
	var v [3]value
	if err := mollieFields.read(r.Body, v[:]); err != nil {
		return Identity{}, err
	}
	return Identity{ID: v[0].text(), Type: v[1].str(), Time: v[2].isoTime()}, nil
}

// mollieClassic checks the form and nothing else, because there is nothing else.
type mollieClassic struct{ noHandshake }

func (mollieClassic) verify(_ context.Context, r *Request) (proof, error) {
	if mollieObject(r) == "" {
		return proof{}, errForm
	}
	return proof{key: noKey}, nil
}

func (mollieClassic) identify(r *Request) (Identity, error) {
	return Identity{ID: mollieObject(r) + "@" + strconv.FormatInt(r.Now.UnixMicro(), 10)}, nil
}

// mollieObject reads the one field of a classic webhook, such as tr_WDqYK6vllg; "" when it is none.
func mollieObject(r *Request) string {
	if mediaType(r.Header) != "application/x-www-form-urlencoded" || len(r.Body) > 256 {
		return ""
	}
	form, err := url.ParseQuery(string(r.Body))
	if err != nil || len(form) != 1 || len(form["id"]) != 1 {
		return ""
	}
	id := form["id"][0]
	kind, rest, _ := strings.Cut(id, "_")
	if kind == "" || rest == "" || strings.Trim(id, base62+"_") != "" {
		return ""
	}
	return id
}

func signMollie(in *SignInput) (Signed, error) {
	h := signedHeaders(in)
	h.Set(mollieHeader, "sha256="+hexSum(sha256.New, []byte(in.Secret), func(m *mac) { m.bytes(in.Body) }))
	return Signed{Method: http.MethodPost, Header: h}, nil
}
