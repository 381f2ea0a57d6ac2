package nemesis

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/estate"
)

// takeoverWait is how long a processor waits for the last transaction of whom it takes a partition from.
const takeoverWait = 5 * time.Second

// takeoverSlack is what a takeover may take beyond the session timeout.
const takeoverSlack = 5 * time.Second

// serviceKinds are what happens to the services' processes.
func serviceKinds() []Kind {
	var all []Kind
	for _, of := range []string{ingress, processor, archiver} {
		instances := targets(of, estate.Instances)
		kill := serviceKill
		if of != ingress {
			kill = consumerKill
		}
		all = append(
			all,
			Kind{Name: of + "-kill", Vital: true, What: "this " + of + " is killed, and started again", Needs: []string{of}, Targets: instances, Min: 1 * second, Max: 4 * second, begin: kill},
			Kind{Name: of + "-stop", What: "this " + of + " is stopped in order, and started again", Needs: []string{of}, Targets: instances, Min: 1 * second, Max: 3 * second, begin: serviceStop},
			Kind{Name: of + "-pause", Vital: of == processor, What: "this " + of + " stands still, for longer than its session where it has one", Needs: []string{of}, Targets: instances, Min: 2 * second, Max: 6 * second, begin: servicePause},
			Kind{Name: of + "-all-killed", What: "every " + of + " is killed at once", Needs: []string{of}, Min: 1 * second, Max: 3 * second, begin: everyKill(of)},
			Kind{Name: of + "-wrong-brokers", What: "this " + of + " is started with brokers' addresses at which nobody listens, and then with the right ones", Needs: []string{of}, Targets: instances, Min: 2 * second, Max: 4 * second, begin: wrongBrokers},
		)
	}
	return append(all,
		Kind{Name: "reload-broken", What: "an ingress is told to read a configuration again that cannot be read", Needs: []string{ingress}, Targets: targets(ingress, estate.Instances), Min: 1 * second, Max: 3 * second, begin: reloadBroken},
	)
}

func serviceAgain(s *estate.Service) func(context.Context) error {
	return func(context.Context) error { return s.Start() }
}

func serviceKill(_ context.Context, w *work) (func(context.Context) error, error) {
	s := w.service()
	s.Kill()
	return serviceAgain(s), nil
}

func serviceStop(ctx context.Context, w *work) (func(context.Context) error, error) {
	s := w.service()
	return serviceAgain(s), s.Stop(ctx)
}

// consumerKill kills a member of a group, and where nothing else is broken waits until another has all its partitions.
func consumerKill(ctx context.Context, w *work) (func(context.Context) error, error) {
	s := w.service()
	group := map[string]string{processor: estate.ProcessorGroup, archiver: estate.ArchiverGroup}[s.Role]
	before, err := shared(ctx, w, group)
	s.Kill()
	killed := time.Now()
	if w.alone && err == nil {
		w.hold = func(ctx context.Context) error {
			bound := w.sessions + takeoverSlack
			err := estate.Await(ctx, bound+10*time.Second, 100*time.Millisecond, s.Name+"'s partitions", func(ctx context.Context) error {
				_, err := heldBy(ctx, w, group, estate.Instances-1, before)
				return err
			})
			w.timing(s.Role+" killed, until another had its partitions", killed, bound)
			return err
		}
	}
	return serviceAgain(s), nil
}

// shared waits, where nothing else is broken, until all instances hold partitions of the topic, and says how many partitions.
func shared(ctx context.Context, w *work, group string) (partitions int, err error) {
	if !w.alone {
		return 0, nil
	}
	err = estate.Await(ctx, 20*time.Second, 200*time.Millisecond, group, func(ctx context.Context) error {
		partitions, err = heldBy(ctx, w, group, estate.Instances, 1)
		return err
	})
	return partitions, err
}

// heldBy wants so many members of a group to hold so many partitions at least, and says how many they hold.
func heldBy(ctx context.Context, w *work, group string, want, least int) (int, error) {
	held, stable, err := w.Holders(ctx, group)
	if err != nil {
		return 0, err
	}
	members := map[string]bool{}
	for _, m := range held {
		members[m] = true
	}
	if !stable || len(held) < least || len(members) != want {
		return 0, fmt.Errorf("%d members hold %d partitions", len(members), len(held))
	}
	return len(held), nil
}

func servicePause(_ context.Context, w *work) (func(context.Context) error, error) {
	s := w.service()
	if s.Role != ingress {
		length := w.sessions + w.Length/2
		if s.Role == processor {
			length = w.sessions + takeoverWait + w.Length/2 // so that it wakes up when another one has its partitions
		}
		w.hold = func(ctx context.Context) error { return estate.Pause(ctx, length) }
	}
	return func(context.Context) error { return s.Signal(syscall.SIGCONT) }, s.Signal(syscall.SIGSTOP)
}

func of(w *work, role string) []*estate.Service {
	var all []*estate.Service
	for _, s := range w.Services() {
		if s.Role == role {
			all = append(all, s)
		}
	}
	return all
}

func everyKill(role string) func(context.Context, *work) (func(context.Context) error, error) {
	return func(_ context.Context, w *work) (func(context.Context) error, error) {
		for _, s := range of(w, role) {
			s.Kill()
		}
		return startAll(w, role), nil
	}
}

func startAll(w *work, role string) func(context.Context) error {
	return func(context.Context) error {
		var errs error
		for _, s := range of(w, role) {
			errs = errors.Join(errs, s.Start())
		}
		return errs
	}
}

