package nemesis

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/estate"
	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/wire"
)

// resumeBound is from Postgres' being there again until the position moves.
const resumeBound = 5 * time.Second

// pgxCommit is how the processor's driver ends a transaction on the wire; unknownCommits is how it counts those of batches
// that nobody answered, and processed what it counts when a batch is done.
const (
	pgxCommit      = "commit\x00"
	unknownCommits = "catchment_processor_unknown_commits_total"
	processed      = "catchment_processor_events_total"
)

// postgresKinds are what happens to Postgres.
func postgresKinds() []Kind {
	needs := []string{postgres}
	links := []string{"processor-1→postgres", "processor-2→postgres"}
	return []Kind{
		{Name: "postgres-restart-fast", Vital: true, What: "Postgres is restarted, and ends its sessions", Needs: needs, Min: 1 * second, Max: 1 * second, begin: restart(syscall.SIGINT)},
		{Name: "postgres-restart-immediate", Vital: true, What: "Postgres is restarted without a shutdown, and recovers", Needs: needs, Min: 1 * second, Max: 1 * second, begin: restart(syscall.SIGQUIT)},
		{Name: "postgres-kill", What: "Postgres is killed, and started again", Needs: needs, Min: 1 * second, Max: 3 * second, begin: postgresKill},
		{Name: "postgres-pause", What: "Postgres stands still", Needs: needs, Min: 2 * second, Max: 8 * second, begin: postgresPause},
		{Name: "postgres-sessions-cut", What: "all sessions are cut, again and again", Needs: needs, Min: 1 * second, Max: 3 * second, begin: sessionsCut},
		{Name: "postgres-failover", Vital: true, What: "a standby that lacks the last seconds' commits becomes the primary", Needs: needs, Min: 2 * second, Max: 6 * second, begin: failover},
		{Name: "postgres-too-many-connections", What: "Postgres takes no more connections", Needs: needs, Min: 2 * second, Max: 5 * second, begin: tooMany},
		{Name: "postgres-read-only", What: "Postgres may only be read", Needs: needs, Min: 2 * second, Max: 5 * second, begin: readOnly},
		{Name: "postgres-disk-full", What: "Postgres cannot write to its disk, and is restarted", Needs: needs, Min: 2 * second, Max: 4 * second, begin: postgresDiskFull},
		{Name: "commit-answer-lost", Vital: true, What: "a COMMIT is done, and the connection is cut before the answer", Needs: []string{postgres, processor}, Targets: links, Min: 2 * second, Max: 4 * second, begin: commitCut(true)},
		{Name: "commit-lost", What: "a connection is cut before its COMMIT arrives", Needs: []string{postgres, processor}, Targets: links, Min: 2 * second, Max: 4 * second, begin: commitCut(false)},
	}
}

// flowing waits until batches are committed: a fault that is to meet one waits for the recovery from the one before.
func flowing(ctx context.Context, w *work) error {
	first := int64(-1)
	err := estate.Await(ctx, 45*time.Second, 50*time.Millisecond, "a batch", func(ctx context.Context) error {
		now, err := w.Postgres.Position(ctx)
		if err != nil {
			return err
		}
		if first < 0 {
			first = now
		}
		if now <= first {
			return fmt.Errorf("the position stands at %d", now)
		}
		return nil
	})
	if ctx.Err() != nil || w.alone {
		return err
	}
	return nil // something else may be what holds it up
}

// resumed waits until a transaction of a processor has been committed since.
func resumed(ctx context.Context, w *work, name string) error {
	since := time.Now()
	first, err := w.Postgres.Position(ctx)
	if err != nil {
		return err
	}
	err = estate.Await(ctx, resumeBound+20*time.Second, 50*time.Millisecond, "the position in Postgres", func(ctx context.Context) error {
		now, err := w.Postgres.Position(ctx)
		if err == nil && now <= first {
			err = fmt.Errorf("it stands at %d", now)
		}
		return err
	})
	if err != nil && !w.alone {
		return nil // something else may be what holds it up
	}
	w.timing(name+", until a batch was committed", since, resumeBound)
	return err
}

func restart(way syscall.Signal) func(context.Context, *work) (func(context.Context) error, error) {
	return func(ctx context.Context, w *work) (func(context.Context) error, error) {
		if err := flowing(ctx, w); err != nil {
			return nil, err
		}
		err := w.Postgres.Restart(ctx, way)
		w.hold = func(ctx context.Context) error { return resumed(ctx, w, "Postgres restarted") }
		return nil, err
	}
}

