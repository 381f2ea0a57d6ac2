package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/catchment-dev/catchment/archiver/archive"
	"github.com/catchment-dev/catchment/archiver/keys"
	"github.com/catchment-dev/catchment/pkg/run"
)

// catFlags select a delivery, and what of it is printed.
type catFlags struct {
	rangeFlags
	source, delivery string
	all, head        bool
}

func newArchiveCat(a *app) *cobra.Command {
	var f catFlags
	c := &cobra.Command{
		Use:   "cat EVENT_ID",
		Short: "Print an archived event's body, byte for byte",
		Long: "Print the body of an event's first archived delivery to standard output, and nothing else. Where it was delivered several times,\n" +
			"standard error says so: --all lists the deliveries, --delivery chooses one. --headers prints the request as it came, and\n" +
			"--output json everything that is archived. What is encrypted is decrypted with archive.encryption. An event of a delivery that carried several lies under the delivery's key, which\n" +
			"`catchment events show` tells. An ID that begins with a dash stands behind two dashes, after all flags.",
		Example: "  catchment archive cat evt_1 >body.json\n  catchment archive cat evt_1 --headers | less",
		Args:    exactly(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.cat(cmd.Context(), args[0], f) },
	}
	f.register(c)
	c.Flags().StringVar(&f.source, "source", "", "of this source, when several have an event of this ID")
	c.Flags().StringVar(&f.delivery, "delivery", "", "the delivery of this `ID`, not the first one")
	c.Flags().BoolVar(&f.all, "all", false, "list all deliveries of the event, not a body")
	c.Flags().BoolVar(&f.head, "headers", false, "print the request line and the headers before the body")
	return c
}

// catView is an archived delivery.
type catView struct {
	Source     string              `json:"source"`
	Provider   string              `json:"provider"`
	ID         string              `json:"event_id"`
	Type       string              `json:"type"`
	DeliveryID string              `json:"delivery_id"`
	ReceivedAt time.Time           `json:"received_at"`
	StoredAt   time.Time           `json:"kafka_timestamp"`
	Method     string              `json:"method"`
	Path       string              `json:"path"`
	Query      string              `json:"query"`
	SignedURL  string              `json:"signed_url"`
	RemoteAddr string              `json:"remote_addr"`
	SecretID   string              `json:"secret_id"`
	Verdict    string              `json:"verdict"`
	Headers    map[string][]string `json:"headers"`
	Body       []byte              `json:"body_base64"`
	BodySHA256 string              `json:"body_sha256"`
	BodyKeyID  string              `json:"body_key_id,omitempty"`
	Topic      string              `json:"topic"`
	Partition  int32               `json:"partition"`
	Offset     int64               `json:"offset"`
	Segment    string              `json:"segment"`
	Row        int64               `json:"row"`
}

func (a *app) cat(ctx context.Context, id string, f catFlags) error {
	in, err := f.parse()
	if err != nil {
		return err
	}
	cfg, store, err := a.openArchive(ctx)
	if err != nil {
		return err
	}
	ring, err := keys.Open(ctx, cfg.Archive)
	if err != nil {
		return err
	}
	found, err := archive.Search(ctx, store, f.source, id, in)
	if len(found) == 0 {
		if err != nil {
			return fmt.Errorf("event %q was not found, and a part of the archive could not be read: %w", id, err)
		}
		return fmt.Errorf("the archive has no event %q: it was not received, or its segment is not closed yet; one that came with others lies under its delivery's key (`catchment events show`)", id)
	}
	if err != nil {
		fmt.Fprintf(a.err, "catchment: a part of the archive could not be read, there may be more deliveries: %v\n", err)
	}
	if f.all {
		for _, at := range found {
			if err := ring.Unseal(ctx, at.Record); err != nil {
				fmt.Fprintf(a.err, "catchment: delivery %s: %v\n", at.Record.DeliveryID, err)
			}
		}
		return a.listDeliveries(found)
	}
	at, err := choose(found, id, f.delivery)
	if err != nil {
		return err
	}
	if len(found) > 1 && f.delivery == "" {
		fmt.Fprintf(a.err, "catchment: this is the first of %d deliveries: --all lists them, --delivery ID chooses one\n", len(found))
	}
	if err := ring.Unseal(ctx, at.Record); err != nil {
		if a.output != "json" {
			return fmt.Errorf("event %q: %w; --output json prints it as it is archived", id, err)
		}
		fmt.Fprintf(a.err, "catchment: printed as it is archived: %v\n", err)
	}
	return a.printDelivery(at, f.head)
}

// choose returns the delivery that was asked for, or the first.
func choose(found []archive.Place, id, delivery string) (archive.Place, error) {
	if delivery != "" {
		for _, at := range found {
			if at.Record.DeliveryID == delivery {
				return at, nil
			}
		}
		return archive.Place{}, fmt.Errorf("event %q has no delivery %q: --all lists them", id, delivery)
	}
	var sources []string
	for _, at := range found {
		if !slices.Contains(sources, at.Record.Source) {
			sources = append(sources, at.Record.Source)
		}
	}
	if len(sources) > 1 {
		return archive.Place{}, fmt.Errorf("%w: several sources have an event %q: name one of %s with --source", run.ErrUsage, id, strings.Join(sources, ", "))
	}
	return found[0], nil
}

func (a *app) printDelivery(at archive.Place, head bool) error {
	if a.output == "json" {
		return a.answer(viewOfPlace(at), nil)
	}
	d, _ := at.Record.Delivery()
	if head {
		target := d.Path
		if d.Query != "" {
			target += "?" + d.Query
		}
		if _, err := fmt.Fprintf(a.out, "%s %s\n", d.Method, target); err != nil {
			return fmt.Errorf("print the request: %w", err)
		}
		for _, h := range d.Headers {
			if _, err := fmt.Fprintf(a.out, "%s: %s\n", h.Name, h.Value); err != nil {
				return fmt.Errorf("print the request: %w", err)
			}
		}
		if _, err := io.WriteString(a.out, "\n"); err != nil {
			return fmt.Errorf("print the request: %w", err)
		}
	}
	if _, err := a.out.Write(d.Body); err != nil {
		return fmt.Errorf("print the body: %w", err)
	}
	return nil
}

func (a *app) listDeliveries(found []archive.Place) error {
	list := a.newList("RECEIVED", "SOURCE", "DELIVERY", "BYTES", "SHA-256", "SEGMENT", "ROW")
	for _, at := range found {
		v := viewOfPlace(at)
		list.add(v, stamp(v.ReceivedAt), v.Source, v.DeliveryID, len(v.Body), v.BodySHA256, v.Segment, v.Row)
	}
	return list.end()
}

func viewOfPlace(at archive.Place) catView {
	w := at.Record
	d, _ := w.Delivery()
	v := catView{
		Source: w.Source, Provider: w.Provider, ID: w.EventID, Type: w.Type, DeliveryID: w.DeliveryID, ReceivedAt: w.ReceivedAt, StoredAt: w.KafkaTimestamp,
		Method: w.Method, Path: w.Path, Query: w.Query, SignedURL: w.SignedURL, RemoteAddr: w.RemoteAddr, SecretID: w.SecretID, Verdict: w.Verdict,
		Headers: d.HeaderMap(), Body: w.Body, BodySHA256: hex.EncodeToString(w.BodySHA256[:]), BodyKeyID: w.BodyKeyID,
		Topic: w.Topic, Partition: w.Partition, Offset: w.Offset, Segment: at.Key, Row: at.Row,
	}
	if v.Body == nil {
		v.Body = []byte{} // an empty text, not null
	}
	return v
}
