package workload

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/journal"
	"github.com/catchment-dev/catchment/pkg/run"
)

// Options say what to send, and where.
type Options struct {
	Seed    uint64
	Cast    *Cast
	URLs    []string // of the ingresses, without a path: http://host:port
	Journal *journal.Journal

	Events   int     // distinct happenings; 0: until ctx ends
	Rate     float64 // of new happenings a second; 0: as fast as they are taken
	Senders  int     // at once; 0: 256
	Entities int     // of each source; 0: 5,000
	Mix      *Mix    // nil: DefaultMix

	Timeout time.Duration // of one request; 0: 10 s
	Retry   Schedule      // zero: from 50 ms to 2 s
	Drain   time.Duration // how long events are tried on after ctx has ended; 0: 30 s
	Rotate  time.Duration // how often one source's secret is changed; 0: never
	Again   time.Duration // how long after its acknowledgement an event is sent again, of those that are; 0: at once
	Settle  time.Duration // how long after a change an ingress may still take the old secret: more than it is ever paused; 0: 60 s

	Progress *Progress // counted while it runs; nil: nobody looks
}

// Schedule is when a provider tries again: Initial after the first attempt, twice as long after each further one, Max at most.
type Schedule struct{ Initial, Max time.Duration }

// Mix is how many of the happenings are something special: shares between 0 and 1.
type Mix struct {
	Duplicates float64 // sent again after they were acknowledged
	Parallel   float64 // sent two to four times at once, to different ingresses
	Conflicts  float64 // sent again with the same ID and other bytes
	Stale      float64 // of an old version
	Twins      float64 // with an ID that other sources have too
	Split      float64 // deliveries with several events
	Poison     float64 // cannot be processed
	Forged     float64 // that much more requests, which must be refused
}

// DefaultMix is what Mix is by default.
var DefaultMix = Mix{Duplicates: 0.04, Parallel: 0.02, Conflicts: 0.01, Stale: 0.1, Twins: 0.05, Split: 0.04, Poison: 0.005, Forged: 0.02}

// Progress is how far a workload has come. It may be read while the workload runs.
type Progress struct {
	Began, Acked, Attempts, Unsure, Refused, Forged, Rotations atomic.Int64
	LastAck                                                    atomic.Int64 // Unix nanoseconds of the last 2xx
}

// Report is what was sent. Happenings are events, or deliveries of several events.
type Report struct {
	Happenings int64         `json:"happenings"`
	Acked      int64         `json:"acked"`
	Unknown    int64         `json:"unknown"`  // no attempt was acknowledged, and one may have been taken
	Rejected   int64         `json:"rejected"` // none was acknowledged, and none was taken
	Attempts   int64         `json:"attempts"`
	Forged     int64         `json:"forged"`
	Rotations  int64         `json:"rotations"`
	Took       time.Duration `json:"took"`
}

// workload is one call of Run.
type workload struct {
	o        Options
	mix      Mix
	cast     *Cast
	canary   string
	client   *http.Client
	progress *Progress
	attempts atomic.Uint64

	unknown, rejected atomic.Int64
	failed            sync.Once
	failure           error
	abort             context.CancelCauseFunc
}

// Run sends until all happenings are acknowledged or given up. When ctx ends no new ones begin, and those that have begun are
// tried on for Options.Drain. The error says that the journal could not be written, or a request not be made: the run is void.
func Run(ctx context.Context, o Options) (*Report, error) {
	w, err := newWorkload(o)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	drained, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	w.abort = cancel
	stop := context.AfterFunc(ctx, func() {
		late := time.AfterFunc(w.o.Drain, func() { cancel(errDrained) })
		context.AfterFunc(drained, func() { late.Stop() })
	})
	defer stop()
	queue := make(chan uint64)
	var senders, rotation sync.WaitGroup
	for range w.o.Senders {
		senders.Go(func() {
			for seq := range queue {
				w.one(drained, seq)
			}
		})
	}
	rotating, end := context.WithCancel(ctx)
	rotation.Go(func() { w.rotate(rotating) })
	w.dispatch(ctx, drained, queue)
	close(queue)
	senders.Wait()
	end()
	rotation.Wait()
	w.client.CloseIdleConnections()
	return w.report(time.Since(began)), w.failure
}

var errDrained = errors.New("the time to drain is over")

func newWorkload(o Options) (*workload, error) {
	if o.Cast == nil || o.Journal == nil || len(o.URLs) == 0 {
		return nil, errors.New("the workload needs a cast, a journal and the URL of an ingress")
	}
	or := func(d *time.Duration, usual time.Duration) {
		if *d == 0 {
			*d = usual
		}
	}
	or(&o.Timeout, 10*time.Second)
	or(&o.Drain, 30*time.Second)
	or(&o.Settle, time.Minute)
	or(&o.Retry.Initial, 50*time.Millisecond)
	or(&o.Retry.Max, 2*time.Second)
	if o.Senders == 0 {
		o.Senders = 256
	}
	if o.Entities == 0 {
		o.Entities = 5000
	}
	w := &workload{o: o, mix: DefaultMix, cast: o.Cast, canary: canary(o.Seed), progress: o.Progress}
	if o.Mix != nil {
		w.mix = *o.Mix
	}
	if w.progress == nil {
		w.progress = &Progress{}
	}
	w.client = &http.Client{
		Timeout:       o.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			MaxIdleConnsPerHost: o.Senders, IdleConnTimeout: 30 * time.Second, DisableCompression: true,
			DialContext: (&net.Dialer{Timeout: 3 * time.Second}).DialContext,
		},
	}
	return w, nil
}

