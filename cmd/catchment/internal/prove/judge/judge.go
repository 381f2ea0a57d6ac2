// Package judge decides whether a run shows what it claims. A run's folder comes in: the providers' journal, what was found in
// Kafka, Postgres and the archive, faults, facts and logs; a verdict of 14 checks goes out, each with the IDs that it found. It
// is a function of the folder alone, and must never ask the system, forgive, or pass a run in which nothing happened.
package judge

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/folder"
)

// Verdict is what a run has shown. It passes when it is valid and every check is OK.
type Verdict struct {
	Seed     uint64 `json:"seed"`
	Events   int64  `json:"events"`   // genuine ones that were sent
	Acked    int64  `json:"acked"`    // of which an attempt was answered with a whole 2xx
	Unknown  int64  `json:"unknown"`  // none was, and one may have been taken
	Rejected int64  `json:"rejected"` // none was taken
	Attempts int64  `json:"attempts"` // requests, forged ones as well
	Faults   int    `json:"faults"`
	Kinds    int    `json:"kinds"`

	Lost      int64 `json:"lost"`      // acknowledged deliveries that are missing somewhere: checks 1 to 3
	Doubled   int64 `json:"doubled"`   // effects more than one for each event: checks 4 and 5
	Invented  int64 `json:"invented"`  // check 8
	Regressed int64 `json:"regressed"` // checks 6 and 7

	Valid    bool             `json:"valid"`
	Invalid  []string         `json:"invalid"` // why the run shows nothing
	Counters map[string]int64 `json:"counters"`
	Checks   []Check          `json:"checks"`
}

// Check is one of the 14.
type Check struct {
	Number int      `json:"number"`
	Name   string   `json:"name"`
	OK     bool     `json:"ok"`
	Count  int64    `json:"count"`          // of what was found
	Found  []string `json:"found"`          // the first of it, by name
	Note   string   `json:"note,omitempty"` // what could not be looked at
}

// The checks' numbers.
const (
	LossDB = iota + 1
	LossArchive
	AckHonesty
	Once
	Sums
	Newest
	Monotone
	NoInvention
	Chain
	Position
	DeadLetters
	Accounting
	Bounds
	Secrecy
)

var names = [...]string{
	"loss-db", "loss-archive", "ack-honesty", "once", "sums", "newest", "monotone", "no-invention", "archive-chain", "position",
	"dead-letters", "accounting", "bounds", "secrecy",
}

// mostFound is how many findings of a check are named.
const mostFound = 50

// Passed says whether the run is valid and every check is OK.
func (v *Verdict) Passed() bool { return v.Valid && len(v.Failed()) == 0 }

// Failed are the numbers of the checks that found something.
func (v *Verdict) Failed() []int {
	failed := []int{}
	for _, c := range v.Checks {
		if !c.OK {
			failed = append(failed, c.Number)
		}
	}
	return failed
}

// Line is the run's last line: JSON, with the numbers of the checks that failed.
func (v *Verdict) Line() string {
	text, _ := json.Marshal(struct { // numbers and texts always marshal
		Seed      uint64 `json:"seed"`
		Acked     int64  `json:"acked"`
		Unknown   int64  `json:"unknown"`
		Faults    int    `json:"faults"`
		Kinds     int    `json:"kinds"`
		Lost      int64  `json:"lost"`
		Doubled   int64  `json:"doubled"`
		Invented  int64  `json:"invented"`
		Regressed int64  `json:"regressed"`
		Valid     bool   `json:"valid"`
		Failed    []int  `json:"failed"`
	}{v.Seed, v.Acked, v.Unknown, v.Faults, v.Kinds, v.Lost, v.Doubled, v.Invented, v.Regressed, v.Valid, v.Failed()})
	return string(text)
}

// The thresholds of a valid run.
const (
	leastAcked  = 0.90
	mostUnknown = 0.05
)

// Judge reads the folder of a run. The error says that the folder cannot be read; what is wrong with the run is in the verdict.
func Judge(dir string) (*Verdict, error) { return judged(dir, shardBytes) }

// judged is Judge with so many bytes of the journal at once.
func judged(dir string, atOnce int64) (*Verdict, error) {
	j := &judge{dir: dir, atOnce: atOnce, shared: map[string]string{}, v: &Verdict{Invalid: []string{}, Counters: map[string]int64{}}, entities: map[string]*entity{}, said: map[string]*tally{}}
	for i, name := range names {
		j.v.Checks = append(j.v.Checks, Check{Number: i + 1, Name: name, Found: []string{}})
	}
	if err := j.begin(); err != nil {
		return nil, err
	}
	for n := range j.shards {
		if err := j.shard(n); err != nil {
			return nil, err
		}
	}
	for _, step := range []func() error{j.sums, j.newest, j.monotone, j.chains, j.position, j.accounts, j.bounds, j.secrecy} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	j.validate()
	for i := range j.v.Checks {
		j.v.Checks[i].OK = j.v.Checks[i].Count == 0
	}
	return j.v, nil
}

