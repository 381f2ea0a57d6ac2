package main

import (
	"errors"
	"path/filepath"
	"strconv"
	"time"

	"github.com/catchment-dev/catchment/pkg/benchkit"
)

func parentOf(pid int) (int, error) {
	f, err := benchkit.Stat(pid, 4)
	return f[4], err
}

// familyCPU is the CPU time of a process, its children, and those that have ended.
func familyCPU(pid int) (time.Duration, error) {
	for {
		f, err := benchkit.Stat(pid, 14, 15, 16, 17)
		if err != nil {
			return 0, err
		}
		children, err := childrenCPU(pid)
		if err != nil {
			return 0, err
		}
		if again, err := benchkit.Stat(pid, 16, 17); err == nil && again[16] == f[16] && again[17] == f[17] { // none ended meanwhile
			return time.Duration(f[14]+f[15]+f[16]+f[17]+children) * benchkit.Tick, nil
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
		if f, err := benchkit.Stat(child, 4, 14, 15); err == nil && f[4] == pid {
			sum += f[14] + f[15]
		}
	}
	return sum, nil
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
	m.client, errs[1] = benchkit.CPU(pid)
	m.machine, errs[2] = benchkit.MachineCPU()
	return m, errors.Join(errs[:]...)
}

func (m *meter) end(name string, events int) (*row, error) {
	r := &row{contestant: name, events: events, took: time.Since(m.at), memory: benchkit.Memory(m.pid)}
	now, err := m.b.begin(m.pid)
	if err != nil {
		return nil, err
	}
	r.postgres, r.client = now.postgres-m.postgres, now.client-m.client
	r.foreign = now.machine - m.machine - r.postgres - r.client
	return r, nil
}
