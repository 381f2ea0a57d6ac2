package console

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor/control"
	"github.com/catchment-dev/catchment/processor/inspect"
)

type jobList struct {
	Rows []inspect.Job
	Open bool
	pageLinks
}

func (c *Console) jobs(v *visit) error {
	before, err := cursor(v.Form.Get("before"))
	if err != nil {
		return err
	}
	list := jobList{Open: v.Form.Get("open") != ""}
	q := url.Values{}
	if list.Open {
		q.Set("open", "1")
	}
	rows, err := inspect.Jobs(v.Context(), c.db, list.Open, before, pageRows+1)
	if err != nil {
		return err
	}
	list.Rows, list.pageLinks = paged(rows, before, "/console/jobs", q, func(j *inspect.Job) int64 { return j.ID })
	return v.render("jobs", "Jobs", list)
}

type jobPage struct {
	*inspect.Job
	Selection []field
	Over      bool
	Poll      string // where its state is told; empty: it is over
}

func (c *Console) jobOf(v *visit) (*inspect.Job, error) {
	id, err := cursor(v.Form.Get("id"))
	if err != nil || id == 0 {
		return nil, wrong("Which job?")
	}
	j, err := inspect.OneJob(v.Context(), c.db, id)
	if errors.Is(err, inspect.ErrNoJob) {
		return nil, missing("There is no job %d.", id)
	}
	return j, err
}

func (c *Console) job(v *visit) error {
	j, err := c.jobOf(v)
	if err != nil {
		return err
	}
	p := jobPage{Job: j, Selection: selected(&j.Selection), Over: over(j)}
	if !p.Over {
		p.Poll = "/console/job/state?id=" + strconv.FormatInt(j.ID, 10)
	}
	return v.render("job", "Job "+strconv.FormatInt(j.ID, 10), p)
}

func over(j *inspect.Job) bool { return j.State == control.Done || j.State == control.Cancelled }

// selected says what a job's selection means.
func selected(s *control.Selection) []field {
	var out []field
	add := func(name, value string) {
		if value != "" {
			out = append(out, field{name, value})
		}
	}
	add("source", s.Source)
	add("event", strings.Join(s.EventIDs, " "))
	add("type", strings.Join(s.Types, " "))
	add("reason of death", s.Reason)
	var letters []string
	for _, id := range s.Letters {
		letters = append(letters, strconv.FormatInt(id, 10))
	}
	add("dead letter", strings.Join(letters, " "))
	if s.Since != nil {
		add("since", stamp(*s.Since))
	}
	if s.Until != nil {
		add("until", stamp(*s.Until))
	}
	return out
}

// jobState tells the script how far a job is.
func (c *Console) jobState(v *visit) error {
	j, err := c.jobOf(v)
	if err != nil {
		return err
	}
	v.w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(v.w).Encode(map[string]any{
		"over": over(j), "made": j.Made() + j.Skipped, "texts": map[string]string{
			"state": j.State, "made": number(j.Made()), "succeeded": number(j.Succeeded), "superseded": number(j.Superseded), "failed": number(j.Failed),
			"dead": number(j.Dead), "skipped": number(j.Skipped), "note": visible(j.Note),
		},
	})
}

func (c *Console) cancel(v *visit) error {
	j, err := c.jobOf(v)
	if err != nil {
		return err
	}
	if _, err := control.Cancel(v.Context(), c.db, j.ID, v.act(v.Form.Get("reason"))); err != nil {
		return err
	}
	http.Redirect(v.w, v.Request, "/console/job?id="+strconv.FormatInt(j.ID, 10), http.StatusSeeOther)
	return nil
}

// replayPage is the form of a replay and, once it was tried, what it would do.
type replayPage struct {
	Form       selectForm
	Operations []string
	On         string // which events the operation is for; empty: none is chosen
	Force      bool
	Trials     *inspect.Trials
	Values     bool // what was bound and returned may be seen
	Confirm    *confirmation
	Rate       string
	Reason     string
	CanTry     bool
	Tried      int // at most
}

// mostTried is how many events a dry run looks at.
const mostTried = 20

func (c *Console) replayForm(v *visit) error {
	p, err := c.readReplay(v)
	if err != nil {
		return err
	}
	return v.render("replay", "Replay", p)
}

func (c *Console) readReplay(v *visit) (*replayPage, error) {
	p := &replayPage{
		Form: readSelectForm(v), Force: v.Form.Get("force") != "", Rate: v.Form.Get("rate"), Reason: strings.TrimSpace(v.Form.Get("reason")),
		CanTry: c.outside.DryRun != nil, Tried: mostTried, Values: v.who.may(settings.ViewPayload),
	}
	p.Operations = c.operationNames("")
	if p.Form.Operation != "" {
		on, err := c.cfg.OperationOn(p.Form.Operation)
		if err != nil {
			return nil, wrong("There is no operation %q in the configuration.", p.Form.Operation)
		}
		p.On = strings.Join(append([]string{on.Source}, on.Types...), " ")
	}
	return p, nil
}

