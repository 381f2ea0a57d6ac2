package expr

import (
	"strings"
	"testing"

	"cel.dev/cel-go/common/types/ref"
	"github.com/stretchr/testify/require"
)

// whatIsRead are expressions, and what of the body they look at.
var whatIsRead = []struct{ src, want string }{
	{`type`, ``},
	{`body.data.object.id`, `data(object(id(*)))`},
	{`has(body.a.b) && body["c"].d == 1`, `a(b(*))c(d(*))`},
	{`body.?a.?b.orValue("x")`, `a(b(*))`},
	{`body[?"a"].?b`, `a(b(*))`},
	{`body.a[0].b`, `a(*)`},
	{`body.a[body.b]`, `a(*)b(*)`},
	{`body.list.map(x, x.n + body.k)`, `k(*)list(*)`},
	{`[1].exists(body, body == 1)`, `*`},
	{`{"a": body.x, body.y: 1}[type]`, `x(*)y(*)`},
	{`body == null`, `*`},
	{`size(body)`, `*`},
	{`body.a.b == body.a`, `a(*)`},
	{`[body.v, time, body.w.size()]`, `v(*)w(*)`},
	{`body.text.split(",")[0]`, `text(*)`},
	{`"x" in body.tags ? body.n.m : body[type]`, `*`},
}

// An expression gives the same whether all of the body is decoded or what is looked at alone.
func TestOnlyWhatIsRead(t *testing.T) {
	shared, err := NewEnv()
	require.NoError(t, err)
	var all []*Program
	for _, tt := range whatIsRead {
		env, err := NewEnv()
		require.NoError(t, err)
		p, err := env.Compile(tt.src)
		require.NoError(t, err, tt.src)
		require.Equal(t, tt.want, env.body.now.Load().String(), tt.src)
		if tt.want != "*" {
			q, err := shared.Compile(tt.src)
			require.NoError(t, err)
			all = append(all, q)
		}
		for _, body := range bodiesRead {
			sameAsWhole(t, p, body)
		}
	}
	for _, p := range all {
		for _, body := range bodiesRead {
			sameAsWhole(t, p, body)
		}
	}
}

var bodiesRead = []string{
	`{"data":{"object":{"id":7,"other":[{"a":1}]},"x":1},"a":{"b":{"c":[1,2]},"z":1},"c":{"d":1},"b":"b","k":5,"list":[{"n":1},{"n":2}],"x":1,"y":"y","v":1,"w":[1],"text":"p,q","tags":["x"],"n":{"m":3}}`,
	`{"data":null,"a":[{"b":1}],"c":"d","list":{},"w":"abc","b":0}`, `{"data":{"object":3}}`, `{"a":1,"a":{"b":2},"c":{"d":1},"c":{"e":1}}`,
	`[]`, `3`, `"text"`, `null`, `{}`, ``, `{`, `{"data":{"unread":}}`, `{"unread":[1,}`, `{"unread":"\ud800","a":{"b":1}} x`, `{"unread":1e999,"v":1e999,"w":[]}`,
}

func sameAsWhole(t *testing.T, p *Program, body string) {
	t.Helper()
	input := func() *Input { return &Input{Type: "y", ContentType: "application/json", Raw: []byte(body)} }
	whole := *p
	whole.env = &Env{cel: p.env.cel}
	want, wantErr := whole.Eval(input())
	in := input()
	got, err := p.Eval(in)
	require.Equal(t, reason(wantErr), reason(err), "%s on %s", p, body)
	if err == nil {
		require.Equal(t, text(t, want), text(t, got), "%s on %s", p, body)
	}
	again, err := whole.Eval(in) // another environment asks for more
	require.Equal(t, reason(wantErr), reason(err))
	if err == nil {
		require.Equal(t, text(t, want), text(t, again), "%s on %s", p, body)
	}
}

func FuzzOnlyWhatIsRead(f *testing.F) {
	for i, body := range bodiesRead {
		f.Add(whatIsRead[i%len(whatIsRead)].src, body)
	}
	f.Fuzz(func(t *testing.T, src, body string) {
		env, err := NewEnv()
		require.NoError(t, err)
		if p, err := env.Compile(src); err == nil {
			sameAsWhole(t, p, body)
		}
	})
}

// reason is an error's text; what is wrong with JSON is told in other words where it is only checked.
func reason(err error) string {
	if err == nil {
		return ""
	}
	text, _, _ := strings.Cut(err.Error(), "not JSON: ")
	return text
}

func text(t *testing.T, v ref.Val) string {
	t.Helper()
	s, err := JSON(v)
	if err != nil {
		return "error: " + err.Error()
	}
	return s
}
