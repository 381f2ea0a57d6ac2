package judge

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/folder"
	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/journal"
)

func TestHonestRunPasses(t *testing.T) {
	dir := honest().write(t)
	v, err := Judge(dir)
	require.NoError(t, err)
	for _, c := range v.Checks {
		require.Empty(t, c.Found, c.Name)
		require.Empty(t, c.Note, c.Name)
	}
	require.Empty(t, v.Invalid)
	require.True(t, v.Passed())
	require.Equal(t, `{"seed":42,"acked":75,"unknown":2,"faults":2,"kinds":2,"lost":0,"doubled":0,"invented":0,"regressed":0,"valid":true,"failed":[]}`, v.Line())
	require.EqualValues(t, 1, v.Rejected)
	require.EqualValues(t, 78, v.Events)

	again, err := Judge(dir)
	require.NoError(t, err)
	require.Equal(t, v, again)
	parts, err := judged(dir, 1000) // a shard for every few lines
	require.NoError(t, err)
	require.Equal(t, v, parts)
}

// corruption is something that a broken system would have left, and the only check that sees it.
type corruption struct {
	check int
	name  string
	do    func(s *scene)
}

// drop removes the first element that fits, which must be there.
func drop[T any](list *[]T, fits func(*T) bool) {
	i := slices.IndexFunc(*list, func(v T) bool { return fits(&v) })
	*list = slices.Delete(*list, i, i+1)
}

// find is the first element that fits, which must be there.
func find[T any](list []T, fits func(*T) bool) *T {
	return &list[slices.IndexFunc(list, func(v T) bool { return fits(&v) })]
}

// skip takes an event out of all of Postgres, as if it had never been processed.
func skip(s *scene, source, id string) {
	drop(&s.identities, func(r *folder.Identity) bool { return r.Source == source && r.ID == id })
	drop(&s.events, func(r *folder.Event) bool { return r.Source == source && r.ID == id })
	drop(&s.ledger, func(r *folder.Effect) bool { return r.Source == source && r.ID == id })
	s.results = slices.DeleteFunc(s.results, func(r folder.Result) bool { return r.Source == source && r.ID == id })
}

