// Package collect reads what the system holds, with readers of its own. A Kafka cluster, a database and an archive come in; the
// dump files of a run's folder go out, with digests in place of bodies. It must never use the services' own readers, nor judge
// what it finds: a fault that both had would hide itself.
package collect

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
)

// Options say where things are.
type Options struct {
	Dir string // the run's folder

	Brokers        []string
	Kafka          []kgo.Opt // how to connect, in place of Brokers or beside them
	Topic          string
	ResultsTopic   string // empty: none
	ProcessorGroup string // empty: its commits are not looked at

	DatabaseURL string
	Archive     string // file:// or s3://, as in archive.url
	// AccessKey and SecretKey are those of the S3 server; empty: from the environment.
	AccessKey, SecretKey string
	// Verifier is the verifier key of archive.checkpoint_key; empty: signatures are not looked at.
	Verifier string

	Patience time.Duration // how long no answer may come; 0: 30 s

	// Sources are those of the run; what others sent is left out. None: all are the run's.
	Sources []string
}

// ours says whether a source is one of the run's.
func (o *Options) ours(source string) bool {
	return len(o.Sources) == 0 || slices.Contains(o.Sources, source)
}

// changed says whether an entity is one of the run's: it begins with its source's name.
func (o *Options) changed(entity string) bool {
	source, _, _ := strings.Cut(entity, "/")
	return o.ours(source)
}

// Run writes the dumps. The system must be at rest: everything that was acknowledged is processed and archived.
func Run(ctx context.Context, o Options) error {
	if o.Patience == 0 {
		o.Patience = 30 * time.Second
	}
	g, ctx := errgroup.WithContext(ctx)
	for name, collect := range map[string]func(context.Context, Options) error{"Kafka": kafka, "Postgres": postgres, "the archive": archive} {
		g.Go(func() error {
			if err := collect(ctx, o); err != nil {
				return fmt.Errorf("read %s: %w", name, err)
			}
			return nil
		})
	}
	return g.Wait()
}
