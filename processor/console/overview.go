package console

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/catchment-dev/catchment/processor/control"
	"github.com/catchment-dev/catchment/processor/inspect"
)

// span is a time that the charts show.
type span struct {
	Name  string
	last  time.Duration
	parts int
	each  string
}

var spans = []span{{"1h", time.Hour, 60, "minute"}, {"24h", 24 * time.Hour, 72, "20 minutes"}, {"7d", 7 * 24 * time.Hour, 84, "2 hours"}}

type overviewPage struct {
	Span    span
	Spans   []span
	Checks  []Check
	Charts  []*chart
	Missing string // why there are no charts
}

// overview shows how everything stands, and charts.
func (c *Console) overview(v *visit) error {
	p := overviewPage{Spans: spans, Span: spans[0]}
	for _, s := range spans {
		if s.Name == v.Form.Get("span") {
			p.Span = s
		}
	}
	if c.outside.Checks != nil {
		p.Checks = c.outside.Checks(v.Context())
	} else {
		p.Checks = c.ownChecks(v.Context())
	}
	parts, err := c.volumes.of(v.Context(), c, p.Span)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		p.Missing = "Counting took too long. A shorter time is quicker."
	case err != nil:
		return err
	default:
		p.Charts = charts(parts, p.Span)
	}
	return v.render("overview", "Overview", p)
}

// ownChecks is what Postgres alone says.
func (c *Console) ownChecks(ctx context.Context) []Check {
	s, err := inspect.Status(ctx, c.db)
	if err != nil {
		c.log.Warn("the state cannot be read", slog.Any("error", err))
		return []Check{{"Postgres", "at risk", "it does not say how things stand"}}
	}
	text := number(s.Events) + " events"
	if !s.Exact {
		text = "about " + text
	}
	if s.LastStored != nil {
		text += ", the last stored at " + stamp(*s.LastStored)
	}
	out := []Check{{"Postgres", "ok", text}}
	for _, n := range append(s.Unfinished, s.DeadLetters...) {
		many := number(n.N)
		if n.More {
			many += " or more"
		}
		out = append(out, Check{"operations", "attention", many + " of " + n.Source + ": " + n.What})
	}
	return out
}

// volumes remembers for a moment what was counted: who reloads a page need not count again.
type volumes struct {
	mu   sync.Mutex
	last map[string]counted
}

type counted struct {
	at    time.Time
	parts []inspect.Span
}

const (
	countedFor  = 10 * time.Second
	mostCounted = 8 * time.Second // for counting
)

func (m *volumes) of(ctx context.Context, c *Console, s span) ([]inspect.Span, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := c.now()
	if was, ok := m.last[s.Name]; ok && now.Sub(was.at) < countedFor {
		return was.parts, nil
	}
	ctx, cancel := context.WithTimeout(ctx, mostCounted)
	defer cancel()
	step := s.last / time.Duration(s.parts)
	until := now.Truncate(step).Add(step)
	parts, err := inspect.Volume(ctx, c.db, until.Add(-s.last), until, s.parts)
	if err == nil {
		m.last[s.Name] = counted{now, parts}
	}
	if err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	return parts, err
}

// sourceRow is one source and what came of it.
type sourceRow struct {
	Name, Provider string
	Configured     int
	Last           *inspect.Event
	State          *inspect.SourceState
	PerMinute      string
	Requests       Requests
}

type sourcePage struct {
	Rows  []sourceRow
	Asked bool // the ingress was asked, and has answered
	Note  string
}

func (c *Console) sources(v *visit) error {
	p := sourcePage{Note: "What requests ended in is counted by the ingress, which this program does not ask."}
	var asked map[string]Requests
	if c.outside.Requests != nil {
		var err error
		if asked, err = c.outside.Requests(v.Context()); err != nil {
			c.log.Warn("the ingress was asked in vain", slog.Any("error", err))
			p.Note = "The ingress does not answer: what requests ended in is not known."
		} else {
			p.Asked, p.Note = true, ""
		}
	}
	for _, name := range c.sourceNames("") {
		s := c.cfg.Sources[name]
		row := sourceRow{Name: name, Provider: s.Provider, Configured: len(s.Secrets), Requests: asked[name]}
		last, err := inspect.Events(v.Context(), c.db, inspect.Filter{Source: name, Limit: 1})
		if err != nil {
			return err
		}
		if len(last) > 0 {
			row.Last = &last[0]
		}
		if row.State, err = inspect.StateOf(v.Context(), c.db, name); err != nil {
			return err
		}
		row.PerMinute = perMinute(row.State, c.now())
		p.Rows = append(p.Rows, row)
	}
	return v.render("sources", "Sources", p)
}

