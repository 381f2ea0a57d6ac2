// Package checkpoint is the small text that says, beside each segment, that the segment belongs to the archive, or in
// a segment's place, that there is none. What is known of a segment or of a gap comes in and a signed note goes out, or
// the other way round. It must never change a text's form within a version, and never take a note whose own signature
// is wrong.
//
// A checkpoint has these lines, each a name, a space and a value, and ends with a newline:
//
//	catchment archive checkpoint v1
//	partition {topic}-{topic ID}-{partition}
//	segment {the segment's key}
//	first {offset of its first record}
//	last {offset of its last record}
//	epoch {leader epoch of its last record, or -1}
//	size {the segment's size in bytes}
//	sha256 {the segment's SHA-256}
//	root {the RFC 6962 Merkle root over its rows}
//	previous {SHA-256 of the previous object of the chain, or none}
//
// A gap, which stands in a checkpoint's place and says that its offsets are lost, has these:
//
//	catchment archive gap v1
//	partition {topic}-{topic ID}-{partition}
//	first {the first offset that is lost}
//	last {the last one}
//	time {when it was admitted, RFC 3339 in UTC, whole seconds}
//	actor {who admitted it}
//	reason {why}
//	segment {SHA-256 of the last segment before, or none}
//	previous {SHA-256 of the previous object of the chain, or none}
//
// Whoever meets another title than he knows must not go on behind it. A text has one form only: what is written in any
// other is malformed.
//
// With a key the object is a C2SP signed note (https://c2sp.org/signed-note): the text, an empty line, and a signature
// by an Ed25519 key. Without one it is the text alone.
package checkpoint

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/note"

	"github.com/catchment-dev/catchment/archiver/internal/layout"
)

const (
	title    = "catchment archive checkpoint v1"
	gapTitle = "catchment archive gap v1"
	none     = "none"
)

// Checkpoint says what a segment is and what came before it. Digests are 64 hex digits.
type Checkpoint struct {
	Partition   layout.Partition
	Segment     string // key
	First, Last int64
	LeaderEpoch int32
	Size        int64 // bytes
	SHA256      string
	Root        string
	Previous    string // SHA-256 of the previous checkpoint object; empty for the first
}

// Gap says that a run of offsets is lost, who says so and why.
type Gap struct {
	Partition   layout.Partition
	First, Last int64
	Time        time.Time // UTC, whole seconds
	Actor       string    // one line
	Reason      string    // one line
	Segment     string    // SHA-256 of the last segment before; empty when there is none
	Previous    string    // SHA-256 of the previous object of the chain; empty for the first
}

// Link is one object of a chain: one of the two is set.
type Link struct {
	Checkpoint *Checkpoint
	Gap        *Gap
}

// ErrMalformed is wrapped by the errors of Parse and ParseLink.
var ErrMalformed = errors.New("malformed checkpoint")

// Text is the checkpoint without a signature.
func (c *Checkpoint) Text() string {
	return fmt.Sprintf("%s\npartition %s\nsegment %s\nfirst %d\nlast %d\nepoch %d\nsize %d\nsha256 %s\nroot %s\nprevious %s\n",
		title, c.Partition, c.Segment, c.First, c.Last, c.LeaderEpoch, c.Size, c.SHA256, c.Root, orNone(c.Previous))
}

// Text is the gap without a signature.
func (g *Gap) Text() string {
	return fmt.Sprintf("%s\npartition %s\nfirst %d\nlast %d\ntime %s\nactor %s\nreason %s\nsegment %s\nprevious %s\n",
		gapTitle, g.Partition, g.First, g.Last, g.Time.UTC().Format(time.RFC3339), g.Actor, g.Reason, orNone(g.Segment), orNone(g.Previous))
}

func orNone(digest string) string {
	if digest == "" {
		return none
	}
	return digest
}

// Hash is the SHA-256 of a checkpoint object, as the next one names it.
func Hash(object []byte) string {
	sum := sha256.Sum256(object)
	return hex.EncodeToString(sum[:])
}

// Parse reads a checkpoint's text. It does not look at signatures. A gap is an error.
func Parse(object []byte) (*Checkpoint, error) {
	l, err := ParseLink(object)
	if err == nil && l.Checkpoint == nil {
		err = fmt.Errorf("%w: it is a gap: offsets %d to %d are lost", ErrMalformed, l.Gap.First, l.Gap.Last)
	}
	return l.Checkpoint, err
}

