// Package keys holds the keys under which the archive's bodies and headers are encrypted: one for each source and day. Rows
// come in and go out sealed, or the other way round, and a key can be destroyed, which is what erases the rows that it
// sealed. It must never replace a key, never seal under one that was destroyed before, and never show one.
package keys

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/catchment-dev/catchment/archiver/internal/objstore"
	"github.com/catchment-dev/catchment/archiver/internal/row"
	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/settings"
)

// keyAge is how long a key is used to seal before the store is asked again whether it was destroyed.
const keyAge = time.Minute

// Ring seals and unseals rows. A nil Ring leaves rows plain. It is safe for concurrent use.
type Ring struct {
	store   objstore.Forgetful
	masters []master // the first wraps
	packer  *packer

	mu      sync.Mutex
	sealing map[string]sealingKey // by source and day
	opened  map[ID]*dataKey
}

type sealingKey struct {
	id  ID
	key *dataKey
	at  time.Time // when it was last known not to be destroyed
}

// Open returns the ring of a configuration; nil: there is no encryption. It does not connect.
func Open(ctx context.Context, a settings.Archive) (*Ring, error) {
	if a.Encryption == nil {
		return nil, nil
	}
	store, err := objstore.OpenForgetful(ctx, a.Encryption.KeysURL)
	if err != nil {
		return nil, a.Errorf("encryption.keys_url", "%v", err)
	}
	return newRing(store, append([]config.Secret{a.Encryption.MasterKey}, a.Encryption.OldMasterKeys...)...)
}

func newRing(store objstore.Forgetful, secrets ...config.Secret) (*Ring, error) {
	p, err := newPacker()
	if err != nil {
		return nil, err
	}
	r := &Ring{store: store, packer: p, sealing: map[string]sealingKey{}, opened: map[ID]*dataKey{}}
	for i, s := range secrets {
		secret, err := settings.MasterKey(s)
		if err != nil {
			return nil, fmt.Errorf("archive.encryption: master key %d: %w", i+1, err)
		}
		r.masters = append(r.masters, newMaster(secret))
	}
	return r, nil
}

// Store is where the keys lie.
func (r *Ring) Store() objstore.Store { return r.store }

// KeepsVersions says whether the store keeps objects that were deleted: then no key can be destroyed.
func (r *Ring) KeepsVersions(ctx context.Context) (bool, error) { return r.store.KeepsVersions(ctx) }

// Seal encrypts a row under the key of its source and of the broker's day. Markers of Kafka's own stay plain. The error
// wraps ErrUnusable when trying again does not help.
func (r *Ring) Seal(ctx context.Context, w *row.Row) error {
	if r == nil || w.IsControl() {
		return nil
	}
	source, day := sourceOf(w.Source), w.KafkaTimestamp.UTC().Format(time.DateOnly)
	name := source + "/" + day
	r.mu.Lock()
	k, ok := r.sealing[name]
	r.mu.Unlock()
	if !ok || time.Since(k.at) > keyAge {
		var err error
		if k, err = r.current(ctx, source, day); err != nil {
			return err
		}
		r.keep(name, k)
	}
	return w.Seal(k.id.String(), k.key)
}

// keep remembers a key, and forgets those that are too old to be used.
func (r *Ring) keep(name string, k sealingKey) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, old := range r.sealing {
		if time.Since(old.at) > keyAge {
			delete(r.sealing, name)
		}
	}
	r.sealing[name] = k
}

// current finds or makes the key of a source and day that is not destroyed. A destruction puts its tombstone first and
// then deletes the key: so a key that was there before no tombstone was found is not destroyed, whoever made it.
func (r *Ring) current(ctx context.Context, source, day string) (sealingKey, error) {
	for id := (ID{source, day, 0}); ; id.Generation++ {
		at := time.Now()
		object, err := r.store.Read(ctx, id.key(), 0, -1)
		if errors.Is(err, objstore.ErrNotFound) {
			object, err = r.create(ctx, id)
		}
		var erased *ErasedError
		if err == nil {
			err = r.erased(ctx, id)
		}
		if errors.As(err, &erased) {
			continue
		}
		if err != nil {
			return sealingKey{}, fmt.Errorf("key %s: %w", id, err)
		}
		key, err := r.unwrap(id, object)
		return sealingKey{id, key, at}, err
	}
}

// create makes a key, unless it was destroyed, and returns the object that counts: another archiver may have been first.
func (r *Ring) create(ctx context.Context, id ID) ([]byte, error) {
	if err := r.erased(ctx, id); err != nil {
		return nil, err
	}
	secret := make([]byte, keySize)
	_, _ = rand.Read(secret) // it ends the process rather than fail
	w, err := r.masters[0].wrap(id, secret)
	if err != nil {
		return nil, err
	}
	err = r.store.Create(ctx, id.key(), w.object())
	if errors.Is(err, objstore.ErrExists) {
		return r.store.Read(ctx, id.key(), 0, -1)
	}
	return w.object(), err
}

