package expr_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"cel.dev/cel-go/common/types"
	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/expr"
)

var when = time.Date(2026, 11, 23, 10, 0, 0, 123456789, time.UTC)

func input(contentType, body string) *expr.Input {
	return &expr.Input{
		Source: "stripe", Type: "payment_intent.succeeded", ID: "evt_1", Time: when, ReceivedAt: when.Add(time.Second),
		Headers:     map[string][]string{"x-a": {"1", "2"}},
		ContentType: contentType, Raw: []byte(body),
	}
}

func compile(t *testing.T, src string) *expr.Program {
	t.Helper()
	env, err := expr.NewEnv()
	require.NoError(t, err)
	p, err := env.Compile(src)
	require.NoError(t, err, src)
	return p
}

func TestText(t *testing.T) {
	const js = `{"n":9223372036854775807,"big":9223372036854775808,"f":1.0,"e":1e3,"s":"é","b":true,"z":null,
		"o":{"k":[1,"a",null]},"id":1,"id":2}`
	const jsonType, form = "application/json; charset=utf-8", "application/x-www-form-urlencoded"
	for _, c := range []struct{ src, ctype, body, want string }{
		{`source + type + id`, "", "", "stripepayment_intent.succeededevt_1"},
		{`time`, "", "", "2026-11-23T10:00:00.123456789Z"},
		{`received_at - time`, "", "", "1s"},
		{`headers["x-a"][1]`, "", "", "2"},
		{`headers[?"x-b"][?0].orValue("none")`, "", "", "none"},
		{`body.n`, jsonType, js, "9223372036854775807"},
		{`type(body.n) == int && type(body.big) == double && type(body.f) == double && type(body.e) == double`, jsonType, js, "true"},
		{`body.e`, jsonType, js, "1000"},
		{`body.s`, jsonType, js, "é"},
		{`body.z`, jsonType, js, ""},
		{`body.o`, jsonType, js, `{"k":[1,"a",null]}`},
		{`body.id`, jsonType, js, "2"},
		{`body.?x.?y.orValue("d")`, jsonType, js, "d"},
		{`body.?x.?y`, jsonType, js, ""},
		{`body.?o.?k`, jsonType, js, `[1,"a",null]`},
		{`body.n`, "text/plain", `{"n":1}`, "1"},
		{`body.n`, "", `{"n":1}`, "1"},
		{`body == null`, jsonType, `{"n":1} x`, "true"},
		{`body == null`, jsonType, ``, "true"},
		{`body == null`, "text/plain", `hello`, "true"},
		{`body.a[1]`, form, "a=1&a=2", "2"},
		{`body.payload.k`, form, `payload=%7B%22k%22%3A5%7D&x=1`, "5"},
		{`body.payload[0]`, form, `payload=%7B`, "{"},
		{`body.a[0]`, "multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nv\r\n--b--\r\n", "v"},
		{`size(raw) == 5 && string(raw).startsWith("h")`, "text/plain", "hello", "true"},
		{`raw`, "text/plain", "hello", "hello"},
		{`{"payment_intent.succeeded": "paid"}[type]`, "", "", "paid"},
		{`"A,b".lowerAscii().split(",")[1]`, "", "", "b"},
		{`body.n > 0.5`, jsonType, js, "true"},
	} {
		got, err := compile(t, c.src).EvalText(input(c.ctype, c.body))
		require.NoError(t, err, c.src)
		require.Equal(t, c.want, got, c.src)
	}
	in := input("", "")
	in.Time = time.Time{}
	ok, err := compile(t, "time == null").EvalBool(in)
	require.NoError(t, err)
	require.True(t, ok)
}

func TestErrorsNameExpressionAndPart(t *testing.T) {
	for _, c := range []struct{ src, body, want string }{
		{`body.data.amount + 1`, `{"data":{}}`, "body.data.amount + 1: at body.data.amount: no such key: amount"},
		{`body.data`, `{`, "body is null: not JSON"},
		{`body.s`, `{"s":"a\u0000"}`, "U+0000"},
		{`body.f`, `{"f":1e999}`, "beyond the range"},
		{`[1,2].map(x, x)[5]`, ``, "index out of bounds: 5"},
	} {
		_, err := compile(t, c.src).EvalText(input("", c.body))
		require.ErrorContains(t, err, c.want)
		require.ErrorContains(t, err, c.src)
		var ee *expr.EvalError
		require.ErrorAs(t, err, &ee)
	}
	_, err := compile(t, `body.x`).EvalBool(input("", `{"x":1}`))
	require.ErrorContains(t, err, "expected a bool, found int")
}

