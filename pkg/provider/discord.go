package provider

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"net/http"
	"strconv"
	"time"
)

// discord takes both of an application's URLs: that for webhook events and that for interactions.
var discord = &Provider{
	Name:            "discord",
	AckTimeout:      2500 * time.Millisecond,
	SecurityHeaders: []string{"X-Signature-Ed25519", "X-Signature-Timestamp"},
	credentials:     newDiscordKeys,
	open:            openDiscord,
	sign:            signDiscord,
	sample:          sampleDiscord,
	Doc: Doc{
		Title:     "Discord",
		URL:       "https://docs.discord.com/developers/events/webhook-events",
		Signature: "`X-Signature-Ed25519: <hex>`, `X-Signature-Timestamp` (Unix seconds)",
		Signed:    "timestamp, directly followed by the body; Ed25519; the secret is the application's public key, in hex or as base64 of its DER form",
		Tolerance: "5 min both ways: Discord states no window, and its libraries look at none",
		ID:        "interactions: body `id`; webhook events have none: the body's digest",
		Type:      "webhook events: body `event.type`; interactions: body `type`, a number",
		Time:      "webhook events: body `event.timestamp`",
		Handshake: "the signed PING of webhook events (`type` 0) is answered with 204; that of interactions (`type` 1, without `event`) with `{\"type\":1}`. Discord sends wrong signatures on purpose, and wants 401 for them",
		Retries:   "webhook events: for up to 10 minutes, with a back-off, when not answered within 3 s, so the ingress waits up to 2.5 s for Kafka",
		Notes: []string{
			"A webhook event is answered with 204, as Discord demands.",
			"An interaction is answered so that the user sees it under way, for nobody here can carry it out in 3 s: commands and modals with `{\"type\":5}`, components with `{\"type\":6}`, autocompletion with no choices. Answer within 15 minutes through Discord's API, with the interaction's `token`.",
			"A public key under which anybody could sign (of small order, such as 64 zeros) is refused.",
		},
		Unverified: []string{"that a retry carries a new timestamp, and the same body"},
		Config:     "provider: discord\nsecrets: [\"${DISCORD_PUBLIC_KEY}\"]",
		Signer:     "the 64 hex digits of the Ed25519 seed whose public key the source has",
	},
}

type discordScheme struct{ signedStamp }

func openDiscord(o *opening) opened {
	return opened{scheme: &discordScheme{signedStamp{
		signature: "X-Signature-Ed25519", stamp: "X-Signature-Timestamp",
		decode: func(text string) ([]byte, bool) { return appendHex(nil, text, ed25519.SignatureSize) },
		keys:   o.publicKeys(ed25519Key), window: o.tolerance(5 * time.Minute),
	}}}
}

func (s *discordScheme) verify(_ context.Context, r *Request) (proof, error) {
	return s.signedStamp.verify(r)
}

// discordFields: event is there in webhook events alone, whose types are numbers of another list.
var discordFields = newFields("id", "type", "event", "event.type", "event.timestamp")

type discordBody struct {
	id, typ, event, eventType, at value
}

func readDiscord(body []byte) (discordBody, error) {
	var v [5]value
	err := discordFields.read(body, v[:])
	b := discordBody{v[0], v[1], v[2], v[3], v[4]}
	return b, err
}

func (b *discordBody) isEvent() bool { return b.event != nil || b.eventType != nil || b.at != nil }

// time reads ISO 8601, which Discord writes without a zone as well.
func (b *discordBody) time() time.Time {
	if t := b.at.isoTime(); !t.IsZero() {
		return t
	}
	t, err := time.Parse("2006-01-02T15:04:05", b.at.str())
	if err != nil {
		return time.Time{}
	}
	return t
}

func (s *discordScheme) handshake(r *Request) (*Response, error) {
	b, err := readDiscord(r.Body)
	switch {
	case err != nil:
		return nil, err
	case b.isEvent():
		return nil, nil
	case b.typ.text() == "0":
		return &Response{Status: http.StatusNoContent}, nil
	case b.typ.text() == "1":
		return jsonResponse(`{"type":1}`), nil
	}
	return nil, nil
}

// answer is what Discord demands.
func (s *discordScheme) answer(r *Request) *Response {
	b, err := readDiscord(r.Body)
	switch {
	case err != nil:
		return nil
	case b.isEvent():
		return &Response{Status: http.StatusNoContent}
	}
	switch b.typ.text() {
	case "2", "5": // a command, a modal: deferred
		return jsonResponse(`{"type":5}`)
	case "3": // a component: deferred, and nothing to be seen
		return jsonResponse(`{"type":6}`)
	case "4": // autocompletion
		return jsonResponse(`{"type":8,"data":{"choices":[]}}`)
	}
	return nil
}

func (s *discordScheme) identify(r *Request) (Identity, error) {
	b, err := readDiscord(r.Body)
	if err != nil {
		return Identity{}, err
	}
	if b.isEvent() {
		return Identity{Type: b.eventType.str(), Time: b.time()}, nil
	}
	return Identity{ID: b.id.text(), Type: b.typ.text()}, nil
}

func signDiscord(in *SignInput) (Signed, error) {
	seed, err := hex.DecodeString(in.Secret)
	if err != nil || len(seed) != ed25519.SeedSize {
		return Signed{}, errors.New("to sign as Discord takes a private key: expected the 64 hex digits of an Ed25519 seed")
	}
	stamp := strconv.FormatInt(in.Now.Unix(), 10)
	h := signedHeaders(in)
	h.Set("X-Signature-Timestamp", stamp)
	h.Set("X-Signature-Ed25519", hex.EncodeToString(ed25519.Sign(ed25519.NewKeyFromSeed(seed), append([]byte(stamp), in.Body...))))
	return Signed{Header: h}, nil
}

func newDiscordKeys() Credentials {
	seed := randomBytes(ed25519.SeedSize)
	public := ed25519.NewKeyFromSeed(seed).Public()
	return Credentials{Secret: hex.EncodeToString(public.(ed25519.PublicKey)), Signer: hex.EncodeToString(seed)}
}
