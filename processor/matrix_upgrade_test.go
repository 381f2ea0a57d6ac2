package processor

import (
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/proctest"
	"github.com/catchment-dev/catchment/pkg/settings"
)

// R36: the processors are replaced by those of the next release, one after the other, and then taken back, under load.
// The next release has added to the schema and to the records' headers, and brings an operation; both releases work in
// one group on one schema all the while.
func TestR36RollingUpgrade(t *testing.T) {
	t.Parallel()
	program, next := build(t), build(t, "-ldflags", "-X github.com/catchment-dev/catchment/pkg/run.Version=next")
	w := newTraffic(t, 4)
	a, b := w.process(program), w.process(program)
	w.exec(`CREATE TABLE notes (event_id text)`)
	w.cfg.Operations = append(w.cfg.Operations, settings.Operation{
		Name: "note", On: settings.On{Source: "shop"}, SQL: config.Strings{`INSERT INTO notes VALUES (@id)`},
	})
	c, d := w.process(next), w.process(next)
	// under load: what is under way when one leaves is finished by the other
	replace := func(old, new *proctest.Process) {
		t.Helper()
		w.send(60)
		new.Start()
		w.send(60)
		old.Stop()
		w.send(60)
		w.settled()
	}
	a.Start()
	b.Start()
	w.send(60)
	w.settled()
	for _, sql := range []string{
		`ALTER TABLE catchment.results ADD COLUMN of_tomorrow text`, `ALTER TABLE catchment.bodies ADD COLUMN of_tomorrow jsonb DEFAULT '{}'`,
		`ALTER TABLE catchment.progress ADD COLUMN of_tomorrow bigint NOT NULL DEFAULT 0`, `CREATE TABLE catchment.of_tomorrow (id int)`,
		`INSERT INTO catchment.schema_version (version_id, is_applied) VALUES (99999, true)`,
	} {
		w.exec(sql)
	}
	w.more = []kgo.RecordHeader{{Key: "catchment_of_tomorrow", Value: []byte("1")}, {Key: "ce_oftomorrow", Value: []byte{0xff}}}
	replace(b, c)
	replace(a, d)
	require.Positive(t, w.count(`SELECT count(*) FROM notes`))
	replace(c, a) // and back
	replace(d, b)
	a.Stop()
	b.Stop()
	w.check()
	require.Equal(t, w.count(`SELECT count(DISTINCT event_id) FROM notes`), w.count(`SELECT count(*) FROM notes`))
}
