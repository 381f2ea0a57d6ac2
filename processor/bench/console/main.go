// Command console measures the console's pages on a database of a million events and more. The URL of a Postgres server
// comes in; a table in Markdown goes to standard output: how long the list takes with each filter and with filters together, the
// other pages, their charts, and one event, each beside SELECT 1 of the same moment. It never touches a database that it did not make.
package main

import (
	"context"
	_ "embed"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/catchment-dev/catchment/pkg/benchkit"
	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor"
	"github.com/catchment-dev/catchment/processor/console"
	"github.com/catchment-dev/catchment/processor/inspect"
)

//go:embed fill.sql
var fillSQL string

//go:embed scans.sql
var scansSQL string

const portion = 50_000 // events of one statement that fills

type options struct {
	database       string
	events, rounds int
	list, event    time.Duration // bounds of the 99th percentile
}

func main() { os.Exit(benchkit.Main("console", command)) }

func command(ctx context.Context, args []string, out io.Writer) error {
	var o options
	fs := flag.NewFlagSet("console", flag.ContinueOnError)
	fs.StringVar(&o.database, "database", "", "URL of a Postgres whose user may create databases")
	fs.IntVar(&o.events, "events", 1_000_000, "events in the database")
	fs.IntVar(&o.rounds, "rounds", 200, "requests of each page")
	fs.DurationVar(&o.list, "list", 100*time.Millisecond, "what the list may take, at the 99th percentile; 0: any time")
	fs.DurationVar(&o.event, "event", 50*time.Millisecond, "what one event may take, at the 99th percentile; 0: any time")
	if err := fs.Parse(args); err != nil {
		return err
	}
	admin, err := pgx.Connect(ctx, o.database)
	if err != nil {
		return fmt.Errorf("connect to Postgres: %w", err)
	}
	defer func() { _ = admin.Close(ctx) }()
	name := fmt.Sprintf("bench_console_%d", os.Getpid())
	if _, err := admin.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		return fmt.Errorf("make a database: %w", err)
	}
	defer func() {
		_, _ = admin.Exec(context.WithoutCancel(ctx), "DROP DATABASE "+name+" WITH (FORCE)")
	}()
	u, err := url.Parse(o.database)
	if err != nil {
		return fmt.Errorf("--database: %w", err)
	}
	u.Path = "/" + name
	return measure(ctx, o, u.String(), out)
}

func measure(ctx context.Context, o options, database string, out io.Writer) error {
	if err := processor.Migrate(ctx, database); err != nil {
		return err
	}
	db, err := pgx.Connect(ctx, database)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close(context.WithoutCancel(ctx)) }()
	began := time.Now()
	for from := 0; from < o.events; from += portion {
		if _, err := db.Exec(ctx, fillSQL, from, min(from+portion, o.events), o.events); err != nil {
			return fmt.Errorf("store events: %w", err)
		}
	}
	if _, err := db.Exec(ctx, "VACUUM (ANALYZE)"); err != nil {
		return fmt.Errorf("vacuum: %w", err)
	}
	fmt.Fprintf(os.Stderr, "%d events stored in %s\n", o.events, time.Since(began).Round(time.Second))
	before, err := scans(ctx, db)
	if err != nil {
		return err
	}
	c, stop, err := serve(ctx, database)
	if err != nil {
		return err
	}
	defer stop()
	pool, err := inspect.Pool(ctx, settings.Postgres{URL: config.NewSecret(database)}, "bench")
	if err != nil {
		return err
	}
	defer pool.Close()
	slow, err := report(ctx, o, db, pool, c, out)
	if err != nil {
		return err
	}
	if err := db.Close(ctx); err != nil { // what it counted is told then
		return err
	}
	if db, err = pgx.Connect(ctx, database); err != nil {
		return err
	}
	after, err := scans(ctx, db)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\n%d events; tables that were read from end to end meanwhile: %d.\n", o.events, after-before)
	if slow != "" || after != before {
		return fmt.Errorf("too slow: %s; tables read from end to end: %d", slow, after-before)
	}
	return nil
}

// scans counts how often one of Catchment's tables was read from end to end that has many rows.
func scans(ctx context.Context, db *pgx.Conn) (n int64, err error) {
	return n, db.QueryRow(ctx, scansSQL).Scan(&n)
}

// serve serves the console for the one who measures.
func serve(ctx context.Context, database string) (base string, stop func(), err error) {
	cfg := &settings.File{Postgres: settings.Postgres{URL: config.NewSecret(database)}}
	c, err := console.New(ctx, cfg, slog.New(slog.DiscardHandler), "bench", console.Outside{})
	if err != nil {
		return "", nil, err
	}
	running, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() { defer close(ended); _ = c.Run(running) }()
	s := httptest.NewServer(c)
	return s.URL, func() { s.Close(); cancel(); <-ended }, nil
}

// page is one page, or several that are asked for in turn.
type page struct {
	name  string
	paths []string
	bound time.Duration
}

