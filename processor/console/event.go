package console

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/processor/control"
	"github.com/catchment-dev/catchment/processor/inspect"
)

// ErrNotArchived says that a delivery is not in the archive, or not yet.
var ErrNotArchived = errors.New("not in the archive, or not yet")

// eventPage is the whole way of one event.
type eventPage struct {
	*inspect.Detail
	Steps      []step
	Runs       []attempts
	Deliveries []delivery
	Places     string // where the archive's places are told; empty: this program does not read the archive
	Payload    *payload
}

// step is one moment of the event's way.
type step struct {
	At    time.Time
	Kind  string // a class: good, warn, bad, plain
	What  string
	More  string
	After time.Duration // since the receipt
	Due   bool          // it is still to come
	First bool          // the receipt, behind which the record's time in Kafka is shown
}

// attempts is what became of one operation.
type attempts struct {
	Operation string
	Attempts  []inspect.Result
	Waiting   *inspect.Retry
	Letter    *inspect.DeadLetter
}

// Outcome is how the operation stands.
func (r attempts) Outcome() string {
	switch {
	case r.Letter != nil:
		return "dead"
	case r.Waiting != nil:
		return "waiting"
	case len(r.Attempts) > 0:
		return r.Attempts[len(r.Attempts)-1].Outcome
	}
	return ""
}

// delivery is one delivery of the event.
type delivery struct {
	Kind       string // first, duplicate or conflict
	ID         string
	ReceivedAt time.Time
	SeenAt     time.Time
	Topic      string
	TopicID    string
	Partition  int32
	Offset     int64
	SHA256     string
}

func (c *Console) event(v *visit) error {
	source, id := v.Form.Get("source"), v.Form.Get("id")
	if id == "" {
		return wrong("Which event?")
	}
	if source == "" {
		sources, err := inspect.Sources(v.Context(), c.db, id)
		if err != nil {
			return err
		}
		if len(sources) != 1 { // none, or one must be chosen
			http.Redirect(v.w, v.Request, eventForm{ID: id}.With("id", id), http.StatusSeeOther)
			return nil
		}
		http.Redirect(v.w, v.Request, eventURL(sources[0], id), http.StatusSeeOther)
		return nil
	}
	p, err := c.eventOf(v, source, id)
	if err != nil {
		return err
	}
	return v.render("event", id, p)
}

func (c *Console) eventOf(v *visit, source, id string) (*eventPage, error) {
	d, err := inspect.Show(v.Context(), c.db, source, id)
	switch {
	case errors.Is(err, inspect.ErrBodyGone):
		return nil, &fault{http.StatusGone, "The event was received and done with, and its body was removed: " + err.Error() + "."}
	case errors.Is(err, inspect.ErrNoEvent):
		return nil, missing("Source %s has no event %s: it was not received, or is not processed yet.", visible(source), visible(id))
	case err != nil:
		return nil, err
	}
	p := &eventPage{Detail: d, Deliveries: deliveriesOf(d), Runs: runsOf(d)}
	p.Steps = stepsOf(d)
	if c.outside.Locate != nil {
		p.Places = "/console/event/places?" + strings.TrimPrefix(eventURL(source, id), "/console/event?")
	}
	return p, nil
}

func deliveriesOf(d *inspect.Detail) []delivery {
	out := []delivery{{
		"first", d.DeliveryID, d.ReceivedAt, d.StoredAt, d.Topic, hex.EncodeToString(d.TopicID[:]), d.Partition, d.Offset, hex.EncodeToString(d.BodySHA256),
	}}
	for _, more := range []struct {
		kind string
		of   []inspect.Delivery
	}{{"duplicate", d.Duplicates}, {"conflict", d.Conflicts}} {
		for _, m := range more.of {
			out = append(out, delivery{
				more.kind, m.DeliveryID, m.ReceivedAt, m.SeenAt, m.Topic, hex.EncodeToString(m.TopicID[:]), m.Partition, m.Offset, hex.EncodeToString(m.BodySHA256),
			})
		}
	}
	return out
}

