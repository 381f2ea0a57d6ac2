package main

import (
	"encoding/base64"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/mod/sumdb/note"

	"github.com/catchment-dev/catchment/archiver/keys"
	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/provider"
	"github.com/catchment-dev/catchment/pkg/settings"
)

const vault = `
kafka: {brokers: ["%s"], topic: %s, create_topic: false, results_topic: off}
archive: {url: "%s", checkpoint_key: "%s", checkpoint_copy: "file://%s"}
sources:
  shop: {provider: stripe, secrets: [{id: "2026-q4", value: %[6]s}]}
  code: {provider: github, secrets: [{id: "2026-q4", value: anything}]}
  tokens: {provider: gitlab, secrets: [{id: token, value: t0ken}]}
  tickets: {provider: okta, secrets: [{id: okta, value: t0ken}]}
`

const (
	stripeSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	octetBody    = "{\"id\":\"evt_1\",\"n\":\xff\x00 1}\n"
)

// delivered makes a delivery signed by the provider as Sign does, and writes it to Kafka as the ingress would.
func (o *office) delivered(source, scheme, id, secretID, secret, body string) (deliveryID string) {
	o.t.Helper()
	now := time.Now().UTC().Truncate(time.Microsecond)
	d := &event.Delivery{
		Source: source, Provider: scheme, ID: id, Type: "t", ReceivedAt: now, DeliveryID: uuid.Must(uuid.NewV7()).String(), SecretID: secretID,
		Method: "POST", Path: "/webhooks/" + source, Query: "a=b", ContentType: "application/json", Verdict: event.NewVerdict(event.FlagVerified), Body: []byte(body),
	}
	p, ok := provider.ByName(scheme)
	require.True(o.t, ok)
	s, err := p.Sign(&provider.SignInput{Secret: secret, URL: "https://example.com/webhooks/" + source, Body: []byte(body), Now: now, Sample: provider.Sample{ID: id, Type: "t"}})
	require.NoError(o.t, err)
	d.Body = s.Body
	u, err := url.Parse(s.URL)
	require.NoError(o.t, err)
	require.Equal(o.t, d.Path, u.Path)
	for _, name := range slices.Sorted(maps.Keys(s.Header)) {
		value := s.Header.Get(name)
		if slices.Contains(p.SecretHeaders, name) {
			value = "[redacted]"
		}
		d.Headers = append(d.Headers, event.Header{Name: strings.ToLower(name), Value: value})
	}
	require.NoError(o.t, o.cl.ProduceSync(o.t.Context(), event.Encode(d)).FirstErr())
	return d.DeliveryID
}

