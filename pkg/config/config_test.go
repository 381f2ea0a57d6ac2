package config

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

type inner struct {
	Listen string        `yaml:"listen" default:":80" doc:"address"`
	Wait   time.Duration `yaml:"wait" default:"5s"`
	Mode   string        `yaml:"mode" default:"a" enum:"a,b"`
	Max    Size          `yaml:"max" default:"1MiB" min:"1kB"`
	Count  int           `yaml:"count" min:"1"`
	On     bool          `yaml:"on"`
	Names  []string      `yaml:"names" enum:"x,y,z"`
}

type cred struct {
	ID    string `yaml:"id"`
	Value Secret `yaml:"value" required:"true"`
}

func (cred) ScalarKey() string { return "value" }

type item struct {
	Creds []cred            `yaml:"creds"`
	SQL   Strings           `yaml:"sql"`
	Expr  map[string]string `yaml:"expr" scalar:"any"`
	Any   map[string]any    `yaml:"any"`
	Inner *inner            `yaml:"inner"`
}

type file struct {
	Alpha inner           `yaml:"alpha"`
	Beta  cred            `yaml:"beta"`
	Items map[string]item `yaml:"items"`
	List  []inner         `yaml:"list"`
}

func parse(t *testing.T, text string, need ...string) (*file, *Index, error) {
	t.Helper()
	f := &file{}
	ix, err := Parse("c.yaml", []byte(text), f, Options{
		EnvPrefix: "APP",
		Lookup: func(k string) (string, bool) {
			v, ok := map[string]string{"SECRET": "s3cret", "PORT": "81", "DUR": "7s"}[k]
			return v, ok
		},
		Environ: func() []string { return nil },
		Resolve: func(s string) bool { return len(need) == 0 || need[0] == s },
	})
	return f, ix, err
}

func TestParseFillsEverything(t *testing.T) {
	f, ix, err := parse(t, `
alpha: {listen: ":${PORT}", wait: "${DUR}", mode: b, max: 25MB, count: 3, on: true, names: [x, z]}
beta: {value: "${SECRET}", id: costs-$$5}
items:
  one: &one
    creds: ["${SECRET}", {id: k2, value: b}]
    sql: SELECT 1
    expr: {n: 1, yes: true, s: body.id}
    any: {tolerance: off, n: 3, list: [a, 1]}
  two: {<<: *one, sql: [a, b], inner: {count: 7}}
  three:
list: [{count: 1}]
`)
	require.NoError(t, err)
	require.Equal(t, inner{Listen: ":81", Wait: 7 * time.Second, Mode: "b", Max: 25e6, Count: 3, On: true, Names: []string{"x", "z"}}, f.Alpha)
	require.Equal(t, "s3cret", f.Beta.Value.Reveal())
	require.Equal(t, "costs-$5", f.Beta.ID)
	require.Equal(t, []cred{{Value: NewSecret("s3cret")}, {ID: "k2", Value: NewSecret("b")}}, f.Items["one"].Creds)
	require.Equal(t, Strings{"SELECT 1"}, f.Items["one"].SQL)
	require.Equal(t, map[string]string{"n": "1", "yes": "true", "s": "body.id"}, f.Items["one"].Expr)
	require.Equal(t, map[string]any{"tolerance": "off", "n": 3, "list": []any{"a", 1}}, f.Items["one"].Any)
	require.Equal(t, Strings{"a", "b"}, f.Items["two"].SQL)
	require.Equal(t, &inner{Listen: ":80", Wait: 5 * time.Second, Mode: "a", Max: 1 << 20, Count: 7}, f.Items["two"].Inner)
	require.Contains(t, f.Items, "three")
	require.Equal(t, ":80", f.List[0].Listen)
	require.Equal(t, Pos{"c.yaml", 7, 10}, ix.Pos("items.one.sql"))
	require.Equal(t, Pos{"c.yaml", 7, 10}, ix.Pos("items.one.sql[3].x"))
}

