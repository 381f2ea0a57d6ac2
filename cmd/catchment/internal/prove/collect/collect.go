// Package collect reads what the system holds, with readers of its own. A Kafka cluster, a database and an archive come in; the
// dump files of a run's folder go out, with digests in place of bodies. It must never use the services' own readers, nor judge
// what it finds: a fault that both had would hide itself.
package collect

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
)

// Options say where things are.
type Options struct {
	Dir string // the run's folder

	Brokers        []string
	Topic          string
	ResultsTopic   string // empty: none
	ProcessorGroup string // empty: its commits are not looked at

	DatabaseURL string
	Archive     string // file:// or s3://, as in archive.url
	// AccessKey and SecretKey are those of the S3 server; empty: from the environment.
	AccessKey, SecretKey string

	Patience time.Duration // how long no answer may come; 0: 30 s
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
