package console_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/processor/console"
	"github.com/catchment-dev/catchment/processor/inspect"
)

// hostile is an outside that says the polyglot wherever it can.
func hostile() console.Outside {
	at := func(outcome string) *console.Request {
		return &console.Request{At: time.Now(), Outcome: outcome, Reason: polyglot, SecretID: polyglot}
	}
	p, one := polyglot, int64(1)
	return console.Outside{
		Checks: func(context.Context) []console.Check {
			return []console.Check{{Name: polyglot, State: "at risk", Text: polyglot}}
		},
		Requests: func(context.Context) (map[string]console.Requests, error) {
			return map[string]console.Requests{"shop": {Outcomes: map[string]int{"accepted": 2, "unauthenticated": 1}, LastAccepted: at("accepted"), LastRefused: at(polyglot)}}, nil
		},
		DryRun: func(context.Context, string, inspect.Selection, bool, int) ([]*inspect.Trial, error) {
			return []*inspect.Trial{
				{
					Source: polyglot, EventID: polyglot, Type: polyglot, Applies: true, Outcome: "succeeded", Entity: &p, Version: &p, Decision: polyglot, Params: map[string]any{polyglot: polyglot, "n": 1.5, "z": nil},
					Rows: &one, Changes: []inspect.StatementEffect{{SQL: polyglot, Rows: 1, Seen: json.RawMessage(`[{"id": ` + quoted(polyglot) + `}]`)}}, Error: polyglot, Effect: true,
				},
				{Source: "shop", EventID: "b", Why: polyglot},
			}, nil
		},
	}
}

func quoted(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

// confirmed is a form that starts what was asked for.
func confirmed(pairs ...string) url.Values {
	form := url.Values{"expected": {"100"}, "key": {strings.Repeat("a", 32)}, "until": {"2100-01-01T00:00:00Z"}}
	for i := 0; i < len(pairs); i += 2 {
		form.Set(pairs[i], pairs[i+1])
	}
	return form
}

func (d *desk) dead(source, id, operation, reason, text string) {
	d.t.Helper()
	d.exec(`INSERT INTO catchment.dead_letters (source, event_id, operation, reason, error, attempts, first_failed_at, last_failed_at, topic, topic_id, partition, "offset")
		VALUES ($1, $2, $3, $4, $5, 2, now(), now(), 'catchment.events', gen_random_uuid(), 1, 4)`, source, id, operation, reason, text)
}

// hidden reads the form that confirms something from a page.
func hidden(text string) url.Values {
	form := url.Values{}
	_, text, _ = strings.Cut(text, `class="fields"`)
	for _, m := range regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)">`).FindAllStringSubmatch(text, -1) {
		form.Set(m[1], html.UnescapeString(m[2]))
	}
	return form
}

func (d *desk) count(sql string) (n int) {
	d.t.Helper()
	require.NoError(d.t, d.db.QueryRow(d.t.Context(), sql).Scan(&n))
	return n
}

func TestDeadLetters(t *testing.T) {
	d := newDesk(t, console.Outside{})
	d.sees("viewer", "/console/dead-letters", "No dead letters")
	for i := range 120 {
		d.dead("shop", fmt.Sprintf("evt_%03d", i), []string{"pay", "mail"}[i%2], "refused", "no such customer")
	}
	d.dead("bank", "evt_007", "book", "expression", "no such key: amount")
	seen, path := map[string]bool{}, "/console/dead-letters"
	for pages := 0; path != ""; pages++ {
		require.Less(t, pages, 4)
		text := d.sees("viewer", path)
		require.NotContains(t, text, "once more", "that is for whom may operate")
		for _, m := range regexp.MustCompile(`dead-letter\?id=\d+`).FindAllString(text, -1) {
			require.False(t, seen[m], m)
			seen[m] = true
		}
		_, next, _ := strings.Cut(text, `rel="next" href="`)
		path, _, _ = strings.Cut(next, `"`)
		path = html.UnescapeString(path)
	}
	require.Len(t, seen, 121)
	rows := func(query string) int {
		return strings.Count(d.sees("viewer", "/console/dead-letters?"+query), `<td data-label="No."`)
	}
	require.Equal(t, 1, rows("source=bank"))
	require.Equal(t, 1, rows("failure=expression"))
	require.Equal(t, 2, rows("id=evt_007"))
	require.Equal(t, 1, rows("operation=book&since=1h"))
	require.Equal(t, 0, rows("until=1h"))
	d.sees("viewer", "/console/dead-letter?id=121", "no such key: amount", "partition 1, offset 4")
	resp, _ := d.ask("viewer", "/console/dead-letter?id=9999", nil)
	require.Equal(t, http.StatusNotFound, resp.StatusCode)
}

