// Package objstoretest is what every store must pass. A store comes in and failures go out, through testing.T.
// It must never know which store it is.
package objstoretest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/archiver/internal/objstore"
)

// Run tests the store at a URL, which must be empty at first. It opens several handles on it.
func Run(t *testing.T, url string) {
	t.Helper()
	open := func(t *testing.T) objstore.Store {
		t.Helper()
		s, err := objstore.Open(t.Context(), url)
		require.NoError(t, err)
		return s
	}
	t.Run("a created object is read, sized and never replaced", func(t *testing.T) { createOnce(t, open(t)) })
	t.Run("of many that create one key at once, one succeeds", func(t *testing.T) { race(t, open) })
	t.Run("keys are listed in byte order", func(t *testing.T) { list(t, open(t)) })
	t.Run("ranges", func(t *testing.T) { ranges(t, open(t)) })
	t.Run("the probe passes, again and again", func(t *testing.T) {
		require.NoError(t, objstore.Probe(t.Context(), open(t)))
		require.NoError(t, objstore.Probe(t.Context(), open(t)))
	})
	t.Run("what is deleted is gone, and its key is free", func(t *testing.T) {
		s, err := objstore.OpenForgetful(t.Context(), url)
		require.NoError(t, err)
		forget(t, s)
	})
	t.Run("a cancelled call fails", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.ErrorIs(t, open(t).Create(ctx, "cancelled/object", nil), context.Canceled)
	})
}

func createOnce(t *testing.T, s objstore.Store) {
	t.Helper()
	ctx := t.Context()
	const key = "once/date=2026-11-01/a-b.parquet"
	_, err := s.Size(ctx, key)
	require.ErrorIs(t, err, objstore.ErrNotFound)
	_, err = s.Read(ctx, key, 0, -1)
	require.ErrorIs(t, err, objstore.ErrNotFound)

	first := bytes.Repeat([]byte{0, 1, 0xff}, 1<<20)
	require.NoError(t, s.Create(ctx, key, first))
	require.ErrorIs(t, s.Create(ctx, key, []byte("other")), objstore.ErrExists)
	require.ErrorIs(t, s.Create(ctx, key, first), objstore.ErrExists)

	got, err := s.Read(ctx, key, 0, -1)
	require.NoError(t, err)
	require.True(t, bytes.Equal(first, got))
	size, err := s.Size(ctx, key)
	require.NoError(t, err)
	require.EqualValues(t, len(first), size)

	require.NoError(t, s.Create(ctx, "once/empty", nil))
	got, err = s.Read(ctx, "once/empty", 0, -1)
	require.NoError(t, err)
	require.Empty(t, got)
}

func race(t *testing.T, open func(t *testing.T) objstore.Store) {
	t.Helper()
	const rounds, racers = 10, 8
	stores := make([]objstore.Store, racers)
	for i := range stores {
		stores[i] = open(t)
	}
	for round := range rounds {
		key := fmt.Sprintf("race/%d", round)
		var won atomic.Int64
		winner := int64(-1)
		var wg sync.WaitGroup
		for i, s := range stores {
			wg.Go(func() {
				for {
					err := s.Create(t.Context(), key, bytes.Repeat([]byte{byte(i)}, 100_000))
					if err == nil {
						won.Add(1)
						atomic.StoreInt64(&winner, int64(i))
					}
					if err == nil || errors.Is(err, objstore.ErrExists) || t.Context().Err() != nil {
						return
					}
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 1, won.Load())
		got, err := stores[0].Read(t.Context(), key, 0, -1)
		require.NoError(t, err)
		require.True(t, bytes.Equal(bytes.Repeat([]byte{byte(winner)}, 100_000), got))
	}
}

func list(t *testing.T, s objstore.Store) {
	t.Helper()
	require.Empty(t, collect(t, s.List(t.Context(), "list/", "")))
	for _, key := range []string{"list/b/2", "list/b/1", "list/a-b/1", "list/a/1", "list/b/10", "listed"} {
		require.NoError(t, s.Create(t.Context(), key, []byte(key)))
	}
	all := []string{"list/a-b/1", "list/a/1", "list/b/1", "list/b/10", "list/b/2"}
	require.Equal(t, all, collect(t, s.List(t.Context(), "list/", "")))
	require.Equal(t, all[3:], collect(t, s.List(t.Context(), "list/", "list/b/1")))
	require.Equal(t, all[2:4], collect(t, s.List(t.Context(), "list/b/1", "")))
	for key, err := range s.List(t.Context(), "list/", "") {
		require.NoError(t, err)
		require.Equal(t, all[0], key)
		break
	}
}

func ranges(t *testing.T, s objstore.Store) {
	t.Helper()
	require.NoError(t, s.Create(t.Context(), "ranges", []byte("0123456789")))
	for _, c := range []struct {
		offset, length int64
		want           string
	}{{0, -1, "0123456789"}, {3, 4, "3456"}, {8, 10, "89"}, {4, -1, "456789"}, {10, 5, ""}, {2, 0, ""}} {
		got, err := s.Read(t.Context(), "ranges", c.offset, c.length)
		require.NoError(t, err)
		require.Equal(t, c.want, string(got), "%d bytes from %d", c.length, c.offset)
	}
}

func collect(t *testing.T, keys iter.Seq2[string, error]) []string {
	t.Helper()
	var out []string
	for key, err := range keys {
		require.NoError(t, err)
		out = append(out, key)
	}
	return out
}

func forget(t *testing.T, s objstore.Forgetful) {
	t.Helper()
	keeps, err := s.KeepsVersions(t.Context())
	require.NoError(t, err)
	require.False(t, keeps)
	require.NoError(t, s.Delete(t.Context(), "forget/nothing"))
	require.NoError(t, s.Create(t.Context(), "forget/a/1", []byte("1")))
	require.NoError(t, s.Create(t.Context(), "forget/a/10", []byte("10")))
	require.NoError(t, s.Delete(t.Context(), "forget/a/1"))
	require.NoError(t, s.Delete(t.Context(), "forget/a/1"))
	_, err = s.Read(t.Context(), "forget/a/1", 0, -1)
	require.ErrorIs(t, err, objstore.ErrNotFound)
	require.Equal(t, []string{"forget/a/10"}, collect(t, s.List(t.Context(), "forget/", "")))
	require.NoError(t, s.Create(t.Context(), "forget/a/1", []byte("again")))
}
