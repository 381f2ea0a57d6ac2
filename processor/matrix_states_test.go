package processor

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/pgtest"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor/internal/store"
)

// says waits until a worker or the service tells of a fault with that text.
func (r *running) says(t *testing.T, text string) {
	t.Helper()
	var err error
	ok := waitFor(func() bool { err = r.Ready(); return err != nil && strings.Contains(err.Error(), text) })
	require.True(t, ok, "expected %q, found %v", text, err)
}

// R22: the disk is full. Nothing is lost, nothing is an event's fault, and work goes on when there is room.
func TestR22DiskFull(t *testing.T) {
	t.Parallel()
	server := pgtest.Breakable(t)
	w, _ := behind(t, server, 2)
	file := filepath.Join(w.text(`SHOW data_directory`), w.text(`SELECT pg_relation_filepath('ledger')`))
	require.NoError(t, os.Remove(file))
	require.NoError(t, os.Symlink("/dev/full", file)) // every write to the ledger finds no room
	r := w.start()
	w.send(30)
	r.says(t, "53100")
	require.Equal(t, 0, w.count(`SELECT count(*) FROM catchment.results`))
	server.Stop(pgtest.Fast)
	require.NoError(t, os.Remove(file))
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	require.NoError(t, giveLike(file, filepath.Dir(file)))
	server.Start()
	w.settled()
	w.check()
}

// giveLike gives a file to the owner of another one.
func giveLike(file, like string) error {
	return exec.Command("chown", "--reference="+like, file).Run()
}

// R22: Postgres takes no more connections.
func TestR22TooManyConnections(t *testing.T) {
	t.Parallel()
	server := pgtest.Breakable(t, "max_connections=25")
	w, p := behind(t, server, 2)
	w.cfg.Postgres.MaxConns = 4
	r := w.start()
	w.send(20)
	w.settled()
	w.pool.Close()
	p.setDown(true)
	var taken []*pgx.Conn
	full := waitFor(func() bool { // also those that the processor gives up
		c, err := pgx.Connect(t.Context(), server.URL)
		if err == nil {
			taken = append(taken, c)
		}
		return err != nil && strings.Contains(err.Error(), "53300")
	})
	require.True(t, full)
	p.setDown(false)
	w.send(20)
	r.says(t, "53300")
	for _, c := range taken {
		require.NoError(t, c.Close(t.Context()))
	}
	w.connect()
	w.settled()
	w.check()
}

// R23: timeouts of Postgres. Those of an operation's own statements, also of what it leaves for COMMIT, are that
// operation's failed attempt; those of locks and sessions cost time and nothing else.
func TestR23Timeouts(t *testing.T) {
	t.Parallel()
	const slow = `CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.event_id = 'slow' THEN PERFORM pg_sleep(3600); END IF; RETURN NULL; END $$`
	good := func(w *world, n int) {
		w.t.Helper()
		require.Equal(w.t, n, w.count(ledgerRows))
		require.Equal(w.t, 0, w.count(`SELECT count(*) FROM catchment.dead_letters`))
	}
	records := func() []*event.Delivery {
		return []*event.Delivery{delivery("shop", "a", "x", `{}`), delivery("shop", "slow", "x", `{}`), delivery("shop", "b", "x", `{}`)}
	}
	for name, trigger := range map[string]string{
		"statement": `CREATE TRIGGER slow AFTER INSERT ON ledger FOR EACH ROW EXECUTE FUNCTION slow()`,
		"commit":    `CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON ledger DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow()`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newDatabase(t, append(append([]string{}, ledgerSchema...), slow, trigger)...)
			op := ledger("shop")
			op.Timeout = 500 * time.Millisecond
			w.cfg.Operations = []settings.Operation{op}
			wk := w.take(w.engine(), partition(0))
			require.NoError(t, wk.write(t.Context(), log(wk.part, records()...)))
			good(w, 2)
			require.Equal(t, "slow:failed", w.text(`SELECT event_id || ':' || outcome FROM catchment.results WHERE outcome <> 'succeeded' AND error LIKE '%57014%'`))
			require.Equal(t, 1, w.count(`SELECT count(*) FROM catchment.retries WHERE event_id = 'slow'`))
		})
	}
	t.Run("lock", func(t *testing.T) {
		t.Parallel()
		w := newDatabase(t, ledgerSchema...)
		w.cfg.Operations = []settings.Operation{ledger("shop")}
		w.exec(fmt.Sprintf(`ALTER DATABASE %s SET lock_timeout = '50ms'`, w.text(`SELECT current_database()`)))
		wk := w.take(w.engine(), partition(0))
		tx, err := w.pool.Begin(t.Context())
		require.NoError(t, err)
		_, err = tx.Exec(t.Context(), `LOCK TABLE counters IN ACCESS EXCLUSIVE MODE`)
		require.NoError(t, err)
		done := make(chan error, 1)
		go func() { done <- wk.write(t.Context(), log(wk.part, records()...)) }()
		require.True(t, waitFor(func() bool {
			_, _, fault := wk.state()
			return fault != nil && strings.Contains(fault.Error(), "55P03")
		}))
		require.NoError(t, tx.Rollback(t.Context()))
		require.NoError(t, <-done)
		good(w, 3)
	})
	t.Run("idle", func(t *testing.T) { // the process is frozen before its COMMIT until Postgres has ended the session
		t.Parallel()
		w := newDatabase(t, ledgerSchema...)
		w.cfg.Operations = []settings.Operation{ledger("shop")}
		w.cfg.Processor.TxTimeout = time.Second
		p, url := newProxy(t, w.url)
		wk := w.take(w.engineAt(url), partition(0))
		p.atCut = func() {
			waitFor(func() bool {
				return w.count(`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'`) == 0
			})
		}
		p.mode.Store(hold)
		require.NoError(t, wk.write(t.Context(), log(wk.part, records()...)))
		require.Equal(t, int32(1), p.cuts.Load())
		good(w, 3)
		require.Equal(t, 0, w.count(`SELECT count(*) FROM catchment.duplicates`))
	})
}

