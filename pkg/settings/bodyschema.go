package settings

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/catchment-dev/catchment/pkg/config"
)

// BodySchema is a JSON Schema for a source's bodies.
type BodySchema struct {
	File      string `yaml:"file" required:"true" doc:"JSON Schema, draft 2020-12 unless $schema says otherwise; other files that it names must lie in the same folder"`
	OnInvalid string `yaml:"on_invalid" default:"flag" enum:"flag,reject" doc:"what to do with a body that does not fit: flag it in the record, or refuse it with 422"`
}

var errOutside = errors.New("only files in the schema's own folder are read")

// OpenSchema compiles the JSON Schema of a source; nil: it has none. Formats are asserted; patterns are RE2.
func (f *File) OpenSchema(name string) (*jsonschema.Schema, config.Errors) {
	s := f.Sources[name].Schema
	if s == nil || s.File == "" {
		return nil, nil
	}
	path := f.Abs(s.File)
	root, err := os.OpenRoot(filepath.Dir(path)) // no link and no .. leads out of it
	if err == nil {
		defer func() { _ = root.Close() }()
		c := jsonschema.NewCompiler()
		c.DefaultDraft(jsonschema.Draft2020)
		c.AssertFormat()
		c.UseLoader(&folder{root: root, dir: filepath.Dir(path)})
		var schema *jsonschema.Schema
		if schema, err = c.Compile((&url.URL{Scheme: "file", Path: filepath.ToSlash(path)}).String()); err == nil {
			return schema, nil
		}
	}
	text := strings.ReplaceAll(err.Error(), "\n", " ")
	return nil, config.Errors{f.Errorf("sources."+name+".schema.file", "expected a JSON Schema: %s", text)}
}

// folder loads schemas from files in one folder.
type folder struct {
	root *os.Root
	dir  string
}

// Load reads and parses a file.
func (l *folder) Load(address string) (any, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "file" || u.Host != "" {
		return nil, errOutside
	}
	rel, err := filepath.Rel(l.dir, filepath.FromSlash(u.Path))
	if err != nil || !filepath.IsLocal(rel) {
		return nil, errOutside
	}
	data, err := l.root.ReadFile(rel)
	if err != nil {
		return nil, err
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		before := data[:min(int(syntax.Offset), len(data))]
		line, col := bytes.Count(before, []byte("\n"))+1, len(before)-bytes.LastIndexByte(before, '\n')-1
		return nil, fmt.Errorf("%s:%d:%d: %w", rel, line, max(col, 1), err)
	}
	return doc, err
}