func TestCompileErrorsHavePlaces(t *testing.T) {
	env, err := expr.NewEnv()
	require.NoError(t, err)
	for _, c := range []struct {
		src       string
		line, col int
	}{
		{"", 1, 1},
		{"body.x +", 1, 9},
		{"true &&\n  nope", 2, 3},
	} {
		_, err := env.Compile(c.src)
		var ce *expr.CompileError
		require.ErrorAs(t, err, &ce, c.src)
		require.Equal(t, [2]int{c.line, c.col}, [2]int{ce.Line, ce.Col}, err)
	}
	_, err = env.CompileBool("1 + 1")
	require.ErrorContains(t, err, "expected a bool, found int")
	_, err = env.CompileBool("body.x")
	require.NoError(t, err)
}

func TestCostIsLimited(t *testing.T) {
	list := "[" + strings.Repeat("1,", 99) + "1]"
	p := compile(t, list+".all(a, "+list+".all(b, "+list+".all(c, "+list+".all(d, a + b + c + d > 0))))")
	start := time.Now()
	_, err := p.EvalBool(input("", ""))
	require.Error(t, err)
	require.Regexp(t, "cost limit|deadline", err.Error(), "on a slow machine the time is up before the cost is")
	require.Less(t, time.Since(start), 5*time.Second)
}

func TestParam(t *testing.T) {
	for _, c := range []struct {
		src  string
		kind expr.Kind
		want any
	}{
		{`1`, expr.KindScalar, "1"},
		{`null`, expr.KindScalar, nil},
		{`body.?nope`, expr.KindJSON, nil},
		{`optional.of("x")`, expr.KindScalar, "x"},
		{`[1, 2]`, expr.KindArray, `{"1","2"}`},
		{`["a\"b", "c\\d", null, "NULL"]`, expr.KindArray, `{"a\"b","c\\d",NULL,"NULL"}`},
		{`[[1], [2]]`, expr.KindArray, `{{"1"},{"2"}}`},
		{`[1, "a"]`, expr.KindJSON, `[1,"a"]`},
		{`[1, "a"]`, expr.KindScalar, `[1,"a"]`},
		{`{"b": 1.5, "a": timestamp("2026-01-01T00:00:00Z"), "c": "<"}`, expr.KindJSON, `{"a":"2026-01-01T00:00:00Z","b":1.5,"c":"<"}`},
		{`raw`, expr.KindBytes, []byte("{}")},
		{`"é"`, expr.KindBytes, []byte("é")},
		{`raw`, expr.KindJSON, "{}"},
		{`duration("90m")`, expr.KindScalar, "5400s"},
	} {
		got, err := compile(t, c.src).EvalParam(input("", "{}"), c.kind)
		require.NoError(t, err, c.src)
		require.Empty(t, cmp.Diff(c.want, got), c.src)
	}
	for src, kind := range map[string]expr.Kind{`1`: expr.KindArray, `string`: expr.KindScalar, `b"\xff"`: expr.KindScalar, `1.0/0.0`: expr.KindScalar} {
		_, err := compile(t, src).EvalParam(input("", "{}"), kind)
		require.Error(t, err, src)
	}
}

// The key's byte order must be the values' order, element by element.
func TestVersionOrder(t *testing.T) {
	ascending := []string{
		`-9223372036854775807 - 1`, `-1`, `0`, `1`, `[1, 0]`, `[1, "a"]`, `2`, `9223372036854775807`,
		`timestamp("1969-12-31T23:59:59Z")`, `time`, `time + duration("1ns")`,
		`""`, `"a"`, `["a", 1]`, `"a\u0000"`, `"a\u0000b"`, `"aa"`, `["aa", 1]`, `"b"`,
	}
	var prev expr.Version
	for i, src := range ascending {
		v, err := compile(t, src).Eval(input("", ""))
		require.NoError(t, err)
		ver, err := expr.NewVersion(v)
		if strings.Contains(src, `\u0000`) {
			require.Error(t, err)
			continue
		}
		require.NoError(t, err)
		if i > 0 {
			require.Negative(t, prev.Compare(ver), "%s < %s", ascending[i-1], src)
		}
		prev = ver
	}
	for _, src := range []string{`null`, `body.?x`, `1.5`, `[]`, `[null]`, `true`, `{"a": 1}`} {
		_, err := compile(t, src).EvalVersion(input("", "{}"))
		var ee *expr.EvalError
		require.True(t, errors.As(err, &ee), src)
	}
	v, err := expr.NewVersion(types.Int(7))
	require.NoError(t, err)
	require.Equal(t, "7", v.Text)
}

