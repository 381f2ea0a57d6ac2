package keys

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// The folders of the store.
const (
	keysFolder   = "keys/"
	erasedFolder = "erased/"
)

// NoSource is the source of records that name none, or none that could be configured.
const NoSource = "_"

// ID names a data key, as column body_key_id has it.
type ID struct {
	Source     string // or NoSource
	Day        string // of the broker, YYYY-MM-DD
	Generation int    // from 0; the next one follows after each erasure
}

// String is {source}/{day}/{generation}.
func (id ID) String() string { return id.Source + "/" + id.Day + "/" + strconv.Itoa(id.Generation) }

func (id ID) key() string       { return keysFolder + id.String() }
func (id ID) tombstone() string { return erasedFolder + id.String() }

var (
	reSource = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`) // as the configuration wants them
	reID     = regexp.MustCompile(`^([^/]+)/(\d{4}-\d{2}-\d{2})/(0|[1-9]\d{0,8})$`)
)

// ParseID is the inverse of ID.String.
func ParseID(text string) (ID, error) {
	m := reID.FindStringSubmatch(text)
	if m == nil || m[1] != NoSource && !reSource.MatchString(m[1]) {
		return ID{}, fmt.Errorf("%.100q is not the ID of a key: expected {source}/{day}/{generation}", text)
	}
	if _, err := time.Parse(time.DateOnly, m[2]); err != nil {
		return ID{}, fmt.Errorf("%.100q is not the ID of a key: %w", text, err)
	}
	n, err := strconv.Atoi(m[3])
	return ID{m[1], m[2], n}, err
}

// sourceOf is the source whose key a row has.
func sourceOf(source string) string {
	if reSource.MatchString(source) {
		return source
	}
	return NoSource
}

// master is a key under which data keys are wrapped.
type master struct {
	id     string // 16 hex digits of a digest
	secret []byte
}

func newMaster(secret []byte) master {
	sum := sha256.Sum256(append([]byte("catchment master key\n"), secret...))
	return master{hex.EncodeToString(sum[:8]), secret}
}

// ErrUnusable is wrapped by errors about keys that no retry can heal: a person must look at the configuration or the store.
var ErrUnusable = errors.New("the archive's key cannot be used")

const keyTitle = "catchment archive key v1"

// errForm says of an object that it means something, and that we write that otherwise.
var errForm = errors.New("it is not written in its one form")

// wrapped is a data key as the store has it:
//
//	catchment archive key v1
//	name {its ID}
//	master {ID of the master key}
//	wrapped {nonce, encrypted key and tag of AES-256-GCM, in base64; associated data: the lines above}
type wrapped struct {
	id     ID
	master string
	text   []byte
}

func (w *wrapped) head() string {
	return fmt.Sprintf("%s\nname %s\nmaster %s\n", keyTitle, w.id, w.master)
}

func (w *wrapped) object() []byte {
	return []byte(w.head() + "wrapped " + base64.StdEncoding.EncodeToString(w.text) + "\n")
}

func parseWrapped(object []byte) (*wrapped, error) {
	v, err := fields(object, keyTitle, "name", "master", "wrapped")
	if err != nil {
		return nil, err
	}
	w := &wrapped{master: v["master"]}
	if w.id, err = ParseID(v["name"]); err != nil {
		return nil, err
	}
	if w.text, err = base64.StdEncoding.DecodeString(v["wrapped"]); err != nil || len(w.text) < nonceSize {
		return nil, errors.New("wrapped: expected base64")
	}
	if string(w.object()) != string(object) { // the decoder skips line breaks
		return nil, errForm
	}
	return w, nil
}

// fields reads a text of lines, each a name, a space and a value, after its title.
func fields(object []byte, title string, names ...string) (map[string]string, error) {
	lines := strings.Split(string(object), "\n")
	if lines[0] != title || len(lines) != len(names)+2 || lines[len(lines)-1] != "" {
		return nil, fmt.Errorf("expected %q and %d lines", title, len(names))
	}
	values := map[string]string{}
	for i, name := range names {
		v, ok := strings.CutPrefix(lines[i+1], name+" ")
		if !ok {
			return nil, fmt.Errorf("line %d: expected %s", i+2, name)
		}
		values[name] = v
	}
	return values, nil
}

// wrap encrypts a data key under the master key.
func (m master) wrap(id ID, secret []byte) (*wrapped, error) {
	aead, err := newAEAD(m.secret)
	if err != nil {
		return nil, err
	}
	w := &wrapped{id: id, master: m.id, text: make([]byte, nonceSize)}
	_, _ = rand.Read(w.text) // it ends the process rather than fail
	w.text = aead.Seal(w.text, w.text, secret, []byte(w.head()))
	return w, nil
}

// unwrap is the inverse of wrap. The error wraps ErrUnusable.
func (m master) unwrap(w *wrapped) ([]byte, error) {
	aead, err := newAEAD(m.secret)
	if err != nil {
		return nil, err
	}
	secret, err := aead.Open(nil, w.text[:nonceSize], w.text[nonceSize:], []byte(w.head()))
	if err != nil || len(secret) != keySize {
		return nil, fmt.Errorf("%w: %s: it was altered, or wrapped under another master key than it says", ErrUnusable, w.id.key())
	}
	return secret, nil
}

const erasedTitle = "catchment archive key erased v1"

// Erasure says that a key was destroyed: when, by whom, and why.
type Erasure struct {
	ID     ID
	At     time.Time // UTC, seconds
	Actor  string
	Reason string
}

// object is the tombstone:
//
//	catchment archive key erased v1
//	name {the key's ID}
//	at {RFC 3339, UTC}
//	by {quoted as in Go}
//	reason {quoted as in Go}
func (e *Erasure) object() []byte {
	return fmt.Appendf(nil, "%s\nname %s\nat %s\nby %s\nreason %s\n", erasedTitle, e.ID, e.At.UTC().Format(time.RFC3339), strconv.QuoteToASCII(e.Actor), strconv.QuoteToASCII(e.Reason))
}

func parseErasure(object []byte) (*Erasure, error) {
	v, err := fields(object, erasedTitle, "name", "at", "by", "reason")
	if err != nil {
		return nil, err
	}
	e := &Erasure{}
	if e.ID, err = ParseID(v["name"]); err != nil {
		return nil, err
	}
	if e.At, err = time.Parse(time.RFC3339, v["at"]); err != nil {
		return nil, fmt.Errorf("at: expected a time: %w", err)
	}
	for name, to := range map[string]*string{"by": &e.Actor, "reason": &e.Reason} {
		if *to, err = strconv.Unquote(v[name]); err != nil {
			return nil, fmt.Errorf("%s: expected a quoted text", name)
		}
	}
	if string(e.object()) != string(object) {
		return nil, errForm
	}
	return e, nil
}

// ErasedError says that what is asked for was erased: nobody can read it again.
type ErasedError struct{ Erasure }

func (e *ErasedError) Error() string {
	return fmt.Sprintf("erased on %s by %s: %s (key %s)", e.At.UTC().Format(time.RFC3339), e.Actor, e.Reason, e.ID)
}