var corruptions = []corruption{
	{LossDB, "an acknowledged event was never processed", func(s *scene) {
		skip(s, "stripe", "s29") // of an old version, so that its entity's state is as it must be
		s.counter("stripe/1").N--
	}},
	{LossDB, "an event in Kafka whose sender knows nothing was never processed", func(s *scene) {
		skip(s, "github", "quiet")
		drop(&s.counters, func(c *folder.Counter) bool { return c.Entity == "github/3" })
		drop(&s.state, func(c *folder.State) bool { return c.Entity == "github/3" })
		drop(&s.history, func(c *folder.State) bool { return c.Entity == "github/3" })
	}},
	{LossDB, "an event of a batch was never processed", func(s *scene) {
		skip(s, "meta", "m-p1")
		drop(&s.counters, func(c *folder.Counter) bool { return c.Entity == "meta/2" })
		drop(&s.state, func(c *folder.State) bool { return c.Entity == "meta/2" })
		drop(&s.history, func(c *folder.State) bool { return c.Entity == "meta/2" })
	}},
	{LossDB, "an identity is gone", func(s *scene) { s.identities = s.identities[1:] }},
	{LossDB, "an event is stored twice", func(s *scene) { s.events = append(s.events, s.events[3]) }},
	{LossDB, "other bytes of an event were not kept", func(s *scene) { s.conflicts = nil }},
	{LossArchive, "an acknowledged delivery has no row", func(s *scene) { s.archive = s.archive[1:] }},
	{LossArchive, "one of two deliveries of an event has no row", func(s *scene) {
		drop(&s.archive, func(r *folder.Record) bool { return r.ID == "again" && r.Source == "stripe" })
	}},
	{LossArchive, "a row has the delivery of another record", func(s *scene) {
		find(s.archive, func(r *folder.Record) bool { return r.ID == "again" && r.Source == "stripe" }).Delivery = "delivery-999"
	}},
	{AckHonesty, "an acknowledged record is at another offset", func(s *scene) {
		s.logs["ingress-1.log"] = strings.Replace(s.logs["ingress-1.log"], `"offset":7`, `"offset":8`, 1)
	}},
	{AckHonesty, "an acknowledged record has another digest", func(s *scene) {
		s.logs["ingress-1.log"] = strings.Replace(s.logs["ingress-1.log"], sum("stripes05"), sum("x"), 1)
	}},
	{AckHonesty, "acknowledged while two brokers were down", func(s *scene) {
		s.faults[1].At, s.faults[2].At = s.journal[10].At.Add(-time.Second/4), s.journal[11].At.Add(time.Second/4)
	}},
	{AckHonesty, "a repetition of what two dead brokers never had was acknowledged", func(s *scene) {
		first := find(s.journal, func(l *journal.Line) bool { return l.ID == "again" && l.Source == "github" })
		again := find(s.journal, func(l *journal.Line) bool { return l.ID == "again" && l.Said == "duplicate" })
		s.faults[1].At, s.faults[2].At = first.At.Add(-time.Second/4), again.At.Add(time.Second/4)
		find(s.journal, func(l *journal.Line) bool { return l.Source == "github" && l.ID == "again" && l.Said == "accepted" }).Outcome = journal.Info
	}},
	{Once, "an effect came twice", func(s *scene) { s.ledger = append(s.ledger, s.ledger[4]) }},
	{Once, "an effect is gone", func(s *scene) { s.ledger = s.ledger[1:] }},
	{Once, "poison took effect", func(s *scene) {
		s.ledger = append(s.ledger, folder.Effect{Source: "stripe", ID: "poison", Entity: "stripe/3"})
	}},
	{Once, "an effect without its event", func(s *scene) {
		s.ledger = append(s.ledger, folder.Effect{Source: "github", ID: "away", Entity: "github/3"})
	}},
	{Once, "an event was never finished", func(s *scene) { s.events[5].Status = "failed" }},
	{Once, "an operation has no result", func(s *scene) {
		drop(&s.results, func(r *folder.Result) bool { return r.Operation == "github-ledger" })
	}},
	{Once, "an operation succeeded twice", func(s *scene) {
		find(s.results, func(r *folder.Result) bool { return r.Operation == "github-ledger" }).Succeeded = 2
	}},
	{Sums, "counted twice", func(s *scene) { s.counters[0].N++ }},
	{Sums, "not counted", func(s *scene) { s.counters[1].N-- }},
	{Sums, "a counter of nothing", func(s *scene) { s.counters = append(s.counters, folder.Counter{Entity: "nobody", N: 1}) }},
	{Newest, "an old version is the last", func(s *scene) { // its newer event was taken for superseded
		s.state[0].Version, s.state[0].ID = 28, "g28"
		drop(&s.history, func(r *folder.State) bool { return r.ID == "g29" })
		r := find(s.results, func(r *folder.Result) bool { return r.ID == "g29" && r.Operation == "github-state" })
		r.Outcome, r.Succeeded = "superseded", 0
	}},
	{Newest, "of equal versions the lesser ID is the last", func(s *scene) {
		state := find(s.state, func(r *folder.State) bool { return r.Entity == "stripe/tie" })
		state.ID = "tie6"
		drop(&s.history, func(r *folder.State) bool { return r.ID == "tie7" })
		r := find(s.results, func(r *folder.Result) bool { return r.ID == "tie7" && r.Operation == "stripe-state" })
		r.Outcome, r.Succeeded = "superseded", 0
	}},
	{Monotone, "a state went back on its way", func(s *scene) { // in the end all is well
		i := slices.IndexFunc(s.history, func(r folder.State) bool { return r.ID == "g05" })
		s.history[i], s.history[i-2] = s.history[i-2], s.history[i]
	}},
	{Monotone, "a write is missing in the history", func(s *scene) {
		drop(&s.history, func(r *folder.State) bool { return r.ID == "g05" })
	}},
	{NoInvention, "a forgery was answered with 200", func(s *scene) {
		l := find(s.journal, func(l *journal.Line) bool { return l.ID == "false" && l.IsAnswer() })
		l.Outcome, l.Status = journal.OK, 200
		s.facts.Requests["stripe"]["accepted"]++
	}},
	{NoInvention, "a forgery is in Postgres", func(s *scene) {
		s.identities = append(s.identities, folder.Identity{Source: "stripe", ID: "false"})
	}},
	{NoInvention, "what was never sent took effect", func(s *scene) {
		s.ledger = append(s.ledger, folder.Effect{Source: "stripe", ID: "nobody"})
	}},
	{NoInvention, "a conflict of equal bytes", func(s *scene) {
		s.conflicts = append(s.conflicts, folder.Conflict{Source: "stripe", ID: "again", Delivery: "delivery-70", SHA256: sum("again")})
	}},
	{NoInvention, "the stored bytes are others", func(s *scene) { s.events[2].SHA256 = sum("serialised anew") }},
	{NoInvention, "the stored bytes of a batch's event are others", func(s *scene) {
		find(s.events, func(e *folder.Event) bool { return e.ID == "m-p0" }).SHA256 = sum("serialised anew")
	}},
	{NoInvention, "the headers are others, in Kafka and in the archive", func(s *scene) {
		r := find(s.kafka, func(r *folder.Record) bool { return r.ID == "quiet" })
		w := find(s.archive, func(r *folder.Record) bool { return r.ID == "quiet" })
		r.Headers, w.Headers = sum("other"), sum("other")
	}},
	{NoInvention, "the archive has a row that Kafka has not", func(s *scene) {
		w := *find(s.archive, func(r *folder.Record) bool { return r.ID == "quiet" })
		w.Offset += 1000
		s.archive = append(s.archive, w)
	}},
	{Chain, "a gap", func(s *scene) {
		drop(&s.checkpoints, isSegment(1))
		drop(&s.segments, isBody(1))
	}},
	{Chain, "an overlap", func(s *scene) {
		find(s.checkpoints, isSegment(1)).Last++
		find(s.segments, isBody(1)).Last++
	}},
	{Chain, "the end is cut off", func(s *scene) {
		last := s.checkpoints[len(s.checkpoints)-1]
		s.checkpoints = s.checkpoints[:len(s.checkpoints)-1]
		drop(&s.segments, func(g *folder.Segment) bool { return g.Key == last.Segment })
	}},
	{Chain, "an orphan", func(s *scene) { s.checkpoints = s.checkpoints[:len(s.checkpoints)-1] }},
	{Chain, "a segment is gone", func(s *scene) { drop(&s.segments, isBody(0)) }},
	{Chain, "a segment was altered", func(s *scene) { find(s.segments, isBody(1)).SHA256 = sum("altered") }},
	{Chain, "a row was altered", func(s *scene) { find(s.segments, isBody(1)).Computed = sum("altered") }},
	{Chain, "a segment names another before it", func(s *scene) { find(s.segments, isBody(1)).Previous = sum("other") }},
	{Chain, "a checkpoint names another before it", func(s *scene) { find(s.checkpoints, isSegment(1)).Previous = sum("other") }},
	{Chain, "a checkpoint is not signed by the archivers' key", func(s *scene) { find(s.checkpoints, isSegment(1)).Unsigned = "it is not signed" }},
	{Chain, "a segment could not be read", func(s *scene) { find(s.segments, isBody(1)).Error = "no Parquet" }},
	{Chain, "the count is wrong", func(s *scene) { find(s.segments, isBody(1)).Count-- }},
	{Chain, "a gap was admitted", func(s *scene) {
		find(s.checkpoints, isSegment(1)).Kind = "gap"
		drop(&s.segments, isBody(1))
	}},
	{Chain, "a record is archived twice", func(s *scene) { s.archive = append(s.archive, s.archive[8]) }},
	{Position, "not all is processed", func(s *scene) { s.progress[1].Next-- }},
	{Position, "a position is gone", func(s *scene) {
		s.progress, s.ends[1].Committed = s.progress[:1], -1
	}},
	{Position, "Kafka's commit is ahead", func(s *scene) { s.ends[0].Committed = s.ends[0].End + 1 }},
	{Position, "it did not drain", func(s *scene) { s.run.Phases = []folder.Phase{{Name: "quiesce", Failed: "not drained in 60 s"}} }},
	{DeadLetters, "a transient error made a dead letter", func(s *scene) {
		s.letters = append(s.letters, folder.Letter{Source: "github", ID: "g05", Operation: "github-ledger", Reason: "data"})
	}},
	{DeadLetters, "poison has no dead letter", func(s *scene) { s.letters = nil }},
	{DeadLetters, "poison has two", func(s *scene) { s.letters = append(s.letters, s.letters[0]) }},
	{DeadLetters, "poison counts as processed", func(s *scene) {
		find(s.events, func(e *folder.Event) bool { return e.ID == "poison" }).Status = "processed"
	}},
	{Accounting, "a genuine request was refused", func(s *scene) {
		s.say(try{source: "stripe", id: "again", kind: journal.Duplicate, body: "again", entity: "stripe/1", version: 500, outcome: journal.Fail, status: 401})
	}},
	{Accounting, "what was refused is in Kafka", func(s *scene) {
		l := find(s.journal, func(l *journal.Line) bool { return l.ID == "quiet" && l.Outcome == journal.Info })
		l.Outcome, l.Status = journal.Fail, 413
	}},
	{Accounting, "a delivery is not counted", func(s *scene) { s.events[0].Deliveries = 2 }},
	{Accounting, "the ingress counted more", func(s *scene) { s.facts.Requests["stripe"]["accepted"] += 2 }},
	{Accounting, "the ingress counted less", func(s *scene) { s.facts.Requests["github"]["duplicate"] = 0 }},
	{Bounds, "memory went over its bound", func(s *scene) { s.facts.Resources[0].Max = 101 }},
	{Bounds, "memory did not go back", func(s *scene) { s.facts.Resources[0].End = 61 }},
	{Bounds, "a takeover took too long", func(s *scene) { s.facts.Timings[0].Seconds = 15.1 }},
	{Secrecy, "a secret in a log", func(s *scene) { s.logs["archiver.log"] = "url whsec_5ecret" }},
	{Secrecy, "a body in a log", func(s *scene) { s.logs["archiver.log"] = "canary77-3" }},
}

