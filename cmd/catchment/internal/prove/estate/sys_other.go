//go:build unix && !linux

package estate

import (
	"os/exec"
	"syscall"
)

// own makes a process group of its own for cmd, as that user. Where we are killed without a word, it stays.
func own(cmd *exec.Cmd, _ syscall.Signal, uid, gid int) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if uid != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
}
