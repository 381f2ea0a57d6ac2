package ingress

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/provider"
	"github.com/catchment-dev/catchment/pkg/settings"
)

// Judge decides on the requests to one source, as far as that needs no Kafka. The listener and `catchment verify`
// use the same one. It is safe for concurrent use.
type Judge struct {
	rules      *provider.Source
	maxBody    int64
	rejectNoID bool
	schema     *bodySchema // nil: none
	redaction  redaction
}

// Judgement is what became of one request.
type Judgement struct {
	Outcome string // as in catchment_ingress_requests_total
	Status  int
	Reason  string // why it was refused, for us and never for the sender; empty: it was not
	// Verified says what the request is. It is filled in as far as the request got.
	Verified provider.Verified
	Flags    []string // for the record's verdict, of what the source's own rules found
	// Response is what the provider demands word for word: the answer to a handshake, or to a delivery that is safe.
	Response *provider.Response
}

// NewJudge opens a source of the configuration. keys are where its scheme gets the keys from that it must fetch;
// nil: the network.
func NewJudge(cfg *settings.File, source string, keys provider.Keys) (*Judge, config.Errors) {
	rules, errs := cfg.OpenSource(source, keys)
	schema, es := cfg.OpenSchema(source)
	if errs = append(errs, es...); len(errs) > 0 {
		return nil, errs
	}
	c := cfg.Sources[source]
	j := &Judge{
		rules: rules, maxBody: bodyLimit(cfg, source), rejectNoID: c.OnMissingID == "reject",
		redaction: newRedaction(rules),
	}
	if schema != nil {
		j.schema = &bodySchema{schema, c.Schema.OnInvalid == "reject"}
	}
	return j, nil
}

// with is the judge with other secrets.
func (j *Judge) with(rules *provider.Source) *Judge {
	c := *j
	c.rules, c.redaction = rules, newRedaction(rules)
	return &c
}

// bodyLimit is the largest body that the source may send.
func bodyLimit(cfg *settings.File, source string) int64 {
	if n := cfg.Sources[source].MaxBody; n != 0 {
		return int64(n)
	}
	return int64(cfg.Ingress.MaxBody)
}

// Judge decides on a request that has been read. It neither changes nor keeps it. It blocks only for schemes that
// fetch keys, and only as long as ctx lives.
func (j *Judge) Judge(ctx context.Context, r *provider.Request) Judgement {
	if o, reason := j.admit(r.Method, r.Header); o != "" {
		return refusedAs(o, reason)
	}
	if int64(len(r.Body)) > j.maxBody {
		return refusedAs(outTooLarge, errTooLarge.Error())
	}
	v := j.verify(ctx, r)
	if v.outcome() == outAccepted {
		j.inspect(&v, r.Body)
	}
	return v
}

// admit looks at what is known before the body. An empty outcome lets the request in.
func (j *Judge) admit(method string, h http.Header) (outcome, string) {
	if !j.rules.Provider().Accepts(method) {
		return outMethod, "method not allowed"
	}
	if enc := h["Content-Encoding"]; len(enc) > 0 && (len(enc) > 1 || !strings.EqualFold(enc[0], "identity")) {
		return outEncoding, "content encoding is not identity"
	}
	return "", ""
}

// verify checks that the request is the provider's, and what it is.
func (j *Judge) verify(ctx context.Context, r *provider.Request) Judgement {
	v, err := j.rules.Receive(ctx, r)
	if err != nil {
		return refusedAs(outcomeOf(err), err.Error())
	}
	if v.Handshake != nil {
		return Judgement{Outcome: string(outHandshake), Status: v.Handshake.Status, Verified: v, Response: v.Handshake}
	}
	g := Judgement{Outcome: string(outAccepted), Status: http.StatusOK, Verified: v, Response: v.Answer}
	if v.Answer != nil {
		g.Status = v.Answer.Status
	}
	return g
}

// Reverify checks once more that a stored request is the provider's. It leaves aside the limits and rules of our own,
// which may have changed since it was accepted.
func (j *Judge) Reverify(ctx context.Context, r *provider.Request) Judgement { return j.verify(ctx, r) }

// Redacted says whether a stored request lacks what its scheme would have to look at: the secret that came with it.
func (j *Judge) Redacted(r *provider.Request) bool {
	for _, name := range j.rules.SecretHeaders() {
		if slices.Contains(r.Header[http.CanonicalHeaderKey(name)], redacted) {
			return true
		}
	}
	return len(j.redaction.parameters) > 0 && strings.Contains(r.RawQuery, redacted)
}

// Authenticity says how much a request proves that the source accepts.
func (j *Judge) Authenticity() provider.Authenticity { return j.rules.Authenticity() }

// SecretIDs are the IDs of the source's secrets.
func (j *Judge) SecretIDs() []string { return j.rules.SecretIDs() }

// inspect applies the source's own rules to a verified delivery.
func (j *Judge) inspect(g *Judgement, body []byte) {
	if g.Verified.IDMissing && j.rejectNoID {
		g.refuse(outMissingID, "no event ID in the delivery")
		return
	}
	if j.schema == nil {
		return
	}
	reason := j.schema.check(body, g.Verified.Parts)
	switch {
	case reason == "":
	case j.schema.reject:
		g.refuse(outSchema, reason)
	default:
		g.Flags = append(g.Flags, event.FlagSchemaInvalid)
	}
}

func (g *Judgement) outcome() outcome { return outcome(g.Outcome) }

// refuse keeps what was verified.
func (g *Judgement) refuse(o outcome, reason string) {
	g.Outcome, g.Status, g.Reason, g.Response = string(o), refusals[o].status, reason, nil
}

func refusedAs(o outcome, reason string) (g Judgement) {
	g.refuse(o, reason)
	return g
}

// outcomeOf names a refusal of the scheme.
func outcomeOf(err error) outcome {
	var ref *provider.Refusal
	if !errors.As(err, &ref) {
		return outInternal
	}
	switch ref.Status {
	case http.StatusBadRequest:
		return outMalformed
	case http.StatusUnauthorized:
		return outUnauthentic
	case http.StatusForbidden:
		return outForbidden
	case http.StatusMethodNotAllowed:
		return outMethod
	case http.StatusServiceUnavailable:
		return outNoKey
	}
	return outInternal
}
