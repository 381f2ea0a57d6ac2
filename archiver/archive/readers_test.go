package archive_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/archiver/internal/layout"
	"github.com/catchment-dev/catchment/archiver/internal/row"
	"github.com/catchment-dev/catchment/archiver/internal/segment"
	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/s3test"
)

// readers are the Python of scripts/foreign.sh and the program that drives what it has.
type readers struct{ python, program string }

func newReaders(t *testing.T) readers {
	t.Helper()
	return readersOf(t, "readers")
}

// readersOf are those that a folder of testdata names.
func readersOf(t *testing.T, folder string) readers {
	t.Helper()
	if os.Getenv("CATCHMENT_TEST_REAL") != "1" {
		t.Skip("needs DuckDB, pyarrow, pandas and Polars, which CATCHMENT_TEST_REAL=1 installs")
	}
	install := exec.CommandContext(t.Context(), "bash", filepath.Join(root, "scripts", "foreign.sh"), filepath.Join("testdata", folder))
	install.Stderr = os.Stderr
	dir, err := install.Output()
	require.NoError(t, err)
	program, err := filepath.Abs(filepath.Join("testdata", "readers", "readers.py"))
	require.NoError(t, err)
	return readers{filepath.Join(strings.TrimSpace(string(dir)), "venv", "bin", "python"), program}
}

func (r readers) run(t *testing.T, dir string, in any, args ...string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), r.python, append([]string{r.program}, args...)...)
	input, err := json.Marshal(in)
	require.NoError(t, err)
	var said bytes.Buffer
	cmd.Dir, cmd.Stdin, cmd.Stderr = dir, bytes.NewReader(input), &said
	out, err := cmd.Output()
	require.NoError(t, err, said.String())
	return strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
}

// root is the repository.
var root = filepath.Join("..", "..")

// library is an archive on disk that has everything that readers meet.
type library struct {
	t     *testing.T
	root  string
	files []string
	rows  []*row.Row // of all files, in their order
}

func newLibrary(t *testing.T) *library {
	t.Helper()
	l := &library{t: t, root: filepath.Join(t.TempDir(), "catchment-data", "archive")}
	l.segment(layout.Events, deliveryTopic, 0, l.firstDay()...)
	l.segment(layout.Events, deliveryTopic, 1, l.secondDay()...)
	l.segment(layout.Events, deliveryTopic, 2, l.future())
	return l
}

const (
	deliveryTopic = "catchment.events"
	resultTopic   = "catchment.results"
	huge          = 25 << 20 // bytes of a body
)

// segment writes one segment as the archiver does.
func (l *library) segment(kind layout.Kind, topic string, number int32, rows ...*row.Row) {
	b := segment.NewBuilder(layout.Partition{Topic: topic, TopicID: topicID, Number: number}, 0, "writer")
	for i, w := range rows {
		w.Topic, w.TopicID, w.Partition, w.Offset, w.SchemaVersion = topic, topicID, number, int64(i), row.SchemaVersion
		require.NoError(l.t, b.Append(w, 0, w.Size()))
		l.rows = append(l.rows, w)
	}
	s, err := b.Finish("")
	require.NoError(l.t, err)
	file := filepath.Join(l.root, filepath.FromSlash(s.Key(kind)))
	require.NoError(l.t, os.MkdirAll(filepath.Dir(file), 0o755))
	require.NoError(l.t, os.WriteFile(file, s.Body, 0o600))
	l.files = append(l.files, file)
}

// came is a delivery of a source at so many minutes of a day.
func came(day, minute int, d event.Delivery) *row.Row {
	at := dayOne.AddDate(0, 0, day).Add(time.Duration(minute) * time.Minute)
	d.ReceivedAt = at.Add(-250*time.Millisecond + 123*time.Microsecond)
	if d.DeliveryID == "" {
		d.DeliveryID = fmt.Sprintf("0199a0b0-0000-7000-8000-%012d", day*1e6+minute)
	}
	if d.Verdict == "" {
		d.Verdict = "verified"
	}
	r := event.Encode(&d)
	r.Timestamp = at
	return row.From(r, topicID)
}

