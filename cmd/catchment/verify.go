package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/catchment-dev/catchment/ingress"
	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/provider"
	"github.com/catchment-dev/catchment/pkg/run"
	"github.com/catchment-dev/catchment/pkg/settings"
)

// What verify says of a request that reaches no judge. The other outcomes are the ingress's own.
const (
	outcomeAccepted      = "accepted"
	outcomeHandshake     = "handshake"
	outcomeConfigError   = "config_error"
	outcomeUnknownSource = "unknown_source"
)

// verdict is one line that verify answers.
type verdict struct {
	Source   string           `json:"source"`
	Verified bool             `json:"verified"` // the source would accept it
	Outcome  string           `json:"outcome"`
	Reason   string           `json:"reason"`
	Events   []verdictEvent   `json:"events"`
	Response *verdictResponse `json:"response,omitempty"` // to a handshake
}

type verdictEvent struct {
	ID   string  `json:"id"`
	Type string  `json:"type"`
	Time *string `json:"time"` // RFC 3339; null: the provider says none
}

type verdictResponse struct {
	Status  int               `json:"status"`
	Headers map[string]string `json:"headers"`
	Body    []byte            `json:"body_base64"`
}

func newVerify(a *app) *cobra.Command {
	var keys string
	cmd := &cobra.Command{
		Use:   "verify REQUESTS.jsonl",
		Short: "Say for saved requests whether their source would accept them, and exactly why not",
		Long: `Judge saved requests as the ingress would, without Kafka and without the network: one JSON object a line in, one
a line out, in the same order. - reads standard input. Exit code 0 says that every request was judged, whatever
the verdict; 1, that a line could not be read (the others are judged).

In:   {"source", "method", "path", "query", "headers": {name: text or [texts]}, "body_base64", "at": Unix seconds}
Out:  {"source", "verified", "outcome", "reason", "events": [{"id", "type", "time"}], "response" (to a handshake)}

Only the source must be named; the method is POST, the path /webhooks/{source}, and the time now, unless said
otherwise. Schemes that fetch keys find them in the file of --keys:
{"fetch": {URL or "jwks:{source}": content}, "roots": [PEM]}.`,
		Example: "  catchment verify requests.jsonl\n  catchment verify --keys keys.json - <requests.jsonl | jq 'select(.verified | not)'",
		Args:    exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.verify(cmd.Context(), cmd.InOrStdin(), args[0], keys)
		},
	}
	cmd.Flags().StringVar(&keys, "keys", "", "`file` with the keys and certificates that schemes would fetch")
	return cmd
}

func (a *app) verify(ctx context.Context, stdin io.Reader, path, keysPath string) error {
	b, err := a.newBench(keysPath)
	if err != nil {
		return err
	}
	in := stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("%w: read requests: %w", run.ErrUsage, err)
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	lines, out, unread := bufio.NewReader(in), json.NewEncoder(a.out), 0
	out.SetEscapeHTML(false)
	for n := 1; ; n++ {
		text, err := readLine(lines)
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil && len(text) == 0 {
			continue
		}
		var saved savedRequest
		if err == nil {
			saved, err = parseSaved(text)
		}
		if err != nil {
			fmt.Fprintf(a.err, "catchment: %s:%d: %v\n", path, n, err)
			unread++
			if !errors.Is(err, errLine) {
				break // there is no next line
			}
			continue
		}
		if err := out.Encode(b.judge(ctx, &saved)); err != nil {
			return fmt.Errorf("print the verdict: %w", err)
		}
	}
	if unread > 0 {
		return errSaid
	}
	return nil
}

// bench has a judge for every source that is asked for. A source that is wrong does not keep the others from judging.
type bench struct {
	file   string
	cfg    *settings.File
	wrong  map[string]config.Errors // by source
	keys   *provider.OfflineKeys
	judges map[string]*ingress.Judge
	now    func() time.Time
}

