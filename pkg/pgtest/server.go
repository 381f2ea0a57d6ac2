package pgtest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"

	"github.com/catchment-dev/catchment/pkg/internal/parts"
)

// localPrograms finds the folder of initdb: what PATH shows, or where distributions hide it.
func localPrograms() (string, bool) {
	if p, err := exec.LookPath("initdb"); err == nil {
		if real, err := filepath.EvalSymlinks(p); err == nil {
			p = real // beside which all the programs are
		}
		return filepath.Dir(p), true
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin/initdb", "/usr/pgsql-*/bin/initdb", "/usr/local/pgsql/bin/initdb",
		"/opt/homebrew/opt/postgresql*/bin/initdb", "/usr/local/opt/postgresql*/bin/initdb",
	} {
		found, _ := filepath.Glob(pattern)
		sort.Strings(found)
		if len(found) > 0 {
			return filepath.Dir(found[len(found)-1]), true
		}
	}
	return "", false
}

// parameters of the tests' own server. It holds nothing that must outlive the machine: fsync is off.
var parameters = []string{
	"listen_addresses=127.0.0.1", "max_connections=200", "shared_buffers=64MB", "fsync=off", "full_page_writes=off",
	"max_wal_size=256MB", "min_wal_size=80MB", "log_min_messages=warning", "timezone=UTC",
}

// start makes a cluster in a temporary folder and runs a server on it, as another user when we are root. A guard
// ends the server and removes the folder when this process ends.
func start(bin string) (string, error) {
	c, err := newCluster(bin)
	if err != nil {
		return "", err
	}
	if err := c.initialise(); err != nil {
		return "", err
	}
	if err := c.startAnywhere(); err != nil {
		return "", err
	}
	return c.url(), nil
}

// cluster is a folder with the data of one server.
type cluster struct {
	bin, dir string
	uid, gid int
	port     int
	more     []string // parameters besides those of all
}

// newCluster makes the folder. A guard ends the server that runs in it, and removes it, when this process ends.
func newCluster(bin string) (*cluster, error) {
	uid, gid, err := unprivileged()
	if err != nil {
		return nil, err
	}
	dir, err := serverDir(uid, gid)
	if err != nil {
		return nil, err
	}
	return &cluster{bin: bin, dir: dir, uid: uid, gid: gid},
		parts.Guard(`[ ! -s "$1/data/postmaster.pid" ] || kill -QUIT "$(head -1 "$1/data/postmaster.pid")"; `+
			`i=0; while [ -e "$1/data/postmaster.pid" ] && [ $i -lt 50 ]; do sleep 0.1; i=$((i+1)); done; rm -rf "$1"`, dir)
}

func (c *cluster) data() string { return filepath.Join(c.dir, "data") }

func (c *cluster) url() string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable", c.port)
}

// run runs one of Postgres' programs.
func (c *cluster) run(program string, args ...string) error {
	cmd := exec.Command(filepath.Join(c.bin, program), args...)
	parts.As(cmd, c.uid, c.gid)
	cmd.Dir = c.dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "HOME="+c.dir)
	out, err := os.OpenFile(filepath.Join(c.dir, program+".log"), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	cmd.Stdout, cmd.Stderr = out, out // a file: the server inherits it, and a pipe would never end
	if err := cmd.Run(); err != nil {
		said, _ := os.ReadFile(out.Name())
		return fmt.Errorf("%s: %w\n%s", program, err, said)
	}
	return nil
}

func (c *cluster) initialise() error {
	return c.run("initdb", "-D", c.data(), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
}

// start runs the server on the cluster's port and waits until it takes connections.
func (c *cluster) start() error {
	options := "-p " + strconv.Itoa(c.port) + " -k '" + c.dir + "'"
	for _, s := range append(append([]string{}, parameters...), c.more...) {
		options += " -c '" + s + "'"
	}
	err := c.run("pg_ctl", "start", "-w", "-s", "-t", "60", "-D", c.data(), "-l", filepath.Join(c.dir, "log"), "-o", options)
	if err != nil {
		said, _ := os.ReadFile(filepath.Join(c.dir, "log"))
		return fmt.Errorf("%w\n%s", err, said[max(0, len(said)-2000):])
	}
	return nil
}

// startAnywhere starts the server on a free port.
func (c *cluster) startAnywhere() error {
	for attempt := 0; ; attempt++ {
		var err error
		if c.port, err = parts.FreePort(); err != nil {
			return err
		}
		if err = c.start(); err == nil || attempt == 3 || !strings.Contains(err.Error(), "in use") {
			return err
		}
	}
}

// serverDir makes a folder that the server's user can reach: not below root's own temporary folder.
func serverDir(uid, gid int) (string, error) {
	parent := os.TempDir()
	if uid != 0 {
		parent = "/tmp"
	}
	dir, err := os.MkdirTemp(parent, "catchment-pgtest-")
	if err != nil {
		return "", err
	}
	if uid != 0 {
		err = os.Chown(dir, uid, gid)
	}
	return dir, err
}

// unprivileged returns the user that runs the server when we are root, which Postgres refuses, and zeros otherwise.
func unprivileged() (uid, gid int, err error) {
	if os.Getuid() != 0 {
		return 0, 0, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, lookupErr := user.Lookup(name)
		if lookupErr != nil {
			err = lookupErr
			continue
		}
		uid, _ = strconv.Atoi(u.Uid)
		gid, _ = strconv.Atoi(u.Gid)
		if uid != 0 {
			return uid, gid, nil
		}
	}
	return 0, 0, fmt.Errorf("as root, no user that may run Postgres: %w", err)
}

// startEmbedded lets the library fetch and unpack the programs, and then starts them as start does: the library
// itself cannot start a server as root.
func startEmbedded() (string, error) {
	bin, err := embeddedPrograms()
	if err != nil {
		return "", err
	}
	return start(bin)
}

func embeddedPrograms() (string, error) {
	uid, gid, err := unprivileged()
	if err != nil {
		return "", err
	}
	dir, err := serverDir(uid, gid)
	if err != nil {
		return "", err
	}
	if err := parts.Guard(`rm -rf "$1"`, dir); err != nil {
		return "", err
	}
	port, err := parts.FreePort()
	if err != nil {
		return "", err
	}
	config := embeddedpostgres.DefaultConfig().Version(embeddedpostgres.V17).Port(uint32(port)).Logger(io.Discard).
		RuntimePath(filepath.Join(dir, "runtime")).BinariesPath(filepath.Join(dir, "programs"))
	if cache := os.Getenv(EnvCache); cache != "" {
		config = config.CachePath(cache)
	}
	library := embeddedpostgres.NewDatabase(config)
	startErr := library.Start()
	if startErr == nil {
		if err := library.Stop(); err != nil {
			return "", err
		}
	}
	bin := filepath.Join(dir, "programs", "bin")
	if _, err := os.Stat(filepath.Join(bin, "initdb")); errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("no Postgres programs here, and the download failed: %w", startErr)
	}
	if err := readable(filepath.Join(dir, "programs"), uid, gid); err != nil {
		return "", err
	}
	return bin, nil
}

// readable gives the unpacked programs to the server's user.
func readable(dir string, uid, gid int) error {
	if uid == 0 {
		return nil
	}
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, uid, gid)
	})
}
