package ingress

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/catchment-dev/catchment/pkg/provider"
)

const (
	// schemaMost is the size of the largest body that is checked: parsed JSON takes many times its size in memory.
	schemaMost = 1 << 20
	// schemaAlone is the size over which bodies are checked one after the other.
	schemaAlone = 64 << 10
)

// bodySchema checks the bodies of one source.
type bodySchema struct {
	schema *jsonschema.Schema
	reject bool
}

var oneAtATime sync.Mutex

// check says why a delivery does not fit; empty: it does. Of one with several events each is checked.
func (s *bodySchema) check(body []byte, parts []provider.Part) string {
	if len(body) > schemaAlone {
		if len(body) > schemaMost {
			return fmt.Sprintf("body is larger than the %d bytes that are checked against a schema", schemaMost)
		}
		oneAtATime.Lock()
		defer oneAtATime.Unlock()
	}
	if parts == nil {
		return s.one(body)
	}
	for i, p := range parts {
		if reason := s.one(p.Body); reason != "" {
			return fmt.Sprintf("event %d: %s", i, reason)
		}
	}
	return ""
}

func (s *bodySchema) one(body []byte) string {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return "body is not JSON"
	}
	var invalid *jsonschema.ValidationError
	if err := s.schema.Validate(doc); errors.As(err, &invalid) {
		return describe(invalid)
	} else if err != nil {
		return "body could not be checked against the schema"
	}
	return ""
}

// describe names the first rule that is broken, and where. It shows no value of the body.
func describe(e *jsonschema.ValidationError) string {
	for len(e.Causes) > 0 {
		e = e.Causes[0]
	}
	at := "/" + strings.Join(e.InstanceLocation, "/")
	return fmt.Sprintf("body does not fit the schema: %s at %s", strings.Join(e.ErrorKind.KeywordPath(), "/"), strconv.QuoteToASCII(cut(at)))
}
