package estate

import (
	"os/exec"
	"syscall"
)

// own makes a process group of its own for cmd, as that user, and lets the system end it when we end without a word.
func own(cmd *exec.Cmd, deathsig syscall.Signal, uid, gid int) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: deathsig}
	if uid != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
}
