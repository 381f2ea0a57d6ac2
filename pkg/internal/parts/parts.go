// Package parts is what the packages kafkatest, pgtest and s3test share: how a real part is found, started and ended.
// A part's name comes in; where it listens goes out, and a line in the test's output says which part it was.
// It must never be imported by a program, and must never leave a server behind, however the test ends.
package parts

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
)

// Environment variables that say which parts the tests get.
const (
	EnvReal       = "CATCHMENT_TEST_REAL"       // 1: a missing real part is a failure
	EnvContainers = "CATCHMENT_TEST_CONTAINERS" // 1: parts are started as containers
	EnvReport     = "CATCHMENT_TEST_PARTS_FILE" // file to which Report adds its lines
)

// Required says whether a missing real part is a failure.
func Required() bool { return os.Getenv(EnvReal) == "1" }

// Containers says whether parts are to be started as containers.
func Containers() bool { return os.Getenv(EnvContainers) == "1" }

var (
	reportMu sync.Mutex
	reported = map[string]bool{}
)

// Report tells, once in a process, that the tests run on this part: "parts: kafka=kfake". The go command shows
// what a passing package prints only with -v; so the line goes also to the file that EnvReport names.
func Report(part, what string) {
	reportMu.Lock()
	defer reportMu.Unlock()
	line := "parts: " + part + "=" + what
	if reported[line] {
		return
	}
	reported[line] = true
	fmt.Println(line)
	name := os.Getenv(EnvReport)
	if name == "" {
		return
	}
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		fmt.Fprintf(os.Stderr, "parts: %v\n", err)
		return
	}
	_, _ = f.WriteString(line + "\n") // one write, so that lines of several processes do not mix
	_ = f.Close()
}

// Guard runs the shell script when this process has ended, in whatever way: a shell waits for the end of a pipe
// whose other end only this process holds. The arguments are the script's parameters, from 1 on.
func Guard(script string, args ...string) error {
	cmd := exec.Command("/bin/sh", append([]string{"-c", "cat >/dev/null; " + script, "catchment-test-guard"}, args...)...)
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	ownGroup(cmd) // a Ctrl-C in the terminal must not end it before its work
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	keep(pipe)
	return nil
}

var (
	keptMu sync.Mutex
	kept   []any
)

// keep holds v for the life of the process, so that the garbage collector does not close its file.
func keep(v any) {
	keptMu.Lock()
	defer keptMu.Unlock()
	kept = append(kept, v)
}

// Root returns the folder of the repository.
func Root() (string, error) {
	_, file, _, ok := runtime.Caller(0)
	if !ok {
		return "", fmt.Errorf("no caller")
	}
	root := filepath.Join(filepath.Dir(file), "..", "..", "..")
	if _, err := os.Stat(filepath.Join(root, "scripts")); err != nil {
		return "", fmt.Errorf("the tests' sources are not in the repository: %w", err)
	}
	return filepath.Clean(root), nil
}

// Binary looks for a program on PATH and in the folders where `go install` and scripts/tools.sh put theirs.
func Binary(name string) (string, bool) {
	if p, err := exec.LookPath(name); err == nil {
		return p, true
	}
	var dirs []string
	if cache, err := os.UserCacheDir(); err == nil {
		dirs = append(dirs, filepath.Join(cache, "catchment", "bin"))
	}
	if home, err := os.UserHomeDir(); err == nil {
		dirs = append(dirs, filepath.Join(home, ".cache", "catchment", "bin"), filepath.Join(home, "go", "bin"))
	}
	dirs = append(dirs, os.Getenv("GOBIN"), filepath.Join(os.Getenv("GOPATH"), "bin"))
	for _, d := range dirs {
		if p, err := exec.LookPath(filepath.Join(d, name)); err == nil && filepath.IsAbs(p) {
			return p, true
		}
	}
	return "", false
}
