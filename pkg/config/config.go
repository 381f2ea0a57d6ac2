// Package config reads a YAML file into typed structs. A document goes in and filled structs come out, or all
// of its errors at once, each with file, line, column and what was expected. It knows no field: the structs'
// tags say everything, and it never prints a secret.
//
// Tags: yaml (key), default (text, read as if it stood in the file), doc (one line), enum (comma-separated),
// min, required:"true", scalar:"any" (numbers and booleans are taken as text, for expressions).
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// Pos is a place in a file; Line and Col count from 1. Line 0: not from a file.
type Pos struct {
	File      string
	Line, Col int
}

// String returns file:line:col, or the file alone.
func (p Pos) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Col)
}

// Error is one thing that is wrong, where it stands, and what was expected there.
type Error struct {
	Pos
	Path string // such as sources.stripe.secrets[0]
	Msg  string
}

// Error returns "file:line:col: path: message".
func (e Error) Error() string {
	s := e.Pos.String()
	if e.Path != "" {
		s += ": " + e.Path
	}
	return s + ": " + e.Msg
}

// Errors are all that is wrong with a document, in the order of the file.
type Errors []Error

// Error returns one line an error.
func (es Errors) Error() string {
	lines := make([]string, len(es))
	for i, e := range es {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Err returns es as an error, or nil when there is none.
func (es Errors) Err() error {
	if len(es) == 0 {
		return nil
	}
	return es
}

// Sort puts es into the order of the file.
func (es Errors) Sort() {
	slices.SortStableFunc(es, func(a, b Error) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Col - b.Col
	})
}

// Strings is a list of texts that may be written as one text.
type Strings []string

// Index tells where the values of a document stand.
type Index struct {
	file string
	at   map[string]Pos
}

// NewIndex returns an index without places, for settings that come from no file.
func NewIndex(name string) *Index { return &Index{file: name, at: map[string]Pos{}} }

// Pos returns the place of path, or of the nearest thing around it that is there.
func (ix *Index) Pos(path string) Pos {
	for p := path; p != ""; p = parent(p) {
		if pos, ok := ix.at[p]; ok {
			return pos
		}
	}
	return Pos{File: ix.file}
}

// Errorf makes an Error about the value at path.
func (ix *Index) Errorf(path, format string, args ...any) Error {
	return Error{ix.Pos(path), path, fmt.Sprintf(format, args...)}
}

func parent(path string) string {
	return path[:max(strings.LastIndexByte(path, '.'), strings.LastIndexByte(path, '['), 0)]
}

// Options say how a document is read.
type Options struct {
	// Lookup finds environment variables; nil: os.LookupEnv.
	Lookup func(string) (string, bool)
	// Environ lists the environment as KEY=value, to find overrides; nil: os.Environ.
	Environ func() []string
	// EnvPrefix begins the names of variables that override scalars: PREFIX_SECTION__KEY. Empty: none do.
	EnvPrefix string
	// Resolve says whether a top-level section is needed: only then are its ${VAR} and file: texts resolved and
	// its required keys demanded. nil: all are.
	Resolve func(section string) bool
}

// Load reads the file into dst, a pointer to a struct. The error is Errors, or that of reading the file.
func Load(file string, dst any, o Options) (*Index, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return Parse(file, data, dst, o)
}

// Parse is Load for data that has been read already. Relative paths start at the folder of file.
func Parse(file string, data []byte, dst any, o Options) (*Index, error) {
	if o.Lookup == nil {
		o.Lookup = os.LookupEnv
	}
	if o.Environ == nil {
		o.Environ = os.Environ
	}
	if o.Resolve == nil {
		o.Resolve = func(string) bool { return true }
	}
	dir, err := filepath.Abs(filepath.Dir(file))
	if err != nil {
		return nil, fmt.Errorf("folder of %s: %w", file, err)
	}
	var root, second yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&root); err != nil && !errors.Is(err, io.EOF) {
		return nil, Errors{syntaxError(file, data, err)}
	}
	if err := dec.Decode(&second); err == nil {
		return nil, Errors{{Pos: Pos{file, second.Line, 1}, Msg: "expected one YAML document, found another after ---"}}
	} else if !errors.Is(err, io.EOF) {
		return nil, Errors{syntaxError(file, data, err)}
	}
	d := &decoder{Options: o, file: file, dir: dir, index: &Index{file: file, at: map[string]Pos{}}}
	d.document(&root, dst)
	return d.index, d.errs.Err()
}

func syntaxError(file string, data []byte, err error) Error {
	e := Error{Pos: Pos{File: file}, Msg: "not YAML: " + err.Error()}
	var le *yaml.LoadError
	if errors.As(err, &le) {
		e.Line, e.Col, e.Msg = le.Mark.Line, max(le.Mark.Column, 1), "not YAML: "+le.Message
		if e.Line == 0 { // of bytes that are no text, only their offset is known
			before := data[:min(max(le.Mark.Index, 0), len(data))]
			e.Line, e.Col = 1+bytes.Count(before, []byte("\n")), 1+utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:])
		}
		if lines := bytes.Split(data, []byte("\n")); e.Line > 0 && e.Line <= len(lines) {
			if line := lines[e.Line-1]; bytes.ContainsRune(line[:len(line)-len(bytes.TrimLeft(line, " \t"))], '\t') {
				e.Msg = "not YAML: expected spaces at the line's begin, found a tab"
			}
		}
	}
	return e
}
