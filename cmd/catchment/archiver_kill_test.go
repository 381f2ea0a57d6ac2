package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/mod/sumdb/note"

	"github.com/catchment-dev/catchment/archiver/archive"
	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/kafka/kafkatest"
	"github.com/catchment-dev/catchment/pkg/pgtest"
	"github.com/catchment-dev/catchment/pkg/proctest"
	"github.com/catchment-dev/catchment/pkg/s3test"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor"
)

// envArchiverKills says how often TestR37KilledUnderLoad kills an archiver.
const envArchiverKills = "CATCHMENT_TEST_ARCHIVER_KILLS"

// killPatience is for what must happen on a busy machine, two sessions included.
const killPatience = 2 * time.Minute

const morgueConfig = `
kafka: {brokers: ["%[1]s"], topic: %[2]s, results_topic: %[3]s, create_topic: false}
postgres: {url: "%[4]s"}
processor: {ops_listen: "%[5]s", group: "%[2]s.processor"}
archive: {url: "%[6]s", checkpoint_key: "%[7]s"}
archiver: {ops_listen: "%[8]s", group: "%[2]s.archiver", segment_age: 100ms, session_timeout: 6s, drain_timeout: 5s}
sources:
  shop: {provider: stripe, secrets: ["whsec_x"]}
operations:
  - name: ledger
    on: {source: shop, types: [paid]}
    sql: INSERT INTO ledger (event_id) VALUES (@id)
`

// stage is a moment of an archiver's work: a write that it waits for, and whether the server does what it asks for before the
// archiver is killed, never, or afterwards. Without a prefix it is any moment.
type stage struct {
	name, prefix string
	fault        s3test.Fault // None: the write comes to the store when its archiver is long dead
}

var stages = []stage{
	{"at any moment", "", s3test.None},
	{"within an upload", "events/", s3test.CutRequest},
	{"after a segment, before its answer", "events/", s3test.Late},
	{"before an upload that comes when another has taken over", "events/", s3test.None},
	{"before a checkpoint", "checkpoints/", s3test.CutRequest},
	{"after a checkpoint, before its answer", "checkpoints/", s3test.Late},
}

// trap holds the first write of a kind.
type trap struct {
	stage
	taken            atomic.Bool
	arrived, release chan struct{}
}

// victim is an archiver whose store is behind a proxy of its own.
type victim struct {
	*proctest.Process
	proxy *s3test.Proxy
	trap  atomic.Pointer[trap]
	over  chan struct{} // closed when the test ends
}

func (v *victim) choose(req *http.Request) s3test.Fault {
	at := v.trap.Load()
	if at == nil || at.prefix == "" || !s3test.IsWrite(req, at.prefix) || !at.taken.CompareAndSwap(false, true) {
		return s3test.None
	}
	if at.fault == s3test.None { // the whole of it is here before the archiver is dead
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return s3test.Error500
		}
		req.Body = io.NopCloser(bytes.NewReader(body))
	}
	close(at.arrived)
	if at.fault != s3test.Late {
		select {
		case <-at.release:
		case <-v.over:
		}
	}
	return at.fault
}

// morgue is a topic under load, a processor, and two archivers that are killed.
type morgue struct {
	t        *testing.T
	bucket   *s3test.Bucket
	admin    *kadm.Client
	cl       *kgo.Client
	topic    string
	results  string
	config   string // with the bucket itself, for the tool
	db       *pgx.Conn
	victims  []*victim
	held     []chan struct{} // uploads of the dead
	over     chan struct{}
	happened map[string]int // kills by their stage

	made, events, repeats, conflicts, foreign int // what was produced
}

