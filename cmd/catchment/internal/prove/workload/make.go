package workload

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/journal"
	"github.com/catchment-dev/catchment/pkg/provider"
)

// happening is one event, or one delivery of several, that a provider has to tell.
type happening struct {
	source  *source
	id      string // its own, or of a delivery with several events the name that theirs begin with
	typ     string
	poison  string
	created int64
	entity  string
	version int64
	parts   int // 0: it is one event
	pad     string
	mark    string // that the canary is followed by
}

// text is one body of a happening.
type text struct {
	body []byte
	key  string // the record's key
}

// The kinds of poison.
const (
	poisonZero = "division by zero"
	poisonNul  = "U+0000 in a text"
)

const hexDigits = "0123456789abcdef"

func random(r *rand.Rand, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = hexDigits[r.IntN(16)]
	}
	return string(b)
}

// happen makes the happening of a number: always the same, but for the time.
func (w *workload) happen(seq uint64, r *rand.Rand, now time.Time) *happening {
	plain := uint64(len(w.cast.sources) - 1)
	s := w.cast.sources[seq%plain]
	if r.Float64() < w.mix.Split {
		s = w.cast.sources[plain]
	}
	h := &happening{
		source: s, id: fmt.Sprintf("ev-%s-%08x", random(r, 6), seq), typ: typeChange, created: now.Unix(),
		version: int64(seq/8) + int64(r.IntN(40)), pad: random(r, 40+r.IntN(160)), mark: fmt.Sprintf("%s-%x", w.canary, seq),
	}
	if r.Float64() < w.mix.Stale {
		h.version = max(0, h.version-int64(r.IntN(400)))
	}
	h.entity = fmt.Sprintf("%s/%d", s.name, r.IntN(w.o.Entities))
	switch {
	case s.several:
		h.parts = 1 + r.IntN(4)
	case r.Float64() < w.mix.Poison:
		h.typ, h.poison = typePoison, []string{poisonZero, poisonNul}[r.IntN(2)]
	case r.Float64() < w.mix.Twins: // its neighbours in other sources may have the same ID
		h.id = fmt.Sprintf("twin-%04x-%08x", w.o.Seed&0xffff, seq/plain)
	}
	return h
}

// write makes a body. attempt counts the requests, for members that change with them.
func (h *happening) write(attempt int) text {
	if h.parts > 0 {
		return h.several()
	}
	zero, note := 1, "fine"
	switch h.poison {
	case poisonZero:
		zero = 0
	case poisonNul:
		note = `a\u0000b`
	}
	volatile := "" // Stripe's retries have other bytes, and are repetitions all the same
	if h.source.preset.Name == "stripe" {
		volatile = fmt.Sprintf(`"pending_webhooks":%d,`, attempt%3)
	}
	return text{key: h.id, body: fmt.Appendf(nil,
		`{"id":%q,"object":"event",%s"type":%q,"created":%d,"entity":%q,"version":%d,"zero":%d,"note":"%s","mark":%q, "pad":%q}`,
		h.id, volatile, h.typ, h.created, h.entity, h.version, zero, note, h.mark, h.pad,
	)}
}

// several is a delivery of several events, in Meta's form.
func (h *happening) several() text {
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"object":"page","entry":[{"id":"1","time":%d,"changes":[`, h.created)
	for i := range h.parts {
		if i > 0 {
			b.WriteString(", ")
		}
		b.Write(h.part(i))
	}
	b.WriteString("]}]}")
	sum := sha256.New()
	sum.Write([]byte(h.source.name + "\n"))
	sum.Write(b.Bytes())
	return text{body: b.Bytes(), key: "sha256:" + hex.EncodeToString(sum.Sum(nil))}
}

func (h *happening) partID(i int) string { return fmt.Sprintf("%s-p%d", h.id, i) }

func (h *happening) part(i int) []byte {
	return fmt.Appendf(nil, `{"field":%q,"value":{"messages":[{"id":%q,"timestamp":"%d"}],"entity":"%s-%d","version":%d,"mark":%q,"pad":%q}}`,
		h.typ, h.partID(i), h.created, h.entity, i, h.version, h.mark, h.pad)
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// attempt is what the journal says of a request with that body.
func (h *happening) attempt(t *text, kind string) journal.Attempt {
	a := journal.Attempt{
		Source: h.source.name, ID: t.key, Kind: kind, SHA256: digest(t.body), Size: len(t.body), Poison: h.poison,
	}
	if h.parts == 0 {
		a.Entity, a.Version = h.entity, h.version
	}
	for i := range h.parts {
		a.Parts = append(a.Parts, journal.Part{ID: h.partID(i), SHA256: digest(h.part(i)), Entity: fmt.Sprintf("%s-%d", h.entity, i), Version: h.version})
	}
	return a
}

// sign makes the headers of a request as the provider would.
func (h *happening) sign(secret string, t *text, url string, at time.Time) (http.Header, error) {
	header := http.Header{"Content-Type": {"application/json"}, "User-Agent": {"catchment-prove/1 (" + h.source.preset.Name + ")"}}
	signed, err := h.source.preset.Sign(&provider.SignInput{
		Secret: secret, URL: url, Body: t.body, Now: at, HMAC: h.source.hmac,
		Sample: provider.Sample{ID: h.id, Type: h.typ, Header: header, Body: t.body},
	})
	if err != nil {
		return nil, fmt.Errorf("sign for source %s: %w", h.source.name, err)
	}
	return signed.Header, nil
}
