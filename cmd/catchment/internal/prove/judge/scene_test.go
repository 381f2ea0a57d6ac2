package judge

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
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

const (
	sceneTopic   = "events"
	sceneResults = "results"
	sceneID      = "0123456789abcdef0123456789abcdef"
	partitions   = 2
)

// scene is a run's folder in memory, made by hand as a system without a fault would have left it.
type scene struct {
	run     folder.Run
	facts   folder.Facts
	faults  []folder.Fault
	secrets []string
	logs    map[string]string

	journal     []journal.Line
	kafka       []folder.Record
	archive     []folder.Record
	ends        []folder.Partition
	segments    []folder.Segment
	checkpoints []folder.Checkpoint
	identities  []folder.Identity
	events      []folder.Event
	results     []folder.Result
	conflicts   []folder.Conflict
	letters     []folder.Letter
	progress    []folder.Progress
	ledger      []folder.Effect
	counters    []folder.Counter
	state       []folder.State
	history     []folder.State

	clock  time.Time
	number uint64
	logged strings.Builder
}

func sum(text string) string {
	s := sha256.Sum256([]byte(text))
	return hex.EncodeToString(s[:])
}

// try is one attempt of a scene.
type try struct {
	source, id, kind, body string
	poison, forgery        string
	entity                 string
	version                int64
	parts                  []journal.Part
	outcome                journal.Outcome
	status                 int
	said                   string
	stored                 bool // a record of it came into Kafka
}

// say adds an attempt, its answer, and its record.
func (s *scene) say(t try) {
	s.number++
	n := s.number
	s.clock = s.clock.Add(time.Second)
	delivery := fmt.Sprintf("delivery-%d", n)
	a := journal.Attempt{
		Source: t.source, ID: t.id, Number: n, At: s.clock, Kind: t.kind, SHA256: sum(t.body), Size: len(t.body), Headers: sum(fmt.Sprint("headers", n)),
		Forgery: t.forgery, Poison: t.poison, Entity: t.entity, Version: t.version, Parts: t.parts,
	}
	s.journal = append(s.journal, journal.Line{Attempt: a})
	if t.outcome != "" {
		answer := journal.Answer{Outcome: t.outcome, Status: t.status, Said: t.said}
		if t.outcome != journal.Info {
			answer.Delivery = delivery
		}
		s.journal = append(s.journal, journal.Line{
			Attempt: journal.Attempt{Source: t.source, ID: t.id, Number: n, At: s.clock.Add(500 * time.Millisecond)}, Answer: answer,
		})
	}
	if !t.stored {
		return
	}
	p := int32(len(t.id) % partitions) // one event, one partition
	if t.id[len(t.id)-1]%2 == 1 {
		p = (p + 1) % partitions
	}
	r := folder.Record{
		Source: t.source, ID: t.id, TopicID: sceneID, Partition: p, Offset: s.ends[p].End, Delivery: delivery, Attempt: n,
		SHA256: a.SHA256, Size: a.Size, Headers: a.Headers,
	}
	s.ends[p].End++
	s.kafka = append(s.kafka, r)
	fmt.Fprintf(&s.logged, `{"level":"DEBUG","msg":"acknowledged","source":%q,"event_id":%q,"delivery_id":%q,"partition":%d,"offset":%d,"body_sha256":%q}`+"\n",
		t.source, t.id, delivery, p, r.Offset, r.SHA256)
}

// accepted adds an event that is taken at once.
func (s *scene) accepted(source, id, entity string, version int64) {
	s.say(try{source: source, id: id, kind: journal.New, body: source + id, entity: entity, version: version, outcome: journal.OK, status: 200, said: "accepted", stored: true})
}

