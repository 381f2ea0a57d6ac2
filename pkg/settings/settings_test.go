package settings

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write schemas/config.schema.json and docs/config.md")

// TestGeneratedFiles keeps the schema for editors and the reference for people true.
func TestGeneratedFiles(t *testing.T) {
	schema, err := json.MarshalIndent(Schema(), "", "  ")
	require.NoError(t, err)
	for file, want := range map[string]string{
		"../../schemas/config.schema.json": string(schema) + "\n",
		"../../docs/config.md":             Reference(),
	} {
		if *update {
			require.NoError(t, os.WriteFile(file, []byte(want), 0o644))
		}
		got, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Equal(t, want, string(got), "run make generate")
	}
}

const full = `
kafka: {brokers: [kafka-0:9092], accept: [retention]}
postgres: {url: "${DATABASE_URL}"}
archive: {url: "s3://audit-log?region=eu-central-1", checkpoint_key: file:checkpoint.key}
ingress: {listen: ":8080"}
sources:
  stripe: {provider: stripe, secrets: ["${STRIPE_WEBHOOK_SECRET}"]}
  github: {provider: github, secrets: [{id: "2026-q4", file: github}], ack_timeout: 9s}
  partner:
    provider: hmac
    hmac: {header: X-Signature, algorithm: sha256, encoding: hex, prefix: "sha256=", signed: "{timestamp}.{body}", timestamp_header: X-Timestamp, tolerance: 5m}
    event_id: body.id
    event_type: body.kind
    secrets: ["${PARTNER_SECRET}"]
operations:
  - name: order-status
    on: {source: stripe, types: [payment_intent.succeeded, payment_intent.*]}
    when: has(body.data.object.metadata.order_id)
    entity: body.data.object.metadata.order_id
    version: time
    guard: orders
    sql: INSERT INTO orders (id) VALUES (@entity)
    params: {amount: body.data.object.amount, one: 1}
    retry: {max_attempts: 10, initial: 1s, max: 1h}
`

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "catchment.yaml")
	require.NoError(t, os.WriteFile(path, []byte(full), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "github"), []byte("from a file\n"), 0o600))
	t.Setenv("STRIPE_WEBHOOK_SECRET", "whsec_x")
	t.Setenv("PARTNER_SECRET", "p")

	f, err := Load(path, NeedKafka, NeedIngress, NeedSources, NeedTelemetry)
	require.NoError(t, err, "the ingress needs neither the database's URL nor the checkpoint key")
	require.Equal(t, "catchment.events", f.Kafka.Topic)
	require.Equal(t, 7*24*time.Hour, f.Kafka.Retention)
	require.Equal(t, 9*time.Second, f.Sources["github"].AckTimeout)
	require.Equal(t, "sha256", f.Sources["partner"].HMAC.Algorithm)
	require.Equal(t, "1", f.Operations[0].Params["one"])
	src, errs := f.OpenSource("github", nil)
	require.Empty(t, errs)
	require.Equal(t, "github", src.Provider().Name)

	_, err = Load(path, Everything...)
	require.ErrorContains(t, err, path+":3:17: postgres.url: expected the environment variable DATABASE_URL to be set")
	require.ErrorContains(t, err, path+":4:70: archive.checkpoint_key: expected a readable file with the secret")

	t.Setenv("CATCHMENT_KAFKA__BROKERS", "a:1,b:2")
	t.Setenv("CATCHMENT_SOURCES__GITHUB__ACK_TIMEOUT", "3s")
	f, err = Load(path, NeedKafka, NeedSources)
	require.NoError(t, err)
	require.Equal(t, []string{"a:1", "b:2"}, f.Kafka.Brokers)
	require.Equal(t, 3*time.Second, f.Sources["github"].AckTimeout)
}

