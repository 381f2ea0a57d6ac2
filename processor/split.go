package processor

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/provider"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor/internal/store"
)

// maxEvents bounds the events of one delivery: they are stored in one transaction.
const maxEvents = 20_000

// reader makes events of records. It is safe for concurrent use.
type reader struct {
	splitters map[[2]string]*provider.Splitter // by source and provider
}

// newReader opens the rules by which the sources' deliveries are taken apart.
func newReader(cfg *settings.File) (*reader, config.Errors) {
	r := &reader{splitters: map[[2]string]*provider.Splitter{}}
	var errs config.Errors
	for _, name := range slices.Sorted(maps.Keys(cfg.Sources)) {
		s := cfg.Sources[name]
		p, ok := provider.ByName(s.Provider)
		if !ok || !p.Splits() {
			continue // a delivery is an event; what else is wrong with the source is the ingress's to say
		}
		split, err := provider.NewSplitter(provider.Config{Source: name, Provider: s.Provider, EventID: s.EventID, EventType: s.EventType})
		for _, e := range flatten(err) {
			path := "sources." + name
			if ce := (*provider.ConfigError)(nil); errors.As(e, &ce) {
				path, e = path+"."+ce.Key, ce.Err
			}
			errs = append(errs, cfg.Errorf(path, "%v", e))
		}
		r.splitters[[2]string{name, s.Provider}] = split
	}
	return r, errs
}

// read decodes a record: into one item, or into one for each event of a delivery that carries several. What is no event
// is one item with an error.
func (rd *reader) read(p store.Partition, r *kgo.Record) []item {
	if r.Attrs.IsControl() {
		return []item{{rec: r, skip: true}}
	}
	d, err := event.Decode(r)
	if err != nil {
		return []item{{rec: r, err: err, reason: reasonUndecodable}}
	}
	events, err := rd.events(d, event.Position{
		Topic: p.Topic, TopicID: p.TopicID, Partition: p.Partition, Offset: r.Offset, LeaderEpoch: r.LeaderEpoch,
	})
	if err != nil {
		return []item{{rec: r, err: err, reason: reasonUnsplittable}}
	}
	items := make([]item, len(events))
	for i := range events {
		ev := &events[i]
		if err := (store.Key{Source: ev.Source, ID: ev.ID}).Storable(); err != nil {
			return []item{{rec: r, err: err, reason: reasonUndecodable}}
		}
		sum := sha256.Sum256(ev.Body)
		items[i] = item{rec: r, ev: ev, digest: sum[:], verdict: string(d.Verdict)}
	}
	return items
}

// events gives a delivery's events. The ingress has said whether it carries several, and their names come from its rules.
func (rd *reader) events(d *event.Delivery, at event.Position) ([]event.Event, error) {
	whole := d.Event(at)
	if !d.Verdict.Has(event.FlagBatch) {
		return []event.Event{whole}, nil
	}
	split, err := rd.splitter(d.Source, d.Provider)
	if err != nil {
		return nil, err
	}
	parts, err := split.Split(d.ID, request(d))
	switch {
	case err != nil:
		return nil, fmt.Errorf("the delivery cannot be taken apart: %w", err)
	case parts == nil:
		return nil, fmt.Errorf("the delivery cannot be taken apart: expected several events as provider %s sends them", d.Provider)
	case len(parts) > maxEvents:
		return nil, fmt.Errorf("the delivery carries %d events: expected at most %d", len(parts), maxEvents)
	}
	events := make([]event.Event, len(parts))
	for i := range parts {
		ev := whole
		ev.ID, ev.Type, ev.Time, ev.Index, ev.Body = parts[i].ID, parts[i].Type, parts[i].Time, i, parts[i].Body
		ev.ContentType = "application/json" // the element's; the request's stays in the headers
		events[i] = ev
	}
	return events, nil
}

// splitter has the rules of the delivery's own provider, also when the source is configured otherwise by now.
func (rd *reader) splitter(source, name string) (*provider.Splitter, error) {
	if s := rd.splitters[[2]string{source, name}]; s != nil {
		return s, nil
	}
	return provider.NewSplitter(provider.Config{Source: source, Provider: name})
}

// request is what the rules look at: headers and body, as they came.
func request(d *event.Delivery) *provider.Request {
	h := make(http.Header, len(d.Headers))
	for _, one := range d.Headers {
		h.Add(one.Name, one.Value)
	}
	if h.Get("Content-Type") == "" && d.ContentType != "" {
		h.Set("Content-Type", d.ContentType)
	}
	return &provider.Request{Method: d.Method, Path: d.Path, RawQuery: d.Query, Header: h, Body: d.Body, Now: d.ReceivedAt}
}

// whole measures the leading items that make up whole records: n at most, unless the first record has more.
func whole(items []item, n int) int {
	end := 0
	for i := 1; i <= len(items); i++ {
		if i < len(items) && items[i].rec == items[i-1].rec {
			continue
		}
		if end > 0 && i > n {
			break
		}
		end = i
	}
	return end
}
