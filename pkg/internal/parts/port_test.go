package parts

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

const envPorts = "CATCHMENT_TEST_TAKES_PORTS"

// Tests that run beside each other, in one process and in several, all get ports of their own, although nobody listens yet.
func TestFreePort(t *testing.T) {
	const each, processes = 300, 4
	if os.Getenv(envPorts) != "" {
		for range each {
			port, err := FreePort()
			require.NoError(t, err)
			fmt.Println("port", port)
		}
		_, _ = fmt.Scanln() // keeps its locks until the others have theirs
		return
	}
	var mu sync.Mutex
	seen := map[string]bool{}
	var wg, taken sync.WaitGroup
	taken.Add(processes)
	all := make(chan struct{})
	for range processes {
		cmd := exec.Command(os.Args[0], "-test.run=^TestFreePort$")
		cmd.Env = append(os.Environ(), envPorts+"=1")
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		in, err := cmd.StdinPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		wg.Go(func() {
			for range each {
				var port string
				if _, err := fmt.Fscanf(out, "port %s\n", &port); err != nil {
					break
				}
				mu.Lock()
				seen[port] = true
				mu.Unlock()
			}
			taken.Done()
			<-all
			_ = in.Close()
			_ = cmd.Wait()
		})
	}
	taken.Wait()
	close(all)
	wg.Wait()
	require.Len(t, seen, each*processes)
	own, err := FreePort()
	require.NoError(t, err)
	require.True(t, firstPort <= own && own < firstPort+portCount)
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", own))
	require.NoError(t, err)
	require.NoError(t, l.Close())
}
