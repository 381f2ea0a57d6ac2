package console_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/pgtest"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor"
	"github.com/catchment-dev/catchment/processor/console"
)

// polyglot breaks out of text, attributes, scripts, comments and URLs, where something lets it.
const polyglot = "jaVasCript:/*-/*`/*\\`/*'/*\"/**/(/* */oNcliCk=alert(1) )//%0D%0A//</stYle/</titLe/</teXtarEa/</scRipt/--!>\\x3csVg/<sVg/oNloAd=alert(1)//>\\x3e"

// desk is a console with its database.
type desk struct {
	t   *testing.T
	db  *pgx.Conn
	url string
	log *lines
}

// lines is a log that tests read.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

const password = "correct horse"

func newDesk(t *testing.T, outside console.Outside) *desk {
	t.Helper()
	database := pgtest.New(t)
	require.NoError(t, processor.Migrate(t.Context(), database))
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	require.NoError(t, err)
	user := func(name string, roles ...string) settings.ConsoleUser {
		return settings.ConsoleUser{Name: name, Password: config.NewSecret(string(hash)), Roles: roles}
	}
	cfg := &settings.File{
		Postgres: settings.Postgres{URL: config.NewSecret(database)},
		Sources:  map[string]settings.Source{"shop": {Provider: "stripe"}, "bank": {Provider: "hmac"}},
		Archiver: settings.Archiver{SegmentAge: 5 * time.Minute},
		Operations: []settings.Operation{
			{Name: "pay", On: settings.On{Source: "shop", Types: []string{"order.*"}}}, {Name: "mail", On: settings.On{Source: "shop"}},
		},
		Console: settings.Console{Users: []settings.ConsoleUser{
			user("nobody"), user("viewer", settings.ViewMetadata), user("reader", settings.ViewMetadata, settings.ViewPayload),
			user("operator", settings.ViewMetadata, settings.Operate), user("ada", settings.AllRoles...),
		}},
	}
	d := &desk{t: t, log: &lines{}}
	c, err := console.New(t.Context(), cfg, slog.New(slog.NewJSONHandler(d.log, nil)), "", outside)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	mux := http.NewServeMux()
	for pattern, h := range c.Pages() {
		mux.Handle(pattern, h)
	}
	s := httptest.NewServer(mux)
	d.url = s.URL
	d.db, err = pgx.Connect(t.Context(), database)
	require.NoError(t, err)
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
		cancel()
		require.NoError(t, <-ended)
		_ = d.db.Close(context.Background())
	})
	return d
}

func (d *desk) exec(sql string, args ...any) {
	d.t.Helper()
	_, err := d.db.Exec(context.Background(), sql, args...)
	require.NoError(d.t, err, sql)
}

// receive stores an event as the processor would.
func (d *desk) receive(source, id, typ, status, body string) {
	d.t.Helper()
	d.exec(`WITH at AS (INSERT INTO catchment.identities (source, event_id, body_sha256, first_seen_at, delivery_id)
			VALUES ($1, $2, sha256($5::bytea), clock_timestamp(), gen_random_uuid()) RETURNING first_seen_at, delivery_id, body_sha256)
		INSERT INTO catchment.bodies (source, event_id, type, event_time, received_at, stored_at, status, provider, verdict, secret_id, content_type, headers, body,
			body_sha256, delivery_id, delivery_index, topic, topic_id, partition, "offset", leader_epoch)
		SELECT $1, $2, $3, now() - interval '3 s', now() - interval '1 s', first_seen_at, $4, 'stripe', 'verified', 'k_1', 'application/json',
			jsonb_build_object('x-a', jsonb_build_array('one', $6::text)), $5::bytea, body_sha256, delivery_id, 0, 'catchment.events', '01000000-0000-0000-0000-000000000000', 3, 7, 0 FROM at`,
		source, id, typ, status, []byte(body), polyglot)
}