func postgresKill(ctx context.Context, w *work) (func(context.Context) error, error) {
	err := w.Postgres.Stop(ctx, syscall.SIGKILL)
	return func(ctx context.Context) error {
		if err := w.Postgres.Start(ctx); err != nil {
			return err
		}
		return resumed(ctx, w, "Postgres killed and started")
	}, err
}

func postgresPause(_ context.Context, w *work) (func(context.Context) error, error) {
	err := w.Postgres.Freeze()
	return func(context.Context) error { return w.Postgres.Thaw() }, err
}

func sessionsCut(_ context.Context, w *work) (func(context.Context) error, error) {
	w.hold = func(ctx context.Context) error {
		for until := time.Now().Add(w.Length); time.Now().Before(until); {
			w.Postgres.EndSessions()
			if err := estate.Pause(ctx, 300*time.Millisecond); err != nil {
				return err
			}
		}
		return nil
	}
	return nil, nil
}

// failover lets the standby fall behind by batches that are committed, and makes it the primary.
func failover(ctx context.Context, w *work) (func(context.Context) error, error) {
	if err := flowing(ctx, w); err != nil {
		return nil, err
	}
	w.hold = func(ctx context.Context) error {
		return errors.Join(estate.Pause(ctx, w.Length), flowing(ctx, w))
	}
	end := set(wire.Mode{HoldDown: true}, w.Link("standby→postgres"))
	return func(ctx context.Context) error {
		return errors.Join(w.Postgres.Promote(ctx), end(ctx), w.Postgres.Rebuild(ctx))
	}, nil
}

func tooMany(ctx context.Context, w *work) (func(context.Context) error, error) {
	err := w.Postgres.LimitConnections(ctx, 1)
	w.Postgres.EndSessions()
	return func(ctx context.Context) error { return w.Postgres.LimitConnections(ctx, -1) }, err
}

func readOnly(ctx context.Context, w *work) (func(context.Context) error, error) {
	err := w.Postgres.ReadOnly(ctx, true)
	w.Postgres.EndSessions()
	return func(ctx context.Context) error {
		err := w.Postgres.ReadOnly(ctx, false)
		w.Postgres.EndSessions()
		return err
	}, err
}

func postgresDiskFull(ctx context.Context, w *work) (func(context.Context) error, error) {
	err := w.Postgres.FillDisk(ctx)
	return func(ctx context.Context) error { return w.Postgres.Restart(ctx, syscall.SIGKILL) }, err
}

// commitCut cuts at COMMITs. Where the answer is lost, and nothing else is broken, it cuts one after the other, with a batch
// in between, until it was a batch that did not hear what became of it: a processor commits claims and publications as
// well, and one that loses each COMMIT never comes so far as a batch.
func commitCut(after bool) func(context.Context, *work) (func(context.Context) error, error) {
	return func(ctx context.Context, w *work) (func(context.Context) error, error) {
		if err := flowing(ctx, w); err != nil {
			return nil, err
		}
		k := w.Link(w.Target)
		end := func(context.Context) error { k.Trap("", false, 0); return nil }
		if !w.alone || !after {
			k.Trap(pgxCommit, after, 10)
			return end, nil
		}
		s := w.Processor[int(w.Target[len("processor-")]-'1')]
		start, err := s.Metrics(ctx)
		if err != nil {
			return nil, err
		}
		cut, done, armed := 0, estate.Sum(start, processed), false
		w.hold = func(ctx context.Context) error {
			return estate.Await(ctx, w.sessions+time.Minute, 50*time.Millisecond, "a batch whose COMMIT nobody answered", func(ctx context.Context) error {
				now, err := s.Metrics(ctx)
				if err != nil {
					return err
				}
				if estate.Sum(now, unknownCommits) > estate.Sum(start, unknownCommits) {
					return nil
				}
				switch {
				case armed && k.Sprung() > 0:
					cut, done, armed = cut+k.Trap("", false, 0), estate.Sum(now, processed), false
				case !armed && estate.Sum(now, processed) > done:
					k.Trap(pgxCommit, after, 1)
					armed = true
				}
				return fmt.Errorf("%d COMMITs were cut, none of them a batch's", cut)
			})
		}
		return end, nil
	}
}