func newMorgue(t *testing.T) *morgue {
	t.Helper()
	m := &morgue{t: t, bucket: s3test.New(t), over: make(chan struct{}), happened: map[string]int{}}
	cluster := kafkatest.New(t)
	if m.bucket == nil || !cluster.Real {
		t.Skip("there is no S3 server, or there are no real brokers: kfake never notices that a member has died while it waited for another dead one")
	}
	m.topic, m.results = cluster.Topic(t, 4), cluster.Topic(t, 2)
	m.cl = cluster.Client(t, kgo.DefaultProduceTopic(m.topic))
	m.admin = kadm.NewClient(m.cl)
	url := pgtest.New(t)
	require.NoError(t, processor.Migrate(t.Context(), url))
	var err error
	m.db, err = pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = m.db.Close(context.Background()) })
	_, err = m.db.Exec(t.Context(), "CREATE TABLE ledger (event_id text)")
	require.NoError(t, err)
	signer, _, err := note.GenerateKey(nil, "example.com/archive")
	require.NoError(t, err)
	ops := proctest.FreeAddress(t)
	config := func(store, archiverOps string) string {
		return fmt.Sprintf(morgueConfig, strings.Join(cluster.Brokers, `", "`), m.topic, m.results, url, ops, store, signer, archiverOps)
	}
	m.config = writeConfig(t, config(m.bucket.URL, proctest.FreeAddress(t)))
	for range 2 {
		v := &victim{over: m.over}
		v.proxy = m.bucket.Proxy(t, v.choose)
		address := proctest.FreeAddress(t)
		v.Process = proctest.New(t, proctest.Build(t, "../../archiver/cmd/archiver"), address, []byte(config(v.proxy.URL, address)))
		m.victims = append(m.victims, v)
	}
	t.Cleanup(func() { close(m.over) }) // before the proxies are closed, which wait for their requests
	p := proctest.New(t, proctest.Build(t, "../../processor/cmd/processor"), ops, []byte(config(m.bucket.URL, proctest.FreeAddress(t))))
	for _, one := range []*proctest.Process{p, m.victims[0].Process, m.victims[1].Process} {
		one.Start()
	}
	return m
}

// letGo lets the uploads of the dead come to the store.
func (m *morgue) letGo() {
	for _, release := range m.held {
		close(release)
	}
	m.held = nil
}

// produce writes n records: new events, and now and then one again, one with other bytes, and what is no delivery.
func (m *morgue) produce(n int) error {
	random := rand.New(rand.NewPCG(37, uint64(m.made)))
	records := make([]*kgo.Record, n)
	for i := range records {
		seq := m.made + i
		id, body := strconv.Itoa(m.events), random
		switch {
		case seq%100 == 99:
			records[i] = &kgo.Record{Key: []byte("k"), Value: []byte("no delivery")}
			m.foreign++
			continue
		case seq%100 == 49:
			id = "twin" // with other bytes each time
			body = rand.New(rand.NewPCG(uint64(seq), 1))
			if seq == 49 {
				m.events++
			} else {
				m.conflicts++
			}
		case seq%20 == 19:
			id = "again"
			body = rand.New(rand.NewPCG(1, 1))
			if seq == 19 {
				m.events++
			} else {
				m.repeats++
			}
		default:
			m.events++
		}
		records[i] = event.Encode(deliveryOf(id, []string{"paid", "seen", "seen", "seen"}[seq%4], body))
	}
	if err := m.cl.ProduceSync(m.t.Context(), records...).FirstErr(); err != nil {
		return err
	}
	m.made += n
	return nil
}

func deliveryOf(id, typ string, random *rand.Rand) *event.Delivery {
	body := make([]byte, 1+random.IntN(2000))
	for i := range body {
		body[i] = byte(random.Uint32())
	}
	now := time.Now().UTC()
	return &event.Delivery{
		Source: "shop", Provider: "stripe", ID: id, Type: typ, Time: now, ReceivedAt: now, DeliveryID: uuid.Must(uuid.NewV7()).String(), SecretID: "k_1",
		Method: "POST", Path: "/webhooks/shop", Verdict: event.NewVerdict(event.FlagVerified), Body: body,
	}
}

