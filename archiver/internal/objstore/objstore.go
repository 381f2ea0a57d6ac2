// Package objstore keeps objects that are written once. Keys and bytes come in and lie durably under their key when
// Create returns; what lies there can be read and listed. It must never replace an object, and never show a part of
// one.
package objstore

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/catchment-dev/catchment/pkg/settings"
)

// Store is where the archive lies. Its methods can be called concurrently. Keys are relative paths with slashes; no
// key is another key's folder.
type Store interface {
	// Create writes an object that does not exist yet. When it returns nil the object is durable. The error wraps
	// ErrExists when the key is taken, whoever took it: also by an earlier call whose answer was lost. After any
	// other error the object may or may not be there: call again with the same bytes.
	Create(ctx context.Context, key string, body []byte) error
	// Read returns length bytes from offset on, fewer at the object's end; all to the end when length is negative.
	// The error wraps ErrNotFound when there is no such object.
	Read(ctx context.Context, key string, offset, length int64) ([]byte, error)
	// Size returns the object's size in bytes. The error wraps ErrNotFound when there is no such object.
	Size(ctx context.Context, key string) (int64, error)
	// List yields the keys with the prefix that are greater than after, in byte order. It stops after an error.
	List(ctx context.Context, prefix, after string) iter.Seq2[string, error]
}

var (
	// ErrExists says that an object was there already.
	ErrExists = errors.New("object exists")
	// ErrNotFound says that there is no such object.
	ErrNotFound = errors.New("object does not exist")
	// ErrUnsafe says that the store does not keep one writer from replacing another's object.
	ErrUnsafe = errors.New("the store does not create objects only where there are none")
)

// Forgetful is a store from which objects can be deleted. The archive's own never is one: it is for what can be destroyed.
type Forgetful interface {
	Store
	// Delete removes an object. One that is not there is no error.
	Delete(ctx context.Context, key string) error
	// Make makes the bucket or folder where there is none yet, and says whether it did.
	Make(ctx context.Context) (made bool, err error)
	// KeepsVersions says whether the store keeps objects that were deleted.
	KeepsVersions(ctx context.Context) (bool, error)
}

// Open returns the store at a URL: file:///folder or s3://bucket/prefix?region=…&endpoint=…&path_style=true.
// It does not connect.
func Open(ctx context.Context, rawURL string) (Store, error) { return OpenForgetful(ctx, rawURL) }

// OpenForgetful is Open for a store from which objects may be deleted.
func OpenForgetful(ctx context.Context, rawURL string) (Forgetful, error) {
	p, err := settings.ParsePlace(rawURL)
	if err != nil {
		return nil, err
	}
	if p.Folder != "" {
		return &fileStore{p.Folder}, nil
	}
	return openS3(ctx, p)
}

const (
	probeKey  = "probe/create-only.txt"
	probeText = "The archive is safe only where an object is never replaced. Catchment proves that with this one at every start. Leave it here.\n"
)

// Probe proves that the store takes an object once and never again, gives it back and lists it. The error wraps ErrUnsafe when
// it does not; any other error means that nothing is known yet.
func Probe(ctx context.Context, s Store) error {
	err := s.Create(ctx, probeKey, []byte(probeText))
	if err != nil && !errors.Is(err, ErrExists) {
		return fmt.Errorf("probe: %w", err)
	}
	err = s.Create(ctx, probeKey, []byte(probeText))
	if err == nil {
		return fmt.Errorf("%w: it took %s twice", ErrUnsafe, probeKey)
	}
	if !errors.Is(err, ErrExists) {
		return fmt.Errorf("probe: %w", err)
	}
	got, err := s.Read(ctx, probeKey, 0, -1)
	if err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	if string(got) != probeText {
		return fmt.Errorf("%w: %s does not hold what was written", ErrUnsafe, probeKey)
	}
	for key, err := range s.List(ctx, probeKey, "") {
		if err != nil {
			return fmt.Errorf("probe: %w", err)
		}
		if key == probeKey {
			return nil
		}
	}
	return fmt.Errorf("probe: %s is there and is not listed", probeKey)
}
