package console

import (
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor/control"
	"github.com/catchment-dev/catchment/processor/inspect"
)

// selectForm selects dead letters or events, as it was typed.
type selectForm struct {
	Source, Operation, Failure, ID, Type, Letter, Since, Until string
}

func readSelectForm(v *visit) selectForm {
	get := func(name string) string { return strings.TrimSpace(v.Form.Get(name)) }
	return selectForm{get("source"), get("operation"), get("failure"), get("id"), get("type"), get("letter"), get("since"), get("until")}
}

// Fields are what is set, by the names of the form.
func (f selectForm) Fields() []field {
	var out []field
	for _, one := range []field{
		{"source", f.Source}, {"operation", f.Operation}, {"failure", f.Failure}, {"id", f.ID}, {"type", f.Type}, {"letter", f.Letter}, {"since", f.Since}, {"until", f.Until},
	} {
		if one.Value != "" {
			out = append(out, one)
		}
	}
	return out
}

type field struct{ Name, Value string }

func (f selectForm) query() url.Values {
	q := url.Values{}
	for _, one := range f.Fields() {
		q.Set(one.Name, one.Value)
	}
	return q
}

// selection is what the form selects.
func (f selectForm) selection(now time.Time) (control.Selection, error) {
	sel := control.Selection{Source: f.Source, EventIDs: words(f.ID), Types: words(f.Type), Operation: f.Operation, Reason: f.Failure}
	for _, text := range words(f.Letter) {
		id, err := cursor(text)
		if err != nil {
			return sel, wrong("This is no dead letter: %q.", text)
		}
		sel.Letters = append(sel.Letters, id)
	}
	for _, m := range []struct {
		name, text string
		into       **time.Time
	}{{"since", f.Since, &sel.Since}, {"until", f.Until, &sel.Until}} {
		t, err := moment(m.name, m.text, now)
		if err != nil {
			return sel, err
		}
		if !t.IsZero() {
			*m.into = &t
		}
	}
	return sel, nil
}

// fixed is the form with its times written out, and with an end: what comes later is not what was counted.
func (f selectForm) fixed(now time.Time) (selectForm, control.Selection, error) {
	if f.Until == "" {
		f.Until = now.UTC().Format(time.RFC3339Nano)
	}
	sel, err := f.selection(now)
	if err != nil {
		return f, sel, err
	}
	f.Until = sel.Until.UTC().Format(time.RFC3339Nano)
	if sel.Since != nil {
		f.Since = sel.Since.UTC().Format(time.RFC3339Nano)
	}
	return f, sel, nil
}

type letterList struct {
	Form       selectForm
	Sources    []string
	Operations []string
	Rows       []inspect.DeadLetter
	pageLinks
}

func (c *Console) letters(v *visit) error {
	form := readSelectForm(v)
	sel, err := form.selection(c.now())
	if err != nil {
		return err
	}
	before, err := cursor(v.Form.Get("before"))
	if err != nil {
		return err
	}
	rows, err := inspect.DeadLetters(v.Context(), c.db, sel, before, pageRows+1)
	if err != nil {
		return err
	}
	list := letterList{Form: form, Sources: c.sourceNames(form.Source), Operations: c.operationNames(form.Operation)}
	list.Rows, list.pageLinks = paged(rows, before, "/console/dead-letters", form.query(), func(l *inspect.DeadLetter) int64 { return l.ID })
	return v.render("letters", "Dead letters", list)
}

// pageLinks lead from one page of a list to others; empty: there is none.
type pageLinks struct{ Next, Newest string }

// paged cuts what was read one row too far, behind before, and links to the other pages.
func paged[T any](rows []T, before int64, path string, q url.Values, id func(*T) int64) ([]T, pageLinks) {
	var links pageLinks
	if before > 0 {
		links.Newest = link(path, q)
	}
	if len(rows) > pageRows {
		rows = rows[:pageRows]
		q.Set("before", strconv.FormatInt(id(&rows[pageRows-1]), 10))
		links.Next = link(path, q)
	}
	return rows, links
}

// operationNames are the configured operations, and one that is asked for.
func (c *Console) operationNames(more string) (names []string) {
	there := more == ""
	for _, op := range c.cfg.Operations {
		names = append(names, op.Name)
		there = there || op.Name == more
	}
	if !there {
		names = append(names, more)
	}
	return names
}

// letterPage is one dead letter.
type letterPage struct {
	*inspect.WholeDeadLetter
	Size    int
	Payload *record
}

