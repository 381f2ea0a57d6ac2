package archiver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/archiver/archive"
	"github.com/catchment-dev/catchment/archiver/keys"
	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/s3test"
	"github.com/catchment-dev/catchment/pkg/settings"
)

const canary = "canary-4711"

var (
	oneMaster   = config.NewSecret(strings.Repeat("01", 32))
	otherMaster = config.NewSecret(strings.Repeat("02", 32))
)

// encrypted is a rig whose archive is encrypted, with keys in a folder.
func encrypted(t *testing.T, partitions int) (r *rig, keysFolder string) {
	t.Helper()
	r, keysFolder = newRig(t, partitions), t.TempDir()
	r.encrypt("file://" + keysFolder)
	return r, keysFolder
}

func (r *rig) encrypt(keysURL string) {
	r.Helper()
	r.cfg.Archive.Encryption = &settings.Encryption{KeysURL: keysURL, MasterKey: oneMaster}
	var err error
	r.ring, err = keys.Open(r.Context(), r.cfg.Archive)
	require.NoError(r, err)
}

// telling makes deliveries of two sources that hold the canary wherever a request can, and records that are none.
func telling(n int) []*kgo.Record {
	random := rand.New(rand.NewPCG(2, 2))
	out := []*kgo.Record{{Key: []byte(canary), Value: []byte(canary), Headers: []kgo.RecordHeader{{Key: canary, Value: []byte(canary)}}}}
	for i := range n {
		d := delivery(random)
		d.Source = []string{"stripe", "shop"}[i%2]
		d.Query, d.SignedURL, d.RemoteAddr, d.TraceState = canary, "https://x/"+canary, canary, "a="+canary
		d.Headers = append(d.Headers, event.Header{Name: "x", Value: canary}, event.Header{Name: "x-latin", Value: "\xff" + canary})
		d.Body = []byte(`{"name":"` + canary + `"}`)
		out = append(out, event.Encode(d))
	}
	return out
}

// leaks are the objects of the archive in whose bytes, or in whose rows as they lie there, the canary is found.
func (r *rig) leaks() (found []string) {
	r.Helper()
	for key, err := range r.store.List(r.Context(), "", "") {
		require.NoError(r, err)
		body, err := r.store.Read(r.Context(), key, 0, -1)
		require.NoError(r, err)
		leak := bytes.Contains(body, []byte(canary))
		if isSegment(key) {
			for w, err := range archive.Records(r.Context(), r.store, key) {
				require.NoError(r, err)
				var leaf bytes.Buffer
				w.WriteLeaf(&leaf, nil)
				leak = leak || bytes.Contains(leaf.Bytes(), []byte(canary))
			}
		}
		if leak {
			found = append(found, key)
		}
	}
	return found
}

func TestEncryptedArchive(t *testing.T) {
	urls := map[string][2]string{"file": {"file://" + t.TempDir(), "file://" + t.TempDir()}}
	if a, k := s3test.New(t), s3test.New(t); a != nil {
		urls["s3"] = [2]string{a.URL, k.URL}
	}
	for name, url := range urls {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 3)
			r.cfg.Archive.URL = url[0]
			var err error
			r.store, err = archive.Open(t.Context(), r.cfg.Archive)
			require.NoError(t, err)
			r.encrypt(url[1])
			a := r.start(nil)
			require.Eventually(t, func() bool { return a.Ready() == nil }, patience, 10*time.Millisecond)
			r.send(telling(200)...)
			r.judge()
			require.Empty(t, r.leaks())
			a.stop(r)

			r.erase("shop")
			problems, err := archive.Check(t.Context(), r.store, nil)
			require.NoError(t, err)
			require.Empty(t, problems, "the chain holds")
			require.Equal(t, map[string]int{"stripe": 100, "shop erased": 100, "": 1}, r.readable())
		})
	}
	t.Run("without encryption the canary is found", func(t *testing.T) {
		r := newRig(t, 1)
		r.start(nil)
		r.send(telling(10)...)
		r.judge()
		require.Len(t, r.leaks(), 1)
	})
}

// erase destroys all keys of a source.
func (r *rig) erase(source string) {
	r.Helper()
	ring, err := keys.Open(r.Context(), r.cfg.Archive)
	require.NoError(r, err)
	there, _, err := ring.List(r.Context(), source, time.Time{}, time.Now().AddDate(0, 0, 2))
	require.NoError(r, err)
	require.NotEmpty(r, there)
	for _, id := range there {
		require.NoError(r, ring.Destroy(r.Context(), keys.Erasure{ID: id, At: time.Now(), Actor: "ann", Reason: "request 12"}))
	}
}

// readable counts the records by source, those apart that are erased.
func (r *rig) readable() map[string]int {
	r.Helper()
	ring, err := keys.Open(r.Context(), r.cfg.Archive)
	require.NoError(r, err)
	n := map[string]int{}
	_, err = archive.Check(r.Context(), r.store, func(w *archive.Record) error {
		err := ring.Unseal(r.Context(), w)
		if gone, ok := errors.AsType[*keys.ErasedError](err); ok {
			require.Equal(r, "request 12", gone.Reason)
			n[w.Source+" erased"]++
			return nil
		}
		n[w.Source]++
		return err
	})
	require.NoError(r, err)
	return n
}

