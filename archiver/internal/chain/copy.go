package chain

import (
	"context"
	"errors"
	"fmt"

	"github.com/catchment-dev/catchment/archiver/internal/objstore"
)

// lastCopied is the last key in the second place; "" when there is none.
func (c *Chain) lastCopied(ctx context.Context, committed int64) (string, error) {
	if c.Copy == nil {
		return "", nil
	}
	return c.last(ctx, c.Copy, committed)
}

// copy creates a checkpoint or a gap in the second place. What stands there already must be the same.
func (c *Chain) copy(ctx context.Context, key string, object []byte) error {
	if c.Copy == nil {
		return nil
	}
	err := c.Copy.Create(ctx, key, object)
	if !errors.Is(err, objstore.ErrExists) {
		return err
	}
	there, err := c.Copy.Read(ctx, key, 0, -1)
	if err == nil && string(there) != string(object) {
		err = fmt.Errorf("%w: %s is another one in the second place", ErrConflict, key)
	}
	return err
}

// catchUp writes to the second place what is missing there behind the last copied one, up to the chain's last object:
// its writer has died in between. Where nothing was copied yet the last one is enough, since it names all before it.
func (c *Chain) catchUp(ctx context.Context, copied, last string, object []byte) error {
	if c.Copy == nil {
		return nil
	}
	if copied != "" {
		for key, err := range c.Store.List(ctx, c.Partition.Checkpoints(), copied) {
			if err != nil {
				return err
			}
			if key >= last {
				break
			}
			between, err := c.Store.Read(ctx, key, 0, -1)
			if err == nil {
				err = c.copy(ctx, key, between)
			}
			if err != nil {
				return err
			}
		}
	}
	return c.copy(ctx, last, object)
}
