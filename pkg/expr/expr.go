// Package expr evaluates the CEL expressions of catchment.yaml. An event's fields, headers and raw body come in and
// a value goes out, in CEL's own form, as text, as a parameter for Postgres or as a version that can be compared.
// It never does I/O, never keeps an input, and never runs longer than its cost limit allows.
package expr

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"cel.dev/cel-go/ext"
)

const (
	costLimit      = 1_000_000 // CEL cost units of one evaluation, about 0.1 s
	interruptEvery = 100       // comprehension steps between two looks at the clock
	evalTimeout    = 2 * time.Second
	maxLength      = 16 << 10 // code points of one expression
)

// Env is the set of variables and functions that expressions may use: source, type, id, time, received_at, headers,
// body and raw; CEL's standard functions and its strings, lists, math and base64 extensions; optional syntax.
// It is safe for concurrent use.
type Env struct {
	cel  *cel.Env
	body *wanted // what its expressions look at in the body; nil: not known
}

// Each is the environment of expressions that are evaluated for each element of a list: item and index besides.
func (e *Env) Each() (*Env, error) {
	in, err := e.cel.Extend(cel.Variable("item", cel.DynType), cel.Variable("index", cel.IntType))
	if err != nil {
		return nil, fmt.Errorf("make CEL environment: %w", err)
	}
	return &Env{cel: in}, nil
}

// NewEnv makes the environment. It fails only on a defect of this package.
func NewEnv() (*Env, error) {
	e, err := cel.NewEnv(
		cel.OptionalTypes(),
		cel.CrossTypeNumericComparisons(true),
		cel.ParserExpressionSizeLimit(maxLength),
		ext.Strings(), ext.Lists(), ext.Math(), ext.Encoders(),
		cel.Variable("source", cel.StringType),
		cel.Variable("type", cel.StringType),
		cel.Variable("id", cel.StringType),
		cel.Variable("time", cel.DynType), // a timestamp, or null when the provider does not say
		cel.Variable("received_at", cel.TimestampType),
		cel.Variable("headers", cel.MapType(cel.StringType, cel.ListType(cel.StringType))),
		cel.Variable("body", cel.DynType),
		cel.Variable("raw", cel.BytesType),
	)
	if err != nil {
		return nil, fmt.Errorf("make CEL environment: %w", err)
	}
	return &Env{cel: e, body: &wanted{}}, nil
}

// Program is a compiled expression, safe for concurrent use (an Input is not).
type Program struct {
	src string
	ast *cel.Ast
	prg cel.Program
	env *Env

	loops bool // over lists and maps; nothing else takes long within the cost limit
}

// CompileError says where in an expression the compiler stopped. Line counts from 1, Col from 1 in code points.
type CompileError struct {
	Expr      string
	Line, Col int
	Msg       string
}

// Error returns the place within the expression and the compiler's message.
func (e *CompileError) Error() string {
	return fmt.Sprintf("line %d, column %d of the expression: %s", e.Line, e.Col, e.Msg)
}

// Compile checks and plans an expression. Its errors are *CompileError, joined when there are several.
func (e *Env) Compile(src string) (*Program, error) {
	if strings.TrimSpace(src) == "" {
		return nil, &CompileError{Expr: src, Line: 1, Col: 1, Msg: "expected a CEL expression, found nothing"}
	}
	tree, issues := e.cel.Compile(src)
	if issues.Err() != nil {
		var errs []error
		for _, i := range issues.Errors() {
			errs = append(errs, &CompileError{Expr: src, Line: max(i.Location.Line(), 1), Col: i.Location.Column() + 1, Msg: i.Message})
		}
		return nil, errors.Join(errs...)
	}
	opts := []cel.ProgramOption{cel.EvalOptions(cel.OptOptimize)}
	if !isPlain(tree.NativeRep()) {
		opts = append(opts, cel.CostLimit(costLimit), cel.InterruptCheckFrequency(interruptEvery))
	}
	prg, err := e.cel.Program(tree, opts...)
	if err != nil {
		return nil, &CompileError{Expr: src, Line: 1, Col: 1, Msg: err.Error()}
	}
	if e.body != nil {
		e.body.add(tree.NativeRep().Expr())
	}
	p := &Program{src: src, ast: tree, prg: prg, env: e}
	p.loops = len(p.find(func(n ast.NavigableExpr) bool { return n.Kind() == ast.ComprehensionKind })) > 0
	return p, nil
}

// CompileBool is Compile for a condition: the expression must give a bool, or what is known only at run time.
func (e *Env) CompileBool(src string) (*Program, error) {
	p, err := e.Compile(src)
	if err != nil {
		return nil, err
	}
	if t := p.ast.OutputType(); !t.IsExactType(types.BoolType) && !t.IsExactType(types.DynType) {
		return nil, &CompileError{Expr: src, Line: 1, Col: 1, Msg: "expected a bool, found " + t.String()}
	}
	return p, nil
}

// CompileList is Compile for a list: the expression must give one, or what is known only at run time.
func (e *Env) CompileList(src string) (*Program, error) {
	p, err := e.Compile(src)
	if err != nil {
		return nil, err
	}
	t := p.ast.OutputType()
	if t.Kind() == types.OpaqueKind && t.TypeName() == "optional_type" {
		t = t.Parameters()[0]
	}
	if t.Kind() != types.ListKind && t.Kind() != types.DynKind {
		return nil, &CompileError{Expr: src, Line: 1, Col: 1, Msg: "expected a list, found " + t.String()}
	}
	return p, nil
}

