package segment

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/archiver/internal/layout"
	"github.com/catchment-dev/catchment/archiver/internal/row"
	"github.com/catchment-dev/catchment/pkg/event"
)

var partition = layout.Partition{Topic: "catchment.events", TopicID: [16]byte{1, 15: 2}, Number: 3}

// record is about 2 KiB of JSON-like text, as a payment provider sends it.
func record(offset int64, random *rand.Rand) *kgo.Record {
	id := fmt.Sprintf("evt_%016x%08x", random.Uint64(), random.Uint32())
	var body bytes.Buffer
	fmt.Fprintf(&body, `{"id":%q,"object":"event","created":%d,"livemode":true,"data":{"object":{"id":"pi_%x","amount":%d,"currency":"eur","metadata":{"order_id":"%d"},"charges":[`,
		id, 1_793_500_000+offset, random.Uint64(), random.IntN(1e6), random.IntN(1e9))
	for i := range 5 {
		fmt.Fprintf(&body, `{"id":"ch_%016x%08x","object":"charge","amount":%d,"balance_transaction":"txn_%016x","billing_details":{"address":{"city":"Berlin","country":"DE","line1":"Street %d","postal_code":"%05d"},"email":"user%d@example.com","name":"Customer %d"},"captured":true,"disputed":false,"paid":true,"status":"succeeded"},`,
			random.Uint64(), random.Uint32(), random.IntN(1e6), random.Uint64(), random.IntN(200), random.IntN(99999), random.IntN(1e6), i)
	}
	body.WriteString(`null]}},"type":"payment_intent.succeeded"}`)
	r := event.Encode(&event.Delivery{
		Source: "stripe", Provider: "stripe", ID: id, Type: "payment_intent.succeeded",
		Time: time.Unix(1_793_500_000+offset, 0).UTC(), ReceivedAt: time.UnixMicro(1_793_500_000_000_000 + offset*1_000_003).UTC(),
		DeliveryID: fmt.Sprintf("0199a0b0-0000-7000-8000-%012x", random.Uint64()>>16), SecretID: "k_0123456789ab",
		RemoteAddr: "54.187.174.169", Method: "POST", Path: "/webhooks/stripe", Verdict: "verified", ContentType: "application/json; charset=utf-8",
		TraceParent: fmt.Sprintf("00-%016x%016x-%016x-01", random.Uint64(), random.Uint64(), random.Uint64()),
		Headers: []event.Header{
			{Name: "accept", Value: "*/*; q=0.5, application/xml"},
			{Name: "cache-control", Value: "no-cache"},
			{Name: "content-length", Value: fmt.Sprint(body.Len())},
			{Name: "content-type", Value: "application/json; charset=utf-8"},
			{Name: "stripe-signature", Value: fmt.Sprintf("t=%d,v1=%016x%016x%016x%016x", 1_793_500_000+offset, random.Uint64(), random.Uint64(), random.Uint64(), random.Uint64())},
			{Name: "user-agent", Value: "Stripe/1.0 (+https://stripe.com/docs/webhooks)"},
		},
		Body: body.Bytes(),
	})
	r.Topic, r.Partition, r.Offset = partition.Topic, partition.Number, offset
	r.Timestamp = time.UnixMilli(1_793_500_000_000 + offset)
	return r
}

func build(t testing.TB, first int64, n int) *Segment {
	t.Helper()
	random := rand.New(rand.NewPCG(7, uint64(first)))
	b := NewBuilder(partition, first, "writer")
	for i := range int64(n) {
		r := record(first+i, random)
		require.NoError(t, b.Append(row.From(r, partition.TopicID), 5, row.RecordSize(r)))
	}
	s, err := b.Finish(strings.Repeat("ab", 32))
	require.NoError(t, err)
	return s
}