// TestSASL wants each mechanism to have what it needs, and nothing else.
func TestSASL(t *testing.T) {
	for text, want := range map[string]string{
		`{mechanism: plain, username: u, password: p}`:      "",
		`{mechanism: scram-sha-512, username: u}`:           "catchment.yaml:1:31: kafka.sasl: mechanism scram-sha-512 needs the key password",
		`{mechanism: plain, password: p}`:                   "kafka.sasl: mechanism plain needs the key username",
		`{mechanism: gssapi}`:                               "kafka.sasl.mechanism: expected one of plain, scram-sha-256, scram-sha-512, oauthbearer, aws-msk-iam",
		`{mechanism: aws-msk-iam}, tls: {}`:                 "",
		`{mechanism: aws-msk-iam}`:                          "kafka.sasl: mechanism aws-msk-iam needs TLS",
		`{mechanism: aws-msk-iam, username: u}, tls: {}`:    "kafka.sasl.username: expected none",
		`{mechanism: oauthbearer}`:                          "kafka.sasl: mechanism oauthbearer needs the key oauth",
		`{mechanism: oauthbearer, oauth: {token_file: /t}}`: "",
		`{mechanism: oauthbearer, oauth: {}}`:               "kafka.sasl.oauth: expected either token_file or token_url",
		`{mechanism: oauthbearer, oauth: {token_url: "https://x/t", client_id: a, client_secret: b, scope: kafka}}`: "",
		`{mechanism: oauthbearer, oauth: {token_url: "https://x/t", client_id: a}}`:                                 "kafka.sasl.oauth: token_url needs client_id and client_secret",
		`{mechanism: oauthbearer, oauth: {token_url: "x/t", client_id: a, client_secret: b}}`:                       "kafka.sasl.oauth.token_url: expected a URL",
		`{mechanism: oauthbearer, password: p, oauth: {token_file: /t, client_id: a}}`:                              "kafka.sasl.oauth.token_file: expected no client_id",
		`{mechanism: plain, username: u, password: p, oauth: {token_file: /t}}`:                                     "kafka.sasl.oauth: expected none",
	} {
		_, err := Parse("catchment.yaml", []byte(`kafka: {brokers: [a:1], sasl: `+text+"}\n"), NeedKafka)
		if want == "" {
			require.NoError(t, err, text)
		} else {
			require.ErrorContains(t, err, want, text)
		}
	}

	password := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(password, []byte("from a file\n"), 0o600))
	t.Setenv("CATCHMENT_KAFKA__SASL__PASSWORD_FILE", password)
	f, err := Parse("catchment.yaml", []byte("kafka: {brokers: [a:1], sasl: {mechanism: plain, username: u}}\n"), NeedKafka)
	require.NoError(t, err)
	require.Equal(t, "from a file", f.Kafka.SASL.Password.Reveal())
	require.Equal(t, password, f.Kafka.SASL.Password.File())
}

func TestAddresses(t *testing.T) {
	_, err := Parse("catchment.yaml", []byte(`
kafka: {brokers: [a, "b:0", "c:9092"]}
postgres: {url: "postgrs://u:canary@h/d"}
archive: {url: "ftp://x"}
ingress: {listen: "127.0.0.1", ops_listen: "127.0.0.1:http"}
`), Everything...)
	require.EqualError(t, err, `catchment.yaml:2:19: kafka.brokers[0]: expected host:port, found "a"
catchment.yaml:2:22: kafka.brokers[1]: expected host:port, found "b:0"
catchment.yaml:3:17: postgres.url: expected a URL such as postgres://user:password@host:5432/database; a % in a password is written %25
catchment.yaml:4:16: archive.url: expected file:// or s3://, found "ftp"
catchment.yaml:5:19: ingress.listen: expected host:port, found "127.0.0.1"
catchment.yaml:5:44: ingress.ops_listen: expected host:port, found "127.0.0.1:http"`)
	_, err = Parse("catchment.yaml", []byte(`ingress: {listen: ":8080", ops_listen: ":8080"}`), NeedIngress)
	require.EqualError(t, err, `catchment.yaml:1:40: ingress.ops_listen: expected another address than ingress.listen, ":8080"`)
	_, err = Parse("catchment.yaml", []byte(`ingress: {listen: "127.0.0.1:9090"}`), NeedIngress)
	require.EqualError(t, err, `catchment.yaml:1:10: ingress.ops_listen: expected another address than ingress.listen, "127.0.0.1:9090"`)
	_, err = Parse("catchment.yaml", []byte(`ingress: {listen: "127.0.0.1:0", ops_listen: "127.0.0.1:0"}`), NeedIngress)
	require.NoError(t, err)
}

