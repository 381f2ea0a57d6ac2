package settings

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/provider"
)

// Section is a top-level key of the file.
type Section string

// The sections that a program may need.
const (
	NeedKafka      Section = "kafka"
	NeedPostgres   Section = "postgres"
	NeedArchive    Section = "archive"
	NeedIngress    Section = "ingress"
	NeedProcessor  Section = "processor"
	NeedArchiver   Section = "archiver"
	NeedConsole    Section = "console"
	NeedTelemetry  Section = "telemetry"
	NeedSources    Section = "sources"
	NeedOperations Section = "operations"
)

// Everything is what catchment up and config check need.
var Everything = []Section{NeedKafka, NeedPostgres, NeedArchive, NeedIngress, NeedProcessor, NeedArchiver, NeedConsole, NeedTelemetry, NeedSources, NeedOperations}

// MaxBody is the largest body that any source may allow: GitHub's and GitLab's cap, 25 MB.
const MaxBody config.Size = 25e6

// MaxHeaders bounds ingress.limits.header_bytes: the path may stand in a record twice, and all must fit into what a
// topic allows beside the body.
const MaxHeaders config.Size = 48 << 10

// ParsePrefix reads an address, which stands for itself alone, or a prefix.
func ParsePrefix(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	return netip.ParsePrefix(text)
}

// OpsListen reads from catchment.yaml where a service's operations listener is. service is NeedIngress, NeedProcessor or
// NeedArchiver; errors are Load's.
func OpsListen(path string, service Section) (string, error) {
	f, err := Load(path, service)
	if err != nil {
		return "", err
	}
	return map[Section]string{NeedIngress: f.Ingress.OpsListen, NeedProcessor: f.Processor.OpsListen, NeedArchiver: f.Archiver.OpsListen}[service], nil
}

// Load reads catchment.yaml. The shape of the whole file is checked; variables and secret files are resolved,
// and required keys demanded, in the needed sections only. The error is config.Errors, or that of reading the file.
func Load(path string, need ...Section) (*File, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return Parse(path, data, need...)
}

// Parse is Load for data that has been read already; relative paths start at the folder of path.
func Parse(path string, data []byte, need ...Section) (*File, error) {
	f, errs, err := parse(path, data, need, true)
	if err != nil {
		return nil, err
	}
	if err := errs.Err(); err != nil {
		return nil, err
	}
	return f, nil
}

// LoadPartly is Load for who can do with a part of the file: it returns what is right, and what is wrong besides. open:
// also what the presets find wrong with the sources. The error is that of reading the file, or config.Errors when it is
// no YAML.
func LoadPartly(path string, open bool, need ...Section) (*File, config.Errors, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, fmt.Errorf("read configuration: %w", err)
	}
	return parse(path, data, need, open)
}

func parse(path string, data []byte, need []Section, open bool) (*File, config.Errors, error) {
	f := &File{}
	ix, err := config.Parse(path, data, f, config.Options{
		EnvPrefix: "CATCHMENT",
		Resolve:   func(s string) bool { return slices.Contains(need, Section(s)) },
	})
	var errs config.Errors
	if err != nil && !errors.As(err, &errs) {
		return nil, nil, err
	}
	if ix == nil { // not YAML at all
		return nil, nil, errs
	}
	if err := f.place(path, ix); err != nil {
		return nil, nil, err
	}
	errs = append(errs, f.check(need, errs, open)...)
	errs.Sort()
	return f, errs, nil
}

// place remembers where the settings come from, and makes the paths absolute that are used far from f.
func (f *File) place(path string, ix *config.Index) (err error) {
	f.Index, f.Archive.Index = ix, ix
	if f.Path, err = filepath.Abs(path); err != nil {
		return fmt.Errorf("folder of %s: %w", path, err)
	}
	f.Dir = filepath.Dir(f.Path)
	for _, t := range []*TLS{f.Kafka.TLS, f.Ingress.Dedup.TLS} {
		if t != nil {
			t.CAFile, t.CertFile, t.KeyFile = f.Abs(t.CAFile), f.Abs(t.CertFile), f.Abs(t.KeyFile)
		}
	}
	f.Postgres.PasswordFile = f.Abs(f.Postgres.PasswordFile)
	places := []*string{&f.Archive.URL, &f.Archive.CheckpointCopy}
	if f.Archive.Encryption != nil {
		places = append(places, &f.Archive.Encryption.KeysURL)
	}
	for _, place := range places {
		*place = f.absPlace(*place)
	}
	if s := f.Kafka.SASL; s != nil && s.OAuth != nil {
		s.OAuth.TokenFile, s.OAuth.CAFile = f.Abs(s.OAuth.TokenFile), f.Abs(s.OAuth.CAFile)
	}
	return nil
}

