package processor

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/expr"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor/internal/store"
)

// reserved are the parameters that every statement may use without defining them.
var reserved = []string{"body", "delivery_id", "entity", "id", "received_at", "source", "time", "type", "version"}

// later are parameters of operations with each; no others are called so.
var later = []string{"index", "item"}

// operation is a compiled entry of operations.
type operation struct {
	spec       settings.Operation
	path       string // operations[i]
	index      int
	rank       int    // place among the operations; those that share a guard have one rank
	scope      string // the guard; empty: no version
	level      int    // operations run after those of lower levels
	after      []*operation
	when       *expr.Program
	entity     *expr.Program
	version    *expr.Program
	each       *expr.Program
	away       bool // its handler is in another program
	params     map[string]*expr.Program
	publish    *publishing
	handler    func(context.Context, pgx.Tx, *event.Event) (rows int64, returned []byte, err error)
	statements []*store.Statement
	definition []byte // JSON
	digest     []byte // SHA-256 of definition
	circuit    circuit
}

// compile checks all operations. The errors name the keys that are wrong.
func compile(cfg *settings.File) ([]*operation, config.Errors) {
	env, err := expr.NewEnv()
	if err != nil {
		return nil, config.Errors{cfg.Errorf("operations", "%v", err)}
	}
	inner, err := env.Each()
	if err != nil {
		return nil, config.Errors{cfg.Errorf("operations", "%v", err)}
	}
	c := &compiler{cfg: cfg, env: env, inner: inner}
	ops := make([]*operation, len(cfg.Operations))
	ranks := map[string]int{}
	for i, spec := range cfg.Operations {
		op := c.operation(i, spec)
		op.rank = i
		if op.scope != "" {
			if r, ok := ranks[op.scope]; ok {
				op.rank = r
			}
			ranks[op.scope] = op.rank
		}
		ops[i] = op
	}
	c.link(ops)
	return ops, c.errs
}

type compiler struct {
	cfg   *settings.File
	env   *expr.Env
	inner *expr.Env // of what is evaluated for each element
	errs  config.Errors
}

func (c *compiler) fail(path, format string, args ...any) {
	c.errs = append(c.errs, c.cfg.Errorf(path, format, args...))
}

func (c *compiler) operation(i int, spec settings.Operation) *operation {
	spec = withDefaults(spec)
	op := &operation{spec: spec, index: i, path: fmt.Sprintf("operations[%d]", i), params: map[string]*expr.Program{}}
	if _, ok := c.cfg.Sources[spec.On.Source]; !ok {
		c.fail(op.path+".on.source", "unknown source %q: expected one of %s", spec.On.Source, strings.Join(slices.Sorted(maps.Keys(c.cfg.Sources)), ", "))
	}
	op.when = c.expression(op.path+".when", spec.When, c.env.CompileBool)
	op.entity = c.expression(op.path+".entity", spec.Entity, c.env.Compile)
	op.version = c.expression(op.path+".version", spec.Version, c.env.Compile)
	if spec.Version != "" {
		op.scope = spec.Guard
		if op.scope == "" {
			op.scope = spec.Name
		}
		if spec.Entity == "" {
			c.fail(op.path+".version", "a version needs an entity: expected the key entity beside it")
		}
	}
	op.each = c.expression(op.path+".each", spec.Each, c.env.CompileList)
	env := c.env
	if spec.Each != "" {
		env = c.inner
	}
	c.publish(op, env)
	for _, name := range slices.Sorted(maps.Keys(spec.Params)) {
		path := op.path + ".params." + name
		if slices.Contains(reserved, name) || slices.Contains(later, name) {
			c.fail(path, "the name @%s is reserved: expected another name", name)
			continue
		}
		op.params[name] = c.expression(path, spec.Params[name], env.Compile)
	}
	c.statements(op)
	op.definition = definition(spec)
	sum := sha256.Sum256(op.definition)
	op.digest = sum[:]
	return op
}

