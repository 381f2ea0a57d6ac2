// Package settings is the format of catchment.yaml. A file comes in and its typed sections go out, with the
// place of every value, so that whoever finds a value wrong can say where it stands. It never opens a connection.
package settings

//go:generate go test . -run TestGeneratedFiles|TestChartSchema -update

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/provider"
)

// File is catchment.yaml. All programs read the same file; each resolves only the sections that it needs.
type File struct {
	Kafka      Kafka             `yaml:"kafka" doc:"the Kafka cluster between the services"`
	Postgres   Postgres          `yaml:"postgres" doc:"the database that holds events, results and the users' own tables"`
	Archive    Archive           `yaml:"archive" doc:"where the raw event log is kept"`
	Ingress    Ingress           `yaml:"ingress" doc:"the service that takes webhooks in"`
	Processor  Processor         `yaml:"processor" doc:"the service that runs operations"`
	Archiver   Archiver          `yaml:"archiver" doc:"the service that writes the archive"`
	Console    Console           `yaml:"console" doc:"the web console"`
	Telemetry  Telemetry         `yaml:"telemetry" doc:"logs, metrics, traces"`
	Sources    map[string]Source `yaml:"sources" doc:"the endpoints: /webhooks/{name}"`
	Operations []Operation       `yaml:"operations" doc:"what is done for an event"`

	Index *config.Index `yaml:"-"` // where each value stands
	Path  string        `yaml:"-"` // the file
	Dir   string        `yaml:"-"` // its folder: relative paths start here
}

// Kafka says how to reach the cluster and what the topic must be like.
type Kafka struct {
	Brokers           []string      `yaml:"brokers" required:"true" doc:"host:port of some brokers"`
	Topic             string        `yaml:"topic" default:"catchment.events" doc:"the topic of all deliveries"`
	ResultsTopic      string        `yaml:"results_topic" default:"catchment.results" doc:"the topic to which the processor publishes every result, and which is archived; off: none"`
	CreateTopic       bool          `yaml:"create_topic" default:"true" doc:"create these topics when they do not exist"`
	Partitions        int           `yaml:"partitions" default:"12" min:"1" doc:"partitions of a created topic"`
	ReplicationFactor int           `yaml:"replication_factor" default:"3" min:"1" doc:"replicas of a created topic"`
	MinInsyncReplicas int           `yaml:"min_insync_replicas" default:"2" min:"1" doc:"min.insync.replicas of a created topic"`
	Retention         time.Duration `yaml:"retention" default:"7d" min:"1m" doc:"retention of a created topic; the longest outage that loses nothing"`
	Accept            []string      `yaml:"accept" enum:"replication-factor,min-insync-replicas,unclean-leader-election,cleanup-policy,timestamp-type,retention,max-message-bytes" doc:"preflight checks that are waived: the promises that rest on them are then not kept"`
	TLS               *TLS          `yaml:"tls" doc:"TLS to the brokers"`
	SASL              *SASL         `yaml:"sasl" doc:"authentication to the brokers"`
	Embedded          bool          `yaml:"embedded" doc:"catchment up runs a broker of its own: one node, not replicated"`

	Dial Dial `yaml:"-"` // in place of TCP, without tls; nil: TCP
}

// Dial makes a connection. Programs that hold their services and these in one process have a way of their own.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// Results is the topic to which results are published; empty: none.
func (k *Kafka) Results() string {
	if k.ResultsTopic == "off" {
		return ""
	}
	return k.ResultsTopic
}

// TLS says whom to trust and who we are.
type TLS struct {
	CAFile     string `yaml:"ca_file" doc:"PEM bundle; empty: the system's roots; all of these files are read again for each connection"`
	CertFile   string `yaml:"cert_file" doc:"client certificate, PEM"`
	KeyFile    string `yaml:"key_file" doc:"client key, PEM"`
	ServerName string `yaml:"server_name" doc:"name to expect in the server's certificate; empty: the host's"`
}