func TestEveryErrorAtOnceWithItsPlace(t *testing.T) {
	_, _, err := parse(t, `alpha:
  lisen: x
  wait: 5
  mode: c
  max: lots
  count: many
  on: yes
  names: [x, w]
  listen: 80
beta: {value: ""}
items:
  one:
    creds: ["${NOPE}", "${SECRET", ""]
    sql: {a: b}
    any: 3
    any: 4
list: {a: 1}
gamma: 1
`)
	require.Equal(t, `c.yaml:2:3: alpha.lisen: unknown key: did you mean "listen"? (expected one of listen, wait, mode, max, count, on, names)
c.yaml:3:9: alpha.wait: expected a duration such as 5s, 10m or 7d, found "5"
c.yaml:4:9: alpha.mode: expected one of a, b, found "c"
c.yaml:5:8: alpha.max: expected a size such as 64MiB or 25MB, at least 1kB, found "lots"
c.yaml:6:10: alpha.count: expected a whole number, at least 1, found "many"
c.yaml:7:7: alpha.on: expected true or false, found "yes"
c.yaml:8:14: alpha.names[1]: expected one of x, y, z, found "w"
c.yaml:9:11: alpha.listen: expected a text, found the number 80: put it in quotes
c.yaml:10:15: beta.value: expected a secret, found an empty text
c.yaml:13:13: items.one.creds[0].value: expected the environment variable NOPE to be set; it is not
c.yaml:13:24: items.one.creds[1].value: expected ${NAME}, found a ${ without its }; write $$ for a dollar sign
c.yaml:13:36: items.one.creds[2].value: expected a secret, found an empty text
c.yaml:14:10: items.one.sql: expected a list, found a mapping
c.yaml:15:10: items.one.any: expected a mapping (key: value), found the number 3
c.yaml:16:5: items.one.any: this key is there twice, first in line 15
c.yaml:17:7: list: expected a list, found a mapping
c.yaml:18:1: gamma: unknown key: expected one of alpha, beta, items, list`, err.Error())
}

func TestOnlyNeededSectionsAreResolved(t *testing.T) {
	f, _, err := parse(t, "alpha: {listen: a}\nbeta: {value: \"${NOPE}\"}\nlist: [{wait: \"${NOPE}\"}]\n", "alpha")
	require.NoError(t, err)
	require.Equal(t, "${NOPE}", f.Beta.Value.Reveal())
	_, _, err = parse(t, "alpha: {}\n", "alpha")
	require.NoError(t, err, "beta.value is required, but beta is not needed")
	_, _, err = parse(t, "alpha: {}\n", "beta")
	require.EqualError(t, err, "c.yaml:1:1: beta.value: this key is missing: expected a secret (a text, ${VARIABLE} or file:PATH)")
}

func TestTooSmall(t *testing.T) {
	_, _, err := parse(t, "alpha: {count: 0, max: 10B}\n", "alpha")
	require.EqualError(t, err, "c.yaml:1:16: alpha.count: expected a whole number, at least 1, found \"0\"\nc.yaml:1:24: alpha.max: expected a size such as 64MiB or 25MB, at least 1kB, found \"10B\"")
}

func TestSyntaxErrorHasItsPlace(t *testing.T) {
	_, _, err := parse(t, "alpha:\n\tlisten: x\n")
	require.EqualError(t, err, "c.yaml:2:1: not YAML: expected spaces at the line's begin, found a tab")
	_, _, err = parse(t, "alpha: [\n")
	require.ErrorContains(t, err, "c.yaml:2:1: not YAML: did not find expected")
	_, _, err = parse(t, "alpha: {}\n---\nbeta: {}\n")
	require.ErrorContains(t, err, "expected one YAML document, found another after ---")
	_, _, err = parse(t, "alpha: {}\nbeta: ä\x01\n")
	require.ErrorContains(t, err, "c.yaml:2:8: not YAML: control characters are not allowed")
	_, _, err = parse(t, "alpha: {}\nbeta: \xff\n")
	require.ErrorContains(t, err, "c.yaml:2:7: not YAML: ")
	_, _, err = parse(t, "\x00")
	require.ErrorContains(t, err, "c.yaml:1:1: not YAML: ")
}

