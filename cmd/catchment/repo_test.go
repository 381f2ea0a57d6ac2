package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/catchment-dev/catchment"

// wall is something that a package may not link, and why.
type wall struct {
	who     string // pattern of the importing packages, below the module's path
	except  string // pattern of packages that the wall leaves out
	not     string // pattern of the import path that must not be found
	direct  bool   // only the package's own imports count
	because string
}

var walls = []wall{
	{who: `^pkg/`, not: `^` + module + `/(ingress|processor|archiver|cmd)(/|$)`, because: "arrows point one way"},
	{who: `^ingress`, not: `^` + module + `/(processor|archiver|cmd)(/|$)`, because: "services meet in Kafka only"},
	{who: `^processor`, not: `^` + module + `/(ingress|archiver|cmd)(/|$)`, because: "services meet in Kafka only"},
	{who: `^archiver`, not: `^` + module + `/(ingress|processor|cmd)(/|$)`, because: "services meet in Kafka only"},
	{who: `^ingress`, not: `jackc/pgx|parquet-go|aws-sdk-go-v2/service/s3|pressly/goose`, because: "the ingress must run where Postgres and the object store are down"},
	{who: `^processor`, not: `parquet-go|aws-sdk-go-v2/service/s3`, because: "the archive is the archiver's"},
	{who: `^archiver`, not: `jackc/pgx|pressly/goose`, because: "the archiver must run where Postgres is down"},
	{who: `^(processor|archiver)`, except: testHelpers, not: `gin-gonic/gin$`, because: "webhooks are the ingress's"},
	{who: `^(ingress|processor|archiver)`, except: testHelpers, not: `franz-go/pkg/kfake|stretchr/testify|uber.org/goleak|testcontainers|embedded-postgres`, because: "a fake or a test's tool may not slip into a service"},
	{who: `^pkg/`, except: testHelpers, not: `franz-go/pkg/kfake|testcontainers|embedded-postgres`, because: "a fake or a test's tool may not slip into a service"},
	{who: `^(ingress|processor|archiver)/cmd`, not: `google.golang.org/grpc|golang.org/x/net/trace`, because: "nothing here speaks gRPC, and it would make each program a quarter larger"},
	{who: `^` + independent + `$`, not: `^` + module + `/(pkg/event|pkg/kafka|ingress|processor|archiver)(/|$)`, because: "it would share the faults of what it checks"},
	{who: ``, except: testHelpers, not: `^testing$|stretchr/testify|uber.org/goleak|` + module + `/(` + testHelpersPaths + `)`, direct: true, because: "non-test code must not carry the test machinery"},
}

const (
	testHelpersPaths = `pkg/certtest|pkg/kafka/kafkatest|pkg/pgtest|pkg/s3test|pkg/redistest|pkg/proctest|pkg/internal/parts`
	testHelpers      = `^pkg/internal/parts|(^|/)[a-z0-9]+test$`
)

type goPackage struct {
	ImportPath string
	Dir        string
	Name       string
	Imports    []string
	Deps       []string
	GoFiles    []string
}

// path is the package's path below the module's.
func (p *goPackage) path() string {
	return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
}

var packages = sync.OnceValues(func() ([]*goPackage, error) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Dir,Name,Imports,Deps,GoFiles", "work").Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("go list: %s", exit.Stderr)
		}
		return nil, err
	}
	var all []*goPackage
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		p := new(goPackage)
		switch err := decoder.Decode(p); {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return nil, err
		}
		all = append(all, p)
	}
})

func listed(t *testing.T) []*goPackage {
	t.Helper()
	all, err := packages()
	require.NoError(t, err)
	require.Greater(t, len(all), 10)
	return all
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("..", ".."))
	require.NoError(t, err)
	require.FileExists(t, filepath.Join(dir, "go.work"))
	return dir
}

func TestWalls(t *testing.T) {
	for _, w := range walls {
		who, not := regexp.MustCompile(w.who), regexp.MustCompile(w.not)
		hit := 0
		for _, p := range listed(t) {
			if !who.MatchString(p.path()) || w.except != "" && regexp.MustCompile(w.except).MatchString(p.path()) {
				continue
			}
			hit++
			found := p.Deps
			if w.direct {
				found = p.Imports
			}
			for _, d := range found {
				if not.MatchString(d) {
					t.Errorf("%s links %s, but %s; go mod why, or:\n\tgo list -deps -f '{{.ImportPath}} {{.Imports}}' %s | grep %s", p.ImportPath, d, w.because, p.ImportPath, d)
				}
			}
		}
		require.NotZero(t, hit, "the wall around %q guards nothing", w.who)
	}
}

