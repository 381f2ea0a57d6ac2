package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of /proc/PID/stat on Linux.
const tick = 10 * time.Millisecond

// stat reads fields of /proc/PID/stat, by their numbers in proc(5).
func stat(pid int, fields ...int) (map[int]int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	out := map[int]int{}
	for _, n := range fields {
		if out[n], err = strconv.Atoi(f[n-3]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func parentOf(pid int) (int, error) {
	f, err := stat(pid, 4)
	return f[4], err
}

// cpuOf is the CPU time that a process has used.
func cpuOf(pid int) (time.Duration, error) {
	f, err := stat(pid, 14, 15)
	return time.Duration(f[14]+f[15]) * tick, err
}

// familyCPU is the CPU time of a process, its children, and those that have ended.
func familyCPU(pid int) (time.Duration, error) {
	for {
		f, err := stat(pid, 14, 15, 16, 17)
		if err != nil {
			return 0, err
		}
		children, err := childrenCPU(pid)
		if err != nil {
			return 0, err
		}
		if again, err := stat(pid, 16, 17); err == nil && again[16] == f[16] && again[17] == f[17] { // none ended meanwhile
			return time.Duration(f[14]+f[15]+f[16]+f[17]+children) * tick, nil
		}
	}
}

// childrenCPU is in ticks.
func childrenCPU(pid int) (sum int, err error) {
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, err
	}
	for _, dir := range all {
		child, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			return 0, err
		}
		if f, err := stat(child, 4, 14, 15); err == nil && f[4] == pid {
			sum += f[14] + f[15]
		}
	}
	return sum, nil
}

// machineCPU is the CPU time that all processes have used.
func machineCPU() (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	var sum int
	for i, f := range strings.Fields(line)[1:] {
		n, err := strconv.Atoi(f)
		if err != nil {
			return 0, err
		}
		if i != 3 && i != 4 && i < 8 { // idle, iowait, guests
			sum += n
		}
	}
	return time.Duration(sum) * tick, nil
}

// memoryOf is a process's resident memory in MiB.
func memoryOf(pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	pages, _ := strconv.Atoi(strings.Fields(string(b))[1])
	return pages * os.Getpagesize() >> 20
}

// meter takes the time and the CPU between begin and end.
type meter struct {
	b                         *bench
	pid                       int
	at                        time.Time
	postgres, client, machine time.Duration
}

func (b *bench) begin(pid int) (*meter, error) {
	m := &meter{b: b, pid: pid, at: time.Now()}
	var errs [3]error
	m.postgres, errs[0] = familyCPU(b.postmaster)
	m.client, errs[1] = cpuOf(pid)
	m.machine, errs[2] = machineCPU()
	return m, errors.Join(errs[:]...)
}

func (m *meter) end(name string, events int) (*row, error) {
	r := &row{contestant: name, events: events, took: time.Since(m.at), memory: memoryOf(m.pid)}
	now, err := m.b.begin(m.pid)
	if err != nil {
		return nil, err
	}
	r.postgres, r.client = now.postgres-m.postgres, now.client-m.client
	r.foreign = now.machine - m.machine - r.postgres - r.client
	return r, nil
}
