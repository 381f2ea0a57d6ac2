package prove

import (
	"iter"
	"slices"

	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/folder"
	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/nemesis"
)

// brings says which faults must have which traces: the first such fault in the schedule makes the counter a must.
var brings = map[string][]string{
	folder.FenceRejections:   {"postgres-failover"}, // a member that finds itself without partitions drops its work, and is not refused
	folder.Rebalances:        {"processor-pause", "archiver-hung-upload", "processor-kill", "archiver-kill", "rebalance-storm"},
	folder.LeaderChanges:     {"leader-kill", "two-brokers-down", "all-brokers-down"},
	folder.UnknownCommits:    {"commit-answer-lost"},
	folder.Refused412Same:    {"store-answers-lost"},
	folder.Refused412Other:   {"archiver-hung-upload"},
	folder.NotEnoughReplicas: {"replication-cut"},
}

// mustHappen are the counters that may not be zero after the first faults of the schedule: those of the workload, and those
// that a fault which is planned must bring. A whole run plans all of them.
func mustHappen(plan iter.Seq[nemesis.Slot], faults int) []string {
	planned := map[string]bool{}
	n := 0
	for slot := range plan {
		if n >= faults {
			break
		}
		for _, f := range slot {
			planned[f.Kind] = true
			n++
		}
	}
	return slices.DeleteFunc(slices.Clone(folder.MustHappen), func(counter string) bool {
		bringers, ours := brings[counter]
		return ours && !slices.ContainsFunc(bringers, func(k string) bool { return planned[k] })
	})
}