func TestEncryption(t *testing.T) {
	t.Setenv("EMPTY", "")
	hexKey, base64Key := strings.Repeat("0f", 32), "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	for text, want := range map[string]string{
		`{keys_url: "s3://keys?region=x", master_key: "` + hexKey + `", old_master_keys: ["` + base64Key + `"]}`: "",
		`{keys_url: "s3://log/keys?region=x", master_key: "` + hexKey + `"}`:                                     "",
		`{keys_url: "s3://log?region=x", master_key: "` + hexKey + `"}`:                                          "archive.encryption.keys_url: expected a place apart from archive.url",
		`{keys_url: "s3://log/raw/keys/?region=x", master_key: "` + hexKey + `"}`:                                "archive.encryption.keys_url: expected a place apart from archive.url",
		`{keys_url: "http://keys", master_key: "` + hexKey + `"}`:                                                "archive.encryption.keys_url: expected file:// or s3://, found \"http\"",
		`{keys_url: "s3://keys", master_key: canary}`:                                                            "archive.encryption.master_key: expected 256 bits in base64 or hex",
		`{keys_url: "s3://keys", master_key: "` + hexKey + `", old_master_keys: [canary]}`:                       "archive.encryption.old_master_keys[0]: expected 256 bits",
		`{keys_url: "s3://keys"}`:                         "archive.encryption.master_key",
		`{keys_url: "s3://keys", master_key: "${EMPTY}"}`: "archive.encryption.master_key",
	} {
		f, err := Parse("catchment.yaml", []byte(`archive: {url: "s3://log/raw?region=x", encryption: `+text+`}`), NeedArchive)
		if want != "" {
			require.ErrorContains(t, err, want, text)
			require.NotContains(t, err.Error(), "canary")
			continue
		}
		require.NoError(t, err, text)
		key, err := MasterKey(f.Archive.Encryption.MasterKey)
		require.NoError(t, err)
		require.Len(t, key, 32)
	}
}

func TestRetention(t *testing.T) {
	_, err := Parse("catchment.yaml", []byte(`kafka: {retention: 60d}
processor:
  retention: 1h
  results_retention: 30m
  identity_retention: 40d
`))
	require.ErrorContains(t, err, "catchment.yaml:3:14: processor.retention: expected at least 1d")
	require.ErrorContains(t, err, "catchment.yaml:4:22: processor.results_retention: expected processor.retention beside it")
	require.ErrorContains(t, err, "catchment.yaml:5:23: processor.identity_retention: expected at least 67d")
	_, err = Parse("catchment.yaml", []byte("processor: {identity_retention: 90d}\n"))
	require.ErrorContains(t, err, "processor.identity_retention: expected processor.retention beside it")
	_, err = Parse("catchment.yaml", []byte("processor: {retention: 20d, identity_retention: 29d}\n"))
	require.ErrorContains(t, err, "expected at least 30d")
	f, err := Parse("catchment.yaml", []byte("processor: {retention: 30d, results_retention: 60d, identity_retention: 30d}\n"))
	require.NoError(t, err)
	require.Equal(t, 30*24*time.Hour, f.Processor.IdentityRetention)
}

func TestSegmentsAreOneUpload(t *testing.T) {
	_, err := Parse("catchment.yaml", []byte("archiver: {segment_bytes: 2GiB}\n"))
	require.EqualError(t, err, "catchment.yaml:1:27: archiver.segment_bytes: expected at most 1GiB: a segment is one upload, and is held in memory")
}

func TestTopicsDiffer(t *testing.T) {
	_, err := Parse("catchment.yaml", []byte("kafka: {topic: a, results_topic: a}\n"))
	require.EqualError(t, err, "catchment.yaml:1:34: kafka.results_topic: expected another topic than kafka.topic, or off")
	_, err = Parse("catchment.yaml", []byte("kafka: {topic: off, results_topic: off}\n"))
	require.NoError(t, err)
}

func TestNothingIsToldTwice(t *testing.T) {
	_, err := Parse("catchment.yaml", []byte("sources: {a: {provider: stripe, secrets: [\"\"]}}\n"), NeedSources)
	require.EqualError(t, err, "catchment.yaml:1:43: sources.a.secrets[0].value: expected a secret, found an empty text")
}

