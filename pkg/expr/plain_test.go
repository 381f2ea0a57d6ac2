package expr

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Only what cannot take long is evaluated without a cost limit.
func TestPlain(t *testing.T) {
	env, err := NewEnv()
	require.NoError(t, err)
	for src, plain := range map[string]bool{
		`has(body.data.object.metadata.order_id)`:                true,
		`{"a": "paid", "b": "failed"}[type]`:                     true,
		`body.?a[?"b"].orValue("")`:                              true,
		`type in ["a", "b"] && body.n >= 3 ? time : received_at`: true,

		`type + type`:                           false,
		`body.list.map(x, x.id)`:                false,
		`body.list.exists(x, x == 1)`:           false,
		`lists.range(1000000)`:                  false,
		`body.text.matches("(a+)+$")`:           false,
		`string(body.id)`:                       false,
		`type.replace("a", "b")`:                false,
		`[` + strings.Repeat(`id,`, 70) + `id]`: false,
	} {
		p, err := env.Compile(src)
		require.NoError(t, err, src)
		require.Equal(t, plain, isPlain(p.ast.NativeRep()), src)
	}
}