func payment(id, amount string) event.Delivery {
	return event.Delivery{
		Source: "stripe", Provider: "stripe", ID: id, Type: "payment_intent.succeeded", Time: dayOne.Add(-time.Minute), Method: "POST", Path: "/webhooks/stripe",
		Body: fmt.Appendf(nil, `{"id":%q,"data":{"object":{"amount":%s}}}`, id, amount),
	}
}

// firstDay has every column, a repetition, a conflict, bodies that are no UTF-8 and no bytes at all, a delivery of several
// events, and records that are no delivery.
func (l *library) firstDay() []*row.Row {
	full := payment("evt_1", "1250")
	full.ContentType, full.RemoteAddr, full.SecretID, full.Query, full.SignedURL = "application/json", "192.0.2.1", "k_1", "a=%2F", "https://example.com/"
	full.TraceParent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	full.Headers = []event.Header{
		{Name: "user-agent", Value: "Stripe/1.0"},
		{Name: "x-many", Value: "1"},
		{Name: "x-many", Value: ""},
		{Name: "x-many", Value: "drei, vier ✓"},
		{Name: "x-latin", Value: "caf\xe9"},
	}
	other := payment("evt_2", "1")
	binary := payment("evt_3", "0")
	binary.Body = []byte("\xff\xfe{\x00\xc3\x28")
	empty := event.Delivery{Source: "open", ID: "evt_4", Body: []byte{}}
	several := event.Delivery{Source: "adyen", Provider: "adyen", ID: "batch_1", Type: "AUTHORISATION", Verdict: "verified,batch", Body: []byte(`{"notificationItems":[1,2]}`)}
	foreign := row.From(&kgo.Record{Key: []byte("k\xff"), Value: []byte("\x80"), Timestamp: dayOne.Add(time.Hour), Headers: []kgo.RecordHeader{{Key: "a", Value: []byte("\xff")}}}, topicID)
	return []*row.Row{
		came(0, 0, full), came(0, 5, full), came(0, 10, payment("evt_2", "4200")), came(0, 11, other), came(0, 12, binary), came(0, 13, empty),
		came(0, 14, several), foreign,
	}
}

func (l *library) secondDay() []*row.Row {
	large := payment("evt_5", "99")
	large.Body = append(large.Body, bytes.Repeat([]byte(" "), huge-len(large.Body))...)
	random := sha256.Sum256(nil)
	noise := event.Delivery{Source: "open", ID: "evt_6", Type: "blob", Body: make([]byte, 0, huge)}
	for len(noise.Body) < huge {
		random = sha256.Sum256(random[:])
		noise.Body = append(noise.Body, random[:]...)
	}
	return []*row.Row{came(1, 0, large), came(1, 61, noise)}
}

// future came within the grace of unprocessed, whenever the test runs.
func (l *library) future() *row.Row { return came(40_000, 0, payment("evt_7", "7")) }

// results are of the first day's events. One was published twice, and one is no JSON.
func (l *library) results() []*row.Row {
	result := func(source, id, delivery, operation string, attempt int, outcome string, set func(*event.Result)) *row.Row {
		out := &event.Result{
			Source: source, EventID: id, DeliveryID: delivery, Operation: operation, Definition: strings.Repeat("ab", 32), Attempt: attempt, Outcome: outcome,
			StartedAt: dayOne.Add(time.Duration(20+attempt) * time.Minute), Duration: 0.25,
		}
		if set != nil {
			set(out)
		}
		r, err := event.EncodeResult(out)
		require.NoError(l.t, err)
		r.Timestamp = out.StartedAt.Add(time.Second)
		return row.FromResult(r, topicID)
	}
	done := func(out *event.Result) {
		one, entity, version := int64(1), "order_1", "2026-11-01T00:00:00Z"
		out.RowsAffected, out.Entity, out.Version, out.Returned = &one, &entity, &version, json.RawMessage(`[{"id":1}]`)
	}
	failed := func(out *event.Result) {
		why := "23503: no such order ✗"
		out.Error = &why
	}
	first, part := "0199a0b0-0000-7000-8000-000000000000", "0199a0b0-0000-7000-8000-000000000014"
	broken := &row.Row{Source: "stripe", EventID: "evt_1", Type: "catchment.result", KafkaTimestamp: dayOne.Add(time.Hour), Body: []byte("\xff{"), BodySHA256: sha256.Sum256([]byte("\xff{"))}
	return []*row.Row{
		result("stripe", "evt_1", first, "order-status", 1, "succeeded", done), result("stripe", "evt_1", first, "order-status", 1, "succeeded", done),
		result("stripe", "evt_2", first[:30]+"000010", "order-status", 1, "failed", failed), result("stripe", "evt_2", first[:30]+"000010", "order-status", 2, "superseded", nil),
		result("stripe", "evt_3", first[:30]+"000012", "order-status", 1, "succeeded", nil), result("stripe", "evt_3", first[:30]+"000012", "ledger", 1, "failed", failed),
		result("adyen", "psp_1", part, "ledger", 1, "succeeded", nil), result("adyen", "psp_2", part, "ledger", 1, "dead", failed),
		broken,
	}
}