func wrongBrokers(ctx context.Context, w *work) (func(context.Context) error, error) {
	s := w.service()
	if err := s.Stop(ctx); err != nil {
		return serviceAgain(s), err
	}
	err := s.Misconfigure("brokers: [", "brokers: [127.0.0.1:1]}\n#")
	if err == nil {
		err = s.Start()
	}
	return func(context.Context) error {
		s.Kill()
		return errors.Join(s.Misconfigure("", ""), s.Start())
	}, err
}

func reloadBroken(_ context.Context, w *work) (func(context.Context) error, error) {
	s := w.service()
	if err := s.Misconfigure("sources:", "sources: [}"); err != nil {
		return nil, err
	}
	return func(context.Context) error {
		return errors.Join(s.Misconfigure("", ""), s.Signal(syscall.SIGHUP))
	}, s.Signal(syscall.SIGHUP)
}

// groupKinds are what happens to the consumer groups.
func groupKinds() []Kind {
	return []Kind{
		{Name: "rebalance-storm", What: "processors leave and join, one after the other", Needs: []string{processor}, Min: 4 * second, Max: 8 * second, begin: storm(processor)},
		{Name: "archiver-rebalance-storm", What: "archivers leave and join, one after the other", Needs: []string{archiver}, Min: 4 * second, Max: 8 * second, begin: storm(archiver)},
		{Name: "offsets-to-the-beginning", What: "a group's offsets are set to the beginning", Needs: []string{kafka, processor, archiver}, Targets: []string{processor, archiver}, Min: 1 * second, Max: 1 * second, begin: offsets(true)},
		{Name: "offsets-to-the-end", What: "a group's offsets are set to the end, over what was not read", Needs: []string{kafka, processor, archiver}, Targets: []string{processor, archiver}, Min: 1 * second, Max: 1 * second, begin: offsets(false)},
		{Name: "group-deleted", What: "a group is deleted with its offsets", Needs: []string{kafka, processor, archiver}, Targets: []string{processor, archiver}, Min: 1 * second, Max: 1 * second, begin: groupDeleted},
	}
}

func storm(role string) func(context.Context, *work) (func(context.Context) error, error) {
	return func(_ context.Context, w *work) (func(context.Context) error, error) {
		w.hold = func(ctx context.Context) error {
			members := of(w, role)
			until := time.Now().Add(w.Length)
			for i := 0; time.Now().Before(until); i++ {
				s := members[i%len(members)]
				if err := s.Stop(ctx); err != nil {
					return err
				}
				if err := s.Start(); err != nil {
					return err
				}
				if err := estate.Pause(ctx, time.Second); err != nil {
					return err
				}
			}
			return nil
		}
		return startAll(w, role), nil
	}
}

// Retention is a fault that no schedule has: a sound processor halts behind it until a person fills the gap from the archive.
func Retention() Kind {
	return Kind{
		Name: "retention-overtakes", What: "no processor runs, and Kafka deletes what only the archive has read",
		Needs: []string{processor}, Min: 8 * second, Max: 8 * second, begin: retention,
	}
}

func retention(_ context.Context, w *work) (func(context.Context) error, error) {
	for _, s := range of(w, processor) {
		s.Kill()
	}
	overtaken := func(ctx context.Context) error {
		read, err := w.Observer().Progress(ctx)
		if err != nil {
			return err
		}
		archived, err := w.Observer().Committed(ctx, estate.ArchiverGroup, estate.Topic)
		if err != nil {
			return err
		}
		upTo := kadm.Offsets{}
		for p, at := range archived {
			if at > read[p] {
				upTo.Add(kadm.Offset{Topic: estate.Topic, Partition: p, At: at})
			}
		}
		if len(upTo) == 0 {
			return errors.New("nothing is archived that is not processed")
		}
		deleted, err := w.Admin().DeleteRecords(ctx, upTo)
		if err != nil {
			return err
		}
		return deleted.Error()
	}
	return func(ctx context.Context) error {
		err := estate.Await(ctx, 30*time.Second, 500*time.Millisecond, "deletion of records", overtaken)
		return errors.Join(err, startAll(w, processor)(ctx))
	}, nil
}

// empty stops all members of a group, whose name it returns.
func empty(ctx context.Context, w *work) (string, error) {
	var errs error
	for _, s := range of(w, w.Target) {
		errs = errors.Join(errs, s.Stop(ctx))
	}
	return map[string]string{processor: estate.ProcessorGroup, archiver: estate.ArchiverGroup}[w.Target], errs
}

func offsets(beginning bool) func(context.Context, *work) (func(context.Context) error, error) {
	return func(ctx context.Context, w *work) (func(context.Context) error, error) {
		group, err := empty(ctx, w)
		if err != nil {
			return startAll(w, w.Target), err
		}
		return startAll(w, w.Target), estate.Await(ctx, 20*time.Second, 200*time.Millisecond, "offsets of "+group, func(ctx context.Context) error {
			to, err := w.Admin().ListEndOffsets(ctx, estate.Topic)
			if beginning {
				to, err = w.Admin().ListStartOffsets(ctx, estate.Topic)
			}
			if err != nil {
				return err
			}
			var o kadm.Offsets = to.Offsets()
			return w.Admin().CommitAllOffsets(ctx, group, o)
		})
	}
}

func groupDeleted(ctx context.Context, w *work) (func(context.Context) error, error) {
	group, err := empty(ctx, w)
	if err != nil {
		return startAll(w, w.Target), err
	}
	return startAll(w, w.Target), estate.Await(ctx, 20*time.Second, 200*time.Millisecond, "deletion of "+group, func(ctx context.Context) error {
		_, err := w.Admin().DeleteGroup(ctx, group)
		return err
	})
}
