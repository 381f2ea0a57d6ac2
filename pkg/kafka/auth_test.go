package kafka_test

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/catchment-dev/catchment/pkg/certtest"
	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/kafka"
	"github.com/catchment-dev/catchment/pkg/kafka/kafkatest"
	"github.com/catchment-dev/catchment/pkg/settings"
)

func secured(s *kafkatest.Secured, address string, more *settings.SASL) settings.Kafka {
	return settings.Kafka{Brokers: []string{address}, TLS: &settings.TLS{CAFile: s.CAFile}, SASL: more}
}

func account(mechanism, user, password string) *settings.SASL {
	return &settings.SASL{Mechanism: mechanism, Username: config.NewSecret(user), Password: config.NewSecret(password)}
}

// readable makes a topic that a user may write to and read.
func readable(t *testing.T, s *kafkatest.Secured, user string) string {
	t.Helper()
	topic := s.Admin.Topic(t, 1)
	s.Allow(kadm.NewACLs().Topics(topic).Operations(kadm.OpWrite, kadm.OpRead).Allow("User:" + user).AllowHosts())
	return topic
}

func connect(t *testing.T, k settings.Kafka, more ...kgo.Opt) *kgo.Client {
	t.Helper()
	opts, err := kafka.Options(k, "test")
	require.NoError(t, err)
	cl, err := kgo.NewClient(append(append(opts, more...), kgo.RecordDeliveryTimeout(15*time.Second))...)
	require.NoError(t, err)
	t.Cleanup(cl.Close)
	return cl
}

// roundTrip writes a record and reads it.
func roundTrip(t *testing.T, k settings.Kafka, topic string) {
	t.Helper()
	cl := connect(t, k, kgo.DefaultProduceTopic(topic), kgo.ConsumeTopics(topic))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, cl.ProduceSync(ctx, kgo.StringRecord("hello")).FirstErr())
	fetches := cl.PollFetches(ctx)
	require.NoError(t, fetches.Err())
	require.NotEmpty(t, fetches.Records())
}

// refusal is the error with which a cluster cannot be asked.
func refusal(t *testing.T, k settings.Kafka) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err := kafka.TopicID(ctx, connect(t, k), "any")
	require.Error(t, err)
	return err
}

// TestEveryMechanism writes and reads with each way to say who we are.
func TestEveryMechanism(t *testing.T) {
	s := kafkatest.NewSecured(t)
	user := "u-" + uuid.NewString()
	s.Password(user, "secret")
	token := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(token, []byte(s.Token(user, time.Hour)+"\n"), 0o600))
	topic := readable(t, s, user)
	for name, sasl := range map[string]*settings.SASL{
		"scram-sha-256": account("scram-sha-256", user, "secret"),
		"scram-sha-512": account("scram-sha-512", user, "secret"),
		"oauthbearer":   {Mechanism: "oauthbearer", OAuth: &settings.OAuth{TokenFile: token}},
	} {
		t.Run(name, func(t *testing.T) { roundTrip(t, secured(s, s.SASL, sasl), topic) })
	}
	t.Run("plain", func(t *testing.T) {
		roundTrip(t, secured(s, s.SASL, account("plain", kafkatest.PlainUser, kafkatest.PlainPassword)), readable(t, s, kafkatest.PlainUser))
	})
	t.Run("a certificate", func(t *testing.T) {
		k := secured(s, s.MTLS, nil)
		k.TLS.CertFile, k.TLS.KeyFile = s.CA.Issue(t, user, time.Now().Add(time.Hour)).Write(t, t.TempDir(), "client")
		roundTrip(t, k, topic)
	})
}

