package processor

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/proctest"
)

// waiting is how many tests may run beside each other that say so: they wait for servers, and not for a processor.
const waiting = 8

func TestMain(m *testing.M) { proctest.Main(m, waiting) }

// build makes the program, with the given arguments of go build.
func build(tb testing.TB, args ...string) string {
	tb.Helper()
	return proctest.Build(tb, "./cmd/processor", args...)
}

// process is the processor as a program of its own, with the world's configuration.
func (w *world) process(program string) *proctest.Process {
	w.t.Helper()
	ops := proctest.FreeAddress(w.t)
	return proctest.New(w.t, program, ops, w.file(ops))
}

// file is the world's configuration as text; JSON is YAML.
func (w *world) file(ops string) []byte {
	w.t.Helper()
	type object = map[string]any
	duration := func(d time.Duration) string { return d.String() }
	var operations []any
	for _, op := range w.cfg.Operations {
		op = withDefaults(op)
		o := object{
			"name": op.Name, "on": object{"source": op.On.Source, "types": op.On.Types}, "sql": op.SQL, "params": op.Params,
			"expect_rows": op.ExpectRows, "timeout": duration(op.Timeout),
			"retry": object{"max_attempts": op.Retry.MaxAttempts, "initial": duration(op.Retry.Initial), "max": duration(op.Retry.Max)},
		}
		if p := op.Publish; p != nil {
			o["publish"] = object{"topic": p.Topic, "key": p.Key, "value": p.Value}
		}
		for key, value := range map[string]string{"when": op.When, "entity": op.Entity, "version": op.Version, "guard": op.Guard} {
			if value != "" {
				o[key] = value
			}
		}
		operations = append(operations, o)
	}
	sources := object{}
	for name, s := range w.cfg.Sources {
		sources[name] = object{"provider": s.Provider}
	}
	results := w.cfg.Kafka.ResultsTopic
	if results == "" {
		results = "off"
	}
	c := w.cfg.Processor
	text, err := json.Marshal(object{
		"kafka":    object{"brokers": w.cfg.Kafka.Brokers, "topic": w.cfg.Kafka.Topic, "results_topic": results, "create_topic": false},
		"postgres": object{"url": w.cfg.Postgres.URL.Reveal(), "max_conns": w.cfg.Postgres.MaxConns},
		"processor": object{
			"ops_listen": ops, "group": c.Group, "batch": c.Batch, "migrate": c.Migrate,
			"tx_timeout": duration(c.TxTimeout), "session_timeout": duration(c.Session),
		},
		"sources": sources, "operations": operations,
	})
	require.NoError(w.t, err)
	return text
}