// ask makes a request as somebody; a form makes it a POST.
func (d *desk) ask(who, path string, form url.Values, headers ...string) (*http.Response, string) {
	d.t.Helper()
	method, body := http.MethodGet, io.Reader(http.NoBody)
	if form != nil {
		method, body = http.MethodPost, strings.NewReader(form.Encode())
	}
	req, err := http.NewRequestWithContext(d.t.Context(), method, d.url+path, body)
	require.NoError(d.t, err)
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if who != "" {
		req.SetBasicAuth(who, password)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	require.NoError(d.t, err)
	text, err := io.ReadAll(resp.Body)
	require.NoError(d.t, err)
	require.NoError(d.t, resp.Body.Close())
	return resp, string(text)
}

// sees asks for a page that must be there.
func (d *desk) sees(who, path string, wants ...string) string {
	d.t.Helper()
	resp, text := d.ask(who, path, nil)
	require.Equal(d.t, http.StatusOK, resp.StatusCode, text)
	for _, want := range wants {
		require.Contains(d.t, text, want)
	}
	return text
}

func eventPath(source, id string) string {
	return "/console/event?" + url.Values{"source": {source}, "id": {id}}.Encode()
}

func (d *desk) actions() []string {
	d.t.Helper()
	rows, err := d.db.Query(context.Background(), `SELECT actor || ' ' || command || ' ' || coalesce(selection->>'event_id', '') FROM catchment.actions ORDER BY id`)
	require.NoError(d.t, err)
	out, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(d.t, err)
	return out
}

func TestEvents(t *testing.T) {
	d := newDesk(t, console.Outside{})
	d.sees("viewer", "/console/", "No events yet")
	for i := range 120 {
		d.receive("shop", fmt.Sprintf("evt_%03d", i), []string{"order.paid", "order.sent"}[i%2], "processed", "{}")
	}
	d.receive("bank", "evt_007", "transfer", "failed", "{}")
	d.exec(`INSERT INTO catchment.results VALUES ('shop', 'evt_003', gen_random_uuid(), 'op', '\x02', 1, 'succeeded', 'order 3', NULL, 1, NULL, NULL, now(), interval '2 ms')`)
	count := func(path string) int { return strings.Count(d.sees("viewer", path), `<td data-label="Event"`) - 1 } // one is the script's
	text := d.sees("viewer", "/console/", "evt_119", ">Older</a>")
	require.NotContains(t, text, "evt_050")
	require.NotContains(t, text, ">Newest</a>")

	seen, path := map[string]bool{}, "/console/events"
	for pages := 0; path != ""; pages++ { // page by page, each event once
		require.Less(t, pages, 4)
		text := d.sees("viewer", path)
		for _, part := range strings.Split(text, `href="/console/event?`)[1:] {
			link, _, _ := strings.Cut(part, `"`)
			require.False(t, seen[link], link)
			seen[link] = true
		}
		_, next, _ := strings.Cut(text, `rel="next" href="`)
		path, _, _ = strings.Cut(next, `"`)
		path = html.UnescapeString(path)
	}
	require.Len(t, seen, 121)
	require.Equal(t, 1, count("/console/events?source=bank"))
	require.Equal(t, 1, count("/console/events?status=failed"))
	require.Equal(t, 2, count("/console/events?id=evt_007"))
	require.Equal(t, 1, count("/console/events?id=evt_007&source=shop&type=order.*"))
	require.Equal(t, 1, count("/console/events?entity=order+3"))
	require.Equal(t, 0, count("/console/events?entity=order+3&source=bank"))
	d.sees("viewer", "/console/events?entity=order+3&source=bank", "No such event", "the last 100,000 before this page")
	require.Equal(t, 1, count("/console/events?entity=order+3&id=evt_003"))
	require.Equal(t, 1, count("/console/events?type=transfer,+refund&since=1h"))
	require.Equal(t, 0, count("/console/events?until=1h"))
	for path, want := range map[string]string{
		"/console/events?status=odd":      "There is no status",
		"/console/events?since=yesterday": "expected a time",
		"/console/events?before=x":        "This is no page",
		"/console/event":                  "Which event?",
	} {
		resp, text := d.ask("viewer", path, nil)
		require.Equal(t, http.StatusBadRequest, resp.StatusCode)
		require.Contains(t, text, want)
	}
	resp, _ := d.ask("viewer", "/console/event?id=evt_003", nil)
	require.Equal(t, "/console/event?id=evt_003&source=shop", resp.Header.Get("Location"))
	resp, _ = d.ask("viewer", "/console/event?id=evt_007", nil)
	require.Equal(t, "/console/events?id=evt_007", resp.Header.Get("Location"), "two sources have it")
}

func TestLive(t *testing.T) {
	d := newDesk(t, console.Outside{})
	d.receive("shop", "before", "x", "processed", "{}")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	watch := func(path, last string) *json.Decoder {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.url+path, http.NoBody)
		require.NoError(t, err)
		req.SetBasicAuth("viewer", password)
		if last != "" {
			req.Header.Set("Last-Event-ID", last)
		}
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		t.Cleanup(func() { _ = resp.Body.Close() })
		require.Equal(t, "text/event-stream", resp.Header.Get("Content-Type"))
		r, w := io.Pipe()
		go func() { // the data lines alone
			var line []byte
			one := make([]byte, 1)
			for {
				if _, err := resp.Body.Read(one); err != nil {
					_ = w.CloseWithError(err)
					return
				}
				if line = append(line, one[0]); one[0] == '\n' {
					if data, ok := bytes.CutPrefix(line, []byte("data: ")); ok {
						_, _ = w.Write(data)
					}
					line = nil
				}
			}
		}()
		return json.NewDecoder(r)
	}
	var got struct{ Rows []struct{ ID, URL string } }
	live := watch("/console/events/live?source=shop", "")
	d.receive("bank", "other", "x", "processed", "{}")
	d.receive("shop", polyglot, "x", "processed", "{}")
	require.NoError(t, live.Decode(&got))
	require.Len(t, got.Rows, 1)
	require.Equal(t, polyglot, got.Rows[0].ID, "the script puts it in as text")
	require.Equal(t, eventPath("shop", polyglot), got.Rows[0].URL)
	var first int64
	require.NoError(t, d.db.QueryRow(t.Context(), `SELECT min(seq) FROM catchment.bodies`).Scan(&first))
	require.NoError(t, watch("/console/events/live", fmt.Sprint(first)).Decode(&got)) // comes again
	require.Len(t, got.Rows, 2)
	require.Equal(t, "other", got.Rows[0].ID)
	// A page says up to where it lists: what is stored before one presses Live is not left out.
	page := d.sees("viewer", "/console/?source=bank", "data-live=\"/console/events/live?source=bank\"")
	var last int64
	require.NoError(t, d.db.QueryRow(t.Context(), `SELECT max(seq) FROM catchment.bodies WHERE source = 'bank'`).Scan(&last))
	require.Contains(t, page, fmt.Sprintf("data-last=\"%d\"", last))
	d.receive("bank", "meanwhile", "x", "processed", "{}")
	require.NoError(t, watch(fmt.Sprintf("/console/events/live?source=bank&after=%d", last), "").Decode(&got))
	require.Len(t, got.Rows, 1)
	require.Equal(t, "meanwhile", got.Rows[0].ID)
}