// SASL says who we are to the brokers. All that it reads from files is read again for each connection.
type SASL struct {
	Mechanism string        `yaml:"mechanism" required:"true" enum:"plain,scram-sha-256,scram-sha-512,oauthbearer,aws-msk-iam" doc:"how to authenticate; aws-msk-iam takes the credentials that the AWS SDK finds"`
	Username  config.Secret `yaml:"username" doc:"user name, of plain and SCRAM; or file:PATH, read again for each connection"`
	Password  config.Secret `yaml:"password" doc:"password, of plain and SCRAM; or file:PATH, read again for each connection"`
	OAuth     *OAuth        `yaml:"oauth" doc:"where the token of oauthbearer comes from"`
}

// OAuth says where a bearer token comes from: from a file that somebody keeps fresh, or from a token endpoint.
type OAuth struct {
	TokenFile    string            `yaml:"token_file" doc:"file that holds the token, read again for each connection: a projected service account's token, for instance"`
	TokenURL     string            `yaml:"token_url" doc:"token endpoint, which is asked for a token by client credentials"`
	ClientID     config.Secret     `yaml:"client_id" doc:"who asks the endpoint; or file:PATH, read again for each token"`
	ClientSecret config.Secret     `yaml:"client_secret" doc:"its secret; or file:PATH, read again for each token"`
	Scope        string            `yaml:"scope" doc:"scopes that are asked for, by spaces"`
	Audience     string            `yaml:"audience" doc:"audience that is asked for, where the endpoint wants one"`
	CAFile       string            `yaml:"ca_file" doc:"PEM bundle for the endpoint; empty: the system's roots"`
	Extensions   map[string]string `yaml:"extensions" doc:"SASL extensions, such as Confluent Cloud's logicalCluster and identityPoolId"`
}

// Postgres says how to reach the database.
type Postgres struct {
	URL          config.Secret `yaml:"url" required:"true" doc:"connection URL; may go through PgBouncer in transaction mode; of file:PATH, and of the certificates that it names, each connection reads what is there now"`
	MigrateURL   config.Secret `yaml:"migrate_url" doc:"connection URL for migrations, straight to the database; empty: url"`
	PasswordFile string        `yaml:"password_file" doc:"file with the password, read at each connect"`
	Prepared     string        `yaml:"prepared" default:"auto" enum:"auto,on,off" doc:"prepared statements; off behind an old PgBouncer"`
	MaxConns     int           `yaml:"max_conns" default:"10" min:"2" doc:"connections of each service at most"`
	Embedded     bool          `yaml:"embedded" doc:"catchment up runs a Postgres of its own"`

	Dial Dial `yaml:"-"` // in place of TCP; nil: TCP
}

// Archive says where segments go.
type Archive struct {
	URL           string        `yaml:"url" required:"true" doc:"file:///path, file:path (it starts at the folder of catchment.yaml) or s3://bucket/prefix?region=…&endpoint=…"`
	CheckpointKey config.Secret `yaml:"checkpoint_key" doc:"Ed25519 signer key in the form of a C2SP signed note, or file:PATH; empty: checkpoints are not signed"`

	CheckpointCopy string      `yaml:"checkpoint_copy" doc:"a second place for checkpoints, as a URL like archive.url, where whoever can write to the archive cannot: it shows when the archive's end was cut off; nothing is archived while it is away"`
	Encryption     *Encryption `yaml:"encryption" doc:"encrypt bodies and headers, so that they can be erased; without it they are plain"`

	Index *config.Index `yaml:"-"` // where each value stands; nil: in no file
}

// Errorf makes an error about the value at a key such as url, with its file, line and column. It is config.Errors.
func (a Archive) Errorf(key, format string, args ...any) error {
	ix := a.Index
	if ix == nil {
		ix = config.NewIndex("catchment.yaml")
	}
	return config.Errors{ix.Errorf("archive."+key, format, args...)}
}

// Encryption says where the keys of the archive lie: one for each source and day.
type Encryption struct {
	KeysURL       string          `yaml:"keys_url" required:"true" doc:"where the keys lie, apart from the archive and without versioning: file:///path, file:path (it starts at the folder of catchment.yaml) or s3://bucket/prefix?region=…&endpoint=…"`
	MasterKey     config.Secret   `yaml:"master_key" required:"true" doc:"256 bits in base64 or hex, or file:PATH: new keys are wrapped under it"`
	OldMasterKeys []config.Secret `yaml:"old_master_keys" doc:"earlier master keys: what they wrap can still be read"`
}