// ParseLink reads the text of a checkpoint or of a gap. It does not look at signatures.
func ParseLink(object []byte) (Link, error) {
	head, _, _ := bytes.Cut(object, []byte("\n"))
	var l Link
	var text string
	var err error
	switch string(head) {
	case title:
		if l.Checkpoint, err = parseCheckpoint(object); err == nil {
			text = l.Checkpoint.Text()
		}
	case gapTitle:
		if l.Gap, err = parseGap(object); err == nil {
			text = l.Gap.Text()
		}
	default:
		err = fmt.Errorf("expected %q or %q", title, gapTitle)
	}
	if rest, ok := strings.CutPrefix(string(object), text); err == nil && (!ok || rest != "" && rest[0] != '\n') {
		err = errors.New("it is not written as this program writes it")
	}
	if err != nil {
		return Link{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return l, nil
}

// fields reads the values of a text's lines, whose names it knows, and collects what is wrong with them.
type fields struct {
	value map[string]string
	errs  []error
}

func newFields(object []byte, names ...string) *fields {
	text, _, _ := bytes.Cut(object, []byte("\n\n"))
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")[1:]
	f := &fields{value: map[string]string{}}
	if len(lines) != len(names) {
		f.errs = append(f.errs, fmt.Errorf("expected %d lines behind the title, found %d", len(names), len(lines)))
		return f
	}
	for i, name := range names {
		v, ok := strings.CutPrefix(lines[i], name+" ")
		if !ok {
			f.errs = append(f.errs, fmt.Errorf("line %d: expected %s", i+2, name))
		}
		f.value[name] = v
	}
	return f
}

func (f *fields) number(name string, bits int) int64 {
	n, err := strconv.ParseInt(f.value[name], 10, bits)
	f.errs = append(f.errs, err)
	return n
}

func (f *fields) partition() layout.Partition {
	p, err := layout.ParsePartition(f.value["partition"])
	f.errs = append(f.errs, err)
	return p
}

func (f *fields) digest(name string, optional bool) string {
	v := f.value[name]
	if optional && v == none {
		return ""
	}
	if b, err := hex.DecodeString(v); err != nil || len(b) != sha256.Size || hex.EncodeToString(b) != v {
		f.errs = append(f.errs, fmt.Errorf("%s: expected %d lower-case hex digits", name, 2*sha256.Size))
	}
	return v
}

func (f *fields) span() (first, last int64) {
	first, last = f.number("first", 64), f.number("last", 64)
	if last < first || first < 0 {
		f.errs = append(f.errs, errors.New("it ends before it begins"))
	}
	return first, last
}

func (f *fields) err() error { return errors.Join(f.errs...) }

func parseCheckpoint(object []byte) (*Checkpoint, error) {
	f := newFields(object, "partition", "segment", "first", "last", "epoch", "size", "sha256", "root", "previous")
	if err := f.err(); err != nil {
		return nil, err
	}
	c := &Checkpoint{Partition: f.partition(), Segment: f.value["segment"]}
	c.First, c.Last = f.span()
	c.LeaderEpoch, c.Size = int32(f.number("epoch", 32)), f.number("size", 64)
	c.SHA256, c.Root, c.Previous = f.digest("sha256", false), f.digest("root", false), f.digest("previous", true)
	return c, f.err()
}

func parseGap(object []byte) (*Gap, error) {
	f := newFields(object, "partition", "first", "last", "time", "actor", "reason", "segment", "previous")
	if err := f.err(); err != nil {
		return nil, err
	}
	g := &Gap{Partition: f.partition(), Actor: f.value["actor"], Reason: f.value["reason"]}
	g.First, g.Last = f.span()
	var err error
	g.Time, err = time.Parse(time.RFC3339, f.value["time"])
	f.errs = append(f.errs, err)
	g.Segment, g.Previous = f.digest("segment", true), f.digest("previous", true)
	for _, name := range []string{"actor", "reason"} {
		if err := CheckLine(f.value[name]); err != nil {
			f.errs = append(f.errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	return g, f.err()
}

// longestLine is how long an actor or a reason may be, in bytes.
const longestLine = 1000

// CheckLine says what keeps a text from being an actor or a reason.
func CheckLine(s string) error {
	switch {
	case strings.TrimSpace(s) == "":
		return errors.New("expected a text, found none")
	case len(s) > longestLine:
		return fmt.Errorf("expected at most %d bytes, found %d", longestLine, len(s))
	case !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
		return errors.New("expected one line of printable characters")
	}
	return nil
}

// Key signs checkpoints. A nil Key leaves them unsigned.
type Key struct {
	signer   note.Signer
	verifier note.Verifier
}

// NewKey reads a signer key as golang.org/x/mod/sumdb/note writes it: PRIVATE+KEY+{name}+{hash}+{key data}. An empty
// text gives a nil Key.
func NewKey(text string) (*Key, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return nil, nil
	}
	signer, err := note.NewSigner(text)
	if err != nil {
		return nil, errors.New("archive.checkpoint_key: expected PRIVATE+KEY+name+hash+key, the form of a C2SP signer key")
	}
	public, err := publicKey(text, signer.Name())
	if err != nil {
		return nil, err
	}
	verifier, err := note.NewVerifier(public)
	if err != nil {
		return nil, fmt.Errorf("archive.checkpoint_key: %w", err)
	}
	return &Key{signer, verifier}, nil
}

// publicKey derives the verifier key. The key data is an algorithm's byte and an Ed25519 seed, as NewSigner has checked.
func publicKey(text, name string) (string, error) {
	// PRIVATE+KEY+name+hash+data: the data may hold a plus of its own.
	data, err := base64.StdEncoding.DecodeString(strings.SplitN(text, "+", 5)[4])
	if err != nil || len(data) != 1+ed25519.SeedSize {
		return "", errors.New("archive.checkpoint_key: expected an Ed25519 key")
	}
	return note.NewEd25519VerifierKey(name, ed25519.NewKeyFromSeed(data[1:]).Public().(ed25519.PublicKey))
}

// Object returns the bytes to be stored: the signed note, or the text alone without a key.
func (k *Key) Object(of interface{ Text() string }) ([]byte, error) {
	if k == nil {
		return []byte(of.Text()), nil
	}
	object, err := note.Sign(&note.Note{Text: of.Text()}, k.signer)
	if err != nil {
		return nil, fmt.Errorf("sign a checkpoint: %w", err)
	}
	return object, nil
}

// Check says whether a signature by this key on the object is right. An object without one passes: it may be older
// than the key, or another's.
func (k *Key) Check(object []byte) error {
	if k == nil || !IsSigned(object) {
		return nil
	}
	_, err := note.Open(object, note.VerifierList(k.verifier))
	if _, other := errors.AsType[*note.UnverifiedNoteError](err); other {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return nil
}

// Verifier checks the signatures of one key.
type Verifier = note.Verifier

// NewVerifier reads a verifier key as golang.org/x/mod/sumdb/note writes it: {name}+{hash}+{key data}.
func NewVerifier(text string) (Verifier, error) {
	v, err := note.NewVerifier(strings.TrimSpace(text))
	if err != nil {
		return nil, errors.New("expected name+hash+key, the form of a C2SP verifier key")
	}
	return v, nil
}

// Verifier checks the key's own signatures; nil for a nil Key.
func (k *Key) Verifier() Verifier {
	if k == nil {
		return nil
	}
	return k.verifier
}

// IsSigned says whether the object bears a signature, of whomever.
func IsSigned(object []byte) bool { return bytes.Contains(object, []byte("\n\n")) }

// Verify wants all signatures of a signed object to be right ones of known keys, each written in its one form.
func Verify(object []byte, known []Verifier) error {
	n, err := note.Open(object, note.VerifierList(known...))
	if other, ok := errors.AsType[*note.UnverifiedNoteError](err); ok {
		return fmt.Errorf("it is signed by %s, which is no key that is known here", names(other.Note.UnverifiedSigs))
	}
	if err != nil {
		return fmt.Errorf("its signature is wrong: %w", err)
	}
	if len(n.UnverifiedSigs) > 0 {
		return fmt.Errorf("it is also signed by %s, which is no key that is known here", names(n.UnverifiedSigs))
	}
	for _, s := range n.Sigs {
		if b, err := base64.StdEncoding.DecodeString(s.Base64); err != nil || base64.StdEncoding.EncodeToString(b) != s.Base64 {
			return errors.New("its signature is not written in its one form")
		}
	}
	return nil
}

func names(sigs []note.Signature) string {
	out := make([]string, len(sigs))
	for i, s := range sigs {
		out[i] = fmt.Sprintf("%q (%08x)", s.Name, s.Hash)
	}
	return strings.Join(out, ", ")
}