// pages are the list with each filter and with filters together, also those that nothing fits, the other pages, and one event.
func pages(o options) []page {
	var out []page
	list := func(name string, queries ...string) {
		p := page{name: name, bound: o.list}
		for _, q := range queries {
			p.paths = append(p.paths, "/console/events?"+q)
		}
		out = append(out, p)
	}
	id := func(i int) string { return fmt.Sprintf("evt_%09d", i) }
	list("all", "")
	list("a page further back", fmt.Sprintf("before=%d", o.events/2), fmt.Sprintf("before=%d", o.events/9))
	list("the last page", "before=51", "source=bank&before=60", "type=transfer&before=60", "source=shop&status=processed&before=60", "entity=order-hot&before=900", "entity=order-most&before=100")
	list("source", "source=shop", "source=bank", "source=crm")
	list("source that is rare", "source=tiny")
	list("source that there is not", "source=nobody")
	list("status", "status=processed", "status=failed", "status=dead", "status=deferred", "status=unmatched")
	list("type", "type=order.paid", "type=transfer", "type=invoice.*")
	list("type that is rare", "type=refund.failed", "type=payout.*")
	list("type that there is not", "type=nothing.*")
	list("several types", "type=refund.*,payout.failed,nothing")
	list("event ID", "id="+id(7), "id="+id(o.events/2+6), "id="+id(o.events-4))
	list("event ID that there is not", "id=evt_nothing")
	list("entity", "entity=order-17", "entity=order-12345", "entity=order-19998")
	list("entity of 10,000 events", "entity=order-hot")
	list("entity of 10,000 events, further back", fmt.Sprintf("entity=order-hot&before=%d", o.events/2), fmt.Sprintf("entity=order-hot&before=%d", o.events/50))
	list("entity of 10,000 events and type", "entity=order-hot&type=order.paid&source=shop", "entity=order-hot&type=refund.*", "entity=order-hot&status=dead")
	list("entity of 10,000 events and time", "entity=order-hot&until=20h", "entity=order-hot&since=29h&until=28h", "entity=order-hot&type=order.*&status=processed&until=20h")
	list("entity of a quarter of all", "entity=order-most", fmt.Sprintf("entity=order-most&before=%d", o.events/2), "entity=order-most&until=25h&source=bank")
	list("received since", "since=1h", "since=24h", "since=7d")
	list("received in the last second", "since=1s")
	list("received until", "until=1h", "until=10h", "until=29h")
	list("received within", "since=12h&until=11h", "since=29h&until=28h")
	list("source and type", "source=shop&type=order.*", "source=bank&type=payout.failed")
	list("source and type that exclude each other", "source=shop&type=transfer", "source=crm&type=order.*")
	list("source, type, status, time", "source=shop&type=order.*&status=failed&since=24h", "source=shop&type=invoice.*&status=processed&since=20h&until=2h")
	list("status and time", "status=dead&since=10h", "status=unmatched&until=20h", "status=processed&since=2h")
	list("type and time", "type=refund.failed&since=10h", "type=order.paid&until=20h")
	list("rare source and time", "source=tiny&since=10h", "source=tiny&until=20h")
	list("entity, source, type, status", "entity=order-17&source=shop&type=order.*&status=processed", "entity=order-17&source=bank")
	list("all filters", "source=shop&type=order.*&status=processed&id="+id(o.events/2)+"&entity=order-17&since=40h&until=1s")
	for _, name := range []string{"overview", "overview?span=24h", "sources", "operations", "dead-letters", "dead-letters?type=order.*", "dead-letters?type=refund.*", "jobs", "audit", "actions"} {
		out = append(out, page{name: name, paths: []string{"/console/" + name}, bound: o.list})
	}
	event := page{name: "one event", bound: o.event}
	sources := []string{"shop", "shop", "shop", "shop", "shop", "shop", "bank", "bank", "bank", "crm"}
	for i := 1; i < o.events; i += max(o.events/50, 1) {
		event.paths = append(event.paths, "/console/event?"+url.Values{"source": {sources[i%10]}, "id": {id(i)}}.Encode())
	}
	return append(out, event)
}

func report(ctx context.Context, o options, db *pgx.Conn, pool *pgxpool.Pool, base string, out io.Writer) (string, error) {
	fmt.Fprint(out, "| page | p50 ms | p99 ms | `SELECT 1` p50 | p99 |\n| --- | ---: | ---: | ---: | ---: |\n")
	var slow []string
	row := func(name string, rounds int, bound time.Duration, ask func(i int) error) error {
		var took, ones []time.Duration
		for i := range rounds + 5 {
			one, err := timed(func() error { _, err := db.Exec(ctx, "SELECT 1"); return err })
			if err != nil {
				return err
			}
			d, err := timed(func() error { return ask(i) })
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if i >= 5 { // the first ones find nothing in memory
				took, ones = append(took, d), append(ones, one)
			}
		}
		fmt.Fprintf(out, "| %s | %s | %s | %s | %s |\n", name, ms(took, 50), ms(took, 99), ms(ones, 50), ms(ones, 99))
		if bound > 0 && percentile(took, 99) > bound {
			slow = append(slow, name)
		}
		return nil
	}
	for _, p := range pages(o) {
		if err := row(p.name, o.rounds, p.bound, func(i int) error { return get(ctx, base+p.paths[i%len(p.paths)]) }); err != nil {
			return "", err
		}
	}
	for _, last := range []time.Duration{time.Hour, 24 * time.Hour} { // a page keeps them for ten seconds: here they are counted each time
		err := row(fmt.Sprintf("the overview's charts of %s, counted anew", last), o.rounds/10, 0, func(int) error {
			_, err := inspect.Volume(ctx, pool, time.Now().Add(-last), time.Now(), 60)
			return err
		})
		if err != nil {
			return "", err
		}
	}
	return strings.Join(slow, ", "), nil
}

func timed(f func() error) (time.Duration, error) {
	from := time.Now()
	err := f()
	return time.Since(from), err
}

func get(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %d", url, resp.StatusCode)
	}
	return nil
}

func percentile(d []time.Duration, percent int) time.Duration {
	slices.Sort(d)
	return d[min(len(d)*percent/100, len(d)-1)]
}

func ms(d []time.Duration, percent int) string {
	return fmt.Sprintf("%.1f", float64(percentile(d, percent).Microseconds())/1e3)
}
