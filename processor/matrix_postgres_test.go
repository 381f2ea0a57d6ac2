package processor

import (
	"context"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/pgtest"
)

// behind is traffic whose processor reaches a server of the test's own through a proxy.
func behind(t *testing.T, server *pgtest.Server, partitions int) (*traffic, *proxy) {
	t.Helper()
	p, through := newProxy(t, server.Database("app"))
	w := newTrafficAt(t, through, partitions)
	w.cfg.Postgres.URL = config.NewSecret(through)
	return w, p
}

// replicated is traffic on a primary with a standby; link is the replication's way, and front leads the processor to
// either server.
func replicated(t *testing.T, partitions int) (primary, standby *pgtest.Server, link *proxy, w *traffic, front *proxy) {
	t.Helper()
	primary = pgtest.Breakable(t)
	link, replication := newProxy(t, primary.URL)
	w, front = behind(t, primary, partitions)
	from, err := url.Parse(replication)
	require.NoError(t, err)
	return primary, primary.Standby(from.Host, "standby"), link, w, front
}

// at asks a server itself.
func at(t *testing.T, url, sql string) int {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), url)
	require.NoError(t, err)
	defer pool.Close()
	var n int
	require.NoError(t, pool.QueryRow(context.Background(), sql).Scan(&n), sql)
	return n
}

const (
	ledgerRows = `SELECT count(*) FROM ledger`
	positions  = `SELECT coalesce(sum(next_offset), 0)::int FROM catchment.progress`
)

// believes is how far the running processor's workers believe to be.
func (r *running) believes() int {
	r.mu.Lock()
	ses := r.session
	r.mu.Unlock()
	if ses == nil {
		return 0
	}
	ses.mu.Lock()
	defer ses.mu.Unlock()
	n := 0
	for _, w := range ses.workers {
		n += int(w.position())
	}
	return n
}

// R19: Postgres ends and comes back while a COMMIT is on its way: in a crash before or after it took the COMMIT, and in
// an orderly restart. The position says what became of it.
func TestR19PostgresRestartsMidBatch(t *testing.T) {
	t.Parallel()
	server := pgtest.Breakable(t)
	w, p := behind(t, server, 2)
	r := w.start()
	w.send(20)
	w.settled()
	for i, restart := range []struct {
		commit int32
		mode   string
	}{{cutAfter, pgtest.Immediate}, {cutBefore, pgtest.Immediate}, {cutAfter, pgtest.Fast}, {cutBefore, pgtest.Fast}} {
		down := make(chan struct{})
		p.atCut = func() { server.Stop(restart.mode); close(down) }
		p.mode.Store(restart.commit)
		w.send(40)
		<-down
		server.Start()
		w.settled()
		require.Equal(t, int32(i+1), p.cuts.Load())
		require.GreaterOrEqual(t, r.metric(t, "catchment_processor_unknown_commits_total"), float64(i+1))
	}
	w.check()
	require.True(t, waitFor(func() bool { return r.Ready() == nil }))
}

// R20: the primary is lost, and the standby that takes over did not have its last commits. Position and effects went
// back together; the log is read again from there, also where nothing new arrives.
func TestR20FailoverToALaggingStandby(t *testing.T) {
	t.Parallel()
	primary, standby, link, w, front := replicated(t, 3)
	r := w.start()
	w.send(60)
	w.settled()
	kept := w.count(ledgerRows)
	require.True(t, waitFor(func() bool { return at(t, standby.Of("app"), ledgerRows) == kept }))

	link.setDown(true)
	w.send(60)
	w.settled()
	acknowledged, reached := w.count(ledgerRows), w.count(positions)
	require.True(t, waitFor(func() bool { return r.believes() == reached }))
	primary.Stop(pgtest.Immediate)
	standby.Promote()
	require.Less(t, at(t, standby.Of("app"), positions), reached, "the position went back")
	require.Equal(t, kept, at(t, standby.Of("app"), ledgerRows), "and so did the effects")

	front.lead(t, standby.URL)
	w.settled()
	require.Equal(t, acknowledged, at(t, standby.Of("app"), ledgerRows), "the rows reappeared")
	w.check()
	require.Positive(t, r.metric(t, "catchment_processor_fenced_total"))
	w.send(20)
	w.settled()
	w.check()
}

// R21: a COMMIT waits for its synchronous standby, the primary crashes, and what waited is visible when it is back: the
// processor finds its batch done and goes on. The standby that is promoted then never had it.
func TestR21CommitThatTheStandbyNeverHad(t *testing.T) {
	t.Parallel()
	primary, standby, link, w, front := replicated(t, 1)
	primary.Exec("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
	require.Equal(t, 1, at(t, primary.URL, `SELECT pg_reload_conf()::int`))
	require.True(t, waitFor(func() bool {
		return at(t, primary.URL, `SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'`) == 1
	}))
	r := w.start()
	w.send(20)
	w.settled()
	kept := w.count(ledgerRows)

	link.setDown(true)
	w.send(20)
	require.True(t, waitFor(func() bool {
		return at(t, primary.URL, `SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND application_name = 'catchment-processor'`) > 0
	}))
	before := r.believes()
	primary.Stop(pgtest.Immediate)
	primary.Start()
	require.Greater(t, at(t, primary.Of("app"), ledgerRows), kept, "what waited is visible")
	require.True(t, waitFor(func() bool { return r.believes() > before }), "the processor takes it for done")
	require.Positive(t, r.metric(t, "catchment_processor_unknown_commits_total"))
	primary.Stop(pgtest.Immediate)
	standby.Promote()
	require.Equal(t, kept, at(t, standby.Of("app"), ledgerRows), "and the standby never had it")

	front.lead(t, standby.URL)
	w.settled()
	w.check()
	require.Positive(t, r.metric(t, "catchment_processor_fenced_total"))
}

// R22: sessions that may only read, as on a server that became a standby, are given up for new ones.
func TestR22ReadOnly(t *testing.T) {
	t.Parallel()
	server := pgtest.Breakable(t)
	w, p := behind(t, server, 2)
	r := w.start()
	w.send(20)
	w.settled()
	server.Exec("ALTER DATABASE app SET default_transaction_read_only = on")
	p.cutAll()
	w.send(20)
	require.True(t, waitFor(func() bool { err := r.Ready(); return err != nil && strings.Contains(err.Error(), "25006") }))
	server.Exec("ALTER DATABASE app SET default_transaction_read_only = off") // counts for new sessions only
	start := time.Now()
	w.settled()
	require.Less(t, time.Since(start), patience/2)
	w.check()
}