// honest is a run in which everything happens, and nothing goes wrong.
func honest() *scene {
	s := &scene{clock: time.Unix(1_790_000_000, 0).UTC(), secrets: []string{"whsec_5ecret"}, logs: map[string]string{}}
	s.run = folder.Run{Seed: 42, Topic: sceneTopic, ResultsTopic: sceneResults, Split: []string{"meta"}, Canary: "canary77", Must: slices.Clone(folder.MustHappen)}
	for p := range int32(partitions) {
		s.ends = append(s.ends, folder.Partition{Topic: sceneTopic, TopicID: sceneID, Partition: p})
	}
	s.talk()
	s.process()
	s.seal()
	s.facts = folder.Facts{
		Counters: map[string]int64{},
		Resources: []folder.Resource{
			{Process: "ingress", Name: "rss_bytes", Base: 50, Max: 90, End: 55, Bound: 100, Slack: 10},
		},
		Timings:          []folder.Timing{{Name: "takeover", Seconds: 12, Bound: 15}},
		Requests:         map[string]map[string]int64{"github": {"accepted": 32, "duplicate": 1}, "stripe": {"accepted": 42}, "meta": {"accepted": 1}},
		RequestsComplete: true,
	}
	for _, name := range folder.MustHappen {
		s.facts.Counters[name] = 3
	}
	s.faults = []folder.Fault{
		{At: s.clock.Add(time.Hour), Number: 1, Kind: "kill-ingress", Phase: "begin"},
		{At: s.clock.Add(time.Hour), Number: 2, Kind: "two-brokers-down", Phase: "begin", NoAck: true},
		{At: s.clock.Add(2 * time.Hour), Number: 2, Kind: "two-brokers-down", Phase: "end", NoAck: true},
	}
	s.logs["ingress-1.log"], s.logs["processor-1.log"] = s.logged.String(), `{"level":"INFO","msg":"started"}`+"\n"
	return s
}

// talk is what the providers and forgers do.
func (s *scene) talk() {
	for i := range 30 {
		s.accepted("github", fmt.Sprintf("g%02d", i), "github/1", int64(i))
		s.accepted("stripe", fmt.Sprintf("s%02d", i), fmt.Sprintf("stripe/%d", i%4), int64(100-i))
	}
	for i := range 8 {
		s.accepted("stripe", fmt.Sprintf("tie%d", i), "stripe/tie", 7)
	}
	s.say(try{source: "stripe", id: "again", kind: journal.New, body: "again", entity: "stripe/1", version: 500, outcome: journal.Info, status: 503, stored: true})
	s.say(try{source: "stripe", id: "again", kind: journal.Retry, body: "again", entity: "stripe/1", version: 500, outcome: journal.OK, status: 200, said: "accepted", stored: true})
	s.say(try{source: "github", id: "again", kind: journal.New, body: "twin", entity: "github/2", version: 1, outcome: journal.OK, status: 200, said: "accepted", stored: true})
	s.say(try{source: "github", id: "again", kind: journal.Duplicate, body: "twin", entity: "github/2", version: 1, outcome: journal.OK, status: 200, said: "duplicate"})
	s.say(try{source: "stripe", id: "other", kind: journal.New, body: "one", entity: "stripe/2", version: 9, outcome: journal.OK, status: 200, said: "accepted", stored: true})
	s.say(try{source: "stripe", id: "other", kind: journal.Conflict, body: "two", entity: "stripe/2", version: 9, outcome: journal.OK, status: 200, said: "accepted", stored: true})
	s.say(try{source: "stripe", id: "poison", kind: journal.New, body: "poison", poison: "zero", entity: "stripe/3", version: 9, outcome: journal.OK, status: 200, said: "accepted", stored: true})
	s.say(try{source: "github", id: "quiet", kind: journal.New, body: "quiet", entity: "github/3", version: 1, outcome: journal.Info, stored: true})
	s.say(try{source: "github", id: "away", kind: journal.New, body: "away", entity: "github/3", version: 1, outcome: journal.Info})
	s.say(try{source: "github", id: "refused", kind: journal.New, body: "refused", entity: "github/3", version: 1, outcome: journal.Fail})
	s.say(try{source: "stripe", id: "false", kind: journal.Forged, body: "false", forgery: "unsigned", outcome: journal.Fail, status: 401})
	s.say(try{source: "github", id: "g00", kind: journal.Forged, body: "claimed", forgery: "wrong secret", outcome: journal.Fail, status: 401})
	s.say(try{source: "meta", id: "sha256:batch", kind: journal.New, body: "batch", outcome: journal.OK, status: 200, said: "accepted", stored: true, parts: []journal.Part{
		{ID: "m-p0", SHA256: sum("m0"), Entity: "meta/1", Version: 1}, {ID: "m-p1", SHA256: sum("m1"), Entity: "meta/2", Version: 2},
	}})
	s.accepted("github", "last", "github/4", 1)
}

