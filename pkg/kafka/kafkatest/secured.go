package kafkatest

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/catchment-dev/catchment/pkg/certtest"
	"github.com/catchment-dev/catchment/pkg/internal/parts"
)

// Secured is a real broker, alone, that lets nobody in without a certificate, a password or a token, and asks its
// StandardAuthorizer for everything. It is shared by all tests: each takes users and topics of its own.
type Secured struct {
	Admin   *Cluster // may do everything: a listener without TLS
	SASL    string   // host:port; TLS, and each mechanism
	MTLS    string   // host:port; TLS, with the clients' certificates, whose common name is the user's
	Expired string   // host:port; like SASL, with a certificate that has expired
	CA      *certtest.Authority
	CAFile  string

	t      testing.TB
	issuer *rsa.PrivateKey
}

// PlainUser is one who comes with mechanism PLAIN; brokers know these from their own configuration alone.
const (
	PlainUser     = "plain-user"
	PlainPassword = "plain-password"
)

// ReauthTime is after how long the broker wants a client's token again.
const ReauthTime = 3 * time.Second

// The validator is named because the default one of Kafka 4.1.0 checks neither signature nor date in a broker: without a resolver
// handed to it, which nobody does, it is the clients'. Later releases choose by the JWKS URL.
const securedProperties = `
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller},SASL://127.0.0.1:{port+10},MTLS://127.0.0.1:{port+20},EXPIRED://127.0.0.1:{port+30}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},SASL://127.0.0.1:{port+10},MTLS://127.0.0.1:{port+20},EXPIRED://127.0.0.1:{port+30}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_SSL,MTLS:SSL,EXPIRED:SASL_SSL
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER
ssl.principal.mapping.rules=RULE:^.*CN=([^,]+).*$/$1/
listener.name.mtls.ssl.client.auth=required
listener.name.sasl.oauthbearer.connections.max.reauth.ms=3000
sasl.oauthbearer.jwks.endpoint.url=file://{dir}/jwks.json
sasl.oauthbearer.expected.audience=kafka
sasl.oauthbearer.jwt.validator.class=org.apache.kafka.common.security.oauthbearer.BrokerJwtValidator
`

const securedListener = `
listener.name.{name}.ssl.keystore.type=PEM
listener.name.{name}.ssl.keystore.location={dir}/{certificate}
listener.name.{name}.ssl.truststore.type=PEM
listener.name.{name}.ssl.truststore.location={dir}/ca.pem
listener.name.{name}.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_plain-user="plain-password";
listener.name.{name}.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.{name}.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.{name}.oauthbearer.sasl.jaas.config=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;
listener.name.{name}.oauthbearer.sasl.server.callback.handler.class=org.apache.kafka.common.security.oauthbearer.OAuthBearerValidatorCallbackHandler
`

// NewSecured returns the secured broker, which takes about 10 s to start, once. Without EnvDir there is none: the test is
// skipped, or fails where real parts are demanded.
func NewSecured(t testing.TB) *Secured {
	t.Helper()
	dir := os.Getenv(EnvDir)
	if dir == "" && parts.Required() {
		t.Fatalf("kafkatest: %s=1, but %s is not set", parts.EnvReal, EnvDir)
	}
	if dir == "" {
		t.Skipf("no secured broker: %s is not set", EnvDir)
	}
	root, err := parts.Root()
	require.NoError(t, err)
	name := fmt.Sprintf("secured-%.8x", sha256.Sum256([]byte(securedProperties+securedListener))) // another configuration, another broker
	unlock, err := parts.Lock(filepath.Join(dir, name+".lock"))
	require.NoError(t, err)
	defer unlock()
	s := &Secured{t: t}
	trust := filepath.Join(dir, name+"-trust")
	s.prepare(trust)
	script := &scripted{program: filepath.Join(root, "scripts", "kafka-cluster.sh"), dir: filepath.Join(dir, name), env: []string{
		"BROKERS=1", "HEAP=256m", "PROPS_FILE=" + filepath.Join(trust, "properties"),
		"JAVA_ARGS=-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls=file://" + filepath.Join(trust, "jwks.json"),
	}}
	_, err = script.run("start")
	require.NoError(t, err)
	address, err := script.run("brokers")
	require.NoError(t, err)
	parts.Report("kafka", "secured")
	s.Admin = &Cluster{Brokers: []string{address}, Real: true, t: t}
	host, text, err := net.SplitHostPort(address)
	require.NoError(t, err)
	port, err := strconv.Atoi(text)
	require.NoError(t, err)
	for i, to := range []*string{&s.SASL, &s.MTLS, &s.Expired} {
		*to = net.JoinHostPort(host, strconv.Itoa(port+10*(i+1)))
	}
	return s
}

