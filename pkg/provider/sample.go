package provider

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
)

// jsonSample is an event of a provider that posts JSON; more are further headers, name and value by turns.
func jsonSample(id, typ, agent string, body []byte, more ...string) Sample {
	h := http.Header{"Content-Type": {"application/json"}, "User-Agent": {agent}}
	for i := 0; i < len(more); i += 2 {
		h.Set(more[i], more[i+1])
	}
	return Sample{ID: id, Type: typ, Header: h, Body: body}
}

// iso is the event's time as most providers write it.
func (s sampler) iso() string { return s.in.Now.UTC().Format("2006-01-02T15:04:05.000Z") }

const (
	base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	base36 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

// sampler makes the values that samples are filled with.
type sampler struct {
	r  *rand.Rand
	in SampleInput
}

// pick chooses one of the options.
func pick[T any](s sampler, options ...T) T { return options[s.r.IntN(len(options))] }

// unique is n characters of the alphabet, of which the last 8 stand for Seq: another event's are never the same.
func (s sampler) unique(alphabet string, n int) string {
	b := []byte(s.random(alphabet, n))
	seq := uint64(s.in.Seq)
	for i := n - 1; i >= n-8; i-- {
		b[i] = alphabet[seq%uint64(len(alphabet))]
		seq /= uint64(len(alphabet))
	}
	return string(b)
}

func (s sampler) random(alphabet string, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = alphabet[s.r.IntN(len(alphabet))]
	}
	return string(b)
}

// uuid ends in Seq.
func (s sampler) uuid() string {
	b := make([]byte, 16)
	for i := range b {
		b[i] = byte(s.r.Uint32())
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	for i, seq := 15, uint64(s.in.Seq); i >= 10; i, seq = i-1, seq>>8 {
		b[i] = byte(seq)
	}
	h := hex.EncodeToString(b)
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

func (s sampler) hex(n int) string { return s.random("0123456789abcdef", n) }

// order is a business object that events are about. Its values depend on Run and its number alone, for all events
// of an order agree on them.
type order struct {
	id       string
	number   int
	early    bool // a later event of the same order follows
	amount   int  // in the currency's smallest unit
	currency string
	item     string
	buyer    person
}

// order finds the event's: of four events the third and the fourth share one, so that there is an older and a newer
// one to tell apart.
func (s sampler) order() order {
	seq := s.in.Seq
	if seq%4 == 3 {
		seq--
	}
	o := sampler{r: rand.New(rand.NewPCG(uint64(s.in.Run), uint64(seq)))}
	return order{
		id:       "ord_" + strconv.FormatUint(uint64(s.in.Run), 36) + "_" + strconv.Itoa(100000+seq),
		number:   seq,
		early:    s.in.Seq%4 == 2,
		amount:   100 * (5 + o.r.IntN(495)) / pick(o, 1, 1, 2, 4),
		currency: pick(o, "eur", "usd", "gbp", "sek"),
		item:     pick(o, "Annual plan", "Two tickets", "Espresso machine, 15 bar", "Wool blanket", "Desk lamp “Ø 20”"),
		buyer:    o.person(),
	}
}

// price writes an amount with two decimals.
func price(amount int) string { return fmt.Sprintf("%d.%02d", amount/100, amount%100) }

type person struct{ first, last, mail, city, country, zip string }

func (s sampler) person() person {
	return pick(
		s,
		person{"Ada", "Berg", "ada.berg@example.com", "Hamburg", "DE", "20095"},
		person{"Jonas", "Lindqvist", "jonas@example.net", "Malmö", "SE", "211 20"},
		person{"Inês", "Carvalho", "ines.c@example.com", "Porto", "PT", "4000-008"},
		person{"Mira", "Novák", "mira.novak@example.org", "Brno", "CZ", "602 00"},
		person{"Sam", "Okafor", "sam.okafor@example.com", "Leeds", "GB", "LS1 4AP"},
		person{"Yuki", "Tanaka", "yuki@example.net", "大阪市", "JP", "530-0001"},
	)
}
