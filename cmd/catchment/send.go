package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/catchment-dev/catchment/cmd/catchment/internal/sender"
	"github.com/catchment-dev/catchment/pkg/provider"
	"github.com/catchment-dev/catchment/pkg/run"
	"github.com/catchment-dev/catchment/pkg/settings"
)

// requestTimeout is how long one answer is waited for; providers wait 3 to 30 seconds.
const requestTimeout = 30 * time.Second

// sendFlags are the flags of send, as they are written.
type sendFlags struct {
	url, secret, source, typ, body, duplicates string
	count, concurrency                         int
	rate                                       float64
	outOfOrder                                 bool
	seed                                       uint64
	wait                                       time.Duration
}

func newSend(a *app) *cobra.Command {
	var f sendFlags
	cmd := &cobra.Command{
		Use:   "send PROVIDER",
		Short: "Send signed events as a provider would",
		Long: `Send signed events as a provider would, to the source of catchment.yaml that is made for that provider, or
to any URL with --url and --secret. Nothing is sent again after a refusal: what was not accepted shows in the
summary and makes the exit code 1.

Providers: ` + provider.Names(),
		Example: "  catchment send stripe --count 1000 --duplicates 10%\n  catchment send github --body push.json --type push",
		Args:    exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.send(cmd.Context(), args[0], f, cmd.Flags().Changed("seed"))
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&f.url, "url", "", "full `URL` to post to (default: the source's, on this machine)")
	fs.StringVar(&f.secret, "secret", "", "`secret` to sign with (default: the source's first); the private key where the source has the public one")
	fs.StringVar(&f.source, "source", "", "`name` of the source, when several are made for the provider")
	fs.StringVar(&f.typ, "type", "", "only events of this `type`; with --body, what headers say of it")
	fs.StringVar(&f.body, "body", "", "send this `file` instead of made-up events; - is standard input")
	fs.IntVar(&f.count, "count", 1, "how many distinct events")
	fs.Float64Var(&f.rate, "rate", 0, "requests a second at most; 0: as fast as the answers come")
	fs.StringVar(&f.duplicates, "duplicates", "0", "how many events are sent once more: a number, or a percentage such as 10%")
	fs.BoolVar(&f.outOfOrder, "out-of-order", false, "shuffle neighbouring events; each keeps its time")
	fs.Uint64Var(&f.seed, "seed", 0, "the same seed makes the same events, byte for byte (default: a random one)")
	fs.DurationVar(&f.wait, "wait", 0, "wait this long at most until every accepted event is stored and processed; needs postgres.url")
	fs.IntVar(&f.concurrency, "concurrency", 32, "requests in flight at most")
	return cmd
}

func (a *app) send(ctx context.Context, name string, f sendFlags, seeded bool) error {
	o, err := a.sendOptions(name, f, seeded)
	if err != nil {
		return err
	}
	source := ""
	if f.wait > 0 {
		if source, err = sourceInURL(o.URL); err != nil {
			return err
		}
	}
	bar := newBar(a.err, o.Count+o.Resends)
	o.Progress = func() { _ = bar.Add(1) }
	report, err := sender.Send(ctx, o)
	_ = bar.Finish()
	if err != nil {
		return fmt.Errorf("%w: %w", run.ErrUsage, err)
	}
	if err := a.answer(report, func(w io.Writer) { summary(w, report) }); err != nil {
		return err
	}
	if !report.OK() {
		fmt.Fprintf(a.err, "catchment: %s\n", advise(report))
		return errSaid
	}
	if f.wait > 0 {
		return a.awaitProcessed(ctx, source, report.IDs(), f.wait)
	}
	return nil
}

