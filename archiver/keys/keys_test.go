package keys

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/archiver/internal/objstore"
	"github.com/catchment-dev/catchment/archiver/internal/row"
	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/s3test"
)

var (
	oneMaster   = config.NewSecret(strings.Repeat("01", 32))
	otherMaster = config.NewSecret(strings.Repeat("02", 32))
	noon        = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	topicID     = [16]byte{7}
)

// onEachStore runs a test on a folder and on a bucket.
func onEachStore(t *testing.T, test func(t *testing.T, open func(masters ...config.Secret) *Ring)) {
	t.Helper()
	urls := map[string]string{"file": "file://" + t.TempDir()}
	if bucket := s3test.New(t); bucket != nil {
		urls["s3"] = bucket.URL
	}
	for name, url := range urls {
		t.Run(name, func(t *testing.T) {
			test(t, func(masters ...config.Secret) *Ring {
				t.Helper()
				store, err := objstore.OpenForgetful(t.Context(), url)
				require.NoError(t, err)
				return ringOn(t, store, masters...)
			})
		})
	}
}

func ringOn(t *testing.T, store objstore.Forgetful, masters ...config.Secret) *Ring {
	t.Helper()
	if len(masters) == 0 {
		masters = []config.Secret{oneMaster}
	}
	r, err := newRing(store, masters...)
	require.NoError(t, err)
	return r
}

func folder(t *testing.T) objstore.Forgetful {
	t.Helper()
	store, err := objstore.OpenForgetful(t.Context(), "file://"+t.TempDir())
	require.NoError(t, err)
	return store
}

const canary = "canary-4711"

// record is a delivery that holds the canary wherever a request can.
func record(offset int64) *kgo.Record {
	r := event.Encode(&event.Delivery{
		Source: "stripe", Provider: "stripe", ID: "evt_1", Type: "paid", DeliveryID: "0199a0b0-0000-7000-8000-000000000001",
		ReceivedAt: noon, Verdict: event.NewVerdict(event.FlagVerified), Method: "POST", Path: "/webhooks/stripe", ContentType: "application/json",
		Query: "q=" + canary, SignedURL: "https://x/?" + canary, RemoteAddr: canary, TraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", TraceState: "t=" + canary,
		Headers: []event.Header{{Name: "a", Value: canary}, {Name: "b", Value: "\xff" + canary}, {Name: "a", Value: "2"}},
		Body:    []byte(strings.Repeat(`{"name":"`+canary+`"}`, 30)),
	})
	r.Topic, r.Partition, r.Offset, r.Timestamp = "events", 3, offset, noon
	return r
}

func rowOf(r *kgo.Record) *row.Row { return row.From(r, topicID) }

func sealed(t *testing.T, ring *Ring, r *kgo.Record) *row.Row {
	t.Helper()
	w := rowOf(r)
	require.NoError(t, ring.Seal(t.Context(), w))
	return w
}

func leaf(w *row.Row) string {
	var s strings.Builder
	w.WriteLeaf(&s, nil)
	return s.String()
}

func TestSealedRowsTellNothingAndComeBack(t *testing.T) {
	ring := ringOn(t, folder(t))
	undecodable := &kgo.Record{
		Key: []byte(canary), Value: []byte(canary), Topic: "events", Timestamp: noon,
		Headers: []kgo.RecordHeader{{Key: canary, Value: []byte(canary)}, {Key: "x", Value: []byte("\xff" + canary)}},
	}
	random := make([]byte, 3000)
	for i := range random {
		random[i] = byte(rand.Uint32())
	}
	incompressible := record(3)
	incompressible.Value = random
	for name, r := range map[string]*kgo.Record{
		"delivery": record(1), "no delivery": undecodable, "empty": {Value: []byte{}, Topic: "events", Timestamp: noon}, "incompressible": incompressible,
	} {
		t.Run(name, func(t *testing.T) {
			plain, w := rowOf(r), sealed(t, ring, r)
			require.NotContains(t, leaf(w), canary)
			require.Equal(t, plain.BodySHA256, w.BodySHA256)
			require.True(t, plain.SameRecord(w))
			require.Len(t, w.Headers, 1)
			require.NoError(t, ring.Unseal(t.Context(), w))
			require.Equal(t, leaf(plain), leaf(w), "all columns are what they were")
			got, want := w.Record(), plain.Record()
			require.Equal(t, want, got)
			require.NoError(t, ring.Unseal(t.Context(), w), "a plain row stays")
		})
	}
	require.Equal(t, "stripe/2026-11-01/0", sealed(t, ring, record(1)).BodyKeyID)
	require.Equal(t, "_/2026-11-01/0", sealed(t, ring, undecodable).BodyKeyID)
	require.Less(t, len(sealed(t, ring, record(1)).Body), len(record(1).Value)/2, "bodies are compressed before they are encrypted")

	control := &kgo.Record{Topic: "events", Timestamp: noon, Attrs: kgo.RecordAttrs{}}
	w := rowOf(control)
	w.Attributes = []row.Attribute{{Name: row.AttributeControl, Value: "true"}}
	require.NoError(t, ring.Seal(t.Context(), w))
	require.Empty(t, w.BodyKeyID, "markers of Kafka's own stay plain")

	var none *Ring
	require.ErrorIs(t, none.Unseal(t.Context(), sealed(t, ring, record(1))), ErrNoRing)
	require.NoError(t, none.Seal(t.Context(), rowOf(record(1))))
}

