package provider_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/provider"
)

// golden is a file of testdata/<preset>. The signatures in it were made by other programs: the providers' own
// published pairs, and Python's hmac.
type golden struct {
	Note   string
	Config struct {
		Secrets []struct {
			ID, Text  string
			NotBefore time.Time `json:"not_before"`
			NotAfter  time.Time `json:"not_after"`
		}
		HMAC      *goldenHMAC
		Options   map[string]any
		Keys      json.RawMessage // what ParseOfflineKeys reads
		PublicURL string          `json:"public_url"`
		EventID   string          `json:"event_id"`
		EventType string          `json:"event_type"`
	}
	Request struct {
		Method, Path, Query string
		Headers             map[string]any
		Body                string
		BodyBase64          []byte `json:"body_base64"`
		FromProxy           bool   `json:"from_proxy"`
		At                  int64
	}
	Want struct {
		Status     int
		Reason     string
		ID, Type   string
		Time       time.Time
		SecretID   string `json:"secret_id"`
		SignedURL  string `json:"signed_url"`
		IDUnsigned bool   `json:"id_unsigned"`
		IDMissing  bool   `json:"id_missing"`
		Response   *string

		ResponseStatus int               `json:"response_status"`
		Answer         *string           // the body that the provider demands once the delivery is safe
		AnswerStatus   int               `json:"answer_status"`
		ResponseHeader map[string]string `json:"response_header"`
		Events         []struct {
			ID, Type, Body string
			Time           time.Time
		}
	}
}

type goldenHMAC struct {
	Header, Algorithm, Encoding, Prefix, Separator, Signed string

	TimestampHeader string `json:"timestamp_header"`
	IDHeader        string `json:"id_header"`
	TypeHeader      string `json:"type_header"`
	SecretEncoding  string `json:"secret_encoding"`
}

func (g *golden) config(t *testing.T, name string) provider.Config {
	t.Helper()
	c := provider.Config{
		Source: "golden", Provider: name, Options: g.Config.Options, PublicURL: g.Config.PublicURL,
		EventID: g.Config.EventID, EventType: g.Config.EventType,
	}
	if g.Config.Keys != nil {
		keys, err := provider.ParseOfflineKeys(g.Config.Keys)
		require.NoError(t, err)
		c.Keys = keys
	}
	for _, s := range g.Config.Secrets {
		c.Secrets = append(c.Secrets, provider.Secret{ID: s.ID, Text: s.Text, NotBefore: s.NotBefore, NotAfter: s.NotAfter})
	}
	if h := g.Config.HMAC; h != nil {
		c.HMAC = &provider.HMAC{
			Header: h.Header, Algorithm: h.Algorithm, Encoding: h.Encoding, Prefix: h.Prefix, Separator: h.Separator, Signed: h.Signed,
			TimestampHeader: h.TimestampHeader, IDHeader: h.IDHeader, TypeHeader: h.TypeHeader, SecretEncoding: h.SecretEncoding,
		}
	}
	return c
}

func (g *golden) request() *provider.Request {
	r := &provider.Request{
		Method: g.Request.Method, Path: g.Request.Path, RawQuery: g.Request.Query, Header: http.Header{},
		Body: []byte(g.Request.Body), Now: time.Unix(g.Request.At, 0).UTC(),
	}
	r.FromProxy = g.Request.FromProxy
	if g.Request.BodyBase64 != nil {
		r.Body = g.Request.BodyBase64
	}
	for name, v := range g.Request.Headers {
		switch v := v.(type) {
		case string:
			r.Header.Add(name, v)
		case []any:
			for _, one := range v {
				r.Header.Add(name, one.(string))
			}
		}
	}
	return r
}

func TestGolden(t *testing.T) {
	for _, p := range provider.All {
		files, err := filepath.Glob("testdata/" + p.Name + "/*.json")
		require.NoError(t, err)
		require.NotEmpty(t, files)
		for _, f := range files {
			t.Run(p.Name+"/"+filepath.Base(f), func(t *testing.T) { checkGolden(t, p.Name, readGolden(t, f)) })
		}
	}
}

func readGolden(t *testing.T, file string) *golden {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	g := &golden{}
	require.NoError(t, json.Unmarshal(text, g))
	return g
}

func checkGolden(t *testing.T, name string, g *golden) {
	t.Helper()
	src, err := provider.New(g.config(t, name))
	require.NoError(t, err)
	v, err := src.Receive(t.Context(), g.request())
	if g.Want.Status != 0 {
		require.Equal(t, &provider.Refusal{Status: g.Want.Status, Reason: g.Want.Reason}, err, g.Note)
		return
	}
	require.NoError(t, err, g.Note)
	want := provider.Verified{
		Identity: provider.Identity{ID: g.Want.ID, Type: g.Want.Type, Time: g.Want.Time},
		SecretID: g.Want.SecretID, SignedURL: g.Want.SignedURL, IDUnsigned: g.Want.IDUnsigned, IDMissing: g.Want.IDMissing,
	}
	if g.Want.ID == "" && g.Want.Response == nil { // named by its digest
		sum := sha256.Sum256(g.request().Body)
		want.ID, want.IDMissing = "sha256:"+hex.EncodeToString(sum[:]), true
	}
	if g.Want.Events != nil {
		want.Parts = []provider.Part{}
	}
	if g.Want.ID == "" && g.Want.Events != nil { // so is a batch, with its source
		sum := sha256.Sum256(append([]byte("golden\n"), g.request().Body...))
		want.ID, want.IDMissing = "sha256:"+hex.EncodeToString(sum[:]), g.Want.IDMissing
	}
	for _, e := range g.Want.Events {
		e.ID = strings.Replace(e.ID, "{key}", want.ID, 1)
		want.Parts = append(want.Parts, provider.Part{Identity: provider.Identity{ID: e.ID, Type: e.Type, Time: e.Time}, Body: []byte(e.Body)})
	}
	if g.Want.Response != nil {
		require.NotNil(t, v.Handshake, g.Note)
		require.Equal(t, *g.Want.Response, string(v.Handshake.Body), g.Note)
		require.Less(t, v.Handshake.Status, 300, g.Note)
		if g.Want.ResponseStatus != 0 {
			require.Equal(t, g.Want.ResponseStatus, v.Handshake.Status, g.Note)
		}
		for name, value := range g.Want.ResponseHeader {
			require.Equal(t, value, v.Handshake.Header.Get(name), g.Note)
		}
		want.Handshake = v.Handshake
	}
	if g.Want.AnswerStatus != 0 {
		require.NotNil(t, v.Answer, g.Note)
		require.Equal(t, g.Want.AnswerStatus, v.Answer.Status, g.Note)
		require.Equal(t, *g.Want.Answer, string(v.Answer.Body), g.Note)
	}
	v.Answer = nil
	require.Equal(t, want, v, g.Note)
}
