package checkpoint_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

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

func exampleGap() *checkpoint.Gap {
	return &checkpoint.Gap{
		Partition: example().Partition, First: 200, Last: 299, Time: time.Date(2026, 11, 2, 3, 4, 5, 0, time.UTC),
		Actor: "ada@ops-1", Reason: "Kafka kept a day only", Segment: strings.Repeat("ab", 32), Previous: strings.Repeat("ef", 32),
	}
}

// The text is a published format: it never changes within its version.
const gapText = `catchment archive gap v1
partition catchment.events-010200000000000000000000000000ff-00003
first 200
last 299
time 2026-11-02T03:04:05Z
actor ada@ops-1
reason Kafka kept a day only
segment abababababababababababababababababababababababababababababababab
previous efefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefef
`

func TestGapBothWays(t *testing.T) {
	require.Equal(t, gapText, exampleGap().Text())
	first := exampleGap()
	first.Segment, first.Previous = "", ""
	for _, g := range []*checkpoint.Gap{exampleGap(), first} {
		got, err := checkpoint.ParseLink([]byte(g.Text()))
		require.NoError(t, err)
		require.Nil(t, got.Checkpoint)
		require.Equal(t, g, got.Gap)
	}
	_, err := checkpoint.Parse([]byte(gapText))
	require.ErrorIs(t, err, checkpoint.ErrMalformed, "a gap is no checkpoint")
	require.ErrorContains(t, err, "offsets 200 to 299 are lost")
}

// A text has one form: what says the same in another one is malformed.
func TestOneForm(t *testing.T) {
	for _, wrong := range []string{
		strings.Replace(text, "first 100", "first +100", 1), strings.Replace(text, "first 100", "first 0100", 1),
		strings.TrimSuffix(text, "\n"), text + "x", strings.ToUpper(text[:len(text)-1]) + "\n", strings.Replace(text, "abab", "ABab", 1),
		strings.Replace(text, "abab", "ab", 1), strings.Replace(text, "previous ef", "previous xx", 1),
		strings.Replace(gapText, "03:04:05Z", "03:04:05.0Z", 1), strings.Replace(gapText, "03:04:05Z", "04:04:05+01:00", 1),
		strings.Replace(gapText, "reason Kafka", "reason \tKafka", 1), strings.Replace(gapText, "actor ada@ops-1", "actor ", 1),
		strings.Replace(gapText, "first 200", "first -1", 1), strings.Replace(gapText, "v1", "v2", 1),
	} {
		_, err := checkpoint.ParseLink([]byte(wrong))
		require.ErrorIs(t, err, checkpoint.ErrMalformed, wrong)
	}
}

func TestVerify(t *testing.T) {
	skey, vkey, err := note.GenerateKey(nil, "example.com/archive")
	require.NoError(t, err)
	key, err := checkpoint.NewKey(skey)
	require.NoError(t, err)
	mine, err := checkpoint.NewVerifier(vkey + "\n")
	require.NoError(t, err)
	otherText, _, err := note.GenerateKey(nil, "example.com/other")
	require.NoError(t, err)
	other, err := checkpoint.NewKey(otherText)
	require.NoError(t, err)
	object, err := key.Object(exampleGap())
	require.NoError(t, err)
	require.NoError(t, checkpoint.Verify(object, []checkpoint.Verifier{other.Verifier(), mine}))
	require.ErrorContains(t, checkpoint.Verify(object, []checkpoint.Verifier{other.Verifier()}), "example.com/archive")
	require.ErrorContains(t, checkpoint.Verify(bytes.Replace(object, []byte("299"), []byte("298"), 1), []checkpoint.Verifier{mine}), "wrong")

	// The last character of the signature before the padding has bits that base64 does not use.
	loose := []byte(strings.TrimSuffix(string(object), "=\n"))
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	loose[len(loose)-1] = alphabet[strings.IndexByte(alphabet, loose[len(loose)-1])+1]
	require.ErrorContains(t, checkpoint.Verify(append(loose, "=\n"...), []checkpoint.Verifier{mine}), "one form")

	n, err := note.Open(object, note.VerifierList(mine))
	require.NoError(t, err)
	signer, err := note.NewSigner(otherText)
	require.NoError(t, err)
	both, err := note.Sign(n, signer)
	require.NoError(t, err)
	require.ErrorContains(t, checkpoint.Verify(both, []checkpoint.Verifier{mine}), "also signed")

	_, err = checkpoint.NewVerifier(skey)
	require.Error(t, err)
	var none *checkpoint.Key
	require.Nil(t, none.Verifier())
}

// Whatever the bytes are, what is read says the same when it is written again.
func FuzzParseLink(f *testing.F) {
	f.Add([]byte(text))
	f.Add([]byte(gapText))
	f.Add([]byte(gapText + "\n— example.com AAAA\n"))
	f.Fuzz(func(t *testing.T, object []byte) {
		l, err := checkpoint.ParseLink(object)
		switch {
		case err != nil:
			require.ErrorIs(t, err, checkpoint.ErrMalformed)
			require.Nil(t, l.Checkpoint)
			require.Nil(t, l.Gap)
			return
		case l.Gap != nil:
			require.True(t, bytes.HasPrefix(object, []byte(l.Gap.Text())))
		default:
			require.True(t, bytes.HasPrefix(object, []byte(l.Checkpoint.Text())))
		}
		if _, err := checkpoint.Parse(object); l.Gap == nil {
			require.NoError(t, err)
		} else {
			require.Error(t, err)
		}
	})
}
