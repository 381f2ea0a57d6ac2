package run_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/run"
)

func TestPanickedTellsNoValues(t *testing.T) {
	of := func(f func()) (text string) {
		defer func() { text = run.Panicked(recover()) }()
		f()
		return ""
	}
	var few []byte
	var none map[string]int
	require.Contains(t, of(func() { _ = few[len(t.Name())] }), "index out of range [25] with length 0")
	require.Contains(t, of(func() { none["x"] = 1 }), "nil map")
	require.Equal(t, "string", of(func() { panic("s3cret") }))
	require.Equal(t, "*fmt.wrapError", of(func() { panic(fmt.Errorf("s3cret: %w", errors.New("s3cret"))) }))
}