// Of a result the value is sealed, and what it is of can be read: whether it is one, of which operation, with what outcome.
func TestSealedResults(t *testing.T) {
	ring := ringOn(t, folder(t))
	returned := "\"" + canary + "\""
	r, err := event.EncodeResult(&event.Result{Source: "shop", EventID: "evt_1", Operation: "orders", Attempt: 2, Outcome: "succeeded", Returned: []byte(returned)})
	require.NoError(t, err)
	r.Topic, r.Timestamp = "results", noon
	for _, undecodable := range []bool{false, true} {
		if undecodable {
			r.Headers = append(r.Headers[1:], kgo.RecordHeader{Key: "x", Value: []byte(canary)})
		}
		plain, w := row.FromResult(r, topicID), row.FromResult(r, topicID)
		require.NoError(t, ring.Seal(t.Context(), w))
		require.NotContains(t, leaf(w), canary)
		require.True(t, w.IsResult())
		require.Equal(t, "shop/2026-11-01/0", w.BodyKeyID)
		if !undecodable {
			require.Equal(t, plain.Attributes, w.Attributes)
		}
		require.NoError(t, ring.Unseal(t.Context(), w))
		require.Equal(t, leaf(plain), leaf(w))
	}
}

// Two archivers that archive one record write the same bytes; other places and other bytes have other nonces.
func TestSealingIsDeterministicAndBound(t *testing.T) {
	store := folder(t)
	a, b := ringOn(t, store), ringOn(t, store)
	one := sealed(t, a, record(1))
	require.Equal(t, leaf(one), leaf(sealed(t, b, record(1))))
	nonce := func(w *row.Row) string { return string(w.Body[:nonceSize]) }
	other := record(1)
	other.Value = bytes.Replace(other.Value, []byte(canary), []byte("another"), 1)
	require.NotEqual(t, nonce(one), nonce(sealed(t, a, record(2))), "another offset")
	require.NotEqual(t, nonce(one), nonce(sealed(t, a, other)), "other bytes")
	moved := row.From(record(1), [16]byte{8})
	require.NoError(t, a.Seal(t.Context(), moved))
	require.NotEqual(t, nonce(one), nonce(moved), "another topic")

	for name, change := range map[string]func(w *row.Row){
		"another offset":     func(w *row.Row) { w.Offset++ },
		"another partition":  func(w *row.Row) { w.Partition++ },
		"another topic":      func(w *row.Row) { w.TopicID[0]++ },
		"an altered body":    func(w *row.Row) { w.Body[20] ^= 1 },
		"a short body":       func(w *row.Row) { w.Body = w.Body[:5] },
		"another digest":     func(w *row.Row) { w.BodySHA256[0]++ },
		"no header":          func(w *row.Row) { w.Headers = nil },
		"a header of others": func(w *row.Row) { w.Headers[0].Values[0] = "AAAA" },
		"headers as body":    func(w *row.Row) { w.Body = []byte(w.Headers[0].Values[0]) },
		"a malformed ID":     func(w *row.Row) { w.BodyKeyID = "stripe/2026-11-01" },
		"a malformed day":    func(w *row.Row) { w.BodyKeyID = "stripe/2026-13-01/0" },
	} {
		w := sealed(t, a, record(1))
		change(w)
		require.Error(t, a.Unseal(t.Context(), w), name)
	}
}

func TestManyAgreeOnOneKey(t *testing.T) {
	onEachStore(t, func(t *testing.T, open func(...config.Secret) *Ring) {
		t.Helper()
		var all sync.Map
		var wg sync.WaitGroup
		for range 8 {
			ring := open()
			wg.Go(func() {
				w := rowOf(record(1))
				for ring.Seal(t.Context(), w) != nil && t.Context().Err() == nil {
				}
				all.Store(leaf(w), true)
			})
		}
		wg.Wait()
		n := 0
		all.Range(func(any, any) bool { n++; return true })
		require.Equal(t, 1, n)
		require.NoError(t, objstore.Probe(t.Context(), open().Store()))
	})
}