// R24: operations that lock rows in the order of their events, and not of ours, do deadlock. The batch that Postgres
// chose is written again as a whole.
func TestR24Deadlocks(t *testing.T) {
	t.Parallel()
	w := newDatabase(t, `CREATE TABLE accounts (id text PRIMARY KEY, n int)`, `INSERT INTO accounts VALUES ('a', 0), ('b', 0)`)
	w.cfg.Operations = []settings.Operation{{
		Name: "transfer", On: settings.On{Source: "shop"},
		SQL: config.Strings{
			`UPDATE accounts SET n = n + 1 WHERE id = @from`, `SELECT pg_sleep(0.05)`, `UPDATE accounts SET n = n + 1 WHERE id = @to`,
		},
		Params: map[string]string{"from": "body.from", "to": "body.to"},
	}}
	eng := w.engine()
	body := []string{`{"from":"a","to":"b"}`, `{"from":"b","to":"a"}`}
	seen := func() bool {
		return w.count(`SELECT deadlocks::int FROM pg_stat_database WHERE datname = current_database()`) > 0
	}
	rounds := 0
	for ; rounds < 20 && !seen(); rounds++ {
		var wg sync.WaitGroup
		for p := range int32(2) {
			wk := w.take(eng, partition(int32(2*rounds)+p))
			wg.Go(func() {
				require.NoError(t, wk.write(t.Context(), log(wk.part, delivery("shop", fmt.Sprint(rounds, "-", p), "x", body[p]))))
			})
		}
		wg.Wait()
	}
	require.True(t, waitFor(seen), "no deadlock in %d rounds", rounds)
	require.Equal(t, fmt.Sprintf("a:%d,b:%d", 2*rounds, 2*rounds), w.text(`SELECT string_agg(id || ':' || n, ',' ORDER BY id) FROM accounts`))
	require.Equal(t, 2*rounds, w.count(`SELECT count(*) FROM catchment.results WHERE outcome = 'succeeded' AND attempt = 1`))
	require.Equal(t, 0, w.count(`SELECT count(*) FROM catchment.dead_letters`)+w.count(`SELECT count(*) FROM catchment.retries`))
}

// R25: transactions that Postgres cannot serialize are written again.
func TestR25SerializationFailures(t *testing.T) {
	t.Parallel()
	w := newDatabase(t, ledgerSchema...)
	w.cfg.Operations = []settings.Operation{ledger("shop")}
	w.exec(fmt.Sprintf(`ALTER DATABASE %s SET default_transaction_isolation = 'serializable'`, w.text(`SELECT current_database()`)))
	eng := w.engine()
	const workers, events = 3, 60
	var mu sync.Mutex
	failures := 0
	var wg sync.WaitGroup
	for p := range int32(workers) {
		wk := w.take(eng, partition(p))
		var ds []*event.Delivery
		for _, id := range ids(fmt.Sprint("p", p, "-"), events) {
			ds = append(ds, delivery("shop", id, "x", `{}`))
		}
		records := log(wk.part, ds...)
		wk.log = told(func(text string) {
			mu.Lock()
			defer mu.Unlock()
			failures += strings.Count(text, "40001")
		})
		wg.Go(func() {
			for i := 0; i < events; i += 10 {
				require.NoError(t, wk.write(t.Context(), records[i:i+10]))
			}
		})
	}
	wg.Wait()
	require.Positive(t, failures, "nothing collided")
	require.Equal(t, workers*events, w.count(ledgerRows))
	require.Equal(t, workers*events, w.count(`SELECT n FROM counters`))
	require.Equal(t, workers*events, w.count(`SELECT count(*) FROM catchment.results WHERE outcome = 'succeeded' AND attempt = 1`))
}