// kill kills an archiver at a stage of its work.
func (m *morgue) kill(v *victim, at stage) {
	m.t.Helper()
	here := &trap{stage: at, arrived: make(chan struct{}), release: make(chan struct{})}
	late := v.proxy.Faults()[s3test.Late]
	v.trap.Store(here)
	if at.prefix == "" {
		from := v.proxy.Requests()
		m.eventually(func() bool { return v.proxy.Requests() > from+20 }, "the archiver asks for nothing any more")
	} else {
		select {
		case <-here.arrived:
		case <-time.After(killPatience):
			require.Fail(m.t, "it never came to that", at.name)
		}
		if at.fault == s3test.Late {
			m.eventually(func() bool { return v.proxy.Faults()[s3test.Late] > late }, "the server has not answered")
		}
	}
	v.Kill()
	m.happened[at.name]++
	v.trap.Store(nil)
	m.letGo() // of who was killed before
	if at.prefix != "" && at.fault == s3test.None {
		m.held = append(m.held, here.release)
	} else {
		close(here.release)
	}
}

func (m *morgue) eventually(condition func() bool, what string) {
	m.t.Helper()
	require.True(m.t, await(m.t, killPatience, condition), what)
}

// records is how many records the topic has.
func (m *morgue) records(topic string) (n int) {
	m.t.Helper()
	ends, err := m.admin.ListEndOffsets(m.t.Context(), topic)
	require.NoError(m.t, err)
	ends.Each(func(o kadm.ListedOffset) { require.NoError(m.t, o.Err); n += int(o.Offset) })
	return n
}

func (m *morgue) count(sql string) (n int) {
	m.t.Helper()
	require.NoError(m.t, m.db.QueryRow(m.t.Context(), sql).Scan(&n), sql)
	return n
}

// settled waits until everything is processed, published and archived, and returns how many results there are.
func (m *morgue) settled() (results int) {
	m.t.Helper()
	require.Equal(m.t, m.made, m.records(m.topic))
	m.eventually(func() bool {
		return m.count(`SELECT coalesce(sum(next_offset), 0)::int FROM catchment.progress`) == m.made
	}, "not everything is processed")
	m.eventually(func() bool { return m.count(`SELECT count(*)::int FROM catchment.outbox`) == 0 }, "not everything is published")
	results = m.records(m.results)
	m.eventually(func() bool { return m.archived() == m.made+results }, "not everything is archived")
	return results
}

// archived is how many records the last checkpoints account for; 0 while a segment has none.
func (m *morgue) archived() (n int) {
	m.t.Helper()
	store, err := archive.Open(m.t.Context(), settings.Archive{URL: m.bucket.URL})
	require.NoError(m.t, err)
	ends := map[archive.Partition]int64{}
	for _, kind := range []archive.Kind{archive.Events, archive.Results} {
		for s, err := range archive.SegmentsOfKind(m.t.Context(), store, kind) {
			require.NoError(m.t, err)
			ends[s.Partition] = max(ends[s.Partition], s.First)
		}
	}
	for p, first := range ends {
		next := int64(0)
		for cp, err := range archive.Checkpoints(m.t.Context(), store, p, first) {
			require.NoError(m.t, err)
			next = cp.Last + 1
		}
		n += int(next)
	}
	return n
}

type verified struct {
	OK          bool
	Segments    int
	Checkpoints int
	Records     int
	Problems    []object
	Pending     []string `json:"pending_segments"`
}

func (m *morgue) verified() (v verified) {
	m.t.Helper()
	_, out, errs := tool(m.t, "archive", "verify", "--output", "json", "--config", m.config)
	require.NoError(m.t, json.Unmarshal([]byte(out), &v), errs)
	return v
}