func TestDestroyedKey(t *testing.T) {
	onEachStore(t, func(t *testing.T, open func(...config.Secret) *Ring) {
		t.Helper()
		ring := open()
		w, other := sealed(t, ring, record(1)), record(2)
		other.Timestamp = noon.AddDate(0, 0, 1)
		stays := sealed(t, ring, other)
		day := noon.Truncate(24 * time.Hour)
		there, erased, err := ring.List(t.Context(), "stripe", day, day.AddDate(0, 0, 1))
		require.NoError(t, err)
		require.Empty(t, erased)
		require.Equal(t, []ID{{"stripe", "2026-11-01", 0}}, there)
		keeps, err := ring.KeepsVersions(t.Context())
		require.NoError(t, err)
		require.False(t, keeps)

		e := Erasure{ID: there[0], At: noon, Actor: "ann@host", Reason: "request 12 \"of\"\na person"}
		require.NoError(t, ring.Destroy(t.Context(), e))
		again := e
		again.Actor = "bob"
		require.NoError(t, ring.Destroy(t.Context(), again), "again does no harm")
		for _, r := range []*Ring{ring, open()} {
			var gone *ErasedError
			require.ErrorAs(t, r.Unseal(t.Context(), w), &gone)
			require.Equal(t, e, gone.Erasure, "who was first counts")
			require.Contains(t, gone.Error(), "erased on 2026-11-01T12:00:00Z by ann@host: request 12")
			require.NoError(t, r.Unseal(t.Context(), rowOf(record(1))))
			copied := *stays
			require.NoError(t, r.Unseal(t.Context(), &copied))
			next := sealed(t, r, record(1))
			require.Equal(t, "stripe/2026-11-01/1", next.BodyKeyID)
			require.NoError(t, r.Unseal(t.Context(), next))
		}
		there, erased, err = open().List(t.Context(), "stripe", day, day.AddDate(0, 0, 1))
		require.NoError(t, err)
		require.Equal(t, []ID{{"stripe", "2026-11-01", 1}}, there)
		require.Equal(t, []Erasure{e}, erased)
	})
}

// hooked calls before each call of the store.
type hooked struct {
	objstore.Forgetful
	before func(call, key string) error
}

func (h *hooked) Read(ctx context.Context, key string, offset, length int64) ([]byte, error) {
	if err := h.before("read", key); err != nil {
		return nil, err
	}
	return h.Forgetful.Read(ctx, key, offset, length)
}

func (h *hooked) Create(ctx context.Context, key string, body []byte) error {
	if err := h.before("create", key); err != nil {
		return err
	}
	return h.Forgetful.Create(ctx, key, body)
}

// At whatever call a destruction comes in between, nobody seals under the destroyed key afterwards, and what was sealed by
// the time it ended can be read by nobody or is of the next generation.
func TestDestructionAtAnyMoment(t *testing.T) {
	calls := func(store objstore.Forgetful, at int, do func()) *hooked {
		n := 0
		return &hooked{store, func(string, string) error {
			if n++; n == at {
				do()
			}
			return nil
		}}
	}
	for _, made := range []bool{false, true} {
		for at := 1; ; at++ {
			store := folder(t)
			id := ID{"stripe", "2026-11-01", 0}
			if made {
				sealed(t, ringOn(t, store), record(1))
			}
			done := false
			w := sealed(t, ringOn(t, calls(store, at, func() {
				done = true
				// Another archiver has made the key by then, or makes it again.
				sealed(t, ringOn(t, store), record(1))
				require.NoError(t, ringOn(t, store).Destroy(t.Context(), Erasure{ID: id, At: noon, Actor: "a", Reason: "r"}))
			})), record(1))
			if !done {
				require.Greater(t, at, 2)
				break
			}
			require.Equal(t, "stripe/2026-11-01/1", w.BodyKeyID, "made %v, destroyed before call %d", made, at)
			require.NoError(t, ringOn(t, store).Unseal(t.Context(), w))
			require.Equal(t, "stripe/2026-11-01/1", sealed(t, ringOn(t, store), record(2)).BodyKeyID)
		}
	}
}