// Ingress configures the HTTP service.
type Ingress struct {
	Listen            string        `yaml:"listen" default:":8080" doc:"address of the webhook endpoints"`
	OpsListen         string        `yaml:"ops_listen" default:"127.0.0.1:9090" doc:"address of /livez, /readyz and /metrics"`
	MaxBody           config.Size   `yaml:"max_body" default:"1MiB" min:"1kB" doc:"largest body that a source may send, unless it says otherwise"`
	InFlightBytes     config.Size   `yaml:"in_flight_bytes" default:"64MiB" min:"64KiB" doc:"bytes of bodies held at once; over it 503"`
	Linger            time.Duration `yaml:"linger" default:"5ms" doc:"how long a record waits for company"`
	ReadHeaderTimeout time.Duration `yaml:"read_header_timeout" default:"5s" min:"10ms" doc:"time to send the headers"`
	ReadTimeout       time.Duration `yaml:"read_timeout" default:"15s" min:"10ms" doc:"time to send the whole request"`
	IdleTimeout       time.Duration `yaml:"idle_timeout" default:"75s" doc:"how long an idle connection is kept"`
	DrainDelay        time.Duration `yaml:"drain_delay" default:"0s" doc:"how long to go on serving after a stop signal, until load balancers know"`
	DrainTimeout      time.Duration `yaml:"drain_timeout" default:"15s" doc:"time for requests in flight to end"`
	TrustedProxies    []string      `yaml:"trusted_proxies" doc:"addresses or prefixes whose X-Forwarded-For counts"`
	TLS               *ServerTLS    `yaml:"tls" doc:"serve HTTPS, with HTTP/2; without it HTTP, for a proxy that ends TLS"`
	H2C               bool          `yaml:"h2c" doc:"take HTTP/2 without TLS as well, from a proxy that speaks it"`
	ClockTolerance    time.Duration `yaml:"clock_tolerance" default:"2m" min:"1s" doc:"how far our clock may be from the brokers'; over it 503, and not ready"`
	Limits            Limits        `yaml:"limits" doc:"what one address, and all together, may take before a request is verified"`
	Dedup             Dedup         `yaml:"dedup" doc:"look-up of what was acknowledged lately; saves work, correctness never depends on it"`

	Listener net.Listener `yaml:"-"` // in place of listen; nil: listen
}

// ServerTLS is the identity that the ingress shows.
type ServerTLS struct {
	CertFile string `yaml:"cert_file" required:"true" doc:"certificate chain, PEM; read again when it changes"`
	KeyFile  string `yaml:"key_file" required:"true" doc:"key, PEM; read again when it changes"`
	CAFile   string `yaml:"client_ca_file" doc:"PEM bundle: only who has a certificate by one of these authorities may connect; read again when it changes; empty: anybody"`
}

// Limits bound what strangers may use up. Those of an address are off unless they are set: behind a proxy that is not
// in trusted_proxies, all senders have one address.
type Limits struct {
	Rate               int         `yaml:"rate" min:"0" doc:"requests a second of one client address (of one /64 with IPv6); over it 429; 0: any number"`
	Burst              int         `yaml:"burst" min:"0" doc:"requests of one address at once before rate counts; 0: twice the rate"`
	Addresses          int         `yaml:"addresses" default:"65536" min:"2" doc:"addresses that are remembered for rate at once; over it the longest unseen are forgotten"`
	RequestsPerAddress int         `yaml:"requests_per_address" min:"0" doc:"requests in flight of one client address; over it 429; 0: any number"`
	Requests           int         `yaml:"requests" default:"16384" min:"1" doc:"requests in flight in all; over it 429"`
	Exempt             []string    `yaml:"exempt" doc:"addresses or prefixes that rate and requests_per_address do not count; nobody is exempt by default"`
	Connections        int         `yaml:"connections" default:"12288" min:"1" doc:"connections at once; over it the one that has been idle longest is closed for the new one"`
	HeaderBytes        config.Size `yaml:"header_bytes" default:"32KiB" min:"4KiB" doc:"request line and headers, up to 48KiB; over it 431"`
	Headers            int         `yaml:"headers" default:"200" min:"1" doc:"header lines of one request; over it 400"`
	Streams            int         `yaml:"streams" default:"100" min:"1" doc:"requests at once on one HTTP/2 connection"`
	MinBodyRate        config.Size `yaml:"min_body_rate" default:"1KiB" min:"0" doc:"bytes a second that a body must come with after its first 5 s; 0: read_timeout alone counts"`
}

