package parts

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
)

// Ports are handed out from here on. No system that is set up as usual gives them to connections that go out (Linux has
// 32768 and up for that), and the brokers of scripts/kafka-cluster.sh begin at 20000.
const (
	firstPort = 10000
	portCount = 10000
)

// ports are those that this process has handed out. A lock on the port's byte of a file keeps other processes' tests from
// them until this one has ended.
var ports = struct {
	sync.Mutex
	file  *os.File
	taken map[int]bool
}{taken: map[int]bool{}}

var errNoPort = errors.New("no free port on the loopback address")

// FreePort returns a TCP port of the loopback address on which nothing listens. No other test gets it, here or in another
// process of this user, and no connection has it by chance when what it is for starts later, or again.
func FreePort() (int, error) {
	ports.Lock()
	defer ports.Unlock()
	if ports.file == nil {
		name := filepath.Join(os.TempDir(), fmt.Sprintf("catchment-test-ports-%d", os.Getuid()))
		f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return 0, err
		}
		ports.file = f
	}
	for range 1000 {
		n := rand.IntN(portCount)
		if port := firstPort + n; !ports.taken[port] && lockByte(ports.file, int64(n)) && free(port) {
			ports.taken[port] = true
			return port, nil
		}
	}
	return 0, errNoPort
}

// lockByte says whether the process now has the lock on that byte of the file. The lock ends with the process.
func lockByte(f *os.File, at int64) bool {
	return syscall.FcntlFlock(f.Fd(), syscall.F_SETLK, &syscall.Flock_t{Type: syscall.F_WRLCK, Whence: io.SeekStart, Start: at, Len: 1}) == nil
}

func free(port int) bool {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return false
	}
	return l.Close() == nil
}
