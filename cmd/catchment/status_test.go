package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/kafka/kafkatest"
)

func TestJudge(t *testing.T) {
	log := bounds{0: {start: 10, end: 20}, 1: {start: 0, end: 0}}
	long := time.Now().Add(-time.Hour)
	for name, tc := range map[string]struct {
		p     positions
		state string
		text  string
	}{
		"at the end":             {positions{at: map[int32]int64{0: 20, 1: 0}, moved: long}, fine, "has read everything"},
		"behind":                 {positions{at: map[int32]int64{0: 12}, moved: time.Now()}, fine, "8 records behind"},
		"behind, not known":      {positions{at: map[int32]int64{0: 12}}, fine, "8 records behind"},
		"stands still":           {positions{at: map[int32]int64{0: 12}, moved: long}, atRisk, "8 records behind, and it has not moved"},
		"long behind":            {positions{at: map[int32]int64{0: 12}, due: map[int32]int64{0: 15}}, atRisk, "8 records behind, and 3 of them should have been read long ago"},
		"not long behind":        {positions{at: map[int32]int64{0: 12}, due: map[int32]int64{0: 12, 1: 0}}, fine, "8 records behind"},
		"catching up":            {positions{at: map[int32]int64{0: 12}, due: map[int32]int64{0: 20}, moved: time.Now()}, fine, "8 records behind"},
		"overtaken":              {positions{at: map[int32]int64{0: 7}}, atRisk, "removed 3 records"},
		"overtaken at the start": {positions{at: map[int32]int64{}}, atRisk, "removed 10 records"},
	} {
		t.Run(name, func(t *testing.T) {
			c := log.judge("processor", tc.p)
			require.Equal(t, tc.state, c.State)
			require.Contains(t, c.Text, tc.text)
		})
	}
}

// TestDueOffsets asks a broker which records are old.
func TestDueOffsets(t *testing.T) {
	cluster := kafkatest.New(t)
	topic := cluster.Topic(t, 3)
	cl := cluster.Client(t, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for _, partition := range []int32{0, 0, 1} {
		require.NoError(t, cl.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Partition: partition, Value: []byte("x")}).FirstErr())
	}
	for age, want := range map[time.Duration]map[int32]int64{
		time.Hour:  {0: 0, 1: 0, 2: 0},
		-time.Hour: {0: 2, 1: 1, 2: 0}, // as if an hour had gone by
	} {
		due, err := dueOffsets(t.Context(), kadm.NewClient(cl), topic, age)
		require.NoError(t, err)
		require.Equal(t, want, due, age)
	}
}

// TestStatusWithoutAnybody says that nobody can say.
func TestStatusWithoutAnybody(t *testing.T) {
	code, stdout, _ := tool(t, "status", "--config", writeConfig(t, `
kafka: {brokers: ["127.0.0.1:1"]}
postgres: {url: "postgres://u:p@127.0.0.1:1/d"}
ingress: {ops_listen: "127.0.0.1:1"}
`))
	require.Equal(t, 1, code)
	require.Contains(t, stdout, "at risk")
}