// erased returns an *ErasedError when there is a tombstone.
func (r *Ring) erased(ctx context.Context, id ID) error {
	object, err := r.store.Read(ctx, id.tombstone(), 0, -1)
	if errors.Is(err, objstore.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	e, err := parseErasure(object)
	if err == nil && e.ID != id {
		err = errors.New("it is of another key")
	}
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrUnusable, id.tombstone(), err)
	}
	return &ErasedError{*e}
}

func (r *Ring) unwrap(id ID, object []byte) (*dataKey, error) {
	w, err := parseWrapped(object)
	if err == nil && w.id != id {
		err = errors.New("it is another key")
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrUnusable, id.key(), err)
	}
	for _, m := range r.masters {
		if m.id == w.master {
			secret, err := m.unwrap(w)
			if err != nil {
				return nil, err
			}
			return newDataKey(secret, r.packer)
		}
	}
	return nil, fmt.Errorf("%w: %s is wrapped under master key %s, which is not configured: add it to archive.encryption.old_master_keys, or to master_key",
		ErrUnusable, id.key(), w.master)
}

// ErrNoRing says that a row is encrypted, and the configuration names no keys.
var ErrNoRing = errors.New("the record is encrypted, and the configuration has no archive.encryption to read it with")

// ErrAltered says that what a row holds is not what was encrypted.
var ErrAltered = errors.New("the encrypted record was altered")

// Unseal makes a row what it was before Seal; one that is plain stays so. The error is an *ErasedError when its key was
// destroyed.
func (r *Ring) Unseal(ctx context.Context, w *row.Row) error {
	if w.BodyKeyID == "" {
		return nil
	}
	if r == nil {
		return fmt.Errorf("%w (key %s)", ErrNoRing, w.BodyKeyID)
	}
	id, err := ParseID(w.BodyKeyID)
	if err != nil {
		return fmt.Errorf("body_key_id: %w", err)
	}
	key, err := r.find(ctx, id)
	if err != nil {
		return err
	}
	if err := w.Unseal(key); err != nil {
		return fmt.Errorf("%w: %w", ErrAltered, err)
	}
	if sha256.Sum256(w.Body) != w.BodySHA256 {
		return fmt.Errorf("%w: offset %d: the body does not have the digest that the row says", ErrAltered, w.Offset)
	}
	return nil
}

// find reads the key of a sealed row.
func (r *Ring) find(ctx context.Context, id ID) (*dataKey, error) {
	r.mu.Lock()
	key := r.opened[id]
	r.mu.Unlock()
	if key != nil {
		return key, nil
	}
	if err := r.erased(ctx, id); err != nil {
		return nil, err
	}
	object, err := r.store.Read(ctx, id.key(), 0, -1)
	if errors.Is(err, objstore.ErrNotFound) {
		return nil, fmt.Errorf("%w: %s is missing, and was not erased by Catchment: is archive.encryption.keys_url right?", ErrUnusable, id.key())
	}
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", id, err)
	}
	if key, err = r.unwrap(id, object); err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.opened[id] = key
	r.mu.Unlock()
	return key, nil
}

// List returns the keys of a source for the days from since to before until that are there, those too whose destruction
// was begun, and the destructions.
func (r *Ring) List(ctx context.Context, source string, since, until time.Time) (there []ID, erased []Erasure, err error) {
	first, last := since.UTC().Format(time.DateOnly), until.UTC().Format(time.DateOnly)
	for _, folder := range []string{keysFolder, erasedFolder} {
		for key, err := range r.store.List(ctx, folder+source+"/", "") {
			if err != nil {
				return nil, nil, fmt.Errorf("list the keys: %w", err)
			}
			id, err := ParseID(strings.TrimPrefix(key, folder))
			switch {
			case err != nil:
				return nil, nil, fmt.Errorf("%w: %s: %w", ErrUnusable, key, err)
			case id.Day < first || id.Day >= last:
			case folder == keysFolder:
				there = append(there, id)
			default:
				var e *ErasedError
				if err := r.erased(ctx, id); !errors.As(err, &e) {
					return nil, nil, fmt.Errorf("%s: %w", key, err)
				}
				erased = append(erased, e.Erasure)
			}
		}
	}
	return there, erased, nil
}

// Destroy makes a key's rows unreadable for ever. It can be called again, however far it came; the tombstone that was there
// first counts.
func (r *Ring) Destroy(ctx context.Context, e Erasure) error {
	err := r.store.Create(ctx, e.ID.tombstone(), e.object())
	if err != nil && !errors.Is(err, objstore.ErrExists) {
		return fmt.Errorf("destroy key %s: %w", e.ID, err)
	}
	if err := r.store.Delete(ctx, e.ID.key()); err != nil {
		return fmt.Errorf("destroy key %s: %w", e.ID, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.opened, e.ID)
	clear(r.sealing)
	return nil
}