func isSegment(n int64) func(*folder.Checkpoint) bool {
	return func(c *folder.Checkpoint) bool { return c.Kind == "checkpoint" && c.First == 10*n }
}

func isBody(n int64) func(*folder.Segment) bool {
	return func(g *folder.Segment) bool { return g.First == 10*n }
}

// TestEachCheckIsNeeded corrupts the honest run: that check finds it, and no other.
func TestEachCheckIsNeeded(t *testing.T) {
	seen := map[int]bool{}
	for _, c := range corruptions {
		t.Run(names[c.check-1]+": "+c.name, func(t *testing.T) {
			s := honest()
			c.do(s)
			v, err := Judge(s.write(t))
			require.NoError(t, err)
			require.Equal(t, []int{c.check}, v.Failed(), "%s", findings(v))
			require.Empty(t, v.Invalid)
			require.False(t, v.Passed())
			require.NotEmpty(t, v.Checks[c.check-1].Found)
		})
		seen[c.check] = true
	}
	require.Len(t, seen, len(names))
}

// TestRunsThatShowNothing are not valid, whatever their checks say.
func TestRunsThatShowNothing(t *testing.T) {
	for want, do := range map[string]func(s *scene){
		"rebalances is zero":                 func(s *scene) { s.facts.Counters[folder.Rebalances] = 0 },
		"duplicates_in_kafka is zero":        func(s *scene) { noRecordTwice(s) },
		"the journal has 78 events, and 100": func(s *scene) { s.run.Events = 100 },
		"were acknowledged: at least 90": func(s *scene) {
			for i := range 20 {
				s.say(try{source: "github", id: "no" + string(rune('a'+i)), kind: journal.New, body: "no", entity: "github/9", outcome: journal.Fail, status: 429})
			}
		},
		"nobody knows whether they were taken": func(s *scene) {
			for i := range 4 {
				s.say(try{source: "github", id: "no" + string(rune('a'+i)), kind: journal.New, body: "no", entity: "github/9", outcome: journal.Info})
			}
		},
		"an answer to attempt 9999 of": func(s *scene) {
			s.journal = append(s.journal, s.journal[1])
			s.journal[len(s.journal)-1].Number = 9999
		},
		"Kafka has deleted records of e": func(s *scene) { s.ends[0].Start = 1 },
	} {
		t.Run(want, func(t *testing.T) {
			s := honest()
			do(s)
			v, err := Judge(s.write(t))
			require.NoError(t, err)
			require.False(t, v.Valid)
			require.False(t, v.Passed())
			require.Contains(t, strings.Join(v.Invalid, "\n"), want)
		})
	}
	s := honest()
	s.journal = nil
	v, err := Judge(s.write(t))
	require.NoError(t, err)
	require.Contains(t, v.Invalid, "no event was sent")
}