// process is what a processor makes of Kafka's records.
func (s *scene) process() {
	meant := map[uint64]journal.Attempt{}
	for _, l := range s.journal {
		if !l.IsAnswer() {
			meant[l.Number] = l.Attempt
		}
	}
	stored := map[string]int{}
	for _, r := range s.kafka {
		a := meant[r.Attempt]
		if a.Parts == nil {
			s.event(stored, r, r.ID, r.SHA256, a.Entity, a.Version, a.Poison)
		}
		for _, p := range a.Parts {
			s.event(stored, r, p.ID, p.SHA256, p.Entity, p.Version, "")
		}
	}
	for _, p := range s.ends {
		s.progress = append(s.progress, folder.Progress{Topic: p.Topic, TopicID: p.TopicID, Partition: p.Partition, Next: p.End})
	}
	for p := range s.ends {
		s.ends[p].Committed = s.ends[p].End - 1
	}
}

func (s *scene) event(stored map[string]int, r folder.Record, id, body, entity string, version int64, poison string) {
	if at, ok := stored[r.Source+id]; ok {
		s.events[at].Deliveries++
		if s.events[at].SHA256 != body {
			s.conflicts = append(s.conflicts, folder.Conflict{Source: r.Source, ID: id, Delivery: r.Delivery, SHA256: body})
		}
		return
	}
	stored[r.Source+id] = len(s.events)
	s.identities = append(s.identities, folder.Identity{Source: r.Source, ID: id, Delivery: r.Delivery})
	e := folder.Event{
		Source: r.Source, ID: id, Status: "processed", Delivery: r.Delivery, SHA256: body, TopicID: r.TopicID, Partition: r.Partition, Offset: r.Offset, Deliveries: 1,
	}
	if poison != "" {
		e.Status = "dead"
		s.results = append(s.results, folder.Result{Source: r.Source, ID: id, Operation: r.Source + "-poison", Outcome: "dead"})
		s.letters = append(s.letters, folder.Letter{Source: r.Source, ID: id, Operation: r.Source + "-poison", Reason: "data", Partition: r.Partition, Offset: r.Offset})
		s.events = append(s.events, e)
		return
	}
	s.events = append(s.events, e)
	s.ledger = append(s.ledger, folder.Effect{Source: r.Source, ID: id, Entity: entity, Delivery: r.Delivery})
	s.counter(entity).N++
	result := folder.Result{Source: r.Source, ID: id, Operation: r.Source + "-state", Outcome: "superseded"}
	if now := s.stateOf(entity); version > now.Version || version == now.Version && id > now.ID {
		result.Outcome, result.Succeeded = "succeeded", 1
		now.Version, now.ID = version, id
		s.history = append(s.history, folder.State{Number: int64(len(s.history) + 1), Entity: entity, Version: version, ID: id})
	}
	s.results = append(s.results, folder.Result{Source: r.Source, ID: id, Operation: r.Source + "-ledger", Outcome: "succeeded", Succeeded: 1}, result)
}

func (s *scene) counter(entity string) *folder.Counter {
	for i := range s.counters {
		if s.counters[i].Entity == entity {
			return &s.counters[i]
		}
	}
	s.counters = append(s.counters, folder.Counter{Entity: entity})
	return &s.counters[len(s.counters)-1]
}

