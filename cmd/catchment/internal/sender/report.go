package sender

import (
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// Report is what came of a Send. Latencies are in milliseconds.
type Report struct {
	Provider string `json:"provider"`
	URL      string `json:"url"`
	Seed     uint64 `json:"seed"`

	Events      int            `json:"events"`       // distinct events that were to be sent
	Accepted    int            `json:"accepted"`     // distinct events that were answered with a 2xx
	NotAccepted int            `json:"not_accepted"` // distinct events that were not, or not sent
	Requests    int            `json:"requests"`
	Refused     int            `json:"refused"`             // requests without a 2xx
	OneEvent    bool           `json:"one_event,omitempty"` // the body carries an ID of its own, which makes all requests one event
	Duplicates  int            `json:"duplicates"`          // requests that were answered as duplicates
	Statuses    map[string]int `json:"statuses"`            // requests by HTTP status, or what kept them from having one
	Problems    map[string]int `json:"problems,omitempty"`

	Latency   Latency `json:"latency_ms"`
	Seconds   float64 `json:"seconds"`
	PerSecond float64 `json:"per_second"`

	fixed bool // the body comes from a file
	took  []time.Duration
	ids   map[string]bool // what the receiver called the accepted events
	seqs  map[int]bool    // accepted events by number
}

// IDs are the accepted events, by what the receiver called them, in order.
func (r *Report) IDs() []string { return slices.Sorted(maps.Keys(r.ids)) }

// Latency summarises how long answers took.
type Latency struct {
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// maxProblems bounds how many different refusals are kept.
const maxProblems = 10

func newReport(o Options) *Report {
	return &Report{
		Provider: o.Provider.Name, URL: o.URL, Seed: o.Seed, Events: o.Count, fixed: o.Body != nil,
		Statuses: map[string]int{}, Problems: map[string]int{}, ids: map[string]bool{}, seqs: map[int]bool{},
	}
}

// OK says whether every request was accepted, and every event sent.
func (r *Report) OK() bool { return r.Refused == 0 && r.NotAccepted == 0 }

func (r *Report) add(p post, a answer) {
	r.Requests++
	r.Statuses[a.status]++
	r.took = append(r.took, a.took)
	if a.duplicate {
		r.Duplicates++
	}
	if a.accepted {
		r.seqs[p.seq] = true
		if a.id != "" {
			r.ids[a.id] = true
		}
		return
	}
	r.Refused++
	if _, known := r.Problems[a.problem]; known || len(r.Problems) < maxProblems {
		r.Problems[a.problem]++
	}
}

// finish computes the sums. The receiver's names decide how many events there are: a body from a file that is sent
// five times is one event.
func (r *Report) finish(took time.Duration) {
	r.NotAccepted = r.Events - len(r.seqs)
	r.Accepted = len(r.seqs)
	if len(r.ids) > 0 {
		r.Accepted = min(r.Accepted, len(r.ids))
	}
	if r.fixed && len(r.seqs) > 1 && len(r.ids) == 1 {
		r.OneEvent, r.Events, r.NotAccepted = true, 1, 0
	}
	r.Seconds = took.Seconds()
	if r.Seconds > 0 {
		r.PerSecond = float64(r.Requests) / r.Seconds
	}
	slices.Sort(r.took)
	r.Latency = Latency{P50: quantile(r.took, 0.5), P90: quantile(r.took, 0.9), P99: quantile(r.took, 0.99), Max: quantile(r.took, 1)}
}

// quantile returns the nearest-rank quantile of sorted durations, in milliseconds.
func quantile(sorted []time.Duration, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	i := max(0, int(math.Ceil(q*float64(len(sorted))))-1)
	return math.Round(float64(sorted[i].Microseconds())) / 1000
}

func list(set map[string]bool) string {
	return strings.Join(slices.Sorted(maps.Keys(set)), ", ")
}
