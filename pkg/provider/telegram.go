package provider

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
)

var telegram = &Provider{
	Name:            "telegram",
	SecretHeaders:   []string{telegramToken},
	SecurityHeaders: []string{telegramToken},
	IDUnsigned:      true,
	Authenticity:    AuthToken,
	credentials:     secretOnly(rand.Text),
	open:            openTelegram,
	sign:            signTelegram,
	sample:          sampleTelegram,
	Doc: Doc{
		Title:     "Telegram bots",
		URL:       "https://core.telegram.org/bots/api#setwebhook",
		Signature: "`X-Telegram-Bot-Api-Secret-Token`: the `secret_token` that was given to setWebhook",
		Signed:    "nothing: the token is compared",
		ID:        "body `update_id`",
		Type:      "the name of the member beside `update_id` (`message`, `callback_query` …); of several, none",
		Time:      "that member's `edit_date`, else its `date`, Unix seconds",
		Retries:   "a reasonable number of times, as Telegram puts it, until answered with a 2xx",
		Notes:     []string{"A `secret_token` has 1 to 256 letters, digits, `_` and `-`; any other is an error at load."},
		Unverified: []string{
			"all of it: Telegram's own page could not be read",
		},
		Config: "provider: telegram\nsecrets: [{id: \"2026-q4\", value: \"${TELEGRAM_SECRET_TOKEN}\"}]",
	},
}

const telegramToken = "X-Telegram-Bot-Api-Secret-Token" //nolint:gosec // a header's name

type telegramScheme struct {
	noHandshake
	tokens tokens
}

func openTelegram(o *opening) opened {
	for i, s := range o.Secrets {
		if s.Text != "" && !isTelegramToken(s.Text) {
			o.secretError(i, errTelegramToken)
		}
	}
	return opened{scheme: &telegramScheme{tokens: o.tokens()}}
}

var errTelegramToken = errors.New("the secret is no secret_token of Telegram: expected 1 to 256 letters, digits, _ and -")

func isTelegramToken(text string) bool {
	return len(text) <= 256 && isNonce(text) && !strings.ContainsAny(text, "+/=.~")
}

func (s *telegramScheme) verify(_ context.Context, r *Request) (proof, error) {
	key, err := s.tokens.find(r.Now, get(r.Header, telegramToken))
	return proof{key: key}, err
}

var telegramFields = newFields("update_id")

func (s *telegramScheme) identify(r *Request) (Identity, error) {
	var v [2]value
	if err := telegramFields.read(r.Body, v[:1]); err != nil {
		return Identity{}, err
	}
	id := Identity{ID: v[0].text()}
	for _, name := range value(r.Body).names() {
		switch {
		case name == "update_id":
		case id.Type != "":
			return Identity{ID: id.ID}, nil
		default:
			id.Type = name
		}
	}
	if id.Type == "" {
		return id, nil
	}
	member := &fields{}
	member.add([]string{id.Type, "edit_date"})
	member.add([]string{id.Type, "date"})
	if err := member.read(r.Body, v[:]); err != nil {
		return Identity{}, err
	}
	if id.Time = v[0].unixTime(); id.Time.IsZero() {
		id.Time = v[1].unixTime()
	}
	return id, nil
}

func signTelegram(in *SignInput) (Signed, error) {
	if !isTelegramToken(in.Secret) {
		return Signed{}, errTelegramToken
	}
	h := signedHeaders(in)
	h.Set(telegramToken, in.Secret)
	return Signed{Header: h}, nil
}