func (m *morgue) audited(code int) (report struct {
	Total struct {
		Archived    int
		InKafka     int `json:"only_in_kafka"`
		Identities  int
		Repeats     int
		Conflicts   int
		DeadLetters int `json:"dead_letters"`
		Pending     int
	}
	Faults []object
},
) {
	m.t.Helper()
	got, out, errs := tool(m.t, "audit", "--bodies", "--output", "json", "--config", m.config)
	require.Equal(m.t, code, got, "%s%s", out, errs)
	require.NoError(m.t, json.Unmarshal([]byte(out), &report))
	return report
}

// judge wants everything to be archived and whole, and each record in one row. It returns how many results there are.
func (m *morgue) judge() (results int) {
	m.t.Helper()
	results = m.settled()
	v := m.verified()
	require.True(m.t, v.OK, "%v", v.Problems)
	require.Empty(m.t, v.Problems)
	require.Empty(m.t, v.Pending, "a segment without a checkpoint")
	require.Equal(m.t, v.Checkpoints, v.Segments)
	require.Equal(m.t, m.made+results, v.Records)
	report := m.audited(0)
	require.Empty(m.t, report.Faults)
	total := report.Total
	require.Equal(m.t, []int{m.made, 0, m.events, m.repeats, m.conflicts, m.foreign, 0},
		[]int{total.Archived, total.InKafka, total.Identities, total.Repeats, total.Conflicts, total.DeadLetters, total.Pending})
	out, err := m.bucket.Client().ListMultipartUploads(m.t.Context(), &s3.ListMultipartUploadsInput{Bucket: &m.bucket.Name})
	require.NoError(m.t, err)
	require.Empty(m.t, out.Uploads)
	return results
}

// analyst has DuckDB read all of the archive by a plain pattern, again and again, while it is written. end returns its last
// reading, of what there is then. Without real parts there is none.
func (m *morgue) analyst() (end func() (deliveries, results int)) {
	m.t.Helper()
	if os.Getenv("CATCHMENT_TEST_REAL") != "1" {
		return func() (int, int) { return m.made, m.records(m.results) } // verify has counted them
	}
	dir, err := exec.CommandContext(m.t.Context(), "bash", "../../scripts/foreign.sh", "../../archiver/archive/testdata/readers-s3").Output()
	require.NoError(m.t, err)
	b := m.bucket
	at, err := json.Marshal(map[string]string{"bucket": b.Name, "key": b.AccessKey, "secret": b.SecretKey, "region": b.Region, "endpoint": strings.TrimPrefix(b.Endpoint, "http://")})
	require.NoError(m.t, err)
	cmd := exec.CommandContext(m.t.Context(), filepath.Join(strings.TrimSpace(string(dir)), "venv", "bin", "python"), "testdata/read_while_written.py", string(at))
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	stdin, err := cmd.StdinPipe()
	require.NoError(m.t, err)
	require.NoError(m.t, cmd.Start())
	return func() (deliveries, results int) {
		m.t.Helper()
		require.NoError(m.t, stdin.Close())
		require.NoError(m.t, cmd.Wait(), errs.String())
		readings, grew := 0, 0
		for lines := bufio.NewScanner(&out); lines.Scan(); readings++ {
			var n [6]int
			_, err := fmt.Sscan(lines.Text(), &n[0], &n[1], &n[2], &n[3], &n[4], &n[5])
			require.NoError(m.t, err, lines.Text())
			require.Equal(m.t, []int{n[0], 0, n[3], 0}, []int{n[1], n[2], n[4], n[5]}, "reading %d: rows twice, or not whole: %v", readings, n)
			require.GreaterOrEqual(m.t, n[0], deliveries, "reading %d: rows are gone", readings)
			if n[0] > deliveries {
				grew++
			}
			deliveries, results = n[0], n[3]
		}
		require.Greater(m.t, grew, 3, "of %d readings, while it was written", readings)
		m.t.Logf("%d readings by DuckDB, %d of which found more than the one before", readings, grew)
		return deliveries, results
	}
}