func TestRedriveIsCountedConfirmedAndDoneOnce(t *testing.T) {
	d := newDesk(t, console.Outside{})
	for i := range 3 {
		d.dead("shop", fmt.Sprintf("evt_%03d", i), "pay", "refused", "no such customer")
	}
	d.dead("shop", "other", "mail", "refused", "x")
	resp, text := d.ask("operator", "/console/dead-letters/redrive", url.Values{"operation": {"pay"}, "since": {"1h"}})
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.Contains(t, text, "Try 3 dead letters once more?")
	require.Zero(t, d.count(`SELECT count(*) FROM catchment.jobs`), "asking does nothing")
	form := hidden(text)
	form.Set("rate", "5")
	form.Set("reason", "the customer is there now")
	d.dead("shop", "late", "pay", "refused", "it came after the question")
	for range 2 { // pressed twice
		resp, _ = d.ask("operator", "/console/dead-letters/redrive/start", form)
		require.Equal(t, http.StatusSeeOther, resp.StatusCode)
		require.Equal(t, "/console/job?id=1", resp.Header.Get("Location"))
	}
	require.Equal(t, 1, d.count(`SELECT count(*) FROM catchment.jobs WHERE expected = 3 AND rate = 5 AND actor = 'operator' AND reason = 'the customer is there now'`))
	require.Equal(t, 1, d.count(`SELECT count(*) FROM catchment.actions WHERE command = 'dead-letters redrive'`))
	d.sees("viewer", "/console/job?id=1", "the customer is there now", "of 3 that were counted", `data-poll="/console/job/state?id=1"`)
	d.sees("viewer", "/console/jobs", `/console/job?id=1`)
	d.sees("viewer", "/console/job/state?id=1", `"over":false`)

	resp, text = d.ask("operator", "/console/dead-letters/redrive", url.Values{"operation": {"pay"}})
	require.Equal(t, http.StatusOK, resp.StatusCode)
	form = hidden(text)
	form.Set("expected", "1") // fewer than there are
	resp, text = d.ask("operator", "/console/dead-letters/redrive/start", form)
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.Contains(t, text, "there are more now")
	require.Equal(t, 1, d.count(`SELECT count(*) FROM catchment.jobs`))
	for name, bad := range map[string]string{"rate": "NaN", "expected": "", "key": "", "since": "yesterday", "letter": "x"} {
		form := confirmed("operation", "pay", name, bad)
		resp, text = d.ask("operator", "/console/dead-letters/redrive/start", form)
		require.Equal(t, http.StatusBadRequest, resp.StatusCode, "%s: %s", name, text)
	}
	_, text = d.ask("operator", "/console/dead-letters/redrive", url.Values{"operation": {"nobody"}})
	require.Contains(t, text, "There is nothing to do")
	resp, _ = d.ask("operator", "/console/job/cancel", url.Values{"id": {"1"}})
	require.Equal(t, http.StatusSeeOther, resp.StatusCode)
	d.sees("viewer", "/console/job?id=1", ">cancelled<")
}

func TestReplay(t *testing.T) {
	one := int64(1)
	outside := console.Outside{DryRun: func(_ context.Context, operation string, sel inspect.Selection, force bool, limit int) ([]*inspect.Trial, error) {
		if force {
			return nil, errors.New("the bench is taken")
		}
		return []*inspect.Trial{{
			Operation: operation, Source: "shop", EventID: "a", Type: "order.paid", Applies: true, Outcome: "succeeded", Params: map[string]any{"amount": "S3CR3T"}, Rows: &one,
			Changes: []inspect.StatementEffect{{SQL: "UPDATE orders", Rows: 1, Seen: json.RawMessage(`[{"id": "R0W"}]`)}},
		}}, nil
	}}
	d := newDesk(t, outside)
	for i := range 3 {
		d.receive("shop", fmt.Sprintf("evt_%03d", i), "order.paid", "processed", "{}")
	}
	d.receive("shop", "other", "refund", "processed", "{}")
	d.sees("operator", "/console/replay?operation=pay&id=evt_001", `value="evt_001"`)
	try := url.Values{"operation": {"pay"}, "since": {"1h"}}
	resp, text := d.ask("operator", "/console/replay/try", try)
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.Contains(t, text, "for 3 events?")
	require.NotContains(t, text, "S3CR3T", "values are payload")
	require.NotContains(t, text, "R0W")
	_, text = d.ask("ada", "/console/replay/try", try)
	require.Contains(t, text, "S3CR3T")
	require.Contains(t, text, "R0W")
	require.Equal(t, []string{"operator replay dry-run ", "ada replay dry-run "}, d.actions())
	require.Zero(t, d.count(`SELECT count(*) FROM catchment.jobs`))
	form := hidden(text)
	for range 2 {
		resp, _ = d.ask("ada", "/console/replay/start", form)
		require.Equal(t, "/console/job?id=1", resp.Header.Get("Location"))
	}
	require.Equal(t, 1, d.count(`SELECT count(*) FROM catchment.jobs WHERE kind = 'replay' AND operation = 'pay' AND expected = 3 AND NOT force`))

	try.Set("force", "1")
	_, text = d.ask("ada", "/console/replay/try", try)
	require.Contains(t, text, "It could not be tried: the bench is taken")
	form = hidden(text)
	resp, text = d.ask("ada", "/console/replay/start", form)
	require.Equal(t, http.StatusBadRequest, resp.StatusCode)
	require.Contains(t, text, "say why")
	for _, bad := range []url.Values{{}, {"operation": {"nobody"}}} {
		resp, _ = d.ask("ada", "/console/replay/try", bad)
		require.Equal(t, http.StatusBadRequest, resp.StatusCode)
	}
}

