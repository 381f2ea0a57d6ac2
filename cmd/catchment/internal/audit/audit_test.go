package audit

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/archiver/archive"
	"github.com/catchment-dev/catchment/processor"
	"github.com/catchment-dev/catchment/processor/inspect"
)

// model is a log and the rows that a processor has made of it.
type model struct {
	random     *rand.Rand
	parts      []archive.Partition
	records    map[archive.Partition][]Record
	next       map[archive.Partition]int64
	identities map[inspect.Key]inspect.Recorded
	traces     []inspect.Trace
	deliveries byte
}

func newModel(seed uint64) *model {
	m := &model{
		random: rand.New(rand.NewPCG(seed, 9)), records: map[archive.Partition][]Record{}, next: map[archive.Partition]int64{},
		identities: map[inspect.Key]inspect.Recorded{},
	}
	for i := range 1 + m.random.IntN(3) {
		p := archive.Partition{Topic: "t", TopicID: [16]byte{byte(m.random.IntN(2))}, Number: int32(i)}
		m.parts = append(m.parts, p)
	}
	slices.SortFunc(m.parts, comparePartitions)
	for range 5 + m.random.IntN(40) {
		m.enqueue(m.parts[m.random.IntN(len(m.parts))])
	}
	for _, p := range m.parts {
		n := m.random.IntN(len(m.records[p]) + 1)
		m.next[p] = int64(n)
		for i := range m.records[p][:n] {
			m.process(p, &m.records[p][i])
		}
	}
	slices.SortStableFunc(m.traces, func(a, b inspect.Trace) int {
		return comparePlace(a.TopicID, a.Partition, a.Offset, b.TopicID, b.Partition, b.Offset)
	})
	return m
}

func (m *model) enqueue(p archive.Partition) {
	m.deliveries++
	rec := Record{Offset: int64(len(m.records[p])), At: time.Unix(1_800_000_000, 0), DeliveryID: [16]byte{15: m.deliveries}}
	switch m.random.IntN(10) {
	case 0:
		rec.Why = errors.New("no delivery")
	case 1:
		rec.Control = true
	case 2, 3: // several events, some of them alike
		for i := range 1 + m.random.IntN(4) {
			rec.Parts = append(rec.Parts, m.part(i))
		}
	default:
		rec.Parts = []processor.Part{m.part(0)}
	}
	m.records[p] = append(m.records[p], rec)
}

func (m *model) part(i int) processor.Part {
	n := m.random.IntN(12)
	return processor.Part{Index: i, Source: "s", ID: fmt.Sprintf("e%d", n), SHA256: sha256.Sum256([]byte{byte(m.random.IntN(2))}), Changes: n >= 8}
}

// process does to a record what the processor does.
func (m *model) process(p archive.Partition, rec *Record) {
	trace := inspect.Trace{TopicID: p.TopicID, Partition: p.Number, Offset: rec.Offset}
	if rec.Why != nil {
		trace.Kind = inspect.TraceLetter
		m.traces = append(m.traces, trace)
	}
	for _, part := range rec.Parts {
		key := inspect.Key{Source: part.Source, ID: part.ID}
		id, known := m.identities[key]
		if !known {
			m.identities[key] = inspect.Recorded{Found: true, SHA256: slices.Clone(part.SHA256[:]), DeliveryID: rec.DeliveryID}
			continue
		}
		trace.Kind, trace.Index, trace.Source, trace.ID, trace.SHA256 = inspect.TraceRepeat, part.Index, part.Source, part.ID, nil
		if string(id.SHA256) != string(part.SHA256[:]) {
			trace.SHA256 = slices.Clone(part.SHA256[:])
			if !part.Changes {
				trace.Kind = inspect.TraceConflict
			}
		}
		m.traces = append(m.traces, trace)
	}
}