func TestSecretFilesAndEnvironment(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "key"), []byte("from file\n"), 0o600))
	f := &file{}
	_, err := Parse(filepath.Join(dir, "c.yaml"), []byte("beta: {value: file:key}\nitems: {my-src: {creds: [a]}}\n"), f, Options{
		EnvPrefix: "APP",
		Environ: func() []string {
			return []string{"APP_ALPHA__LISTEN=:$90", "APP_ALPHA__COUNT=4", "APP_ALPHA__NAMES=x, y", "APP_ITEMS__MY_SRC__INNER__ON=true", "APP_TEST=1", "OTHER__X=1"}
		},
	})
	require.NoError(t, err)
	require.Equal(t, "from file", f.Beta.Value.Reveal())
	require.Equal(t, ":$90", f.Alpha.Listen)
	require.Equal(t, 4, f.Alpha.Count)
	require.Equal(t, []string{"x", "y"}, f.Alpha.Names)
	require.True(t, f.Items["my-src"].Inner.On)

	_, err = Parse("c.yaml", []byte("beta: {value: file:nowhere}\n"), &file{}, Options{
		EnvPrefix: "APP",
		Environ:   func() []string { return []string{"APP_ALPHA__COUNT=four", "APP_ALPHA__COUNTS=4"} },
	})
	require.ErrorContains(t, err, "APP_ALPHA__COUNT: alpha.count: expected a whole number, at least 1, found \"four\"")
	require.ErrorContains(t, err, "APP_ALPHA__COUNTS: this environment variable names no key")
	require.ErrorContains(t, err, "c.yaml:1:15: beta.value: expected a readable file with the secret")
}

func TestSecretNeverPrints(t *testing.T) {
	s := NewSecret("canary")
	js, err := json.Marshal(map[string]any{"s": s, "p": &s})
	require.NoError(t, err)
	for _, text := range []string{
		fmt.Sprint(s), fmt.Sprintf("%v %+v %#v %q %x %d %s", s, s, s, s, s, s, s), fmt.Sprintf("%+v %#v", cred{Value: s}, &cred{Value: s}), string(js),
	} {
		require.NotContains(t, text, "canary")
		require.NotContains(t, text, "63616e617279")
	}
	require.Equal(t, "canary", s.Reveal())
}

func FuzzParse(f *testing.F) {
	f.Add("alpha: {listen: \":${PORT}\"}\nitems: {a: &x {sql: b}, c: *x, d: {<<: *x}}")
	f.Add("a: &a [*a]")
	f.Add("items: {a: {any: &x {k: *x}}}")
	f.Add("items: &y {<<: *y}")
	f.Add("items: &i {a: {<<: *i}}")
	f.Fuzz(func(t *testing.T, text string) {
		dst := &file{}
		_, _ = Parse("c.yaml", []byte(text), dst, Options{Lookup: func(string) (string, bool) { return "v", true }, Environ: func() []string { return nil }})
	})
}

// TestRereadSecret: the file's text as it is now, and never an empty one.
func TestRereadSecret(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "password")
	require.NoError(t, os.WriteFile(file, []byte("first\n"), 0o600))
	var dst struct {
		Kafka struct {
			Own  Secret `yaml:"own"`
			File Secret `yaml:"file"`
		} `yaml:"kafka"`
	}
	_, err := Parse(filepath.Join(dir, "a.yaml"), []byte("kafka: {own: text, file: \"file:password\"}"), &dst, Options{})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, []byte("second\r\n"), 0o600))
	for want, secret := range map[string]Secret{"text": dst.Kafka.Own, "second": dst.Kafka.File} {
		got, err := secret.Reread()
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	require.Equal(t, "first", dst.Kafka.File.Reveal())
	require.NoError(t, os.WriteFile(file, []byte("\n"), 0o600))
	_, err = dst.Kafka.File.Reread()
	require.ErrorContains(t, err, "found an empty file")
	require.NoError(t, os.Remove(file))
	_, err = dst.Kafka.File.Reread()
	require.ErrorIs(t, err, os.ErrNotExist)
}
