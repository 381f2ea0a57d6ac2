package judge

import (
	"cmp"
	"maps"
	"slices"

	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/folder"
)

// chainKey names a partition of one incarnation of a topic.
type chainKey struct {
	topic, id string
	partition int32
}

func compareChains(a, b chainKey) int {
	return cmp.Or(cmp.Compare(a.topic, b.topic), cmp.Compare(a.id, b.id), cmp.Compare(a.partition, b.partition))
}

// chains wants the archive to be whole (check 9): each chain without gap and overlap from its start to the log's end, every
// digest and root true, and no object beside the chains.
func (j *judge) chains() error {
	segments := map[string]folder.Segment{}
	for s, err := range folder.Each[folder.Segment](j.dir, folder.SegmentsFile, nil) {
		if err != nil {
			return err
		}
		segments[s.Key] = s
		j.segment(&s)
	}
	links, starts := map[chainKey][]folder.Checkpoint{}, map[chainKey]int64{}
	for c, err := range folder.Each[folder.Checkpoint](j.dir, folder.CheckpointsFile, nil) {
		if err != nil {
			return err
		}
		k := chainKey{c.Topic, c.TopicID, c.Partition}
		if c.Unsigned != "" {
			j.found(Chain, "%s: %s", c.Key, c.Unsigned)
		}
		switch {
		case c.Error != "":
			j.found(Chain, "%s: %s", c.Key, c.Error)
		case c.Kind == "start":
			starts[k] = c.First
		default:
			links[k] = append(links[k], c)
		}
	}
	ends := map[chainKey]int64{}
	for _, k := range slices.SortedFunc(maps.Keys(links), compareChains) {
		first, ok := starts[k]
		if !ok {
			j.found(Chain, "topic %s, partition %d: the chain has no object that says where it starts", k.topic, k.partition)
		}
		ends[k] = j.chain(links[k], first, segments)
	}
	for _, key := range slices.Sorted(maps.Keys(segments)) {
		j.found(Chain, "%s: no checkpoint names it", key)
	}
	return j.coverage(starts, ends)
}

// segment judges what an object says of itself.
func (j *judge) segment(s *folder.Segment) {
	switch {
	case s.Error != "":
		j.found(Chain, "%s: %s", s.Key, s.Error)
	case s.Count != s.Last-s.First+1 || s.Rows != s.Count:
		j.found(Chain, "%s: offsets %d to %d, a count of %d, and %d rows", s.Key, s.First, s.Last, s.Count, s.Rows)
	case s.Root != s.Computed:
		j.found(Chain, "%s: the Merkle root over its rows is not the footer's", s.Key)
	}
}

// chain walks one chain and returns the offset after its end. Segments that it names are taken out of the list.
func (j *judge) chain(links []folder.Checkpoint, next int64, segments map[string]folder.Segment) int64 {
	slices.SortFunc(links, func(a, b folder.Checkpoint) int { return cmp.Compare(a.First, b.First) })
	previous, segment := "none", ""
	for _, c := range links {
		if c.First != next {
			j.found(Chain, "%s: the chain goes on at offset %d, and it begins at %d", c.Key, next, c.First)
		}
		if c.Previous != previous {
			j.found(Chain, "%s: it does not name the chain's object before it", c.Key)
		}
		next, previous = c.Last+1, c.Own
		if c.Kind == "gap" {
			if !j.run.Shared { // the run's own rows are looked for all the same
				j.found(Chain, "%s: a gap was admitted, of offsets %d to %d", c.Key, c.First, c.Last)
			}
			continue
		}
		s, ok := segments[c.Segment]
		delete(segments, c.Segment)
		switch {
		case !ok:
			j.found(Chain, "%s: its segment is not there: %s", c.Key, c.Segment)
		case s.Error != "": // which is told
		case s.SHA256 != c.SHA256 || s.Size != c.Size:
			j.found(Chain, "%s: it is not the object that its checkpoint names", s.Key)
		case s.Root != c.Root || s.First != c.First || s.Last != c.Last:
			j.found(Chain, "%s: root or offsets are not those of its checkpoint", s.Key)
		case s.Topic != c.Topic || s.TopicID != c.TopicID || s.Partition != c.Partition:
			j.found(Chain, "%s: it is of another partition than its checkpoint", s.Key)
		case s.Previous != segment:
			j.found(Chain, "%s: it does not name the segment before it", s.Key)
		}
		segment = c.SHA256
	}
	return next
}

// coverage wants the chains to reach the logs' ends.
func (j *judge) coverage(starts, ends map[chainKey]int64) error {
	for p, err := range folder.Each[folder.Partition](j.dir, folder.PartitionsFile, nil) {
		if err != nil {
			return err
		}
		k := chainKey{p.Topic, p.TopicID, p.Partition}
		if start := starts[k]; start > p.Start {
			j.found(Chain, "topic %s, partition %d: the chain starts at offset %d, the log at %d", p.Topic, p.Partition, start, p.Start)
		}
		end := ends[k]
		delete(ends, k)
		if end != p.End {
			j.found(Chain, "topic %s, partition %d: the chain ends before offset %d, and the log before %d", p.Topic, p.Partition, end, p.End)
		}
	}
	if j.run.Shared {
		clear(ends)
	}
	for _, k := range slices.SortedFunc(maps.Keys(ends), compareChains) {
		j.found(Chain, "topic %s (%s), partition %d: it is in the archive, and not in Kafka", k.topic, k.id, k.partition)
	}
	return nil
}
