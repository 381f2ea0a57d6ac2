package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestFailuresTable wants every test that docs/failures.md names to be there, and every test that bears a row's
// number to be named.
func TestFailuresTable(t *testing.T) {
	dir := root(t)
	table, err := os.ReadFile(filepath.Join(dir, "docs", "failures.md"))
	require.NoError(t, err)
	named, there := map[string]bool{}, map[string]bool{}
	for _, m := range regexp.MustCompile("`(Test[A-Za-z0-9]+)`").FindAllStringSubmatch(string(table), -1) {
		named[m[1]] = true
	}
	declared := regexp.MustCompile(`(?m)^func (Test[A-Za-z0-9]+)\(`)
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range declared.FindAllStringSubmatch(string(text), -1) {
			there[m[1]] = true
		}
		return nil
	}))
	for name := range named {
		require.True(t, there[name], "docs/failures.md names %s, which is not there", name)
	}
	for name := range there {
		if regexp.MustCompile(`^TestR\d\d`).MatchString(name) {
			require.True(t, named[name], "docs/failures.md does not name %s", name)
		}
	}
}
