package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/sasl"

	"github.com/catchment-dev/catchment/pkg/settings"
)

const (
	tokenTime  = 10 * time.Second // for one answer of the token endpoint
	tokenReuse = 10 * time.Second // a token serves the connections that are made within this time, and no later ones
	tokenBytes = 1 << 20          // of the endpoint's answer at most
)

// tokens are the bearer tokens that connections to the brokers begin with: from a file, or fetched.
type tokens struct {
	cfg *settings.OAuth
	now func() time.Time

	mu      sync.Mutex
	token   string
	fetched time.Time
	half    time.Time // when half of its life is over
}

func newTokens(o *settings.OAuth) *tokens { return &tokens{cfg: o, now: time.Now} }

// get returns a token that is fresh: the brokers end a connection with its token, and one that was withdrawn must not be
// shown again. The error never holds a token or a secret.
func (t *tokens) get(ctx context.Context) (string, error) {
	if t.cfg.TokenFile != "" {
		return readToken(t.cfg.TokenFile)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	if t.token != "" && now.Sub(t.fetched) < tokenReuse && now.Before(t.half) {
		return t.token, nil
	}
	ctx, cancel := context.WithTimeout(ctx, tokenTime)
	defer cancel()
	token, life, err := t.fetch(ctx)
	if err != nil {
		return "", fmt.Errorf("ask for a token: %w", err)
	}
	t.token, t.fetched, t.half = token, now, now.Add(life/2)
	return token, nil
}

func readToken(name string) (string, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return "", fmt.Errorf("token_file: %w", err)
	}
	token := strings.TrimSpace(string(b))
	if token == "" {
		return "", fmt.Errorf("token_file: expected a token in %s, found an empty file", name)
	}
	return token, nil
}

// fetch asks the endpoint by client credentials (RFC 6749, 4.4); life is 0 where it does not say.
func (t *tokens) fetch(ctx context.Context) (token string, life time.Duration, err error) {
	id, err := t.cfg.ClientID.Reread()
	if err != nil {
		return "", 0, fmt.Errorf("client_id: %w", err)
	}
	secret, err := t.cfg.ClientSecret.Reread()
	if err != nil {
		return "", 0, fmt.Errorf("client_secret: %w", err)
	}
	form := url.Values{"grant_type": {"client_credentials"}}
	if t.cfg.Scope != "" {
		form.Set("scope", t.cfg.Scope)
	}
	if t.cfg.Audience != "" {
		form.Set("audience", t.cfg.Audience)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.cfg.TokenURL, strings.NewReader(form.Encode()))
	if err != nil {
		return "", 0, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	req.SetBasicAuth(url.QueryEscape(id), url.QueryEscape(secret)) // RFC 6749, 2.3.1
	client, err := t.client()
	if err != nil {
		return "", 0, err
	}
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		return "", 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	return readAnswer(resp)
}

// client reads the endpoint's authority again each time. It follows no redirects: they would get our secret.
func (t *tokens) client() (*http.Client, error) {
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}}
	if t.cfg.CAFile != "" {
		pem, err := os.ReadFile(t.cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
		transport.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !transport.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca_file: %s: expected PEM certificates, found none", t.cfg.CAFile)
		}
	}
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, nil
}

func readAnswer(resp *http.Response) (token string, life time.Duration, err error) {
	body, err := io.ReadAll(io.LimitReader(resp.Body, tokenBytes))
	if err != nil {
		return "", 0, err
	}
	var answer struct {
		Token string      `json:"access_token"`
		Life  json.Number `json:"expires_in"` // some write it as a text
		Error string      `json:"error"`
	}
	parsed := json.Unmarshal(body, &answer)
	if resp.StatusCode != http.StatusOK {
		return "", 0, fmt.Errorf("the endpoint answered %s %q", resp.Status, answer.Error)
	}
	if parsed != nil || answer.Token == "" {
		return "", 0, errors.New("the endpoint's answer holds no access_token")
	}
	seconds, err := answer.Life.Float64()
	if err != nil {
		seconds = 0 // not said
	}
	return answer.Token, time.Duration(seconds * float64(time.Second)), nil
}

// heard is OAUTHBEARER whose error says why the broker refuses a token (RFC 7628, 3.2.2).
type heard struct{ sasl.Mechanism }

// Authenticate begins as the mechanism does.
func (h heard) Authenticate(ctx context.Context, host string) (sasl.Session, []byte, error) {
	session, first, err := h.Mechanism.Authenticate(ctx, host)
	if err != nil {
		return nil, nil, err
	}
	return heardSession{session}, first, nil
}

type heardSession struct{ sasl.Session }

// Challenge is the broker's answer: empty, or why it refuses.
func (h heardSession) Challenge(answer []byte) (done bool, next []byte, err error) {
	if len(answer) == 0 {
		return h.Session.Challenge(answer)
	}
	var why struct {
		Status string `json:"status"`
	}
	if err := json.Unmarshal(answer, &why); err != nil || why.Status == "" {
		why.Status = "no reason"
	}
	return false, nil, fmt.Errorf("kafka.sasl.oauth: the broker refuses the token: %.100q", why.Status)
}