func TestVersionShape(t *testing.T) {
	shapes := map[string]string{
		`1`: "an int", `[1]`: "an int", `"a"`: "a string", `""`: "a string", `time`: "a timestamp",
		`[1, "a"]`: "a list (int, string)", `["a", "b"]`: "a list (string, string)", `[time, 1, ""]`: "a list (timestamp, int, string)",
	}
	for src, shape := range shapes {
		v, err := compile(t, src).EvalVersion(input("", ""))
		require.NoError(t, err)
		require.Equal(t, shape, expr.Shape(v.Key), src)
		for other, otherShape := range shapes {
			w, err := compile(t, other).EvalVersion(input("", ""))
			require.NoError(t, err)
			require.Equal(t, shape == otherShape, expr.SameShape(v.Key, w.Key), "%s and %s", src, other)
		}
	}
	require.Equal(t, "a value of an unknown type", expr.Shape([]byte{1, 2}))
}

func FuzzBody(f *testing.F) {
	for _, s := range []string{`{"a":[1,2.5,"x\u0000",{"b":null}]}`, `[[[[`, "\xff", `{"a":1e131071}`, `"\ud800"`} {
		f.Add([]byte(s), "application/json")
	}
	f.Add([]byte("a=1&payload={}"), "application/x-www-form-urlencoded")
	f.Add([]byte("--b--"), "multipart/form-data; boundary=b")
	env, err := expr.NewEnv()
	require.NoError(f, err)
	p, err := env.Compile("body")
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, raw []byte, contentType string) {
		in := &expr.Input{Raw: raw, ContentType: contentType}
		v, err := p.Eval(in)
		require.NoError(t, err)
		_, _, err = expr.Text(v)
		_ = err // a refusal is fine, a panic is not
	})
}

func BenchmarkEval(b *testing.B) {
	env, err := expr.NewEnv()
	require.NoError(b, err)
	p, err := env.Compile("body.data.object.amount")
	require.NoError(b, err)
	raw := []byte(`{"data":{"object":{"amount":5,"pad":"` + strings.Repeat("x", 1500) + `"}}}`)
	b.ReportAllocs()
	for b.Loop() {
		in := &expr.Input{Raw: raw}
		if _, err := p.EvalText(in); err != nil {
			b.Fatal(err)
		}
	}
}

func TestEach(t *testing.T) {
	env, err := expr.NewEnv()
	require.NoError(t, err)
	_, err = env.Compile("item.x")
	require.ErrorContains(t, err, "undeclared reference to 'item'")
	for src, want := range map[string]string{`"a"`: "expected a list, found string", `1`: "expected a list, found int", `{"a": [1]}`: "expected a list, found map"} {
		_, err = env.CompileList(src)
		require.ErrorContains(t, err, want)
	}
	each, err := env.Each()
	require.NoError(t, err)
	value, err := each.Compile(`item.x + "/" + string(index) + "/" + body.s`)
	require.NoError(t, err)
	require.True(t, value.Uses("item"))
	require.False(t, value.Uses("headers", "raw"))
	in := input("", `{"s":"z","list":[{"x":"a"},{"x":"b"}],"nil":null,"map":{}}`)
	for src, want := range map[string]string{
		`body.list`: "a/0/z b/1/z", `body.list.filter(l, l.x == "b")`: "b/0/z", `[]`: "", `body.?nope`: "", `body.nil`: "", `body.?list`: "a/0/z b/1/z",
	} {
		p, err := env.CompileList(src)
		require.NoError(t, err, src)
		items, err := p.EvalList(in, 2)
		require.NoError(t, err, src)
		var got []string
		for i, item := range items {
			in.Item, in.Index = item, i
			s, err := value.EvalText(in)
			require.NoError(t, err)
			got = append(got, s)
		}
		require.Equal(t, want, strings.Join(got, " "), src)
	}
	for src, want := range map[string]string{`body.map`: "expected a list, found map", `body.s`: "expected a list, found string", `[1,2,3]`: "the list has 3 elements: expected at most 2", `body.nope`: "no such key"} {
		p, err := each.Compile(src)
		require.NoError(t, err)
		_, err = p.EvalList(in, 2)
		require.ErrorContains(t, err, want, src)
	}
}

func TestEncode(t *testing.T) {
	for src, want := range map[string]string{`"a\"b"`: `a"b`, `b"\xff"`: "\xff", `1`: `1`, `{"b": [1, null], "a": "x"}`: `{"a":"x","b":[1,null]}`, `time`: `"2026-11-23T10:00:00.123456789Z"`, `true`: `true`} {
		v, err := compile(t, src).Eval(input("", ""))
		require.NoError(t, err)
		b, isJSON, err := expr.Encode(v)
		require.NoError(t, err)
		require.Equal(t, want, string(b))
		require.Equal(t, src[0] != '"' && src[0] != 'b', isJSON, src)
	}
	v, err := compile(t, "body.?x").Eval(input("", "{}"))
	require.NoError(t, err)
	b, _, err := expr.Encode(v)
	require.NoError(t, err)
	require.Nil(t, b)
}
