package main

import (
	"bufio"
	"fmt"
	"os"
	"os/user"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/run"
	"github.com/catchment-dev/catchment/processor/control"
)

// actFlags say who does something, and why. They end in catchment.actions.
type actFlags struct{ actor, reason string }

func (f *actFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.actor, "actor", "", "who does this (default: you on this machine)")
	cmd.Flags().StringVar(&f.reason, "reason", "", "why, for catchment.actions")
}

func (f *actFlags) act() control.Act {
	if f.actor != "" {
		return control.Act{Actor: f.actor, Reason: f.reason}
	}
	name, host := "unknown", "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if h, err := os.Hostname(); err == nil {
		host = h
	}
	return control.Act{Actor: name + "@" + host, Reason: f.reason}
}

// selectFlags select dead letters or events.
type selectFlags struct {
	source, since, until string
	ids, types           []string
}

func (f *selectFlags) register(cmd *cobra.Command, when string) {
	cmd.Flags().StringVar(&f.source, "source", "", "of this source")
	cmd.Flags().StringSliceVar(&f.types, "type", nil, "of this event type, which may end in *; may be repeated")
	cmd.Flags().StringSliceVar(&f.ids, "id", nil, "of this event ID; may be repeated")
	cmd.Flags().StringVar(&f.since, "since", "", when+" since this `time`: RFC 3339, or a duration ago such as 1h or 7d")
	cmd.Flags().StringVar(&f.until, "until", "", when+" before this `time`")
}

func (f *selectFlags) selection(now time.Time) (sel control.Selection, err error) {
	sel = control.Selection{Source: f.source, EventIDs: f.ids, Types: f.types}
	for _, m := range []struct {
		flag, text string
		into       **time.Time
	}{{"--since", f.since, &sel.Since}, {"--until", f.until, &sel.Until}} {
		t, err := config.ParseMoment(m.text, now)
		if err != nil {
			return sel, fmt.Errorf("%w: %s: %w", run.ErrUsage, m.flag, err)
		}
		if !t.IsZero() {
			*m.into = &t
		}
	}
	return sel, nil
}

// confirm asks the person at the terminal. Without one, --yes must have been given.
func (a *app) confirm(yes bool, question string) error {
	if yes {
		return nil
	}
	in := a.in
	if in == nil {
		if !term.IsTerminal(int(os.Stdin.Fd())) {
			return fmt.Errorf("%w: %s There is no terminal to answer at: add --yes", run.ErrUsage, question)
		}
		in = os.Stdin
	}
	fmt.Fprintf(a.err, "%s [y/N] ", question)
	answer, _ := bufio.NewReader(in).ReadString('\n') // no answer is a no
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	fmt.Fprintln(a.err, "Nothing was done.")
	return errSaid
}

func wrongRate(rate float64) error {
	if rate < 0 {
		return fmt.Errorf("%w: --rate is %g: expected attempts a second, or 0 for no limit", run.ErrUsage, rate)
	}
	return nil
}
