// Package console shows in a browser what the processor stored, and asks it to do things. Requests of people come in, and
// pages go out: what package inspect reads, what package control is asked for, and what the program that serves it knows
// besides. It must never answer whom it does not know, never let a payload become more than text, and never show one, or
// do anything, that is not recorded.
package console

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor/inspect"
)

// Outside is what the console shows, or has done, that lies neither in Postgres nor in this package. What is nil is left
// out, and the pages say so.
type Outside struct {
	// Locate finds a delivery in the archive. The error wraps ErrNotArchived when it is not there, or not yet.
	Locate func(context.Context, event.Position) (Place, error)
	// DryRun tries an operation for the first of the selected events, up to limit of them, and takes it back.
	DryRun func(ctx context.Context, operation string, sel inspect.Selection, force bool, limit int) ([]*inspect.Trial, error)
	// Checks says how services, Kafka and Postgres stand.
	Checks func(context.Context) []Check
	// Requests says by source what became of requests since the ingress started.
	Requests func(context.Context) (map[string]Requests, error)
	// OpenCircuits says which operations' circuits are open.
	OpenCircuits func(context.Context) map[string]bool
	// Audit holds archive, Kafka and Postgres against each other. A time that is zero is no limit.
	Audit func(ctx context.Context, since, until time.Time) (*Audit, error)
}

// Check is one thing that was looked at. State is ok, attention or at risk.
type Check struct{ Name, State, Text string }

// Requests are those of one source, by how they ended, and the last ones; nil: there was none.
type Requests struct {
	Outcomes                  map[string]int
	LastAccepted, LastRefused *Request
}

// Request is how one request ended, and why.
type Request struct {
	At              time.Time
	Outcome, Reason string
	SecretID        string
}

// Audit is what an audit has found.
type Audit struct {
	At     time.Time
	Faults int64
	Text   string // the whole report
}

// Place is where a delivery lies in the archive.
type Place struct {
	Segment string    `json:"segment"`
	Row     int64     `json:"row"`
	InKafka time.Time `json:"in_kafka"` // by the broker's clock
}

// Console is the handler of all pages, and a service that ends with its process.
type Console struct {
	cfg     *settings.File
	db      *pgxpool.Pool
	log     *slog.Logger
	gate    *gate
	pages   pages
	outside Outside
	tails   chan struct{} // one element for each live tail
	now     func() time.Time
	volumes volumes
	auditor auditor
	life    context.Context // ends when the console does: of what goes on behind a page
	end     context.CancelFunc
}

// Limits of what the console does at once.
const (
	pageTimeout = 15 * time.Second
	longTimeout = time.Minute // of pages that count or try
	mostTails   = 20
	pageRows    = 50
)

// New makes the console of a configuration, or returns nil when it is off: when nobody could be known. local is the name of
// whoever comes from this machine to a loopback address without more ado; empty: nobody. The error is config.Errors.
func New(ctx context.Context, cfg *settings.File, log *slog.Logger, local string, outside Outside) (*Console, error) {
	if local == "" && !cfg.Console.Enabled() {
		return nil, nil
	}
	g, err := newGate(cfg, local)
	if err != nil {
		return nil, err
	}
	p, err := parsePages()
	if err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	db, err := inspect.Pool(ctx, cfg.Postgres, "catchment-console")
	if err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	c := &Console{
		cfg: cfg, db: db, log: log.With(slog.String("service", "console")), gate: g, pages: p, outside: outside,
		tails: make(chan struct{}, mostTails), now: time.Now, volumes: volumes{last: map[string]counted{}},
	}
	c.life, c.end = context.WithCancel(context.WithoutCancel(ctx))
	return c, nil
}

// Name is "console".
func (c *Console) Name() string { return "console" }

// Ready is always nil: what the console cannot reach, its pages say.
func (c *Console) Ready() error { return nil }

// Run waits for the end of ctx.
func (c *Console) Run(ctx context.Context) error {
	<-ctx.Done()
	c.end()
	c.auditor.mu.Lock()   // none begins any more
	c.auditor.mu.Unlock() //nolint:staticcheck // see above
	c.auditor.wg.Wait()
	c.db.Close()
	return nil
}

// Pages are the console's handlers, for the operations listener.
func (c *Console) Pages() map[string]http.Handler {
	return map[string]http.Handler{"/console/": c, "GET /{$}": http.RedirectHandler("/console/", http.StatusSeeOther)}
}

// ServeHTTP answers one request.
func (c *Console) ServeHTTP(w http.ResponseWriter, r *http.Request) { c.routes().ServeHTTP(w, r) }

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}