func runsOf(d *inspect.Detail) []attempts {
	by := map[string]*attempts{}
	get := func(name string) *attempts {
		if by[name] == nil {
			by[name] = &attempts{Operation: name}
		}
		return by[name]
	}
	for _, r := range d.Results {
		of := get(r.Operation)
		of.Attempts = append(of.Attempts, r)
	}
	for i := range d.Waiting {
		get(d.Waiting[i].Operation).Waiting = &d.Waiting[i]
	}
	for i, l := range d.DeadLetters {
		if l.Operation != nil {
			get(*l.Operation).Letter = &d.DeadLetters[i]
		}
	}
	out := []attempts{}
	for _, name := range slices.Sorted(maps.Keys(by)) {
		out = append(out, *by[name])
	}
	return out
}

// classes of outcomes.
var classes = map[string]string{"succeeded": "good", "superseded": "plain", "failed": "warn", "deferred": "warn", "dead": "bad"}

// stepsOf puts the event's way in order.
func stepsOf(d *inspect.Detail) []step {
	var steps []step
	add := func(at time.Time, kind, what, more string) {
		steps = append(steps, step{At: at, Kind: kind, What: what, More: more})
	}
	if d.Time != nil {
		add(*d.Time, "plain", "Happened", "as "+d.Provider+" says")
	}
	add(d.ReceivedAt, "good", "Received and verified", "by secret "+d.SecretID+" ("+d.Verdict+")")
	steps[len(steps)-1].First = true
	add(d.StoredAt, "good", "Stored", "from Kafka, partition "+fmt.Sprint(d.Partition)+", offset "+number(d.Offset))
	for _, r := range d.Results {
		more := fmt.Sprintf("attempt %d", r.Number)
		if r.Duration > 0 {
			more += ", took " + took(r.Duration)
		}
		if r.RowsAffected != nil {
			more += ", rows: " + number(*r.RowsAffected)
		}
		add(r.StartedAt, classes[r.Outcome], r.Operation+" "+r.Outcome, more)
	}
	for _, m := range d.Duplicates {
		add(m.ReceivedAt, "plain", "Received again", "with the same body: nothing was done again")
	}
	for _, m := range d.Conflicts {
		add(m.ReceivedAt, "warn", "Received with another body", "the first body stands: a conflict")
	}
	for _, l := range d.DeadLetters {
		add(l.LastFailedAt, "bad", "Dead letter: "+deref(l.Operation), l.Reason)
	}
	for _, r := range d.Waiting {
		steps = append(steps, step{At: r.DueAt, Kind: "warn", What: r.Operation + " is due again", More: fmt.Sprintf("attempt %d", r.Attempt), Due: true})
	}
	slices.SortStableFunc(steps, func(a, b step) int { return a.At.Compare(b.At) })
	for i := range steps {
		steps[i].After = steps[i].At.Sub(d.ReceivedAt)
	}
	return steps
}

// found is where one delivery lies in the archive.
type found struct {
	Delivery string `json:"delivery"`
	*Place
	Note string `json:"note,omitempty"`
}

// places says where the deliveries lie in the archive, which may take longer than a page should.
func (c *Console) places(v *visit) error {
	if c.outside.Locate == nil {
		return missing("This program does not read the archive.")
	}
	d, err := inspect.Show(v.Context(), c.db, v.Form.Get("source"), v.Form.Get("id"))
	if errors.Is(err, inspect.ErrNoEvent) {
		return missing("There is no such event.")
	}
	if err != nil {
		return err
	}
	out := []found{}
	for _, one := range deliveriesOf(d) {
		at := event.Position{Topic: one.Topic, Partition: one.Partition, Offset: one.Offset}
		if _, err := hex.Decode(at.TopicID[:], []byte(one.TopicID)); err != nil {
			return err
		}
		place, err := c.outside.Locate(v.Context(), at)
		switch {
		case errors.Is(err, ErrNotArchived):
			out = append(out, found{Delivery: one.ID, Note: c.notArchived(one.SeenAt)})
		case err != nil:
			c.log.Warn("the archive was asked in vain", slog.Any("error", err))
			out = append(out, found{Delivery: one.ID, Note: "the archive does not answer"})
		default:
			out = append(out, found{Delivery: one.ID, Place: &place})
		}
	}
	v.w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(v.w).Encode(out)
}