// Errorf makes an error about the value at path, with its file, line and column.
func (f *File) Errorf(path, format string, args ...any) config.Error {
	return f.Index.Errorf(path, format, args...)
}

// Abs makes a path that stands in the file absolute.
func (f *File) Abs(path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(f.Dir, path)
}

// Names go into URLs, metric labels and file names.
// maxSegment is the largest archiver.segment_bytes: S3 takes 5 GiB in one request.
const maxSegment = 1 << 30

var reName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

// check looks for what the types cannot say; known is what the decoder has found already. With open, every source is
// opened to see that it can be.
func (f *File) check(need []Section, known config.Errors, open bool) (errs config.Errors) {
	add := func(path, format string, args ...any) { errs = append(errs, f.Errorf(path, format, args...)) }
	for _, name := range slices.Sorted(maps.Keys(f.Sources)) {
		s, path := f.Sources[name], "sources."+name
		if !reName.MatchString(name) {
			add(path, "expected a name of a-z, 0-9, '.', '_' and '-' that begins with a letter or digit, 63 characters at most")
		}
		if s.MaxBody > MaxBody {
			add(path+".max_body", "expected at most 25MB")
		}
		if s.Linger != nil && *s.Linger != 0 {
			add(path+".linger", "expected 0s: a source either waits as ingress.linger says, or not at all")
		}
		if open && slices.Contains(need, NeedSources) && s.Provider != "" {
			_, es := f.OpenSource(name, nil)
			errs = append(errs, slices.DeleteFunc(es, func(e config.Error) bool { return told(known, e) })...)
			_, es = f.OpenSchema(name)
			errs = append(errs, es...)
		}
	}
	errs = append(errs, f.checkAddresses(need)...)
	errs = append(errs, f.checkArchive(need)...)
	errs = append(errs, f.checkEncryption(need)...)
	errs = append(errs, f.checkDedup(need)...)
	errs = append(errs, f.checkConsole(need)...)
	errs = append(errs, f.checkSASL(need)...)
	errs = append(errs, f.checkRetention()...)
	if f.Kafka.Topic != "" && f.Kafka.Topic == f.Kafka.Results() {
		add("kafka.results_topic", "expected another topic than kafka.topic, or off")
	}
	if f.Archiver.SegmentBytes > maxSegment {
		add("archiver.segment_bytes", "expected at most 1GiB: a segment is one upload, and is held in memory")
	}
	if f.Ingress.MaxBody > MaxBody {
		add("ingress.max_body", "expected at most 25MB")
	}
	if f.Ingress.Limits.HeaderBytes > MaxHeaders {
		add("ingress.limits.header_bytes", "expected at most 48KiB: headers must fit into a Kafka record beside the largest body")
	}
	for path, list := range map[string][]string{"ingress.trusted_proxies": f.Ingress.TrustedProxies, "ingress.limits.exempt": f.Ingress.Limits.Exempt} {
		for i, text := range list {
			if _, err := ParsePrefix(text); err != nil {
				add(fmt.Sprintf("%s[%d]", path, i), "expected an address or a prefix such as 10.0.0.0/8, found %q", text)
			}
		}
	}
	return append(errs, f.checkOperations()...)
}

// told says whether an error about the same value, or about one in it, is known.
func told(known config.Errors, e config.Error) bool {
	return slices.ContainsFunc(known, func(k config.Error) bool {
		return k.Path == e.Path || strings.HasPrefix(k.Path, e.Path+".") || strings.HasPrefix(k.Path, e.Path+"[")
	})
}

// SameAddress says whether two listeners would want one address; port 0 is another one for each.
func SameAddress(a, b string) bool { return a == b && !strings.HasSuffix(a, ":0") }

