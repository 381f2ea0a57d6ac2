// Package checkpoint is the small text that says, beside each segment, that the segment belongs to the archive. What is
// known of a segment comes in and a signed note goes out, or the other way round. It must never change a text's form
// within a version, and never take a note whose own signature is wrong.
//
// The text has these lines, each a name, a space and a value, and ends with a newline:
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
//	previous {SHA-256 of the previous checkpoint object, or none}
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

	"golang.org/x/mod/sumdb/note"

	"github.com/catchment-dev/catchment/archiver/internal/layout"
)

const (
	title = "catchment archive checkpoint v1"
	none  = "none"
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

// ErrMalformed is wrapped by the errors of Parse.
var ErrMalformed = errors.New("malformed checkpoint")

// Text is the checkpoint without a signature.
func (c *Checkpoint) Text() string {
	previous := c.Previous
	if previous == "" {
		previous = none
	}
	return fmt.Sprintf("%s\npartition %s\nsegment %s\nfirst %d\nlast %d\nepoch %d\nsize %d\nsha256 %s\nroot %s\nprevious %s\n",
		title, c.Partition, c.Segment, c.First, c.Last, c.LeaderEpoch, c.Size, c.SHA256, c.Root, previous)
}

// Hash is the SHA-256 of a checkpoint object, as the next one names it.
func Hash(object []byte) string {
	sum := sha256.Sum256(object)
	return hex.EncodeToString(sum[:])
}

// Parse reads an object's text. It does not look at signatures.
func Parse(object []byte) (*Checkpoint, error) {
	text, _, _ := bytes.Cut(object, []byte("\n\n"))
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	names := []string{"partition", "segment", "first", "last", "epoch", "size", "sha256", "root", "previous"}
	if lines[0] != title || len(lines) != 1+len(names) {
		return nil, fmt.Errorf("%w: expected %q and %d lines", ErrMalformed, title, len(names))
	}
	value := map[string]string{}
	for i, name := range names {
		v, ok := strings.CutPrefix(lines[i+1], name+" ")
		if !ok {
			return nil, fmt.Errorf("%w: line %d: expected %s", ErrMalformed, i+2, name)
		}
		value[name] = v
	}
	c := &Checkpoint{Segment: value["segment"], SHA256: value["sha256"], Root: value["root"], Previous: value["previous"]}
	if c.Previous == none {
		c.Previous = ""
	}
	var errs [6]error
	var epoch int64
	c.Partition, errs[0] = layout.ParsePartition(value["partition"])
	c.First, errs[1] = strconv.ParseInt(value["first"], 10, 64)
	c.Last, errs[2] = strconv.ParseInt(value["last"], 10, 64)
	epoch, errs[3] = strconv.ParseInt(value["epoch"], 10, 32)
	c.Size, errs[4] = strconv.ParseInt(value["size"], 10, 64)
	c.LeaderEpoch = int32(epoch)
	if c.Last < c.First {
		errs[5] = errors.New("it ends before it begins")
	}
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return c, nil
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
func (k *Key) Object(c *Checkpoint) ([]byte, error) {
	if k == nil {
		return []byte(c.Text()), nil
	}
	object, err := note.Sign(&note.Note{Text: c.Text()}, k.signer)
	if err != nil {
		return nil, fmt.Errorf("sign a checkpoint: %w", err)
	}
	return object, nil
}

// Check says whether a signature by this key on the object is right. An object without one passes: it may be older
// than the key, or another's.
func (k *Key) Check(object []byte) error {
	if k == nil || !bytes.Contains(object, []byte("\n\n")) {
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
