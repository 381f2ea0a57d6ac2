package provider

import (
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFields(t *testing.T) {
	f := newFields("id", "event.type", "event", "at")
	for name, c := range map[string]struct {
		body string
		want [4]string
		err  error
	}{
		"strings and numbers":     {body: `{"id":"a","at":12,"event":{"type":"t","x":[{"id":1,"ID":2}]}}`, want: [4]string{"a", "t", "", "12"}},
		"order":                   {body: `{"at":-1.5e3,"event":{"x":{},"type":"t"},"id":"a"}`, want: [4]string{"a", "t", "", "-1.5e3"}},
		"escapes":                 {body: `{"i\u0064":"\u00e9\"\\\ud83d\ude00"}`, want: [4]string{"é\"\\😀", "", "", ""}},
		"other kinds":             {body: `{"id":null,"at":true,"event":[1]}`},
		"not there":               {body: `{}`},
		"path that is no object":  {body: `{"event":"x"}`, want: [4]string{"", "", "x", ""}},
		"white space":             {body: " {\r\n\t\"id\" : \"a\" } \n", want: [4]string{"a", "", "", ""}},
		"another spelling alone":  {body: `{"ID":"a"}`},
		"array":                   {body: `[{"id":"a"}]`},
		"scalar":                  {body: `"id"`},
		"duplicates elsewhere":    {body: `{"x":1,"x":2,"X":{"id":1,"id":2},"id":"a"}`, want: [4]string{"a", "", "", ""}},
		"duplicate":               {body: `{"id":"a","x":1,"id":"a"}`, err: errDuplicateMember},
		"case variant":            {body: `{"Id":"a","id":"b"}`, err: errDuplicateMember},
		"two variants, none ours": {body: `{"Id":"a","ID":"b"}`, err: errDuplicateMember},
		"Kelvin sign and long s":  {body: `{"id":"a","event":{"type":"t"},"\u0049D":"b"}`, err: errDuplicateMember},
		"duplicate on the way":    {body: `{"event":{"type":"t"},"event":{"type":"u"}}`, err: errDuplicateMember},
		"variant on the way":      {body: `{"EVENT":{},"event":{"type":"u"}}`, err: errDuplicateMember},
		"duplicate inside":        {body: `{"event":{"type":"t","Type":"u"}}`, err: errDuplicateMember},
		"empty":                   {body: ``},
		"truncated":               {body: `{"id":"a"`},
		"text behind":             {body: `{"id":"a"} x`},
		"two values":              {body: `{"id":"a"}{"id":"b"}`},
		"comma behind":            {body: `{"id":"a",}`},
		"single quotes":           {body: `{'id':'a'}`},
		"byte order mark":         {body: "\ufeff" + `{"id":"a"}`},
		"form":                    {body: `id=a`},
		"unpaired surrogate":      {body: `{"id":"\ud800"}`, want: [4]string{"\x00", "", "", ""}},
		"deep":                    {body: `{"id":"a","x":` + strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + `}`, want: [4]string{"a", "", "", ""}},
		"too deep":                {body: `{"id":"a","x":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`},
		"deep and unclosed":       {body: strings.Repeat(`{"event":`, 1_000_000)},
	} {
		t.Run(name, func(t *testing.T) {
			var out [4]value
			out[0] = value(`"left over"`)
			require.Equal(t, c.err, f.read([]byte(c.body), out[:]))
			if c.err == nil {
				require.Equal(t, c.want, [4]string{out[0].text(), out[1].text(), out[2].text(), out[3].text()})
			}
		})
	}
}

func TestFieldsKeepNothing(t *testing.T) {
	f := newFields("id")
	body := []byte(`{"id":"a"}`)
	var out [1]value
	require.NoError(t, f.read(body, out[:]))
	require.Same(t, &body[6], &out[0][0], "values are not copies")
	require.Equal(t, `{"id":"a"}`, string(body))
	// The race detector makes pools forget at random, so the best of several measurements counts.
	allocs := math.Inf(1)
	for range 10 {
		allocs = min(allocs, testing.AllocsPerRun(100, func() { _ = f.read(body, out[:]) }))
	}
	require.Zero(t, allocs)
}

func TestBodyPaths(t *testing.T) {
	require.Equal(t, [][]string{{"id"}}, bodyPaths("body.id", ""))
	require.Equal(t, [][]string{{"a", "b-c", "d"}, {"e"}, {"id"}, {"k"}}, bodyPaths(`body.?a["b-c"].?d.orValue("") + body['e'][0].f`, `string(body.id) + body.k.trim()`))
	require.Empty(t, bodyPaths("raw", "antibody.id"))
	for src, want := range map[string][]string{
		"body.id": {"id"}, " body.?a['b.c'].d\n": {"a", "b.c", "d"}, "body": nil, "id": nil, "xbody.id": nil,
		"body.id.trim()": nil, "body.ids[0]": nil, "string(body.id)": nil, `body.id + "x"`: nil, "body.?id.orValue('')": nil,
	} {
		require.Equal(t, want, plainPath(src), src)
	}
	require.Equal(t, []string{"X-Event-Id", "Etag"}, headerNames(`headers["x-event-id"][0]`, "headers.etag[0]"))
}

func TestAnyStamp(t *testing.T) {
	for text, want := range map[string]string{
		"1795435200":                "2026-11-23T12:00:00Z",
		"1795435200123":             "2026-11-23T12:00:00.123Z",
		"2026-11-23T13:00:00+01:00": "2026-11-23T12:00:00Z",
		"2026-11-23T12:00:00.5Z":    "2026-11-23T12:00:00.5Z",
	} {
		at, ok := anyStamp(text)
		require.True(t, ok, text)
		require.Equal(t, want, at.Format("2006-01-02T15:04:05.999999999Z07:00"))
	}
	for _, text := range []string{"", "0", "2026", "-1", "+1", " 1", "1.5", "1e9", "0x10", "١", "999999999999999999", "9999999999999999999999", "2026-11-23", "2026-11-23 12:00:00Z"} {
		_, ok := anyStamp(text)
		require.False(t, ok, text)
	}
}

func TestCleanID(t *testing.T) {
	for id, ok := range map[string]bool{
		"": true, "evt_1": true, "ä ö.ü/😀": true, strings.Repeat("x", 512): true,
		"a\nb": false, "a\x00": false, "\x7f": false, "a\u0085": false, "\xff": false, "a\xc3": false,
	} {
		got, err := cleanID(id)
		if ok {
			require.NoError(t, err, id)
			require.Equal(t, id, got)
		} else {
			require.Equal(t, errIDForm, err, id)
		}
	}
	for _, blank := range []string{" ", "  ", "\t\n", "\u00a0\u2003\u0085", strings.Repeat(" ", 600)} {
		got, err := cleanID(blank)
		require.NoError(t, err)
		require.Empty(t, got, "%q", blank)
	}
	a, err := cleanID(strings.Repeat("x", 513))
	require.NoError(t, err)
	b, err := cleanID(strings.Repeat("x", 512) + "y")
	require.NoError(t, err)
	require.NotEqual(t, a, b)
	require.Regexp(t, "^id-sha256:[0-9a-f]{64}$", a)
}