func (a *app) newBench(keysPath string) (*bench, error) {
	cfg, errs, err := settings.LoadPartly(a.config, false, settings.NeedIngress, settings.NeedSources)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: there is no %s: name the file with --config", run.ErrUsage, a.config)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", run.ErrUsage, err)
	}
	b := &bench{
		file: a.config, cfg: cfg, wrong: map[string]config.Errors{}, keys: &provider.OfflineKeys{}, judges: map[string]*ingress.Judge{}, now: time.Now,
	}
	for _, path := range b.nameSecrets() {
		fmt.Fprintf(a.err, "catchment: %v\n", cfg.Errorf(path, "needs an id, without which no service starts: its requests are judged all the same"))
	}
	for _, e := range errs {
		if name := sourceAt(cfg, e.Path); name != "" {
			b.wrong[name] = append(b.wrong[name], e)
			continue
		}
		if e.Path == "sources" || e.Path == "ingress" || e.Path == "ingress.max_body" || e.Path == "ingress.trusted_proxies" {
			return nil, config.Errors{e}
		}
		fmt.Fprintf(a.err, "catchment: not looked at: %v\n", e)
	}
	if keysPath == "" {
		return b, nil
	}
	text, err := os.ReadFile(keysPath)
	if err != nil {
		return nil, fmt.Errorf("%w: --keys: %w", run.ErrUsage, err)
	}
	if b.keys, err = provider.ParseOfflineKeys(text); err != nil {
		return nil, fmt.Errorf("%w: --keys %s: %w", run.ErrUsage, keysPath, err)
	}
	return b, nil
}

// nameSecrets gives an ID to passwords and tokens that have none, and returns their paths: whoever judges requests
// tells nobody which secret has fitted.
func (b *bench) nameSecrets() (paths []string) {
	for _, name := range slices.Sorted(maps.Keys(b.cfg.Sources)) {
		s := b.cfg.Sources[name]
		p, ok := provider.ByName(s.Provider)
		if !ok || !p.NeedsSecretID() {
			continue
		}
		for i := range s.Secrets {
			if s.Secrets[i].ID == "" {
				s.Secrets[i].ID = fmt.Sprintf("secret-%d", i)
				paths = append(paths, fmt.Sprintf("sources.%s.secrets[%d]", name, i))
			}
		}
	}
	return paths
}

// sourceAt names the source that a path of the configuration leads into: the longest name that fits, for names may
// contain dots.
func sourceAt(cfg *settings.File, path string) (source string) {
	rest, ok := strings.CutPrefix(path, "sources.")
	if !ok {
		return ""
	}
	for name := range cfg.Sources {
		if behind, ok := strings.CutPrefix(rest, name); ok && (behind == "" || behind[0] == '.') && len(name) > len(source) {
			source = name
		}
	}
	return source
}

func (b *bench) judge(ctx context.Context, saved *savedRequest) verdict {
	v := verdict{Source: saved.Source, Events: []verdictEvent{}}
	if _, ok := b.cfg.Sources[saved.Source]; !ok {
		v.Outcome, v.Reason = outcomeUnknownSource, "there is no such source in "+b.file
		return v
	}
	j, errs := b.judgeOf(saved.Source)
	if len(errs) > 0 {
		v.Outcome, v.Reason = outcomeConfigError, strings.ReplaceAll(errs.Error(), "\n", "; ")
		return v
	}
	r := saved.request
	if r.Now.IsZero() {
		r.Now = b.now()
	}
	// What a trusted proxy adds counts, for nobody can say any more which connection the request came through.
	r.FromProxy = len(b.cfg.Ingress.TrustedProxies) > 0
	g := j.Judge(ctx, &r)
	v.Outcome, v.Reason = g.Outcome, g.Reason
	switch g.Outcome {
	case outcomeAccepted:
		v.Verified, v.Events = true, eventsOf(&g.Verified)
	case outcomeHandshake:
		v.Verified, v.Response = true, responseOf(g.Response)
	}
	return v
}

func (b *bench) judgeOf(source string) (*ingress.Judge, config.Errors) {
	if errs := b.wrong[source]; len(errs) > 0 {
		return nil, errs
	}
	if j, ok := b.judges[source]; ok {
		return j, nil
	}
	j, errs := ingress.NewJudge(b.cfg, source, b.keys)
	b.judges[source], b.wrong[source] = j, errs
	return j, errs
}

func eventsOf(v *provider.Verified) []verdictEvent {
	if v.Parts == nil {
		return []verdictEvent{eventOf(&v.Identity)}
	}
	events := make([]verdictEvent, len(v.Parts))
	for i := range v.Parts {
		events[i] = eventOf(&v.Parts[i].Identity)
	}
	return events
}

func eventOf(i *provider.Identity) verdictEvent {
	e := verdictEvent{ID: i.ID, Type: i.Type}
	if !i.Time.IsZero() {
		text := i.Time.UTC().Format(time.RFC3339Nano)
		e.Time = &text
	}
	return e
}

func responseOf(r *provider.Response) *verdictResponse {
	v := &verdictResponse{Status: r.Status, Headers: map[string]string{}, Body: r.Body}
	if v.Body == nil {
		v.Body = []byte{} // an empty text, not null
	}
	for name, values := range r.Header {
		v.Headers[name] = strings.Join(values, ", ")
	}
	return v
}
