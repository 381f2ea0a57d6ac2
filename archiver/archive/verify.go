package archive

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/catchment-dev/catchment/archiver/internal/chain"
	"github.com/catchment-dev/catchment/archiver/internal/checkpoint"
	"github.com/catchment-dev/catchment/archiver/internal/layout"
	"github.com/catchment-dev/catchment/archiver/internal/objstore"
	"github.com/catchment-dev/catchment/archiver/internal/row"
	"github.com/catchment-dev/catchment/archiver/internal/segment"
)

// What a Problem is.
const (
	Changed    = "changed"     // an object, or what it says, is not what was archived
	Missing    = "missing"     // an object is named and not there
	Hole       = "gap"         // offsets that nothing speaks of
	Overlap    = "overlap"     // offsets that are archived twice
	Orphan     = "orphan"      // a segment that no checkpoint names
	Unreadable = "unreadable"  // an object that the store does not give out
	Foreign    = "foreign"     // an object that the archiver did not write
	Signature  = "signature"   // a checkpoint that no known key has signed
	RolledBack = "rolled back" // what was archived once is not there any more, as another place knows
)

// Problem is one thing that is wrong with the archive.
type Problem struct {
	Key  string `json:"key"` // of the object
	Kind string `json:"kind"`
	What string `json:"what"`
}

func (p Problem) String() string { return p.Key + ": " + p.Kind + ": " + p.What }

// Verifier checks the signatures of one key.
type Verifier = checkpoint.Verifier

// NewVerifier reads a verifier key: {name}+{hash}+{key data}.
func NewVerifier(text string) (Verifier, error) { return checkpoint.NewVerifier(text) }

// VerifierOf returns what checks the signatures of a signer key; nil when the text is empty.
func VerifierOf(signer string) (Verifier, error) {
	key, err := checkpoint.NewKey(signer)
	return key.Verifier(), err
}

// Checks are what Verify looks at. The zero value looks at everything that the store alone can show.
type Checks struct {
	Keys     []Verifier // whose signatures count; none: signatures are not checked
	Unsigned bool       // checkpoints before the first signed one of their chain may be unsigned although there are Keys
	Copy     Store      // the second place of the checkpoints; nil: none
	// Saved are checkpoints by their keys that somebody has kept elsewhere: they must be in the archive.
	Saved map[string][]byte
	// Since leaves out the segments of earlier days, which may be missing. Their checkpoints are looked at.
	Since time.Time
	// AtOnce is how many chains are read at once, each with one segment in memory; 0: one.
	AtOnce int
	// Visit gets the records of all segments that are whole, those of one chain in order. Calls of different chains
	// overlap when AtOnce is more than one.
	Visit func(Place) error
	// Progress is told after each segment how much has been read. Calls do not overlap.
	Progress func(Counts)
}

// Counts are how much Verify has read.
type Counts struct {
	Checkpoints int64 `json:"checkpoints"`
	Segments    int64 `json:"segments"`
	Records     int64 `json:"records"`
	Bytes       int64 `json:"bytes"`
}

// Report is what Verify has found.
type Report struct {
	Counts
	Problems []Problem
	Gaps     []*Gap    // that were admitted
	Pending  []Segment // stored at their chain's end without a checkpoint: their archiver died, or works on it now
	NotRead  int64     // segments that Checks.Since leaves out
	// Unsigned checkpoints, and signed ones that were not checked because there are no Keys.
	Unsigned, Unchecked int64
	Tips                []ChainTip
}

// ChainTip is where a chain ends. Whoever keeps it elsewhere can show later that the chain was cut off.
type ChainTip struct {
	Partition  string `json:"partition"`
	Next       int64  `json:"next_offset"`       // -1: unknown
	Checkpoint string `json:"checkpoint"`        // key; empty when there is none
	SHA256     string `json:"checkpoint_sha256"` // of the checkpoint object
}

// Verify reads the whole archive. Each chain is gapless and free of overlaps from its start to its last checkpoint; each
// checkpoint names the one before, and is signed; each segment is what its checkpoint says, names the one before, and
// its Merkle root is that of its rows; no segment stands outside a chain. It goes on after a fault and reports all. The
// error is a store's, which gave out nothing any more, or Visit's.
func Verify(ctx context.Context, s Store, checks Checks) (*Report, error) {
	v := &verifier{Checks: checks, store: s, chains: map[Partition]*checkedChain{}, copied: map[Partition][]int64{}}
	err := v.list(ctx)
	if err == nil {
		err = v.walk(ctx)
	}
	if err == nil {
		err = v.strangers(ctx)
	}
	if err == nil {
		err = v.elsewhere(ctx)
	}
	if err != nil {
		return nil, err
	}
	for _, c := range v.sorted() {
		v.report.Tips = append(v.report.Tips, ChainTip{c.p.String(), c.next, c.last, c.checkpoint})
	}
	sort.SliceStable(v.report.Problems, func(i, j int) bool { return v.report.Problems[i].Key < v.report.Problems[j].Key })
	return &v.report, nil
}