// TestReaders has each reader say every column of every row as Go wrote it.
func TestReaders(t *testing.T) {
	r := newReaders(t)
	l := newLibrary(t)
	l.segment(layout.Results, resultTopic, 0, l.results()...)
	var want []string
	for _, w := range l.rows {
		line, err := json.Marshal(columns(w))
		require.NoError(t, err)
		want = append(want, string(line))
	}
	for _, name := range []string{"duckdb", "pyarrow", "pandas", "polars"} {
		t.Run(name, func(t *testing.T) {
			got := r.run(t, l.root, nil, append([]string{"values", name}, l.files...)...)
			require.Len(t, got, len(want))
			for i := range want {
				require.JSONEq(t, want[i], got[i], "row %d", i)
			}
		})
	}
}

// columns is a row in the form of readers.py.
func columns(w *row.Row) map[string]any {
	text := func(s string) any {
		if s == "" {
			return nil
		}
		return s
	}
	micros := func(at time.Time) any {
		if at.IsZero() {
			return nil
		}
		return at.UnixMicro()
	}
	headers, attributes := [][]any{}, [][]string{}
	for _, h := range w.Headers {
		headers = append(headers, []any{h.Name, h.Values})
	}
	slices.SortFunc(headers, func(a, b []any) int { return strings.Compare(a[0].(string), b[0].(string)) })
	for _, a := range w.Attributes {
		attributes = append(attributes, []string{a.Name, a.Value})
	}
	body := sha256.Sum256(w.Body)
	return map[string]any{
		"source": text(w.Source), "provider": text(w.Provider), "event_id": text(w.EventID), "type": text(w.Type),
		"event_time": micros(w.EventTime), "received_at": micros(w.ReceivedAt), "kafka_timestamp": w.KafkaTimestamp.UnixMicro(),
		"delivery_id": text(w.DeliveryID), "content_type": text(w.ContentType), "headers": headers,
		"body": []any{len(w.Body), hex.EncodeToString(body[:])}, "body_sha256": hex.EncodeToString(w.BodySHA256[:]),
		"method": text(w.Method), "path": text(w.Path), "query": text(w.Query), "signed_url": text(w.SignedURL), "remote_addr": text(w.RemoteAddr),
		"secret_id": text(w.SecretID), "verdict": text(w.Verdict), "body_key_id": text(w.BodyKeyID), "attributes": attributes,
		"topic": w.Topic, "topic_id": hex.EncodeToString(w.TopicID[:]), "partition": w.Partition, "offset": w.Offset, "schema_version": w.SchemaVersion,
	}
}

// block is a piece of docs/analysts.md that is run.
type block struct {
	Title  string `json:"-"`
	Python bool   `json:"python"`
	Text   string `json:"text"`
}

// blocks are the ```sql and ```python blocks of a document. A title is the first line's comment, to its first full stop,
// comma or colon.
func blocks(t *testing.T, file string) (out []block) {
	t.Helper()
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	for _, part := range strings.Split(string(b), "\n```")[1:] {
		language, text, _ := strings.Cut(part, "\n")
		if language != "sql" && language != "python" {
			continue
		}
		first, _, _ := strings.Cut(text, "\n")
		title := strings.TrimLeft(first, "-# ")
		if i := strings.IndexAny(title, ".,:"); i >= 0 {
			title = title[:i]
		}
		out = append(out, block{title, language == "python", text})
	}
	return out
}