// R37: two archivers of one group are killed in turn, at each stage of their work, while records come, and leave in good order
// in between. DuckDB reads meanwhile. Afterwards the archive is whole, so says the audit of it, of Kafka and of Postgres, and
// each record is in exactly one row.
func TestR37KilledUnderLoad(t *testing.T) {
	kills := 20
	if text := os.Getenv(envArchiverKills); text != "" {
		var err error
		kills, err = strconv.Atoi(text)
		require.NoError(t, err, envArchiverKills)
	}
	m := newMorgue(t)
	stopLoad := kafkatest.Load(t, func() error { return m.produce(20) })
	stopReading := m.analyst()
	began := time.Now()
	for n := range kills - 1 {
		v, other := m.victims[n%2], m.victims[(n+1)%2]
		m.kill(v, stages[n%len(stages)])
		v.Start()
		if n%5 == 4 { // the other one leaves, and comes back
			other.WaitReady()
			other.Stop()
			other.Start()
		}
	}
	m.kill(m.victims[0], stages[0])
	stopLoad()
	t.Logf("%d kills in %s, %d records: %v", kills, time.Since(began).Round(time.Second), m.made, m.happened)
	m.settled() // by the other one alone
	m.letGo()
	m.victims[0].Start()
	require.NoError(t, m.produce(100))
	results := m.judge()
	deliveries, read := stopReading()
	require.Equal(t, []int{m.made, results}, []int{deliveries, read}, "rows that a plain pattern finds")
	m.mustHaveHappened(kills)
	for _, v := range m.victims {
		v.Stop()
	}
	m.mustBeSeen()
}

// mustHaveHappened wants the test to have done what it is for.
func (m *morgue) mustHaveHappened(kills int) {
	m.t.Helper()
	cut, late, assigned, adopted, refused := 0, 0, 0, 0, 0
	for _, v := range m.victims {
		cut += v.proxy.Faults()[s3test.CutRequest]
		late += v.proxy.Faults()[s3test.Late]
		_, other := v.proxy.Refused()
		refused += other
		assigned += v.Said("going on behind the archive's end")
		adopted += v.Said("adopted another archiver's segment")
	}
	m.t.Logf("%d writes were cut, %d had no answer, %d were refused for other bytes; partitions were taken over %d times, segments %d times", cut, late, refused, assigned, adopted)
	for i, at := range stages {
		if i < kills-1 {
			require.Positive(m.t, m.happened[at.name], at.name)
		}
	}
	require.GreaterOrEqual(m.t, cut, m.happened[stages[1].name]+m.happened[stages[4].name])
	require.GreaterOrEqual(m.t, late, m.happened[stages[2].name]+m.happened[stages[5].name])
	require.Positive(m.t, refused)
	require.Positive(m.t, adopted)
	require.Greater(m.t, assigned, kills)
	require.Positive(m.t, m.repeats*m.conflicts*m.foreign)
}

// mustBeSeen takes one segment away, and wants both judges to say so.
func (m *morgue) mustBeSeen() {
	m.t.Helper()
	prefix := "events/"
	out, err := m.bucket.Client().ListObjectsV2(m.t.Context(), &s3.ListObjectsV2Input{Bucket: &m.bucket.Name, Prefix: &prefix})
	require.NoError(m.t, err)
	gone := out.Contents[len(out.Contents)/2].Key
	_, err = m.bucket.Client().DeleteObject(m.t.Context(), &s3.DeleteObjectInput{Bucket: &m.bucket.Name, Key: gone})
	require.NoError(m.t, err)
	v := m.verified()
	require.False(m.t, v.OK)
	require.True(m.t, slices.ContainsFunc(v.Problems, func(p object) bool { return p["key"] == *gone }), "%v", v.Problems)
	require.True(m.t, slices.ContainsFunc(m.audited(1).Faults, func(f object) bool { return f["kind"] == "missing segment" && f["object"] == *gone }))
}
