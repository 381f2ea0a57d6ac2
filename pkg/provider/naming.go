package provider

import (
	"errors"
	"net/http"
	"regexp"
	"strings"
	"sync"

	"github.com/catchment-dev/catchment/pkg/expr"
)

// naming is what a source itself says of its events' names: expressions instead of the preset's rules. They see
// headers, body, raw and source, and the names that the preset's rules have found as id, type and time.
type naming struct {
	source     string
	id, typ    *expr.Program
	members    *fields  // what the expressions take from the body: refused when it is there twice
	headers    []string // what they take from the headers: likewise (canonical names)
	idUnsigned bool
}

var exprEnv = sync.OnceValues(expr.NewEnv)

func (o *opening) naming() naming {
	n := naming{source: o.Source}
	if o.EventID == "" && o.EventType == "" {
		return n
	}
	n.id = o.compile("event_id", o.EventID)
	n.typ = o.compile("event_type", o.EventType)
	n.members = newFields(bodyPaths(o.EventID, o.EventType)...)
	n.headers = headerNames(o.EventID, o.EventType)
	n.idUnsigned = strings.Contains(o.EventID, "headers")
	return n
}

func (o *opening) compile(key, src string) *expr.Program {
	if src == "" {
		return nil
	}
	env, err := exprEnv()
	if err == nil {
		var p *expr.Program
		if p, err = env.Compile(src); err == nil {
			return p
		}
	}
	o.errs = append(o.errs, &ConfigError{Key: key, Err: err})
	return nil
}

// apply replaces what the preset's rules found. An expression that fails or gives no text names nothing: the
// delivery then has no ID, or no type.
func (n *naming) apply(r *Request, v *Verified) error {
	if n.id == nil && n.typ == nil {
		return nil
	}
	var space [8]value
	if err := n.members.read(r.Body, append(space[:0], make([]value, n.members.count)...)); err != nil {
		return err
	}
	in := &expr.Input{
		Source: n.source, Type: v.Type, ID: v.ID, Time: v.Time, ReceivedAt: r.Now,
		Headers: lowerNames(r.Header), ContentType: get(r.Header, "Content-Type"), Raw: r.Body,
	}
	id, typ := v.ID, v.Type
	if n.id != nil {
		id = evalText(n.id, in)
		v.IDUnsigned = n.idUnsigned
	}
	if n.typ != nil {
		typ = evalText(n.typ, in)
	}
	v.ID, v.Type = id, typ
	return nil
}

func evalText(p *expr.Program, in *expr.Input) string {
	s, err := p.EvalText(in)
	var failed *expr.EvalError
	if errors.As(err, &failed) {
		return ""
	}
	return s
}

func lowerNames(h http.Header) map[string][]string {
	m := make(map[string][]string, len(h))
	for name, values := range h {
		m[strings.ToLower(name)] = values
	}
	return m
}

var (
	bodyPath   = regexp.MustCompile(`\bbody((?:\.\??[A-Za-z_][A-Za-z0-9_]*|\[\??(?:"[^"\\]*"|'[^'\\]*')\])+)(\()?`)
	pathStep   = regexp.MustCompile(`\.\??([A-Za-z_][A-Za-z0-9_]*)|\[\??["']([^"'\\]*)["']\]`)
	headerName = regexp.MustCompile(`\bheaders(?:\.\??([A-Za-z_][A-Za-z0-9_]*)|\[\??["']([^"'\\]*)["']\])`)
)

// bodyPaths finds the members of the body that expressions name, as far as they name them literally.
func bodyPaths(exprs ...string) []string {
	var paths []string
	for _, m := range bodyPath.FindAllStringSubmatch(strings.Join(exprs, "\n"), -1) {
		var steps []string
		for _, s := range pathStep.FindAllStringSubmatch(m[1], -1) {
			steps = append(steps, s[1]+s[2])
		}
		if m[2] != "" { // the last step is a function's name, as in body.id.trim()
			steps = steps[:len(steps)-1]
		}
		if len(steps) > 0 {
			paths = append(paths, strings.Join(steps, "."))
		}
	}
	return paths
}

func headerNames(exprs ...string) []string {
	var names []string
	for _, m := range headerName.FindAllStringSubmatch(strings.Join(exprs, "\n"), -1) {
		names = append(names, http.CanonicalHeaderKey(m[1]+m[2]))
	}
	return names
}