// answer is what readers.py says of one block.
type answer struct {
	Error   string            `json:"error"`
	Columns []string          `json:"columns"`
	Rows    []json.RawMessage `json:"rows"`
	Printed string            `json:"printed"`
}

// ask runs the blocks in one DuckDB beside the archive.
func (r readers) ask(t *testing.T, l *library, bs []block) (out []answer) {
	t.Helper()
	repository, err := filepath.Abs(root)
	require.NoError(t, err)
	for _, line := range r.run(t, filepath.Join(l.root, "..", ".."), map[string]any{"root": repository, "blocks": bs}, "sql") {
		var a answer
		require.NoError(t, json.Unmarshal([]byte(line), &a))
		out = append(out, a)
	}
	require.Len(t, out, len(bs))
	return out
}

// said is an answer as text: the columns, then a line a row.
func (a *answer) said() string {
	if a.Printed != "" || a.Error != "" {
		return a.Printed + a.Error
	}
	lines := []string{strings.Join(a.Columns, " ")}
	for _, r := range a.Rows {
		lines = append(lines, string(r))
	}
	return strings.Join(lines, "\n")
}

// TestAnalystsQueries runs every query of docs/analysts.md, and so every view, over an archive with all that makes
// queries fail.
func TestAnalystsQueries(t *testing.T) {
	r := newReaders(t)
	l := newLibrary(t)
	l.segment(layout.Results, resultTopic, 0, l.results()...)
	bs := blocks(t, filepath.Join(root, "docs", "analysts.md"))
	got := map[string]string{}
	for i, a := range r.ask(t, l, bs) {
		got[bs[i].Title] = a.said()
	}
	require.Len(t, got, len(bs), "each block has a title of its own")
	for title, want := range analysts {
		require.Equal(t, want, got[title], title)
	}
	require.Len(t, analysts, len(bs), "each block has its expectation")
}

// TestViewsWithoutResults is an archive whose processor has published nothing yet, and one delivery.
func TestViewsWithoutResults(t *testing.T) {
	r := newReaders(t)
	l := &library{t: t, root: filepath.Join(t.TempDir(), "catchment-data", "archive")}
	l.segment(layout.Events, deliveryTopic, 0, came(0, 0, payment("evt_1", "1")))
	bs := blocks(t, filepath.Join(root, "docs", "analysts.md"))[:1]
	for _, view := range views {
		bs = append(bs, block{Text: "SELECT count(*) AS n FROM " + view}, block{Text: "SELECT * FROM " + view})
	}
	for i, a := range r.ask(t, l, bs)[1:] {
		require.Empty(t, a.Error, views[i/2])
		if i%2 == 0 {
			want := map[string]string{"outcomes": "[0]", "conflicts": "[0]"}[views[i/2]]
			if want == "" {
				want = "[1]"
			}
			require.Equal(t, want, string(a.Rows[0]), views[i/2])
		}
	}
}

var views = []string{"deliveries", "events", "outcomes", "conflicts", "unprocessed"}

func viewsOf(t *testing.T, engine string) string {
	t.Helper()
	file, err := filepath.Abs(filepath.Join(root, "schemas", "views", engine+".sql"))
	require.NoError(t, err)
	return file
}

// TestViewsOfOtherEngines has the views of Trino and of Snowflake, neither of which is here, translated for DuckDB by sqlglot, and wants
// each of them to give the rows that DuckDB's own gives, column by column.
func TestViewsOfOtherEngines(t *testing.T) {
	r := newReaders(t)
	l := newLibrary(t)
	l.segment(layout.Results, resultTopic, 0, l.results()...)
	rows := func(engine string) []string { return r.run(t, l.root, nil, "answers", engine, viewsOf(t, engine)) }
	want := rows("duckdb")
	for _, view := range views {
		require.True(t, slices.ContainsFunc(want, func(line string) bool { return strings.HasPrefix(line, view+" {") }), "%s has no row", view)
	}
	for _, engine := range []string{"trino", "snowflake"} {
		require.Equal(t, want, rows(engine), engine)
	}
}