// TestArchiveByTool lists, reads and proves an archive, and finds what was forged, altered and cut off.
func TestArchiveByTool(t *testing.T) {
	o := newOffice(t)
	o.stop()
	signer, verifier, err := note.GenerateKey(nil, "example.com/archive")
	require.NoError(t, err)
	second := t.TempDir()
	o.config = writeConfig(t, fmt.Sprintf(vault, strings.Join(o.cluster.Brokers, `", "`), o.topic, o.archive, signer, second, stripeSecret))

	first := o.delivered("shop", "stripe", "evt_1", "2026-q4", stripeSecret, octetBody)
	again := o.delivered("shop", "stripe", "evt_1", "2026-q4", stripeSecret, `{"id":"evt_1","retry":1}`)
	o.delivered("shop", "stripe", "evt_2", "2026-q3", "whsec_gone", `{"id":"evt_2"}`)
	o.delivered("code", "github", "shared", "2026-q4", "anything", `{"a":1}`)
	o.delivered("tokens", "gitlab", "shared", "token", "t0ken", `{}`)
	o.delivered("gone", "github", "g1", "k", "k", `{}`)
	require.NoError(t, o.cl.ProduceSync(t.Context(), &kgo.Record{Value: []byte("no delivery")}).FirstErr())
	o.archiveUntil(7)

	// cat: the bytes, and nothing else.
	code, stdout, stderr := tool(t, "archive", "cat", "evt_1", "--config", o.config)
	require.Equal(t, 0, code, stderr)
	require.Equal(t, octetBody, stdout)
	require.Contains(t, stderr, "the first of 2 deliveries")
	_, stdout, stderr = tool(t, "archive", "cat", "evt_1", "--config", o.config, "--delivery", again)
	require.Equal(t, `{"id":"evt_1","retry":1}`, stdout)
	require.Empty(t, stderr)
	_, stdout, _ = tool(t, "archive", "cat", "evt_2", "--config", o.config, "--headers")
	require.Regexp(t, `(?s)^POST /webhooks/shop\?a=b\n.*stripe-signature: t=.*\n\n{"id":"evt_2"}$`, stdout)
	var one object
	o.run(0, &one, "archive", "cat", "shared", "--source", "code")
	require.Equal(t, []any{"code", "eyJhIjoxfQ=="}, []any{one["source"], one["body_base64"]})
	var all []object
	o.run(0, &all, "archive", "cat", "evt_1", "--all")
	require.Equal(t, []any{first, again}, []any{all[0]["delivery_id"], all[1]["delivery_id"]})
	require.Contains(t, o.run(2, nil, "archive", "cat", "shared"), "several sources")
	require.Contains(t, o.run(1, nil, "archive", "cat", "evt_9"), "no event")
	require.Contains(t, o.run(1, nil, "archive", "cat", "evt_1", "--delivery", "x"), "--all lists them")
	require.Contains(t, o.run(1, nil, "archive", "cat", "evt_1", "--until", "2020-01-01"), "no event")
	require.Contains(t, o.run(2, nil, "archive", "cat", "evt_1", "--since", "x"), "--since")

	// verify: the archive is whole, and so are the signatures whose secrets are here.
	type proof struct {
		OK       bool
		Records  int
		Problems []struct{ Key, Kind, What string }
		Gaps     []object `json:"admitted_gaps"`
		Chains   []object
		Again    struct{ Outcomes map[string]int } `json:"provider_signatures"`
	}
	verify := func(code int, args ...string) (p proof) {
		o.run(code, &p, append([]string{"archive", "verify"}, args...)...)
		return p
	}
	p := verify(0)
	require.True(t, p.OK)
	require.Equal(t, 7, p.Records)
	require.Len(t, p.Chains, 1)
	require.Equal(t, map[string]int{"verified": 3, "no secret": 1, "not re-verifiable": 1, "no source": 1, "not a delivery": 1}, verify(0, "--secrets").Again.Outcomes)
	require.Len(t, verify(1, "--secrets", "--strict").Problems, 2)
	page := o.run(0, nil, "archive", "verify", "--secrets", "--key", verifier)
	require.Contains(t, page, "nothing was altered")
	require.Contains(t, page, "tokens, secret token: 1 not re-verifiable")
	require.NotContains(t, page, "not checked")
	require.Contains(t, o.run(2, nil, "archive", "verify", "--key", "x"), "--key")
	t.Run("an archive that is not there is not whole", func(t *testing.T) {
		t.Setenv("CATCHMENT_ARCHIVE__URL", "file://"+t.TempDir())
		said := o.run(1, nil, "archive", "verify", "--no-copy")
		require.Contains(t, said, "there is no archive at file://")
		require.NotContains(t, said, "whole  ")
	})
	require.Contains(t, o.run(2, nil, "archive", "verify", "--checkpoint", o.config), "malformed")

	o.delivered("shop", "stripe", "evt_3", "2026-q4", "whsec_wrong", `{"id":"evt_3"}`) // what only a forger can bring in
	o.archiveUntil(8)
	p = verify(1, "--secrets")
	require.Len(t, p.Problems, 1)
	require.Contains(t, p.Problems[0].What, `offset 7, source shop, event "evt_3": wrong: unauthentic`)
	verify(0)

	// gap: only where Kafka's retention has overtaken the archive.
	require.Contains(t, o.run(2, nil, "archive", "gap", "--partition", "0"), "--reason")
	require.Contains(t, o.run(1, nil, "archive", "gap", "--partition", "0", "--reason", "x", "--yes"), "nothing is lost")
	o.delivered("shop", "stripe", "evt_4", "2026-q4", stripeSecret, `{"id":"evt_4"}`)
	o.delivered("shop", "stripe", "evt_5", "2026-q4", stripeSecret, `{"id":"evt_5"}`)
	o.overtake(9)
	require.Contains(t, o.run(1, nil, "archive", "gap", "--partition", "7", "--reason", "x", "--yes"), "no partition 7")
	require.Contains(t, o.run(2, nil, "archive", "gap", "--partition", "0", "--reason", "x"), "offsets 8 to 8")
	require.Contains(t, o.run(0, nil, "archive", "gap", "--partition", "0", "--reason", "a day of retention", "--actor", "ada", "--yes"), "offsets 8 to 8")
	require.Contains(t, o.run(1, nil, "archive", "gap", "--partition", "0", "--reason", "again", "--yes"), "nothing is lost")
	o.archiveUntil(10)
	p = verify(0)
	require.Len(t, p.Gaps, 1)
	require.Equal(t, []any{"ada", "a day of retention", 8.0}, []any{p.Gaps[0]["actor"], p.Gaps[0]["reason"], p.Gaps[0]["last_offset"]})
	require.Contains(t, o.run(0, nil, "archive", "verify"), "admitted gap")

	// ls: segments, and the gap between them.
	var listed []object
	o.run(0, &listed, "archive", "ls")
	var states []any
	for _, l := range listed {
		states = append(states, l["state"])
	}
	require.Equal(t, "lost: a day of retention", states[len(states)-2])
	require.Equal(t, []any{9.0, 9.0, "sealed"}, []any{listed[len(listed)-1]["first_offset"], listed[len(listed)-1]["last_offset"], states[len(states)-1]})
	require.Contains(t, o.run(0, nil, "archive", "ls", "--topic", o.topic, "--partition", "0", "--since", "1d"), ".parquet")
	require.NotContains(t, o.run(0, nil, "archive", "ls", "--partition", "3"), ".parquet")

	// What was cut off is found by the second place, or by a checkpoint that was kept.
	folder := strings.TrimPrefix(o.archive, "file://")
	checkpoints, err := filepath.Glob(filepath.Join(folder, "checkpoints", "*", "*"))
	require.NoError(t, err)
	last := checkpoints[len(checkpoints)-1]
	kept := filepath.Join(t.TempDir(), "kept")
	object, err := os.ReadFile(last)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(kept, object, 0o600))
	require.NoError(t, os.Remove(last))
	require.NoError(t, os.Remove(filepath.Join(folder, listed[len(listed)-1]["key"].(string))))
	require.Equal(t, "rolled back", verify(1).Problems[0].Kind)
	require.Equal(t, "rolled back", verify(1, "--no-copy", "--checkpoint", kept).Problems[0].Kind)
	require.Equal(t, "rolled back", verify(1, "--copy", "file://"+second).Problems[0].Kind)
	verify(0, "--no-copy")
	segment := filepath.Join(folder, listed[0]["key"].(string))
	require.NoError(t, os.Remove(segment))
	require.Contains(t, o.run(1, nil, "archive", "verify", "--no-copy"), "missing")
	require.True(t, verify(0, "--no-copy", "--since", time.Now().AddDate(0, 0, 2).Format(time.DateOnly)).OK)
}

