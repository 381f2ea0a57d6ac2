package provider

import "net/http"

// Every refusal that a request can meet. They are values, so that refusing costs no allocation; the reasons are
// for our log, and the sender sees the status alone.
var (
	errMethod            = &Refusal{Status: http.StatusMethodNotAllowed, Reason: "method not allowed"}
	errRepeatedHeader    = &Refusal{Status: http.StatusBadRequest, Reason: "security header repeated"}
	errTwinHeader        = &Refusal{Status: http.StatusBadRequest, Reason: "security header written with underscores"}
	errQueryForm         = &Refusal{Status: http.StatusBadRequest, Reason: "query malformed"}
	errDuplicateMember   = &Refusal{Status: http.StatusBadRequest, Reason: "JSON member that names the event is there twice, or in two spellings"}
	errIDForm            = &Refusal{Status: http.StatusBadRequest, Reason: "event ID has characters that are not allowed"}
	errTypeForm          = &Refusal{Status: http.StatusBadRequest, Reason: "event type has characters that are not allowed, or is too long"}
	errRepeatedParameter = &Refusal{Status: http.StatusBadRequest, Reason: "query parameter repeated"}
	errHandshake         = &Refusal{Status: http.StatusBadRequest, Reason: "handshake without a usable challenge"}

	errForbidden = &Refusal{Status: http.StatusForbidden, Reason: "handshake with a wrong token"}
	errNoKey     = &Refusal{Status: http.StatusServiceUnavailable, Reason: "the key that the request names could not be fetched"}

	errUnsigned     = &Refusal{Status: http.StatusUnauthorized, Reason: "signature missing"}
	errMalformed    = &Refusal{Status: http.StatusUnauthorized, Reason: "signature malformed"}
	errMismatch     = &Refusal{Status: http.StatusUnauthorized, Reason: "signature mismatch"}
	errNoToken      = &Refusal{Status: http.StatusUnauthorized, Reason: "token missing"}
	errTokenForm    = &Refusal{Status: http.StatusUnauthorized, Reason: "credentials malformed, or of another kind"}
	errWrongToken   = &Refusal{Status: http.StatusUnauthorized, Reason: "token mismatch"}
	errIsChallenge  = &Refusal{Status: http.StatusUnauthorized, Reason: "body has the form of a challenge, whose answer would be its signature"}
	errUnbound      = &Refusal{Status: http.StatusUnauthorized, Reason: "the signature does not cover the body"}
	errTopic        = &Refusal{Status: http.StatusUnauthorized, Reason: "topic is not one of topic_arn"}
	errClientState  = &Refusal{Status: http.StatusUnauthorized, Reason: "clientState missing or wrong in an element"}
	errNoSecret     = &Refusal{Status: http.StatusUnauthorized, Reason: "no secret is valid at this time"}
	errNoStamp      = &Refusal{Status: http.StatusUnauthorized, Reason: "timestamp missing"}
	errStampForm    = &Refusal{Status: http.StatusUnauthorized, Reason: "timestamp malformed"}
	errStale        = &Refusal{Status: http.StatusUnauthorized, Reason: "timestamp too old"}
	errFuture       = &Refusal{Status: http.StatusUnauthorized, Reason: "timestamp in the future"}
	errSignedHeader = &Refusal{Status: http.StatusUnauthorized, Reason: "header that the signature covers is missing"}
	errSignedSplit  = &Refusal{Status: http.StatusUnauthorized, Reason: "query and body touch in the signed text, and the body is not JSON: they could be cut elsewhere (give the query in public_url)"}
	errSignedForm   = &Refusal{Status: http.StatusBadRequest, Reason: "header that the signature covers contains the separator that follows it"}
)

// Refusals of single schemes.
var (
	errForm        = &Refusal{Status: http.StatusBadRequest, Reason: "body is not the form that the provider sends"}
	errCertURL     = &Refusal{Status: http.StatusUnauthorized, Reason: "certificate URL is not the provider's"}
	errCertificate = &Refusal{Status: http.StatusUnauthorized, Reason: "certificate is not the provider's, or not valid at this time"}
	errKeyUnknown  = &Refusal{Status: http.StatusUnauthorized, Reason: "the key that the request names is not the provider's, or has expired"}
	errNoClient    = &Refusal{Status: http.StatusServiceUnavailable, Reason: "without client_id and secret among the options, keys cannot be fetched"}
)