func TestEveryErrorNamesItsPlace(t *testing.T) {
	_, err := Parse("catchment.yaml", []byte(`
kafka: {brokers: [], acept: [x]}
ingress: {max_body: 1GB, dedup: {store: rediss}, trusted_proxies: [10.0.0.0/8, proxy]}
sources:
  Stripe: {provider: stripe, secrets: [abc]}
  empty: {provider: stripe, secrets: []}
  bad: {provider: strip, secrets: [abc]}
  partner:
    provider: hmac
    secrets: [abc]
    hmac: {header: X-S, signed: "{nonce}"}
    event_id: body.
    max_body: 30MB
operations:
  - name: a
    on: {source: nobody, types: ["a*b"]}
    sql: SELECT 1
    version: time
  - name: a
    on: {source: partner}
    guard: g
`), NeedKafka, NeedIngress, NeedSources, NeedOperations)
	for _, want := range []string{
		"catchment.yaml:2:18: kafka.brokers: expected a list with at least one entry, found an empty list",
		`catchment.yaml:2:22: kafka.acept: unknown key: did you mean "accept"?`,
		"catchment.yaml:3:21: ingress.max_body: expected at most 25MB",
		`catchment.yaml:3:41: ingress.dedup.store: expected one of memory, redis, off, found "rediss"`,
		`catchment.yaml:3:80: ingress.trusted_proxies[1]: expected an address or a prefix such as 10.0.0.0/8, found "proxy"`,
		"catchment.yaml:5:3: sources.Stripe: expected a name of a-z",
		"catchment.yaml:6:38: sources.empty.secrets: ",
		`catchment.yaml:7:19: sources.bad.provider: unknown provider "strip": expected one of `,
		"catchment.yaml:11:33: sources.partner.hmac.signed: ",
		"catchment.yaml:12:15: sources.partner.event_id: ",
		"catchment.yaml:13:15: sources.partner.max_body: expected at most 25MB",
		`catchment.yaml:16:18: operations[0].on.source: unknown source "nobody": expected one of Stripe, bad, empty, partner`,
		`catchment.yaml:16:34: operations[0].on.types[0]: expected an event type, which may end in *, found "a*b"`,
		"catchment.yaml:18:14: operations[0].version: a version needs an entity",
		`catchment.yaml:19:11: operations[1].name: there is another operation named "a"`,
		"catchment.yaml:19:5: operations[1].sql: there is nothing to do: expected sql, handler or publish",
		"catchment.yaml:21:12: operations[1].guard: a guard needs a version",
	} {
		require.ErrorContains(t, err, want)
	}
}

// TestPathsStartAtTheFile: those of TLS are used far from the file, and start at its folder too.
func TestPathsStartAtTheFile(t *testing.T) {
	dir := t.TempDir()
	const text = `
kafka: {brokers: ["k:9092"], tls: {ca_file: ca.pem, cert_file: /etc/tls/cert.pem, key_file: tls/key.pem}}
ingress: {dedup: {store: redis, url: "rediss://h:6379/0", tls: {ca_file: redis.pem}}}
archive:
  url: "file:data/an%20archive"
  checkpoint_copy: file:///mnt/copy
  encryption: {keys_url: "file:../keys", master_key: "0000000000000000000000000000000000000000000000000000000000000000"}
`
	f, err := Parse(filepath.Join(dir, "catchment.yaml"), []byte(text), NeedKafka, NeedIngress, NeedArchive)
	require.NoError(t, err)
	require.Equal(t, &TLS{CAFile: filepath.Join(dir, "ca.pem"), CertFile: "/etc/tls/cert.pem", KeyFile: filepath.Join(dir, "tls", "key.pem")}, f.Kafka.TLS)
	require.Equal(t, &TLS{CAFile: filepath.Join(dir, "redis.pem")}, f.Ingress.Dedup.TLS)
	for text, want := range map[string]string{
		f.Archive.URL:                filepath.Join(dir, "data", "an archive"),
		f.Archive.CheckpointCopy:     "/mnt/copy",
		f.Archive.Encryption.KeysURL: filepath.Join(filepath.Dir(dir), "keys"),
	} {
		p, err := ParsePlace(text)
		require.NoError(t, err, text)
		require.Equal(t, want, p.Folder)
	}
	for _, wrong := range []string{"file:", "file:a?region=x", "file:a#b", "file:a#", "file:%zz", "file://data/archive"} {
		_, err := Parse("catchment.yaml", []byte(`archive: {url: "`+wrong+`"}`), NeedArchive)
		require.ErrorContains(t, err, "catchment.yaml:1:16: archive.url: ", wrong)
	}
}