// Check is Verify of what the store alone can show. visit, which may be nil, gets every record.
func Check(ctx context.Context, s Store, visit func(*Record) error) ([]Problem, error) {
	checks := Checks{}
	if visit != nil {
		checks.Visit = func(at Place) error { return visit(at.Record) }
	}
	r, err := Verify(ctx, s, checks)
	if err != nil {
		return nil, err
	}
	return r.Problems, nil
}

type verifier struct {
	Checks
	store  Store
	chains map[Partition]*checkedChain
	copied map[Partition][]int64 // first offsets of the checkpoints in the second place

	mu     sync.Mutex
	report Report
	failed int // objects in a row that the store did not give out
}

// mostFailed is how many objects in a row are faults of theirs; one more, and it is the store that fails.
const mostFailed = 3

// get reads an object. ok is false when it cannot be read, which is a fault of its own unless the store fails altogether.
func (v *verifier) get(ctx context.Context, key string) (body []byte, ok bool, err error) {
	body, err = v.store.Read(ctx, key, 0, -1)
	if err == nil || errors.Is(err, objstore.ErrNotFound) || ctx.Err() != nil {
		v.count(func(*Report) { v.failed = 0 })
		return body, err == nil, err
	}
	v.count(func(*Report) { v.failed++ })
	if v.failing() {
		return nil, false, err
	}
	v.problem(key, Unreadable, "%v", err)
	return nil, false, nil
}

func (v *verifier) failing() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.failed > mostFailed
}

// checkedChain is how far a chain was checked.
type checkedChain struct {
	*verifier
	p          Partition
	firsts     []int64 // of the listed checkpoints
	named      []named // what the checkpoints name, by first offset
	next       int64   // -1: unknown
	segment    string  // SHA-256 of the last segment
	known      bool    // segment is known
	checkpoint string  // SHA-256 of the last checkpoint
	last       string  // key of the last checkpoint
	blind      bool    // the checkpoint before could not be read
	signed     bool    // one was signed
	present    bool    // a segment was there
}

type named struct {
	first, day int64
	kind       Kind
}

func (v *verifier) problem(key, kind, format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.report.Problems = append(v.report.Problems, Problem{key, kind, fmt.Sprintf(format, args...)})
}

func (v *verifier) count(f func(*Report)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	f(&v.report)
}

// list finds the chains. The second place is listed first: the archive may only have more by then.
func (v *verifier) list(ctx context.Context) error {
	if v.Copy != nil {
		for key, err := range v.Copy.List(ctx, layout.AllCheckpoints(), "") {
			if err != nil {
				return fmt.Errorf("second place: %w", err)
			}
			p, first, err := layout.ParseCheckpoint(key)
			if err != nil {
				v.problem(key, Foreign, "in the second place: %v", err)
				continue
			}
			v.copied[p] = append(v.copied[p], first)
		}
	}
	for key, err := range v.store.List(ctx, layout.AllCheckpoints(), "") {
		if err != nil {
			return err
		}
		p, first, err := layout.ParseCheckpoint(key)
		if err != nil {
			v.problem(key, Foreign, "%v", err)
			continue
		}
		c := v.chain(p)
		c.firsts = append(c.firsts, first)
	}
	for key, err := range v.store.List(ctx, layout.AllStarts(), "") {
		if err != nil {
			return err
		}
		if p, err := layout.ParseStart(key); err != nil {
			v.problem(key, Foreign, "%v", err)
		} else {
			v.chain(p)
		}
	}
	return nil
}

func (v *verifier) chain(p Partition) *checkedChain {
	if v.chains[p] == nil {
		v.chains[p] = &checkedChain{verifier: v, p: p, next: -1}
	}
	return v.chains[p]
}

func (v *verifier) sorted() []*checkedChain {
	var out []*checkedChain
	for _, c := range v.chains {
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b *checkedChain) int { return strings.Compare(a.p.String(), b.p.String()) })
	return out
}

func (v *verifier) walk(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(max(1, v.AtOnce))
	for _, c := range v.sorted() {
		group.Go(func() error { return c.walk(ctx) })
	}
	return group.Wait()
}

