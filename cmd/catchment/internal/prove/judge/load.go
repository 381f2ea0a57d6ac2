package judge

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/folder"
	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/journal"
)

// subject is all that is known of one event, or of one delivery of several events.
type subject struct {
	source, id string

	attempts []attempt
	poison   string
	entity   string
	version  int64
	several  bool     // it is a delivery; its events are subjects themselves
	of       *subject // the delivery that this event came in; nil: it came alone
	body     string   // digest of an event that came with others

	kafka, archive []*folder.Record
	acks           []ack
	identities     int
	stored         []*folder.Event
	results        []*folder.Result
	conflicts      []*folder.Conflict
	letters        []*folder.Letter
	effects        []*folder.Effect
}

// attempt is a request and its answer.
type attempt struct {
	number            uint64
	kind, forgery     string
	sum               string
	headers           string
	at, answered      time.Time
	outcome           journal.Outcome // empty: nobody knows
	status            int
	delivery, replied string
}

// ack is a line in which an ingress says that Kafka has a delivery.
type ack struct {
	Message   string `json:"msg"`
	Source    string `json:"source"`
	ID        string `json:"event_id"`
	Delivery  string `json:"delivery_id"`
	SHA256    string `json:"body_sha256"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
}

// genuine says whether the attempt came from who it says.
func (a *attempt) genuine() bool { return a.kind != journal.Forged }

// name is what the subject is called in findings.
func (s *subject) name() string { return s.source + " " + s.id }

// sent are the attempts that may have brought it.
func (s *subject) sent() []attempt {
	if s.of != nil {
		return s.of.attempts
	}
	return s.attempts
}

// known says whether it was ever sent by who it says.
func (s *subject) known() bool {
	for i := range s.sent() {
		if s.sent()[i].genuine() {
			return true
		}
	}
	return false
}

// outcome is what the attempts come to.
func (s *subject) outcome() journal.Outcome {
	result := journal.Fail
	for i := range s.sent() {
		switch a := &s.sent()[i]; {
		case !a.genuine() || a.kind == journal.Conflict:
		case a.outcome == journal.OK:
			return journal.OK
		case a.outcome != journal.Fail:
			result = journal.Info
		}
	}
	return result
}

// attempt finds one by its number.
func (s *subject) attempt(n uint64) *attempt {
	for i := range s.attempts {
		if s.attempts[i].number == n {
			return &s.attempts[i]
		}
	}
	return nil
}

// brought says whether a genuine attempt sent these bytes.
func (s *subject) brought(sum string) bool {
	return slices.ContainsFunc(s.attempts, func(a attempt) bool { return a.genuine() && a.sum == sum })
}

// subjects are those of one shard.
type subjects map[string]*subject

func (ss subjects) of(source, id string) *subject {
	key := source + "\x00" + id
	s := ss[key]
	if s == nil {
		s = &subject{source: source, id: id}
		ss[key] = s
	}
	return s
}

// load reads all that is known of a shard's subjects.
func (j *judge) load(shard uint64) (subjects, error) {
	ss := subjects{}
	err := errors.Join(
		each(j, shard, folder.JournalFile, func(l *journal.Line) (string, string) { return l.Source, l.ID }, func(l *journal.Line) { j.note(ss, l) }),
		each(j, shard, folder.KafkaFile, whoseRecord, func(r *folder.Record) { s := ss.of(r.Source, r.ID); s.kafka = append(s.kafka, j.slim(s, r)) }),
		each(j, shard, folder.ArchiveFile, whoseRecord, func(r *folder.Record) { s := ss.of(r.Source, r.ID); s.archive = append(s.archive, j.slim(s, r)) }),
		each(j, shard, folder.IdentitiesFile, func(r *folder.Identity) (string, string) { return r.Source, r.ID },
			func(r *folder.Identity) { ss.of(r.Source, r.ID).identities++ }),
		each(j, shard, folder.EventsFile, func(r *folder.Event) (string, string) { return r.Source, r.ID },
			func(r *folder.Event) { s := ss.of(r.Source, r.ID); s.stored = append(s.stored, r) }),
		each(j, shard, folder.ResultsFile, func(r *folder.Result) (string, string) { return r.Source, r.ID },
			func(r *folder.Result) { s := ss.of(r.Source, r.ID); s.results = append(s.results, r) }),
		each(j, shard, folder.ConflictsFile, func(r *folder.Conflict) (string, string) { return r.Source, r.ID },
			func(r *folder.Conflict) { s := ss.of(r.Source, r.ID); s.conflicts = append(s.conflicts, r) }),
		each(j, shard, folder.LettersFile, func(r *folder.Letter) (string, string) { return r.Source, r.ID },
			func(r *folder.Letter) { s := ss.of(r.Source, r.ID); s.letters = append(s.letters, r) }),
		each(j, shard, folder.LedgerFile, func(r *folder.Effect) (string, string) { return r.Source, r.ID },
			func(r *folder.Effect) { s := ss.of(r.Source, r.ID); s.effects = append(s.effects, r) }),
		j.loadAcks(ss, shard),
	)
	return ss, err
}

// slim lets a record share its texts with the subject and its attempt.
func (j *judge) slim(s *subject, r *folder.Record) *folder.Record {
	r.Source, r.ID, r.Segment = s.source, s.id, ""
	if known, ok := j.shared[r.TopicID]; ok {
		r.TopicID = known
	} else {
		j.shared[r.TopicID] = r.TopicID
	}
	if a := s.attempt(r.Attempt); a != nil {
		for _, of := range []struct {
			text  *string
			known string
		}{{&r.SHA256, a.sum}, {&r.Headers, a.headers}, {&r.Delivery, a.delivery}} {
			if *of.text == of.known {
				*of.text = of.known
			}
		}
	}
	return r
}

func whoseRecord(r *folder.Record) (source, id string) { return r.Source, r.ID }

// note takes a line of the journal.
func (j *judge) note(ss subjects, l *journal.Line) {
	if l.Kind == journal.Rotation {
		j.v.Counters[folder.RotationsUnderLoad]++
		return
	}
	s := ss.of(l.Source, l.ID)
	if l.IsAnswer() {
		a := s.attempt(l.Number)
		if a == nil {
			j.invalid("the journal has an answer to attempt %d of %s, and no such attempt", l.Number, s.name())
			return
		}
		a.outcome, a.status, a.delivery, a.replied, a.answered = l.Outcome, l.Status, l.Delivery, l.Said, l.At
		return
	}
	j.v.Attempts++
	s.attempts = append(s.attempts, attempt{
		number: l.Number, kind: l.Kind, forgery: l.Forgery, sum: l.SHA256, headers: l.Headers, at: l.At,
	})
	switch l.Kind {
	case journal.Forged:
		j.v.Counters[folder.ForgeriesSent]++
		return
	case journal.Conflict:
		j.v.Counters[folder.ConflictsSent]++
	case journal.New, journal.Duplicate:
		if l.Poison != "" && s.poison == "" {
			j.v.Counters[folder.PoisonSent]++
		}
	}
	s.poison, s.entity, s.version = l.Poison, l.Entity, l.Version
	for _, p := range l.Parts {
		s.several = true
		part := ss.of(l.Source, p.ID)
		part.of, part.body, part.entity, part.version = s, p.SHA256, p.Entity, p.Version
	}
}

// loadAcks reads what the ingresses logged with each acknowledgement, where they do.
func (j *judge) loadAcks(ss subjects, shard uint64) error {
	logs, err := filepath.Glob(filepath.Join(j.dir, folder.Logs, "ingress*"))
	if err != nil {
		return err
	}
	n := 0
	for _, name := range logs {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		err = lines(f, func(line string) {
			if !strings.Contains(line, `"acknowledged"`) {
				return
			}
			var a ack
			if json.Unmarshal([]byte(line), &a) != nil || a.Message != "acknowledged" || a.Delivery == "" {
				return
			}
			n++
			if j.shardOf(a.Source, a.ID) == shard {
				s := ss.of(a.Source, a.ID)
				s.acks = append(s.acks, a)
			}
		})
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	if n == 0 {
		j.v.Checks[AckHonesty-1].Note = "no ingress logged its acknowledgements (log level debug): only the providers' answers were looked at"
	}
	return nil
}

// lines calls use for each line, also for one without an end.
func lines(r io.Reader, use func(string)) error {
	in := bufio.NewReaderSize(r, 1<<20)
	for {
		line, err := in.ReadString('\n')
		if line != "" {
			use(line)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
