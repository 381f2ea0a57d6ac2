package ingress

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/kafka/kafkatest"
	"github.com/catchment-dev/catchment/pkg/settings"
)

// TestHistory: what was accepted and refused last stands on the operations listener, for each source.
func TestHistory(t *testing.T) {
	h := start(t, kafkatest.New(t), "20s", "")
	h.ready()
	read := func() map[string]SourceHistory {
		w := httptest.NewRecorder()
		h.Pages()["GET /sources"].ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/sources", nil))
		var list []SourceHistory
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &list))
		m := map[string]SourceHistory{}
		for _, one := range list {
			m[one.Source] = one
		}
		return m
	}
	require.Nil(t, read()["stripe"].LastAccepted)
	resp, _ := h.call(h.stripe(1))
	accepted := resp.Header.Get(headerDeliveryID)
	resp, _ = h.call(h.signed("stripe", "stripe", "whsec_another", time.Now(), sampleOf("stripe", 2)))
	refused := resp.Header.Get(headerDeliveryID)
	h.call(post(h.url+"/webhooks/nobody", nil, nil))
	got := read()
	require.Equal(t, accepted, got["stripe"].LastAccepted.DeliveryID)
	require.Equal(t, sampleOf("stripe", 1).ID, got["stripe"].LastAccepted.EventID)
	require.NotEmpty(t, got["stripe"].LastAccepted.SecretID)
	require.Equal(t, refused, got["stripe"].LastRefused.DeliveryID)
	require.Equal(t, "unauthenticated", got["stripe"].LastRefused.Outcome)
	require.Equal(t, "signature mismatch", got["stripe"].LastRefused.Reason)
	require.Empty(t, got["stripe"].LastRefused.EventID, "what was not verified is not said")
	require.Nil(t, got["github"].LastRefused)
	require.Equal(t, "unknown_source", got[unknownSource].LastRefused.Outcome)
	require.Equal(t, `a\x1b[31m\n`, shown("a\x1b[31m\n"))
}

func TestRefusalsAreSampled(t *testing.T) {
	var s sampler
	now := time.Unix(1_795_000_000, 0)
	logged := 0
	for range 3 * linesASecond {
		if ok, held := s.take(now); ok {
			require.Zero(t, held)
			logged++
		}
	}
	require.Equal(t, linesASecond, logged)
	ok, held := s.take(now.Add(time.Second))
	require.True(t, ok)
	require.Equal(t, 2*linesASecond, held)
}

// TestFloodHidesNoGenuineRefusal: the log has what became of a verified event, however much is forged in that second.
func TestFloodHidesNoGenuineRefusal(t *testing.T) {
	h := startSources(t, kafkatest.New(t), "", `
  partner: {provider: hmac, secrets: ["a shared secret of some length"], hmac: {header: X-Signature}, event_id: "'event-1'", quota: {rate: 1, burst: 1}}
`)
	h.ready()
	resp, body := h.call(hmacRequest(h.url+"/webhooks/partner", []byte("a"), "X-Signature", ""))
	require.Equal(t, 200, resp.StatusCode, body)
	require.Eventually(t, func() bool {
		for range linesASecond {
			h.logRefusal(false, nil)
		}
		resp, _ = h.call(hmacRequest(h.url+"/webhooks/partner", []byte("b"), "X-Signature", ""))
		return resp.StatusCode == http.StatusTooManyRequests
	}, 30*time.Second, time.Millisecond)
	require.Regexp(t, `"msg":"refused".*"delivery_id":"`+resp.Header.Get(headerDeliveryID)+`".*"outcome":"quota".*"event_id":"event-1"`, h.log.String())
}

const bodySchemaText = `{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object", "required": ["id", "at"],
  "properties": {"id": {"$ref": "defs.json#/$defs/id"}, "at": {"type": "string", "format": "date-time"}}
}`

// TestBodySchema: flagged or refused, as the source says; each event of a delivery with several is checked.
func TestBodySchema(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "order.json"), bodySchemaText)
	write(t, filepath.Join(dir, "defs.json"), `{"$defs": {"id": {"type": "string", "pattern": "^o-[0-9]+$"}}}`)
	const source = ": {provider: hmac, secrets: [\"a shared secret of some length\"], hmac: {header: X-Signature}, event_id: 'body.?id.orValue(\"\")', schema: {file: order.json"
	h := startFile(t, dir, "  flagged"+source+"}}\n  refused"+source+", on_invalid: reject}}\n")
	for body, reason := range map[string]string{
		`{"id":"o-1","at":"2026-11-24T00:00:00Z"}`: "",
		`{"id":"o-2","at":"yesterday"}`:            `format at "/at"`,
		`{"id":"p-3","at":"2026-11-24T00:00:00Z"}`: `pattern at "/id"`,
		`{"id":"o-4"}`: `required at "/"`,
		"not JSON":     "body is not JSON",
		`{"id":"o-5","at":"2026-11-24T00:00:00Z","x":` + strings.Repeat("[", 12_000) + strings.Repeat("]", 12_000) + "}": "body is not JSON",
	} {
		resp, said := h.call(hmacRequest(h.url+"/webhooks/flagged", []byte(body), "X-Signature", ""))
		require.Equal(t, 200, resp.StatusCode, said)
		resp, said = h.call(hmacRequest(h.url+"/webhooks/refused", []byte(body), "X-Signature", ""))
		if reason == "" {
			require.Equal(t, 200, resp.StatusCode, said)
			continue
		}
		requireProblem(t, resp, said, http.StatusUnprocessableEntity, "schema-invalid")
		require.Contains(t, h.History()[1].LastRefused.Reason, strings.Split(reason, " at ")[0])
	}
	flagged := 0
	for _, ds := range h.deliveries() {
		if ds[0].Source == "flagged" && ds[0].Verdict.Has(event.FlagSchemaInvalid) {
			flagged++
		}
	}
	require.GreaterOrEqual(t, flagged, 5)
	require.Contains(t, (&bodySchema{}).check(make([]byte, schemaMost+1), nil), "larger than")
}

// TestBadBodySchema: a schema that cannot be used stops the start, and none is fetched.
func TestBadBodySchema(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "in"), 0o700))
	write(t, filepath.Join(dir, "outside.json"), `{}`)
	for name, c := range map[string]struct{ text, want string }{
		"not JSON":  {"{\n \"type\": object}", "s.json:2:"},
		"no schema": {`{"type": "objct"}`, "expected a JSON Schema"},
		"remote":    {`{"$ref": "https://example.com/s.json"}`, "only files in the schema's own folder"},
		"outside":   {`{"$ref": "../outside.json"}`, "only files in the schema's own folder"},
		"regex":     {`{"pattern": "(?=a)"}`, "expected a JSON Schema"},
	} {
		t.Run(name, func(t *testing.T) {
			write(t, filepath.Join(dir, "in", "s.json"), c.text)
			_, err := settings.Parse(filepath.Join(dir, "catchment.yaml"), []byte("sources:\n  a: {provider: github, secrets: [x], schema: {file: in/s.json}}\n"), settings.NeedSources)
			require.ErrorContains(t, err, "catchment.yaml:2:54: sources.a.schema.file: ")
			require.ErrorContains(t, err, c.want)
		})
	}
}
