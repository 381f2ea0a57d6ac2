package kafkatest

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Load produces some 20 times a second until end is called, which fails the test where a call of produce had failed.
func Load(tb testing.TB, produce func() error) (end func()) {
	stop, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		pace := time.NewTicker(50 * time.Millisecond)
		defer pace.Stop()
		for {
			select {
			case <-stop:
				ended <- nil
				return
			case <-pace.C:
				if err := produce(); err != nil {
					ended <- err
					return
				}
			}
		}
	}()
	return func() {
		tb.Helper()
		close(stop)
		require.NoError(tb, <-ended)
	}
}