func perMinute(s *inspect.SourceState, now time.Time) string {
	minutes := max(now.Sub(s.Since).Minutes(), 1.0/60)
	rate := float64(s.Events) / minutes
	switch {
	case s.Events == 0:
		return "0"
	case rate < 0.1:
		return "< 0.1"
	case rate < 10:
		return trimmed(rate)
	}
	return number(int64(rate + 0.5))
}

// auditor runs one audit at a time.
type auditor struct {
	mu      sync.Mutex
	running bool
	began   time.Time
	by      string
	last    *Audit
	failed  string
	wg      sync.WaitGroup
}

const longestAudit = 2 * time.Hour

type auditPage struct {
	Can     bool // this program can audit
	Running bool
	Began   time.Time
	By      string
	Last    *Audit
	Failed  string
	Rows    []inspect.Action
	pageLinks
}

func (c *Console) audit(v *visit) error {
	before, err := cursor(v.Form.Get("before"))
	if err != nil {
		return err
	}
	rows, err := inspect.Actions(v.Context(), c.db, control.CommandAudit, before, pageRows+1)
	if err != nil {
		return err
	}
	a := &c.auditor
	a.mu.Lock()
	p := auditPage{Can: c.outside.Audit != nil, Running: a.running, Began: a.began, By: a.by, Last: a.last, Failed: a.failed}
	a.mu.Unlock()
	p.Rows, p.pageLinks = paged(rows, before, "/console/audit", url.Values{}, func(a *inspect.Action) int64 { return a.ID })
	return v.render("audit", "Audit", p)
}

// startAudit begins an audit, unless one is running, which goes on when who asked for it has gone.
func (c *Console) startAudit(v *visit) error {
	if c.outside.Audit == nil {
		return missing("This program cannot audit: catchment console and catchment audit can.")
	}
	since, err := moment("since", strings.TrimSpace(v.Form.Get("since")), c.now())
	if err != nil {
		return err
	}
	until, err := moment("until", strings.TrimSpace(v.Form.Get("until")), c.now())
	if err != nil {
		return err
	}
	a := &c.auditor
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.running && c.life.Err() == nil {
		a.running, a.began, a.by, a.failed = true, c.now(), v.who.name, ""
		act := v.act(v.Form.Get("reason"))
		a.wg.Go(func() { c.runAudit(since, until, act) })
	}
	http.Redirect(v.w, v.Request, "/console/audit", http.StatusSeeOther)
	return nil
}

func (c *Console) runAudit(since, until time.Time, act control.Act) {
	ctx, cancel := context.WithTimeout(c.life, longestAudit)
	defer cancel()
	found, err := c.outside.Audit(ctx, since, until)
	faults := int64(-1)
	if err == nil {
		faults = found.Faults
	}
	if e := control.Audited(context.WithoutCancel(ctx), c.db, optional(since), optional(until), faults, act); e != nil {
		c.log.Error("the audit could not be recorded", slog.Any("error", e))
	}
	a := &c.auditor
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.running = false; err != nil {
		c.log.Error("the audit could not be finished", slog.Any("error", err))
		a.failed = "It could not be finished, and says nothing: " + err.Error()
		return
	}
	a.last = found
}

func optional(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// auditState tells the script whether the audit is over.
func (c *Console) auditState(v *visit) error {
	c.auditor.mu.Lock()
	running := c.auditor.running
	c.auditor.mu.Unlock()
	v.w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(v.w).Encode(map[string]bool{"over": !running})
}

type actionList struct {
	Rows []inspect.Action
	pageLinks
}

func (c *Console) actions(v *visit) error {
	before, err := cursor(v.Form.Get("before"))
	if err != nil {
		return err
	}
	rows, err := inspect.Actions(v.Context(), c.db, "", before, pageRows+1)
	if err != nil {
		return err
	}
	var list actionList
	list.Rows, list.pageLinks = paged(rows, before, "/console/actions", url.Values{}, func(a *inspect.Action) int64 { return a.ID })
	return v.render("actions", "Actions", list)
}

// Counts lists what is not zero, the most frequent first.
func (r Requests) Counts() []count {
	var out []count
	for name, n := range r.Outcomes {
		if n > 0 {
			out = append(out, count{name, n})
		}
	}
	slices.SortFunc(out, func(a, b count) int { return cmp.Or(cmp.Compare(b.N, a.N), cmp.Compare(a.Name, b.Name)) })
	return out
}

type count struct {
	Name string
	N    int
}
