package devpg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// account is whom the server runs as. Postgres refuses to run as root, so root hands it to another account.
type account struct {
	name     string
	uid, gid int
	drop     bool // we are root: the server's processes change to this account
}

// chooseAccount returns whom the server of the given data folder runs as.
func chooseAccount(dir string) (account, error) {
	owner, exists := ownerOf(dir)
	if euid := os.Geteuid(); euid != 0 {
		if exists && owner.uid != euid {
			return account{}, fmt.Errorf("%s belongs to %s: run as that user or as root, or use another folder with --dir", dir, owner.name)
		}
		return account{name: "user " + strconv.Itoa(euid), uid: euid, gid: os.Getegid()}, nil
	}
	if exists && owner.uid != 0 {
		owner.drop = true
		return owner, nil
	}
	return unprivileged()
}

// Unprivileged returns whom root runs a server as, which Postgres refuses to run as itself; zeros when we are not root.
func Unprivileged() (uid, gid int, err error) {
	if os.Geteuid() != 0 {
		return 0, 0, nil
	}
	a, err := unprivileged()
	return a.uid, a.gid, err
}

// unprivileged is the account of this machine's Postgres, or nobody's.
func unprivileged() (account, error) {
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uidErr := strconv.Atoi(u.Uid)
		gid, gidErr := strconv.Atoi(u.Gid)
		if err := errors.Join(uidErr, gidErr); err != nil {
			return account{}, fmt.Errorf("account %s: %w", name, err)
		}
		return account{name: name, uid: uid, gid: gid, drop: true}, nil
	}
	return account{}, errors.New("a Postgres server does not run as root, and there is neither an account postgres nor nobody to run it as: " +
		"create one (useradd --system postgres), or run catchment as another user")
}

// ownerOf returns the owner of what dir is or links to.
func ownerOf(dir string) (account, bool) {
	info, err := os.Stat(dir)
	if err != nil {
		return account{}, false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return account{}, false
	}
	a := account{name: "user " + strconv.Itoa(int(st.Uid)), uid: int(st.Uid), gid: int(st.Gid)}
	if u, err := user.LookupId(strconv.Itoa(a.uid)); err == nil {
		a.name = u.Username
	}
	return a, true
}

// command prepares a program that runs as the account, in a process group of its own, so that a Ctrl-C at the
// terminal reaches only us and the server outlives the draining of its clients.
func (a account) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC", "HOME=/"}
	for _, name := range []string{"LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR"} {
		if v, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+v)
		}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if a.drop {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)}
	}
	return cmd
}

// own gives a file or folder of ours to the account.
func (a account) own(path string) error {
	if !a.drop {
		return nil
	}
	if err := os.Lchown(path, a.uid, a.gid); err != nil {
		return fmt.Errorf("give %s to %s: %w", path, a.name, err)
	}
	return nil
}

// reaches says whether the account may work in the folder. It asks the system rather than reading mode bits, so
// that access lists and mounts count too.
func (a account) reaches(ctx context.Context, p programs, dir string) bool {
	if !a.drop {
		return true
	}
	cmd := a.command(ctx, p.path("initdb"), "--version")
	cmd.Dir = dir
	return cmd.Run() == nil
}

// runs returns why the account cannot run the programs, or nil.
func (a account) runs(ctx context.Context, p programs) error {
	if err := a.command(ctx, p.path("initdb"), "--version").Run(); err != nil {
		return fmt.Errorf("%s cannot run %s: %w", a.name, p.path("initdb"), err)
	}
	return nil
}

// stateDir is where root keeps what the server's account cannot reach below root's own folders.
func (o *Options) stateDir() (string, error) {
	dirs := []string{"/var/lib/catchment", "/var/tmp/catchment"}
	if o.StateDir != "" {
		dirs = []string{o.StateDir}
	}
	var errs []error
	for _, dir := range dirs {
		err := os.MkdirAll(dir, 0o755)
		if err == nil {
			return filepath.Clean(dir), nil
		}
		errs = append(errs, err)
	}
	return "", fmt.Errorf("folder for Postgres: %w", errors.Join(errs...))
}