// TestViewsOnS3 has DuckDB read the archive from an S3 server, by its own extension: each view gives the rows that it gives of the
// folder.
func TestViewsOnS3(t *testing.T) {
	r := readersOf(t, "readers-s3")
	bucket := s3test.New(t)
	require.NotNil(t, bucket)
	l := newLibrary(t)
	l.segment(layout.Results, resultTopic, 0, l.results()...)
	for _, file := range l.files {
		name, err := filepath.Rel(l.root, file)
		require.NoError(t, err)
		body, err := os.ReadFile(file)
		require.NoError(t, err)
		_, err = bucket.Client().PutObject(t.Context(), &s3.PutObjectInput{Bucket: &bucket.Name, Key: aws.String("some/prefix/" + filepath.ToSlash(name)), Body: bytes.NewReader(body)})
		require.NoError(t, err)
	}
	at, err := json.Marshal(map[string]string{
		"archive": "s3://" + bucket.Name + "/some/prefix", "key": bucket.AccessKey, "secret": bucket.SecretKey, "region": bucket.Region,
		"endpoint": strings.TrimPrefix(bucket.Endpoint, "http://"),
	})
	require.NoError(t, err)
	args := []string{"answers", "duckdb", viewsOf(t, "duckdb")}
	require.Equal(t, r.run(t, l.root, nil, args...), r.run(t, t.TempDir(), nil, append(args, string(at))...))
}

// TestColumnsOfViews holds the lists of columns that the views repeat against schemas/: those of the files in each engine's types, and
// those of results.
func TestColumnsOfViews(t *testing.T) {
	r := newReaders(t)
	type relation struct {
		Name, Kind string
		Columns    [][2]string
	}
	for engine, types := range map[string]map[string]string{
		"trino":     {"text": "VARCHAR", "time": "TIMESTAMP(6)", "bytes": "VARBINARY", "int32": "INTEGER", "int64": "BIGINT", "headers": "MAP(VARCHAR, ARRAY(VARCHAR))", "attributes": "MAP(VARCHAR, VARCHAR)", "date": "DATE"},
		"snowflake": {"text": "VARCHAR", "time": "TIMESTAMPNTZ", "bytes": "BINARY", "int32": "INT", "int64": "BIGINT", "headers": "", "attributes": "", "date": ""},
	} {
		var files [][2]string
		for _, c := range filesColumns() {
			files = append(files, [2]string{c[0], types[c[1]]})
		}
		found, declared := map[string][]string{}, 0
		for _, line := range r.run(t, "", nil, "columns", engine, viewsOf(t, engine)) {
			var is relation
			require.NoError(t, json.Unmarshal([]byte(line), &is))
			if is.Kind != "view" {
				declared++
				require.Equal(t, files, is.Columns, "%s: %s", engine, is.Name)
			}
			for _, c := range is.Columns {
				found[is.Name] = append(found[is.Name], c[0])
			}
		}
		require.Equal(t, 2, declared, engine)
		require.Equal(t, resultColumns(t), found["outcomes"], engine)
	}
	l := newLibrary(t)
	l.segment(layout.Results, resultTopic, 0, l.results()...)
	bs := blocks(t, filepath.Join(root, "docs", "analysts.md"))[:1]
	for _, view := range views {
		bs = append(bs, block{Text: "SELECT * FROM " + view + " LIMIT 0"})
	}
	var all []string
	for _, c := range filesColumns() {
		all = append(all, c[0])
	}
	answers := r.ask(t, l, bs)[1:]
	require.Equal(t, all, answers[0].Columns)
	require.Equal(t, all, answers[1].Columns)
	require.Equal(t, resultColumns(t), answers[2].Columns)
}

// filesColumns are the columns of the files, and date, each with what it is.
func filesColumns() (out [][2]string) {
	for _, f := range row.Schema().Fields() {
		is := f.Name()
		if f.Leaf() {
			switch text := f.Type().String(); {
			case text == "STRING":
				is = "text"
			case strings.HasPrefix(text, "TIMESTAMP"):
				is = "time"
			case strings.HasPrefix(text, "INT("):
				is = "int" + text[4:6]
			default:
				is = "bytes"
			}
		}
		out = append(out, [2]string{f.Name(), is})
	}
	return append(out, [2]string{"date", "date"})
}

