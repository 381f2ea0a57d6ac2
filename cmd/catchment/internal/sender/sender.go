// Package sender posts webhooks as a provider would. A provider, a secret and a URL come in, signed requests go out,
// and a report of the answers comes back. It never counts an event as accepted that nobody answered with a 2xx, and
// it does not retry.
package sender

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/catchment-dev/catchment/pkg/provider"
)

// Options say what to send.
type Options struct {
	Provider *provider.Provider
	URL      string
	SignURL  string         // the URL that the provider knows, for schemes that sign it; empty: URL
	Secret   string         // what signs: the source's secret, or the private key of a scheme with key pairs
	Settings map[string]any // the source's options
	HMAC     *provider.HMAC // for provider hmac

	Type string // only events of this type; empty: the provider's mixture
	Body []byte // this body instead of made-up events; nil: made-up ones

	Count       int     // distinct events
	Resends     int     // how many of them are sent once more, signed afresh
	Rate        float64 // requests a second; 0: as fast as the answers come
	OutOfOrder  bool    // shuffle neighbours; each event keeps its time
	Seed        uint64  // the same seed and start make the same events, byte for byte
	Start       time.Time
	Concurrency int

	Progress func() // called after each answer; nil: nobody
	Client   *http.Client
}

// neighbourhood is how far OutOfOrder moves an event, at most.
const neighbourhood = 50

// typeAttempts is how many made-up events are looked at to find one of the wanted type.
const typeAttempts = 64

// post is one request: the event seq, for the first time or again.
type post struct {
	seq   int
	again bool
}

// Send posts everything and reports. The error is only for what keeps it from sending at all; refusals are in the
// report. When ctx ends it stops, and what was not sent counts as not accepted.
func Send(ctx context.Context, o Options) (*Report, error) {
	s := &sending{o: o, report: newReport(o), first: make([]chan struct{}, o.Count)}
	if _, err := s.request(ctx, 0); err != nil {
		return nil, err
	}
	for i := range s.first {
		s.first[i] = make(chan struct{})
	}
	queue := make(chan post)
	var workers sync.WaitGroup
	for range max(1, o.Concurrency) {
		workers.Go(func() {
			for p := range queue {
				s.post(ctx, p)
			}
		})
	}
	start := time.Now()
	s.dispatch(ctx, queue)
	close(queue)
	workers.Wait()
	s.report.finish(time.Since(start))
	return s.report, nil
}

// event makes the event seq, always the same.
func (o *Options) event(seq int) (provider.Sample, error) {
	r := rand.New(rand.NewPCG(o.Seed, uint64(seq)))
	if o.Body != nil {
		var id uuid.UUID
		for i := range id {
			id[i] = byte(r.Uint32())
		}
		return provider.Sample{ID: id.String(), Type: o.Type, Body: o.Body, Header: http.Header{"Content-Type": {contentType(o.Body)}}}, nil
	}
	// The events happened one a second, the last one now.
	in := provider.SampleInput{Seq: seq, Now: o.Start.Add(time.Duration(seq+1-o.Count) * time.Second), Run: uint32(o.Seed ^ o.Seed>>32)}
	seen := map[string]bool{}
	if o.Type == "" {
		return o.Provider.Sample(r, in), nil
	}
	for i := range typeAttempts {
		in.Seq = seq*typeAttempts + i // the number has a say in the type
		s := o.Provider.Sample(r, in)
		if s.Type == o.Type {
			return s, nil
		}
		seen[s.Type] = true
	}
	return provider.Sample{}, fmt.Errorf("%s has no made-up events of type %q, only %s: give one with --body FILE", o.Provider.Name, o.Type, list(seen))
}

func contentType(body []byte) string {
	if json.Valid(body) {
		return "application/json"
	}
	return "application/octet-stream"
}

// sending is one call of Send.
type sending struct {
	o     Options
	first []chan struct{} // by event: closed when its first request was answered

	mu     sync.Mutex
	report *Report
}

// plan orders the posts. A resend comes somewhere behind the first.
func (o *Options) plan() []post {
	r := rand.New(rand.NewPCG(o.Seed, 1<<63))
	order := make([]int, o.Count)
	for i := range order {
		order[i] = i
	}
	if o.OutOfOrder {
		for i := 0; i < len(order); i += neighbourhood {
			part := order[i:min(i+neighbourhood, len(order))]
			r.Shuffle(len(part), func(a, b int) { part[a], part[b] = part[b], part[a] })
		}
	}
	again := make([][]int, o.Count) // by place in the order: what is sent again behind it
	for range o.Resends {
		of := r.IntN(o.Count)
		at := of + r.IntN(min(o.Count-of, 4*neighbourhood))
		again[at] = append(again[at], order[of])
	}
	posts := make([]post, 0, o.Count+o.Resends)
	for i, seq := range order {
		posts = append(posts, post{seq: seq})
		for _, old := range again[i] {
			posts = append(posts, post{seq: old, again: true})
		}
	}
	return posts
}