// audit is what the judge says of the model, and whether the two sets of identities differ.
func (m *model) audit(t *testing.T) (found []Fault, differ bool) {
	t.Helper()
	s := &stream{rows: &listed{m.traces}}
	r := &rules{to: [16]byte{0xff}}
	tl := newTally(64)
	for _, p := range m.parts {
		d := &desk{rules: r, part: p, next: m.next[p], tally: tl, report: func(f Fault) { found = append(found, f) }}
		for i := range m.records[p] {
			rec := &m.records[p][i]
			ids := make([]inspect.Recorded, len(rec.Parts))
			for j, part := range rec.Parts {
				ids[j] = m.identities[inspect.Key{Source: part.Source, ID: part.ID}]
			}
			before, err := s.before(t.Context(), p.TopicID, p.Number, rec.Offset)
			require.NoError(t, err)
			d.invented(before, "no record")
			traces, err := s.before(t.Context(), p.TopicID, p.Number, rec.Offset+1)
			require.NoError(t, err)
			d.record(rec, ids, traces)
		}
		rest, err := s.before(t.Context(), p.TopicID, p.Number, 1<<62)
		require.NoError(t, err)
		d.invented(rest, "no record")
		require.EqualValues(t, d.counts.Faults, countOf(found, p))
	}
	for key, id := range m.identities {
		tl.add(tl.mark(key.Source, key.ID, id.DeliveryID))
	}
	return found, len(tl.different(10)) > 0
}

func countOf(found []Fault, p archive.Partition) (n int) {
	for _, f := range found {
		if *f.Partition == p.Number && f.TopicID == of("", p, "").TopicID {
			n++
		}
	}
	return n
}

type listed struct{ traces []inspect.Trace }

func (l *listed) Next(context.Context) (t inspect.Trace, ok bool, err error) {
	if len(l.traces) == 0 {
		return t, false, nil
	}
	t, l.traces = l.traces[0], l.traces[1:]
	return t, true, nil
}

// change spoils one thing. It says which event must be named, "" where it is a place; ok is false where there is nothing to spoil.
func (m *model) change() (what, id string, ok bool) {
	keys := make([]inspect.Key, 0, len(m.identities))
	for k := range m.identities {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, inspect.Key.Compare)
	if len(keys) == 0 {
		return "", "", false
	}
	key := keys[m.random.IntN(len(keys))]
	was := m.identities[key]
	switch m.random.IntN(8) {
	case 0:
		delete(m.identities, key)
		return "an identity is taken", key.ID, true
	case 1:
		was.SHA256 = []byte("another")
		m.identities[key] = was
		return "a digest is changed", key.ID, true
	case 2:
		was.DeliveryID[15] += 100
		m.identities[key] = was
		return "a delivery is changed", key.ID, true
	case 3:
		m.identities[inspect.Key{Source: "s", ID: "nobody"}] = inspect.Recorded{Found: true, DeliveryID: was.DeliveryID, SHA256: was.SHA256}
		return "an identity is invented", "nobody", true
	}
	if len(m.traces) == 0 {
		return "", "", false
	}
	i := m.random.IntN(len(m.traces))
	t := &m.traces[i]
	id = t.ID
	switch m.random.IntN(5) {
	case 4:
		if t.Kind != inspect.TraceConflict {
			return "", "", false
		}
		t.Kind = inspect.TraceRepeat
		return "a conflict is called a repetition", id, true
	case 0:
		m.traces = slices.Delete(m.traces, i, i+1)
		return "a trace is taken", id, true
	case 1:
		if t.SHA256 == nil {
			return "", "", false
		}
		t.SHA256 = []byte("another")
		return "a digest of other bytes is changed", id, true
	case 2:
		if t.Kind == inspect.TraceLetter {
			return "", "", false
		}
		t.ID = "nobody"
		return "a trace's event is changed", "nobody", true
	default:
		m.traces = append(m.traces, inspect.Trace{TopicID: [16]byte{3}, Offset: 1})
		m.traces[len(m.traces)-1] = inspect.Trace{TopicID: m.parts[len(m.parts)-1].TopicID, Partition: m.parts[len(m.parts)-1].Number, Offset: 1000, Kind: t.Kind, Source: "s", ID: "nobody"}
		return "a trace is invented", "nobody", true
	}
}

