package processor

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/settings"
)

// envSeed repeats a run of TestR31AnyOrderOneState.
const envSeed = "CATCHMENT_TEST_SEED"

// R31, R32: twelve orders' events, in any order, each any number of times, in batches of any size, on any number of
// partitions that are consumed beside each other, of two operations that share a guard: the state is always that of
// the newest event, ties included, and every event has had its effect once.
func TestR31AnyOrderOneState(t *testing.T) {
	const cases, lanes = 200, 4
	seed := rand.Uint64()
	if text := os.Getenv(envSeed); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err, envSeed)
	}
	t.Logf("%s=%d", envSeed, seed)
	w := newDatabase(t, append(append([]string{}, ledgerSchema...), ordersSchema...)...)
	paid, sent := state(), state()
	paid.Name, paid.On.Types, paid.Guard, paid.Params = "paid", []string{"paid"}, "orders", map[string]string{"status": `"paid by " + id`}
	sent.Name, sent.On.Types, sent.Guard, sent.Params = "sent", []string{"sent"}, "orders", map[string]string{"status": `"sent by " + id`}
	once := ledger("shop")
	once.SQL = config.Strings{`INSERT INTO ledger (source, event_id) VALUES (@source, @id)`}
	once.Params = nil
	w.cfg.Operations = []settings.Operation{paid, sent, once}
	eng := w.engine()
	var wg sync.WaitGroup
	events := make([]int, lanes)
	for lane := range lanes {
		wg.Go(func() {
			for n := lane; n < cases; n += lanes {
				events[lane] += newStory(n, rand.New(rand.NewPCG(seed, uint64(n)))).tell(w, eng)
			}
		})
	}
	wg.Wait()
	total := 0
	for _, n := range events {
		total += n
	}
	require.Equal(t, total, w.count(ledgerRows))
	require.Equal(t, total, w.count(`SELECT count(DISTINCT event_id) FROM ledger`))
	require.Equal(t, 0, w.count(`SELECT count(*) FROM (SELECT v, lag(v) OVER (PARTITION BY id ORDER BY n) AS before FROM history) AS h WHERE v < before`))
	require.Equal(t, 0, w.count(`SELECT count(*) FROM catchment.dead_letters`)+w.count(`SELECT count(*) FROM catchment.retries`)+w.count(`SELECT count(*) FROM catchment.conflicts`))
	require.Positive(t, w.count(`SELECT count(*) FROM catchment.duplicates`))
	require.Positive(t, w.count(`SELECT count(*) FROM catchment.results WHERE outcome = 'superseded'`))
}

// story is one case: events of twelve orders, and the state that they must leave.
type story struct {
	n      int
	rng    *rand.Rand
	events []*event.Delivery
	want   map[string]string // by order
}

func newStory(n int, rng *rand.Rand) *story {
	s := &story{n: n, rng: rng, want: map[string]string{}}
	for o := range 12 {
		id := fmt.Sprintf("c%03d-o%02d", n, o)
		best, newest := -1, ""
		for i := range 1 + rng.IntN(5) {
			v := rng.IntN(4) // ties are frequent
			d := order(fmt.Sprintf("%s-e%d", id, i), id, v, "")
			d.Type = []string{"paid", "sent"}[rng.IntN(2)]
			s.events = append(s.events, d)
			if v > best || v == best && d.ID > newest {
				best, newest = v, d.ID
				s.want[id] = fmt.Sprintf("%s by %s|%d", d.Type, d.ID, v)
			}
		}
	}
	return s
}

// tell processes the events and returns how many there were.
func (s *story) tell(w *world, eng *engine) int {
	var all []*event.Delivery
	for _, d := range s.events {
		all = append(all, d)
		for range s.rng.IntN(3) {
			again := *d
			again.DeliveryID = delivery("shop", "x", "x", "").DeliveryID
			all = append(all, &again)
		}
	}
	s.rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	lanes := make([][]*event.Delivery, 1+s.rng.IntN(3))
	for _, d := range all {
		p := s.rng.IntN(len(lanes))
		lanes[p] = append(lanes[p], d)
	}
	most := 1 + s.rng.IntN(len(all))
	var wg sync.WaitGroup
	for p, ds := range lanes {
		wk := w.take(eng, partition(int32(10*s.n+p)))
		records := log(wk.part, ds...)
		var cuts []int
		for at := 0; at < len(records); {
			at = min(at+max(4, 1+s.rng.IntN(most)), len(records))
			cuts = append(cuts, at)
		}
		wg.Go(func() {
			from := 0
			for _, to := range cuts {
				require.NoError(w.t, wk.write(w.t.Context(), records[from:to]))
				from = to
			}
		})
	}
	wg.Wait()
	var want []string
	for _, id := range slices.Sorted(maps.Keys(s.want)) {
		want = append(want, id+" "+s.want[id])
	}
	require.Equal(w.t, strings.Join(want, "\n"), w.text(`SELECT string_agg(concat(id, ' ', status, '|', v), E'\n' ORDER BY id COLLATE "C") FROM orders WHERE id LIKE $1`,
		fmt.Sprintf("c%03d-%%", s.n)), "case %d", s.n)
	return len(s.events)
}