// definition writes what decides an operation's effect, under the names of the configuration's keys. What is not set is
// left out, so that a new key changes no digest of operations that do not use it.
func definition(s settings.Operation) []byte {
	def := map[string]any{
		"name": s.Name, "on": map[string]any{"source": s.On.Source, "types": append([]string{}, s.On.Types...)},
		"expect_rows": s.ExpectRows, "timeout": s.Timeout.String(),
		"retry": map[string]any{"max_attempts": s.Retry.MaxAttempts, "initial": s.Retry.Initial.String(), "max": s.Retry.Max.String()},
	}
	for key, value := range map[string]string{"when": s.When, "entity": s.Entity, "version": s.Version, "guard": s.Guard, "each": s.Each, "handler": s.Handler} {
		if value != "" {
			def[key] = value
		}
	}
	if len(s.Params) > 0 {
		def["params"] = s.Params
	}
	if len(s.SQL) > 0 {
		def["sql"] = []string(s.SQL)
	}
	if len(s.DependsOn) > 0 {
		def["depends_on"] = []string(s.DependsOn)
	}
	if p := s.Publish; p != nil {
		def["publish"] = map[string]any{"topic": p.Topic, "key": p.Key, "value": p.Value}
	}
	b, _ := json.Marshal(def) // texts, numbers and maps of them always have a JSON form
	return b
}

// withDefaults serves configurations that were built in Go; Load has set them already.
func withDefaults(s settings.Operation) settings.Operation {
	if s.ExpectRows == "" {
		s.ExpectRows = "any"
	}
	if s.Timeout <= 0 {
		s.Timeout = 10 * time.Second
	}
	if p := s.Publish; p != nil && p.Key == "" {
		withKey := *p
		withKey.Key, s.Publish = "id", &withKey
	}
	if s.Retry.MaxAttempts <= 0 {
		s.Retry.MaxAttempts = 10
	}
	if s.Retry.Initial <= 0 {
		s.Retry.Initial = time.Second
	}
	if s.Retry.Max <= 0 {
		s.Retry.Max = time.Hour
	}
	return s
}

func (c *compiler) expression(path, src string, compile func(string) (*expr.Program, error)) *expr.Program {
	if src == "" {
		return nil
	}
	p, err := compile(src)
	if err != nil {
		for _, e := range flatten(err) {
			c.fail(path, "%v", e)
		}
	}
	return p
}

func flatten(err error) []error {
	if err == nil {
		return nil
	}
	var list interface{ Unwrap() []error }
	if errors.As(err, &list) {
		return list.Unwrap()
	}
	return []error{err}
}