func TestEventPage(t *testing.T) {
	archived := func(_ context.Context, at event.Position) (console.Place, error) {
		if at.Offset == 7 {
			return console.Place{Segment: "events/date=2026-11-01/x.parquet", Row: 7, InKafka: time.Now()}, nil
		}
		return console.Place{}, fmt.Errorf("offset %d: %w", at.Offset, console.ErrNotArchived)
	}
	d := newDesk(t, console.Outside{Locate: archived})
	d.receive("shop", "a", "order.paid", "dead", `{"amount": 1.50, "n": [1, null, "x\"y"], "hide": "`+"\u202e"+`"}`)
	d.exec(`INSERT INTO catchment.results VALUES
		('shop', 'a', gen_random_uuid(), 'pay', '\x02', 1, 'failed', 'order 1', 'v1', NULL, NULL, 'the table is away', now(), interval '2 ms'),
		('shop', 'a', gen_random_uuid(), 'pay', '\x02', 2, 'dead', 'order 1', 'v1', 1, '[{"secret": "returned"}]', 'no such customer', now() + interval '1 s', interval '3 ms'),
		('shop', 'a', gen_random_uuid(), 'mail', '\x02', 1, 'failed', NULL, NULL, NULL, NULL, 'later', now(), interval '0 ms')`)
	d.exec(`INSERT INTO catchment.retries VALUES ('shop', 'a', 'mail', 2, now() + interval '1 h', now(), 'later')`)
	d.exec(`INSERT INTO catchment.duplicates VALUES ('shop', 'a', gen_random_uuid(), now(), now(), 'catchment.events', '01000000-0000-0000-0000-000000000000', 1, 20)`)
	d.exec(`INSERT INTO catchment.conflicts VALUES ('shop', 'a', gen_random_uuid(), now(), 'ho', '\x03', '{}', 'catchment.events', '01000000-0000-0000-0000-000000000000', 1, 30, now() - interval '1 h')`)
	d.exec(`INSERT INTO catchment.dead_letters (source, event_id, operation, reason, error, attempts, first_failed_at, last_failed_at, topic, topic_id, partition, "offset")
		VALUES ('shop', 'a', 'pay', 'refused', 'no such customer', 2, now(), now(), 'catchment.events', gen_random_uuid(), 1, 4)`)
	text := d.sees("viewer", eventPath("shop", "a"), "order.paid", "Received and verified", "by secret k_1 (verified)", "Stored", "pay failed", "pay dead", "Received again",
		"a conflict", "mail is due again", "the table is away", "no such customer", "order 1", "partition 3, offset 7", "needs the role view-payload", "Dead letter")
	for _, kept := range []string{"1.50", ">one<", "returned&#34;", "Show headers and body"} {
		require.NotContains(t, text, kept, "that is payload")
	}
	var places []struct{ Segment, Note string }
	require.NoError(t, json.Unmarshal([]byte(d.sees("viewer", strings.Replace(eventPath("shop", "a"), "event?", "event/places?", 1))), &places))
	require.Len(t, places, 3)
	require.Equal(t, "events/date=2026-11-01/x.parquet", places[0].Segment)
	require.Contains(t, places[1].Note, "not yet: a segment is closed after 5m0s")
	require.Contains(t, places[2].Note, "is the archiver behind?")

	form := url.Values{"source": {"shop"}, "id": {"a"}}
	resp, text := d.ask("reader", "/console/event/payload", form)
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.Contains(t, text, `<span class="k">&#34;amount&#34;</span>: <span class="n">1.50</span>`, "as it was written")
	require.Contains(t, text, "⟨202E⟩", "what turns text around is shown")
	require.Contains(t, text, "returned&#34;")
	require.Contains(t, text, ">x-a</th>")
	resp, text = d.ask("reader", "/console/event/body", form)
	require.Equal(t, "attachment; filename=shop-a.body", resp.Header.Get("Content-Disposition"))
	require.Equal(t, "application/octet-stream", resp.Header.Get("Content-Type"))
	require.Contains(t, resp.Header.Get("Content-Security-Policy"), "sandbox")
	require.True(t, strings.HasPrefix(text, `{"amount": 1.50,`))
	require.Equal(t, []string{"reader events show a", "reader events download a"}, d.actions())

	resp, _ = d.ask("viewer", eventPath("shop", "b"), nil)
	require.Equal(t, http.StatusNotFound, resp.StatusCode)
	d.receive("shop", "bytes", "x", "processed", "\x00\xff\x01")
	_, text = d.ask("reader", "/console/event/payload", url.Values{"source": {"shop"}, "id": {"bytes"}})
	require.Contains(t, text, "00000000  00 ff 01")
	d.exec(`DELETE FROM catchment.bodies WHERE event_id = 'bytes'`)
	resp, _ = d.ask("viewer", eventPath("shop", "bytes"), nil)
	require.Equal(t, http.StatusGone, resp.StatusCode)
}