// resultColumns are those of catchment.results as an archived result has them.
func resultColumns(t *testing.T) (out []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "schemas", "tables.v1.sql"))
	require.NoError(t, err)
	_, table, ok := strings.Cut(string(text), "CREATE TABLE catchment.results (\n")
	require.True(t, ok)
	table, _, _ = strings.Cut(table, "\n);")
	for line := range strings.Lines(table) {
		out = append(out, strings.Fields(line)[0])
	}
	require.Equal(t, "duration", out[len(out)-1])
	return append(out[:len(out)-1], "duration_seconds", "published_at", "date")
}

// analysts are the answers to the document's blocks.
var analysts = map[string]string{
	"begin": "Count",
	"one event": `received_at delivery_id agent body
["2026-10-31T23:59:59.750123+00:00", "0199a0b0-0000-7000-8000-000000000000", "Stripe/1.0", "7b226964223a226576745f31222c2264617461223a7b226f626a656374223a7b22616d6f756e74223a313235307d7d7d"]
["2026-11-01T00:04:59.750123+00:00", "0199a0b0-0000-7000-8000-000000000005", "Stripe/1.0", "7b226964223a226576745f31222c2264617461223a7b226f626a656374223a7b22616d6f756e74223a313235307d7d7d"]`,
	"events by day and type": `date source type events
["2026-11-01", "adyen", "AUTHORISATION", 1]
["2026-11-01", "open", null, 1]
["2026-11-01", "stripe", "payment_intent.succeeded", 3]
["2026-11-02", "open", "blob", 1]
["2026-11-02", "stripe", "payment_intent.succeeded", 1]`,
	"volume by hour": `hour source deliveries bytes
["2026-11-01T00:00:00", "adyen", 1, 27]
["2026-11-01T00:00:00", "open", 1, 0]
["2026-11-01T00:00:00", "stripe", 5, 195]
["2026-11-02T00:00:00", "stripe", 1, 26214400]
["2026-11-02T01:00:00", "open", 1, 26214400]`,
	"a member of JSON bodies": `event_id amount
["evt_1", 1250]
["evt_2", 4200]
["evt_3", null]
["evt_5", 99]
["evt_7", 7]`,
	"events with what became of them": `event_id operation attempt outcome entity error
["evt_1", "order-status", 1, "succeeded", "order_1", null]
["evt_2", "order-status", 1, "failed", null, "23503: no such order \u2717"]
["evt_2", "order-status", 2, "superseded", null, null]
["evt_3", "ledger", 1, "failed", null, "23503: no such order \u2717"]
["evt_3", "order-status", 1, "succeeded", null, null]`,
	"events that came again with another body": `source event_id delivery_id first_delivery_id bytes
["stripe", "evt_2", "0199a0b0-0000-7000-8000-000000000011", "0199a0b0-0000-7000-8000-000000000010", 45]`,
	"events that nobody has finished": `source event_id type results type_has_results
["open", "evt_4", null, null, false]
["open", "evt_6", "blob", null, false]
["stripe", "evt_3", "payment_intent.succeeded", "ledger failed, order-status succeeded", true]
["stripe", "evt_5", "payment_intent.succeeded", null, true]`,
	"latency in seconds": `source operation events to_ingress to_result to_result_p99
["stripe", "order-status", 2, 419.75, 900.5, 1253.3]`,
	"the newest delivery of each event": `source event_id delivery_id bytes
["adyen", "batch_1", "0199a0b0-0000-7000-8000-000000000014", 27]
["open", "evt_4", "0199a0b0-0000-7000-8000-000000000013", 0]
["open", "evt_6", "0199a0b0-0000-7000-8000-000001000061", 26214400]
["stripe", "evt_1", "0199a0b0-0000-7000-8000-000000000005", 48]
["stripe", "evt_2", "0199a0b0-0000-7000-8000-000000000011", 45]
["stripe", "evt_3", "0199a0b0-0000-7000-8000-000000000012", 6]
["stripe", "evt_5", "0199a0b0-0000-7000-8000-000001000000", 26214400]
["stripe", "evt_7", "0199a0b0-0000-7000-8000-040000000000", 45]`,
	"pandas": "{('stripe', 'payment_intent.succeeded'): 5}\n",
	"Polars": "[('0199a0b0-0000-7000-8000-000000000000', 'application/json'), ('0199a0b0-0000-7000-8000-000000000005', 'application/json')]\n",
}
