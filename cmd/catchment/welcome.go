package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/catchment-dev/catchment/cmd/catchment/internal/devconf"
	"github.com/catchment-dev/catchment/pkg/run"
	"github.com/catchment-dev/catchment/pkg/settings"
)

// welcome says where everything is and what to try.
func (n *node) welcome() string {
	c := n.cfg
	names := slices.Sorted(maps.Keys(c.Sources))
	var b strings.Builder
	fmt.Fprintf(&b, "\nCatchment is up.\n\n")
	fmt.Fprintf(&b, "  webhooks       %s{%s}\n", webhooksURL(c), strings.Join(names, ","))
	if n.cfg.Console.Enabled() || loopback(c.Ingress.OpsListen) {
		fmt.Fprintf(&b, "  console        %s/console/\n", run.BaseURL(c.Ingress.OpsListen))
	}
	fmt.Fprintf(&b, "  health         %s/readyz, /livez, /metrics\n", run.BaseURL(c.Ingress.OpsListen))
	fmt.Fprintf(&b, "  configuration  %s\n", filepath.Join(n.dir, devconf.File))
	fmt.Fprintf(&b, "  Kafka          %s, topic %s\n", strings.Join(c.Kafka.Brokers, ","), c.Kafka.Topic)
	fmt.Fprintf(&b, "  archive        %s\n", c.Archive.URL)
	fmt.Fprintf(&b, "\nTry, in another shell:\n\n")
	tool, flag := n.command()
	if source := example(c, names); source != "" {
		fmt.Fprintf(&b, "  %s send %s%s --count 1000 --duplicates 10%%\n", tool, source, flag)
	}
	fmt.Fprintf(&b, "  %s events list%s --limit 10\n", tool, flag)
	if c.Postgres.Embedded {
		fmt.Fprintf(&b, "  psql %s -c 'TABLE orders LIMIT 10'\n", quote(c.Postgres.URL.Reveal()))
	}
	if c.Kafka.Embedded {
		fmt.Fprintf(&b, "\nThis is a single node: nothing is replicated, and what its disk loses is lost.\n")
	}
	fmt.Fprintf(&b, "Ctrl-C stops it.\n\n")
	return b.String()
}

// example is the provider to show sending with.
func example(c *settings.File, names []string) string {
	for _, name := range append([]string{"stripe"}, names...) {
		if s, ok := c.Sources[name]; ok && s.Provider == name {
			return name
		}
	}
	return ""
}

// command returns how the user calls this program, and the flag that names the configuration when it is needed.
func (n *node) command() (tool, flag string) {
	tool = "catchment"
	if exe, err := os.Executable(); err == nil && strings.Contains(exe, "go-build") {
		tool = "go run ./cmd/catchment"
	}
	if wd, err := os.Getwd(); err != nil || wd != n.dir {
		flag = " --config " + quote(filepath.Join(n.dir, devconf.File))
	}
	return tool, flag
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_@%+=:,./-]+$`)

// quote writes a text as one word of a shell.
func quote(s string) string {
	if plainWord.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
