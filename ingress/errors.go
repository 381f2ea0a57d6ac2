package ingress

import (
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"strconv"
)

// outcome is how a request ended: the label of catchment_ingress_requests_total.
type outcome string

const (
	outAccepted    outcome = "accepted"
	outDuplicate   outcome = "duplicate"
	outHandshake   outcome = "handshake"
	outMalformed   outcome = "malformed"
	outUnauthentic outcome = "unauthenticated"
	outForbidden   outcome = "forbidden"
	outNoKey       outcome = "key_unavailable"
	outUnknown     outcome = "unknown_source"
	outMethod      outcome = "method_not_allowed"
	outTooLarge    outcome = "too_large"
	outEncoding    outcome = "unsupported_encoding"
	outBadRead     outcome = "incomplete"
	outMissingID   outcome = "missing_id"
	outSchema      outcome = "schema_invalid"
	outRateLimited outcome = "rate_limited"
	outQuota       outcome = "quota"
	outOverloaded  outcome = "overloaded"
	outAckTimeout  outcome = "ack_timeout"
	outKafkaError  outcome = "kafka_error"
	outUnsafeTopic outcome = "unsafe_topic"
	outBadClock    outcome = "clock_unsound"
	outInternal    outcome = "internal_error"
)

// refusal is what the sender gets for an outcome that is no success. One text for every reason that a signature
// fails, so that the answer is no oracle.
type refusal struct {
	status int
	slug   string // ends the problem's type
	title  string
	detail string
}

var refusals = map[outcome]refusal{
	outMalformed:   {http.StatusBadRequest, "malformed", "Malformed request", "The request is not of the form that this source's provider sends."},
	outBadRead:     {http.StatusBadRequest, "incomplete", "Incomplete request", "The body ended early or came too slowly."},
	outMissingID:   {http.StatusBadRequest, "missing-id", "Missing event ID", "This source takes only deliveries that carry an event ID."},
	outSchema:      {http.StatusUnprocessableEntity, "schema-invalid", "Body does not fit", "The body does not fit the JSON Schema of this source."},
	outUnauthentic: {http.StatusUnauthorized, "unauthenticated", "Not authenticated", "The signature is missing, wrong, or outside its time."},
	outForbidden:   {http.StatusForbidden, "forbidden", "Forbidden", "The handshake does not carry what this source expects."},
	outNoKey:       {http.StatusServiceUnavailable, "key-unavailable", "Key unavailable", "The key that verifies this request could not be fetched. Send it again."},
	outUnknown:     {http.StatusNotFound, "unknown-source", "Unknown source", "There is no source of this name."},
	outMethod:      {http.StatusMethodNotAllowed, "method-not-allowed", "Method not allowed", "This source's provider does not send with this method."},
	outTooLarge:    {http.StatusRequestEntityTooLarge, "too-large", "Body too large", "The body is larger than this source may send."},
	outEncoding:    {http.StatusUnsupportedMediaType, "unsupported-encoding", "Unsupported content encoding", "Only bodies without a content encoding are taken: signatures cover the bytes as they are."},
	outRateLimited: {http.StatusTooManyRequests, "rate-limited", "Too many requests", "This address sends more than it may. Send it again later."},
	outQuota:       {http.StatusTooManyRequests, "quota", "Quota used up", "This source sends more than it may. Send it again later."},
	outOverloaded:  {http.StatusServiceUnavailable, "overloaded", "Overloaded", "There is no room for this request now. Send it again."},
	outAckTimeout:  {http.StatusServiceUnavailable, "not-acknowledged", "Not acknowledged in time", "The event could not be stored in time. Send it again."},
	outKafkaError:  {http.StatusServiceUnavailable, "not-acknowledged", "Not acknowledged", "The event could not be stored. Send it again."},
	outUnsafeTopic: {http.StatusServiceUnavailable, "unavailable", "Unavailable", "Events cannot be stored safely now. Send it again."},
	outBadClock:    {http.StatusServiceUnavailable, "clock-unsound", "Clock unsound", "Times cannot be judged now. Send it again."},
	outInternal:    {http.StatusInternalServerError, "internal", "Internal error", "The request could not be handled. Send it again."},
}

const problemType = "https://catchment.dev/problems/"

// problem is an RFC 9457 answer. Instance is the delivery ID.
type problem struct {
	Type     string `json:"type"`
	Title    string `json:"title"`
	Status   int    `json:"status"`
	Detail   string `json:"detail"`
	Instance string `json:"instance"`
}

func writeProblem(w http.ResponseWriter, r refusal, deliveryID string) {
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("X-Content-Type-Options", "nosniff")
	if r.status == http.StatusServiceUnavailable {
		h.Set("Retry-After", strconv.Itoa(5+rand.IntN(11))) // 5 to 15 s, so that senders do not come back all at once
	}
	if r.status == http.StatusTooManyRequests && h.Get("Retry-After") == "" {
		h.Set("Retry-After", strconv.Itoa(retryAfter(busyWait)))
	}
	body, _ := json.Marshal(problem{problemType + r.slug, r.title, r.status, r.detail, deliveryID}) // strings and a number always marshal
	w.WriteHeader(r.status)
	_, _ = w.Write(body)
}