// R25: a migration changes what a prepared statement returns.
func TestR25CachedPlan(t *testing.T) {
	w := newDatabase(t, `CREATE TABLE notes (id text)`)
	w.cfg.Operations = []settings.Operation{{
		Name: "notes", On: settings.On{Source: "shop"}, SQL: config.Strings{`INSERT INTO notes (id) VALUES (@id) RETURNING *`},
	}}
	var mu sync.Mutex
	text := ""
	wk := w.take(w.engine(), partition(0))
	wk.log = told(func(line string) { mu.Lock(); text += line; mu.Unlock() })
	records := log(wk.part, delivery("shop", "a", "x", `{}`), delivery("shop", "b", "x", `{}`), delivery("shop", "c", "x", `{}`))
	require.NoError(t, wk.write(t.Context(), records[:1]))
	require.NoError(t, wk.write(t.Context(), records[1:2]))
	w.exec(`ALTER TABLE notes ADD COLUMN extra int DEFAULT 7`)
	require.NoError(t, wk.write(t.Context(), records[2:]))
	require.Contains(t, text, "cached plan", "the plan was not refused")
	require.Equal(t, 3, w.count(`SELECT count(*) FROM notes`))
	require.Equal(t, `[{"id": "c", "extra": 7}]`, w.text(`SELECT returned FROM catchment.results WHERE event_id = 'c'`))
	require.Equal(t, 3, w.count(`SELECT count(*) FROM catchment.results WHERE outcome = 'succeeded' AND attempt = 1`))
}

// R26: all connections are in use. Waiting for one has an end, which is told, and work goes on when one is free.
func TestR26PoolExhausted(t *testing.T) {
	t.Parallel()
	w := newDatabase(t, ledgerSchema...)
	w.cfg.Operations = []settings.Operation{ledger("shop")}
	w.cfg.Postgres.MaxConns = 2
	w.cfg.Processor.TxTimeout = time.Second
	eng := w.engine()
	var workers []*worker
	for p := range int32(6) { // more than there are connections
		workers = append(workers, w.take(eng, partition(p)))
	}
	var held []*store.Tx
	for range 2 {
		tx, err := eng.store.Begin(t.Context(), time.Minute, time.Minute)
		require.NoError(t, err)
		held = append(held, tx)
	}
	var wg sync.WaitGroup
	for p, wk := range workers {
		var ds []*event.Delivery
		for _, id := range ids(fmt.Sprint("p", p, "-"), 50) {
			ds = append(ds, delivery("shop", id, "x", `{}`))
		}
		wg.Go(func() { require.NoError(t, wk.write(t.Context(), log(wk.part, ds...))) })
	}
	for _, wk := range workers {
		require.True(t, waitFor(func() bool { _, _, fault := wk.state(); return fault != nil }), "the wait has no end")
	}
	for _, tx := range held {
		tx.Rollback(t.Context())
	}
	wg.Wait()
	require.Equal(t, 300, w.count(ledgerRows))
	require.Equal(t, 300, w.count(`SELECT n FROM counters`))
}

// R26: behind PgBouncer in transaction mode each transaction may be on another session.
func TestR26PgBouncer(t *testing.T) {
	t.Parallel()
	const sessions = 4
	w := newTraffic(t, 12) // partitions: more than there are sessions
	w.cfg.Kafka.ResultsTopic = w.kc.Topic(t, 2)
	through := pgtest.Bouncer(t, w.url, sessions)
	if through == "" {
		t.Skip("no pgbouncer: install it")
	}
	w.cfg.Postgres = settings.Postgres{URL: config.NewSecret(through), MigrateURL: config.NewSecret(w.url), MaxConns: 12, Prepared: "off"}
	first, second := w.start(), w.start()
	w.send(100)
	w.settled()
	first.stop()
	w.send(100)
	w.settled()
	// The first processor's end may have cost a session or two, which the pooler replaces at once; the server takes its time to end them.
	var used int
	require.True(t, waitFor(func() bool {
		used = w.count(`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend' AND application_name <> $1`, directName)
		return used > 0 && used <= sessions
	}), "%d sessions: expected the pooler's %d at most", used, sessions)
	w.check()
	w.eventually(0, `SELECT count(*) FROM catchment.outbox`)
	w.checkPublished()
	require.True(t, waitFor(func() bool { return second.Ready() == nil }), "%v", second.Ready())
}