func (c *checkedChain) walk(ctx context.Context) error {
	if err := c.start(ctx); err != nil {
		return err
	}
	for i, first := range c.firsts {
		if err := c.link(ctx, first, i == len(c.firsts)-1); err != nil {
			return err
		}
	}
	return nil
}

func (c *checkedChain) start(ctx context.Context) error {
	key := c.p.Start()
	object, ok, err := c.get(ctx, key)
	if errors.Is(err, objstore.ErrNotFound) {
		c.problem(key, Missing, "the chain has no start")
		return nil
	}
	if err != nil || !ok {
		return err
	}
	if first, err := chain.ParseStart(c.p, object); err != nil {
		c.problem(key, Changed, "%v", err)
	} else {
		c.next, c.known = first, true
	}
	return nil
}

// link checks one checkpoint or gap, and its segment. newest says that nothing was listed behind it.
func (c *checkedChain) link(ctx context.Context, first int64, newest bool) error {
	key := c.p.Checkpoint(first)
	object, ok, err := c.get(ctx, key)
	if errors.Is(err, objstore.ErrNotFound) {
		c.problem(key, Missing, "it was listed, and is not there")
		return nil
	}
	if err != nil {
		return err
	}
	if !ok {
		c.next, c.known, c.blind = -1, false, true
		return nil
	}
	c.count(func(r *Report) { r.Checkpoints++ })
	c.signature(key, object)
	if err := c.compareCopy(ctx, key, first, object, newest); err != nil {
		return err
	}
	before := *c
	c.last, c.checkpoint, c.blind = key, checkpoint.Hash(object), false
	l, err := checkpoint.ParseLink(object)
	switch {
	case err != nil:
		c.problem(key, Changed, "%v", err)
		c.next, c.known = -1, false
		return nil
	case l.Gap != nil:
		g := l.Gap
		c.place(&before, key, place{g.Partition, g.First, g.Previous})
		if before.known && g.Segment != before.segment {
			c.problem(key, Changed, "the segment before: expected SHA-256 %s, found %s", orNone(before.segment), orNone(g.Segment))
		}
		c.next = g.Last + 1
		c.count(func(r *Report) { r.Gaps = append(r.Gaps, g) })
		return nil
	}
	cp := l.Checkpoint
	c.place(&before, key, place{cp.Partition, cp.First, cp.Previous})
	c.next, c.segment, c.known = cp.Last+1, cp.SHA256, true
	is, err := layout.ParseSegment(cp.Segment)
	if err != nil || is.Partition != cp.Partition || is.First != cp.First {
		return c.noSegment(key, cp)
	}
	c.named = append(c.named, named{cp.First, is.Day.Unix(), is.Kind})
	if is.Day.Before(c.Since) {
		c.count(func(r *Report) { r.NotRead++ })
		return nil
	}
	return c.read(ctx, cp, &before)
}

func (c *checkedChain) noSegment(key string, cp *Checkpoint) error {
	c.problem(key, Changed, "it names %q, which is no key of a segment of offset %d", cp.Segment, cp.First)
	return nil
}

// place is what a checkpoint and a gap say alike.
type place struct {
	p        Partition
	first    int64
	previous string
}

func (c *checkedChain) place(before *checkedChain, key string, at place) {
	if at.p != c.p || c.p.Checkpoint(at.first) != key {
		c.problem(key, Changed, "it is that of %s, offset %d", at.p, at.first)
	}
	switch {
	case before.next < 0 || at.first == before.next:
	case at.first > before.next:
		c.problem(key, Hole, "expected offset %d, found %d: nothing speaks of %d offsets", before.next, at.first, at.first-before.next)
	default:
		c.problem(key, Overlap, "expected offset %d, found %d", before.next, at.first)
	}
	if at.previous != before.checkpoint && !before.blind {
		c.problem(key, Changed, "the checkpoint before: expected SHA-256 %s, found %s", orNone(before.checkpoint), orNone(at.previous))
	}
}

func orNone(digest string) string { return cmp.Or(digest, "none") }

func (c *checkedChain) signature(key string, object []byte) {
	signed := checkpoint.IsSigned(object)
	switch {
	case signed && len(c.Keys) > 0:
		if err := checkpoint.Verify(object, c.Keys); err != nil {
			c.problem(key, Signature, "%v", err)
		}
	case signed:
		c.count(func(r *Report) { r.Unchecked++ })
	case c.signed:
		c.problem(key, Signature, "it is not signed, although one before it is")
	case len(c.Keys) > 0 && !c.Unsigned:
		c.problem(key, Signature, "it is not signed")
	default:
		c.count(func(r *Report) { r.Unsigned++ })
	}
	c.signed = c.signed || signed
}