// What neither Kafka nor the archive has holds a backfill up, until somebody says that it is lost.
func TestBackfillAcrossGap(t *testing.T) {
	o := newOffice(t)
	o.exec(`CREATE TABLE ledger (event_id text)`)
	o.configure(`  - name: ledger
    on: {source: shop}
    sql: INSERT INTO ledger (event_id) VALUES (@id)
`)
	receive := func(from, to int) {
		for i := from; i < to; i++ {
			o.receive(fmt.Sprintf("e%03d", i), "ignored", `{"order":"o","v":1,"amount":1}`)
		}
	}
	receive(0, 5)
	o.eventually(5, `SELECT count(*)::int FROM ledger`)
	o.stop()
	receive(5, 10)
	o.archiveUntil(10)
	receive(10, 20)
	o.overtake(18)
	require.Contains(t, o.run(1, nil, "backfill"), "the archive ends at offset 9, and Kafka begins at 18")
	require.Contains(t, o.run(0, nil, "archive", "gap", "--partition", "0", "--reason", "lost", "--yes"), "offsets 10 to 17")
	require.Contains(t, o.run(1, nil, "backfill"), "--across-gaps")
	require.Equal(t, 10, o.count(`SELECT next_offset::int FROM catchment.progress`))
	require.Equal(t, 10, o.count(`SELECT count(*)::int FROM ledger`))
	var ranges []object
	o.run(0, &ranges, "backfill", "--across-gaps", "--reason", "they are lost")
	require.Equal(t, 18.0, ranges[0]["next"])
	o.restart()
	o.eventually(12, `SELECT count(*)::int FROM ledger`)
	require.Equal(t, 12, o.count(`SELECT count(DISTINCT event_id)::int FROM ledger`))
}