// sendOptions turns the flags into what the sender needs.
func (a *app) sendOptions(name string, f sendFlags, seeded bool) (sender.Options, error) {
	usage := func(format string, args ...any) (sender.Options, error) {
		return sender.Options{}, fmt.Errorf("%w: "+format, append([]any{run.ErrUsage}, args...)...)
	}
	p, ok := provider.ByName(name)
	if !ok {
		return usage("there is no provider %q: expected one of %s", name, provider.Names())
	}
	if f.count < 1 || f.concurrency < 1 || f.rate < 0 {
		return usage("--count and --concurrency must be at least 1, --rate not negative")
	}
	resends, err := share(f.duplicates, f.count)
	if err != nil {
		return usage("--duplicates: %w", err)
	}
	o := sender.Options{
		Provider: p, URL: f.url, Secret: f.secret, Type: f.typ, Count: f.count, Resends: resends, Rate: f.rate,
		OutOfOrder: f.outOfOrder, Seed: f.seed, Start: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Concurrency: f.concurrency,
		Client: &http.Client{
			Timeout:       requestTimeout,
			Transport:     &http.Transport{MaxIdleConnsPerHost: f.concurrency, DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	if !seeded {
		o.Seed, o.Start = rand.Uint64(), time.Now()
	}
	if f.body != "" {
		if o.Body, err = readBody(f.body); err != nil {
			return usage("--body: %w", err)
		}
	}
	if f.url == "" || f.secret == "" || f.source != "" {
		if err := a.fromSource(&o, f.source); err != nil {
			return sender.Options{}, err
		}
	}
	return o, nil
}

func readBody(path string) ([]byte, error) {
	if path == "-" {
		return io.ReadAll(os.Stdin)
	}
	b, err := os.ReadFile(path)
	if b == nil {
		b = []byte{} // an empty body is a body
	}
	return b, err
}

// share reads "120" or "10%" of n.
func share(text string, n int) (int, error) {
	number, percent := strings.CutSuffix(text, "%")
	v, err := strconv.ParseFloat(number, 64)
	if err != nil || v < 0 || v > 1e9 {
		return 0, fmt.Errorf("expected a number or a percentage, found %q", text)
	}
	if percent {
		return int(float64(n)*v/100 + 0.5), nil
	}
	if v != float64(int(v)) {
		return 0, fmt.Errorf("expected a whole number or a percentage, found %q", text)
	}
	return int(v), nil
}

// fromSource fills in what the flags leave out, from the source that is made for the provider.
func (a *app) fromSource(o *sender.Options, name string) error {
	cfg, err := settings.Load(a.config, settings.NeedIngress, settings.NeedSources)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: there is no %s: start `catchment up` here, name the file with --config, or give --url and --secret", run.ErrUsage, a.config)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", run.ErrUsage, err)
	}
	if name == "" {
		if name, err = theSource(cfg, o.Provider.Name); err != nil {
			return err
		}
	}
	source, ok := cfg.Sources[name]
	if !ok {
		return fmt.Errorf("%w: %s has no source %q", run.ErrUsage, a.config, name)
	}
	if source.Provider != o.Provider.Name {
		return fmt.Errorf("%w: source %q is made for %s, not for %s", run.ErrUsage, name, source.Provider, o.Provider.Name)
	}
	if o.URL == "" {
		o.URL = webhooksURL(cfg) + name
	}
	o.HMAC, o.Settings = source.HMAC, source.Options
	if o.SignURL, err = signURL(o.URL, source); err != nil {
		return err
	}
	if o.Secret == "" {
		if o.Secret, err = signer(o.Provider, cfg, source); err != nil {
			return fmt.Errorf("%w: secret of source %q: %w", run.ErrUsage, name, err)
		}
	}
	return nil
}

// signURL is the URL that the provider would know, for schemes that sign it; empty: the one that is posted to.
func signURL(target string, source settings.Source) (string, error) {
	public, _ := source.Options["public_url"].(string)
	if public == "" {
		public = source.PublicURL
	}
	if public == "" {
		return "", nil
	}
	u, err := url.Parse(target)
	if err != nil {
		return "", fmt.Errorf("%w: --url: %w", run.ErrUsage, err)
	}
	return provider.CalledURL(public, u.EscapedPath(), u.RawQuery), nil
}

// signer is what signs for the source: a secret of it, or an option. Of a key pair the source has the public half alone.
func signer(p *provider.Provider, cfg *settings.File, source settings.Source) (string, error) {
	c := p.NewCredentials()
	switch c.Signer {
	case "":
		return "", nil // there is nothing to sign with
	case c.Secret:
		return firstSecret(cfg, source)
	}
	for name, value := range c.Options {
		if value == c.Signer {
			text, _ := source.Options[name].(string)
			return text, nil
		}
	}
	if p.Doc.Signer != "" {
		return "", fmt.Errorf("it cannot sign: give with --secret %s", p.Doc.Signer)
	}
	return "", errors.New("it cannot sign, for it verifies with a public key: give the private one with --secret")
}

// theSource finds the one source for a provider: the one of its name, or the only one.
func theSource(cfg *settings.File, providerName string) (string, error) {
	if s, ok := cfg.Sources[providerName]; ok && s.Provider == providerName {
		return providerName, nil
	}
	var names []string
	for _, name := range slices.Sorted(maps.Keys(cfg.Sources)) {
		if cfg.Sources[name].Provider == providerName {
			names = append(names, name)
		}
	}
	switch len(names) {
	case 0:
		return "", fmt.Errorf("%w: catchment.yaml has no source for %s: add one, or give --url and --secret", run.ErrUsage, providerName)
	case 1:
		return names[0], nil
	}
	return "", fmt.Errorf("%w: several sources are made for %s: name one of %s with --source", run.ErrUsage, providerName, strings.Join(names, ", "))
}

func firstSecret(cfg *settings.File, s settings.Source) (string, error) {
	now := time.Now()
	for _, spec := range s.Secrets {
		if (!spec.NotBefore.IsZero() && now.Before(spec.NotBefore)) || (!spec.NotAfter.IsZero() && now.After(spec.NotAfter)) {
			continue
		}
		if spec.File == "" {
			return spec.Value.Reveal(), nil
		}
		b, err := os.ReadFile(cfg.Abs(strings.TrimPrefix(spec.File, "file:")))
		return strings.TrimRight(string(b), "\r\n"), err
	}
	return "", errors.New("there is none that is valid now: give one with --secret")
}

// webhooksURL is what a source's name is appended to, to reach it from this machine.
func webhooksURL(cfg *settings.File) string {
	base := run.BaseURL(cfg.Ingress.Listen)
	if cfg.Ingress.TLS != nil {
		base = "https" + strings.TrimPrefix(base, "http")
	}
	return base + "/webhooks/"
}

// newBar shows the progress on a terminal, and nothing elsewhere.
func newBar(w io.Writer, total int) *progressbar.ProgressBar {
	f, ok := w.(*os.File)
	visible := ok && term.IsTerminal(int(f.Fd()))
	return progressbar.NewOptions(total,
		progressbar.OptionSetWriter(w), progressbar.OptionSetVisibility(visible), progressbar.OptionSetDescription("sending"),
		progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionFullWidth(), progressbar.OptionClearOnFinish(),
	)
}

// summary prints what came of it.
func summary(w io.Writer, r *sender.Report) {
	fmt.Fprintf(w, "%d of %d distinct events accepted as %s by %s in %.1f s (%.0f requests/s)\n", r.Accepted, r.Events, r.Provider, clean(r.URL), r.Seconds, r.PerSecond)
	if r.OneEvent {
		fmt.Fprintln(w, "the body carries an ID of its own, which makes all requests one event")
	}
	line(w, "requests", r.Requests)
	for _, status := range slices.Sorted(maps.Keys(r.Statuses)) {
		line(w, "  "+status, r.Statuses[status])
	}
	line(w, "answered as duplicate", r.Duplicates)
	line(w, "latency", fmt.Sprintf("p50 %.1f ms, p90 %.1f ms, p99 %.1f ms, max %.1f ms", r.Latency.P50, r.Latency.P90, r.Latency.P99, r.Latency.Max))
	line(w, "seed", r.Seed)
}

// advise says what went wrong, and what may help.
func advise(r *sender.Report) string {
	text := fmt.Sprintf("%d of %d requests were not accepted", r.Refused, r.Requests)
	if r.Refused == 0 {
		text = fmt.Sprintf("%d events were not sent", r.NotAccepted)
	}
	for _, p := range slices.Sorted(maps.Keys(r.Problems)) {
		text += fmt.Sprintf("\n  %d × %s", r.Problems[p], clean(p))
	}
	switch {
	case r.Statuses["no answer"] > 0:
		text += "\nis `catchment up` running, and the URL right?"
	case r.Statuses["401"] > 0:
		text += "\nthe secret is not the source's: compare --secret with catchment.yaml"
	}
	return text
}