// dispatch hands out numbers of happenings, at the wanted rate.
func (w *workload) dispatch(ctx, drained context.Context, queue chan<- uint64) {
	began := time.Now()
	for seq := uint64(0); w.o.Events == 0 || seq < uint64(w.o.Events); seq++ {
		if w.o.Rate > 0 && !run.Pause(ctx, time.Until(began.Add(time.Duration(float64(seq)/w.o.Rate*float64(time.Second))))) {
			return
		}
		select {
		case queue <- seq:
		case <-ctx.Done():
			return
		case <-drained.Done():
			return
		}
	}
}

// one tells of one happening, and does with it what the seed says.
func (w *workload) one(ctx context.Context, seq uint64) {
	r := rand.New(rand.NewPCG(w.o.Seed, seq))
	h := w.happen(seq, rand.New(rand.NewPCG(w.o.Seed+1, seq)), time.Now())
	if r.Float64() < w.mix.Forged {
		w.forge(ctx, *h, r)
	}
	w.progress.Began.Add(1)
	var beside sync.WaitGroup
	if r.Float64() < w.mix.Parallel {
		for i := range 1 + r.IntN(3) {
			at := r.IntN(64)
			beside.Go(func() { w.send(ctx, h, journal.Duplicate, i, at) })
		}
	}
	again, conflict, at := r.Float64() < w.mix.Duplicates, h.parts == 0 && r.Float64() < w.mix.Conflicts, r.IntN(64)
	result := w.deliver(ctx, h, journal.New, at)
	beside.Wait()
	switch result {
	case journal.OK:
		w.progress.Acked.Add(1)
	case journal.Info:
		w.unknown.Add(1)
		return
	case journal.Fail:
		w.rejected.Add(1)
		return
	}
	if again && run.Pause(ctx, w.o.Again) {
		w.send(ctx, h, journal.Duplicate, 1+r.IntN(3), at+1)
	}
	if conflict {
		other := *h
		other.pad = random(r, 20) + "-other"
		w.deliver(ctx, &other, journal.Conflict, at+1)
	}
}

// patience is how often a provider tries where it is told each time that the request is wrong.
const patience = 8

// deliver tries until it is acknowledged, as providers do. What it returns is what became of all attempts together.
func (w *workload) deliver(ctx context.Context, h *happening, kind string, at int) journal.Outcome {
	result, wrong := journal.Fail, 0
	wait := w.o.Retry.Initial
	for i := 0; ; i++ {
		answer := w.send(ctx, h, kind, i, at+i)
		switch {
		case answer.Outcome == journal.OK:
			return journal.OK
		case answer.Outcome == journal.Info:
			result = journal.Info
		case answer.Status >= 400 && answer.Status != http.StatusTooManyRequests:
			wrong++
		}
		if kind == journal.New {
			kind = journal.Retry
		}
		if wrong == patience || !run.Pause(ctx, wait) {
			return result
		}
		wait = min(2*wait, w.o.Retry.Max)
	}
}

// send makes one genuine request to the ingress of that number.
func (w *workload) send(ctx context.Context, h *happening, kind string, attempt, at int) journal.Answer {
	if ctx.Err() != nil {
		return journal.Answer{Outcome: journal.Fail, Why: "not sent"}
	}
	t := h.write(attempt)
	url := w.o.URLs[at%len(w.o.URLs)]
	header, err := h.sign(h.source.secret(), &t, target(url, h.source), time.Now())
	if err != nil {
		w.fail(err)
		return journal.Answer{Outcome: journal.Fail}
	}
	answer := w.post(ctx, h.attempt(&t, kind), t.body, url, header)
	switch {
	case answer.Outcome == journal.OK:
		w.progress.LastAck.Store(time.Now().UnixNano())
	case answer.Outcome == journal.Info:
		w.progress.Unsure.Add(1)
	default:
		w.progress.Refused.Add(1)
	}
	return answer
}

func target(url string, s *source) string {
	return strings.TrimSuffix(url, "/") + "/webhooks/" + s.name
}

// fail ends the run: it could not show anything any more.
func (w *workload) fail(err error) {
	w.failed.Do(func() {
		w.failure = fmt.Errorf("the workload: %w", err)
		w.abort(w.failure)
	})
}

func (w *workload) report(took time.Duration) *Report {
	return &Report{
		Happenings: w.progress.Began.Load(), Acked: w.progress.Acked.Load(), Unknown: w.unknown.Load(), Rejected: w.rejected.Load(),
		Attempts: int64(w.attempts.Load()), Forged: w.progress.Forged.Load(), Rotations: w.progress.Rotations.Load(), Took: took,
	}
}
