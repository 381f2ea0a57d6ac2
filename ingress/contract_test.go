package ingress

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.yaml.in/yaml/v4"

	"github.com/catchment-dev/catchment/pkg/telemetry"
)

// contract is a document of schemas/, and the schemas in it, compiled once.
type contract struct {
	doc      map[string]any
	compiler *jsonschema.Compiler
	mu       sync.Mutex
}

var (
	openAPI  = sync.OnceValues(func() (*contract, error) { return readContract("openapi.yaml", jsonschema.Draft2020) })
	asyncAPI = sync.OnceValues(func() (*contract, error) { return readContract("asyncapi.yaml", jsonschema.Draft7) })
)

func readContract(name string, draft *jsonschema.Draft) (*contract, error) {
	text, err := os.ReadFile(filepath.Join("..", "schemas", name))
	if err != nil {
		return nil, err
	}
	var tree any
	if err := yaml.Unmarshal(text, &tree); err != nil {
		return nil, err
	}
	if text, err = json.Marshal(tree); err != nil {
		return nil, err
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	c := &contract{doc: doc.(map[string]any), compiler: jsonschema.NewCompiler()}
	c.compiler.DefaultDraft(draft)
	c.compiler.AssertFormat()
	return c, c.compiler.AddResource("contract.json", doc)
}

// schema compiles the schema at a JSON pointer.
func (c *contract) schema(t testing.TB, pointer string) *jsonschema.Schema {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	s, err := c.compiler.Compile("contract.json#" + pointer)
	require.NoError(t, err)
	return s
}

// at follows names, and $ref where one is met; the pointer is that of what is found.
func (c *contract) at(pointer string, names ...string) (found map[string]any, place string, ok bool) {
	var node any = c.doc
	for _, name := range append(strings.Split(strings.TrimPrefix(pointer, "/"), "/"), names...) {
		m, isMap := node.(map[string]any)
		name = strings.NewReplacer("~1", "/", "~0", "~").Replace(name)
		if node, ok = m[name]; !isMap || !ok {
			return nil, "", false
		}
		place += "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
		if m, isMap := node.(map[string]any); isMap {
			if ref, isRef := m["$ref"].(string); isRef {
				place = strings.TrimPrefix(ref, "#")
				node, place, ok = c.at(place)
				if !ok {
					return nil, "", false
				}
			}
		}
	}
	found, ok = node.(map[string]any)
	return found, place, ok
}

// TestDocumentsAreValid checks the documents against the specifications' own schemas.
func TestDocumentsAreValid(t *testing.T) {
	for file, open := range map[string]func() (*contract, error){"openapi-3.1.json.gz": openAPI, "asyncapi-3.0.0.json.gz": asyncAPI} {
		c, err := open()
		require.NoError(t, err)
		packed, err := os.Open(filepath.Join("testdata", file))
		require.NoError(t, err)
		t.Cleanup(func() { _ = packed.Close() })
		unpacked, err := gzip.NewReader(packed)
		require.NoError(t, err)
		meta, err := jsonschema.UnmarshalJSON(unpacked)
		require.NoError(t, err)
		compiler := jsonschema.NewCompiler()
		require.NoError(t, compiler.AddResource("meta.json", meta))
		schema, err := compiler.Compile("meta.json")
		require.NoError(t, err)
		require.NoError(t, schema.Validate(c.doc), file)
	}
}

// requireDocumented checks an answer against schemas/openapi.yaml. Methods and paths that it does not name are
// answered as a POST to a source is.
func requireDocumented(t testing.TB, req *http.Request, resp *http.Response, body string) {
	t.Helper()
	c, err := openAPI()
	require.NoError(t, err)
	path := "/webhooks/{source}"
	if _, behind, _ := strings.Cut(strings.TrimPrefix(req.URL.Path, "/webhooks/"), "/"); behind != "" {
		path = "/webhooks/{source}/{rest}"
	}
	requireOperation(t, c, path, req.Method, resp, body)
}

func requireOperation(t testing.TB, c *contract, path, method string, resp *http.Response, body string) {
	t.Helper()
	op, place, ok := c.at("/paths", path, strings.ToLower(method))
	if !ok {
		op, place, ok = c.at("/paths", path, "post")
	}
	require.True(t, ok, "%s %s", method, path)
	require.NotEmpty(t, op["operationId"])
	status := strconv.Itoa(resp.StatusCode)
	answer, place, ok := c.at(place, "responses", status)
	require.True(t, ok, "schemas/openapi.yaml: %s %s has no answer %s", method, path, status)
	headers, _, _ := c.at(place, "headers")
	for name := range headers {
		header, at, _ := c.at(place, "headers", name)
		value := resp.Header.Get(name)
		if value == "" {
			require.NotEqual(t, true, header["required"], "%s without %s", status, name)
			continue
		}
		require.NoError(t, c.schema(t, at+"/schema").Validate(value), name)
	}
	if method == http.MethodHead || body == "" && answer["content"] == nil {
		return
	}
	media, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	require.NoError(t, err, "%s: %s", status, body)
	content, _, _ := c.at(place, "content")
	kind := media
	if content[kind] == nil {
		kind = "*/*"
	}
	require.NotNil(t, content[kind], "schemas/openapi.yaml: %s is never of type %s", status, media)
	if m, at, _ := c.at(place, "content", kind); m["schema"] != nil && strings.HasSuffix(media, "json") {
		value, err := jsonschema.UnmarshalJSON(strings.NewReader(body))
		require.NoError(t, err)
		require.NoError(t, c.schema(t, at+"/schema").Validate(value), body)
	}
}

// TestEveryRefusalIsDocumented looks at the table of refusals itself: some need a broken disk to be seen.
func TestEveryRefusalIsDocumented(t *testing.T) {
	c, err := openAPI()
	require.NoError(t, err)
	documented := map[string]bool{}
	problem, _, ok := c.at("/components/schemas/Problem/properties/type")
	require.True(t, ok)
	for _, one := range problem["enum"].([]any) {
		documented[one.(string)] = true
	}
	known := map[string]bool{}
	for o, r := range refusals {
		w := httptest.NewRecorder()
		w.Header().Set(headerDeliveryID, newDeliveryID(time.Now()))
		if r.status == http.StatusMethodNotAllowed {
			w.Header().Set("Allow", "POST")
		}
		writeProblem(w, r, w.Header().Get(headerDeliveryID))
		resp := w.Result()
		require.NoError(t, resp.Body.Close())
		requireDocumented(t, httptest.NewRequest(http.MethodPost, "/webhooks/a", nil), resp, w.Body.String())
		known[problemType+r.slug] = true
		require.True(t, documented[problemType+r.slug], "schemas/openapi.yaml does not know %s of outcome %s", r.slug, o)
	}
	for one := range documented {
		require.True(t, known[one], "schemas/openapi.yaml has %s, which no outcome has", one)
	}
}

// TestRetryAfterIsSpread: senders that were refused at once do not come back at once.
func TestRetryAfterIsSpread(t *testing.T) {
	seen := map[int]bool{}
	for range 1000 {
		w := httptest.NewRecorder()
		writeProblem(w, refusals[outOverloaded], "")
		after, err := strconv.Atoi(w.Header().Get("Retry-After"))
		require.NoError(t, err)
		require.GreaterOrEqual(t, after, 5)
		require.LessOrEqual(t, after, 15)
		seen[after] = true
	}
	require.Len(t, seen, 11)
}

// TestOpsAreDocumented asks the operations listener.
func TestOpsAreDocumented(t *testing.T) {
	c, err := openAPI()
	require.NoError(t, err)
	for _, ready := range []error{nil, errors.New("draining")} {
		h := telemetry.Handler(prometheus.NewRegistry(), func() error { return ready }, (&Service{}).Pages())
		for _, path := range []string{"/livez", "/readyz", "/metrics", "/sources"} {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
			resp := w.Result()
			body, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			requireOperation(t, c, path, http.MethodGet, resp, string(body))
		}
	}
}

// requireRecord checks a record of the topic against schemas/asyncapi.yaml.
func requireRecord(t testing.TB, r *kgo.Record) {
	t.Helper()
	c, err := asyncAPI()
	require.NoError(t, err)
	schema, place, ok := c.at("/channels/deliveries/messages/delivery/headers")
	require.True(t, ok)
	known := schema["properties"].(map[string]any)
	headers := map[string]any{}
	for _, h := range r.Headers {
		text := strings.ToValidUTF8(string(h.Value), "\ufffd") // http_… hold any bytes
		if !strings.HasPrefix(h.Key, "http_") {
			require.Equal(t, text, string(h.Value))
			require.NotNil(t, known[h.Key], "schemas/asyncapi.yaml does not know header %s", h.Key)
		}
		switch old := headers[h.Key].(type) {
		case nil:
			headers[h.Key] = text
		case string:
			headers[h.Key] = []any{old, text}
		case []any:
			headers[h.Key] = append(old, text)
		}
	}
	require.NoError(t, c.schema(t, place).Validate(headers))
	require.Equal(t, headers["ce_id"], string(r.Key))
}
