package settings

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const chartSchema = "../../charts/catchment/values.schema.json"

// TestChartSchema keeps the chart's `config`, which is catchment.yaml, under the schema of catchment.yaml.
func TestChartSchema(t *testing.T) {
	text, err := os.ReadFile(chartSchema)
	require.NoError(t, err)
	var chart map[string]any
	require.NoError(t, json.Unmarshal(text, &chart))
	chart["properties"].(map[string]any)["config"] = inHelm(t)
	want, err := json.MarshalIndent(chart, "", "  ")
	require.NoError(t, err)
	want = append(want, '\n')
	if *update {
		require.NoError(t, os.WriteFile(chartSchema, want, 0o644))
		text = want
	}
	require.Equal(t, string(want), string(text), "run make generate")
}

// inHelm is the schema of catchment.yaml as part of another one, for values that were read as YAML 1.1: the bare words on
// and off are booleans there. The chart's template catchment.config makes of them what was written.
func inHelm(t *testing.T) map[string]any {
	text, err := json.Marshal(Schema())
	require.NoError(t, err)
	var s map[string]any
	require.NoError(t, json.Unmarshal(text, &s))
	delete(s, "$id")
	delete(s, "$schema")
	properties := func(of map[string]any) map[string]any { return of["properties"].(map[string]any) }
	orBoolean := func(section map[string]any, key string) {
		of := properties(section)
		require.Contains(t, of, key)
		of[key] = map[string]any{"anyOf": []any{of[key], map[string]any{"type": "boolean"}}}
	}
	require.Equal(t, 4, strings.Count(string(text), `"off"`), "enums and defaults: each key that may be off is below, and in the chart's catchment.config")
	top := properties(s)
	orBoolean(top["kafka"].(map[string]any), "results_topic")
	orBoolean(top["postgres"].(map[string]any), "prepared")
	orBoolean(top["telemetry"].(map[string]any), "traces")
	orBoolean(properties(top["ingress"].(map[string]any))["dedup"].(map[string]any), "store")
	// what is not here may come from a Secret
	archive := top["archive"].(map[string]any)
	for _, section := range []any{top["kafka"], top["postgres"], archive, properties(archive)["encryption"]} {
		delete(section.(map[string]any), "required")
	}
	// and what templates look at must not be taken away
	s["required"] = []any{"archiver", "ingress", "kafka", "processor"}
	top["ingress"].(map[string]any)["required"] = []any{"listen", "ops_listen"}
	for _, section := range []string{"archiver", "processor"} {
		top[section].(map[string]any)["required"] = []any{"ops_listen"}
	}
	operation := top["operations"].(map[string]any)["items"].(map[string]any)
	require.Equal(t, []any{"name", "on"}, operation["required"])
	operation["required"] = []any{"name"}
	operation["anyOf"] = []any{map[string]any{"required": []any{"on"}}, map[string]any{"required": []any{"true"}}}
	properties(operation)["true"] = properties(operation)["on"]
	return s
}
