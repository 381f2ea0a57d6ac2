package processor

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/expr"
	"github.com/catchment-dev/catchment/processor/internal/store"
)

// MaxPublished bounds the key and the value of a record that an operation publishes, in bytes: a topic takes 1 MiB by default, with the headers.
const MaxPublished = 900_000

// publishing is a compiled publish.
type publishing struct {
	topic      string
	key, value *expr.Program
}

func (c *compiler) publish(op *operation, env *expr.Env) {
	spec := op.spec.Publish
	if spec == nil {
		return
	}
	path := op.path + ".publish"
	for _, own := range []string{c.cfg.Kafka.Topic, c.cfg.Kafka.Results()} {
		if own != "" && spec.Topic == own {
			c.fail(path+".topic", "%s is Catchment's own topic: expected another", own)
		}
	}
	op.publish = &publishing{
		topic: spec.Topic,
		key:   c.expression(path+".key", spec.Key, env.Compile),
		value: c.expression(path+".value", spec.Value, env.Compile),
	}
}

// publication evaluates what an attempt publishes when it succeeds. index: the element's place; -1: there is no each.
func (a *attempt) publication(in *expr.Input, index int) error {
	p := a.op.publish
	rec := &kgo.Record{}
	isJSON := false
	for _, part := range []struct {
		name string
		prg  *expr.Program
		to   *[]byte
		json *bool
	}{{"key", p.key, &rec.Key, new(bool)}, {"value", p.value, &rec.Value, &isJSON}} {
		if part.prg == nil {
			continue
		}
		v, err := part.prg.Eval(in)
		if err != nil {
			return a.op.wrap("publish."+part.name, err)
		}
		if *part.to, *part.json, err = expr.Encode(v); err != nil {
			return a.op.wrap("publish."+part.name, fmt.Errorf("%s: %w", part.prg, err))
		}
	}
	if n := len(rec.Key) + len(rec.Value); n > MaxPublished {
		return a.op.wrap("publish.value", fmt.Errorf("%s: the record has %d bytes: expected at most %d", p.value, n, MaxPublished))
	}
	from := event.Published{
		Source: a.ev.Source, EventID: a.ev.ID, Type: a.ev.Type, Time: a.ev.Time, Operation: a.op.spec.Name, Attempt: a.number, Index: index, JSON: isJSON,
	}
	rec.Headers = from.Headers()
	a.publish = append(a.publish, store.Publication{Topic: p.topic, Record: rec})
	return nil
}
