// Command catchment is the tool, and all of Catchment in one process. Commands and catchment.yaml come in; answers
// for people (tables) or programs (JSON) go out, and what went wrong goes to standard error. It never decides what a
// service does: it starts services, and asks what they have done.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/run"
)

func main() {
	ctx, stop := run.Signals(context.Background(), closing()...)
	code := execute(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// closing is SIGHUP in a terminal, where it says that the terminal was closed. Elsewhere it means to reload.
func closing() []os.Signal {
	if term.IsTerminal(int(os.Stdin.Fd())) {
		return []os.Signal{syscall.SIGHUP}
	}
	return nil
}

// app is what all commands share.
type app struct {
	config string // path of catchment.yaml
	output string // table or json
	out    io.Writer
	err    io.Writer
	in     io.Reader // answers to questions; nil: the terminal, if there is one
}

// execute runs one command line and returns the exit code: 0, 1 (it failed) or 2 (wrong flags or configuration).
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot(&app{out: stdout, err: stderr}) //nolint:contextcheck // commands get it from ExecuteContext
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return run.ExitOK
	}
	var wrong config.Errors
	switch {
	case errors.Is(err, errSaid): // what there is to say has been printed
		return run.ExitFailed
	case errors.As(err, &wrong):
		fmt.Fprintf(stderr, "the configuration is wrong:\n%v\n", wrong)
		return run.ExitUsage
	}
	fmt.Fprintf(stderr, "catchment: %v\n", err)
	if errors.Is(err, run.ErrUsage) {
		return run.ExitUsage
	}
	return run.ExitFailed
}

// errSaid ends a command with exit code 1 without another word.
var errSaid = errors.New("failed")

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "catchment",
		Short: "Takes in webhooks and loses none of them",
		Long: "Catchment takes in the webhooks that other companies send, and loses none of them.\n" +
			"`catchment up` runs all of it on this machine; `catchment send stripe` sends it something.",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("%w: there is no command %q; `catchment --help` lists them", run.ErrUsage, args[0])
			}
			return cmd.Help()
		},
	}
	root.PersistentFlags().StringVar(&a.config, "config", run.ConfigPath(), "configuration `file`; the environment's CATCHMENT_CONFIG without it")
	root.PersistentFlags().StringVar(&a.output, "output", "table", "how to answer: table or json")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fmt.Errorf("%w: %w", run.ErrUsage, err) })
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		if a.output != "table" && a.output != "json" {
			return fmt.Errorf("%w: --output is %q: expected table or json", run.ErrUsage, a.output)
		}
		return nil
	}
	root.AddCommand(
		newUp(a), newSend(a), newVerify(a), newEvents(a), newSources(a), newStatus(a),
		newOperations(a), newDeadLetters(a), newReplay(a), newJobs(a), newBackfill(a), newErase(a), newArchive(a), newAudit(a), newProve(a),
		newConsole(a), newMigrate(a), newTopics(a), newConfig(a), newHealthcheck(a), newVersion(a),
	)
	return root
}

// exactly wants n arguments, named as in the command's usage line.
func exactly(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return fmt.Errorf("%w: expected %d arguments, found %d: %s", run.ErrUsage, n, len(args), cmd.UseLine())
		}
		return nil
	}
}

// group makes a command that only holds others.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short, Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("%w: there is no command %q; `%s --help` lists them", run.ErrUsage, args[0], cmd.CommandPath())
			}
			return cmd.Help()
		},
	}
	c.AddCommand(commands...)
	return c
}
