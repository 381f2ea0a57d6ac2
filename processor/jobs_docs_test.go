package processor

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/settings"
)

const jobsSources = `
sources:
  stripe: {provider: stripe, secrets: [whsec_dGVzdA==]}
  shopify: {provider: none}
  github: {provider: none}
  slack: {provider: none}
  app: {provider: none}
`

var fences = regexp.MustCompile("(?ms)^```(sql|yaml|events|result|records)\n(.*?)^```$")

// job is one chapter of docs/jobs.md: its blocks by language.
type job struct {
	title  string
	blocks map[string][]string
}

func jobs(t *testing.T) []job {
	t.Helper()
	b, err := os.ReadFile("../docs/jobs.md")
	require.NoError(t, err)
	var list []job
	for _, chapter := range strings.Split(string(b), "\n## ")[1:] {
		title, text, _ := strings.Cut(chapter, "\n")
		j := job{title: title, blocks: map[string][]string{}}
		for _, m := range fences.FindAllStringSubmatch(text, -1) {
			j.blocks[m[1]] = append(j.blocks[m[1]], strings.TrimRight(m[2], "\n"))
		}
		for _, language := range []string{"sql", "yaml", "events", "result"} {
			require.Len(t, j.blocks[language], 1, "%s: %s", title, language)
		}
		list = append(list, j)
	}
	require.Len(t, list, 8)
	return list
}

// events reads lines of source, ID, type, time and body.
func (j *job) events(t *testing.T) []*event.Delivery {
	t.Helper()
	var ds []*event.Delivery
	for _, line := range strings.Split(j.blocks["events"][0], "\n") {
		f := strings.SplitN(line, " ", 5)
		require.Len(t, f, 5, line)
		d := delivery(f[0], f[1], f[2], f[4])
		d.Time = time.Time{}
		if f[3] != "-" {
			at, err := time.Parse(time.RFC3339, f[3])
			require.NoError(t, err)
			d.Time = at
		}
		ds = append(ds, d)
	}
	return ds
}

// load reads the job's operations, as a user's file has them.
func (j *job) load(t *testing.T, w *world) {
	t.Helper()
	w.exec("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET timezone TO ''UTC''', current_database()); END $$")
	w.pool.Reset()
	w.exec(j.blocks["sql"][0])
	cfg, err := settings.Parse("catchment.yaml", []byte(j.blocks["yaml"][0]+jobsSources), settings.NeedOperations)
	require.NoError(t, err)
	cfg.Postgres = w.cfg.Postgres
	require.Empty(t, checkOperations(t, cfg))
	w.cfg.Operations, w.cfg.Sources = cfg.Operations, cfg.Sources
}

func (j *job) check(t *testing.T, w *world) {
	t.Helper()
	lines := strings.Split(j.blocks["result"][0], "\n")
	for len(lines) > 0 {
		query := lines[0]
		require.True(t, strings.HasPrefix(query, "SELECT "), query)
		var want []string
		for lines = lines[1:]; len(lines) > 0 && !strings.HasPrefix(lines[0], "SELECT "); lines = lines[1:] {
			want = append(want, lines[0])
		}
		rows, err := w.pool.Query(t.Context(), query, pgx.QueryExecModeSimpleProtocol) // all as text
		require.NoError(t, err, query)
		var got []string
		for rows.Next() {
			fields := make([]string, len(rows.RawValues()))
			for i, v := range rows.RawValues() {
				fields[i] = string(v)
			}
			got = append(got, strings.Join(fields, "|"))
		}
		require.NoError(t, rows.Err(), query)
		require.Equal(t, want, got, query)
	}
}

// The jobs of docs/jobs.md do what the page says: each event in a batch of its own, all in one batch, and, in both cases,
// all of them once more.
func TestDocsJobs(t *testing.T) {
	for _, j := range jobs(t) {
		for _, together := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/together=%v", j.title, together), func(t *testing.T) {
				w := newDatabase(t)
				j.load(t, w)
				eng := w.engine()
				wk := w.take(eng, partition(0))
				ds := append(j.events(t), j.events(t)...)
				if together {
					require.NoError(t, wk.write(t.Context(), log(wk.part, ds...)))
				} else {
					for _, d := range ds {
						require.NoError(t, wk.write(t.Context(), nextOf(wk, d)))
					}
				}
				j.check(t, w)
				for _, block := range j.blocks["records"] {
					var got []string
					topic, _, _ := strings.Cut(block, " ")
					lane, err := eng.store.Lane(t.Context(), topic, time.Minute)
					require.NoError(t, err)
					for _, row := range lane.Rows {
						for _, r := range row.Records {
							got = append(got, fmt.Sprintf("%s %s %s", r.Topic, r.Key, r.Value))
						}
					}
					require.NoError(t, lane.Done(t.Context(), nil))
					require.Equal(t, strings.Split(block, "\n"), got)
				}
			})
		}
	}
}