func TestPauseAndResume(t *testing.T) {
	d := newDesk(t, console.Outside{})
	d.sees("viewer", "/console/operations", "pay", ">active<")
	form := url.Values{"operation": {"pay"}, "do": {"pause"}, "reason": {"the shop is closed"}}
	resp, _ := d.ask("operator", "/console/operations", form)
	require.Equal(t, http.StatusSeeOther, resp.StatusCode)
	d.sees("viewer", "/console/operations", ">paused<", "the shop is closed")
	form.Set("do", "resume")
	_, _ = d.ask("operator", "/console/operations", form)
	d.sees("viewer", "/console/operations", ">active<")
	form = url.Values{"operation": {"nobody"}, "do": {"pause"}}
	resp, _ = d.ask("operator", "/console/operations", form)
	require.Equal(t, http.StatusNotFound, resp.StatusCode)
	require.Equal(t, []string{"operator operations pause ", "operator operations resume "}, d.actions())
	d.sees("viewer", "/console/actions", "operations pause", "the shop is closed")
}

func TestOverviewAndSources(t *testing.T) {
	d := newDesk(t, console.Outside{})
	for i := range 30 {
		d.receive("shop", fmt.Sprintf("evt_%03d", i), "order.paid", "processed", "{}")
	}
	d.receive("bank", "x", "transfer", "failed", "{}")
	for _, name := range []string{"1h", "24h", "7d"} {
		text := d.sees("viewer", "/console/overview?span="+name, "31 events", "1 of bank: failed", "<rect", "<polyline", "Latency")
		require.NotContains(t, text, "style=", "the policy has no inline styles")
	}
	d.sees("viewer", "/console/sources", "k_1", "which this program does not ask", "evt_029")
	asked := newDesk(t, hostile())
	asked.sees("viewer", "/console/sources", "unauthenticated 1", "Last refused")
}

func TestAudit(t *testing.T) {
	begun, done := make(chan struct{}), make(chan struct{})
	outside := console.Outside{Audit: func(_ context.Context, since, _ time.Time) (*console.Audit, error) {
		begun <- struct{}{}
		<-done
		if since.IsZero() {
			return nil, errors.New("the archive is away")
		}
		return &console.Audit{At: time.Now(), Faults: 2, Text: "NOT whole: 2 faults"}, nil
	}}
	d := newDesk(t, outside)
	for range 2 { // one at a time
		resp, _ := d.ask("operator", "/console/audit", url.Values{"since": {"1h"}})
		require.Equal(t, http.StatusSeeOther, resp.StatusCode)
	}
	<-begun
	d.sees("viewer", "/console/audit", "One is running", "asked for by <bdi>operator</bdi>")
	d.sees("viewer", "/console/audit/state", `"over":false`)
	done <- struct{}{}
	over := func() bool { return strings.Contains(d.sees("viewer", "/console/audit/state"), "true") }
	require.Eventually(t, over, time.Minute, 10*time.Millisecond)
	d.sees("viewer", "/console/audit", "NOT whole: 2 faults", ">2 faults<")
	_, _ = d.ask("operator", "/console/audit", url.Values{})
	<-begun
	done <- struct{}{}
	require.Eventually(t, over, time.Minute, 10*time.Millisecond)
	d.sees("viewer", "/console/audit", "the archive is away", "not finished")
	none := newDesk(t, console.Outside{})
	none.sees("ada", "/console/audit", "reads no archive")
	resp, _ := none.ask("ada", "/console/audit", url.Values{})
	require.Equal(t, http.StatusNotFound, resp.StatusCode)
}

// TestPanicTellsNothing has a page panic with what it was working on.
func TestPanicTellsNothing(t *testing.T) {
	d := newDesk(t, console.Outside{Checks: func(context.Context) []console.Check { panic("s3cret") }})
	resp, text := d.ask("viewer", "/console/overview", nil)
	require.Equal(t, http.StatusInternalServerError, resp.StatusCode)
	require.Contains(t, text, "The console&#39;s log says why.")
	require.NotContains(t, text, "s3cret")
	require.Contains(t, d.log.String(), "pages_test.go", "the stack")
	require.NotContains(t, d.log.String(), "s3cret")
}
