// Package kafka connects to the cluster and judges its topic. Settings come in; client options, a topic and a
// report of what is unsafe about it go out. It never produces or consumes.
package kafka

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/settings"
)

const dialTimeout = 5 * time.Second

// Options returns the options that every client of the cluster needs. clientID shows in the brokers' logs and
// quotas. Certificates, keys, passwords and tokens in files are read again for each connection. The error says which file
// could not be read.
func Options(k settings.Kafka, clientID string) ([]kgo.Opt, error) {
	opts := []kgo.Opt{
		kgo.SeedBrokers(k.Brokers...),
		kgo.ClientID(clientID),
		kgo.DialTimeout(dialTimeout),
		// A broker that accepts connections and never answers must not hold a request for the default 10 s and more.
		kgo.RequestTimeoutOverhead(5 * time.Second),
		kgo.MetadataMinAge(250 * time.Millisecond),
		kgo.MetadataMaxAge(time.Minute),
	}
	if k.Dial != nil && k.TLS == nil {
		opts = append(opts, kgo.Dialer(k.Dial))
	}
	if k.TLS != nil {
		if _, err := k.TLS.Config(); err != nil {
			return nil, fmt.Errorf("kafka.tls: %w", err)
		}
		opts = append(opts, kgo.Dialer(func(ctx context.Context, network, address string) (net.Conn, error) {
			return dialTLS(ctx, k.TLS, network, address)
		}))
	}
	if k.SASL != nil {
		m, err := mechanism(k.SASL)
		if err != nil {
			return nil, fmt.Errorf("kafka.sasl: %w", err)
		}
		opts = append(opts, kgo.SASL(m))
	}
	return opts, nil
}

// dialTLS reads the files of kafka.tls for each connection, so that renewed ones are used without a restart.
func dialTLS(ctx context.Context, t *settings.TLS, network, address string) (net.Conn, error) {
	cfg, err := t.Config()
	if err != nil {
		return nil, fmt.Errorf("kafka.tls: %w", err)
	}
	return (&tls.Dialer{NetDialer: &net.Dialer{Timeout: dialTimeout}, Config: cfg}).DialContext(ctx, network, address)
}