// dispatch hands out the posts, at the wanted rate.
func (s *sending) dispatch(ctx context.Context, queue chan<- post) {
	start := time.Now()
	for i, p := range s.o.plan() {
		if s.o.Rate > 0 {
			pause := time.NewTimer(time.Until(start.Add(time.Duration(float64(i) / s.o.Rate * float64(time.Second)))))
			select {
			case <-pause.C:
			case <-ctx.Done():
				pause.Stop()
			}
		}
		select {
		case queue <- p:
		case <-ctx.Done():
			return
		}
	}
}

// post sends one request and notes the answer.
func (s *sending) post(ctx context.Context, p post) {
	if p.again { // what is answered as a duplicate must have been accepted before
		select {
		case <-s.first[p.seq]:
		case <-ctx.Done():
			return
		}
	} else {
		defer close(s.first[p.seq])
	}
	a := s.answer(ctx, p.seq)
	s.mu.Lock()
	s.report.add(p, a)
	s.mu.Unlock()
	if s.o.Progress != nil {
		s.o.Progress()
	}
}

// answer is what came back for one request.
type answer struct {
	status    string // "200", or what kept the request from being answered
	accepted  bool
	duplicate bool
	id        string // as the receiver calls the event
	problem   string // what the receiver says of a refusal
	took      time.Duration
}

func (s *sending) answer(ctx context.Context, seq int) answer {
	req, err := s.request(ctx, seq)
	if err != nil {
		return answer{status: "not sent", problem: err.Error()}
	}
	start := time.Now()
	resp, err := s.o.Client.Do(req)
	if err != nil {
		return answer{status: "no answer", problem: cause(err), took: time.Since(start)}
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	a := answer{status: strconv.Itoa(resp.StatusCode), took: time.Since(start)}
	if a.accepted = resp.StatusCode >= 200 && resp.StatusCode < 300; !a.accepted {
		a.problem = problem(resp.Status, body)
		return a
	}
	if err != nil { // the status came, so that it counts; what it was called is not known
		return a
	}
	var said struct{ Status, ID string }
	if json.Unmarshal(body, &said) == nil {
		a.id, a.duplicate = said.ID, said.Status == "duplicate"
	}
	return a
}

// cause says why there was no answer, in words that are the same for all requests: without the URL, which they share,
// and without the port of this side, which differs.
func cause(err error) string {
	var whole *url.Error
	if errors.As(err, &whole) {
		err = whole.Err
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op != "dial" {
		return op.Op + " " + op.Net + ": " + op.Err.Error()
	}
	return err.Error()
}

// request builds and signs the request of an event.
func (s *sending) request(ctx context.Context, seq int) (*http.Request, error) {
	sample, err := s.o.event(seq)
	if err != nil {
		return nil, err
	}
	in := &provider.SignInput{
		Secret: s.o.Secret, Options: s.o.Settings, URL: s.o.URL, Body: sample.Body, Now: time.Now(), Sample: sample, HMAC: s.o.HMAC,
	}
	if s.o.SignURL != "" {
		in.URL = s.o.SignURL
	}
	signed, err := s.o.Provider.Sign(in)
	if err != nil {
		return nil, fmt.Errorf("sign as %s: %w", s.o.Provider.Name, err)
	}
	target := s.o.URL
	if signed.URL != in.URL { // the scheme writes something into the query
		if _, query, ok := strings.Cut(signed.URL, "?"); ok {
			target, _, _ = strings.Cut(target, "?")
			target += "?" + query
		}
	}
	req, err := http.NewRequestWithContext(ctx, signed.Method, target, bytes.NewReader(signed.Body))
	if err != nil {
		return nil, err
	}
	req.Header = signed.Header
	return req, nil
}

// problem shortens what a receiver says of a refusal to one line.
func problem(status string, body []byte) string {
	var p struct{ Title, Detail string }
	if json.Unmarshal(body, &p) == nil && p.Title != "" {
		if p.Detail != "" {
			return status + ": " + p.Title + ": " + p.Detail
		}
		return status + ": " + p.Title
	}
	return status
}
