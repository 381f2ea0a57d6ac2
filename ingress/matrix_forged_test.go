package ingress

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"  //nolint:gosec // what a forger tries
	"crypto/sha1" //nolint:gosec // what a forger tries
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/kafka/kafkatest"
	"github.com/catchment-dev/catchment/pkg/provider"
)

// R51: forged, unsigned, expired, from the future, replayed, meant for another source, signed by another algorithm:
// none is accepted, and nothing of it is in Kafka.
func TestR51NothingForged(t *testing.T) {
	h := start(t, kafkatest.New(t), "20s", "")
	h.ready()
	const canary = "canary-51"
	forged := 0
	refuse := func(what string, req *http.Request) {
		t.Helper()
		req.Header.Set("X-Canary", canary)
		resp, body := h.call(req)
		require.Contains(t, []int{400, 401}, resp.StatusCode, "%s: %s", what, body)
		require.NotContains(t, body, canary)
		forged++
	}
	secrets := map[string]string{"stripe": stripeSecret, "github": githubSecret, "slack": slackSecret}
	for source, secret := range secrets {
		s := sampleOf(source, 51)
		s.Body = bytes.Replace(s.Body, []byte("{"), []byte(`{"canary":"`+canary+`",`), 1)
		if source == "slack" {
			s.Body = []byte(`{"type":"event_callback","event_id":"Ev51","canary":"` + canary + `"}`)
		}
		genuine := func(at time.Duration) *http.Request { return h.signed(source, source, secret, time.Now().Add(at), s) }
		refuse("another's secret", h.signed(source, source, "another "+secret, time.Now(), s))
		refuse("unsigned", post(h.url+"/webhooks/"+source, http.Header{"Content-Type": {"application/json"}}, s.Body))
		if source != "github" { // whose scheme has no time
			refuse("expired", genuine(-6*time.Minute))
			refuse("years old", genuine(-20000*time.Hour))
			refuse("from the future", genuine(6*time.Minute))
			refuse("replayed under a new time", restamped(genuine(-6*time.Minute)))
		}
		for other := range secrets {
			if other != source {
				req := genuine(0)
				req.URL.Path = "/webhooks/" + other
				refuse("meant for "+source+", sent to "+other, req)
			}
		}
		for i := 0; i < len(s.Body); i += 7 { // pkg/provider flips every bit
			req := genuine(0)
			body := bytes.Clone(s.Body)
			body[i] ^= 1
			req.Body = io.NopCloser(bytes.NewReader(body))
			refuse("a bit of the body", req)
		}
		for name, req := range otherAlgorithms(h.url, source, secret, s) {
			refuse(source+" signed by "+name, req)
		}
	}
	t.Logf("%d forgeries refused", forged)
	require.Greater(t, forged, 200)
	require.Empty(t, h.records())
	require.NotContains(t, h.log.String(), canary)

	resp, _ := h.call(h.stripe(1)) // the genuine one is taken, so that it is the signature that was looked at
	require.Equal(t, 200, resp.StatusCode)
	for _, r := range h.records() {
		require.NotContains(t, fmt.Sprintf("%s %s %v", r.Key, r.Value, r.Headers), canary)
	}
}

// restamped puts the present time into a request that was signed for another.
func restamped(req *http.Request) *http.Request {
	now := strconv.FormatInt(time.Now().Unix(), 10)
	for _, name := range []string{"Stripe-Signature", "X-Slack-Request-Timestamp"} {
		switch v := req.Header.Get(name); {
		case strings.HasPrefix(v, "t="):
			_, rest, _ := strings.Cut(v, ",")
			req.Header.Set(name, "t="+now+","+rest)
		case v != "":
			req.Header.Set(name, now)
		}
	}
	return req
}

// otherAlgorithms signs with the right secret, and with anything but the scheme's algorithm and form.
func otherAlgorithms(url, source, secret string, s provider.Sample) map[string]*http.Request {
	now := strconv.FormatInt(time.Now().Unix(), 10)
	signed := map[string]string{"stripe": now + "." + string(s.Body), "github": string(s.Body), "slack": "v0:" + now + ":" + string(s.Body)}[source]
	header := func(text, label string) http.Header {
		switch source {
		case "stripe":
			return http.Header{"Stripe-Signature": {"t=" + now + "," + label + "=" + text}}
		case "github":
			h := s.Header.Clone()
			h.Set("X-Hub-Signature-256", label+"="+text)
			return h
		default:
			return http.Header{"X-Slack-Signature": {label + "=" + text}, "X-Slack-Request-Timestamp": {now}}
		}
	}
	label := map[string]string{"stripe": "v1", "github": "sha256", "slack": "v0"}[source]
	right := mac(sha256.New, secret, signed)
	plain := sha256.Sum256([]byte(signed))
	reqs := map[string]*http.Request{}
	for name, h := range map[string]http.Header{
		"SHA-1":                  header(hex.EncodeToString(mac(sha1.New, secret, signed)), label),
		"MD5":                    header(hex.EncodeToString(mac(md5.New, secret, signed)), label),
		"SHA-512":                header(hex.EncodeToString(mac(sha512.New, secret, signed)), label),
		"SHA-512, cut":           header(hex.EncodeToString(mac(sha512.New, secret, signed)[:32]), label),
		"a hash without a key":   header(hex.EncodeToString(plain[:]), label),
		"base64":                 header(base64.StdEncoding.EncodeToString(right), label),
		"half of it":             header(hex.EncodeToString(right[:16]), label),
		"nothing":                header("", label),
		"none":                   header("none", label),
		"the label none":         header(hex.EncodeToString(right), "none"),
		"an empty key":           header(hex.EncodeToString(mac(sha256.New, "", signed)), label),
		"the secret itself":      header(secret, label),
		"a signature of nothing": header(hex.EncodeToString(mac(sha256.New, secret, "")), label),
	} {
		reqs[name] = post(url+"/webhooks/"+source, h, s.Body)
	}
	if source == "github" { // the older header counts for nothing
		h := s.Header.Clone()
		h.Del("X-Hub-Signature-256")
		h.Set("X-Hub-Signature", "sha1="+hex.EncodeToString(mac(sha1.New, secret, signed)))
		reqs["the older header"] = post(url+"/webhooks/github", h, s.Body)
	}
	return reqs
}

func mac(algorithm func() hash.Hash, secret, text string) []byte {
	m := hmac.New(algorithm, []byte(secret))
	m.Write([]byte(text))
	return m.Sum(nil)
}
