package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/kafka/kafkatest"
	"github.com/catchment-dev/catchment/pkg/pgtest"
	"github.com/catchment-dev/catchment/pkg/s3test"
	"github.com/catchment-dev/catchment/processor"
)

// slack is what a busy machine may take longer.
const slack = time.Minute

// faster is by how much the rules' times are shortened in TestOutages; thresholds stay as they are.
const faster = 12

var (
	forTime = regexp.MustCompile(`(?m)^(\s+for: )(\d+)m$`)
	ranges  = regexp.MustCompile(`\[(\d+)([mhd])\]|offset (\d+)([dw])`)
)

// fastRules writes the rules that are shipped, with all waits and ranges shortened, and returns the file.
func fastRules(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(alertsFile(t))
	require.NoError(t, err)
	shortened := 0
	short := func(number, unit string) string {
		n, err := strconv.Atoi(number)
		require.NoError(t, err)
		shortened++
		seconds := n * map[string]int{"m": 60, "h": 3600, "d": 86400, "w": 604800}[unit] / faster
		return strconv.Itoa(seconds) + "s"
	}
	fast := forTime.ReplaceAllStringFunc(string(text), func(s string) string {
		m := forTime.FindStringSubmatch(s)
		return m[1] + short(m[2], "m")
	})
	fast = ranges.ReplaceAllStringFunc(fast, func(s string) string {
		m := ranges.FindStringSubmatch(s)
		if m[1] != "" {
			return "[" + short(m[1], m[2]) + "]"
		}
		return "offset " + short(m[3], m[4])
	})
	require.Greater(t, shortened, len(alertRules(t)))
	file := filepath.Join(t.TempDir(), "alerts.yaml")
	require.NoError(t, os.WriteFile(file, []byte(fast), 0o600))
	return file
}

// outage is something that breaks, and what Prometheus makes of it.
type outage struct {
	name, alert string
	seen        time.Duration // until the rule's expression is true; its wait comes on top
	follow      []string      // alerts that are right as well, where it lasts
	breaks      func()
	heals       func()
}

// noise are alerts that a machine that is slow for everybody may raise in the shortened ranges at any time.
var noise = []string{"CatchmentAcksLate"}

// TestOutages breaks one part after the other under the programs as they are shipped, while a real Prometheus watches them with the
// alerts as they are shipped, their times a twelfth: each outage raises its alert in time, none that is not about it, and
// all is silent again once it is over.
func TestOutages(t *testing.T) {
	t.Parallel()
	prometheusTool(t, "prometheus")
	bucket := s3test.New(t)
	if bucket == nil {
		t.Skip("there is no S3 server")
	}
	k := kafkatest.Breakable(t)
	if !k.Real {
		t.Skip("there are no real brokers to kill")
	}
	pg := pgtest.Breakable(t)
	require.NoError(t, processor.Migrate(t.Context(), pg.URL))
	var storeDown atomic.Bool
	store := bucket.Proxy(t, func(*http.Request) s3test.Fault {
		if storeDown.Load() {
			return s3test.CutRequest
		}
		return s3test.None
	})
	w := newWatched(t, place{
		brokers: k.Brokers, topic: k.Topic(t, 3), db: pg.URL, archive: store.URL, telemetry: "log_level: warn",
	})
	w.watch(fastRules(t))
	w.steady()
	leader := k.Leader(w.topic, 0)
	outages := []outage{
		{
			"a broker is killed", "CatchmentKafkaUnderReplicated", 90 * time.Second,
			[]string{"CatchmentRefusing"},
			func() { k.Kill(leader) }, func() { k.Start(leader) },
		},
		{
			"Postgres stops", "CatchmentPostgresDown", 30 * time.Second,
			[]string{"CatchmentNotReady", "CatchmentUnprocessed"},
			func() { pg.Stop(pgtest.Immediate) }, pg.Start,
		},
		{
			"a secret is removed", "CatchmentSecretsUnread", 30 * time.Second, nil,
			func() { require.NoError(t, os.Remove(filepath.Join(w.dir, "other"))) }, func() { w.secret("other", otherSecret) },
		},
		{
			"a secret is another", "CatchmentSignaturesRefused", 3 * time.Minute, nil,
			func() { w.secret("other", "not what the provider signs with") }, func() { w.secret("other", otherSecret) },
		},
		{
			"the store stops", "CatchmentStoreFailing", 90 * time.Second,
			[]string{"CatchmentNotReady"},
			func() { storeDown.Store(true) }, func() { storeDown.Store(false) },
		},
	}
	require.Empty(t, w.firing(noise), "before anything is broken")
	for _, o := range outages {
		w.suffers(o)
	}
}

// suffers lets an outage happen, and be over.
func (w *watched) suffers(o outage) {
	w.t.Helper()
	allowed := append(slices.Concat(noise, o.follow), o.alert)
	limit := slack
	for _, rule := range alertRules(w.t) {
		if rule.Alert == o.alert {
			wait, err := time.ParseDuration(rule.For)
			require.NoError(w.t, err)
			limit += o.seen + wait/faster
		}
	}
	require.Greater(w.t, limit, slack, "there is no alert %s", o.alert)
	began := time.Now()
	o.breaks()
	require.True(w.t, await(w.t, limit, func() bool {
		w.onlyFire(o, allowed)
		return slices.Contains(w.firing(nil), o.alert)
	}), "%s: %s does not fire within %s", o.name, o.alert, limit)
	fired := time.Since(began)
	began = time.Now()
	o.heals()
	require.True(w.t, await(w.t, 5*time.Minute, func() bool {
		w.onlyFire(o, allowed)
		return len(w.firing(noise)) == 0
	}), "%s: it is over, and these still fire: %v", o.name, w.firing(noise))
	w.t.Logf("%s: %s after %s, silent %s after it was over", o.name, o.alert, fired.Round(time.Second), time.Since(began).Round(time.Second))
}

func (w *watched) onlyFire(o outage, allowed []string) {
	w.t.Helper()
	require.Empty(w.t, w.firing(allowed), "%s: these have nothing to do with it", o.name)
}

// firing are the names of the alerts that fire, without some.
func (w *watched) firing(without []string) []string {
	w.t.Helper()
	var names []string
	for _, one := range w.query(`ALERTS{alertstate="firing"}`) {
		if name := one["alertname"]; !slices.Contains(without, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// steady sends what nothing is wrong with, ten times a second, until the test's end, and returns when all of it has gone its way.
func (w *watched) steady() {
	w.t.Helper()
	var n atomic.Int64
	w.repeat(func(together func(func())) {
		body := fmt.Sprintf(`{"id":"evt_%d","type":"order"}`, n.Add(1))
		together(func() { w.post("other", otherSecret, body, nil) })
	})
	require.True(w.t, await(w.t, 2*time.Minute, func() bool {
		return w.processor.Metric("catchment_processor_events_total") > 0 && w.archiver.Metric("catchment_archiver_records_total") > 0
	}), "nothing goes its way: %s", strings.Join(w.firing(nil), ", "))
}
