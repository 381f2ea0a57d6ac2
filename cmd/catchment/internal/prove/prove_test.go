package prove

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/folder"
	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/judge"
	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/nemesis"
)

// A whole run must see every trace; one of few faults those that its faults bring, and those of its providers.
func TestMustHappen(t *testing.T) {
	for seed := range uint64(20) {
		require.Equal(t, folder.MustHappen, mustHappen(nemesis.Schedule(seed, nemesis.Kinds(), nemesis.Triples), 60), "seed %d", seed)
	}
	few, err := nemesis.Choose([]string{"store-kill", "commit-answer-lost"})
	require.NoError(t, err)
	must := mustHappen(nemesis.Schedule(1, few, nemesis.Triples), 2)
	require.Contains(t, must, folder.UnknownCommits)
	require.Contains(t, must, folder.ForgeriesSent)
	require.NotContains(t, must, folder.Refused412Other)
	for counter, kinds := range brings {
		require.Contains(t, folder.MustHappen, counter)
		_, err := nemesis.Choose(kinds)
		require.NoError(t, err, counter)
	}
}

func TestRequests(t *testing.T) {
	require.Equal(t, map[string]map[string]int64{"stripe": {"accepted": 3, "duplicate": 1}}, requests(map[string]float64{
		`catchment_ingress_requests_total{outcome="accepted",source="stripe"}`:  3,
		`catchment_ingress_requests_total{outcome="duplicate",source="stripe"}`: 1,
		`catchment_ingress_verified_total{secret_id="k_1",source="stripe"}`:     4,
	}))
}

func TestReached(t *testing.T) {
	require.NoError(t, reached("read", map[int32]int64{0: 5}, map[int32]int64{0: 5, 1: 0}))
	require.ErrorContains(t, reached("read", map[int32]int64{0: 5}, map[int32]int64{0: 6, 1: 2}), "3 records")
}

func TestTable(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, folder.Write(dir, folder.RunFile, &folder.Run{Versions: map[string]string{"kafka": "4.1.0"}}))
	require.NoError(t, folder.Write(dir, folder.FactsFile, &folder.Facts{Timings: []folder.Timing{
		{Name: "killed, until taken over", Seconds: 3, Bound: 11}, {Name: "killed, until taken over", Seconds: 7, Bound: 11}, {Name: "drained", Seconds: 9},
	}}))
	require.NoError(t, folder.Write(dir, folder.VerdictFile, &judge.Verdict{Seed: 7, Acked: 10, Valid: true, Counters: map[string]int64{folder.LeaderChanges: 4}}))
	lines, err := folder.Create(dir, folder.FaultsFile)
	require.NoError(t, err)
	for _, f := range []folder.Fault{{Kind: "store-kill", Phase: "begin"}, {Kind: "store-kill", Phase: "end"}, {Kind: "flood", Phase: "begin", Error: "no"}} {
		require.NoError(t, lines.Write(f))
	}
	require.NoError(t, lines.Close())
	var out bytes.Buffer
	require.NoError(t, Table(&out, dir))
	require.Contains(t, out.String(), "| acknowledged, unknown, rejected | 10, 0, 0 |")
	require.Contains(t, out.String(), "| leader changes | 4 |")
	require.Contains(t, out.String(), "| killed, until taken over | 2 times | 3.0 s | 7.0 s | 11 s |")
	require.Contains(t, out.String(), "| `store-kill` | 1 |")
	require.NotContains(t, out.String(), "flood")
}
