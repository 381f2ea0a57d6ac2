package processor

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor/internal/failpoint"
	"github.com/catchment-dev/catchment/processor/internal/store"
)

// R15: the processor is killed at each boundary between two steps of a replay, beside live traffic. The operation has its
// effect once for each event, the old and the new ones.
func TestR15KilledInReplay(t *testing.T) {
	t.Parallel()
	atEach(t, failpoint.OfJob(), func(k killing) {
		w := newLate(t)
		w.stored(k.program, k.jobSize())
		w.cfg.Operations = append(w.cfg.Operations, late())
		j := store.Job{Kind: store.Replay, Operation: "late", Rate: slowJob}
		w.ask(&j)
		p := w.process(k.program)
		k.kill(w, p)
		p.Start()
		w.settled()
		found := w.done(j.ID)
		w.eventually(0, `SELECT count(*) FROM catchment.outbox`)
		p.Stop()
		w.check()
		w.checkLate()
		require.Zero(t, found.Failed+found.Dead+found.Superseded)
		require.Equal(t, int(found.Succeeded), w.count(`SELECT affected FROM catchment.actions WHERE command = 'replay'`))
		require.Equal(t, len(w.sent), w.count(`SELECT count(*) FROM catchment.results WHERE operation = 'late' AND attempt = 1 AND outcome = 'succeeded'`))
	})
}

// R15: the processor is killed at each boundary between two steps of a redrive of operations' dead letters and of whole
// records, beside live traffic. What succeeds has its effect once; what fails again was tried once more, and is one dead
// letter as before.
func TestR15KilledInRedrive(t *testing.T) {
	t.Parallel()
	atEach(t, failpoint.OfJob(), func(k killing) {
		w := newLate(t)
		w.cfg.Operations = append(w.cfg.Operations, late())
		w.refuse(`.`)
		w.stored(k.program, k.jobSize())
		w.undecoded(20)
		old := len(w.ids)
		w.refuse(`[37]$`)
		j := store.Job{Kind: store.Redrive, Rate: slowJob}
		w.ask(&j)
		require.Equal(t, int64(old), j.Expected)
		p := w.process(k.program)
		k.kill(w, p)
		p.Start()
		w.settled()
		found := w.done(j.ID)
		want := map[string]int{} // attempts, by event that is dead
		again := 0
		for i, id := range w.ids {
			if !strings.HasSuffix(id, "3") && !strings.HasSuffix(id, "7") {
				continue
			}
			want[id] = 1
			if i < old && !w.whole[id] {
				want[id], again = 2, again+1
			}
		}
		require.Equal(t, store.Tally{Succeeded: int64(old - again), Dead: int64(again)}, found.Tally)
		require.Equal(t, want, w.letters())
		require.Equal(t, len(w.sent)-len(want), w.count(`SELECT count(*) FROM late`))

		w.refuse("")
		j = store.Job{Kind: store.Redrive}
		w.ask(&j)
		w.done(j.ID)
		w.eventually(0, `SELECT count(*) FROM catchment.outbox`)
		p.Stop()
		w.check()
		w.checkLate()
	})
}

// R15: the processor is killed at each boundary between two steps of the relay. What was committed is published, perhaps
// more than once, and then as it was; what was not committed is not.
func TestR15KilledInRelay(t *testing.T) {
	t.Parallel()
	atEach(t, failpoint.OfRelay(), func(k killing) {
		w := newLate(t)
		topic := w.kc.Topic(t, 2)
		w.cfg.Operations = append(w.cfg.Operations, settings.Operation{
			Name: "tell", On: settings.On{Source: "shop"}, Publish: &settings.Publish{Topic: topic, Key: "body.order", Value: "raw"},
		})
		p := w.process(k.program)
		k.kill(w, p)
		p.Start()
		w.settled()
		w.eventually(0, `SELECT count(*) FROM catchment.outbox`)
		p.Stop()
		w.check()
		w.checkPublished()
		told := w.published(topic)
		require.Len(t, told, len(w.sent))
		for id, d := range w.sent {
			require.Equal(t, string(d.Body), told[id+"/tell/1"])
		}
	})
}

// newLate is traffic whose results are published, with a table for an operation that comes later.
func newLate(t *testing.T) *traffic {
	t.Helper()
	w := newTraffic(t, 2)
	w.exec(`CREATE TABLE late (event_id text)`)
	w.cfg.Processor.Batch = 100
	w.cfg.Kafka.ResultsTopic = w.kc.Topic(t, 2)
	return w
}

// late is an operation whose repetition shows.
func late() settings.Operation {
	return settings.Operation{Name: "late", On: settings.On{Source: "shop"}, SQL: config.Strings{`INSERT INTO late VALUES (@id)`}}
}

