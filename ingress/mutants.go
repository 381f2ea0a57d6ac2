package ingress

import (
	"bytes"
	"encoding/json"
	"time"

	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/provider"
)

// What the mutations need; only builds with the tag mutant link it.

// mutantRewritten is the body as somebody writes it who parses it first.
func mutantRewritten(body []byte) []byte {
	var v any
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if d.Decode(&v) != nil {
		return body
	}
	again, err := json.Marshal(v)
	if err != nil {
		return body
	}
	return again
}

// mutantLend gives the body's memory to another request while the producer still has it.
func mutantLend(r *request) {
	if r.users.Load() < 2 || cap(r.body) > keptBody {
		return
	}
	other := r.pool.Get().(*request)
	other.space = r.body[:0]
	r.pool.Put(other)
}

// mutantEnqueue enqueues a request that was refused.
func mutantEnqueue(s *Service, r *request) {
	d := *r.delivery(&provider.Verified{Identity: provider.Identity{ID: "unverified-" + r.id, Type: "unverified"}})
	d.Body = bytes.Clone(d.Body)
	_ = s.pub.publish(&d, &event.Encoder{}, false, r.received.Add(time.Second), func(bool) {})
}
