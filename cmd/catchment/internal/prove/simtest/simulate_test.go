//go:build synctests

package simtest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/archiver"
)

// Variables of the simulation.
const (
	envSeeds = "CATCHMENT_SIMULATE_SEEDS" // how many
	envSeed  = "CATCHMENT_SIMULATE_SEED"  // which one is first
	envLog   = "CATCHMENT_SIMULATE_LOG"   // file for the services' logs, where one seed is run
	envLane  = "CATCHMENT_SIMULATE_LANE"  // N/M: this process runs each M-th seed, from the N-th on
)

func number(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	require.NoError(t, err, name)
	return n
}

// prepare lets a process make outside of all bubbles what its archivers share: channels of one bubble are of no use in the next.
var prepare = sync.OnceValue(func() error {
	cfg, err := base()
	if err != nil {
		return err
	}
	dir, err := temporary()
	if err != nil {
		return err
	}
	c := *cfg
	c.Archive.URL = "file://" + dir
	_, err = archiver.New(&c, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	return errors.Join(err, os.RemoveAll(dir))
})

// simulate runs a seed in a bubble of its own. What libraries keep for the next caller may hold channels of the bubble
// before, which nobody may use outside of it: two collections empty their pools.
func simulate(t *testing.T, seed uint64, sc Scenario) (v *Verdict) {
	t.Helper()
	require.NoError(t, prepare())
	runtime.GC()
	runtime.GC()
	dir, err := temporary()
	require.NoError(t, err)
	defer func() { require.NoError(t, os.RemoveAll(dir)) }()
	synctest.Test(t, func(*testing.T) { v, err = inBubble(seed, dir, sc) })
	require.NoError(t, err)
	return v
}

const verdictLine = "verdict: "

// TestSimulate runs seeds, in as many processes as there are processors: within one, a bubble comes after the other.
func TestSimulate(t *testing.T) {
	first, seeds := number(t, envSeed, 1), number(t, envSeeds, 20)
	if lane := os.Getenv(envLane); lane != "" {
		runLane(t, lane, first, seeds)
		return
	}
	began, lanes := time.Now(), min(runtime.GOMAXPROCS(0), int(seeds))
	all := make(chan []Verdict, lanes)
	for n := range lanes {
		go func() { all <- spawn(t, fmt.Sprintf("%d/%d", n, lanes)) }()
	}
	counts, faults := map[string]int{}, map[string]int{}
	ran, accepted, wrong := 0, 0, 0
	for range lanes {
		for _, v := range <-all {
			ran++
			accepted += v.Accepted
			for k, n := range v.Counts {
				counts[k] += n
			}
			for k, n := range v.Faults {
				faults[k] += n
			}
			if len(v.Wrong) > 0 {
				wrong++
				t.Errorf("%s=%d\n%s", envSeed, v.Seed, &v)
			}
		}
	}
	require.Equal(t, int(seeds), ran, "seeds that ran to their end")
	took := time.Since(began)
	t.Logf("%d seeds in %s: %.0f a minute; %d deliveries acknowledged, %d wrong\nfaults: %v\nseen: %v", ran, took.Round(time.Second), float64(ran)/took.Minutes(), accepted, wrong, faults, counts)
}

// runLane tells of each seed in a line of its own.
func runLane(t *testing.T, lane string, first, seeds uint64) {
	t.Helper()
	var n, lanes uint64
	_, err := fmt.Sscanf(lane, "%d/%d", &n, &lanes)
	require.NoError(t, err, envLane)
	sc := Scenario{}
	if path := os.Getenv(envLog); path != "" {
		f, err := os.Create(path)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, f.Close()) })
		sc.Log = f
	}
	for ; n < seeds; n += lanes {
		line, err := json.Marshal(simulate(t, first+n, sc))
		require.NoError(t, err)
		fmt.Printf("%s%s\n", verdictLine, line)
	}
}

func spawn(t *testing.T, lane string) (list []Verdict) {
	cmd := exec.Command(os.Args[0], "-test.run", "^TestSimulate$", "-test.timeout", "0")
	cmd.Env = append(os.Environ(), envLane+"="+lane, "GOMAXPROCS=1")
	out, err := cmd.StdoutPipe()
	if err == nil {
		cmd.Stderr = cmd.Stdout
		err = cmd.Start()
	}
	if err != nil {
		t.Errorf("lane %s: %v", lane, err)
		return nil
	}
	var rest strings.Builder
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		var v Verdict
		if text, ok := strings.CutPrefix(line, verdictLine); ok && json.Unmarshal([]byte(text), &v) == nil {
			list = append(list, v)
		} else if rest.Len() < 1<<16 {
			rest.WriteString(line)
		}
		if err != nil {
			break
		}
	}
	_, _ = io.Copy(io.Discard, out)
	if err := cmd.Wait(); err != nil {
		t.Errorf("lane %s, after %d seeds: %v\n%s", lane, len(list), err, rest.String())
	}
	return list
}