// prepare makes what the broker shows and trusts, once for all tests.
func (s *Secured) prepare(dir string) {
	s.t.Helper()
	s.CA, s.CAFile = certtest.Open(s.t, dir), filepath.Join(dir, "ca.pem")
	s.issuer = openIssuer(s.t, filepath.Join(dir, "issuer.pem"))
	if _, err := os.Stat(filepath.Join(dir, "properties")); err == nil {
		return
	}
	put := func(name string, data ...[]byte) {
		var all []byte
		for _, d := range data {
			all = append(all, d...)
		}
		require.NoError(s.t, os.WriteFile(filepath.Join(dir, name), all, 0o600))
	}
	good := s.CA.Issue(s.t, "broker", time.Now().AddDate(0, 6, 0), "127.0.0.1", "localhost")
	old := s.CA.Issue(s.t, "broker", time.Now().Add(-time.Minute), "127.0.0.1", "localhost")
	put("broker.pem", good.Key, good.Cert)
	put("expired.pem", old.Key, old.Cert)
	keys, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: s.issuer.Public(), KeyID: "tests", Algorithm: "RS256", Use: "sig"}}})
	require.NoError(s.t, err)
	put("jwks.json", keys)
	text := strings.ReplaceAll(securedProperties, "{dir}", dir)
	for name, certificate := range map[string]string{"sasl": "broker.pem", "mtls": "broker.pem", "expired": "expired.pem"} {
		text += strings.NewReplacer("{name}", name, "{dir}", dir, "{certificate}", certificate).Replace(securedListener)
	}
	put("properties", []byte(text))
}

func openIssuer(tb testing.TB, name string) *rsa.PrivateKey {
	tb.Helper()
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		require.NoError(tb, err)
		text = pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
		require.NoError(tb, os.WriteFile(name, text, 0o600))
		return key
	}
	require.NoError(tb, err)
	block, _ := pem.Decode(text)
	require.NotNil(tb, block, name)
	key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
	require.NoError(tb, err)
	return key
}

// Token is what a user comes with by mechanism OAUTHBEARER.
func (s *Secured) Token(user string, life time.Duration) string {
	s.t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: s.issuer, KeyID: "tests"}}, (&jose.SignerOptions{}).WithType("JWT"))
	require.NoError(s.t, err)
	now := time.Now()
	claims, err := json.Marshal(map[string]any{"sub": user, "aud": "kafka", "scope": "kafka", "iat": now.Unix(), "exp": now.Add(life).Unix()})
	require.NoError(s.t, err)
	signed, err := signer.Sign(claims)
	require.NoError(s.t, err)
	token, err := signed.CompactSerialize()
	require.NoError(s.t, err)
	return token
}

// Password makes a user of SCRAM, or gives them another password, for both mechanisms.
func (s *Secured) Password(user, password string) {
	s.t.Helper()
	admin := kadm.NewClient(s.Admin.Client(s.t))
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for _, m := range []kadm.ScramMechanism{kadm.ScramSha256, kadm.ScramSha512} { // a request may not name a user twice
		done, err := admin.AlterUserSCRAMs(ctx, nil, []kadm.UpsertSCRAM{{User: user, Mechanism: m, Iterations: 4096, Password: password}})
		require.NoError(s.t, err)
		require.NoError(s.t, done.Error())
	}
}

// Allow lets a user do more.
func (s *Secured) Allow(rules *kadm.ACLBuilder) {
	s.t.Helper()
	admin := kadm.NewClient(s.Admin.Client(s.t))
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	made, err := admin.CreateACLs(ctx, rules)
	require.NoError(s.t, err)
	for _, r := range made {
		require.NoError(s.t, r.Err)
	}
}
