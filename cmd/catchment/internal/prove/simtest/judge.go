package simtest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/parquet-go/parquet-go"
)

// judge holds what the providers know against what Kafka, the database and the archive hold. Its numbers are those of the
// checks of `catchment prove`.
type judge struct {
	*world
	db       *state
	records  []record
	halted   map[string]string
	repeated int
}

// row is what the judge reads of the archive, with a schema of its own.
type row struct {
	Source    string    `parquet:"source"`
	EventID   string    `parquet:"event_id"`
	Delivery  string    `parquet:"delivery_id"`
	Body      []byte    `parquet:"body"`
	Timestamp time.Time `parquet:"kafka_timestamp,timestamp(microsecond)"`
	Partition int32     `parquet:"partition"`
	Offset    int64     `parquet:"offset"`
}

var segmentName = regexp.MustCompile(`date=(\d{4}-\d\d-\d\d)/.*-(\d{5})-(\d{20})\.parquet$`)

// segment is an object of the archive.
type segment struct {
	path, day string
	partition int32
	first     int64
	rows      []row
}

// segments reads the archive; afresh: also what it has read before.
func (w *world) segments(afresh bool) ([]segment, error) {
	var list []segment
	root := filepath.Join(w.dir, "archive", "events")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		m := segmentName.FindStringSubmatch(path)
		if errors.Is(err, fs.ErrNotExist) || m == nil {
			return nil
		}
		if err != nil {
			return err
		}
		if s, ok := w.read[path]; ok && !afresh {
			list = append(list, s)
			return nil
		}
		s := segment{path: path, day: m[1]}
		p, _ := strconv.Atoi(m[2])
		s.partition = int32(p)
		s.first, _ = strconv.ParseInt(m[3], 10, 64)
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		r := parquet.NewGenericReader[row](bytes.NewReader(content))
		s.rows = make([]row, r.NumRows())
		if n, err := r.Read(s.rows); n != len(s.rows) || err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("%s: %d of %d rows: %w", path, n, len(s.rows), err)
		}
		list = append(list, s)
		w.read[path] = s
		return r.Close()
	})
	return list, err
}

// archivedTo is where the segments of a partition end, by their checkpoints' names and the segments' rows.
func (w *world) archivedTo(p int32) int64 {
	list, _ := w.segments(false)
	end := int64(0)
	for _, s := range list {
		if s.partition == p {
			end = max(end, s.first+int64(len(s.rows)))
		}
	}
	return end
}

func (j *judge) judge() {
	want := map[key]map[string]bool{} // bodies that were sent
	for i := range j.events {
		e := &j.events[i]
		if e.forged {
			continue
		}
		if want[e.key] == nil {
			want[e.key] = map[string]bool{}
		}
		want[e.key][e.body] = true
	}
	j.acknowledged()
	j.kafkaHolds(want)
	j.effects()
	j.archive(want)
	for _, k := range j.provider.givenUp {
		j.blame("10 position: %s was never accepted", k)
	}
	if j.provider.forged > 0 {
		j.blame("8 invented: %d forgeries were accepted", j.provider.forged)
	}
	for role, why := range j.halted {
		j.blame("10 position: %s: %s", role, why)
	}
}

func (k key) String() string { return k.source + "/" + k.id }

// acknowledged: what was answered 200 is in the database, and in Kafka.
func (j *judge) acknowledged() {
	deliveries, contents := map[string]bool{}, map[string]bool{}
	for _, r := range j.records {
		deliveries[r.delivery] = true
		contents[r.key.String()+digest([]byte(r.body))] = true
	}
	for _, a := range j.provider.accepted {
		if _, ok := j.db.identities[a.key]; !ok {
			j.blame("1 loss: %s was acknowledged and is not in the database", a.key)
		}
		if _, ok := j.db.bodies[a.key]; !ok {
			j.blame("1 loss: %s was acknowledged and has no body in the database", a.key)
		}
		if !j.trimmed && (!a.duplicate && !deliveries[a.delivery] || a.duplicate && !contents[a.key.String()+a.sha]) {
			j.blame("3 honesty: %s was acknowledged (duplicate: %v) and is not in Kafka", a.key, a.duplicate)
		}
	}
}