func (s *scene) stateOf(entity string) *folder.State {
	for i := range s.state {
		if s.state[i].Entity == entity {
			return &s.state[i]
		}
	}
	s.state = append(s.state, folder.State{Entity: entity, Version: -1})
	return &s.state[len(s.state)-1]
}

// seal is what an archiver makes of them: segments of ten records.
func (s *scene) seal() {
	s.archive = slices.Clone(s.kafka)
	s.ends = append(s.ends, folder.Partition{Topic: sceneResults, TopicID: sceneID, End: int64(len(s.results)), Committed: -1})
	for _, p := range s.ends {
		chain := fmt.Sprintf("%s-%s-%05d", p.Topic, p.TopicID, p.Partition)
		s.checkpoints = append(s.checkpoints, folder.Checkpoint{Key: "starts/" + chain, Kind: "start", Topic: p.Topic, TopicID: p.TopicID, Partition: p.Partition, Own: sum("start" + chain)})
		previous, segment := "none", ""
		for first := int64(0); first < p.End; first += 10 {
			last := min(first+9, p.End-1)
			name := fmt.Sprintf("%s-%020d", chain, first)
			one := folder.Segment{
				Key: p.Topic + "/" + name + ".parquet", Topic: p.Topic, TopicID: p.TopicID, Partition: p.Partition, First: first, Last: last, Count: last - first + 1,
				Rows: last - first + 1, SHA256: sum("segment" + name), Size: 1000, Previous: segment, Root: sum("root" + name), Computed: sum("root" + name),
			}
			c := folder.Checkpoint{
				Key: "checkpoints/" + name, Kind: "checkpoint", Topic: p.Topic, TopicID: p.TopicID, Partition: p.Partition, Segment: one.Key,
				First: first, Last: last, Size: 1000, SHA256: one.SHA256, Root: one.Root, Previous: previous, Own: sum("checkpoint" + name),
			}
			s.segments, s.checkpoints = append(s.segments, one), append(s.checkpoints, c)
			previous, segment = c.Own, one.SHA256
		}
	}
}

// write makes the folder.
func (s *scene) write(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, folder.Write(dir, folder.RunFile, s.run))
	require.NoError(t, folder.Write(dir, folder.FactsFile, s.facts))
	require.NoError(t, folder.Write(dir, folder.SecretsFile, s.secrets))
	require.NoError(t, os.Mkdir(filepath.Join(dir, folder.Logs), 0o755))
	for name, text := range s.logs {
		require.NoError(t, os.WriteFile(filepath.Join(dir, folder.Logs, name), []byte(text), 0o644))
	}
	writeLines(t, dir, folder.JournalFile, s.journal)
	writeLines(t, dir, folder.FaultsFile, s.faults)
	writeLines(t, dir, folder.KafkaFile, s.kafka)
	writeLines(t, dir, folder.ArchiveFile, s.archive)
	writeLines(t, dir, folder.PartitionsFile, s.ends)
	writeLines(t, dir, folder.SegmentsFile, s.segments)
	writeLines(t, dir, folder.CheckpointsFile, s.checkpoints)
	writeLines(t, dir, folder.IdentitiesFile, s.identities)
	writeLines(t, dir, folder.EventsFile, s.events)
	writeLines(t, dir, folder.ResultsFile, s.results)
	writeLines(t, dir, folder.ConflictsFile, s.conflicts)
	writeLines(t, dir, folder.LettersFile, s.letters)
	writeLines(t, dir, folder.ProgressFile, s.progress)
	writeLines(t, dir, folder.LedgerFile, s.ledger)
	writeLines(t, dir, folder.CountersFile, s.counters)
	writeLines(t, dir, folder.StateFile, s.state)
	writeLines(t, dir, folder.HistoryFile, s.history)
	return dir
}

func writeLines[T any](t testing.TB, dir, name string, rows []T) {
	t.Helper()
	l, err := folder.Create(dir, name)
	require.NoError(t, err)
	for _, row := range rows {
		require.NoError(t, l.Write(row))
	}
	require.NoError(t, l.Close())
}