// compareCopy holds a checkpoint against the second place, which need not have those from before it was set up, nor
// the newest, which its archiver may be writing.
func (c *checkedChain) compareCopy(ctx context.Context, key string, first int64, object []byte, newest bool) error {
	if c.Copy == nil {
		return nil
	}
	copied := c.copied[c.p]
	if len(copied) > 0 && first < copied[0] {
		return nil
	}
	there, err := c.Copy.Read(ctx, key, 0, -1)
	switch {
	case errors.Is(err, objstore.ErrNotFound):
		if !newest {
			c.problem(key, Missing, "it is not in the second place, whose archiver would have written it at its next start")
		}
	case err != nil:
		return fmt.Errorf("second place: %w", err)
	case string(there) != string(object):
		c.problem(key, Changed, "it is another one in the second place: SHA-256 %s there, %s here", checkpoint.Hash(there), checkpoint.Hash(object))
	}
	return nil
}

// read checks a checkpoint's segment.
func (c *checkedChain) read(ctx context.Context, cp *Checkpoint, before *checkedChain) error {
	body, ok, err := c.get(ctx, cp.Segment)
	if errors.Is(err, objstore.ErrNotFound) {
		what := "its checkpoint is there"
		if !c.present {
			what += "; nor is any older one of its chain: if an expiry rule has removed them, say so with --since"
		}
		c.problem(cp.Segment, Missing, "%s", what)
		return nil
	}
	if err != nil || !ok {
		return err
	}
	c.present = true
	defer c.progress(int64(len(body)))
	if sum := checkpoint.Hash(body); int64(len(body)) != cp.Size || sum != cp.SHA256 {
		c.problem(cp.Segment, Changed, "expected %d bytes of SHA-256 %s, found %d of %s", cp.Size, cp.SHA256, len(body), sum)
		return nil
	}
	return c.inspect(cp.Segment, body, func(f *segment.File) []string {
		var wrong []string
		say := func(ok bool, format string, args ...any) {
			if !ok {
				wrong = append(wrong, fmt.Sprintf(format, args...))
			}
		}
		say(f.Partition == cp.Partition, "expected partition %s, found %s", cp.Partition, f.Partition)
		say(f.First == cp.First && f.Last == cp.Last, "expected offsets %d to %d, found %d to %d", cp.First, cp.Last, f.First, f.Last)
		say(f.LeaderEpoch == cp.LeaderEpoch, "expected leader epoch %d, found %d", cp.LeaderEpoch, f.LeaderEpoch)
		say(hex.EncodeToString(f.Root[:]) == cp.Root, "expected Merkle root %s, found %x", cp.Root, f.Root)
		say(!before.known || f.Previous == before.segment, "the segment before: expected SHA-256 %s, found %s", orNone(before.segment), orNone(f.Previous))
		return wrong
	})
}

func (c *checkedChain) progress(bytes int64) {
	c.count(func(r *Report) {
		r.Segments++
		r.Bytes += bytes
		if c.Progress != nil {
			c.Progress(r.Counts)
		}
	})
}

// visitError tells Visit's errors from the segment's.
type visitError struct{ error }

// inspect reads a segment: footer says what is wrong with what its footer tells.
func (c *checkedChain) inspect(key string, body []byte, footer func(*segment.File) []string) error {
	records := int64(0)
	wrong, err := rows(key, body, footer, func(at Place) error {
		records++
		if c.Visit == nil {
			return nil
		}
		if err := c.Visit(at); err != nil {
			return visitError{err}
		}
		return nil
	})
	c.count(func(r *Report) { r.Records += records })
	for _, what := range wrong {
		c.problem(key, Changed, "%s", what)
	}
	if stopped, ok := errors.AsType[visitError](err); ok {
		return stopped.error
	}
	if err != nil {
		c.problem(key, Changed, "%v", err)
	}
	return nil
}

// rows reads all rows of a segment. A file that was made to break its reader is damaged, and no more.
func rows(key string, body []byte, footer func(*segment.File) []string, visit func(Place) error) (wrong []string, err error) {
	defer func() {
		if broken := recover(); broken != nil {
			err = fmt.Errorf("%w: %v", segment.ErrDamaged, broken)
		}
	}()
	f, err := segment.OpenBytes(body)
	if err != nil {
		return nil, err
	}
	wrong = footer(f)
	err = f.Verify(func(w *row.Row) error {
		if w.BodyKeyID == "" && sha256.Sum256(w.Body) != w.BodySHA256 {
			wrong = append(wrong, fmt.Sprintf("offset %d: the body is not that of body_sha256", w.Offset))
		}
		return visit(Place{key, w.Offset - f.First, w})
	})
	if is, parseErr := layout.ParseSegment(key); err == nil && (parseErr != nil || f.Key(is.Kind) != key) {
		err = fmt.Errorf("expected under %s", f.Key(is.Kind))
	}
	return wrong, err
}