// tryReplay counts, makes a dry run, and asks.
func (c *Console) tryReplay(v *visit) error { return c.askReplay(v, "") }

func (c *Console) askReplay(v *visit, notice string) error {
	p, err := c.readReplay(v)
	if err != nil {
		return err
	}
	if p.Form.Operation == "" {
		return wrong("Which operation?")
	}
	form, sel, err := p.Form.fixed(c.now())
	if err != nil {
		return err
	}
	j, err := c.newReplay(v, p, sel, 0)
	if err != nil {
		return err
	}
	p.Confirm = &confirmation{Form: form, Expected: j.Expected, Rate: p.Rate, Reason: p.Reason, Key: newKey(), Notice: notice}
	if j.Expected > 0 && c.outside.DryRun != nil {
		results, err := c.outside.DryRun(v.Context(), p.Form.Operation, j.Selection, p.Force, mostTried)
		if err != nil {
			return c.untried(v, p, err)
		}
		if err := control.Tried(v.Context(), c.db, p.Form.Operation, j.Selection, p.Force, len(results), v.act(p.Reason)); err != nil {
			return err
		}
		trials := inspect.Sum(results)
		p.Trials = &trials
	}
	return v.render("replay", "Replay", p)
}

// untried says that a dry run is not to be had, and lets the replay be confirmed without.
func (c *Console) untried(v *visit, p *replayPage, err error) error {
	if v.Context().Err() != nil {
		return err
	}
	p.Confirm.Notice = strings.TrimSpace(p.Confirm.Notice + " It could not be tried: " + err.Error())
	return v.render("replay", "Replay", p)
}

// newReplay counts what a replay would look at. The selection's own operation is not a filter of events.
func (c *Console) newReplay(v *visit, p *replayPage, sel control.Selection, rate float64) (*control.Job, error) {
	on, err := c.cfg.OperationOn(p.Form.Operation)
	if err != nil {
		return nil, err
	}
	sel.Operation, sel.Reason, sel.Letters = "", "", nil
	return control.NewReplay(v.Context(), c.db, p.Form.Operation, on.Source, on.Types, sel, p.Force, rate, v.act(p.Reason))
}

// startReplay does what was confirmed, once.
func (c *Console) startReplay(v *visit) error {
	p, err := c.readReplay(v)
	if err != nil {
		return err
	}
	sel, err := p.Form.selection(c.now())
	if err != nil {
		return err
	}
	rate, key, expected, err := readConfirmation(v)
	switch {
	case err != nil:
		return err
	case p.Form.Operation == "":
		return wrong("Which operation?")
	case p.Force && p.Reason == "":
		return wrong("This repeats effects: say why.")
	}
	j, err := c.newReplay(v, p, sel, rate)
	if err != nil {
		return err
	}
	if j.Expected > expected {
		return c.askReplay(v, "There were "+number(expected)+" when you were asked, and there are more now.")
	}
	return c.start(v, j, key)
}

type operationList struct {
	Rows      []inspect.OperationView
	Estimated bool
}

func (c *Console) operationViews(v *visit) ([]inspect.OperationView, error) {
	states, err := inspect.Operations(v.Context(), c.db)
	if err != nil {
		return nil, err
	}
	var open map[string]bool
	if c.outside.OpenCircuits != nil {
		open = c.outside.OpenCircuits(v.Context())
	}
	return inspect.ViewOperations(c.cfg, states, open), nil
}

func (c *Console) operations(v *visit) error {
	views, err := c.operationViews(v)
	if err != nil {
		return err
	}
	return v.render("operations", "Operations", operationList{views, slices.ContainsFunc(views, func(o inspect.OperationView) bool { return o.Estimated })})
}

// switchOperation pauses an operation, or ends its pause.
func (c *Console) switchOperation(v *visit) error {
	name := v.Form.Get("operation")
	do := control.Resume
	if v.Form.Get("do") == "pause" {
		do = control.Pause
		if _, err := c.cfg.OperationOn(name); err != nil {
			return missing("There is no operation %q in the configuration.", name)
		}
	}
	if _, err := do(v.Context(), c.db, name, v.act(v.Form.Get("reason"))); err != nil {
		return err
	}
	http.Redirect(v.w, v.Request, "/console/operations", http.StatusSeeOther)
	return nil
}
