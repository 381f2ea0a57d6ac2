package archive_test

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"

	"github.com/catchment-dev/catchment/archiver/archive"
	"github.com/catchment-dev/catchment/archiver/internal/chain"
	"github.com/catchment-dev/catchment/archiver/internal/checkpoint"
	"github.com/catchment-dev/catchment/archiver/internal/layout"
	"github.com/catchment-dev/catchment/archiver/internal/objstore"
	"github.com/catchment-dev/catchment/archiver/internal/row"
	"github.com/catchment-dev/catchment/archiver/internal/segment"
	"github.com/catchment-dev/catchment/pkg/event"
)

// memory is a store in memory, whose objects tests alter.
type memory map[string]string

func (m memory) Create(_ context.Context, key string, body []byte) error {
	if _, ok := m[key]; ok {
		return objstore.ErrExists
	}
	m[key] = string(body)
	return nil
}

func (m memory) Read(_ context.Context, key string, offset, length int64) ([]byte, error) {
	body, ok := m[key]
	if !ok {
		return nil, objstore.ErrNotFound
	}
	body = body[min(offset, int64(len(body))):]
	if length >= 0 && length < int64(len(body)) {
		body = body[:length]
	}
	return []byte(body), nil
}

func (m memory) Size(_ context.Context, key string) (int64, error) {
	if body, ok := m[key]; ok {
		return int64(len(body)), nil
	}
	return 0, objstore.ErrNotFound
}

func (m memory) List(_ context.Context, prefix, after string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for _, key := range m.keys(prefix) {
			if key > after && !yield(key, nil) {
				return
			}
		}
	}
}