// noRecordTwice leaves the events out that came to Kafka twice.
func noRecordTwice(s *scene) {
	s.journal = slices.DeleteFunc(s.journal, func(l journal.Line) bool { return l.ID == "again" || l.ID == "other" })
	s.kafka = slices.DeleteFunc(s.kafka, func(r folder.Record) bool { return r.ID == "again" || r.ID == "other" })
}

// TestAnyRowThatIsMissingIsFound takes one row after the other out of every dump.
func TestAnyRowThatIsMissingIsFound(t *testing.T) {
	dir := honest().write(t)
	dumps, err := filepath.Glob(filepath.Join(dir, folder.Dump, "*.jsonl"))
	require.NoError(t, err)
	require.Len(t, dumps, 15)
	r := rand.New(rand.NewPCG(1, 2))
	for _, name := range dumps {
		whole, err := os.ReadFile(name)
		require.NoError(t, err)
		rows := bytes.SplitAfter(whole, []byte("\n"))
		rows = rows[:len(rows)-1]
		require.NotEmpty(t, rows, name)
		for _, i := range r.Perm(len(rows))[:min(len(rows), 12)] {
			less := slices.Concat(slices.Concat(rows[:i]...), slices.Concat(rows[i+1:]...))
			require.NoError(t, os.WriteFile(name, less, 0o644))
			v, err := Judge(dir)
			require.NoError(t, err)
			require.NotEmpty(t, v.Failed(), "%s without %s", filepath.Base(name), rows[i])
		}
		require.NoError(t, os.WriteFile(name, whole, 0o644))
	}
}