// TestRoomSigns wants a comment of every package that says what comes in, what goes out, and what it must never do.
func TestRoomSigns(t *testing.T) {
	for _, p := range listed(t) {
		var text string
		for _, f := range p.GoFiles {
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, f), nil, parser.ParseComments|parser.PackageClauseOnly)
			require.NoError(t, err)
			if file.Doc != nil {
				text += file.Doc.Text()
			}
		}
		want := "Package " + p.Name + " "
		if p.Name == "main" {
			want = "Command "
		}
		if !strings.HasPrefix(text, want) {
			t.Errorf("%s: the package comment begins with %q, got %q", p.ImportPath, want, new(doc.Package).Synopsis(text))
		}
		sentences := 3
		if p.Name == "main" {
			sentences = 1 // what it does, the packages that it starts say
		}
		if n := len(regexp.MustCompile(`[.!?](\s|$)`).FindAllString(text, -1)); n < sentences {
			t.Errorf("%s: the package comment has %d sentences: say what comes in, what goes out, and what it must never do", p.ImportPath, n)
		}
		for _, part := range strings.Split(p.path(), "/") {
			if slices.Contains([]string{"util", "utils", "common", "models", "types", "helpers", "misc", "base"}, part) {
				t.Errorf("%s: a folder is named after what is in it, not %q", p.ImportPath, part)
			}
		}
	}
}

var (
	sqlText    = regexp.MustCompile(`(?is)^\s*(SELECT|INSERT|UPDATE|DELETE)\s.*\s(FROM|INTO|SET)\s|^\s*(INSERT\s+INTO|DELETE\s+FROM|SELECT\s+\S+\()`)
	headerName = regexp.MustCompile(`^(ce_[a-z]+|http_[a-z0-9_-]*|catchment_(version|delivery_id|provider|received_at|secret_id|remote_addr|method|path|query|signed_url|verdict|event_id|operation|attempt|outcome))$`)
)

// independent reads what the services wrote without a line of theirs, or it could not show that they are right.
const independent = "cmd/catchment/internal/prove/collect"

// TestRooms wants SQL and the names of record headers in one room each.
func TestRooms(t *testing.T) {
	for _, p := range listed(t) {
		if regexp.MustCompile(testHelpers).MatchString(p.path()) || p.path() == independent {
			continue
		}
		for _, f := range p.GoFiles {
			files := token.NewFileSet()
			file, err := parser.ParseFile(files, filepath.Join(p.Dir, f), nil, 0)
			require.NoError(t, err)
			ast.Inspect(file, func(n ast.Node) bool {
				if field, ok := n.(*ast.Field); ok && field.Tag != nil {
					return false // a struct's tag names a column, not a header
				}
				lit, ok := n.(*ast.BasicLit)
				if !ok || lit.Kind != token.STRING {
					return true
				}
				text, err := strconv.Unquote(lit.Value)
				require.NoError(t, err)
				if p.path() != "processor/internal/store" && !strings.HasPrefix(p.path(), "examples/") && sqlText.MatchString(text) {
					t.Errorf("%s: SQL has one room, processor/internal/store", files.Position(lit.Pos()))
				}
				if p.path() != "pkg/event" && headerName.MatchString(text) {
					t.Errorf("%s: the names of record headers have one room, pkg/event", files.Position(lit.Pos()))
				}
				return true
			})
		}
	}
}

// TestGoLines wants one Go version in all modules.
func TestGoLines(t *testing.T) {
	dir := root(t)
	line := regexp.MustCompile(`(?m)^go (\S+)$`)
	version := func(name string) string {
		text, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		found := line.FindSubmatch(text)
		require.NotNil(t, found, "%s has no go line", name)
		return string(found[1])
	}
	want := version("go.work")
	for _, m := range []string{"pkg", "ingress", "processor", "archiver", "cmd/catchment", "examples"} {
		require.Equal(t, want, version(m+"/go.mod"), m)
	}
}

var (
	markdownLink = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	codeSpan     = regexp.MustCompile("`([^`\n]+)`")
	repoPath     = regexp.MustCompile(`^(pkg|ingress|processor|archiver|cmd|schemas|charts|docs|scripts|\.ci|\.github)/[\w./<>*-]+$`)
	fence        = regexp.MustCompile("(?s)```.*?```")
	makeTarget   = regexp.MustCompile(`^make ([a-z-]+)$`)
)

// TestDocsPaths wants every link, path and make target that the documents name to be there.
func TestDocsPaths(t *testing.T) {
	dir := root(t)
	makefile, err := os.ReadFile(filepath.Join(dir, "Makefile"))
	require.NoError(t, err)
	documents := 0
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "catchment-data" || d.Name() == "bin" || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if filepath.Ext(path) != ".md" {
			return nil
		}
		documents++
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		text := fence.ReplaceAllString(string(content), "")
		name, _ := filepath.Rel(dir, path)
		for _, m := range markdownLink.FindAllStringSubmatch(text, -1) {
			target, _, _ := strings.Cut(m[1], "#")
			if target == "" || strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), target)); err != nil {
				t.Errorf("%s: link to %s: %v", name, m[1], err)
			}
		}
		for _, m := range codeSpan.FindAllStringSubmatch(text, -1) {
			if target := makeTarget.FindStringSubmatch(m[1]); target != nil && !strings.Contains(string(makefile), "\n"+target[1]+":") {
				t.Errorf("%s: there is no `%s`", name, m[1])
			}
			if !repoPath.MatchString(m[1]) || strings.ContainsAny(m[1], "<>") {
				continue
			}
			if found, err := filepath.Glob(filepath.Join(dir, m[1])); err != nil || len(found) == 0 {
				t.Errorf("%s: there is no %s", name, m[1])
			}
		}
		return nil
	}))
	require.NotZero(t, documents)
}
