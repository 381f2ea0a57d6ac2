package processor

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
)

// envRebalances says how many rebalances TestR27RebalanceStorm brings about.
const envRebalances = "CATCHMENT_TEST_REBALANCES"

// generation is the group's, as this member knows it; each rebalance makes a new one.
func (r *running) generation() int {
	r.mu.Lock()
	ses := r.session
	r.mu.Unlock()
	if ses == nil {
		return -1
	}
	_, generation := ses.client.GroupMetadata()
	return int(generation)
}

// R27: members join and leave, one after the other, under load. It makes no difference how the group shares the
// partitions out, nor whether its members have names of their own.
func TestR27RebalanceStorm(t *testing.T) {
	t.Parallel()
	rebalances := 16
	if text := os.Getenv(envRebalances); text != "" {
		var err error
		rebalances, err = strconv.Atoi(text)
		require.NoError(t, err, envRebalances)
	}
	for name, balancer := range map[string]kgo.GroupBalancer{"cooperative": kgo.CooperativeStickyBalancer(), "eager": kgo.RangeBalancer()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newTraffic(t, 6)
			members := []*running{w.start(kgo.Balancers(balancer))}
			settled := func() int { // how many rebalances there were, once all members know of the last one
				n := 0
				require.True(t, waitFor(func() bool {
					n = members[0].generation()
					for _, m := range members {
						if n < 1 || m.generation() != n {
							return false
						}
					}
					return true
				}))
				return n
			}
			first := settled()
			for n := first; n < first+rebalances; {
				w.send(10)
				if i := rand.IntN(4); i < len(members) && len(members) > 1 {
					members[i].stop()
					members = append(members[:i:i], members[i+1:]...)
				} else {
					members = append(members, w.start(kgo.Balancers(balancer)))
				}
				before := n
				require.True(t, waitFor(func() bool { n = settled(); return n > before }), "no rebalance")
			}
			w.settled()
			w.check()
		})
	}
	t.Run("static", func(t *testing.T) { // a member that comes back under its name takes its partitions back at once
		t.Parallel()
		w := newTraffic(t, 6)
		named := func(i int) *running { return w.start(kgo.InstanceID(fmt.Sprint("member-", i))) }
		members := []*running{named(0), named(1), named(2)}
		for range rebalances / 2 {
			w.send(10)
			i := rand.IntN(len(members))
			members[i].stop()
			members[i] = named(i)
		}
		w.settled()
		w.check()
	})
}