// TestRoles holds every page against every role: denied unless it is granted.
func TestRoles(t *testing.T) {
	d := newDesk(t, console.Outside{Audit: func(context.Context, time.Time, time.Time) (*console.Audit, error) { return &console.Audit{}, nil }})
	d.receive("shop", "a", "x", "processed", "{}")
	d.dead("shop", "a", "pay", "refused", "no such customer")
	d.exec(`INSERT INTO catchment.jobs (kind, selection, expected, action_id, actor, reason) VALUES ('redrive', '{}', 1, 1, 'x', '')`)
	form := url.Values{"source": {"shop"}, "id": {"a"}}
	for _, p := range []struct {
		path string
		form url.Values
		may  string // beside ada
	}{
		{"/console/", nil, "viewer reader operator"},
		{"/console/events", nil, "viewer reader operator"},
		{eventPath("shop", "a"), nil, "viewer reader operator"},
		{"/console/event/payload", form, "reader"},
		{"/console/event/body", form, "reader"},
		{"/console/overview", nil, "viewer reader operator"},
		{"/console/dead-letters", nil, "viewer reader operator"},
		{"/console/dead-letter?id=1", nil, "viewer reader operator"},
		{"/console/dead-letter/payload", url.Values{"id": {"1"}}, "reader"},
		{"/console/dead-letters/redrive", url.Values{"letter": {"1"}}, "operator"},
		{"/console/dead-letters/redrive/start", confirmed("letter", "1"), "operator"},
		{"/console/operations", nil, "viewer reader operator"},
		{"/console/operations", url.Values{"operation": {"pay"}, "do": {"pause"}}, "operator"},
		{"/console/replay", nil, "operator"},
		{"/console/replay/try", url.Values{"operation": {"pay"}}, "operator"},
		{"/console/replay/start", confirmed("operation", "pay"), "operator"},
		{"/console/jobs", nil, "viewer reader operator"},
		{"/console/job?id=1", nil, "viewer reader operator"},
		{"/console/job/state?id=1", nil, "viewer reader operator"},
		{"/console/job/cancel", url.Values{"id": {"1"}}, "operator"},
		{"/console/sources", nil, "viewer reader operator"},
		{"/console/audit", nil, "viewer reader operator"},
		{"/console/audit/state", nil, "viewer reader operator"},
		{"/console/audit", url.Values{}, "operator"},
		{"/console/actions", nil, "viewer reader operator"},
	} {
		for _, who := range []string{"", "nobody", "viewer", "reader", "operator", "ada"} {
			resp, text := d.ask(who, p.path, p.form)
			want := http.StatusForbidden
			switch {
			case who == "":
				want = http.StatusUnauthorized
				require.Contains(t, resp.Header.Get("WWW-Authenticate"), "Basic ")
			case who == "ada" || strings.Contains(p.may, who):
				want = http.StatusOK
				if resp.StatusCode == http.StatusSeeOther {
					want = http.StatusSeeOther // it was done
				}
			}
			require.Equal(t, want, resp.StatusCode, "%s %s: %s", who, p.path, text)
			if want >= http.StatusBadRequest {
				require.NotContains(t, text, "evt", "nothing is told")
			}
		}
	}
	resp, _ := d.ask("", "/", nil)
	require.Equal(t, "/console/", resp.Header.Get("Location"))
	for _, path := range []string{"/console/nothing", "/console/event/payload", "/console/replay/start", "/console/job/cancel"} { // only POST
		resp, _ := d.ask("", path, nil)
		require.Equal(t, http.StatusUnauthorized, resp.StatusCode, "who is nobody learns nothing of pages")
		resp, _ = d.ask("ada", path, nil)
		require.Equal(t, http.StatusNotFound, resp.StatusCode)
	}
	require.Contains(t, d.log.String(), `"missing_role":"view-payload"`)
	require.NotContains(t, d.log.String(), password)
}

