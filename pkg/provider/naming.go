package provider

import (
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	"github.com/catchment-dev/catchment/pkg/expr"
)

// naming is what a source itself says of its events' names: expressions instead of the preset's rules. They see
// headers, body, raw and source, and the names that the preset's rules have found as id, type and time.
type naming struct {
	source     string
	id, typ    *name
	members    *fields  // what the expressions take from the body: refused when it is there twice
	headers    []string // what they take from the headers: likewise (canonical names)
	idUnsigned bool
}

// name is one such expression. A plain path into the body is read as it stands there, because CEL's numbers would
// make one name of two: 12345678901234567890 and …891 are the same double.
type name struct {
	program *expr.Program
	slot    int // the path's place in the members; noSlot: no plain path
}

var exprEnv = sync.OnceValues(expr.NewEnv)

func (o *opening) naming() naming {
	n := naming{source: o.Source}
	if o.EventID == "" && o.EventType == "" {
		return n
	}
	n.members = &fields{}
	for _, path := range bodyPaths(o.EventID, o.EventType) {
		n.members.add(path)
	}
	n.id = o.name("event_id", o.EventID, n.members)
	n.typ = o.name("event_type", o.EventType, n.members)
	n.headers = headerNames(o.EventID, o.EventType)
	n.idUnsigned = strings.Contains(o.EventID, "headers")
	return n
}

func (o *opening) name(key, src string, members *fields) *name {
	p := o.compile(key, src)
	if p == nil {
		return nil
	}
	n := &name{program: p, slot: noSlot}
	if path := plainPath(src); path != nil {
		n.slot = members.add(path)
	}
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

// apply replaces what the preset's rules found. An expression that fails or gives no name names nothing: the
// delivery then has no ID, or no type. unsigned is nil when the source says nothing of the ID.
func (n *naming) apply(r *Request, id *Identity) (unsigned *bool, err error) {
	if n.id == nil && n.typ == nil {
		return nil, nil
	}
	var space [8]value
	members := append(space[:0], make([]value, n.members.count)...)
	exact, err := n.read(r, members)
	if err != nil {
		return nil, err
	}
	in := &expr.Input{
		Source: n.source, Type: id.Type, ID: id.ID, Time: id.Time, ReceivedAt: r.Now,
		Headers: lowerNames(r.Header), ContentType: get(r.Header, "Content-Type"), Raw: r.Body,
	}
	text := func(e *name) string {
		if exact && e.slot != noSlot {
			return members[e.slot].text()
		}
		return evalName(e.program, in)
	}
	eventID, typ := id.ID, id.Type
	if n.id != nil {
		eventID = text(n.id)
		unsigned = &n.idUnsigned
	}
	if n.typ != nil {
		typ = text(n.typ)
	}
	id.ID, id.Type = eventID, typ
	return unsigned, nil
}

// parts names the events of a delivery whose key is known: each by its own ID, else by key and index. It says
// whether all had an ID of their own. The source's expressions see one element as the body.
func (n *naming) parts(r *Request, key string, parts []Part) (named bool, err error) {
	named = true
	one := *r
	if n.id != nil || n.typ != nil {
		one.Header = r.Header.Clone()
		one.Header.Set("Content-Type", "application/json")
	}
	for i := range parts {
		p := &parts[i]
		one.Body = p.Body
		if _, err := n.apply(&one, &p.Identity); err != nil {
			return false, err
		}
		if p.ID, err = cleanID(p.ID); err != nil {
			return false, err
		}
		if err := checkType(p.Type); err != nil {
			return false, err
		}
		if p.ID == "" {
			named = false
			if p.ID, err = cleanID(key + "/" + strconv.Itoa(i)); err != nil {
				return false, err
			}
		}
	}
	return named, nil
}

// Splitter takes deliveries apart that were verified before.
type Splitter struct {
	provider *Provider
	naming   naming
}

// NewSplitter needs the source's name, provider and expressions, and no secret. The error joins a *ConfigError for
// each wrong key.
func NewSplitter(cfg Config) (*Splitter, error) {
	p, ok := ByName(cfg.Provider)
	if !ok {
		return nil, &ConfigError{Key: "provider", Err: fmt.Errorf("unknown provider %q: expected one of %s", cfg.Provider, Names())}
	}
	o := &opening{Config: cfg, provider: p}
	s := &Splitter{provider: p, naming: o.naming()}
	return s, errors.Join(o.errs...)
}

// Split gives the events of a delivery whose key is known, as Receive gave them; nil: the delivery is one event.
func (s *Splitter) Split(key string, r *Request) ([]Part, error) {
	if s.provider.split == nil {
		return nil, nil
	}
	parts, err := s.provider.split(r)
	if err != nil || parts == nil {
		return nil, err
	}
	_, err = s.naming.parts(r, key, parts)
	return parts, err
}

// read takes the members out of the body as pkg/expr sees it; of a form, out of the JSON in its field payload, for
// its other fields are lists. It says whether that settles plain paths: of a multipart form it does not.
func (n *naming) read(r *Request, out []value) (exact bool, err error) {
	media, _, err := mime.ParseMediaType(get(r.Header, "Content-Type"))
	switch {
	case err != nil: // no or a broken content type: JSON
	case media == "multipart/form-data":
		return false, nil
	case media == "application/x-www-form-urlencoded":
		form, err := url.ParseQuery(string(r.Body))
		if payload := form["payload"]; err == nil && len(payload) == 1 {
			return true, n.members.within("payload").read([]byte(payload[0]), out)
		}
		return true, nil
	}
	return true, n.members.read(r.Body, out)
}

// evalName gives a string or an integer as text. Whatever else an expression gives is no name: doubles have lost
// digits, and two lists, maps or truth values are too easily the same.
func evalName(p *expr.Program, in *expr.Input) string {
	v, err := p.Eval(in)
	if err != nil {
		return ""
	}
	return nameText(v)
}

func nameText(v ref.Val) string {
	switch t := v.(type) {
	case *types.Optional:
		if t.HasValue() {
			return nameText(t.GetValue())
		}
	case types.String:
		return string(t)
	case types.Int:
		return strconv.FormatInt(int64(t), 10)
	case types.Uint:
		return strconv.FormatUint(uint64(t), 10)
	}
	return ""
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

// plainPath gives the steps of an expression that is nothing but a path into the body; nil for any other.
func plainPath(src string) []string {
	src = strings.TrimSpace(src)
	m := bodyPath.FindStringSubmatch(src)
	if m == nil || m[0] != src {
		return nil
	}
	return pathSteps(m[1])
}

// bodyPaths finds the members of the body that expressions name, as far as they name them literally.
func bodyPaths(exprs ...string) [][]string {
	var paths [][]string
	for _, m := range bodyPath.FindAllStringSubmatch(strings.Join(exprs, "\n"), -1) {
		steps := pathSteps(m[1])
		if m[2] != "" { // the last step is a function's name, as in body.id.trim()
			steps = steps[:len(steps)-1]
		}
		if len(steps) > 0 {
			paths = append(paths, steps)
		}
	}
	return paths
}

func pathSteps(path string) []string {
	var steps []string
	for _, s := range pathStep.FindAllStringSubmatch(path, -1) {
		steps = append(steps, s[1]+s[2])
	}
	return steps
}

func headerNames(exprs ...string) []string {
	var names []string
	for _, m := range headerName.FindAllStringSubmatch(strings.Join(exprs, "\n"), -1) {
		names = append(names, http.CanonicalHeaderKey(m[1]+m[2]))
	}
	return names
}