// checkAddresses looks at what is dialled or listened on, in the sections whose variables are resolved.
func (f *File) checkAddresses(need []Section) (errs config.Errors) {
	add := func(path, format string, args ...any) { errs = append(errs, f.Errorf(path, format, args...)) }
	address := func(section Section, path, text string, lowest int) {
		if !slices.Contains(need, section) || text == "" {
			return
		}
		_, port, err := net.SplitHostPort(text)
		if n, errPort := strconv.Atoi(port); err != nil || errPort != nil || n < lowest || n > 65535 {
			add(path, "expected host:port, found %q", text)
		}
	}
	for i, b := range f.Kafka.Brokers {
		address(NeedKafka, fmt.Sprintf("kafka.brokers[%d]", i), b, 1)
	}
	address(NeedIngress, "ingress.listen", f.Ingress.Listen, 0)
	address(NeedIngress, "ingress.ops_listen", f.Ingress.OpsListen, 0)
	if l := f.Ingress.Listen; slices.Contains(need, NeedIngress) && SameAddress(l, f.Ingress.OpsListen) {
		add("ingress.ops_listen", "expected another address than ingress.listen, %q", l)
	}
	address(NeedProcessor, "processor.ops_listen", f.Processor.OpsListen, 0)
	address(NeedArchiver, "archiver.ops_listen", f.Archiver.OpsListen, 0)
	address(NeedConsole, "console.listen", f.Console.Listen, 0)
	for path, text := range map[string]string{"postgres.url": f.Postgres.URL.Reveal(), "postgres.migrate_url": f.Postgres.MigrateURL.Reveal()} {
		if !slices.Contains(need, NeedPostgres) || text == "" || !strings.Contains(text, "://") {
			continue // key=value settings are checked when they are used
		}
		if u, err := url.Parse(text); err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
			add(path, "expected a URL such as postgres://user:password@host:5432/database; a %% in a password is written %%25")
		}
	}
	return errs
}

func (f *File) checkDedup(need []Section) (errs config.Errors) {
	d := f.Ingress.Dedup
	if !slices.Contains(need, NeedIngress) || d.Store != "redis" {
		return nil
	}
	u, err := url.Parse(d.URL.Reveal())
	if err != nil || u.Scheme != "redis" && u.Scheme != "rediss" || u.Host == "" {
		return config.Errors{f.Errorf("ingress.dedup.url", "store redis needs a URL: expected one such as redis://host:6379/0 or rediss://user:password@host:6379/0")}
	}
	return nil
}

const (
	day = 24 * time.Hour
	// shortestIdentity is longer than any provider sends an event again, by itself or by hand.
	shortestIdentity = 30 * day
	// kafkaMargin is how much longer than Kafka's records their identities stay, for they may be read again.
	kafkaMargin = 7 * day
)

// checkRetention: what says that an event was seen stays longer than all from which it could come again.
func (f *File) checkRetention() (errs config.Errors) {
	add := func(path, format string, args ...any) { errs = append(errs, f.Errorf(path, format, args...)) }
	p := f.Processor
	if p.Retention != 0 && p.Retention < day {
		add("processor.retention", "expected at least 1d: events are removed by whole days; found %s", p.Retention)
	}
	for path, d := range map[string]time.Duration{"processor.results_retention": p.ResultsRetention, "processor.identity_retention": p.IdentityRetention} {
		if d != 0 && (p.Retention == 0 || d < p.Retention) {
			add(path, "expected processor.retention beside it, and no longer than it: what belongs to an event goes after its body")
		}
	}
	if least := max(shortestIdentity, f.Kafka.Retention+kafkaMargin); p.IdentityRetention != 0 && p.IdentityRetention < least {
		add("processor.identity_retention", "expected at least %dd: providers send events again for weeks, and Kafka keeps its records for kafka.retention, after which an event that comes again would take effect again; found %s",
			(least+day-1)/day, p.IdentityRetention)
	}
	return errs
}