// TestEveryRefusal is told why: a wrong authority, name, date, password, certificate or token.
func TestEveryRefusal(t *testing.T) {
	s := kafkatest.NewSecured(t)
	user := "u-" + uuid.NewString()
	s.Password(user, "secret")
	dir := t.TempDir()
	certtest.New(t).Write(t, filepath.Join(dir, "other.pem"))
	good := account("scram-sha-512", user, "secret")
	token := func(text string) *settings.SASL {
		name := filepath.Join(dir, uuid.NewString())
		require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
		return &settings.SASL{Mechanism: "oauthbearer", OAuth: &settings.OAuth{TokenFile: name}}
	}
	for name, c := range map[string]struct {
		at   string
		sasl *settings.SASL
		edit func(*settings.TLS)
		want string
	}{
		"wrong authority":     {s.SASL, good, func(c *settings.TLS) { c.CAFile = filepath.Join(dir, "other.pem") }, "certificate signed by unknown authority"},
		"wrong name":          {s.SASL, good, func(c *settings.TLS) { c.ServerName = "kafka.example" }, "certificate is valid for localhost, not kafka.example"},
		"expired":             {s.Expired, good, nil, "certificate has expired"},
		"wrong password":      {s.SASL, account("scram-sha-512", user, "wrong"), nil, "SASL_AUTHENTICATION_FAILED"},
		"wrong plain":         {s.SASL, account("plain", kafkatest.PlainUser, "wrong"), nil, "SASL_AUTHENTICATION_FAILED"},
		"no token":            {s.SASL, token(""), nil, "found an empty file"},
		"no token of OAuth":   {s.SASL, token("neither a token nor empty"), nil, "SASL_AUTHENTICATION_FAILED"},
		"token too old":       {s.SASL, token(s.Token(user, -time.Hour)), nil, "invalid_token"},
		"token of a stranger": {s.SASL, token(forged(s.Token(user, time.Hour))), nil, "invalid_token"},
		"no certificate":      {s.MTLS, nil, nil, "certificate"},
		"expired certificate": {s.MTLS, nil, own(t, s.CA, time.Now().Add(-time.Minute)), "certificate"},
		"stranger's":          {s.MTLS, nil, own(t, certtest.New(t), time.Now().Add(time.Hour)), "certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			k := secured(s, c.at, c.sasl)
			if c.edit != nil {
				c.edit(k.TLS)
			}
			err := refusal(t, k)
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "secret")
		})
	}
}

// forged is a token with the same claims whose signature is not the issuer's.
func forged(token string) string {
	end := strings.LastIndexByte(token, '.') + 1
	return token[:end] + strings.Map(func(c rune) rune {
		if c == 'A' {
			return 'B'
		}
		return 'A'
	}, token[end:])
}

func own(t *testing.T, a *certtest.Authority, ends time.Time) func(*settings.TLS) {
	t.Helper()
	certFile, keyFile := a.Issue(t, "client", ends).Write(t, t.TempDir(), "client")
	return func(c *settings.TLS) { c.CertFile, c.KeyFile = certFile, keyFile }
}

// endpoint is a token endpoint. It counts the tokens that it has given.
type endpoint struct {
	*httptest.Server
	given  atomic.Int64
	secret atomic.Value
}

func newEndpoint(t *testing.T, token func() string, life any) *endpoint {
	t.Helper()
	e := &endpoint{}
	e.secret.Store("s&cret")
	e.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, secret, _ := r.BasicAuth()
		if id != "catchment" || secret != "s%26cret" && secret != e.secret.Load() || r.PostFormValue("grant_type") != "client_credentials" || r.PostFormValue("scope") != "kafka" {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = w.Write([]byte(`{"error": "invalid_client"}`))
			return
		}
		e.given.Add(1)
		_ = json.NewEncoder(w).Encode(map[string]any{"access_token": token(), "expires_in": life, "token_type": "Bearer"})
	}))
	t.Cleanup(e.Close)
	return e
}

// settings are those with which a client asks the endpoint.
func (e *endpoint) settings(t *testing.T) *settings.SASL {
	t.Helper()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: e.Certificate().Raw}), 0o600))
	return &settings.SASL{Mechanism: "oauthbearer", OAuth: &settings.OAuth{
		TokenURL: e.URL, ClientID: config.NewSecret("catchment"), ClientSecret: config.NewSecret("s&cret"), Scope: "kafka", CAFile: ca,
	}}
}

