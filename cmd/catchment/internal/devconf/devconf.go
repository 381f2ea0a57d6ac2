// Package devconf makes the configuration of the first `catchment up`. A folder and addresses come in, and
// catchment.yaml with generated secrets and a signing key go out. It never changes a file that exists.
package devconf

import (
	"bytes"
	"context"
	"crypto/rand"
	_ "embed" // the template
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/template"

	"golang.org/x/mod/sumdb/note"

	"github.com/catchment-dev/catchment/pkg/provider"
)

// File is the configuration's name in its folder, Data that of the folder with everything else.
const (
	File = "catchment.yaml"
	Data = "catchment-data"
)

// These are below Data. pendingFile is there from the making of the configuration until its example table exists, so
// that a kill in between leaves no configuration without its table.
const (
	keyFile       = "checkpoint.key"
	publicKeyFile = "checkpoint.pub"
	pendingFile   = "orders-table-pending"
)

// sources are the endpoints of a new configuration; each is named as its provider.
var sources = []string{"github", "shopify", "slack", "standard-webhooks", "stripe"}

// Values is what differs from one generated file to the next.
type Values struct {
	Listen    string
	OpsListen string

	KafkaPort, PostgresPort int
	PostgresPassword        string
	Secrets                 map[string]string // by source
}

//go:embed catchment.yaml.tmpl
var text string

var parsed = template.Must(template.New(File).Funcs(template.FuncMap{"yaml": scalar}).Parse(text))

// scalar quotes a text for the file: JSON strings are YAML, and $ begins a variable.
func scalar(s string) (string, error) {
	b, err := json.Marshal(strings.ReplaceAll(s, "$", "$$"))
	return string(b), err
}

// Render returns the file.
func (v Values) Render() ([]byte, error) {
	var b bytes.Buffer
	if err := parsed.Execute(&b, v); err != nil {
		return nil, fmt.Errorf("make %s: %w", File, err)
	}
	return b.Bytes(), nil
}

// Sources lists the sources with their secrets, for the template.
func (v Values) Sources() []string { return sources }

// PostgresURL is how to reach the database.
func (v Values) PostgresURL() string {
	return (&url.URL{
		Scheme: "postgres", User: url.UserPassword("catchment", v.PostgresPassword),
		Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(v.PostgresPort)), Path: "/catchment", RawQuery: "sslmode=disable",
	}).String()
}

// Generate chooses ports that are free now and makes secrets.
func Generate(ctx context.Context, listen, opsListen string) (Values, error) {
	v := Values{Listen: listen, OpsListen: opsListen, PostgresPassword: rand.Text(), Secrets: map[string]string{}}
	var err error
	if v.KafkaPort, err = choosePort(ctx); err != nil {
		return Values{}, err
	}
	for v.PostgresPort == 0 || v.PostgresPort == v.KafkaPort {
		if v.PostgresPort, err = choosePort(ctx); err != nil {
			return Values{}, err
		}
	}
	for _, name := range sources {
		p, ok := provider.ByName(name)
		if !ok {
			return Values{}, fmt.Errorf("there is no provider %q", name)
		}
		v.Secrets[name] = p.NewCredentials().Secret
	}
	return v, nil
}

// choosePort returns a port that is free now, from below the ranges from which systems give ports to outgoing
// connections: the port is kept, and must be free at every later start too.
func choosePort(ctx context.Context) (int, error) {
	var errs []error
	for range 100 {
		n, err := rand.Int(rand.Reader, big.NewInt(10000))
		if err != nil {
			return 0, fmt.Errorf("choose a port: %w", err)
		}
		port := 20000 + int(n.Int64())
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		return port, l.Close()
	}
	return 0, fmt.Errorf("choose a port: %w", errors.Join(errs...))
}

// Create writes catchment.yaml and the key that signs the archive's checkpoints, both readable by the owner alone.
// It says false when the file exists, and leaves it as it is.
func Create(ctx context.Context, dir, listen, opsListen string) (created bool, err error) {
	path := filepath.Join(dir, File)
	if _, err := os.Stat(path); err == nil {
		return false, nil
	}
	v, err := Generate(ctx, listen, opsListen)
	if err != nil {
		return false, err
	}
	content, err := v.Render()
	if err != nil {
		return false, err
	}
	if err := createKey(filepath.Join(dir, Data)); err != nil {
		return false, err
	}
	if err := errors.Join(writeNew(filepath.Join(dir, Data, pendingFile), nil), writeNew(path, content)); err != nil {
		return false, fmt.Errorf("make %s: %w", File, err)
	}
	return true, nil
}

// TablePending says whether the configuration was made here and its example table was not yet.
func TablePending(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, Data, pendingFile))
	return err == nil
}

// TableMade notes that the example table exists.
func TableMade(dir string) error {
	if err := os.Remove(filepath.Join(dir, Data, pendingFile)); err != nil {
		return fmt.Errorf("note that the example table exists: %w", err)
	}
	return nil
}

// KeyPath is where the checkpoint key of the generated configuration is.
func KeyPath(dir string) string { return filepath.Join(dir, Data, keyFile) }

// RestoreKey makes the checkpoint key again when it is missing and the archive folder holds nothing that it has
// signed. The example table is due again when the database is gone, too.
func RestoreKey(dir, archive string) (restored bool, err error) {
	if _, err := os.Stat(KeyPath(dir)); !errors.Is(err, os.ErrNotExist) {
		return false, nil // whoever reads the key says what is wrong with it
	}
	entries, err := os.ReadDir(archive)
	if len(entries) > 0 || (err != nil && !errors.Is(err, os.ErrNotExist)) {
		return false, nil // the archive's own key is missed, which the configuration's check says
	}
	if err := createKey(filepath.Join(dir, Data)); err != nil {
		return false, err
	}
	if _, err := os.Lstat(filepath.Join(dir, Data, "postgres")); errors.Is(err, os.ErrNotExist) {
		if err := writeNew(filepath.Join(dir, Data, pendingFile), nil); err != nil {
			return true, fmt.Errorf("note that the example table is missing: %w", err)
		}
	}
	return true, nil
}

// createKey makes the checkpoint key, unless there is one.
func createKey(dir string) error {
	path := filepath.Join(dir, keyFile)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	private, public, err := note.GenerateKey(rand.Reader, "catchment-up")
	if err != nil {
		return fmt.Errorf("make the checkpoint key: %w", err)
	}
	if err := errors.Join(writeNew(filepath.Join(dir, publicKeyFile), []byte(public+"\n")), writeNew(path, []byte(private+"\n"))); err != nil {
		return fmt.Errorf("make the checkpoint key: %w", err)
	}
	return nil
}

// writeNew makes the file appear whole.
func writeNew(path string, content []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	_, err = tmp.Write(content)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return nil
}
