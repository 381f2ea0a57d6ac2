package ingress

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/provider"
	"github.com/catchment-dev/catchment/pkg/settings"
)

const (
	// secretsEvery is how often the files are looked at. They are read, not asked for their times: that sees the swap
	// of a link as well, with which Kubernetes changes a mounted secret, and every file system's clock.
	secretsEvery = time.Second
	// secretsSettle is how long the files must stay as they are before they are taken: who writes one in place may
	// not be done.
	secretsSettle = 200 * time.Millisecond

	reloadOK     = "ok"
	reloadFailed = "failed"

	// mostIDs bounds what is remembered of a source's secrets that are gone.
	mostIDs = 1000
)

// secrets keeps the sources' secrets those of their files and of catchment.yaml. Nothing else changes without a start.
type secrets struct {
	service *Service
	mu      sync.Mutex // one reload at a time
	sources map[string]*sourceSecrets
	cfg     *settings.File // as the service started
	state   [32]byte       // of the files that were looked at last

	fromFile bool // cfg was read from a file that is there
}

// sourceSecrets is what is known of one source's secrets.
type sourceSecrets struct {
	cfg   *settings.File      // which names its files
	state [32]byte            // of what it was opened with
	ids   map[string][32]byte // digests of the secrets by ID, also of those that are gone
}

func newSecrets(cfg *settings.File, s *Service) *secrets {
	w := &secrets{service: s, cfg: cfg, sources: map[string]*sourceSecrets{}}
	_, err := os.Stat(cfg.Path)
	w.fromFile = err == nil
	for name := range s.sources {
		one := &sourceSecrets{cfg: cfg, ids: map[string][32]byte{}}
		texts, _ := cfg.Secrets(name) // they were read a moment ago; had one become unreadable, the next look finds it
		one.remember(texts)
		one.state = stateOf(name, cfg, texts)
		w.sources[name] = one
	}
	w.state = w.look()
	return w
}

// watch reloads when the files change, until ctx ends.
func (w *secrets) watch(ctx context.Context) {
	pause := func(d time.Duration) bool {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(d):
			return true
		}
	}
	for pause(secretsEvery) {
		for seen := w.look(); seen != w.lookedAt(); {
			if !pause(secretsSettle) {
				return
			}
			again := w.look()
			if again == seen {
				w.reload()
				break
			}
			seen = again
		}
	}
}

func (w *secrets) lookedAt() [32]byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state
}

// look digests catchment.yaml and every file with a secret, as they are now.
func (w *secrets) look() (sum [32]byte) {
	w.mu.Lock()
	files := []string{w.cfg.Path}
	for name, one := range w.sources {
		files = append(files, one.cfg.SecretFiles(name)...)
	}
	w.mu.Unlock()
	slices.Sort(files)
	h := sha256.New()
	for _, file := range slices.Compact(files) {
		data, err := settings.ReadSecret(file)
		content := sha256.Sum256(data)
		_, _ = fmt.Fprintf(h, "%s\n%x %v\n", file, content, err)
	}
	h.Sum(sum[:0])
	return sum
}

// reload reads everything again and replaces the rules of the sources whose secrets are others than before.
func (w *secrets) reload() {
	seen := w.look() // before it is read: what changes while it is read is seen by the next look
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state = seen
	result, taken := reloadOK, 0
	fresh, errs := w.reread()
	if fresh == nil {
		result = reloadFailed
		w.keep("", errs)
	} else {
		for _, name := range slices.Sorted(maps.Keys(w.sources)) {
			changed, err := w.reloadSource(name, fresh, about(name, errs))
			if err != nil {
				result = reloadFailed
				w.keep(name, err)
			}
			if changed {
				taken++
			}
		}
	}
	w.service.metrics.reloads.WithLabelValues(result).Inc()
	w.service.metrics.unread.Set(map[string]float64{reloadFailed: 1}[result])
	w.service.log.Info("read the secrets again", slog.String("result", result), slog.Int("sources_changed", taken))
}

// reread reads catchment.yaml. Settings that came from no file stay as they are.
func (w *secrets) reread() (*settings.File, config.Errors) {
	if !w.fromFile {
		return w.cfg, nil
	}
	return w.cfg.Reread()
}

// keep says why secrets stay as they are.
func (w *secrets) keep(source string, err error) {
	w.service.log.Error("the secrets could not be read again: those from before stay in use", slog.String("source", source), slog.Any("error", err))
}

// about picks the errors about one source.
func about(name string, errs config.Errors) error {
	return slices.DeleteFunc(slices.Clone(errs), func(e config.Error) bool {
		return e.Path != "sources."+name && !strings.HasPrefix(e.Path, "sources."+name+".")
	}).Err()
}

func (w *secrets) reloadSource(name string, fresh *settings.File, wrong error) (changed bool, err error) {
	one := w.sources[name]
	if wrong != nil {
		return false, wrong
	}
	if _, ok := fresh.Sources[name]; !ok {
		return false, errGone
	}
	cfg := w.cfg.WithSecrets(name, fresh)
	texts, errs := cfg.Secrets(name)
	if len(errs) > 0 {
		return false, errs
	}
	one.cfg = cfg
	state := stateOf(name, cfg, texts)
	if state == one.state {
		return false, nil
	}
	opened, errs := cfg.OpenWith(name, texts, nil)
	if len(errs) > 0 {
		return false, errs
	}
	src := w.service.sources[name]
	old := src.rules.Load()
	now := w.service.metrics.rules(name, old.judge.with(opened))
	src.rules.Store(now)
	w.service.metrics.retire(name, old, now)
	one.state = state
	if ids := one.reused(texts); len(ids) > 0 {
		w.service.log.Warn("a secret was replaced under the ID of the one before: records do not tell the two apart; a new secret wants an ID of its own",
			slog.String("source", name), slog.String("secret_ids", strings.Join(ids, ",")))
	}
	one.remember(texts)
	w.service.log.Info("took new secrets", slog.String("source", name), slog.String("secret_ids", strings.Join(opened.SecretIDs(), ",")))
	return true, nil
}

var errGone = errors.New("the source is no longer in the file: it goes at the next start")

// stateOf digests what a source's secrets and keys are.
func stateOf(name string, cfg *settings.File, texts []provider.Secret) (sum [32]byte) {
	h := sha256.New()
	for _, t := range texts {
		_, _ = fmt.Fprintf(h, "%q %x %d %d\n", t.ID, sha256.Sum256([]byte(t.Text)), t.NotBefore.UnixNano(), t.NotAfter.UnixNano())
	}
	for _, file := range cfg.SecretFiles(name) {
		data, err := settings.ReadSecret(file)
		_, _ = fmt.Fprintf(h, "%x %v\n", sha256.Sum256(data), err)
	}
	h.Sum(sum[:0])
	return sum
}

// reused finds the IDs that named another secret before. Refusing them would refuse a provider's new signatures for
// the sake of a name, so they are told. An ID that is made from the secret is never one of them.
func (s *sourceSecrets) reused(texts []provider.Secret) (ids []string) {
	for _, t := range texts {
		if known, ok := s.ids[t.ID]; ok && t.ID != "" && known != sha256.Sum256([]byte(t.Text)) {
			ids = append(ids, t.ID)
		}
	}
	return ids
}

func (s *sourceSecrets) remember(texts []provider.Secret) {
	if len(s.ids) > mostIDs {
		clear(s.ids)
	}
	for _, t := range texts {
		s.ids[t.ID] = sha256.Sum256([]byte(t.Text))
	}
}