// Dedup configures the look-up of acknowledged events.
type Dedup struct {
	Store   string        `yaml:"store" default:"memory" enum:"memory,redis,off" doc:"where acknowledged events are remembered"`
	TTL     time.Duration `yaml:"ttl" default:"10m" min:"1s" doc:"how long"`
	Entries int           `yaml:"entries" default:"200000" min:"2" doc:"how many at most, in memory"`
	URL     config.Secret `yaml:"url" doc:"redis://user:password@host:6379/0, or rediss:// with TLS, for store redis (Valkey or Redis); or file:PATH"`
	TLS     *TLS          `yaml:"tls" doc:"TLS to the Redis"`
	Timeout time.Duration `yaml:"timeout" default:"50ms" min:"1ms" doc:"how long Redis may take; after it, the event counts as not seen"`
}

// Processor configures the service that runs operations.
type Processor struct {
	OpsListen    string        `yaml:"ops_listen" default:"127.0.0.1:9091" doc:"address of /livez, /readyz and /metrics"`
	Group        string        `yaml:"group" default:"catchment-processor" doc:"consumer group"`
	Batch        int           `yaml:"batch" default:"1000" min:"1" doc:"records in one transaction at most"`
	Migrate      bool          `yaml:"migrate" default:"true" doc:"apply migrations at start"`
	TxTimeout    time.Duration `yaml:"tx_timeout" default:"30s" min:"1s" doc:"time for one batch's transaction"`
	Session      time.Duration `yaml:"session_timeout" default:"10s" doc:"how long the group waits for a silent member"`
	StallTimeout time.Duration `yaml:"stall_timeout" default:"1m" min:"1s" doc:"how long a part of the processor may hang beyond its deadlines before the process ends, with its stacks on standard error"`

	// BufferBytes bounds what waits for Postgres, whatever the number of partitions.
	BufferBytes config.Size `yaml:"buffer_bytes" default:"64MiB" min:"1MiB" doc:"bytes of records fetched and not yet committed, over all partitions; over it fetching pauses"`

	Retention         time.Duration `yaml:"retention" min:"0s" doc:"how long an event's body and headers stay in Postgres, in whole days; those of events that are not done with stay longer; 0: for ever"`
	ResultsRetention  time.Duration `yaml:"results_retention" min:"0s" doc:"how long results and further deliveries stay in Postgres; not shorter than retention; 0: for ever"`
	IdentityRetention time.Duration `yaml:"identity_retention" min:"0s" doc:"how long an event's identity stays. It shortens the promise of one effect: an event that comes again later takes effect again. At least 30 days, and kafka.retention and 7 days; not shorter than retention; 0: for ever"`
}

// Archiver configures the service that writes the archive.
type Archiver struct {
	OpsListen    string        `yaml:"ops_listen" default:"127.0.0.1:9093" doc:"address of /livez, /readyz and /metrics"`
	Group        string        `yaml:"group" default:"catchment-archiver" doc:"consumer group; that of results has -results behind it"`
	SegmentBytes config.Size   `yaml:"segment_bytes" default:"64MiB" min:"1kB" doc:"size of bodies and headers after which a segment is closed"`
	SegmentAge   time.Duration `yaml:"segment_age" default:"5m" min:"100ms" doc:"age after which a segment is closed, by the wall clock"`
	BufferBytes  config.Size   `yaml:"buffer_bytes" default:"256MiB" min:"1MiB" doc:"bytes of open segments held at once; over it fetching pauses"`
	DrainTimeout time.Duration `yaml:"drain_timeout" default:"30s" doc:"time to close open segments at a stop"`
	Session      time.Duration `yaml:"session_timeout" default:"10s" doc:"how long the group waits for a silent member"`
}