func TestSegmentSaysWhatItHolds(t *testing.T) {
	s := build(t, 100, 250)
	f, err := OpenBytes(s.Body)
	require.NoError(t, err)
	require.NoError(t, f.Verify(nil))
	require.Equal(t, s.Key(layout.Events), f.Key(layout.Events))
	want := s.Info
	want.Day = f.Day
	require.Equal(t, want, f.Info)
	require.EqualValues(t, 349, f.Last)
	require.EqualValues(t, 5, f.LeaderEpoch)
	require.Equal(t, s.SHA256, sha256.Sum256(s.Body))

	var offsets []int64
	for w, err := range f.Rows(347) {
		require.NoError(t, err)
		offsets = append(offsets, w.Offset)
	}
	require.Equal(t, []int64{347, 348, 349}, offsets)
	for _, err := range f.Rows(350) {
		require.NoError(t, err)
		require.Fail(t, "there is nothing behind the last row")
	}
}

func TestBuilderRefusesGaps(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	b := NewBuilder(partition, 10, "writer")
	require.NoError(t, b.Append(row.From(record(10, random), partition.TopicID), 0, 1))
	for _, offset := range []int64{9, 10, 12} {
		require.Error(t, b.Append(row.From(record(offset, random), partition.TopicID), 0, 1))
	}
	require.NoError(t, b.Append(row.From(record(11, random), partition.TopicID), 0, 1))
	_, err := NewBuilder(partition, 0, "writer").Finish("")
	require.Error(t, err)
}

func TestRest(t *testing.T) {
	s := build(t, 100, 50)
	b, err := Rest(s, 130)
	require.NoError(t, err)
	rest, err := b.Finish("")
	require.NoError(t, err)
	require.EqualValues(t, 130, rest.First)
	require.EqualValues(t, 149, rest.Last)
	f, err := OpenBytes(rest.Body)
	require.NoError(t, err)
	require.NoError(t, f.Verify(nil))
}

// Any byte that is changed is noticed: by the checkpoint's digest always, and by the file itself where it matters.
func TestDamageIsFound(t *testing.T) {
	s := build(t, 0, 40)
	random := rand.New(rand.NewPCG(3, 3))
	for range 300 {
		body := bytes.Clone(s.Body)
		at := random.IntN(len(body))
		body[at] ^= byte(1 + random.IntN(255))
		require.NotPanics(t, func() {
			f, err := OpenBytes(body)
			if err == nil {
				err = f.Verify(nil)
			}
			_ = err // some bytes, such as statistics, carry nothing that is read
		}, "byte %d", at)
	}
	for _, size := range []int{0, 4, 100, len(s.Body) / 2, len(s.Body) - 1} {
		_, err := OpenBytes(s.Body[:size])
		require.ErrorIs(t, err, ErrDamaged)
	}
}

func TestMayHold(t *testing.T) {
	s := build(t, 0, 1000)
	f, err := OpenBytes(s.Body)
	require.NoError(t, err)
	may := func(id string) bool {
		held, err := MayHold(bytes.NewReader(s.Body), int64(len(s.Body)), id)
		require.NoError(t, err)
		return held
	}
	for w, err := range f.Rows(990) {
		require.NoError(t, err)
		require.True(t, may(w.EventID))
	}
	wrong := 0
	for i := range 1000 {
		if may(fmt.Sprintf("evt_absent_%d", i)) {
			wrong++
		}
	}
	require.Less(t, wrong, 50)
}

// The roots of RFC 6962's reference implementation over its eight test leaves.
func TestMerkleRoots(t *testing.T) {
	leaves := []string{"", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"}
	roots := []string{
		"6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
		"fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
		"aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
		"d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
		"4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
		"76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
		"ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
		"5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
	}
	var tr tree
	empty := tr.root()
	require.Equal(t, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", hex.EncodeToString(empty[:]))
	for i, leaf := range leaves {
		b, err := hex.DecodeString(leaf)
		require.NoError(t, err)
		tr.add(sha256.Sum256(append(leafPrefix, b...)))
		root := tr.root()
		require.Equal(t, roots[i], hex.EncodeToString(root[:]))
	}
}

// No copy of a body is made for its digest: an open segment would keep the memory of its largest one.
func TestNoCopyOfABodyForItsDigest(t *testing.T) {
	r := record(0, rand.New(rand.NewPCG(1, 2)))
	r.Value = make([]byte, 1<<20)
	b := NewBuilder(partition, 0, "writer")
	require.NoError(t, b.Append(row.From(r, partition.TopicID), 0, row.RecordSize(r)))
	require.Less(t, cap(b.tree.scratch), 64<<10)
}