// strangers looks for segments that no checkpoint names. Those that were stored since the chains were listed are
// checked now.
func (v *verifier) strangers(ctx context.Context) error {
	for _, kind := range layout.Kinds() {
		if err := v.strangersOf(ctx, kind); err != nil {
			return err
		}
	}
	return nil
}

func (v *verifier) strangersOf(ctx context.Context, kind Kind) error {
	for found, err := range SegmentsOfKind(ctx, v.store, kind) {
		if found.Key == "" {
			return err
		}
		if err != nil {
			v.problem(found.Key, Foreign, "%v", err)
			continue
		}
		c := v.chains[found.Partition]
		if c == nil {
			c = v.chain(found.Partition)
			if err := c.start(ctx); err != nil {
				return err
			}
		}
		if c.names(found) {
			continue
		}
		if found.First >= c.next {
			if err := c.goOn(ctx); err != nil {
				return err
			}
		}
		if c.names(found) {
			continue
		}
		if err := c.stranger(ctx, found); err != nil {
			return err
		}
	}
	return nil
}

func (c *checkedChain) names(s Segment) bool {
	i := sort.Search(len(c.named), func(i int) bool { return c.named[i].first >= s.First })
	for ; i < len(c.named) && c.named[i].first == s.First; i++ {
		if c.named[i].day == s.Day.Unix() && c.named[i].kind == s.Kind {
			return true
		}
	}
	return false
}

// goOn checks the checkpoints that have come since the chain was listed.
func (c *checkedChain) goOn(ctx context.Context) error {
	for key, err := range c.store.List(ctx, c.p.Checkpoints(), c.last) {
		if err != nil {
			return err
		}
		if _, first, err := layout.ParseCheckpoint(key); err == nil {
			if err := c.link(ctx, first, true); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *checkedChain) stranger(ctx context.Context, s Segment) error {
	if s.First != c.next || !c.known {
		c.problem(s.Key, Orphan, "no checkpoint names it, and the chain does not end before it")
		return nil
	}
	body, ok, err := c.get(ctx, s.Key)
	if err != nil || !ok {
		return err
	}
	defer c.progress(int64(len(body)))
	c.count(func(r *Report) { r.Pending = append(r.Pending, s) })
	return c.inspect(s.Key, body, func(f *segment.File) []string {
		if f.Previous != c.segment {
			return []string{fmt.Sprintf("the segment before: expected SHA-256 %s, found %s", orNone(c.segment), orNone(f.Previous))}
		}
		return nil
	})
}

// elsewhere looks for what other places know of and the archive has no longer.
func (v *verifier) elsewhere(ctx context.Context) error {
	for p, firsts := range v.copied {
		for _, first := range firsts {
			if c := v.chains[p]; c != nil {
				if _, listed := slices.BinarySearch(c.firsts, first); listed {
					continue
				}
			}
			if err := v.still(ctx, p.Checkpoint(first), nil, "the second place has it"); err != nil {
				return err
			}
		}
	}
	for key, object := range v.Saved {
		if err := v.still(ctx, key, object, "the saved checkpoint names it"); err != nil {
			return err
		}
	}
	return nil
}

// still wants an object to be there, and to be this one unless it is nil.
func (v *verifier) still(ctx context.Context, key string, object []byte, why string) error {
	if object == nil {
		_, err := v.store.Size(ctx, key)
		if errors.Is(err, objstore.ErrNotFound) {
			v.problem(key, RolledBack, "it is missing: %s", why)
			return nil
		}
		return err
	}
	there, err := v.store.Read(ctx, key, 0, -1)
	switch {
	case errors.Is(err, objstore.ErrNotFound):
		v.problem(key, RolledBack, "it is missing: %s", why)
		return nil
	case err != nil:
		return err
	case string(there) != string(object):
		v.problem(key, Changed, "it is not the saved one: expected SHA-256 %s, found %s", checkpoint.Hash(object), checkpoint.Hash(there))
	}
	return nil
}

// ParseSaved reads a checkpoint that somebody has kept, and says under which key it must be in the archive.
func ParseSaved(object []byte) (key string, err error) {
	l, err := checkpoint.ParseLink(object)
	if err != nil {
		return "", err
	}
	if l.Gap != nil {
		return l.Gap.Partition.Checkpoint(l.Gap.First), nil
	}
	return l.Checkpoint.Partition.Checkpoint(l.Checkpoint.First), nil
}