func (j *judge) kafkaHolds(want map[key]map[string]bool) {
	count := map[key]int{}
	for _, r := range j.records {
		count[r.key]++
		if !want[r.key][r.body] {
			j.blame("8 invented: Kafka holds %s with bytes that nobody sent", r.key)
		}
	}
	for _, n := range count {
		j.repeated += n - 1
	}
}

func (j *judge) effects() {
	executed, best := map[string]int{}, map[string]order{}
	for i := range j.events {
		e := &j.events[i]
		_, there := j.db.identities[e.key]
		if n := j.db.ledger[e.key]; there && n != 1 {
			j.blame("4 once: %s has had its effect %d times", e.key, n)
		}
		if !there {
			continue
		}
		executed[e.entity]++
		if b, ok := best[e.entity]; !ok || e.version > b.version || e.version == b.version && e.id > b.id {
			best[e.entity] = order{e.version, e.id}
		}
	}
	for k := range j.db.ledger {
		if _, ok := j.db.identities[k]; !ok {
			j.blame("4 once: %s has had an effect without an identity", k)
		}
	}
	for entity, n := range j.db.counters {
		if n != executed[entity] {
			j.blame("5 sums: %s counts %d, of %d events", entity, n, executed[entity])
		}
	}
	for entity, o := range best {
		if j.db.orders[entity] != o {
			j.blame("6 newest: %s is %v, and not %v", entity, j.db.orders[entity], o)
		}
	}
	last := map[string]int64{}
	for _, c := range j.db.history {
		if v, ok := last[c.entity]; ok && c.version < v {
			j.blame("7 monotone: %s went from version %d to %d", c.entity, v, c.version)
		}
		last[c.entity] = c.version
	}
	for _, l := range j.db.letters {
		j.blame("11 dead letters: %s", l)
	}
	for k, n := range j.db.conflicts {
		j.blame("8 invented: %s has %d conflicts", k, n)
	}
}

func (j *judge) archive(want map[key]map[string]bool) {
	list, err := j.segments(true)
	if err != nil {
		j.blame("9 archive: %v", err)
	}
	type at struct {
		partition int32
		offset    int64
	}
	times := map[at]int{}
	bodies := map[at]string{}
	for _, s := range list {
		for i, r := range s.rows {
			if r.Offset != s.first+int64(i) || r.Partition != s.partition {
				j.blame("9 archive: %s has offset %d in row %d", filepath.Base(s.path), r.Offset, i)
			}
			if i == 0 && r.Timestamp.UTC().Format(time.DateOnly) != s.day {
				j.blame("9 archive: a segment of %s lies in the folder of %s", r.Timestamp.UTC().Format(time.DateOnly), s.day)
			}
			times[at{r.Partition, r.Offset}]++
			bodies[at{r.Partition, r.Offset}] = string(r.Body)
			if k := (key{strings.TrimPrefix(r.Source, "/webhooks/"), r.EventID}); !want[k][string(r.Body)] {
				j.blame("8 invented: the archive holds %s with bytes that nobody sent", k)
			}
		}
	}
	for _, r := range j.records {
		switch n := times[at{r.partition, r.offset}]; {
		case n == 0:
			j.blame("2 archive: %s, offset %d of partition %d, is in no segment", r.key, r.offset, r.partition)
		case n > 1:
			j.blame("9 archive: offset %d of partition %d is in %d segments", r.offset, r.partition, n)
		case bodies[at{r.partition, r.offset}] != r.body:
			j.blame("2 archive: %s, offset %d of partition %d, has other bytes than in Kafka", r.key, r.offset, r.partition)
		}
	}
}