func (m memory) keys(prefix string) (keys []string) {
	for key := range m {
		if strings.HasPrefix(key, prefix) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// vault is an archive with signed checkpoints, their copies, and what checks it.
type vault struct {
	store, second memory
	key           *checkpoint.Key
	chains        []layout.Partition
}

const vaultRows = 6

// newVault makes two chains of five links, of which the third is a gap.
func newVault(t *testing.T) *vault {
	t.Helper()
	v := &vault{store: memory{}, second: memory{}, key: signer(t, "example.com/archive")}
	for number := range int32(2) {
		c := &chain.Chain{Store: v.store, Copy: v.second, Key: v.key, Partition: layout.Partition{Topic: "events", TopicID: topicID, Number: number}}
		v.chains = append(v.chains, c.Partition)
		tip, err := c.Begin(t.Context(), 100)
		require.NoError(t, err)
		for day := range 5 {
			if day == 2 {
				_, tip, err = c.Admit(t.Context(), tip, tip.Next+9, "ada@example.com", "retention was too short", dayOne)
				require.NoError(t, err)
				continue
			}
			s := build(t, c.Partition, tip.Next, tip.Segment, dayOne.AddDate(0, 0, day), inOrder(tip.Next))
			added, err := c.Add(t.Context(), tip, s)
			require.NoError(t, err)
			tip = added.Tip
		}
	}
	return v
}

func signer(t *testing.T, name string) *checkpoint.Key {
	t.Helper()
	text, _, err := note.GenerateKey(nil, name)
	require.NoError(t, err)
	key, err := checkpoint.NewKey(text)
	require.NoError(t, err)
	return key
}

func inOrder(first int64) []int64 {
	offsets := make([]int64, vaultRows)
	for i := range offsets {
		offsets[i] = first + int64(i)
	}
	return offsets
}

// build makes a segment whose rows hold the bodies of the given offsets.
func build(t *testing.T, p layout.Partition, first int64, previous string, day time.Time, bodies []int64) *segment.Segment {
	t.Helper()
	b := segment.NewBuilder(p, first, "writer")
	for _, body := range bodies {
		r := event.Encode(&event.Delivery{
			Source: "shop", ID: fmt.Sprintf("evt_%d_%d", p.Number, body), DeliveryID: "0199a0b0-0000-7000-8000-000000000001",
			ReceivedAt: dayOne, Verdict: "verified", Type: "t", Body: fmt.Appendf(nil, "body %d", body),
		})
		r.Topic, r.Partition, r.Offset, r.Timestamp = p.Topic, p.Number, b.Next(), day
		require.NoError(t, b.Append(row.From(r, p.TopicID), 0, 100))
	}
	s, err := b.Finish(previous)
	require.NoError(t, err)
	return s
}

func (v *vault) verify(t *testing.T) *archive.Report {
	t.Helper()
	r, err := archive.Verify(t.Context(), v.store, archive.Checks{Keys: []archive.Verifier{v.key.Verifier()}, Copy: v.second})
	require.NoError(t, err)
	return r
}

// mutation changes an archive in one way, and says what it did.
type mutation func(t *testing.T, v *vault, random *rand.Rand) string

func (v *vault) pick(random *rand.Rand, prefixes ...string) string {
	var keys []string
	for _, prefix := range prefixes {
		keys = append(keys, v.store.keys(prefix)...)
	}
	return keys[random.IntN(len(keys))]
}

func flip(_ *testing.T, v *vault, random *rand.Rand) string {
	prefix := []string{"events/", "checkpoints/", "starts/"}[random.IntN(3)]
	key := v.pick(random, prefix)
	b := []byte(v.store[key])
	at, bit := random.IntN(len(b)), byte(1<<random.IntN(8))
	b[at] ^= bit
	v.store[key] = string(b)
	return fmt.Sprintf("bit %#x of byte %d of %s is flipped", bit, at, key)
}

func remove(_ *testing.T, v *vault, random *rand.Rand) string {
	key := v.pick(random, "events/", "checkpoints/", "starts/")
	delete(v.store, key)
	return key + " is deleted"
}

func swap(_ *testing.T, v *vault, random *rand.Rand) string {
	prefix := []string{"events/", "checkpoints/"}[random.IntN(2)]
	a, b := v.pick(random, prefix), v.pick(random, prefix)
	for a == b {
		b = v.pick(random, prefix)
	}
	v.store[a], v.store[b] = v.store[b], v.store[a]
	return a + " and " + b + " are swapped"
}

func truncate(_ *testing.T, v *vault, random *rand.Rand) string {
	key := v.pick(random, "events/", "checkpoints/", "starts/")
	length := random.IntN(len(v.store[key]))
	v.store[key] = v.store[key][:length]
	return fmt.Sprintf("%s is cut off at byte %d", key, length)
}

// reorder writes a segment anew with two rows' contents exchanged. Half of the time it writes all checkpoints and
// segments behind it anew as well, unsigned or signed by another key: a whole new history.
func reorder(t *testing.T, v *vault, random *rand.Rand) string {
	t.Helper()
	key := v.pick(random, "events/")
	is, err := layout.ParseSegment(key)
	require.NoError(t, err)
	p, day, first := is.Partition, is.Day, is.First
	bodies := inOrder(first)
	i, j := random.IntN(len(bodies)), random.IntN(len(bodies)-1)
	if j >= i {
		j++
	}
	bodies[i], bodies[j] = bodies[j], bodies[i]
	previous := ""
	if l, err := checkpoint.ParseLink([]byte(v.store[p.Checkpoint(first)])); err == nil {
		f, err := segment.OpenBytes([]byte(v.store[l.Checkpoint.Segment]))
		require.NoError(t, err)
		previous = f.Previous
	}
	s := build(t, p, first, previous, day, bodies)
	require.Equal(t, key, s.Key(layout.Events))
	v.store[key] = string(s.Body)
	what := fmt.Sprintf("rows %d and %d of %s are exchanged", i, j, key)
	if random.IntN(2) == 0 {
		return what
	}
	var forger *checkpoint.Key
	if random.IntN(2) == 0 {
		forger = signer(t, "example.com/archive")
	}
	rewrite(t, v, p, forger)
	return what + ", and its chain is written anew"
}

// rewrite makes a chain's segments and checkpoints consistent again.
func rewrite(t *testing.T, v *vault, p layout.Partition, key *checkpoint.Key) {
	t.Helper()
	segmentHash, previous := "", ""
	for _, at := range v.store.keys(p.Checkpoints()) {
		l, err := checkpoint.ParseLink([]byte(v.store[at]))
		require.NoError(t, err)
		var object []byte
		if l.Gap != nil {
			l.Gap.Segment, l.Gap.Previous = segmentHash, previous
			object, err = key.Object(l.Gap)
		} else {
			cp := l.Checkpoint
			f, openErr := segment.OpenBytes([]byte(v.store[cp.Segment]))
			require.NoError(t, openErr)
			var bodies []int64
			for w, err := range f.Rows(f.First) {
				require.NoError(t, err)
				var body int64
				_, err = fmt.Sscanf(string(w.Body), "body %d", &body)
				require.NoError(t, err)
				bodies = append(bodies, body)
			}
			is, parseErr := layout.ParseSegment(cp.Segment)
			require.NoError(t, parseErr)
			s := build(t, p, cp.First, segmentHash, is.Day, bodies)
			v.store[cp.Segment] = string(s.Body)
			segmentHash = checkpoint.Hash(s.Body)
			cp.Size, cp.SHA256, cp.Root, cp.Previous = int64(len(s.Body)), segmentHash, fmt.Sprintf("%x", s.Root), previous
			object, err = key.Object(cp)
		}
		require.NoError(t, err)
		v.store[at] = string(object)
		previous = checkpoint.Hash(object)
	}
}

func duplicate(_ *testing.T, v *vault, random *rand.Rand) string {
	key := v.pick(random, "events/")
	is, _ := layout.ParseSegment(key)
	day, later, stranger, kind := is, is, is, is
	day.Day = is.Day.AddDate(0, 0, 1+random.IntN(30))
	later.First += 1 + random.Int64N(1000)
	stranger.Partition = layout.Partition{Topic: "events", TopicID: [16]byte{8}, Number: random.Int32N(9)}
	kind.Kind = layout.Results
	other := []string{
		day.Key(), later.Key(), stranger.Key(), kind.Key(),
		strings.TrimSuffix(key, ".parquet") + " (1).parquet",
		"events/" + strings.ReplaceAll(key, "/", "-"),
	}
	to := other[random.IntN(len(other))]
	if _, taken := v.store[to]; taken {
		to = key + "~"
	}
	v.store[to] = v.store[key]
	return key + " stands under " + to + " as well"
}

// rollBack cuts a chain's end off, segments and checkpoints, to the last byte as it was some time before.
func rollBack(_ *testing.T, v *vault, random *rand.Rand) string {
	p := v.chains[random.IntN(len(v.chains))]
	links := v.store.keys(p.Checkpoints())
	kept := random.IntN(len(links))
	for _, key := range links[kept:] {
		if l, err := checkpoint.ParseLink([]byte(v.store[key])); err == nil && l.Checkpoint != nil {
			delete(v.store, l.Checkpoint.Segment)
		}
		delete(v.store, key)
	}
	if kept == 0 && random.IntN(2) == 0 {
		delete(v.store, p.Start())
	}
	return fmt.Sprintf("of %s, %d of %d links are left", p, kept, len(links))
}

// R43: each of a thousand random changes to an archive is found.
func TestR43TamperingIsFound(t *testing.T) {
	whole := newVault(t)
	r := whole.verify(t)
	require.Empty(t, r.Problems)
	require.Len(t, r.Gaps, 2)
	require.EqualValues(t, 2*4*vaultRows, r.Records)

	kinds := []mutation{flip, remove, swap, truncate, reorder, duplicate, rollBack}
	const mutations, seed = 1000, 43
	found := map[int]int{}
	for i := range mutations {
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		v := &vault{store: maps.Clone(whole.store), second: whole.second, key: whole.key, chains: whole.chains}
		what := kinds[i%len(kinds)](t, v, random)
		r := v.verify(t)
		require.NotEmpty(t, r.Problems, "mutation %d: %s", i, what)
		for _, p := range r.Problems {
			require.NotEmpty(t, p.Key)
			require.NotEmpty(t, p.What)
			require.NotEmpty(t, p.Kind)
		}
		found[i%len(kinds)]++
	}
	require.Len(t, found, len(kinds))
}

// Without a second place, a chain that was cut off looks like a younger one: only who has kept a checkpoint sees it.
func TestRolledBackTailNeedsAnotherPlace(t *testing.T) {
	v := newVault(t)
	links := v.store.keys(v.chains[1].Checkpoints())
	last := links[len(links)-1]
	saved := []byte(v.store[last])
	l, err := checkpoint.ParseLink(saved)
	require.NoError(t, err)
	delete(v.store, last)
	delete(v.store, l.Checkpoint.Segment)
	keys := []archive.Verifier{v.key.Verifier()}
	r, err := archive.Verify(t.Context(), v.store, archive.Checks{Keys: keys})
	require.NoError(t, err)
	require.Empty(t, r.Problems)
	for name, checks := range map[string]archive.Checks{
		"second place":     {Keys: keys, Copy: v.second},
		"saved checkpoint": {Keys: keys, Saved: map[string][]byte{last: saved}},
	} {
		r, err := archive.Verify(t.Context(), v.store, checks)
		require.NoError(t, err, name)
		require.Len(t, r.Problems, 1, name)
		require.Equal(t, archive.RolledBack, r.Problems[0].Kind)
		require.Equal(t, last, r.Problems[0].Key)
	}
}

// All faults are reported, each by its kind, and what an expiry rule has removed is told from what was never there.
func TestVerifyNamesEveryFault(t *testing.T) {
	v := newVault(t)
	a, b := v.chains[0], v.chains[1]
	first, last := v.store.keys("events/")[0], layout.Segment{Partition: a, Day: dayOne.AddDate(0, 0, 4), First: 100 + 3*vaultRows + 10}.Key()
	delete(v.store, first)
	v.store[last] += "x"
	delete(v.store, b.Checkpoint(100+vaultRows))
	v.store["events/readme.txt"] = ""
	kinds := func(r *archive.Report) map[string]string {
		out := map[string]string{}
		for _, p := range r.Problems {
			out[p.Key+" "+p.Kind] = p.What
		}
		return out
	}
	got := kinds(v.verify(t))
	require.Contains(t, got[first+" "+archive.Missing], "--since")
	require.Contains(t, got[last+" "+archive.Changed], "expected")
	require.Contains(t, got[b.Checkpoint(100+2*vaultRows)+" "+archive.Hole], fmt.Sprintf("expected offset %d, found %d", 100+vaultRows, 100+2*vaultRows))
	require.Contains(t, got, layout.Segment{Partition: b, Day: dayOne.AddDate(0, 0, 1), First: 100 + vaultRows}.Key()+" "+archive.Orphan)
	require.Contains(t, got, b.Checkpoint(100+vaultRows)+" "+archive.RolledBack)
	require.Contains(t, got, "events/readme.txt "+archive.Foreign)

	whole := newVault(t)
	delete(whole.store, first)
	r, err := archive.Verify(t.Context(), whole.store, archive.Checks{Since: dayOne.AddDate(0, 0, 1)})
	require.NoError(t, err)
	require.Empty(t, r.Problems)
	require.EqualValues(t, 2, r.NotRead)
	require.EqualValues(t, 10, r.Unchecked, "there is no key")
}

func TestUnsignedCheckpoints(t *testing.T) {
	v := newVault(t)
	young := &vault{store: memory{}, second: memory{}, key: v.key}
	c := &chain.Chain{Store: young.store, Partition: v.chains[0]}
	tip, err := c.Begin(t.Context(), 0)
	require.NoError(t, err)
	for i := range 4 {
		if i == 2 {
			c.Key = v.key // the key came later
		}
		added, err := c.Add(t.Context(), tip, build(t, c.Partition, tip.Next, tip.Segment, dayOne, inOrder(tip.Next)))
		require.NoError(t, err)
		tip = added.Tip
	}
	checks := archive.Checks{Keys: []archive.Verifier{v.key.Verifier()}}
	r, err := archive.Verify(t.Context(), young.store, checks)
	require.NoError(t, err)
	require.Len(t, r.Problems, 2)
	require.Equal(t, archive.Signature, r.Problems[0].Kind)
	checks.Unsigned = true
	r, err = archive.Verify(t.Context(), young.store, checks)
	require.NoError(t, err)
	require.Empty(t, r.Problems)
	require.EqualValues(t, 2, r.Unsigned)
	checks.Keys = []archive.Verifier{signer(t, "example.com/other").Verifier()}
	r, err = archive.Verify(t.Context(), young.store, checks)
	require.NoError(t, err)
	require.Len(t, r.Problems, 2)
	require.Contains(t, r.Problems[0].What, "example.com/archive")
	c.Key = nil // and went again
	_, err = c.Add(t.Context(), tip, build(t, c.Partition, tip.Next, tip.Segment, dayOne, inOrder(tip.Next)))
	require.NoError(t, err)
	checks.Keys = nil
	r, err = archive.Verify(t.Context(), young.store, checks)
	require.NoError(t, err)
	require.Len(t, r.Problems, 1)
	require.Contains(t, r.Problems[0].What, "not signed")
}

// A segment behind the chain's end, whose archiver died before its checkpoint, is no fault, and neither are segments
// that come while the archive is read.
func TestVerifyOfALivingArchive(t *testing.T) {
	v := newVault(t)
	c := &chain.Chain{Store: v.store, Copy: v.second, Key: v.key, Partition: v.chains[0]}
	tip, ok, err := c.Locate(t.Context(), -1)
	require.NoError(t, err)
	require.True(t, ok)
	add := func() {
		added, err := c.Add(t.Context(), tip, build(t, c.Partition, tip.Next, tip.Segment, dayOne.AddDate(0, 0, 9), inOrder(tip.Next)))
		require.NoError(t, err)
		tip = added.Tip
	}
	once := false
	r, err := archive.Verify(t.Context(), v.store, archive.Checks{Keys: []archive.Verifier{v.key.Verifier()}, Copy: v.second, Visit: func(archive.Place) error {
		if !once {
			once = true
			add()
			add()
			waiting := build(t, c.Partition, tip.Next, tip.Segment, dayOne.AddDate(0, 0, 9), inOrder(tip.Next))
			return v.store.Create(t.Context(), waiting.Key(layout.Events), waiting.Body)
		}
		return nil
	}})
	require.NoError(t, err)
	require.Empty(t, r.Problems)
	require.Len(t, r.Pending, 1)
	require.EqualValues(t, tip.Next, r.Pending[0].First)
	require.EqualValues(t, 2*4*vaultRows+3*vaultRows, r.Records)
	require.Equal(t, tip.Next, r.Tips[0].Next)
}

func TestReadersMeetAGap(t *testing.T) {
	v := newVault(t)
	p := v.chains[0]
	lost := int64(100 + 2*vaultRows)
	var offsets []int64
	for w, err := range archive.From(t.Context(), v.store, p, 105) {
		if err != nil {
			require.ErrorIs(t, err, archive.ErrNotFound)
			var gap *archive.LostError
			require.ErrorAs(t, err, &gap)
			require.Equal(t, []int64{lost, lost + 9}, []int64{gap.Gap.First, gap.Gap.Last})
			break
		}
		offsets = append(offsets, w.Offset)
	}
	require.Equal(t, lost-1, offsets[len(offsets)-1])
	for w, err := range archive.From(t.Context(), v.store, p, lost+10) {
		require.NoError(t, err)
		require.GreaterOrEqual(t, w.Offset, lost+10)
	}
	_, err := archive.Locate(t.Context(), v.store, event.Position{Topic: p.Topic, TopicID: p.TopicID, Offset: lost + 3})
	require.ErrorIs(t, err, archive.ErrNotFound)
	n := 0
	for cp, err := range archive.Checkpoints(t.Context(), v.store, p, 0) {
		require.NoError(t, err)
		require.NotEmpty(t, cp.Segment)
		n++
	}
	require.Equal(t, 4, n)
}
