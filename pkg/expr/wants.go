package expr

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"github.com/go-json-experiment/json/jsontext"
)

// wants is what the expressions of an environment look at in the body, so that only that much of it is decoded: most of
// a webhook is read by nobody, and decoding it costs more than all else that is done for an expression. Nil: everything.
type wants struct {
	whole bool
	sub   map[string]*wants // by the names of an object's members
}

// wanted gathers wants. It is safe for concurrent use.
type wanted struct {
	mu  sync.Mutex
	now atomic.Pointer[wants]
}

func (w *wanted) add(e ast.Expr) {
	w.mu.Lock()
	defer w.mu.Unlock()
	root := w.now.Load().clone()
	root.visit(e, nil)
	w.now.Store(root)
}

func (w *wants) clone() *wants {
	c := &wants{sub: map[string]*wants{}}
	if w != nil {
		c.whole = w.whole
		for name, s := range w.sub {
			c.sub[name] = s.clone()
		}
	}
	return c
}

// path notes that the value below these names is looked at.
func (w *wants) path(names []string) {
	for _, name := range names {
		s := w.sub[name]
		if s == nil {
			s = &wants{sub: map[string]*wants{}}
			w.sub[name] = s
		}
		w = s
	}
	w.whole = true
}

// visit finds the uses of body. names are what is selected from the value of e, in that order. A local variable of that
// name is taken for the body as well, which decodes more than is needed and nothing less.
func (w *wants) visit(e ast.Expr, names []string) {
	switch e.Kind() {
	case ast.IdentKind:
		if e.AsIdent() == "body" {
			w.path(names)
		}
	case ast.SelectKind:
		s := e.AsSelect()
		w.visit(s.Operand(), append([]string{s.FieldName()}, names...))
	case ast.CallKind:
		c := e.AsCall()
		args := c.Args()
		if name, ok := member(c.FunctionName(), args); ok {
			w.visit(args[0], append([]string{name}, names...))
			return
		}
		if c.IsMemberFunction() {
			w.visit(c.Target(), nil)
		}
		w.all(args)
	case ast.ComprehensionKind:
		c := e.AsComprehension()
		w.all([]ast.Expr{c.IterRange(), c.AccuInit(), c.LoopCondition(), c.LoopStep(), c.Result()})
	case ast.ListKind:
		w.all(e.AsList().Elements())
	case ast.MapKind:
		for _, entry := range e.AsMap().Entries() {
			w.all([]ast.Expr{entry.AsMapEntry().Key(), entry.AsMapEntry().Value()})
		}
	case ast.StructKind:
		for _, field := range e.AsStruct().Fields() {
			w.visit(field.AsStructField().Value(), nil)
		}
	case ast.LiteralKind, ast.UnspecifiedExprKind:
	}
}

func (w *wants) all(es []ast.Expr) {
	for _, e := range es {
		w.visit(e, nil)
	}
}

// member is the constant name in x["name"], x[?"name"] and x.?name.
func member(function string, args []ast.Expr) (string, bool) {
	if len(args) != 2 || function != "_[_]" && function != "_[?_]" && function != "_?._" || args[1].Kind() != ast.LiteralKind {
		return "", false
	}
	s, ok := args[1].AsLiteral().(types.String)
	return string(s), ok
}

// readWanted reads one JSON value, of objects only the members that are wanted. The rest is only checked.
func readWanted(dec *jsontext.Decoder, w *wants) (any, error) {
	if w == nil || w.whole || dec.PeekKind() != '{' {
		return readValue(dec)
	}
	if _, err := dec.ReadToken(); err != nil {
		return nil, err
	}
	m := make(map[string]any, len(w.sub))
	for dec.PeekKind() != '}' {
		name, err := dec.ReadToken()
		if err != nil {
			return nil, err
		}
		key := name.String() // the token is valid only until the next read
		sub := w.sub[key]
		if sub == nil {
			err = dec.SkipValue()
		} else {
			m[key], err = readWanted(dec, sub)
		}
		if err != nil {
			return nil, err
		}
	}
	_, err := dec.ReadToken()
	return m, err
}

// covers says whether what is decoded for w serves for other as well.
func (w *wants) covers(other *wants) bool { return w == nil || w.whole || w == other }

// String lists the names, for tests.
func (w *wants) String() string {
	if w == nil || w.whole {
		return "*"
	}
	text := ""
	for _, name := range slices.Sorted(maps.Keys(w.sub)) {
		text += name + "(" + w.sub[name].String() + ")"
	}
	return text
}
