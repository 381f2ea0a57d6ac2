package inspect

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/catchment-dev/catchment/pkg/settings"
)

// Trial is what an operation would do for an event. Nothing of it has stayed.
type Trial struct {
	Operation string            `json:"operation"`
	Source    string            `json:"source"`
	EventID   string            `json:"event_id"`
	Type      string            `json:"type"`
	Applies   bool              `json:"applies"`       // by on and when
	Why       string            `json:"why,omitempty"` // it does not apply
	Before    int               `json:"attempts_before"`
	Effect    bool              `json:"had_effect"` // it has succeeded or was superseded already
	Outcome   string            `json:"outcome"`    // succeeded, superseded, failed or dead; empty: it does not apply
	Entity    *string           `json:"entity"`
	Version   *string           `json:"version"`
	Decision  string            `json:"decision"` // on the version
	Params    map[string]any    `json:"params"`   // as they are bound
	Rows      *int64            `json:"rows_affected"`
	Changes   []StatementEffect `json:"statements"`
	Error     string            `json:"error,omitempty"`
}

// StatementEffect is what one statement would change: the rows as they would be after it, where it tells.
type StatementEffect struct {
	SQL  string          `json:"sql"`
	Rows int64           `json:"rows_affected"`
	Seen json.RawMessage `json:"rows,omitempty"`
}

// NotApplying is the outcome of a trial in Trials.Totals that did not apply.
const NotApplying = "does not apply"

// Trials is a dry run: what came of each of its events, and of all.
type Trials struct {
	Tried   int            `json:"tried"`
	Totals  map[string]int `json:"totals"` // by outcome
	Rows    int64          `json:"rows_affected"`
	Failing bool           `json:"-"` // one has an error
	Results []*Trial       `json:"results"`
}

// Outcomes are the keys of Totals, in the order in which they are shown.
var Outcomes = []string{"succeeded", "superseded", "failed", "dead", NotApplying}

// Sum counts what came of a dry run.
func Sum(results []*Trial) Trials {
	out := Trials{Tried: len(results), Totals: map[string]int{}, Results: results}
	for _, t := range results {
		outcome := t.Outcome
		if !t.Applies {
			outcome = NotApplying
		}
		out.Totals[outcome]++
		if t.Rows != nil {
			out.Rows += *t.Rows
		}
		out.Failing = out.Failing || t.Error != ""
	}
	return out
}

// States of an operation.
const (
	OperationActive    = "active"
	OperationPaused    = "paused"
	OperationOpen      = "circuit open"
	OperationForgotten = "not configured"
)

// OperationView is one operation and how it stands.
type OperationView struct {
	Name  string `json:"name"`
	State string `json:"state"`
	On    string `json:"on"`
	OperationState
}

// ViewOperations lists the configured operations in their order, and then those that have left something behind. open are
// those whose circuits are known to be open.
func ViewOperations(cfg *settings.File, states []OperationState, open map[string]bool) []OperationView {
	byName := map[string]OperationState{}
	for _, s := range states {
		byName[s.Operation] = s
	}
	views := []OperationView{}
	for _, op := range cfg.Operations {
		s, ok := byName[op.Name]
		if !ok {
			s = OperationState{Operation: op.Name, Outcomes: map[string]int64{}}
		}
		delete(byName, op.Name)
		v := OperationView{Name: op.Name, State: OperationActive, On: strings.Join(append([]string{op.On.Source}, op.On.Types...), " "), OperationState: s}
		switch {
		case s.Paused != nil:
			v.State = OperationPaused
		case open[op.Name]:
			v.State = OperationOpen
		}
		views = append(views, v)
	}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		views = append(views, OperationView{Name: name, State: OperationForgotten, OperationState: byName[name]})
	}
	return views
}
