package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/catchment-dev/catchment/archiver/archive"
	"github.com/catchment-dev/catchment/archiver/keys"
	"github.com/catchment-dev/catchment/ingress"
	"github.com/catchment-dev/catchment/pkg/provider"
)

// What became of a delivery's signature when it was verified again. Faults are, with --strict, also what is not configured any more.
const (
	againVerified  = "verified"          // it is right
	againWrong     = "wrong"             // it is not, although its secret is configured
	againRedacted  = "not re-verifiable" // the secret came with the request, or nothing was signed
	againNoSecret  = "no secret"         // the secret that had verified it is not configured any more
	againNoSource  = "no source"         // nor is its source
	againNoKey     = "no key"            // the scheme fetches keys, and --keys does not give this one
	againEncrypted = "encrypted"         // archive.encryption is not configured
	againLocked    = "not decrypted"     // it is, and its key is missing, cannot be read, or is wrapped under a master key that is not configured
	againErased    = "erased"            // its key was destroyed
	againBroken    = "source is wrong"   // the source's configuration is
	againNothing   = "not a delivery"    // a record that is none, or a result
	maxFaults      = 1000                // that are named
)

// reverifyView is how many deliveries ended how, and where.
type reverifyView struct {
	Outcomes map[string]int64 `json:"outcomes"`
	Sources  []reverifySource `json:"sources"`
}

type reverifySource struct {
	Source   string `json:"source"`
	SecretID string `json:"secret_id"`
	Outcome  string `json:"outcome"`
	Count    int64  `json:"count"`
	Reason   string `json:"reason,omitempty"` // of the first
}

// reverifier verifies archived deliveries again. Its visit may be called concurrently.
type reverifier struct {
	ctx    context.Context
	bench  *bench
	ring   *keys.Ring
	strict bool

	mu       sync.Mutex
	counts   map[reverifySource]int64 // by source, secret and outcome
	reasons  map[reverifySource]string
	problems []archive.Problem
	unnamed  int64
}

func (a *app) newReverifier(ctx context.Context, f verifyFlags) (*reverifier, error) {
	b, err := a.newBench(f.fetchedKeys)
	if err != nil {
		return nil, err
	}
	ring, err := keys.Open(ctx, b.cfg.Archive)
	if err != nil {
		return nil, err
	}
	return &reverifier{ctx: ctx, bench: b, ring: ring, strict: f.strict, counts: map[reverifySource]int64{}, reasons: map[reverifySource]string{}}, nil
}

func (v *reverifier) isFault(outcome string) bool {
	switch outcome {
	case againWrong, againBroken, againLocked:
		return true
	case againNoSecret, againNoSource, againEncrypted:
		return v.strict
	}
	return false
}

func (v *reverifier) visit(at archive.Place) error {
	outcome, reason := v.judge(at.Record)
	v.mu.Lock()
	defer v.mu.Unlock()
	w := at.Record
	is := reverifySource{Source: w.Source, SecretID: w.SecretID, Outcome: outcome}
	v.counts[is]++
	if v.reasons[is] == "" {
		v.reasons[is] = reason
	}
	switch {
	case !v.isFault(outcome):
	case len(v.problems) >= maxFaults:
		v.unnamed++
	default:
		v.problems = append(v.problems, archive.Problem{
			Key: at.Key, Kind: "provider's signature",
			What: fmt.Sprintf("offset %d, source %s, event %q: %s: %s", w.Offset, w.Source, w.EventID, outcome, reason),
		})
	}
	return v.ctx.Err()
}

func (v *reverifier) judge(sealed *archive.Record) (outcome, reason string) {
	w := *sealed
	switch err := v.ring.Unseal(v.ctx, &w); {
	case err == nil:
	case errors.As(err, new(*keys.ErasedError)):
		return againErased, err.Error()
	case errors.Is(err, keys.ErrAltered):
		return againWrong, err.Error()
	case errors.Is(err, keys.ErrNoRing):
		return againEncrypted, err.Error()
	default:
		return againLocked, err.Error()
	}
	d, ok := w.Delivery()
	if !ok || w.IsControl() || w.Source == "" || w.DeliveryID == "" || w.Path == "" {
		return againNothing, ""
	}
	j, err := v.judgeOf(w.Source)
	if err != nil {
		return againBroken, err.Error()
	}
	if j == nil {
		return againNoSource, "the configuration has no such source"
	}
	switch j.Authenticity() {
	case provider.AuthToken, provider.AuthConnection, provider.AuthNone:
		return againRedacted, "its scheme signs nothing"
	}
	r := provider.Request{
		Method: d.Method, Path: d.Path, RawQuery: d.Query, Header: http.Header{}, Body: d.Body, Now: d.ReceivedAt,
		FromProxy: len(v.bench.cfg.Ingress.TrustedProxies) > 0,
	}
	for _, h := range d.Headers {
		r.Header[http.CanonicalHeaderKey(h.Name)] = append(r.Header[http.CanonicalHeaderKey(h.Name)], h.Value)
	}
	r.Host = r.Header.Get("Host")
	r.Header.Del("Host") // as Go's server does
	g := j.Reverify(v.ctx, &r)
	switch {
	case g.Outcome == outcomeAccepted:
		return againVerified, ""
	case j.Redacted(&r):
		return againRedacted, "the secret came with the request"
	case g.Outcome == "key_unavailable":
		return againNoKey, g.Reason
	case w.SecretID != "" && !slices.Contains(j.SecretIDs(), w.SecretID):
		return againNoSecret, "no configured secret is " + w.SecretID
	}
	return againWrong, g.Outcome + ": " + g.Reason
}

// judgeOf returns a source's judge; nil when there is no such source.
func (v *reverifier) judgeOf(source string) (*ingress.Judge, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, ok := v.bench.cfg.Sources[source]; !ok {
		return nil, nil
	}
	j, errs := v.bench.judgeOf(source)
	if len(errs) > 0 {
		return nil, fmt.Errorf("%s", strings.ReplaceAll(errs.Error(), "\n", "; "))
	}
	return j, nil
}

func (v *reverifier) view() *reverifyView {
	out := &reverifyView{Outcomes: map[string]int64{}, Sources: []reverifySource{}}
	for is, n := range v.counts {
		out.Outcomes[is.Outcome] += n
		if is.Outcome == againNothing {
			continue
		}
		is.Count, is.Reason = n, v.reasons[reverifySource{Source: is.Source, SecretID: is.SecretID, Outcome: is.Outcome}]
		out.Sources = append(out.Sources, is)
	}
	slices.SortFunc(out.Sources, func(a, b reverifySource) int {
		return cmp.Or(strings.Compare(a.Source, b.Source), strings.Compare(a.SecretID, b.SecretID), strings.Compare(a.Outcome, b.Outcome))
	})
	if v.unnamed > 0 {
		v.problems = append(v.problems, archive.Problem{Kind: "provider's signature", What: fmt.Sprintf("and %d more", v.unnamed)})
	}
	return out
}

func (v *reverifyView) print(w io.Writer) {
	for _, s := range v.Sources {
		line(w, "signatures", fmt.Sprintf("%s, secret %s: %d %s", s.Source, cmp.Or(s.SecretID, "none"), s.Count, s.Outcome), cmp.Or(s.Reason, " "))
	}
}
