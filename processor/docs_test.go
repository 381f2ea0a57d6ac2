package processor

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/expr"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor/internal/store"
)

var block = regexp.MustCompile("(?ms)^```(sql|yaml)\n(.*?)^```$")

// docs returns docs/operations.md with its blocks of a language.
func docs(t *testing.T, language string) (text string, blocks []string) {
	t.Helper()
	b, err := os.ReadFile("../docs/operations.md")
	require.NoError(t, err)
	for _, m := range block.FindAllStringSubmatch(string(b), -1) {
		if m[1] == language {
			blocks = append(blocks, m[2])
		}
	}
	require.NotEmpty(t, blocks)
	return string(b), blocks
}

const docsSources = `
sources:
  stripe: {provider: stripe, secrets: [whsec_dGVzdA==]}
  shop: {provider: none}
`

// The examples of docs/operations.md load, prepare on their own tables, and do what the page says.
func TestDocsExamples(t *testing.T) {
	_, tables := docs(t, "sql")
	w := newDatabase(t, tables...)
	_, examples := docs(t, "yaml")
	for _, text := range examples {
		cfg, err := settings.Parse("catchment.yaml", []byte(text+docsSources), settings.NeedOperations)
		require.NoError(t, err)
		cfg.Postgres = w.cfg.Postgres
		require.Empty(t, checkOperations(t, cfg))
		w.cfg.Operations = append(w.cfg.Operations, cfg.Operations...)
		w.cfg.Sources = cfg.Sources
	}
	wk := w.take(w.engine(), partition(0))
	paid := func(id, typ, body string) *event.Delivery { return delivery("stripe", id, "payment_intent."+typ, body) }
	const amount = `{"data":{"object":{"amount":500,"currency":"eur","metadata":{"order_id":"o1"}}}}`
	late := paid("e0", "payment_failed", amount)
	late.Time = late.Time.Add(-1)
	require.NoError(t, wk.write(t.Context(), log(wk.part,
		paid("e1", "succeeded", amount), paid("e2", "succeeded", `{"data":{"object":{"amount":7,"metadata":{}}}}`),
		delivery("shop", "s2", "shipment.delivered", `{"order":"o1","revision":2}`),
		delivery("shop", "s1", "shipment.created", `{"order":"o1","revision":1}`))))
	r := log(wk.part, late)
	r[0].Offset = wk.next
	require.NoError(t, wk.write(t.Context(), r))
	require.Equal(t, "o1|paid|500|eur", w.text(`SELECT concat_ws('|', id, status, amount, currency) FROM orders`))
	require.Equal(t, 507, w.count(`SELECT cents::int FROM daily_revenue`))
	require.Equal(t, "delivered", w.text(`SELECT state FROM shipments`))
	require.Equal(t, "superseded", w.text(`SELECT outcome FROM catchment.results WHERE event_id = 'e0'`))
}

var typeRow = regexp.MustCompile("(?m)^\\| `(.+)` \\| `([a-z\\[\\]]+)` \\| `?(.+?)`? \\|$")

// Every row of the page's table of types is what happens.
func TestDocsTypes(t *testing.T) {
	text, _ := docs(t, "sql")
	w := newDatabase(t)
	w.exec("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET timezone TO ''UTC''', current_database()); END $$")
	w.pool.Reset()
	eng := w.engine()
	env, err := expr.NewEnv()
	require.NoError(t, err)
	rows := typeRow.FindAllStringSubmatch(text, -1)
	require.Len(t, rows, 20)
	for _, row := range rows {
		st := store.Parse(`SELECT (@v::`+row[2]+`)::text`, func(string) bool { return true })
		require.NoError(t, eng.store.Describe(t.Context(), st))
		p, err := env.Compile(row[1])
		require.NoError(t, err, row[1])
		arg, err := p.EvalParam(&expr.Input{}, st.Kinds[0])
		require.NoError(t, err, row[1])
		var got *string
		require.NoError(t, w.pool.QueryRow(t.Context(), st.SQL, arg).Scan(&got), row[0])
		want := strings.TrimSpace(row[3])
		if want == "NULL" {
			require.Nil(t, got, row[0])
			continue
		}
		require.NotNil(t, got, row[0])
		require.Equal(t, want, *got, row[0])
	}
}