var reTopic = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,249}$`)

// misfits are keys of an operation that do not go together, by their path below it.
func (op *Operation) misfits() map[string]string {
	wrong := map[string]string{}
	if len(op.SQL) == 0 && op.Handler == "" && op.Publish == nil {
		wrong[".sql"] = "there is nothing to do: expected sql, handler or publish"
	}
	if op.Handler != "" {
		for key, given := range map[string]bool{".sql": len(op.SQL) > 0, ".params": len(op.Params) > 0, ".each": op.Each != ""} {
			if given {
				wrong[key] = "the operation has a handler: expected no " + key[1:] + " beside it"
			}
		}
	}
	if op.ExpectRows != "" && op.ExpectRows != "any" && len(op.SQL) == 0 && op.Handler == "" {
		wrong[".expect_rows"] = "no statement runs: expected sql beside it"
	}
	return wrong
}

func (f *File) checkOperations() (errs config.Errors) {
	add := func(path, format string, args ...any) { errs = append(errs, f.Errorf(path, format, args...)) }
	seen := map[string]bool{}
	for i, op := range f.Operations {
		path := fmt.Sprintf("operations[%d]", i)
		if op.Name != "" && !reName.MatchString(op.Name) {
			add(path+".name", "expected a name of a-z, 0-9, '.', '_' and '-' that begins with a letter or digit, 63 characters at most")
		}
		if seen[op.Name] {
			add(path+".name", "there is another operation named %q: expected names that differ", op.Name)
		}
		seen[op.Name] = true
		if _, ok := f.Sources[op.On.Source]; !ok && op.On.Source != "" {
			add(path+".on.source", "unknown source %q: expected one of %s", op.On.Source, strings.Join(slices.Sorted(maps.Keys(f.Sources)), ", "))
		}
		for j, typ := range op.On.Types {
			if i := strings.IndexByte(typ, '*'); typ == "" || i >= 0 && i != len(typ)-1 {
				add(fmt.Sprintf("%s.on.types[%d]", path, j), "expected an event type, which may end in *, found %q", typ)
			}
		}
		wrong := op.misfits()
		for _, key := range slices.Sorted(maps.Keys(wrong)) {
			add(path+key, "%s", wrong[key])
		}
		if p := op.Publish; p != nil && p.Topic != "" && !reTopic.MatchString(p.Topic) {
			add(path+".publish.topic", "expected a topic's name: letters, digits, '.', '_' and '-', 249 at most")
		}
		if op.Guard != "" && op.Version == "" {
			add(path+".guard", "a guard needs a version: expected the key version beside it")
		}
		if op.Version != "" && op.Entity == "" {
			add(path+".version", "a version needs an entity: expected the key entity beside it")
		}
	}
	return errs
}

// OpenSource opens the scheme of a source; keys are where it gets those from that it must fetch, nil: the network. The
// errors name the keys of the configuration that are wrong.
func (f *File) OpenSource(name string, keys provider.Keys) (*provider.Source, config.Errors) {
	secrets, unread := f.Secrets(name)
	src, errs := f.OpenWith(name, secrets, keys)
	if len(unread) > 0 { // there would be more secrets, could they be read
		errs = slices.DeleteFunc(errs, func(e config.Error) bool { return e.Path == "sources."+name+".secrets" })
	}
	return src, append(unread, errs...)
}

// OpenWith is OpenSource with secrets that have been read already.
func (f *File) OpenWith(name string, secrets []provider.Secret, keys provider.Keys) (*provider.Source, config.Errors) {
	s, path := f.Sources[name], "sources."+name
	src, err := provider.New(provider.Config{
		Source: name, Provider: s.Provider, Options: s.Options, HMAC: s.HMAC, Secrets: secrets,
		EventID: s.EventID, EventType: s.EventType, PublicURL: s.PublicURL,
		Dir: f.Dir, Keys: keys,
	})
	var errs config.Errors
	for _, e := range flatten(err) {
		key := ""
		var ce *provider.ConfigError
		if errors.As(e, &ce) {
			key, e = "."+ce.Key, ce.Err
		}
		errs = append(errs, f.Errorf(path+key, "%v", e))
	}
	return src, errs
}

// flatten returns the errors that errors.Join put together.
func flatten(err error) []error {
	if err == nil {
		return nil
	}
	if j, ok := err.(interface{ Unwrap() []error }); ok {
		return j.Unwrap()
	}
	return []error{err}
}

// Schema returns the JSON Schema of catchment.yaml.
func Schema() map[string]any {
	return config.Schema(reflect.TypeFor[File](), "https://catchment.dev/schemas/config.schema.json", "catchment.yaml")
}

// referenceHead has ~ for backquotes.
const referenceHead = `# catchment.yaml

One file for all programs; each resolves only the sections that it needs, so the ingress needs no database URL. Made from the
types of pkg/settings; ~schemas/config.schema.json~ holds the same for editors
(~# yaml-language-server: $schema=schemas/config.schema.json~).

- ~${VAR}~ in a text takes the environment's value, ~$$~ is a dollar sign.
- A secret that begins with ~file:~ is read from that file. Relative paths start at the folder of catchment.yaml.
- ~CATCHMENT_KAFKA__BROKERS=a:9092,b:9092~ overrides ~kafka.brokers~: two underscores go one level down, a dash becomes an underscore.
  ~CATCHMENT_KAFKA__SASL__PASSWORD_FILE=/run/secrets/kafka~ is a secret's ~file:/run/secrets/kafka~.
- A duration is ~5s~, ~10m~ or ~7d~; a size is ~64MiB~, ~25MB~ or a number of bytes.
- A secret may be written as its text alone: ~secrets: ["${STRIPE_WEBHOOK_SECRET}"]~.
- An unknown key, a wrong type or an empty secret stops the start; all errors are told at once, with file, line and column.
  ~catchment config check~ tells them without a start.

`

// Reference returns docs/config.md: every key of catchment.yaml.
func Reference() string {
	return strings.ReplaceAll(referenceHead, "~", "`") + config.Reference(reflect.TypeFor[File]())
}
