package parts

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// ContainerSet is one part that runs in containers, held by a process of the program pkg/internal/parts/containers.
// That program is a process of its own so that the weight of the container libraries is in no test binary; it
// removes its containers when its input ends, thus also when this process dies.
type ContainerSet struct {
	Address string // as the part's environment variable has it

	mu  sync.Mutex
	in  io.WriteCloser
	out *bufio.Reader
	cmd *exec.Cmd
	err bytes.Buffer
}

// StartContainers starts a part: "kafka" (three brokers), "postgres" or "s3".
func StartContainers(part string) (*ContainerSet, error) {
	root, err := Root()
	if err != nil {
		return nil, err
	}
	s := &ContainerSet{cmd: exec.Command("go", "run", "./internal/parts/containers", part)}
	s.cmd.Dir = filepath.Join(root, "pkg")
	s.cmd.Stderr = &s.err
	ownGroup(s.cmd)
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.out = bufio.NewReader(out)
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	if s.Address, err = s.answer(); err != nil {
		return nil, err
	}
	return s, nil
}

// answer reads one line: "ok …" or "error …".
func (s *ContainerSet) answer() (string, error) {
	line, err := s.out.ReadString('\n')
	if err != nil {
		_ = s.in.Close()
		_ = s.cmd.Wait()
		return "", fmt.Errorf("containers: %w\n%s", err, s.err.String())
	}
	word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
	if word != "ok" {
		return "", errors.New("containers: " + rest)
	}
	return rest, nil
}

// Do stops, kills or starts the container with that index and waits until it is done.
func (s *ContainerSet) Do(what string, i int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := fmt.Fprintf(s.in, "%s %d\n", what, i); err != nil {
		return err
	}
	_, err := s.answer()
	return err
}

// Close removes the containers.
func (s *ContainerSet) Close() {
	_ = s.in.Close()
	_ = s.cmd.Wait()
}

var (
	containersMu sync.Mutex
	containers   = map[string]*ContainerSet{}
)

// Container returns the address of a part in containers, which are started once and live as long as this process.
func Container(part string) (string, error) {
	containersMu.Lock()
	defer containersMu.Unlock()
	if s := containers[part]; s != nil {
		return s.Address, nil
	}
	s, err := StartContainers(part)
	if err != nil {
		return "", err
	}
	containers[part] = s
	return s.Address, nil
}
