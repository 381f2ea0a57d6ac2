package checkpoint_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"

	"github.com/catchment-dev/catchment/archiver/internal/checkpoint"
	"github.com/catchment-dev/catchment/archiver/internal/layout"
)

func example() *checkpoint.Checkpoint {
	p := layout.Partition{Topic: "catchment.events", TopicID: [16]byte{1, 2, 15: 0xff}, Number: 3}
	return &checkpoint.Checkpoint{
		Partition: p, Segment: "events/date=2026-11-01/" + p.String() + "-00000000000000000100.parquet",
		First: 100, Last: 199, LeaderEpoch: -1, Size: 12345,
		SHA256: strings.Repeat("ab", 32), Root: strings.Repeat("cd", 32), Previous: strings.Repeat("ef", 32),
	}
}

// The text is a published format: it never changes within its version.
const text = `catchment archive checkpoint v1
partition catchment.events-010200000000000000000000000000ff-00003
segment events/date=2026-11-01/catchment.events-010200000000000000000000000000ff-00003-00000000000000000100.parquet
first 100
last 199
epoch -1
size 12345
sha256 abababababababababababababababababababababababababababababababab
root cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd
previous efefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefef
`

func TestBothWays(t *testing.T) {
	require.Equal(t, text, example().Text())
	first := example()
	first.Previous = ""
	require.Contains(t, first.Text(), "\nprevious none\n")
	for _, c := range []*checkpoint.Checkpoint{example(), first} {
		got, err := checkpoint.Parse([]byte(c.Text()))
		require.NoError(t, err)
		require.Equal(t, c, got)
	}
}

func TestSigned(t *testing.T) {
	skey, vkey, err := note.GenerateKey(nil, "example.com/archive")
	require.NoError(t, err)
	key, err := checkpoint.NewKey(" " + skey + "\n") // as a file holds it
	require.NoError(t, err)
	object, err := key.Object(example())
	require.NoError(t, err)

	verifier, err := note.NewVerifier(vkey)
	require.NoError(t, err)
	n, err := note.Open(object, note.VerifierList(verifier))
	require.NoError(t, err)
	require.Equal(t, text, n.Text)
	got, err := checkpoint.Parse(object)
	require.NoError(t, err)
	require.Equal(t, example(), got)

	require.NoError(t, key.Check(object))
	require.Error(t, key.Check([]byte(strings.Replace(string(object), "last 199", "last 198", 1))))
	require.NoError(t, key.Check([]byte(text)), "unsigned: written before there was a key")
	other, _, err := note.GenerateKey(nil, "example.com/other")
	require.NoError(t, err)
	otherKey, err := checkpoint.NewKey(other)
	require.NoError(t, err)
	require.NoError(t, otherKey.Check(object), "signed by another")
}

func TestWithoutAKey(t *testing.T) {
	key, err := checkpoint.NewKey("")
	require.NoError(t, err)
	object, err := key.Object(example())
	require.NoError(t, err)
	require.Equal(t, text, string(object))
	require.NoError(t, key.Check(object))
}

func TestWrongKeys(t *testing.T) {
	for _, wrong := range []string{"x", "PRIVATE+KEY+a", "PRIVATE+KEY+a+00000000+AAAA", strings.Repeat("+", 9)} {
		_, err := checkpoint.NewKey(wrong)
		require.ErrorContains(t, err, "archive.checkpoint_key", wrong)
		require.NotContains(t, err.Error(), wrong+" ")
	}
}

func TestMalformed(t *testing.T) {
	for _, wrong := range []string{
		"", "x\n", strings.Replace(text, "v1", "v2", 1), strings.Replace(text, "first 100", "first x", 1),
		strings.Replace(text, "last 199", "last 99", 1), strings.Replace(text, "size", "length", 1), text + "more 1\n",
		strings.Replace(text, "-00003\n", "\n", 1),
	} {
		_, err := checkpoint.Parse([]byte(wrong))
		require.ErrorIs(t, err, checkpoint.ErrMalformed, wrong)
	}
}