// judge is one call of Judge.
type judge struct {
	dir    string
	atOnce int64
	v      *Verdict
	run    folder.Run
	facts  folder.Facts
	shards uint64
	noAck  []window
	shared map[string]string // texts that many rows have

	entities map[string]*entity
	said     map[string]*tally // by source: what the providers saw
}

// entity is what must have become of an entity.
type entity struct {
	executed int64
	writes   int64 // of its state that succeeded
	version  int64
	id       string
}

// tally counts a source's answers.
type tally struct{ accepted, duplicate, unsure int64 }

// shardBytes is about how much of a journal is judged at once. Two to three times as much memory is needed, and all files are
// read once for each shard.
const shardBytes = 512 << 20

func (j *judge) begin() error {
	if err := folder.Read(j.dir, folder.RunFile, &j.run); err != nil {
		return err
	}
	if err := folder.Read(j.dir, folder.FactsFile, &j.facts); err != nil && !os.IsNotExist(err) {
		return err
	}
	j.v.Seed = j.run.Seed
	info, err := os.Stat(filepath.Join(j.dir, folder.JournalFile))
	if err != nil {
		return err
	}
	j.shards = uint64(info.Size()/j.atOnce) + 1
	for _, file := range []string{
		folder.KafkaFile, folder.PartitionsFile, folder.ArchiveFile, folder.SegmentsFile, folder.CheckpointsFile, folder.IdentitiesFile,
		folder.EventsFile, folder.ResultsFile, folder.ConflictsFile, folder.LettersFile, folder.ProgressFile, folder.LedgerFile,
		folder.CountersFile, folder.StateFile, folder.HistoryFile,
	} {
		if !folder.Exists(j.dir, file) {
			return fmt.Errorf("there is no %s: the run was not read to its end", file)
		}
	}
	return j.readFaults()
}

func (j *judge) found(check int, format string, args ...any) {
	c := &j.v.Checks[check-1]
	if c.Count++; len(c.Found) < mostFound {
		c.Found = append(c.Found, fmt.Sprintf(format, args...))
	}
}

func (j *judge) invalid(format string, args ...any) {
	j.v.Invalid = append(j.v.Invalid, fmt.Sprintf(format, args...))
}

// mine says whether a line belongs to a shard, from its beginning, which is its source and ID.
func (j *judge) mine(shard uint64) func(line []byte) bool {
	if j.shards == 1 {
		return nil
	}
	return func(line []byte) bool {
		rest, ok := bytes.CutPrefix(line, []byte(`{"source":"`))
		source, rest, ok1 := bytes.Cut(rest, []byte(`"`))
		rest, ok2 := bytes.CutPrefix(rest, []byte(`,"id":"`))
		id, _, ok3 := bytes.Cut(rest, []byte(`"`))
		if !ok || !ok1 || !ok2 || !ok3 || bytes.IndexByte(source, '\\') >= 0 || bytes.IndexByte(id, '\\') >= 0 {
			return true // settled when it is decoded
		}
		return j.shardOf(string(source), string(id)) == shard
	}
}

// shardOf keeps the sources whose deliveries have several events together, for those have other IDs than their delivery.
func (j *judge) shardOf(source, id string) uint64 {
	if j.shards == 1 || slices.Contains(j.run.Split, source) {
		return 0
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(source + "\x00" + id))
	return h.Sum64() % j.shards
}

// each reads the lines of a file that belong to the shard.
func each[T any](j *judge, shard uint64, name string, whose func(*T) (source, id string), use func(*T)) error {
	for row, err := range folder.Each[T](j.dir, name, j.mine(shard)) {
		if err != nil {
			return err
		}
		if source, id := whose(&row); j.shardOf(source, id) == shard {
			use(&row)
		}
	}
	return nil
}

// validate says whether the run has shown anything.
func (j *judge) validate() {
	v := j.v
	if v.Events == 0 {
		j.invalid("no event was sent")
	} else {
		if share := float64(v.Acked) / float64(v.Events); share < leastAcked {
			j.invalid("%.1f %% of the events were acknowledged: at least %.0f %% must be", 100*share, 100*leastAcked)
		}
		if share := float64(v.Unknown) / float64(v.Events); share > mostUnknown {
			j.invalid("of %.1f %% of the events nobody knows whether they were taken: at most %.0f %% may be so", 100*share, 100*mostUnknown)
		}
	}
	if j.run.Events > 0 && v.Events < int64(j.run.Events) {
		j.invalid("the journal has %d events, and %d were begun", v.Events, j.run.Events)
	}
	must := j.run.Must
	if must == nil {
		must = folder.MustHappen
	}
	for name, n := range j.facts.Counters {
		if !slices.Contains(folder.Judged, name) {
			v.Counters[name] = n
		}
	}
	for _, name := range must {
		if v.Counters[name] == 0 {
			j.invalid("%s is zero: what the run is for did not happen", name)
		}
	}
	v.Valid = len(v.Invalid) == 0
}

func comparePlaces(a, b *folder.Record) int {
	return cmp.Or(strings.Compare(a.TopicID, b.TopicID), cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset))
}