// TestTokenIsRenewed keeps a client on one connection for longer than the broker lets a token do, and the tokens live.
func TestTokenIsRenewed(t *testing.T) {
	s := kafkatest.NewSecured(t)
	user := "u-" + uuid.NewString()
	e := newEndpoint(t, func() string { return s.Token(user, 5*time.Second) }, "5")
	topic := readable(t, s, user)
	cl := connect(t, secured(s, s.SASL, e.settings(t)), kgo.DefaultProduceTopic(topic))
	began, first := time.Now(), int64(0)
	for time.Since(began) < 4*kafkatest.ReauthTime {
		require.NoError(t, cl.ProduceSync(t.Context(), kgo.StringRecord("still here")).FirstErr())
		if first == 0 {
			first = e.given.Load()
		}
	}
	require.Greater(t, e.given.Load(), first, "no other token was asked for")
}

// An endpoint that refuses us is named, and so is its reason.
func TestTokenEndpointRefuses(t *testing.T) {
	e := newEndpoint(t, func() string { return "any" }, 3600)
	e.Config.SetKeepAlivesEnabled(false)
	for name, c := range map[string]struct {
		edit func(*settings.OAuth)
		want string
	}{
		"secret":    {func(o *settings.OAuth) { o.ClientSecret = config.NewSecret("wrong-one") }, `401 Unauthorized "invalid_client"`},
		"authority": {func(o *settings.OAuth) { o.CAFile = "" }, "certificate signed by unknown authority"},
		"address":   {func(o *settings.OAuth) { o.TokenURL = "http://127.0.0.1:1/" }, "connection refused"},
	} {
		t.Run(name, func(t *testing.T) {
			k := settings.Kafka{Brokers: imitation(t, "OAUTHBEARER", func([]byte) ([]byte, error) { return nil, nil }).Brokers, SASL: e.settings(t)}
			c.edit(k.SASL.OAuth)
			err := refusal(t, k)
			require.ErrorContains(t, err, c.want)
			require.ErrorContains(t, err, "kafka.sasl.oauth: ask for a token")
			require.NotContains(t, err.Error(), "wrong-one")
		})
	}
}

// imitation is a kfake with a mechanism that it does not know.
func imitation(t *testing.T, mechanism string, answer func([]byte) ([]byte, error)) *kafkatest.Cluster {
	t.Helper()
	cluster := kafkatest.NewFake(t)
	fake := cluster.Fake()
	fake.ControlKey(int16(kmsg.SASLHandshake), func(req kmsg.Request) (kmsg.Response, error, bool) {
		fake.KeepControl()
		resp := req.ResponseKind().(*kmsg.SASLHandshakeResponse)
		if req.(*kmsg.SASLHandshakeRequest).Mechanism != mechanism {
			resp.ErrorCode = kerr.UnsupportedSaslMechanism.Code
		}
		return resp, nil, true
	})
	fake.ControlKey(int16(kmsg.SASLAuthenticate), func(req kmsg.Request) (kmsg.Response, error, bool) {
		fake.KeepControl()
		resp := req.ResponseKind().(*kmsg.SASLAuthenticateResponse)
		said, err := answer(req.(*kmsg.SASLAuthenticateRequest).SASLAuthBytes)
		if err != nil {
			message := err.Error()
			resp.ErrorCode, resp.ErrorMessage = kerr.SaslAuthenticationFailed.Code, &message
			return resp, nil, true
		}
		resp.SASLAuthBytes = said
		return resp, nil, true
	})
	return cluster
}

