package packed_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/processor/internal/packed"
)

func TestBothWays(t *testing.T) {
	want := []*kgo.Record{
		{Key: []byte("k"), Value: []byte("v"), Headers: []kgo.RecordHeader{{Key: "a", Value: []byte("1")}, {Key: "a", Value: nil}, {Key: "", Value: []byte{}}}},
		{},
		{Key: []byte{}, Value: []byte{}},
		{Value: bytes.Repeat([]byte("x"), 1<<20)},
	}
	b := packed.Pack(want)
	require.Less(t, len(b), 1<<16)
	got, err := packed.Unpack(b)
	require.NoError(t, err)
	require.Equal(t, want, got)
	for _, wrong := range [][]byte{nil, {2}, {1}, append([]byte{1}, "no zstd"...), b[:len(b)-1]} {
		if len(wrong) == 1 && wrong[0] == 1 {
			continue // nothing at all
		}
		_, err := packed.Unpack(wrong)
		require.Error(t, err)
	}
}

func FuzzUnpack(f *testing.F) {
	b := packed.Pack([]*kgo.Record{{Key: []byte("k"), Headers: []kgo.RecordHeader{{Key: "h", Value: []byte("v")}}}})
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		records, err := packed.Unpack(b)
		if err != nil {
			return
		}
		twice, err := packed.Unpack(packed.Pack(records))
		require.NoError(t, err)
		require.Equal(t, records, twice)
	})
}
