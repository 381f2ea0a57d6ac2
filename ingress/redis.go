package ingress

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/settings"
)

const (
	lookupSeen    = "seen"
	lookupUnseen  = "unseen"
	lookupFailed  = "failed"
	lookupSkipped = "skipped"

	redisConns   = 32
	redisDial    = time.Second
	redisTrips   = 3 // failures in a row after which Redis is left alone
	redisRest    = time.Second
	redisPrefix  = "catchment:dedup:"
	generationOf = redisPrefix + "generation:"
)

// shared is the look-up in a Redis or Valkey that several ingresses use. Each entry holds the topic's generation, a
// random text that every ingress replaces when Kafka may have lost something: entries of another one count for nothing.
// Whatever fails means "not seen". After some failures in a row Redis is left alone for a while, so that a dead one
// costs the requests nothing.
type shared struct {
	client  *redis.Client
	ttl     time.Duration
	timeout time.Duration
	log     *slog.Logger
	m       *metrics

	failures atomic.Int32
	restTill atomic.Int64 // Unix nanoseconds; 0: Redis works
	probing  atomic.Bool

	mu   sync.Mutex
	lost map[[32]byte]bool // topics whose generation must be replaced before anything is believed
}

func newShared(cfg *settings.File, log *slog.Logger, m *metrics) (*shared, config.Errors) {
	d := cfg.Ingress.Dedup
	o, err := redis.ParseURL(d.URL.Reveal())
	if err != nil {
		var whole *url.Error // it would show the password
		if errors.As(err, &whole) {
			err = whole.Err
		}
		return nil, config.Errors{cfg.Errorf("ingress.dedup.url", "expected a URL such as redis://host:6379/0: %v", err)}
	}
	if d.TLS != nil {
		if o.TLSConfig, err = d.TLS.Config(); err != nil {
			return nil, config.Errors{cfg.Errorf("ingress.dedup.tls", "%v", err)}
		}
		if host, _, err := net.SplitHostPort(o.Addr); err == nil && o.TLSConfig.ServerName == "" {
			o.TLSConfig.ServerName = host
		}
	}
	redis.SetLogger(quiet{})
	o.Protocol, o.DisableIdentity = 2, true // one round trip less for a new connection, and any old server will do
	o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	o.DialTimeout, o.DialerRetries, o.MaxRetries = redisDial, 1, -1
	o.ReadTimeout, o.WriteTimeout, o.PoolTimeout, o.ContextTimeoutEnabled = d.Timeout, d.Timeout, d.Timeout, true
	o.PoolSize, o.MaxActiveConns, o.MaxIdleConns = redisConns, redisConns, redisConns
	return &shared{client: redis.NewClient(o), ttl: d.TTL, timeout: d.Timeout, log: log, m: m, lost: map[[32]byte]bool{}}, nil
}

// quiet keeps the client from writing to standard error: what fails is counted and logged here.
type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}

func (s *shared) hasher() *hasher { return nil }

func (s *shared) look(g *sighting, _ time.Time) (f found) {
	if !s.working() {
		s.m.lookups.WithLabelValues(lookupSkipped).Inc()
		return found{}
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.timeout)
	defer cancel()
	keys := []string{generationKey(g.scope), eventKey(g)}
	if g.guarded() {
		keys = append(keys, bytesKey(g))
	}
	got, err := s.client.MGet(ctx, keys...).Result()
	if err == nil && got[0] == nil {
		got[0], err = s.begin(ctx, keys[0])
	}
	if err != nil {
		s.failed(err)
		s.m.lookups.WithLabelValues(lookupFailed).Inc()
		return found{}
	}
	s.failures.Store(0)
	g.mark, _ = got[0].(string)
	f.seen = g.mark != "" && got[1] == any(g.mark)
	if g.guarded() {
		first, ok := got[2].(string)
		f.replayed = ok && first != hex.EncodeToString(g.id[:])
	}
	result := lookupUnseen
	if f.seen {
		result = lookupSeen
	}
	s.m.lookups.WithLabelValues(result).Inc()
	return f
}

// begin makes a topic's first generation, unless another ingress was faster.
func (s *shared) begin(ctx context.Context, key string) (any, error) {
	if err := s.client.SetNX(ctx, key, rand.Text(), 0).Err(); err != nil {
		return nil, err
	}
	return s.client.Get(ctx, key).Result()
}

func (s *shared) add(g *sighting, _ time.Time) {
	if g.mark == "" || s.restTill.Load() != 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.timeout)
	defer cancel()
	var err error
	if g.guarded() {
		_, err = s.client.Pipelined(ctx, func(p redis.Pipeliner) error {
			p.Set(ctx, eventKey(g), g.mark, s.ttl)
			p.SetNX(ctx, bytesKey(g), hex.EncodeToString(g.id[:]), s.ttl)
			return nil
		})
	} else {
		err = s.client.Set(ctx, eventKey(g), g.mark, s.ttl).Err()
	}
	if err != nil {
		s.failed(err)
	}
}

// forget replaces the generation; until that has worked, nothing is believed.
func (s *shared) forget(scope [32]byte) {
	s.mu.Lock()
	s.lost[scope] = true
	s.mu.Unlock()
	s.rest(0)
	s.probe()
}

// working says whether Redis is to be asked. Once in a while it tries a resting one, beside the requests.
func (s *shared) working() bool {
	till := s.restTill.Load()
	if till == 0 {
		return true
	}
	if time.Now().UnixNano() >= till {
		s.probe()
	}
	return false
}

func (s *shared) failed(err error) {
	if s.failures.Add(1) < redisTrips {
		return
	}
	if s.rest(redisRest) {
		s.log.Warn("the dedup look-up does not answer: events count as not seen until it does", slog.Any("error", err))
	}
}

// rest leaves Redis alone for at least d. It says whether Redis worked until now.
func (s *shared) rest(d time.Duration) bool {
	return s.restTill.Swap(time.Now().Add(d).UnixNano()) == 0
}

// probe asks a resting Redis whether it works again, at most once at a time.
func (s *shared) probe() {
	if !s.probing.CompareAndSwap(false, true) {
		return
	}
	go func() {
		defer s.probing.Store(false)
		ctx, cancel := context.WithTimeout(context.Background(), redisDial)
		defer cancel()
		if err := s.heal(ctx); err != nil {
			s.rest(redisRest)
			if s.owes() && !errors.Is(err, redis.ErrClosed) {
				time.AfterFunc(redisRest, s.probe) // other ingresses believe what may be lost: no request is waited for
			}
			return
		}
		s.failures.Store(0)
		s.log.Info("the dedup look-up answers")
	}()
}

// owes says whether Redis has yet to learn that a topic's records may be lost.
func (s *shared) owes() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.lost) > 0
}

// heal makes up for what Redis has missed, and lets it work.
func (s *shared) heal(ctx context.Context) error {
	if err := s.client.Ping(ctx).Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for scope := range s.lost {
		if err := s.client.Set(ctx, generationKey(scope), rand.Text(), 0).Err(); err != nil {
			return err
		}
		delete(s.lost, scope)
	}
	s.restTill.Store(0)
	return nil
}

func (s *shared) close() { _ = s.client.Close() }

func generationKey(scope [32]byte) string { return generationOf + hex.EncodeToString(scope[:16]) }
func eventKey(g *sighting) string         { return redisPrefix + "event:" + hex.EncodeToString(g.event[:]) }

func bytesKey(g *sighting) string { return redisPrefix + "body:" + hex.EncodeToString(g.bytes[:]) }