// A log of any shape that was processed up to any positions is whole, and any one thing that is spoilt is found and named.
func TestJudge(t *testing.T) {
	spoilt := map[string]int{}
	for seed := range uint64(5_000) {
		m := newModel(seed)
		found, differ := m.audit(t)
		require.Empty(t, found, "seed %d", seed)
		require.False(t, differ, "seed %d", seed)
		what, id, ok := m.change()
		if !ok {
			continue
		}
		spoilt[what]++
		found, differ = m.audit(t)
		if what == "an identity is invented" {
			require.True(t, differ, "seed %d", seed)
			continue
		}
		require.True(t, slices.ContainsFunc(found, func(f Fault) bool { return f.EventID == id }), "seed %d: %s of %q: %v", seed, what, id, found)
		if what == "a delivery is changed" {
			require.True(t, differ, "seed %d", seed)
		}
	}
	require.Len(t, spoilt, 9, "%v", spoilt)
}

// What a retention may have removed is no fault, and nothing else is excused.
func TestForgotten(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	p := processor.Part{Source: "s", ID: "e", SHA256: sha256.Sum256(nil)}
	first := inspect.Recorded{Found: true, SHA256: p.SHA256[:], DeliveryID: [16]byte{1}}
	for name, c := range map[string]struct {
		identities, repeats time.Duration // age
		id                  inspect.Recorded
		traces              []inspect.Trace
		want                string
	}{
		"identity, for ever":                  {want: MissingIdentity},
		"identity, older":                     {identities: 9, want: ""},
		"identity, younger":                   {identities: 11, want: MissingIdentity},
		"identity of a forgotten repeat":      {identities: 11, repeats: 9, want: ""},
		"identity, when only repeats go":      {repeats: 9, want: MissingIdentity},
		"identity gone, repeat there":         {identities: 11, traces: []inspect.Trace{{Kind: inspect.TraceRepeat, Source: "s", ID: "e"}}, want: ""},
		"repeat, for ever":                    {id: first, want: MissingRepeat},
		"repeat, older":                       {id: first, repeats: 9, want: ""},
		"repeat, younger":                     {id: first, repeats: 11, want: MissingRepeat},
		"first delivery of a former identity": {id: first, identities: 9, want: ""},
	} {
		at := func(age time.Duration) time.Time {
			if age == 0 {
				return time.Time{}
			}
			return now.Add(-age * time.Hour)
		}
		var found []Fault
		d := &desk{
			rules: &rules{identitiesFrom: at(c.identities), repeatsFrom: at(c.repeats), to: [16]byte{0xff}}, next: 5, tally: newTally(64),
			report: func(f Fault) { found = append(found, f) },
		}
		d.record(&Record{Offset: 4, At: now.Add(-10 * time.Hour), DeliveryID: [16]byte{2}, Parts: []processor.Part{p}}, []inspect.Recorded{c.id}, c.traces)
		if c.want == "" {
			require.Empty(t, found, name)
			require.EqualValues(t, 1, d.counts.Forgotten, name)
			continue
		}
		require.Len(t, found, 1, name)
		require.Equal(t, c.want, found[0].Kind, name)
	}
}

// A frequent kind of fault hides no other, and all are counted.
func TestFaultsAreBounded(t *testing.T) {
	fs := newFaults(10)
	for i := range int64(5000) {
		fs.add(at(MissingIdentity, archive.Partition{}, i, ""))
	}
	fs.add(at(MissingSegment, archive.Partition{}, 7, ""))
	shown := fs.shown()
	require.Len(t, shown, 10)
	require.EqualValues(t, 5001, fs.total())
	require.True(t, slices.ContainsFunc(shown, func(f Fault) bool { return f.Kind == MissingSegment && f.Do != "" }))
	for kind := range todo {
		require.NotEmpty(t, todo[kind], kind)
	}
}
