package processor

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/settings"
)

// underARole has the processor run under a role that may not change the schema, and returns the role.
func (w *world) underARole() string {
	w.t.Helper()
	role := strconv.Quote(w.aRole())
	w.exec(`GRANT USAGE ON SCHEMA catchment, public TO ` + role)
	w.exec(`GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA catchment, public TO ` + role)
	w.exec(`GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA catchment TO ` + role)
	return role
}

const dropAllDays = `SELECT catchment.drop_partition(now() + interval '30 days') FROM generate_series(1, 20)`

// A day without a partition is made in place, and is nobody's fault: no event becomes a dead letter. While it cannot be
// made, events wait, and readiness says why.
func TestMissingPartitionIsNoPoison(t *testing.T) {
	w := newWorld(t, 1, ledgerSchema...)
	role := w.underARole()
	w.cfg.Operations = []settings.Operation{ledger("shop")}
	s := w.start()
	w.produce(delivery("shop", "first", "t", `{}`))
	w.eventually(1, `SELECT count(*) FROM catchment.events`)
	w.exec(dropAllDays)
	require.Zero(t, w.count(`SELECT count(*) FROM pg_inherits WHERE inhparent = 'catchment.bodies'::regclass`))
	w.produce(delivery("shop", "second", "t", `{}`))
	w.eventually(1, `SELECT count(*) FROM catchment.events`)
	w.eventually(2, `SELECT count(*) FROM ledger`)
	require.NoError(t, s.Ready())

	w.exec(dropAllDays)
	w.exec(`REVOKE EXECUTE ON FUNCTION catchment.make_partitions FROM ` + role)
	w.produce(delivery("shop", "third", "t", `{}`))
	require.True(t, waitFor(func() bool {
		err := s.Ready()
		return err != nil && strings.Contains(err.Error(), "partition")
	}), "%v", s.Ready())
	w.exec(`GRANT EXECUTE ON FUNCTION catchment.make_partitions TO ` + role)
	w.eventually(3, `SELECT count(*) FROM ledger`)
	require.True(t, waitFor(func() bool { return s.Ready() == nil }), "%v", s.Ready())
	require.Zero(t, w.count(`SELECT count(*) FROM catchment.dead_letters`))
	require.Zero(t, w.count(`SELECT count(*) FROM catchment.bodies b JOIN catchment.identities i USING (source, event_id) WHERE b.stored_at <> i.first_seen_at`))
}

// Tomorrow's missing partition is told today, by readiness and by a metric.
func TestMissingTomorrowIsTold(t *testing.T) {
	w := newWorld(t, 1)
	role := w.underARole()
	w.exec(`DROP TABLE ` + w.text(`SELECT 'catchment.bodies_' || to_char((now() AT TIME ZONE 'UTC')::date + 1, 'YYYYMMDD')`))
	w.exec(`REVOKE EXECUTE ON FUNCTION catchment.make_partitions FROM ` + role)
	s := w.starting()
	s.upkeep.partitions = 20 * time.Millisecond
	r := w.run(s)
	require.True(t, waitFor(func() bool {
		err := r.Ready()
		return err != nil && strings.Contains(err.Error(), "tomorrow") && strings.Contains(err.Error(), "catchment migrate")
	}), "%v", r.Ready())
	require.Zero(t, r.metric(t, "catchment_processor_partitions_ahead"))
	require.NoError(t, Migrate(t.Context(), w.url))
	w.exec(`GRANT EXECUTE ON FUNCTION catchment.make_partitions TO ` + role)
	require.True(t, waitFor(func() bool { return r.Ready() == nil }), "%v", r.Ready())
	require.Equal(t, 7.0, r.metric(t, "catchment_processor_partitions_ahead"))
}

// Retention drops old days while the processor works. An event that comes again after its body is gone is still a
// duplicate, until identity_retention takes its identity as well.
func TestRetention(t *testing.T) {
	w := newWorld(t, 1, ledgerSchema...)
	w.underARole()
	w.cfg.Operations = []settings.Operation{ledger("shop")}
	p := &w.cfg.Processor
	p.Retention, p.ResultsRetention, p.IdentityRetention = 30*24*time.Hour, 60*24*time.Hour, 90*24*time.Hour
	s := w.starting()
	s.upkeep = upkeep{partitions: time.Hour, drop: 20 * time.Millisecond, sweep: 20 * time.Millisecond}
	first := w.run(s)
	w.produce(delivery("shop", "a", "t", `{}`), delivery("shop", "b", "t", `{}`), delivery("shop", "c", "t", `{}`))
	w.eventually(3, `SELECT count(*) FROM ledger`)
	age := func(id string, days int) {
		w.exec(`DO $$ DECLARE d date := (now() AT TIME ZONE 'UTC')::date - ` + w.text(`SELECT $1::int::text`, days) + `; BEGIN
			EXECUTE format('CREATE TABLE catchment.%I PARTITION OF catchment.bodies FOR VALUES FROM (%L) TO (%L)',
				'bodies_' || to_char(d, 'YYYYMMDD'), d::text || ' 00:00+00', (d + 1)::text || ' 00:00+00');
			UPDATE catchment.bodies SET stored_at = d WHERE event_id = '` + id + `';
			UPDATE catchment.identities SET first_seen_at = d WHERE event_id = '` + id + `';
			UPDATE catchment.results SET started_at = d WHERE event_id = '` + id + `';
		END $$`)
	}
	age("a", 40)
	w.eventually(2, `SELECT count(*) FROM catchment.events`)
	require.Equal(t, 3, w.count(`SELECT count(*) FROM catchment.results`))
	w.produce(delivery("shop", "a", "t", `{}`))
	w.eventually(1, `SELECT count(*) FROM catchment.duplicates`)
	age("b", 70)
	w.eventually(2, `SELECT count(*) FROM catchment.results`)
	age("c", 100)
	w.eventually(2, `SELECT count(*) FROM catchment.identities`)
	require.Equal(t, 3, w.count(`SELECT count(*) FROM ledger`))
	w.produce(delivery("shop", "c", "t", `{}`), delivery("shop", "b", "t", `{}`))
	w.eventually(4, `SELECT count(*) FROM ledger`) // the shortened promise, as said
	w.eventually(1, `SELECT count(*) FROM catchment.events`)
	require.Equal(t, 3.0, first.metric(t, "catchment_processor_dropped_partitions_total"))
}
