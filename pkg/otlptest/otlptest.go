// Package otlptest is a collector of traces for tests. What programs send by OTLP over HTTP comes in; spans, and the bytes
// as they came, go out. It must never take what a real collector would refuse.
package otlptest

import (
	"compress/gzip"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	traces "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// Span is a span that came in.
type Span struct {
	Service            string
	Name               string
	Trace, ID, Parent  string // in hex; no parent: empty
	Kind               string // such as SPAN_KIND_SERVER
	Start, End         uint64 // ns since 1970
	Failed             bool
	Message            string // of its status
	Attributes         map[string]string
	Links              []string // the linked spans' traces, in hex
	State              string   // its tracestate
	HasEvents, HasLost bool
}

// Collector takes spans.
type Collector struct {
	URL string // for telemetry.trace_endpoint, without a path

	mu    sync.Mutex
	spans []Span
	raw   []string
	wrong []string
}

// New starts a collector that runs until the test's end, which fails if something came in that is no OTLP.
func New(tb testing.TB) *Collector {
	tb.Helper()
	c := &Collector{}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/traces", c.export)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		c.refuse(w, "asked for "+r.Method+" "+r.URL.Path)
	})
	server := httptest.NewServer(mux)
	c.URL = server.URL
	tb.Cleanup(func() {
		server.Close()
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, why := range c.wrong {
			tb.Error("the collector refused: " + why)
		}
	})
	return c
}

func (c *Collector) refuse(w http.ResponseWriter, why string) {
	c.mu.Lock()
	c.wrong = append(c.wrong, why)
	c.mu.Unlock()
	http.Error(w, why, http.StatusBadRequest)
}

func (c *Collector) export(w http.ResponseWriter, r *http.Request) {
	in := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			c.refuse(w, err.Error())
			return
		}
		in = z
	}
	text, err := io.ReadAll(in)
	if err != nil {
		return // the program has ended meanwhile
	}
	var export collector.ExportTraceServiceRequest
	if err := proto.Unmarshal(text, &export); err != nil || r.Header.Get("Content-Type") != "application/x-protobuf" {
		c.refuse(w, "no OTLP")
		return
	}
	c.mu.Lock()
	c.raw = append(c.raw, string(text))
	for _, of := range export.ResourceSpans {
		service := attributes(of.Resource.GetAttributes())["service.name"]
		for _, scope := range of.ScopeSpans {
			for _, s := range scope.Spans {
				c.spans = append(c.spans, spanOf(service, s))
			}
		}
	}
	c.mu.Unlock()
	answer, _ := proto.Marshal(&collector.ExportTraceServiceResponse{}) // an empty message always marshals
	w.Header().Set("Content-Type", "application/x-protobuf")
	_, _ = w.Write(answer)
}

func spanOf(service string, s *traces.Span) Span {
	out := Span{
		Service: service, Name: s.Name, Trace: hex.EncodeToString(s.TraceId), ID: hex.EncodeToString(s.SpanId), Parent: hex.EncodeToString(s.ParentSpanId),
		Kind: s.Kind.String(), Start: s.StartTimeUnixNano, End: s.EndTimeUnixNano, State: s.TraceState,
		Failed: s.Status.GetCode() == traces.Status_STATUS_CODE_ERROR, Message: s.Status.GetMessage(), Attributes: attributes(s.Attributes),
		HasEvents: len(s.Events) > 0, HasLost: s.DroppedAttributesCount+s.DroppedEventsCount+s.DroppedLinksCount > 0,
	}
	for _, l := range s.Links {
		out.Links = append(out.Links, hex.EncodeToString(l.TraceId))
	}
	return out
}

func attributes(all []*common.KeyValue) map[string]string {
	out := map[string]string{}
	for _, a := range all {
		switch v := a.Value.GetValue().(type) {
		case *common.AnyValue_StringValue:
			out[a.Key] = v.StringValue
		case *common.AnyValue_IntValue:
			out[a.Key] = strconv.FormatInt(v.IntValue, 10)
		default:
			out[a.Key] = a.Value.String()
		}
	}
	return out
}

// Spans are the spans that came in.
func (c *Collector) Spans() []Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.spans)
}

// Find is the first span for which the attribute has the value, and whose name begins so; nil: none has come.
func (c *Collector) Find(name, attribute, value string) *Span {
	for _, s := range c.Spans() {
		if strings.HasPrefix(s.Name, name) && s.Attributes[attribute] == value {
			return &s
		}
	}
	return nil
}

// Children are the spans below one, by their names.
func (c *Collector) Children(of *Span) map[string]Span {
	below := map[string]Span{}
	for _, s := range c.Spans() {
		if s.Trace == of.Trace && s.Parent == of.ID {
			below[s.Name] = s
		}
	}
	return below
}

// Raw is all that came in, uncompressed.
func (c *Collector) Raw() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(c.raw, "\n")
}