// ResultsGroup is the consumer group that archives results.
func (a *Archiver) ResultsGroup() string { return a.Group + "-results" }

// Telemetry configures logs and traces.
type Telemetry struct {
	LogLevel  string `yaml:"log_level" default:"info" enum:"debug,info,warn,error" doc:"least level that is logged"`
	LogFormat string `yaml:"log_format" default:"json" enum:"json,text" doc:"form of the log"`

	Traces        string `yaml:"traces" default:"off" enum:"off,otlp" doc:"otlp: spans go to an OpenTelemetry collector, by OTLP over HTTP; OTEL_TRACES_EXPORTER=otlp in the environment does the same, and the other OTEL_ variables count too"`
	TraceEndpoint string `yaml:"trace_endpoint" doc:"URL of the collector, such as http://collector:4318/v1/traces; empty: what OTEL_EXPORTER_OTLP_ENDPOINT says, or this machine"`
	TraceOneIn    int    `yaml:"trace_one_in" default:"100" min:"1" doc:"one request of so many is traced, from the ingress to the archive; OTEL_TRACES_SAMPLER in the environment counts before it"`
}

// Console configures the web console. It is off unless it knows how to tell who somebody is.
type Console struct {
	Listen string        `yaml:"listen" default:"127.0.0.1:9094" doc:"address of catchment console; the processor and catchment up serve the console on their operations address"`
	Users  []ConsoleUser `yaml:"users" doc:"who may do what; without users that have a password, and without a proxy, there is no console, but for catchment up on a loopback address"`
	Proxy  *ConsoleProxy `yaml:"proxy" doc:"a proxy that tells in a header who the user is"`
}

// ConsoleUser is one person who may use the console.
type ConsoleUser struct {
	Name     string        `yaml:"name" required:"true" doc:"what the user is called, in catchment.actions too"`
	Password config.Secret `yaml:"password" doc:"bcrypt hash of the password, which catchment console hash-password makes; or file:PATH; empty: comes through the proxy only"`
	Roles    []string      `yaml:"roles" enum:"view-metadata,view-payload,operate" doc:"what the user may do; nothing by default. The other two need view-metadata"`
}

// ConsoleProxy is a proxy that has made sure who the user is.
type ConsoleProxy struct {
	Addresses []string `yaml:"addresses" required:"true" doc:"addresses or prefixes of the proxy; from others the header does not count"`
	Header    string   `yaml:"header" default:"X-Forwarded-User" doc:"the header with the user's name, which the proxy must overwrite"`
	Roles     []string `yaml:"roles" enum:"view-metadata,view-payload,operate" doc:"what users may do who are not listed under users; nothing by default"`
}

// Source is one endpoint.
type Source struct {
	Provider    string         `yaml:"provider" required:"true" doc:"verification preset"`
	Secrets     []SecretSpec   `yaml:"secrets" doc:"the provider's secrets; several while one is rotated"`
	AckTimeout  time.Duration  `yaml:"ack_timeout" doc:"how long to wait for Kafka; 0: the preset's, or 4s"`
	MaxBody     config.Size    `yaml:"max_body" doc:"largest body, up to 25MB; 0: ingress.max_body"`
	OnMissingID string         `yaml:"on_missing_id" default:"accept" enum:"accept,reject" doc:"what to do with a delivery without an event ID"`
	PublicURL   string         `yaml:"public_url" doc:"the URL that the provider calls, for schemes that sign it"`
	Options     map[string]any `yaml:"options" doc:"what a preset needs besides"`
	HMAC        *provider.HMAC `yaml:"hmac" doc:"any HMAC scheme as data, for provider hmac"`
	EventID     string         `yaml:"event_id" scalar:"any" doc:"CEL expression of the event ID; empty: the preset's rule"`
	EventType   string         `yaml:"event_type" scalar:"any" doc:"CEL expression of the event type; empty: the preset's rule"`
	Schema      *BodySchema    `yaml:"schema" doc:"JSON Schema of the bodies"`
	Linger      *time.Duration `yaml:"linger" doc:"0s: this source's records are sent at once"`
	Quota       *Quota         `yaml:"quota" doc:"how many verified requests are taken; over it 429"`
}