// TestMSKIAM imitates the handshake of Amazon MSK, which nobody else has, and checks the signature by the AWS SDK's own
// signer. Credentials come from the environment, from a profile's file that is written anew, and by a web identity.
func TestMSKIAM(t *testing.T) {
	var shown atomic.Value // access key of the last handshake
	cluster := imitation(t, "AWS_MSK_IAM", func(payload []byte) ([]byte, error) {
		key, err := mskVerify(payload)
		shown.Store(key)
		return []byte(`{"version": "2020_10_22"}`), err
	})
	dir := t.TempDir()
	profile := filepath.Join(dir, "credentials")
	for name, value := range map[string]string{
		"AWS_REGION": "eu-central-1", "AWS_EC2_METADATA_DISABLED": "true", "AWS_SHARED_CREDENTIALS_FILE": profile,
		"AWS_CONFIG_FILE": filepath.Join(dir, "none"), "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_SESSION_TOKEN": "",
	} {
		t.Setenv(name, value)
	}
	opts, err := kafka.Options(settings.Kafka{Brokers: cluster.Brokers, SASL: &settings.SASL{Mechanism: "aws-msk-iam"}}, "test")
	require.NoError(t, err)
	asks := func() error {
		cl := cluster.Client(t, opts...)
		defer cl.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		return cl.Ping(ctx)
	}
	require.ErrorContains(t, asks(), "kafka.sasl: aws-msk-iam: find AWS credentials")

	for _, key := range []string{"AKIAFIRST", "AKIASECOND"} { // rotated under the same options
		require.NoError(t, os.WriteFile(profile, []byte("[default]\naws_access_key_id="+key+"\naws_secret_access_key="+mskSecrets[key]+"\n"), 0o600))
		require.NoError(t, asks())
		require.Equal(t, key, shown.Load())
	}
	require.NoError(t, os.WriteFile(profile, []byte("[default]\naws_access_key_id=AKIAFIRST\naws_secret_access_key=wrong\n"), 0o600))
	require.ErrorContains(t, asks(), "SASL_AUTHENTICATION_FAILED")
	require.NoError(t, os.Remove(profile))

	sts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.PostFormValue("Action") != "AssumeRoleWithWebIdentity" || r.PostFormValue("WebIdentityToken") != "a token" || r.PostFormValue("RoleArn") != "arn:aws:iam::1:role/catchment" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		_, _ = fmt.Fprintf(w, `<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithWebIdentityResult><Credentials>
<AccessKeyId>ASIATHIRD</AccessKeyId><SecretAccessKey>%s</SecretAccessKey><SessionToken>session</SessionToken><Expiration>%s</Expiration>
</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`, mskSecrets["ASIATHIRD"], time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	}))
	defer sts.Close()
	identity := filepath.Join(dir, "identity")
	require.NoError(t, os.WriteFile(identity, []byte("a token"), 0o600))
	t.Setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/catchment")
	t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", identity)
	t.Setenv("AWS_ENDPOINT_URL_STS", sts.URL)
	require.NoError(t, asks())
	require.Equal(t, "ASIATHIRD", shown.Load())
}

var mskSecrets = map[string]string{"AKIAFIRST": "first-secret", "AKIASECOND": "second-secret", "ASIATHIRD": "third-secret"}

// mskVerify returns whose payload it is, when the AWS SDK signs the same request in the same way.
func mskVerify(payload []byte) (key string, err error) {
	var p map[string]string
	if err := json.Unmarshal(payload, &p); err != nil {
		return "", err
	}
	key, _, _ = strings.Cut(p["x-amz-credential"], "/")
	at, err := time.Parse("20060102T150405Z", p["x-amz-date"])
	if err != nil || p["action"] != "kafka-cluster:Connect" || p["version"] != "2020_10_22" {
		return "", fmt.Errorf("malformed: %v", p)
	}
	query := url.Values{"Action": {p["action"]}, "X-Amz-Expires": {p["x-amz-expires"]}}
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "https://"+p["host"]+"/?"+query.Encode(), nil)
	if err != nil {
		return "", err
	}
	const empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	signed, _, err := v4.NewSigner().PresignHTTP(context.Background(), aws.Credentials{AccessKeyID: key, SecretAccessKey: mskSecrets[key], SessionToken: p["x-amz-security-token"]}, req, empty, "kafka-cluster", "eu-central-1", at)
	if err != nil {
		return "", err
	}
	u, err := url.Parse(signed)
	if err != nil || u.Query().Get("X-Amz-Signature") != p["x-amz-signature"] {
		return "", errors.New("the signature is another one")
	}
	return key, nil
}