func TestMasterKeyIsRotated(t *testing.T) {
	onEachStore(t, func(t *testing.T, open func(...config.Secret) *Ring) {
		t.Helper()
		before := sealed(t, open(oneMaster), record(1))
		later := record(2)
		later.Timestamp = noon.AddDate(0, 0, 1)

		rotated := open(otherMaster, oneMaster)
		require.Equal(t, "stripe/2026-11-01/0", sealed(t, rotated, record(3)).BodyKeyID, "the key of the day stays")
		after := sealed(t, rotated, later)
		for _, w := range []*row.Row{before, after} {
			copied := *w
			require.NoError(t, rotated.Unseal(t.Context(), &copied))
		}
		wrong := open(otherMaster)
		copied := *after
		require.NoError(t, wrong.Unseal(t.Context(), &copied), "new keys are wrapped under the first")
		err := wrong.Unseal(t.Context(), before)
		require.ErrorIs(t, err, ErrUnusable)
		require.ErrorContains(t, err, "is not configured: add it to archive.encryption.old_master_keys")
		require.ErrorIs(t, wrong.Seal(t.Context(), rowOf(record(1))), ErrUnusable)
	})
}

func TestAlteredObjectsAreRefused(t *testing.T) {
	store := folder(t)
	ring := ringOn(t, store)
	sealed(t, ring, record(1))
	id := ID{"stripe", "2026-11-01", 0}
	key, err := store.Read(t.Context(), id.key(), 0, -1)
	require.NoError(t, err)
	require.NoError(t, ring.Destroy(t.Context(), Erasure{ID: id, At: noon, Actor: "a", Reason: "r"}))
	tombstone, err := store.Read(t.Context(), id.tombstone(), 0, -1)
	require.NoError(t, err)
	for _, c := range []struct {
		at    string
		whole []byte
		upto  int // the time, the actor and the reason could be others
	}{{id.key(), key, len(key)}, {id.tombstone(), tombstone, bytes.Index(tombstone, []byte("\nat "))}} {
		for at := range c.upto {
			store, broken := folder(t), bytes.Clone(c.whole)
			broken[at] ^= 4
			require.NoError(t, store.Create(t.Context(), c.at, broken))
			require.ErrorIs(t, ringOn(t, store).Seal(t.Context(), rowOf(record(1))), ErrUnusable, "%s, byte %d", c.at, at)
		}
		for _, cut := range [][]byte{nil, c.whole[:len(c.whole)-1], c.whole[:c.upto/2], append(bytes.Clone(c.whole), '\n')} {
			store := folder(t)
			require.NoError(t, store.Create(t.Context(), c.at, cut))
			require.ErrorIs(t, ringOn(t, store).Seal(t.Context(), rowOf(record(1))), ErrUnusable, "%s: %q", c.at, cut)
		}
	}
}

// What fails passes on: nothing is sealed under a key that is not in the store.
func TestStoreThatFails(t *testing.T) {
	errFault := errors.New("injected")
	for at := 1; at <= 4; at++ {
		store, n := folder(t), 0
		ring := ringOn(t, &hooked{store, func(string, string) error {
			if n++; n == at {
				return errFault
			}
			return nil
		}})
		w := rowOf(record(1))
		require.ErrorIs(t, ring.Seal(t.Context(), w), errFault, "call %d", at)
		require.NotErrorIs(t, ring.Seal(t.Context(), w), ErrUnusable)
		require.Equal(t, leaf(sealed(t, ringOn(t, store), record(1))), leaf(w), "tried again")
	}
}

func FuzzObjects(f *testing.F) {
	w, err := newMaster(bytes.Repeat([]byte{1}, keySize)).wrap(ID{"stripe", "2026-11-01", 0}, make([]byte, keySize))
	require.NoError(f, err)
	f.Add(w.object())
	f.Add((&Erasure{ID: ID{NoSource, "2026-11-01", 12}, At: noon, Actor: "a\n", Reason: "\xff"}).object())
	f.Add([]byte(keyTitle + "\nname a/2026-11-01/0\nmaster \nwrapped \n"))
	f.Add([]byte(keyTitle + "\nname 0/0000-01-01/0\nmaster \nwrapped 000\r0000000000000\n"))
	for _, at := range []string{"2026-11-01T12:00:00.5Z", "2026-11-01T12:00:00+01:00", "2026-11-01T1:00:00Z", "2026-11-01T12:00:00Z"} {
		for _, by := range []string{`"ada"`, "`ada`", `"\x61da"`} {
			f.Add([]byte(erasedTitle + "\nname stripe/2026-11-01/0\nat " + at + "\nby " + by + "\nreason \"r\"\n"))
		}
	}
	f.Add([]byte("stripe/2026-11-01/0"))
	f.Fuzz(func(t *testing.T, object []byte) {
		if w, err := parseWrapped(object); err == nil {
			require.Equal(t, string(object), string(w.object()), "one form only")
		}
		if e, err := parseErasure(object); err == nil {
			require.Equal(t, string(object), string(e.object()), "one form only")
		}
		if id, err := ParseID(string(object)); err == nil {
			require.Equal(t, string(object), id.String())
		}
	})
}