// Quota bounds a source's verified requests; handshakes do not count.
type Quota struct {
	Rate  int `yaml:"rate" required:"true" min:"1" doc:"requests a second"`
	Burst int `yaml:"burst" min:"0" doc:"requests at once before rate counts; 0: one second's"`
}

// SecretSpec is one secret: a text, or a mapping with an ID, a file and a time in which it is valid.
type SecretSpec struct {
	ID        string        `yaml:"id" doc:"name of the secret; never used again for another one"`
	Value     config.Secret `yaml:"value" doc:"the secret's text"`
	File      string        `yaml:"file" doc:"file that holds the secret's text"`
	NotBefore time.Time     `yaml:"not_before" doc:"valid from"`
	NotAfter  time.Time     `yaml:"not_after" doc:"valid until"`
}

// ScalarKey lets a secret be written as its text alone.
func (SecretSpec) ScalarKey() string { return "value" }

// Operation is what is done for an event, in SQL.
type Operation struct {
	Name       string            `yaml:"name" required:"true" doc:"the operation's identity"`
	On         On                `yaml:"on" required:"true" doc:"which events it is for"`
	When       string            `yaml:"when" scalar:"any" doc:"CEL condition"`
	Entity     string            `yaml:"entity" scalar:"any" doc:"CEL: whose state this changes"`
	Version    string            `yaml:"version" scalar:"any" doc:"CEL: int, string, timestamp or a list of them; an older one never overwrites a newer one"`
	Guard      string            `yaml:"guard" doc:"the newest-wins scope; empty: the operation's name"`
	DependsOn  config.Strings    `yaml:"depends_on" doc:"the operation, or a list of them, that must have succeeded for the event before"`
	Each       string            `yaml:"each" scalar:"any" doc:"CEL list: sql and publish run for each element, as item and index"`
	SQL        config.Strings    `yaml:"sql" doc:"a statement, or a list that runs in order in the transaction"`
	Params     map[string]string `yaml:"params" scalar:"any" doc:"CEL expressions of the statements' @parameters"`
	Handler    string            `yaml:"handler" doc:"a handler in Go of the program that runs the processor, instead of sql"`
	Publish    *Publish          `yaml:"publish" doc:"a record that is published after COMMIT"`
	ExpectRows string            `yaml:"expect_rows" default:"any" enum:"any,some,one" doc:"rows that the last statement must touch, for each element with each"`
	Timeout    time.Duration     `yaml:"timeout" default:"10s" min:"1ms" doc:"statement timeout; the whole time of a handler"`
	Retry      Retry             `yaml:"retry" doc:"what to do after a failed attempt"`
}

// On selects events.
type On struct {
	Source string   `yaml:"source" required:"true" doc:"a source's name"`
	Types  []string `yaml:"types" doc:"event types; a type may end in *; empty: all"`
}

// Publish is a record that an operation publishes after COMMIT.
type Publish struct {
	Topic string `yaml:"topic" required:"true" doc:"the topic; it must be there"`
	Key   string `yaml:"key" default:"id" scalar:"any" doc:"CEL: the record's key; records of one key keep their order; null: no key"`
	Value string `yaml:"value" required:"true" scalar:"any" doc:"CEL: the record's value; text and bytes as they are, else JSON; null: a record without a value"`
}

// Retry is a backoff.
type Retry struct {
	MaxAttempts int           `yaml:"max_attempts" default:"10" min:"1" doc:"attempts before the event is a dead letter"`
	Initial     time.Duration `yaml:"initial" default:"1s" doc:"first delay; it doubles, with jitter"`
	Max         time.Duration `yaml:"max" default:"1h" doc:"longest delay"`
}

// OperationOn says which events an operation is for. The error names the operations that there are.
func (f *File) OperationOn(name string) (On, error) {
	var names []string
	for _, op := range f.Operations {
		if op.Name == name {
			return op.On, nil
		}
		names = append(names, op.Name)
	}
	return On{}, fmt.Errorf("there is no operation %q in the configuration: expected one of %s", name, strings.Join(names, ", "))
}