func (c *compiler) statements(op *operation) {
	known := func(name string) bool {
		_, ok := op.spec.Params[name]
		return ok || slices.Contains(reserved, name) || op.spec.Each != "" && slices.Contains(later, name)
	}
	used := map[string]bool{}
	for j, src := range op.spec.SQL {
		st := store.Parse(src, known)
		op.statements = append(op.statements, st)
		path := op.sqlPath(j)
		if strings.TrimSpace(src) == "" {
			c.fail(path, "expected a statement, found nothing")
		}
		if word := st.Forbidden(); word != "" {
			c.fail(path, "%s is not allowed: expected a statement that leaves the batch's transaction, its session and the schema catchment alone", word)
		}
		if st.Number != "" {
			c.fail(path, "expected parameters by their names, such as @id, found %s", st.Number)
		}
		for _, name := range st.Params {
			used[name] = true
			c.parameter(op, path, name, known)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(op.spec.Params)) {
		if !used[name] && !slices.Contains(reserved, name) && !slices.Contains(later, name) {
			c.fail(op.path+".params."+name, "no statement uses @%s", name)
		}
	}
}

func (c *compiler) parameter(op *operation, path, name string, known func(string) bool) {
	switch {
	case op.spec.Each == "" && slices.Contains(later, name):
		c.fail(path, "@%s is used: expected the key each", name)
	case !known(name):
		c.fail(path, "@%s is not defined: expected it under params, or one of @%s", name, strings.Join(reserved, " @"))
	case name == "entity" && op.spec.Entity == "":
		c.fail(path, "@entity is used: expected the key entity")
	case name == "version" && op.spec.Version == "":
		c.fail(path, "@version is used: expected the key version")
	}
}

func (op *operation) sqlPath(j int) string {
	if len(op.spec.SQL) == 1 {
		return op.path + ".sql"
	}
	return fmt.Sprintf("%s.sql[%d]", op.path, j)
}

// wants says whether the operation is for events of that source and type.
func (op *operation) wants(source, typ string) bool {
	if op.spec.On.Source != source {
		return false
	}
	if len(op.spec.On.Types) == 0 {
		return true
	}
	return slices.ContainsFunc(op.spec.On.Types, func(pattern string) bool { return matchesType(pattern, typ) })
}

func matchesType(pattern, typ string) bool {
	prefix, ok := strings.CutSuffix(pattern, "*")
	return pattern == typ || ok && strings.HasPrefix(typ, prefix)
}

// attempt is one operation to be tried for one event.
type attempt struct {
	op      *operation
	ev      *event.Event
	number  int // from 1
	entity  *string
	version *expr.Version
	call    store.Call
	publish []store.Publication
	deps    []*attempt    // for the same event, before this one
	outcome string        // once it is settled
	err     error         // an expression failed, or a dependency is dead: the attempt is dead
	held    string        // why the attempt is not made now; empty: it is
	place   int           // of the event in its batch
	odd     bool          // the version has another shape than the first of its entity in the batch
	first   time.Time     // when an earlier attempt failed first; zero: there is none
	took    time.Duration // of an attempt in a savepoint
	failure error         // of its SQL, when all attempts were made together: it stands, as all before it succeeded
	suspect bool          // expect_rows was not met: to be made on its own
}

func input(ev *event.Event) *expr.Input {
	return &expr.Input{
		Source: ev.Source, Type: ev.Type, ID: ev.ID, Time: ev.Time, ReceivedAt: ev.ReceivedAt,
		Headers: ev.Headers, ContentType: ev.ContentType, Raw: ev.Body,
	}
}

// plan evaluates the operation's expressions for an event.
func (op *operation) plan(ev *event.Event, in *expr.Input, number int) *attempt {
	a := &attempt{op: op, ev: ev, number: number}
	if a.err = a.guard(in); a.err == nil {
		a.err = a.bind(in)
	}
	return a
}

const maxEntity = 1024 // bytes; a row of an index holds 2,704 at most

func (a *attempt) guard(in *expr.Input) error {
	op := a.op
	if op.entity != nil {
		v, err := op.entity.Eval(in)
		if err != nil {
			return op.wrap("entity", err)
		}
		s, null, err := expr.Text(v)
		switch {
		case err != nil:
			return op.wrap("entity", fmt.Errorf("%s: %w", op.entity, err))
		case null:
			return op.wrap("entity", fmt.Errorf("%s: the entity is null", op.entity))
		case len(s) > maxEntity:
			return op.wrap("entity", fmt.Errorf("%s: the entity is longer than %d bytes", op.entity, maxEntity))
		}
		a.entity = &s
	}
	if op.version != nil {
		v, err := op.version.EvalVersion(in)
		if err != nil {
			return op.wrap("version", err)
		}
		if len(v.Text) > maxEntity {
			return op.wrap("version", fmt.Errorf("%s: the version is longer than %d bytes", op.version, maxEntity))
		}
		a.version = &v
	}
	return nil
}

func (op *operation) wrap(key string, err error) error {
	return fmt.Errorf("%s.%s: %w", op.path, key, err)
}

// maxElements bounds the list of each.
const maxElements = 10_000

// bind evaluates the parameters, and what is published: once, or for each element.
func (a *attempt) bind(in *expr.Input) error {
	a.call.Timeout, a.call.Every = a.op.spec.Timeout, len(a.op.statements)
	if f := a.op.handler; f != nil {
		a.call.Func = func(ctx context.Context, tx pgx.Tx) (int64, []byte, error) { return f(ctx, tx, a.ev) }
	}
	if a.op.each == nil {
		return a.element(in, -1, map[slot]any{})
	}
	items, err := a.op.each.EvalList(in, maxElements)
	if err != nil {
		return a.op.wrap("each", err)
	}
	whole := map[slot]any{} // what is the same for all elements
	defer func() { in.Item, in.Index = nil, 0 }()
	for i, item := range items {
		in.Item, in.Index = item, i
		if err := a.element(in, i, whole); err != nil {
			return fmt.Errorf("element %d: %w", i, err)
		}
	}
	return nil
}

// slot is a parameter in one of the forms in which it is bound.
type slot struct {
	name string
	kind expr.Kind
}

// element binds the statements for one element; index -1: there is no each.
func (a *attempt) element(in *expr.Input, index int, whole map[slot]any) error {
	own := map[slot]any{}
	for _, st := range a.op.statements {
		args := make([]any, len(st.Params))
		for i, name := range st.Params {
			key := slot{name, st.Kinds[i]}
			done := whole
			if a.op.perElement(name) {
				done = own
			}
			v, ok := done[key]
			if !ok {
				var err error
				if v, err = a.value(in, name, st.Kinds[i]); err != nil {
					return err
				}
				done[key] = v
			}
			args[i] = v
		}
		a.call.Statements, a.call.Args = append(a.call.Statements, st), append(a.call.Args, args)
	}
	if a.op.publish != nil {
		return a.publication(in, index)
	}
	return nil
}

// perElement says whether a parameter may differ from one element to the next.
func (op *operation) perElement(name string) bool {
	return op.each != nil && (slices.Contains(later, name) || op.params[name] != nil && op.params[name].Uses(later...))
}

func (a *attempt) value(in *expr.Input, name string, kind expr.Kind) (any, error) {
	if p := a.op.params[name]; p != nil {
		v, err := p.EvalParam(in, kind)
		if err != nil {
			return nil, a.op.wrap("params."+name, err)
		}
		return v, nil
	}
	switch name {
	case "source":
		return a.ev.Source, nil
	case "id":
		return a.ev.ID, nil
	case "type":
		return a.ev.Type, nil
	case "item", "index":
		return a.elementValue(in, name, kind)
	case "delivery_id":
		return a.ev.DeliveryID, nil
	case "entity":
		return *a.entity, nil
	case "version":
		return a.version.Text, nil
	case "time":
		if a.ev.Time.IsZero() {
			return nil, nil
		}
		return a.ev.Time.UTC().Format(time.RFC3339Nano), nil
	case "received_at":
		return a.ev.ReceivedAt.UTC().Format(time.RFC3339Nano), nil
	}
	v, err := expr.Param(expr.Bytes(a.ev.Body), kind) // body
	if err != nil {
		return nil, fmt.Errorf("%s.sql: @body: %w", a.op.path, err)
	}
	return v, nil
}

func (a *attempt) elementValue(in *expr.Input, name string, kind expr.Kind) (any, error) {
	v := in.Item
	if name == "index" {
		v = expr.Number(in.Index)
	}
	p, err := expr.Param(v, kind)
	if err != nil {
		return nil, fmt.Errorf("%s.sql: @%s: %w", a.op.path, name, err)
	}
	return p, nil
}

// alone says that an attempt cannot be one of several in a round trip.
func (a *attempt) alone() bool { return a.op.handler != nil && a.err == nil && a.held == "" }

// accept checks expect_rows, for each element; an attempt that fails it is made again.
func (a *attempt) accept(e store.Effect) error {
	switch want := a.op.spec.ExpectRows; {
	case e.Least < 0: // there was no element
	case want == "some" && e.Least < 1, want == "one" && e.Least != 1:
		return fmt.Errorf("expect_rows: expected %s, the statement touched %d", want, e.Least)
	case want == "one" && e.Most != 1:
		return fmt.Errorf("expect_rows: expected %s, the statement touched %d", want, e.Most)
	}
	return nil
}

func (a *attempt) key() store.Key { return store.Key{Source: a.ev.Source, ID: a.ev.ID} }

func (a *attempt) target() store.Guard { return store.Guard{Scope: a.op.scope, Entity: *a.entity} }

func (a *attempt) newest() store.Newest {
	return store.Newest{Version: a.version.Key, ID: a.ev.ID, Source: a.ev.Source}
}

// guarded says whether the newest version wins.
func (a *attempt) guarded() bool { return a.err == nil && a.version != nil }

// compareAttempts is the order in which a batch's attempts run: the same in every worker, so that rows are locked in
// one order, and by version within an entity, so that each newer one is written;
// odd versions come last.
func compareAttempts(a, b *attempt) int {
	if a.op.level != b.op.level {
		return a.op.level - b.op.level
	}
	if a.op.rank != b.op.rank {
		return a.op.rank - b.op.rank
	}
	if c := strings.Compare(deref(a.entity), deref(b.entity)); c != 0 {
		return c
	}
	if a.guarded() && b.guarded() {
		if a.odd != b.odd {
			if b.odd {
				return -1
			}
			return 1
		}
		switch n, m := a.newest(), b.newest(); {
		case n.Less(m):
			return -1
		case m.Less(n):
			return 1
		}
	}
	if a.place != b.place {
		return a.place - b.place
	}
	return a.op.index - b.op.index
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