// TestAnyByteOfADigestCounts alters one digest after the other.
func TestAnyByteOfADigestCounts(t *testing.T) {
	for name, do := range map[string]func(s *scene, i int){
		"kafka":   func(s *scene, i int) { s.kafka[i%len(s.kafka)].SHA256 = sum("altered") },
		"archive": func(s *scene, i int) { s.archive[i%len(s.archive)].SHA256 = sum("altered") },
		"events":  func(s *scene, i int) { s.events[i%len(s.events)].SHA256 = sum("altered") },
		"objects": func(s *scene, i int) { s.segments[i%len(s.segments)].SHA256 = sum("altered") },
		"roots":   func(s *scene, i int) { s.segments[i%len(s.segments)].Root = sum("altered") },
	} {
		t.Run(name, func(t *testing.T) {
			for i := range 8 {
				s := honest()
				do(s, i*7)
				v, err := Judge(s.write(t))
				require.NoError(t, err)
				require.NotEmpty(t, v.Failed())
			}
		})
	}
}

func TestFolderThatWasNotRead(t *testing.T) {
	dir := honest().write(t)
	require.NoError(t, os.Remove(filepath.Join(dir, folder.LedgerFile)))
	_, err := Judge(dir)
	require.ErrorContains(t, err, "there is no "+folder.LedgerFile)
	_, err = Judge(t.TempDir())
	require.ErrorContains(t, err, folder.RunFile)
}

func TestVerdictIsJSON(t *testing.T) {
	v, err := Judge(honest().write(t))
	require.NoError(t, err)
	text, err := json.Marshal(v)
	require.NoError(t, err)
	var back Verdict
	require.NoError(t, json.Unmarshal(text, &back))
	require.Equal(t, *v, back)
}

func findings(v *Verdict) string {
	var all []string
	for _, c := range v.Checks {
		all = append(all, c.Found...)
	}
	return strings.Join(all, "\n")
}