// Uses says whether the expression names one of the variables.
func (p *Program) Uses(names ...string) bool {
	return len(p.find(func(e ast.NavigableExpr) bool {
		return e.Kind() == ast.IdentKind && slices.Contains(names, e.AsIdent())
	})) > 0
}

// find returns the parts of the expression that match.
func (p *Program) find(match func(ast.NavigableExpr) bool) []ast.NavigableExpr {
	return ast.MatchDescendants(ast.NavigateAST(p.ast.NativeRep()), match)
}

// String returns the expression's source.
func (p *Program) String() string { return p.src }

// EvalError says which expression failed, at which of its parts, and why.
type EvalError struct {
	Expr string // the expression
	At   string // the part that failed, such as body.data.object.amount; may be empty
	Msg  string
}

// Error names expression, part and reason.
func (e *EvalError) Error() string {
	if e.At == "" || e.At == e.Expr {
		return e.Expr + ": " + e.Msg
	}
	return e.Expr + ": at " + e.At + ": " + e.Msg
}

// Eval computes the expression for in. Its error is an *EvalError.
func (p *Program) Eval(in *Input) (ref.Val, error) {
	in.want = nil
	if p.env.body != nil {
		in.want = p.env.body.now.Load()
	}
	v, err := p.run(in)
	if err == nil && types.IsUnknown(v) {
		err = errors.New("value is unknown")
	}
	if err != nil {
		return nil, p.evalError(err, in)
	}
	return v, nil
}

// run evaluates; only loops look at the clock.
func (p *Program) run(in *Input) (ref.Val, error) {
	if !p.loops {
		v, _, err := p.prg.Eval(in)
		return v, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), evalTimeout)
	defer cancel()
	v, _, err := p.prg.ContextEval(ctx, in)
	return v, err
}

// EvalBool computes a condition. A value that is no bool is an *EvalError.
func (p *Program) EvalBool(in *Input) (bool, error) {
	v, err := p.Eval(in)
	if err != nil {
		return false, err
	}
	b, ok := unwrap(v).(types.Bool)
	if !ok {
		return false, p.fail("expected a bool, found " + typeName(v))
	}
	return bool(b), nil
}

// EvalList computes a list's elements, at most limit of them. Null and an empty optional have none; a value that is no
// list, or a longer one, is an *EvalError.
func (p *Program) EvalList(in *Input, limit int) ([]ref.Val, error) {
	v, err := p.Eval(in)
	if err != nil {
		return nil, err
	}
	v = unwrap(v)
	if v == types.NullValue {
		return nil, nil
	}
	list, ok := v.(traits.Lister)
	if !ok {
		return nil, p.fail("expected a list, found " + typeName(v))
	}
	n, ok := list.Size().(types.Int)
	if !ok || int(n) > limit {
		return nil, p.fail(fmt.Sprintf("the list has %d elements: expected at most %d", n, limit))
	}
	out := make([]ref.Val, 0, n)
	for it := list.Iterator(); it.HasNext() == types.True; {
		out = append(out, it.Next())
	}
	return out, nil
}

// EvalText computes an expression and gives its value's text form; null and an empty optional are "".
func (p *Program) EvalText(in *Input) (string, error) {
	v, err := p.Eval(in)
	if err != nil {
		return "", err
	}
	s, _, err := Text(v)
	if err != nil {
		return "", p.fail(err.Error())
	}
	return s, nil
}

// EvalVersion computes a version. A null version is an *EvalError.
func (p *Program) EvalVersion(in *Input) (Version, error) {
	v, err := p.Eval(in)
	if err != nil {
		return Version{}, err
	}
	ver, err := NewVersion(v)
	if err != nil {
		return Version{}, p.fail(err.Error())
	}
	return ver, nil
}

// EvalParam computes an SQL parameter in the form that kind asks for.
func (p *Program) EvalParam(in *Input, kind Kind) (any, error) {
	v, err := p.Eval(in)
	if err != nil {
		return nil, err
	}
	a, err := Param(v, kind)
	if err != nil {
		return nil, p.fail(err.Error())
	}
	return a, nil
}

func (p *Program) fail(msg string) *EvalError { return &EvalError{Expr: p.src, Msg: msg} }

func (p *Program) evalError(err error, in *Input) *EvalError {
	e := p.fail(err.Error())
	var node *types.Err
	if errors.As(err, &node) {
		e.At = p.part(node.NodeID())
	}
	if in.bodyErr != nil && strings.Contains(p.src, "body") {
		e.Msg += " (body is null: " + in.bodyErr.Error() + ")"
	}
	return e
}

// part prints the sub-expression with the given ID.
func (p *Program) part(id int64) string {
	if id == 0 {
		return ""
	}
	found := p.find(func(e ast.NavigableExpr) bool { return e.ID() == id })
	if len(found) == 0 {
		return ""
	}
	s, err := cel.ExprToString(found[0], p.ast.NativeRep().SourceInfo())
	if err != nil {
		return ""
	}
	return s
}