// archiveLate is how long after a segment's age a delivery that is not in the archive is worth a look.
const archiveLate = 2 * time.Minute

// notArchived says what it means that a delivery that was stored then is not in the archive.
func (c *Console) notArchived(stored time.Time) string {
	age := c.cfg.Archiver.SegmentAge
	if c.now().Sub(stored) > age+archiveLate {
		return fmt.Sprintf("not there, although a segment is closed after %s: is the archiver behind?", age)
	}
	return fmt.Sprintf("not yet: a segment is closed after %s at the latest", age)
}

// payload is what of an event only some may see.
type payload struct {
	Headers  []header
	Pretty   []token // of JSON; empty: it is none
	Raw      string
	Hex      bool // Raw is a dump, since the body is no text
	Size     int
	Cut      int // how many bytes are not shown
	Returned []returned

	Conflicts []*payload // bodies that came under the same ID and did not win
}

type header struct {
	Name   string
	Values []string
}

type returned struct {
	Operation string
	Attempt   int
	Rows      string
}

func (c *Console) payload(v *visit) error {
	source, id := v.Form.Get("source"), v.Form.Get("id")
	p, err := c.eventOf(v, source, id)
	if err != nil {
		return err
	}
	if err := control.ViewedEvent(v.Context(), c.db, source, id, "show", v.act(v.Form.Get("reason"))); err != nil {
		return err
	}
	var conflicts [][]byte
	if len(p.Conflicts) > 0 {
		if conflicts, err = inspect.ConflictBodies(v.Context(), c.db, source, id); err != nil {
			return err
		}
	}
	p.Payload = payloadOf(p.Detail, conflicts)
	return v.render("event", id, p)
}

const (
	mostShown = 256 << 10 // of a body
	mostDump  = 8 << 10   // of one that is no text

	mostConflicts = 10 // bodies of an event that are shown beside its own
)

func payloadOf(d *inspect.Detail, conflicts [][]byte) *payload {
	p := bodyOf(d.Body)
	for _, name := range slices.Sorted(maps.Keys(d.Headers)) {
		p.Headers = append(p.Headers, header{name, d.Headers[name]})
	}
	for _, r := range d.Results {
		if r.Returned != nil {
			p.Returned = append(p.Returned, returned{r.Operation, r.Number, *r.Returned})
		}
	}
	for _, body := range conflicts[:min(len(conflicts), mostConflicts)] {
		p.Conflicts = append(p.Conflicts, bodyOf(body))
	}
	return p
}

// bodyOf is how a body is shown.
func bodyOf(body []byte) *payload {
	p := &payload{Size: len(body)}
	shown := body
	if p.Hex = !utf8.Valid(body) || bytes.IndexByte(body, 0) >= 0; p.Hex {
		shown = shown[:min(len(shown), mostDump)]
		p.Raw = hex.Dump(shown)
	} else {
		if len(shown) > mostShown {
			shown = shown[:mostShown]
			for !utf8.Valid(shown) { // a rune was cut
				shown = shown[:len(shown)-1]
			}
		}
		p.Raw = string(shown)
		if len(body) <= mostShown {
			p.Pretty = pretty(body)
		}
	}
	p.Cut = len(body) - len(shown)
	return p
}

// download gives the body's exact bytes, as a file that no browser opens by itself.
func (c *Console) download(v *visit) error {
	source, id := v.Form.Get("source"), v.Form.Get("id")
	d, err := inspect.Show(v.Context(), c.db, source, id)
	if errors.Is(err, inspect.ErrNoEvent) {
		return missing("There is no such event.")
	}
	if err != nil {
		return err
	}
	if err := control.ViewedEvent(v.Context(), c.db, source, id, "download", v.act("")); err != nil {
		return err
	}
	h := v.w.Header()
	h.Set("Content-Security-Policy", "default-src 'none'; sandbox")
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": fileName(source, id)}))
	_, _ = v.w.Write(d.Body)
	return nil
}

// fileName is an ID as a file may be called.
func fileName(source, id string) string {
	clean := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return '_'
	}, source+"-"+id)
	return clean[:min(len(clean), 80)] + ".body"
}