// record is what a dead letter keeps of a record that could not be decoded.
type record struct {
	Key     string
	Headers []field
	Payload *payload
}

func (c *Console) letterOf(v *visit) (*letterPage, error) {
	id, err := cursor(v.Form.Get("id"))
	if err != nil || id == 0 {
		return nil, wrong("Which dead letter?")
	}
	l, err := inspect.DeadLetterRecord(v.Context(), c.db, id)
	if errors.Is(err, inspect.ErrNoDeadLetter) {
		return nil, missing("There is no dead letter %d: it was redriven with success, or never there.", id)
	}
	if err != nil {
		return nil, err
	}
	return &letterPage{WholeDeadLetter: l, Size: len(l.Value)}, nil
}

func (c *Console) letter(v *visit) error {
	p, err := c.letterOf(v)
	if err != nil {
		return err
	}
	return v.render("letter", "Dead letter "+strconv.FormatInt(p.ID, 10), p)
}

func (c *Console) letterPayload(v *visit) error {
	p, err := c.letterOf(v)
	if err != nil {
		return err
	}
	if err := control.Viewed(v.Context(), c.db, p.ID, v.act(v.Form.Get("reason"))); err != nil {
		return err
	}
	r := &record{Key: string(p.Key), Payload: bodyOf(p.Value)}
	for _, h := range p.WholeDeadLetter.Headers {
		r.Headers = append(r.Headers, field{h.Name, string(h.Value)})
	}
	p.Payload = r
	return v.render("letter", "Dead letter "+strconv.FormatInt(p.ID, 10), p)
}

// confirmation is what somebody is asked before something is done.
type confirmation struct {
	Form     selectForm
	Expected int64
	Rate     string
	Reason   string
	Key      string // of the job that comes of it
	Notice   string
}

// redrive counts the selected dead letters and asks.
func (c *Console) redrive(v *visit) error { return c.askRedrive(v, "") }

func (c *Console) askRedrive(v *visit, notice string) error {
	form, sel, err := readSelectForm(v).fixed(c.now())
	if err != nil {
		return err
	}
	j, err := control.NewRedrive(v.Context(), c.db, sel, 0, v.act(""))
	if err != nil {
		return err
	}
	return v.render("redrive", "Redrive", confirmation{
		Form: form, Expected: j.Expected, Rate: v.Form.Get("rate"), Reason: v.Form.Get("reason"), Key: newKey(), Notice: notice,
	})
}

// startRedrive does what was confirmed, once.
func (c *Console) startRedrive(v *visit) error {
	form := readSelectForm(v)
	sel, err := form.selection(c.now())
	if err != nil {
		return err
	}
	rate, key, expected, err := readConfirmation(v)
	if err != nil {
		return err
	}
	j, err := control.NewRedrive(v.Context(), c.db, sel, rate, v.act(v.Form.Get("reason")))
	if err != nil {
		return err
	}
	if j.Expected > expected {
		return c.askRedrive(v, "There were "+number(expected)+" when you were asked, and there are more now.")
	}
	return c.start(v, j, key)
}

// start stores a job and leads to it.
func (c *Console) start(v *visit, j *control.Job, key string) error {
	j.Key = key
	if err := control.Start(v.Context(), c.db, j); err != nil {
		return err
	}
	http.Redirect(v.w, v.Request, "/console/job?id="+strconv.FormatInt(j.ID, 10), http.StatusSeeOther)
	return nil
}

func newKey() string { return hexed(randomBytes(16)) }

// readConfirmation reads what belongs to every confirmed job.
func readConfirmation(v *visit) (rate float64, key string, expected int64, err error) {
	if text := strings.TrimSpace(v.Form.Get("rate")); text != "" {
		if rate, err = strconv.ParseFloat(text, 64); err != nil || !(rate >= 0 && rate <= mostRate) {
			return 0, "", 0, wrong("This is no rate: %q. Expected attempts a second, or nothing for no limit.", text)
		}
	}
	expected, err = strconv.ParseInt(v.Form.Get("expected"), 10, 64)
	if key = v.Form.Get("key"); err != nil || len(key) != 32 {
		return 0, "", 0, wrong("What is to be confirmed is not in this form: begin anew.")
	}
	return rate, key, expected, nil
}

const mostRate = 1e6

// needsOperate is what pages need that change something.
var needsOperate = []string{settings.Operate}
