// Command containers starts one part of the tests in containers and holds it. "kafka", "postgres" or "s3" comes in as
// its argument, and commands like "stop 1" on its input; "ok" and the part's address go out, an answer a line.
// It must never outlive its caller: it removes its containers when its input ends.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/testcontainers/testcontainers-go"
	tclog "github.com/testcontainers/testcontainers-go/log"
	"github.com/testcontainers/testcontainers-go/wait"
)

// part is what runs in containers.
type part interface {
	start(ctx context.Context) (address string, err error)
	do(ctx context.Context, what string, i int) error
	remove(ctx context.Context) error
}

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Println("error", strings.ReplaceAll(err.Error(), "\n", "; "))
		os.Exit(1)
	}
}

func run(args []string, in io.Reader, out io.Writer) (err error) {
	signal.Ignore(syscall.SIGPIPE)                          // the caller may be dead when the containers are removed
	tclog.SetDefault(log.New(os.Stderr, "", log.LstdFlags)) // the output belongs to the answers
	var p part
	switch strings.Join(args, " ") {
	case "kafka":
		p = &kafka{}
	case "postgres":
		p = &postgres{}
	case "s3":
		p = &s3{}
	default:
		return fmt.Errorf("want kafka, postgres or s3, got %q", args)
	}
	ctx := context.Background()
	defer func() {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		err = errors.Join(err, p.remove(ctx))
	}()
	startCtx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	address, err := p.start(startCtx)
	if err != nil {
		return err
	}
	answer(out, address, nil)
	for lines := bufio.NewScanner(in); lines.Scan(); {
		var what string
		var i int
		_, err := fmt.Sscanf(lines.Text(), "%s %d", &what, &i)
		if err == nil {
			err = p.do(ctx, what, i)
		}
		answer(out, "", err)
	}
	return nil
}

func answer(out io.Writer, text string, err error) {
	if err != nil {
		_, _ = fmt.Fprintln(out, "error", strings.ReplaceAll(err.Error(), "\n", "; "))
		return
	}
	_, _ = fmt.Fprintln(out, "ok", text)
}

// single is a part of one container, which is never stopped before it is removed.
type single struct {
	container *testcontainers.DockerContainer
}

func (s *single) do(_ context.Context, what string, _ int) error {
	return fmt.Errorf("this part knows no %q", what)
}

func (s *single) remove(ctx context.Context) error {
	if s.container == nil {
		return nil
	}
	return s.container.Terminate(ctx)
}

// run starts the container and returns the host and port under which its port is reached.
func (s *single) run(ctx context.Context, image, port string, opts ...testcontainers.ContainerCustomizer) (string, error) {
	var err error
	s.container, err = testcontainers.Run(ctx, image, append(opts, testcontainers.WithExposedPorts(port))...)
	if err != nil {
		return "", err
	}
	return s.container.PortEndpoint(ctx, port, "")
}

type postgres struct{ single }

func (p *postgres) start(ctx context.Context) (string, error) {
	address, err := p.run(ctx, "postgres:17", "5432/tcp",
		testcontainers.WithEnv(map[string]string{"POSTGRES_PASSWORD": "postgres"}),
		// The first server is the one that initialises the folder: it takes no connections from outside.
		testcontainers.WithWaitStrategyAndDeadline(2*time.Minute,
			wait.ForLog("database system is ready to accept connections").WithOccurrence(2), wait.ForListeningPort("5432/tcp")))
	return "postgres://postgres:postgres@" + address + "/postgres?sslmode=disable", err
}

type s3 struct{ single }

func (s *s3) start(ctx context.Context) (string, error) {
	address, err := s.run(ctx, "versity/versitygw:latest", "7070/tcp",
		testcontainers.WithEnv(map[string]string{"ROOT_ACCESS_KEY": "catchment", "ROOT_SECRET_KEY": "catchment-test-secret"}),
		testcontainers.WithCmd("--quiet", "--port", ":7070", "posix", "/data"),
		testcontainers.WithWaitStrategyAndDeadline(time.Minute, wait.ForHTTP("/").WithPort("7070/tcp").WithStatusCodeMatcher(func(int) bool { return true })))
	return "http://catchment:catchment-test-secret@" + address, err
}
