package judge

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/folder"
)

// bounds wants memory, goroutines and descriptors to have stayed below their bounds and gone back, and what has a limit in time
// to have kept it (check 13).
func (j *judge) bounds() error {
	if len(j.facts.Resources) == 0 {
		j.v.Checks[Bounds-1].Note = "no resources were sampled"
	}
	for _, r := range j.facts.Resources {
		if r.Bound > 0 && r.Max > r.Bound {
			j.found(Bounds, "%s: %s went up to %.0f, and %.0f is the bound", r.Process, r.Name, r.Max, r.Bound)
		}
		if r.End > r.Base+r.Slack {
			j.found(Bounds, "%s: %s was %.0f at rest, and is %.0f at rest afterwards: more than %.0f above", r.Process, r.Name, r.Base, r.End, r.Slack)
		}
	}
	for _, t := range j.facts.Timings {
		if t.Bound > 0 && t.Seconds > t.Bound {
			j.found(Bounds, "%s took %.1f s: %.1f s is the bound", t.Name, t.Seconds, t.Bound)
		}
	}
	return nil
}

// secrecy wants no secret and no body in any log (check 14).
func (j *judge) secrecy() error {
	var secrets []string
	if err := folder.Read(j.dir, folder.SecretsFile, &secrets); err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		j.v.Checks[Secrecy-1].Note = "there is no " + folder.SecretsFile + ": logs were searched for the canary alone"
	}
	looked := 0
	err := filepath.WalkDir(filepath.Join(j.dir, folder.Logs), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		looked++
		return j.searchLog(path, secrets)
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err == nil && looked == 0 {
		j.v.Checks[Secrecy-1].Note = "there are no logs"
	}
	return err
}

func (j *judge) searchLog(path string, secrets []string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	name, n := filepath.Base(path), 0
	return lines(f, func(line string) {
		n++
		if j.run.Canary != "" && strings.Contains(line, j.run.Canary) {
			j.found(Secrecy, "%s, line %d: part of a body", name, n)
		}
		for _, s := range secrets {
			if s != "" && strings.Contains(line, s) {
				j.found(Secrecy, "%s, line %d: a secret", name, n)
			}
		}
	})
}
