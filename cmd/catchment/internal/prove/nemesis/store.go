package nemesis

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/estate"
	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/wire"
)

// storeKinds are what happens to the object store.
func storeKinds() []Kind {
	needs := []string{store}
	k := func(name, what string, f wire.StoreFault) Kind {
		return Kind{Name: name, What: what, Needs: needs, Min: 3 * second, Max: 8 * second, begin: storeFault(f)}
	}
	return []Kind{
		k("store-500", "the store answers 500", wire.Error500),
		k("store-503", "the store answers 503", wire.Error503),
		k("store-requests-cut", "requests to the store are cut in their middle", wire.CutRequest),
		k("store-answers-cut", "the store's answers are cut in their middle", wire.Truncate),
		k("store-slow", "the store waits a second before each request", wire.Slow),
		{Name: "store-answers-lost", Vital: true, What: "the store does what it is asked, and the connection is cut before the answer", Needs: needs, Min: 3 * second, Max: 8 * second, begin: storeFault(wire.Lost)},
		k("store-answers-late", "the store does what it is asked, and does not say so", wire.Late),
		{Name: "store-kill", What: "the store is killed, and started again", Needs: needs, Min: 1 * second, Max: 4 * second, begin: storeKill},
		{Name: "store-pause", What: "the store stands still", Needs: needs, Min: 2 * second, Max: 8 * second, begin: storePause},
		{Name: "archiver-hung-upload", Vital: true, What: "an archiver stands still within an upload, another one takes over and writes that segment, and then it goes on", Needs: []string{store, archiver}, Targets: targets(archiver, estate.Instances), Min: 1 * second, Max: 1 * second, begin: hungUpload},
	}
}

func storeFault(f wire.StoreFault) func(context.Context, *work) (func(context.Context) error, error) {
	return func(_ context.Context, w *work) (func(context.Context) error, error) {
		for _, s := range w.Store {
			s.Set(f, "")
		}
		return func(context.Context) error {
			for _, s := range w.Store {
				s.Set(wire.None, "")
			}
			return nil
		}, nil
	}
}

func storeKill(_ context.Context, w *work) (func(context.Context) error, error) {
	w.StoreProc.Kill()
	return func(context.Context) error { return w.StoreProc.Start() }, nil
}

func storePause(_ context.Context, w *work) (func(context.Context) error, error) {
	return func(context.Context) error { return w.StoreProc.Signal(syscall.SIGCONT) }, w.StoreProc.Signal(syscall.SIGSTOP)
}

// hungUpload freezes an archiver when its next segment is on its way, and holds that request back until the other archiver
// has written a segment under the same key, or could have.
func hungUpload(ctx context.Context, w *work) (func(context.Context) error, error) {
	s, mine, others := w.service(), w.Store[w.number()], w.Store[1-w.number()]
	release, caught := make(chan struct{}), make(chan string, 1)
	mine.Hook("events/", func(key string) (<-chan struct{}, bool) {
		_ = s.Signal(syscall.SIGSTOP)
		caught <- key
		return release, false
	})
	var once sync.Once
	end := func(context.Context) error {
		mine.Hook("", nil)
		err := s.Signal(syscall.SIGCONT)
		once.Do(func() { close(release) })
		return err
	}
	patience := w.sessions + 20*time.Second
	select {
	case key := <-caught:
		w.hold = func(ctx context.Context) error {
			err := estate.Await(ctx, patience, 100*time.Millisecond, "another archiver's "+key, func(context.Context) error {
				if !others.Has(estate.Bucket, key) {
					return fmt.Errorf("it is not there")
				}
				return nil
			})
			if !w.alone {
				return nil
			}
			return err
		}
		return end, nil
	case <-time.After(patience):
		return end, fmt.Errorf("%s uploaded no segment within %v", s.Name, patience)
	case <-ctx.Done():
		return end, ctx.Err()
	}
}

// KilledInUpload is a fault that no schedule has, as it is one moment of archiver-kill.
func KilledInUpload() Kind {
	return Kind{
		Name: "archiver-killed-in-upload", What: "an archiver is killed within an upload, which does not come there",
		Needs: []string{store, archiver}, Targets: targets(archiver, estate.Instances), Min: 1 * second, Max: 1 * second, begin: killedInUpload,
	}
}

func killedInUpload(ctx context.Context, w *work) (func(context.Context) error, error) {
	s, mine := w.service(), w.Store[w.number()]
	release, caught := make(chan struct{}), make(chan struct{})
	mine.Hook("events/", func(string) (<-chan struct{}, bool) {
		close(caught)
		return release, true
	})
	end := func(context.Context) error {
		mine.Hook("", nil)
		close(release)
		return s.Start()
	}
	patience := w.sessions + 20*time.Second
	select {
	case <-caught:
		s.Kill()
		return end, nil
	case <-time.After(patience):
		s.Kill()
		return end, fmt.Errorf("%s uploaded no segment within %v", s.Name, patience)
	case <-ctx.Done():
		s.Kill()
		return end, ctx.Err()
	}
}