// refuse lets the operation late fail for good for the events whose ID matches a pattern, and for no others.
func (w *traffic) refuse(pattern string) {
	w.t.Helper()
	w.exec(`ALTER TABLE late DROP CONSTRAINT IF EXISTS refused`)
	if pattern != "" {
		w.exec(fmt.Sprintf(`ALTER TABLE late ADD CONSTRAINT refused CHECK (event_id !~ '%s')`, pattern))
	}
}

// jobSize is how many events a job must have so that no kill finds it over: until it is killed, a program makes at most
// two transactions of slowJob.
func (k killing) jobSize() int { return slowJob * (2*k.times + 1) }

// stored lets the program store n events before the test begins.
func (w *traffic) stored(program string, n int) {
	w.t.Helper()
	w.send(n)
	p := w.process(program)
	p.Start()
	w.settled()
	p.Stop()
}

// undecoded makes n dead letters of records that another release could not read.
func (w *traffic) undecoded(n int) {
	w.t.Helper()
	for range n {
		id := fmt.Sprintf("e%05d", len(w.ids))
		d := order(id, fmt.Sprint("o", len(w.ids)%7), w.rng.IntN(1000), "s"+id)
		w.ids, w.sent[id], w.whole[id] = append(w.ids, id), d, true
		w.keep(len(w.ids), event.Encode(d))
	}
}

// done waits until a job is over; nothing holds it back any more.
func (w *traffic) done(id int64) *store.Job {
	w.t.Helper()
	w.exec(`UPDATE catchment.jobs SET rate = NULL`)
	require.True(w.t, waitFor(func() bool { return w.found(id).State == store.JobDone }), "%+v", w.found(id))
	return w.found(id)
}

// letters are the attempts of each dead letter, by event. None has two, and its results are as many as its attempts.
func (w *traffic) letters() map[string]int {
	w.t.Helper()
	rows, err := w.pool.Query(w.t.Context(), `SELECT event_id, attempts, (SELECT count(*) FROM catchment.results r
		WHERE r.source = d.source AND r.event_id = d.event_id AND r.operation = d.operation) FROM catchment.dead_letters d`)
	require.NoError(w.t, err)
	defer rows.Close()
	out := map[string]int{}
	for rows.Next() {
		var id string
		var attempts, results int
		require.NoError(w.t, rows.Scan(&id, &attempts, &results))
		require.NotContains(w.t, out, id, "a dead letter twice")
		require.Equal(w.t, attempts, results, id)
		out[id] = attempts
	}
	require.NoError(w.t, rows.Err())
	return out
}

// checkLate wants the operation late to have had its effect once for every event, and every result to be published.
func (w *traffic) checkLate() {
	w.t.Helper()
	require.Equal(w.t, len(w.sent), w.count(`SELECT count(*) FROM late`))
	require.Equal(w.t, len(w.sent), w.count(`SELECT count(DISTINCT event_id) FROM late`))
	w.checkPublished()
}

// checkPublished wants every result that is stored to be published, and no other.
func (w *traffic) checkPublished() {
	w.t.Helper()
	published := w.published(w.cfg.Kafka.ResultsTopic)
	rows, err := w.pool.Query(w.t.Context(), `SELECT event_id || '/' || operation || '/' || attempt || ' ' || outcome FROM catchment.results`)
	require.NoError(w.t, err)
	defer rows.Close()
	for rows.Next() {
		var want string
		require.NoError(w.t, rows.Scan(&want))
		id, outcome, _ := strings.Cut(want, " ")
		require.Contains(w.t, published, id)
		require.Contains(w.t, published[id], fmt.Sprintf(`"outcome":%q`, outcome))
		delete(published, id)
	}
	require.NoError(w.t, rows.Err())
	require.Empty(w.t, published, "published, and not stored")
}

// published are the values in a topic, by ce_id. What is there more than once is the same each time.
func (w *traffic) published(topic string) map[string]string {
	w.t.Helper()
	out := map[string]string{}
	cl := w.kc.Client(w.t, kgo.ConsumeTopics(topic), kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()))
	for n, end := 0, w.endOf(topic); n < end; {
		ctx, cancel := context.WithTimeout(w.t.Context(), patience)
		records := cl.PollFetches(ctx).Records()
		cancel()
		require.NotEmpty(w.t, records, "%s: %d of %d records", topic, n, end)
		n += len(records)
		for _, r := range records {
			id := header(r, "ce_id")
			if before, ok := out[id]; ok {
				require.Equal(w.t, before, string(r.Value), id)
			}
			out[id] = string(r.Value)
		}
	}
	return out
}