func TestOtherSitesCanDoNothing(t *testing.T) {
	d := newDesk(t, console.Outside{})
	d.receive("shop", "a", "x", "processed", "{}")
	form := url.Values{"source": {"shop"}, "id": {"a"}}
	for _, headers := range [][]string{
		{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "https://evil.example"}, {"Origin", "null"},
	} {
		resp, text := d.ask("ada", "/console/event/payload", form, headers...)
		require.Equal(t, http.StatusForbidden, resp.StatusCode)
		require.Contains(t, text, "another site")
	}
	require.Empty(t, d.actions())
	for _, headers := range [][]string{{"Sec-Fetch-Site", "same-origin"}, {"Origin", d.url}} {
		resp, _ := d.ask("ada", "/console/event/payload", form, headers...)
		require.Equal(t, http.StatusOK, resp.StatusCode)
	}
	resp, _ := d.ask("ada", "/console/event/payload", url.Values{"source": {strings.Repeat("x", 100_000)}})
	require.Equal(t, http.StatusBadRequest, resp.StatusCode, "a form has its bounds")

	for _, path := range []string{"/console/", eventPath("shop", "a"), "/console/nothing", "/console/static/x/console.css"} {
		resp, _ := d.ask("ada", path, nil)
		require.Contains(t, resp.Header.Get("Content-Security-Policy"), "default-src 'none'", path)
		require.NotContains(t, resp.Header.Get("Content-Security-Policy"), "unsafe", path)
		require.Equal(t, "nosniff", resp.Header.Get("X-Content-Type-Options"), path)
		require.Equal(t, "no-store", resp.Header.Get("Cache-Control"), path)
	}
}

