package provider_test

import (
	"bufio"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/internal/parts"
	"github.com/catchment-dev/catchment/pkg/provider"
	"github.com/catchment-dev/catchment/pkg/provider/providertest"
)

// sdks are the official SDKs that verify, or sign, what the presets do: testdata/sdks/driver.py and driver.mjs.
var sdks = map[string]struct{ verify, sign []string }{
	"python": {
		verify: []string{
			"adyen", "box", "braintree", "discord", "hubspot", "paddle", "razorpay", "sendgrid", "slack", "square",
			"standard-webhooks", "stripe", "svix", "twilio",
		},
		sign: []string{"braintree", "slack", "twilio"},
	},
	"node": {
		verify: []string{
			"adyen", "coinbase-commerce", "github", "linear", "paddle", "shopify", "sns", "standard-webhooks", "stripe", "svix", "twilio",
		},
		sign: []string{"github", "standard-webhooks", "stripe", "svix"},
	},
}

// sdk is a driver's process.
type sdk struct {
	in  io.Writer
	out *bufio.Scanner
}

type sdkRequest struct {
	Op       string            `json:"op"`
	Provider string            `json:"provider"`
	Secret   string            `json:"secret"`
	Options  map[string]any    `json:"options,omitempty"`
	URL      string            `json:"url"`
	ID       string            `json:"id"`
	At       int64             `json:"at"`
	Headers  map[string]string `json:"headers"`
	Body     []byte            `json:"body"`
	Keys     map[string]string `json:"keys,omitempty"`
}

type sdkAnswer struct {
	OK      bool              `json:"ok"`
	Error   string            `json:"error"`
	Headers map[string]string `json:"headers"`
	Body    []byte            `json:"body"`
}

func startSDK(t *testing.T, dir, language string) *sdk {
	t.Helper()
	var cmd *exec.Cmd
	if language == "python" {
		cmd = exec.Command(filepath.Join(dir, "venv", "bin", "python"), "testdata/sdks/driver.py")
	} else {
		cmd = exec.Command("node", "testdata/sdks/driver.mjs")
	}
	cmd.Env, cmd.Stderr = append(os.Environ(), "SDKS="+dir), os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	s := &sdk{in: in, out: bufio.NewScanner(out)}
	s.out.Buffer(nil, 1<<20)
	return s
}

func (s *sdk) ask(t *testing.T, r *sdkRequest) (a sdkAnswer) {
	t.Helper()
	require.NoError(t, json.NewEncoder(s.in).Encode(r))
	require.True(t, s.out.Scan(), "the driver has ended")
	require.NoError(t, json.Unmarshal(s.out.Bytes(), &a), s.out.Text())
	return a
}

// TestSDKs lets the providers' own SDKs verify what Sign makes, and verifies what they sign.
func TestSDKs(t *testing.T) {
	if !parts.Required() {
		t.Skip("needs the SDKs, which CATCHMENT_TEST_REAL=1 installs; testdata holds what they have signed once")
	}
	root, err := parts.Root()
	require.NoError(t, err)
	install := exec.Command("bash", filepath.Join(root, "scripts", "foreign.sh"), filepath.Join(root, "pkg", "provider", "testdata", "sdks"))
	install.Stderr = os.Stderr
	dir, err := install.Output()
	require.NoError(t, err)
	for language, of := range sdks {
		t.Run(language, func(t *testing.T) {
			s := startSDK(t, strings.TrimSpace(string(dir)), language)
			for _, name := range of.verify {
				t.Run("verify "+name, func(t *testing.T) { s.verifies(t, name) })
			}
			for _, name := range of.sign {
				t.Run("sign "+name, func(t *testing.T) { s.signs(t, name) })
			}
		})
	}
}

func (s *sdk) verifies(t *testing.T, name string) {
	t.Helper()
	p, ok := provider.ByName(name)
	require.True(t, ok)
	mine, other := p.NewCredentials(), p.NewCredentials()
	for seq := range 10 {
		now := time.Now() // some SDKs allow no more than 5 s
		sample := p.Sample(rand.New(rand.NewPCG(3, uint64(seq))), provider.SampleInput{Seq: seq, Now: now})
		for _, signer := range []provider.Credentials{mine, other} {
			signed, err := p.Sign(&provider.SignInput{
				Secret: signer.Signer, Options: providertest.Config(p, signer).Options, URL: providertest.URL, Body: sample.Body, Now: now, Sample: sample,
			})
			require.NoError(t, err)
			r := &sdkRequest{Op: "verify", Provider: name, Secret: mine.Secret, Options: mine.Options, URL: signed.URL, At: now.Unix(), Headers: map[string]string{}, Body: signed.Body}
			for h := range signed.Header {
				r.Headers[h] = signed.Header.Get(h)
			}
			if mine.Keys != nil {
				r.Keys = map[string]string{}
				for k, v := range mine.Keys.Content {
					r.Keys[k] = string(v)
				}
			}
			a := s.ask(t, r)
			if signer.Signer == mine.Signer {
				require.True(t, a.OK, "the SDK refuses what we sign: %s", a.Error)
			} else {
				require.False(t, a.OK, "the SDK takes another's signature")
			}
		}
	}
}

func (s *sdk) signs(t *testing.T, name string) {
	t.Helper()
	p, ok := provider.ByName(name)
	require.True(t, ok)
	mine := p.NewCredentials()
	src, err := provider.New(providertest.Config(p, mine))
	require.NoError(t, err)
	for seq := range 10 {
		now := time.Now()
		sample := p.Sample(rand.New(rand.NewPCG(4, uint64(seq))), provider.SampleInput{Seq: seq, Now: now})
		r := &sdkRequest{
			Op: "sign", Provider: name, Secret: mine.Signer, Options: mine.Options, URL: providertest.URL, ID: sample.ID, At: now.Unix(),
			Headers: map[string]string{}, Body: sample.Body,
		}
		for h := range sample.Header {
			r.Headers[h] = sample.Header.Get(h)
		}
		a := s.ask(t, r)
		require.True(t, a.OK, a.Error)
		header := sample.Header.Clone()
		if header == nil {
			header = http.Header{}
		}
		for h, v := range a.Headers {
			header.Set(h, v)
		}
		req := providertest.Request(provider.Signed{Method: http.MethodPost, URL: providertest.URL, Header: header, Body: a.Body}, now)
		_, err := src.Receive(t.Context(), req)
		require.NoError(t, err, "we refuse what the SDK signs")
		for h := range a.Headers {
			v := req.Header.Get(h)
			if h == "Content-Type" || strings.HasSuffix(strings.ToLower(h), "-event") || slices.Contains([]string{"X-GitHub-Delivery"}, h) {
				continue
			}
			req.Header.Set(h, v+"0")
			_, err := src.Receive(t.Context(), req)
			require.Error(t, err, h)
			req.Header.Set(h, v)
		}
	}
}
