package settings

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/provider"
)

// maxSecret is the size of the largest file that is read as a secret.
const maxSecret = 1 << 20

// Secrets reads a source's secrets, those in files from the files as they are now.
func (f *File) Secrets(name string) ([]provider.Secret, config.Errors) {
	var (
		secrets []provider.Secret
		errs    config.Errors
	)
	for i, spec := range f.Sources[name].Secrets {
		text, err := f.secretText(spec)
		if err != nil {
			errs = append(errs, f.Errorf(fmt.Sprintf("sources.%s.secrets[%d]", name, i), "%v", err))
			continue
		}
		secrets = append(secrets, provider.Secret{ID: spec.ID, Text: text, NotBefore: spec.NotBefore, NotAfter: spec.NotAfter})
	}
	return secrets, errs
}

func (f *File) secretText(s SecretSpec) (string, error) {
	switch {
	case s.File == "" && s.Value.Empty():
		return "", errors.New("expected a secret: a text, or a mapping with value or file")
	case s.File != "" && !s.Value.Empty():
		return "", errors.New("expected either value or file, found both")
	case s.File == "":
		return s.Value.Reveal(), nil
	}
	data, err := ReadSecret(f.Abs(strings.TrimPrefix(s.File, "file:")))
	if err != nil {
		return "", fmt.Errorf("expected a readable file with the secret: %w", err)
	}
	text := strings.TrimRight(string(data), "\r\n")
	if text == "" {
		return "", fmt.Errorf("expected a secret in %s, found an empty file", s.File)
	}
	return text, nil
}

// ReadSecret reads a file that holds a secret or a key.
func ReadSecret(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	data, err := io.ReadAll(io.LimitReader(file, maxSecret+1))
	if err == nil && len(data) > maxSecret {
		err = fmt.Errorf("%s is larger than a secret can be", path)
	}
	return data, err
}

// SecretFiles are the files that a source's secrets and keys come from.
func (f *File) SecretFiles(name string) []string {
	var files []string
	s := f.Sources[name]
	for _, spec := range s.Secrets {
		if spec.File != "" {
			files = append(files, f.Abs(strings.TrimPrefix(spec.File, "file:")))
		}
		if file := spec.Value.File(); file != "" {
			files = append(files, file)
		}
	}
	for key, value := range s.Options {
		text, ok := value.(string)
		path, marked := strings.CutPrefix(text, "file:")
		if ok && path != "" && (marked || strings.HasSuffix(key, "file")) {
			files = append(files, f.Abs(path))
		}
	}
	slices.Sort(files)
	return slices.Compact(files)
}

// Reread reads the file again for the secrets of its sources: what else stands in it takes effect at the next start.
// A source without errors among those of its path, sources.NAME, is usable; no file at all is returned when nothing is.
func (f *File) Reread() (*File, config.Errors) {
	fresh := &File{}
	data, err := os.ReadFile(f.Path)
	if err != nil {
		return nil, config.Errors{{Pos: config.Pos{File: f.Path}, Msg: err.Error()}}
	}
	ix, err := config.Parse(f.Path, data, fresh, config.Options{EnvPrefix: "CATCHMENT", Resolve: func(s string) bool { return s == string(NeedSources) }})
	var errs config.Errors
	if err != nil && !errors.As(err, &errs) {
		return nil, config.Errors{{Pos: config.Pos{File: f.Path}, Msg: err.Error()}}
	}
	if ix == nil || slices.ContainsFunc(errs, func(e config.Error) bool { return !strings.HasPrefix(e.Path, "sources.") }) {
		return nil, errs
	}
	if err := fresh.place(f.Path, ix); err != nil {
		return nil, config.Errors{{Pos: config.Pos{File: f.Path}, Msg: err.Error()}}
	}
	return fresh, errs
}

// WithSecrets is f with the secrets of one source as another reading of the file has them.
func (f *File) WithSecrets(name string, fresh *File) *File {
	one := *f
	s := f.Sources[name]
	s.Secrets = fresh.Sources[name].Secrets
	one.Sources, one.Index = map[string]Source{name: s}, fresh.Index
	return &one
}