// TestNothingOfOthersIsMarkup stores the polyglot wherever others have a say.
func TestNothingOfOthersIsMarkup(t *testing.T) {
	d := newDesk(t, hostile())
	d.receive(polyglot, polyglot, polyglot, "dead", polyglot)
	d.receive("shop", polyglot, "order.paid", "processed", polyglot)
	d.exec(`INSERT INTO catchment.actions (actor, command, reason, selection, affected) VALUES ($1, $1, $1, jsonb_build_object('x', $1::text), 1), ($1, 'audit', $1, '{}', 1)`, polyglot)
	d.exec(`INSERT INTO catchment.jobs (kind, operation, selection, expected, action_id, actor, reason, note) VALUES ('redrive', $1, jsonb_build_object('source', $1::text), 1, 1, $1, $1, $1)`, polyglot)
	d.exec(`INSERT INTO catchment.paused_operations (operation, actor, reason) VALUES ('pay', $1, $1)`, polyglot)
	d.exec(`INSERT INTO catchment.dead_letters (reason, error, attempts, first_failed_at, last_failed_at, topic, topic_id, partition, "offset", key, headers, value)
		VALUES ($1, $1, 1, now(), now(), $1, gen_random_uuid(), 1, 4, $2, jsonb_build_array(jsonb_build_object('name', $1::text, 'value', $1::text)), $2)`, polyglot, []byte(polyglot))
	d.exec(`INSERT INTO catchment.results VALUES ($1, $1, gen_random_uuid(), $1, '\x02', 1, 'dead', $1, $1, NULL, NULL, $1, now(), interval '2 ms')`, polyglot)
	d.exec(`INSERT INTO catchment.dead_letters (source, event_id, operation, reason, error, attempts, first_failed_at, last_failed_at, topic, topic_id, partition, "offset")
		VALUES ($1, $1, $1, $1, $1, 2, now(), now(), $1, gen_random_uuid(), 1, 4)`, polyglot)
	q := url.Values{"source": {polyglot}, "type": {polyglot}, "entity": {polyglot}}
	resp, payload := d.ask("ada", "/console/event/payload", url.Values{"source": {polyglot}, "id": {polyglot}})
	require.Equal(t, http.StatusOK, resp.StatusCode)
	post := func(path string, form url.Values) string {
		resp, text := d.ask("ada", path, form)
		require.Equal(t, http.StatusOK, resp.StatusCode, "%s: %s", path, text)
		return text
	}
	post("/console/replay/try", url.Values{"operation": {"pay"}})
	pages := map[string]string{
		"dry run": post("/console/replay/try", url.Values{"operation": {"pay"}, "reason": {polyglot}, "rate": {polyglot}}),
		"redrive": post("/console/dead-letters/redrive", url.Values{"source": {polyglot}, "reason": {polyglot}, "rate": {polyglot}}),
		"record":  post("/console/dead-letter/payload", url.Values{"id": {"2"}}),
		"nothing": post("/console/dead-letters/redrive", url.Values{"operation": {polyglot}, "failure": {"other"}}),
	}
	for _, path := range []string{
		"overview", "dead-letters", "dead-letters?" + q.Encode() + "&failure=" + url.QueryEscape(polyglot), "dead-letter?id=1", "dead-letter?id=2", "operations", "jobs", "job?id=1",
		"sources", "audit", "actions", "replay?operation=pay&reason=" + url.QueryEscape(polyglot),
	} {
		pages[path] = d.sees("ada", "/console/"+path)
	}
	for name, text := range map[string]string{
		"list": d.sees("ada", "/console/"), "filtered": d.sees("ada", "/console/events?"+q.Encode()), "event": d.sees("ada", eventPath(polyglot, polyglot)), "payload": payload,
	} {
		pages[name] = text
	}
	for name, text := range pages {
		low := strings.ToLower(text)
		require.NotContains(t, low, "<svg/", name)
		require.NotContains(t, low, "</script/", name)
		require.NotContains(t, low, "</title/", name)
		require.NotRegexp(t, `(href|src|action)="javascript:`, low, name)
		require.Equal(t, 1, strings.Count(low, "<script"), "%s: the console's own", name)
	}
}

func TestOff(t *testing.T) {
	c, err := console.New(t.Context(), &settings.File{}, slog.New(slog.DiscardHandler), "", console.Outside{})
	require.NoError(t, err)
	require.Nil(t, c, "without users there is no console")
}

func TestPostgresAway(t *testing.T) {
	d := newDesk(t, console.Outside{})
	_, err := d.db.Exec(t.Context(), `DROP SCHEMA catchment CASCADE`)
	require.NoError(t, err)
	resp, text := d.ask("ada", "/console/", nil)
	require.Equal(t, http.StatusInternalServerError, resp.StatusCode)
	require.NotContains(t, text, "relation", "what went wrong inside is for the log")
	require.Contains(t, d.log.String(), "relation")
}