// As TestTwoArchiversOfOnePartitionMakeOneChain and TestHungArchiverAdoptsWhatOvertookIt: what others have sealed is the
// same record, and rows that are left of a segment stay sealed.
func TestEncryptedSegmentsAreAdopted(t *testing.T) {
	t.Run("two of one partition", func(t *testing.T) {
		r, _ := encrypted(t, 2)
		r.cfg.Archiver.SegmentAge = 50 * time.Millisecond
		for i := range 3 {
			r.cfg.Archiver.Group = fmt.Sprintf("%s-%d", r.topic, i)
			defer r.start(nil).stop(r)
		}
		for range 10 {
			r.send(telling(40)...)
		}
		r.judge()
		require.Empty(t, r.leaks())
	})
	t.Run("less than the own, of another generation", func(t *testing.T) {
		r, _ := encrypted(t, 1)
		r.cfg.Archiver.SegmentAge = time.Hour
		sleeper := r.start(nil)
		r.send(telling(9)...)
		require.Eventually(t, func() bool { return sleeper.open() > 0 }, patience, 10*time.Millisecond)
		before := sleeper.open()
		r.erase("stripe") // what the sleeper holds is erased with the rest
		cfg := r.cfg.Archiver
		r.cfg.Archiver.Group, r.cfg.Archiver.SegmentAge = r.topic+"-other", 100*time.Millisecond
		other := r.start(nil)
		r.waitArchived(10)
		other.stop(r)
		r.cfg.Archiver = cfg
		r.send(telling(9)...)
		require.Eventually(t, func() bool { return sleeper.open() > before }, patience, 10*time.Millisecond)
		sleeper.stop(r)
		r.waitArchived(20)
		problems, err := archive.Check(t.Context(), r.store, nil)
		require.NoError(t, err)
		require.Empty(t, problems)
		n := r.readable()
		require.Equal(t, 10, n["stripe"]+n["stripe erased"])
		require.GreaterOrEqual(t, n["stripe"], 5, "%v", n)
		require.Equal(t, 8, n["shop"])
		require.Empty(t, r.leaks())
	})
}

// open is the size of the open segment of partition 0, once it holds all that was fetched; else 0.
func (a *running) open() int64 {
	for _, p := range a.allPartitions() {
		p.guard.Lock()
		queued := p.queued
		p.guard.Unlock()
		if queued == 0 {
			return p.open.Load()
		}
	}
	return 0
}

func TestMasterKeyThatIsNotKnownHalts(t *testing.T) {
	r, _ := encrypted(t, 1)
	a := r.start(nil)
	r.send(telling(5)...)
	r.judge()
	a.stop(r)

	r.cfg.Archive.Encryption.MasterKey = otherMaster
	a = r.start(nil)
	r.send(telling(5)...)
	a.haltedWith(r, "add it to archive.encryption.old_master_keys")
	require.NotContains(t, a.Ready().Error(), otherMaster.Reveal())
	a.stop(r)
	require.EqualValues(t, 6, r.archived())
	require.EqualValues(t, 6, r.committed())

	r.cfg.Archive.Encryption.OldMasterKeys = []config.Secret{oneMaster}
	r.start(nil)
	r.judge()
}

// While the store of the keys is away, what is held stays bounded; afterwards nothing is missing.
func TestMemoryIsBoundedWhileTheKeysAreAway(t *testing.T) {
	const limit = 1 << 20
	r, folder := encrypted(t, 2)
	r.cfg.Archiver.BufferBytes = limit
	a := r.start(nil)
	require.Eventually(t, func() bool { return a.Ready() == nil }, patience, 10*time.Millisecond)
	aside := filepath.Join(t.TempDir(), "aside")
	require.NoError(t, os.Rename(folder, aside))
	require.NoError(t, os.WriteFile(folder, nil, 0o600)) // a folder cannot be made here
	r.produce(3000)                                      // about 3 MiB
	require.Eventually(t, func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.budget.full() && !a.failing.IsZero()
	}, patience, 10*time.Millisecond)
	a.mu.Lock()
	require.Less(t, a.budget.load(), int64(limit+4<<20), "the limit and one poll")
	a.failing = a.failing.Add(-notReadyAfter)
	a.mu.Unlock()
	require.ErrorContains(t, a.Ready(), "the store has failed since")
	require.Zero(t, r.archived(), "nothing is archived plain")
	require.NoError(t, os.Remove(folder))
	require.NoError(t, os.Rename(aside, folder))
	r.judge()
	require.NoError(t, a.Ready())
}

func TestWrongEncryptionSettings(t *testing.T) {
	for want, e := range map[string]*settings.Encryption{
		"archive.encryption.keys_url: expected file:// or s3://": {KeysURL: "ftp://x", MasterKey: oneMaster},
		"master key 2: expected 256 bits":                        {KeysURL: "file:///x", MasterKey: oneMaster, OldMasterKeys: []config.Secret{config.NewSecret("canary")}},
	} {
		r := newRig(t, 1)
		r.cfg.Archive.Encryption = e
		_, err := New(&r.cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "canary")
	}
	_, err := keys.Open(context.Background(), settings.Archive{})
	require.NoError(t, err)
}
