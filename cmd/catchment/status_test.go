package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
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
