package console

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/processor/inspect"
)

// eventForm is the filter of the list as it was typed.
type eventForm struct {
	Source, Type, Status, ID, Entity, Since, Until string
}

func readEventForm(v *visit) eventForm {
	get := func(name string) string { return strings.TrimSpace(v.Form.Get(name)) }
	return eventForm{get("source"), get("type"), get("status"), get("id"), get("entity"), get("since"), get("until")}
}

// query is the form as a URL's query.
func (f eventForm) query() url.Values {
	q := url.Values{}
	for name, value := range map[string]string{
		"source": f.Source, "type": f.Type, "status": f.Status, "id": f.ID, "entity": f.Entity, "since": f.Since, "until": f.Until,
	} {
		if value != "" {
			q.Set(name, value)
		}
	}
	return q
}

// With is the list's URL with one value changed.
func (f eventForm) With(name, value string) string {
	q := f.query()
	if q.Set(name, value); value == "" {
		q.Del(name)
	}
	return link("/console/events", q)
}

func link(path string, q url.Values) string {
	if len(q) == 0 {
		return path
	}
	return path + "?" + q.Encode()
}

func (f eventForm) filter(now time.Time) (inspect.Filter, error) {
	if f.Status != "" && !slices.Contains(inspect.Statuses, f.Status) {
		return inspect.Filter{}, wrong("There is no status %q: expected one of %s.", f.Status, strings.Join(inspect.Statuses, ", "))
	}
	out := inspect.Filter{Source: f.Source, Status: f.Status, ID: f.ID, Entity: f.Entity, Types: words(f.Type)}
	var err error
	if out.Since, err = moment("since", f.Since, now); err != nil {
		return out, err
	}
	out.Until, err = moment("until", f.Until, now)
	return out, err
}

func moment(name, text string, now time.Time) (time.Time, error) {
	t, err := config.ParseMoment(text, now)
	if err != nil {
		return t, wrong("The time %q: %v.", name, err)
	}
	return t, nil
}

// words are the parts of a text between spaces and commas.
func words(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == ',' || r == '\n' || r == '\r' || r == '\t' })
}

type eventList struct {
	Form     eventForm
	Sources  []string
	Statuses []string
	Rows     []inspect.Event
	Next     string // the page of older events; empty: there are none
	First    bool
	Live     string // where new events are told of; empty: not with this filter
	Last     int64  // the cursor of the last one that was stored; 0: none is there
	Filtered bool
}

func (c *Console) events(v *visit) error {
	form := readEventForm(v)
	f, err := form.filter(c.now())
	if err != nil {
		return err
	}
	if f.Before, err = cursor(v.Form.Get("before")); err != nil {
		return err
	}
	f.Limit = pageRows + 1
	rows, err := inspect.Events(v.Context(), c.db, f)
	if err != nil {
		return err
	}
	list := eventList{
		Form: form, Sources: c.sourceNames(form.Source), Statuses: inspect.Statuses, First: f.Before == 0, Filtered: len(form.query()) > 0,
	}
	if len(rows) > pageRows {
		rows = rows[:pageRows]
		q := form.query()
		q.Set("before", strconv.FormatInt(rows[pageRows-1].Cursor, 10))
		list.Next = link("/console/events", q)
	}
	if list.Rows = rows; list.First && f.Entity == "" && f.Until.IsZero() {
		list.Live = link("/console/events/live", form.query())
		for _, row := range rows {
			list.Last = max(list.Last, row.Cursor)
		}
	}
	return v.render("events", "Events", list)
}

// sourceNames are the configured sources, and one that is asked for.
func (c *Console) sourceNames(more string) []string {
	names := slices.Sorted(maps.Keys(c.cfg.Sources))
	if more != "" && !slices.Contains(names, more) {
		names = append(names, more)
	}
	return names
}

func cursor(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 {
		return 0, wrong("This is no page: %q.", text)
	}
	return n, nil
}

// Bounds of a live tail. A browser comes again by itself where one ended.
const (
	liveFor   = 15 * time.Minute
	liveEvery = time.Second
	liveWrite = 10 * time.Second
	liveRows  = 200 // of one look: who lists more than that cannot be read
)

// liveRow is an event as the script shows it, as text.
type liveRow struct {
	Cursor     int64  `json:"-"`
	URL        string `json:"url"`
	Received   string `json:"received"`
	ISO        string `json:"iso"`
	Source     string `json:"source"`
	ID         string `json:"id"`
	Type       string `json:"type"`
	Status     string `json:"status"`
	Size       string `json:"size"`
	Deliveries string `json:"deliveries"`
}

// live tells of events as they are stored, as server-sent events.
func (c *Console) live(v *visit) error {
	select {
	case c.tails <- struct{}{}:
		defer func() { <-c.tails }()
	default:
		return &fault{http.StatusServiceUnavailable, "Too many watch already."}
	}
	f, err := readEventForm(v).filter(c.now())
	if err != nil {
		return err
	}
	// A browser that comes again says what it had last, and a page that begins what it has.
	if f.After, err = cursor(cmp.Or(v.Header.Get("Last-Event-ID"), v.Form.Get("after"))); err != nil {
		return err
	}
	tail, err := inspect.Tail(v.Context(), c.db, f)
	if err != nil {
		return err
	}
	v.w.Header().Set("Content-Type", "text/event-stream")
	v.w.Header().Set("X-Accel-Buffering", "no")
	out := http.NewResponseController(v.w)
	send := func(text string) error {
		_ = out.SetWriteDeadline(time.Now().Add(liveWrite)) // where it cannot be set, the connection's own end counts
		if _, err := v.w.Write([]byte(text)); err != nil {
			return err
		}
		return out.Flush()
	}
	if err := send("retry: 2000\n\n"); err != nil {
		return nil // who has gone needs no answer
	}
	tick := time.NewTicker(liveEvery)
	defer tick.Stop()
	for quiet := 0; ; quiet++ {
		found, err := tail.Next(v.Context())
		if err != nil {
			return nil // the stream ends, and the browser comes again
		}
		text := ""
		if len(found) > 0 {
			text, quiet = liveMessage(found), 0
		} else if quiet%15 == 14 {
			text = ": still here\n\n"
		}
		if text != "" && send(text) != nil {
			return nil
		}
		select {
		case <-v.Context().Done():
			return nil
		case <-tick.C:
		}
	}
}

func liveMessage(found []inspect.Event) string {
	rows, left := []liveRow{}, 0
	if len(found) > liveRows {
		left = len(found) - liveRows
	}
	for _, e := range found[left:] {
		rows = append(rows, liveRow{
			e.Cursor, eventURL(e.Source, e.ID), stamp(e.ReceivedAt), iso(e.ReceivedAt), visible(e.Source), visible(e.ID), visible(e.Type), e.Status,
			size(e.BodySize), number(e.Deliveries),
		})
	}
	text, err := json.Marshal(map[string]any{"rows": rows, "left_out": left})
	if err != nil {
		return ""
	}
	return fmt.Sprintf("id: %d\ndata: %s\n\n", found[len(found)-1].Cursor, text)
}