// TestSealedArchiveByTool prints and proves what is encrypted: with its key as if it were not, and without it says why not.
func TestSealedArchiveByTool(t *testing.T) {
	o := newOffice(t)
	o.stop()
	signer, _, err := note.GenerateKey(nil, "example.com/archive")
	require.NoError(t, err)
	plain := fmt.Sprintf(vault, strings.Join(o.cluster.Brokers, `", "`), o.topic, o.archive, signer, t.TempDir(), stripeSecret)
	encryption := fmt.Sprintf(`, encryption: {keys_url: "file://%s", master_key: %q}}`, t.TempDir(), base64.StdEncoding.EncodeToString(make([]byte, 32)))
	o.config = writeConfig(t, strings.Replace(plain, "}\nsources", encryption+"\nsources", 1))
	o.delivered("shop", "stripe", "evt_1", "2026-q4", stripeSecret, octetBody)
	o.delivered("code", "github", "g1", "2026-q4", "anything", `{"a":1}`)
	o.archiveUntil(2)

	outcomes := func() map[string]int {
		var p struct {
			Again struct{ Outcomes map[string]int } `json:"provider_signatures"`
		}
		o.run(0, &p, "archive", "verify", "--secrets")
		return p.Again.Outcomes
	}
	code, stdout, stderr := tool(t, "archive", "cat", "evt_1", "--config", o.config)
	require.Equal(t, 0, code, stderr)
	require.Equal(t, octetBody, stdout)
	require.Contains(t, o.run(0, nil, "archive", "cat", "evt_1", "--headers"), "stripe-signature: ")
	require.Equal(t, map[string]int{"verified": 2}, outcomes())

	cfg, err := settings.Load(o.config, settings.NeedArchive)
	require.NoError(t, err)
	ring, err := keys.Open(t.Context(), cfg.Archive)
	require.NoError(t, err)
	there, _, err := ring.List(t.Context(), "shop", time.Now().AddDate(0, 0, -1), time.Now().AddDate(0, 0, 1))
	require.NoError(t, err)
	for _, id := range there {
		require.NoError(t, ring.Destroy(t.Context(), keys.Erasure{ID: id, At: time.Now(), Actor: "ann", Reason: "request 12"}))
	}
	require.Contains(t, o.run(1, nil, "archive", "cat", "evt_1"), "request 12")
	require.Equal(t, map[string]int{"verified": 1, "erased": 1}, outcomes())

	o.config = writeConfig(t, strings.Replace(plain, "}\nsources", strings.Replace(encryption, base64.StdEncoding.EncodeToString(make([]byte, 32)), strings.Repeat("01", 32), 1)+"\nsources", 1))
	require.Contains(t, o.run(1, nil, "archive", "verify", "--secrets"), "not decrypted: the archive's key cannot be used")
	require.Contains(t, o.run(0, nil, "archive", "verify"), "nothing was altered")

	o.config = writeConfig(t, plain)
	require.Contains(t, o.run(1, nil, "archive", "verify", "--secrets", "--strict"), "encrypted: the record is encrypted")
	require.Contains(t, o.run(1, nil, "archive", "cat", "g1"), "no archive.encryption")
	var one object
	o.run(0, &one, "archive", "cat", "g1")
	require.NotEmpty(t, one["body_key_id"])
	require.Equal(t, map[string]int{"encrypted": 2}, outcomes())
}

// TestStrangeIDs has events whose IDs could be taken for something else, or can be no event's: each is found by its ID, is
// audited, and is nobody else's.
func TestStrangeIDs(t *testing.T) {
	o := newOffice(t)
	ids := []string{
		"-x", "--all", "a b", "evt\n1", "ünï✓", "' OR 1=1 --", "../../x", "\x1b[31mred", strings.Repeat("z", 1024), "%s%d", "a/b", "*", "A", "a", " lead", "trail ", "{}",
	}
	for i, id := range ids {
		o.receive(id, "seen", fmt.Sprintf(`{"n":%d}`, i))
	}
	none := []string{"\xff\xfe", "evt\x00nul", strings.Repeat("z", 1025), ""}
	for _, id := range none {
		o.receive(id, "seen", `{"id":"none"}`)
	}
	strange := event.Encode(&event.Delivery{Source: "shop\x00", Provider: "stripe", ID: "evt_1", ReceivedAt: time.Now(), DeliveryID: uuid.NewString(), Verdict: event.NewVerdict(event.FlagVerified)})
	require.NoError(t, o.cl.ProduceSync(t.Context(), strange).FirstErr())
	n := len(ids) + len(none) + 1
	audit := func(args ...string) {
		report, _ := o.audited(0, args...)
		total := report["total"].(object)
		require.Equal(t, []any{float64(len(ids)), float64(len(none) + 1)}, []any{total["identities"], total["dead_letters"]}, "%v", report)
	}
	o.eventually(n, `SELECT coalesce(max(next_offset), 0)::int FROM catchment.progress`)
	audit() // from Kafka
	o.archiveUntil(int64(n))
	audit()
	audit("--bodies")
	for i, id := range ids {
		code, stdout, stderr := tool(t, "archive", "cat", "--config", o.config, "--", id)
		require.Equal(t, 0, code, stderr)
		require.Equal(t, fmt.Sprintf(`{"n":%d}`, i), stdout, "%q", id)
		require.Empty(t, stderr)
		code, stdout, _ = tool(t, "archive", "cat", "--all", "--config", o.config, "--", id)
		require.Equal(t, 0, code)
		require.NotContains(t, stdout, "\x1b")
	}
	require.NotContains(t, o.run(1, nil, "archive", "cat", "\x1b[31mgone"), "\x1b")
}
