package provider_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/provider"
)

// problems opens a source and lists what is wrong with it, one "key: cause" each.
func problems(t *testing.T, cfg provider.Config) []string {
	t.Helper()
	_, err := provider.New(cfg)
	if err == nil {
		return nil
	}
	var lines []string
	for line := range strings.SplitSeq(err.Error(), "\n") {
		lines = append(lines, line)
	}
	var wrong *provider.ConfigError
	require.True(t, errors.As(err, &wrong))
	return lines
}

func TestHMACConfiguration(t *testing.T) {
	ok := provider.HMAC{Header: "X-Signature"}
	for name, c := range map[string]struct {
		hmac provider.HMAC
		want []string
	}{
		"no header":       {provider.HMAC{}, []string{"hmac.header: is missing: the name of the header that carries the signature"}},
		"header name":     {provider.HMAC{Header: "X Signature"}, []string{`hmac.header: "X Signature" is no header name`}},
		"algorithm":       {provider.HMAC{Header: "X", Algorithm: "md5"}, []string{`hmac.algorithm: unknown algorithm "md5": expected one of sha1, sha256, sha384, sha512`}},
		"encoding":        {provider.HMAC{Header: "X", Encoding: "ascii85"}, []string{`hmac.encoding: unknown encoding "ascii85": expected one of hex, base64, base64url`}},
		"secret encoding": {provider.HMAC{Header: "X", SecretEncoding: "rot13"}, []string{`hmac.secret_encoding: unknown form "rot13": expected one of text, hex, base64`}},
		"placeholder": {provider.HMAC{Header: "X", Signed: "{ts}.{body}"}, []string{
			"hmac.signed: unknown placeholder {ts}: expected one of {body} {timestamp} {id} {url} {method} {path} {query} {header:Name}",
		}},
		"open brace":   {provider.HMAC{Header: "X", Signed: "{body"}, []string{"hmac.signed: { without }: write {{ for a brace"}},
		"closed brace": {provider.HMAC{Header: "X", Signed: "{body}}"}, []string{"hmac.signed: } without {: write }} for a brace"}},
		"no body":      {provider.HMAC{Header: "X", Signed: "{method}"}, []string{"hmac.signed: {body} is missing: whatever the signature does not cover, anybody can change"}},
		"body twice":   {provider.HMAC{Header: "X", Signed: "{body}{body}"}, []string{"hmac.signed: {body} is there twice"}},
		"ambiguous": {provider.HMAC{Header: "X", Signed: "{id}{body}", IDHeader: "X-Id"}, []string{
			"hmac.signed: text is missing between {id} or {header:…} and its neighbour: the signed bytes could be split in two ways",
		}},
		"digit at the timestamp": {provider.HMAC{Header: "X", Signed: "v{timestamp}0{body}", TimestampHeader: "X-Time"}, []string{
			"hmac.signed: a digit, or what may begin with one, touches {timestamp}: the signed bytes could be split in two ways",
		}},
		"header of a placeholder": {provider.HMAC{Header: "X", Signed: "{header:a b}.{body}"}, []string{`hmac.signed: {header:a b}: "a b" is no header name`}},
		"host":                    {provider.HMAC{Header: "X", Signed: "{header:host}.{body}"}, []string{"hmac.signed: {header:Host}: use {url} and public_url, for proxies change the host"}},
		"no timestamp header":     {provider.HMAC{Header: "X", Signed: "{timestamp}.{body}"}, []string{"hmac.timestamp_header: is missing: signed contains {timestamp}"}},
		"no ID header":            {provider.HMAC{Header: "X", Signed: "{id}.{body}"}, []string{"hmac.id_header: is missing: signed contains {id}"}},
		"unsigned timestamp": {provider.HMAC{Header: "X", TimestampHeader: "X-Time"}, []string{
			"hmac.timestamp_header: is not signed: signed does not contain {timestamp}, so that anybody could change it",
		}},
		"no public URL": {provider.HMAC{Header: "X", Signed: "{url}{body}"}, []string{"public_url: is missing: the signed text (hmac.signed) contains {url}, the URL that the provider calls"}},
		"several": {provider.HMAC{Header: "X", Algorithm: "md5", Encoding: "x"}, []string{
			`hmac.algorithm: unknown algorithm "md5": expected one of sha1, sha256, sha384, sha512`,
			`hmac.encoding: unknown encoding "x": expected one of hex, base64, base64url`,
		}},
		"fine":            {ok, nil},
		"braces":          {provider.HMAC{Header: "X", Signed: "{{{body}}}"}, nil},
		"box":             {provider.HMAC{Header: "X", Signed: "{body}{timestamp}", TimestampHeader: "BOX-DELIVERY-TIMESTAMP"}, nil},
		"by header":       {provider.HMAC{Header: "X", Signed: "{header:X-Time}.{body}", TimestampHeader: "x-time"}, nil},
		"behind the body": {provider.HMAC{Header: "X", Signed: "{body}.{id}", IDHeader: "x-id"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.want, problems(t, provider.Config{Provider: "hmac", HMAC: &c.hmac, Secrets: []provider.Secret{{Text: "s"}}}))
		})
	}
	require.Equal(t, []string{"hmac: is missing: provider hmac needs it, with at least the key header"},
		problems(t, provider.Config{Provider: "hmac", Secrets: []provider.Secret{{Text: "s"}}}))
	require.Equal(t, []string{"hmac: is for provider hmac only: provider github has a scheme of its own"},
		problems(t, provider.Config{Provider: "github", HMAC: &ok, Secrets: []provider.Secret{{Text: "s"}}}))
	require.Equal(t, []string{"secrets[0]: the secret is not hex, as secret_encoding says"},
		problems(t, provider.Config{Provider: "hmac", HMAC: &provider.HMAC{Header: "X", SecretEncoding: "hex"}, Secrets: []provider.Secret{{Text: "xyz"}}}))
}

func TestSecrets(t *testing.T) {
	day := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		secret provider.Secret
		want   []string
	}{
		"empty key":     {provider.Secret{Text: "whsec_"}, []string{"secrets[0]: the secret is empty"}},
		"not base64":    {provider.Secret{Text: "whsec_%%"}, []string{"secrets[0]: the secret is not whsec_ and base64 with padding"}},
		"no padding":    {provider.Secret{Text: "whsec_AAAAA"}, []string{"secrets[0]: the secret is not whsec_ and base64 with padding"}},
		"public key":    {provider.Secret{Text: "whpk_AAAA"}, []string{"secrets[0]: the secret is not whpk_ and base64 of the 32 bytes of an Ed25519 key"}},
		"weak key":      {provider.Secret{Text: "whpk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}, []string{"secrets[0]: the secret is a public key under which anybody can sign"}},
		"private key":   {provider.Secret{Text: "whsk_AAAA"}, []string{"secrets[0]: this is a private key: expected the public one, which begins with whpk_, or a secret that begins with whsec_"}},
		"never valid":   {provider.Secret{Text: "whsec_AAAA", NotBefore: day, NotAfter: day}, []string{"secrets[0]: is never valid: not_after is not later than not_before"}},
		"fine, bounded": {provider.Secret{Text: "whsec_AAAA", NotBefore: day, NotAfter: day.Add(time.Hour)}, nil},
	} {
		require.Equal(t, c.want, problems(t, provider.Config{Provider: "svix", Secrets: []provider.Secret{c.secret}}), name)
	}
	require.Equal(t, []string{"secrets[1]: has the ID a, which is that of secrets[0]"},
		problems(t, provider.Config{Provider: "github", Secrets: []provider.Secret{{ID: "a", Text: "x"}, {ID: "a", Text: "y"}}}))
}

func TestOptions(t *testing.T) {
	tolerance := time.Minute
	for name, c := range map[string]struct {
		cfg  provider.Config
		want []string
	}{
		"unknown":             {provider.Config{Options: map[string]any{"x": 1}}, []string{"options.x: unknown option: stripe knows public_url, tolerance"}},
		"tolerance, number":   {provider.Config{Options: map[string]any{"tolerance": 300}}, []string{"options.tolerance: expected a duration such as 5m, or off"}},
		"tolerance, zero":     {provider.Config{Options: map[string]any{"tolerance": "0s"}}, []string{"options.tolerance: expected a duration such as 5m, or off"}},
		"tolerance, negative": {provider.Config{Options: map[string]any{"tolerance": "-5m"}}, []string{"options.tolerance: expected a duration such as 5m, or off"}},
		"tolerance, twice":    {provider.Config{Tolerance: &tolerance, Options: map[string]any{"tolerance": "5m"}}, []string{"options.tolerance: is given twice"}},
		"tolerance, YAML 1.1": {provider.Config{Options: map[string]any{"tolerance": false}}, nil},
		"URL, twice":          {provider.Config{PublicURL: "https://a.example", Options: map[string]any{"public_url": "https://b.example"}}, []string{"options.public_url: is given twice"}},
		"URL, relative":       {provider.Config{PublicURL: "/webhooks"}, []string{"public_url: expected a URL such as https://hooks.example.com, without user or fragment"}},
		"URL, user":           {provider.Config{PublicURL: "https://a@b.example"}, []string{"public_url: expected a URL such as https://hooks.example.com, without user or fragment"}},
		"URL, fragment":       {provider.Config{PublicURL: "https://b.example#x"}, []string{"public_url: expected a URL such as https://hooks.example.com, without user or fragment"}},
		"URL, number":         {provider.Config{Options: map[string]any{"public_url": 1}}, []string{"options.public_url: expected a URL such as https://hooks.example.com, without user or fragment"}},
		"URL, unused":         {provider.Config{PublicURL: "https://b.example"}, nil},
	} {
		c.cfg.Provider, c.cfg.Secrets = "stripe", []provider.Secret{{Text: "whsec_x"}}
		require.Equal(t, c.want, problems(t, c.cfg), name)
	}
	for option, want := range map[string][]string{"off": nil, "5m": {"options.tolerance: has no effect: this scheme signs no timestamp"}} {
		cfg := provider.Config{Provider: "github", Secrets: []provider.Secret{{Text: "x"}}, Options: map[string]any{"tolerance": option}}
		require.Equal(t, want, problems(t, cfg), option)
	}
}

func TestPublicURL(t *testing.T) {
	h := &provider.HMAC{Header: "X-Sig", Signed: "{url}\n{body}"}
	for public, want := range map[string]string{
		"https://hooks.example.com":            "https://hooks.example.com/webhooks/a%20b?q=1&q=%2F",
		"https://hooks.example.com/":           "https://hooks.example.com/webhooks/a%20b?q=1&q=%2F",
		"https://Hooks.example.com:443":        "https://Hooks.example.com:443/webhooks/a%20b?q=1&q=%2F",
		"https://hooks.example.com/in":         "https://hooks.example.com/in?q=1&q=%2F",
		"https://hooks.example.com/in?key=%2f": "https://hooks.example.com/in?key=%2f",
	} {
		src, err := provider.New(provider.Config{Provider: "hmac", HMAC: h, PublicURL: public, Secrets: []provider.Secret{{Text: "s"}}})
		require.NoError(t, err)
		signed, err := src.Provider().Sign(&provider.SignInput{Secret: "s", URL: want, Body: []byte("b"), HMAC: h})
		require.NoError(t, err)
		v, err := src.Receive(t.Context(), &provider.Request{Method: "POST", Path: "/webhooks/a%20b", RawQuery: "q=1&q=%2F", Header: signed.Header, Body: []byte("b")})
		require.NoError(t, err, public)
		require.Equal(t, want, v.SignedURL)
	}
}

func TestExpressions(t *testing.T) {
	body := []byte(`{"meta":{"ref":"r-7"},"n":7}`)
	for name, c := range map[string]struct {
		id, typ    string
		header     http.Header
		wantID     string
		wantType   string
		idUnsigned bool
		status     int
	}{
		"body":               {id: "body.meta.ref", wantID: "r-7", wantType: "push"},
		"preset's own names": {id: `id + "/" + string(body.n)`, typ: `type + ".x"`, wantID: "d-1/7", wantType: "push.x"},
		"source":             {id: `source + string(size(raw))`, wantID: "test28", wantType: "push"},
		"header":             {id: `headers["x-ref"][0]`, header: http.Header{"X-Ref": {"h"}}, wantID: "h", wantType: "push", idUnsigned: true},
		"header twice":       {id: `headers["x-ref"][0]`, header: http.Header{"X-Ref": {"h", "i"}}, status: 400},
		"finds nothing":      {id: "body.x.y", typ: "body.?t", wantID: "", wantType: ""},
		"control characters": {id: `"a\n" + body.meta.ref`, status: 400},
	} {
		src, err := provider.New(provider.Config{
			Source: "test", Provider: "github", EventID: c.id, EventType: c.typ, Secrets: []provider.Secret{{Text: "s"}},
		})
		require.NoError(t, err)
		signed, err := src.Provider().Sign(&provider.SignInput{Secret: "s", Body: body, Sample: provider.Sample{ID: "d-1", Type: "push", Header: c.header}})
		require.NoError(t, err)
		v, err := src.Receive(t.Context(), &provider.Request{Method: "POST", Header: signed.Header, Body: body})
		if c.status != 0 {
			var refusal *provider.Refusal
			require.ErrorAs(t, err, &refusal, name)
			require.Equal(t, c.status, refusal.Status)
			continue
		}
		require.NoError(t, err, name)
		require.Equal(t, provider.Identity{ID: c.wantID, Type: c.wantType}, provider.Identity{ID: named(v), Type: v.Type, Time: v.Time}, name)
		require.Equal(t, c.idUnsigned, v.IDUnsigned, name)
	}
}

func TestNames(t *testing.T) {
	const form, multipart = "application/x-www-form-urlencoded", "multipart/form-data; boundary=b"
	for name, c := range map[string]struct {
		expr, media, body string
		want              string
		status            int
	}{
		"string":             {expr: "body.id", body: `{"id":" \u00e9 "}`, want: " é "},
		"beyond int64":       {expr: "body.id", body: `{"id":12345678901234567890}`, want: "12345678901234567890"},
		"and the next":       {expr: "body.id", body: `{"id":12345678901234567891}`, want: "12345678901234567891"},
		"1.50":               {expr: "body.id", body: `{"id":1.50}`, want: "1.50"},
		"1.5":                {expr: "body.id", body: `{"id":1.5}`, want: "1.5"},
		"exponent":           {expr: "body.id", body: `{"id":1e3}`, want: "1e3"},
		"minus zero":         {expr: "body.id", body: `{"id":-0}`, want: "-0"},
		"deep":               {expr: `body.a["b.c"].?d`, body: `{"a":{"b":{"c":{"d":1}},"b.c":{"d":1.0}}}`, want: "1.0"},
		"null":               {expr: "body.id", body: `{"id":null}`},
		"bool":               {expr: "body.id", body: `{"id":true}`},
		"object":             {expr: "body.id", body: `{"id":{"a":1}}`},
		"list":               {expr: "body.id", body: `{"id":[1]}`},
		"empty":              {expr: "body.id", body: `{"id":""}`},
		"white space":        {expr: "body.id", body: `{"id":"  "}`},
		"not there":          {expr: "body.id", body: `{}`},
		"no JSON":            {expr: "body.id", body: `{"id":1`},
		"twice":              {expr: "body.id", body: `{"id":1,"id":2}`, status: 400},
		"unpaired surrogate": {expr: "body.id", body: `{"id":"\ud800"}`, status: 400},

		"form":               {expr: "body.id", media: form, body: `id=1`},
		"JSON said a form":   {expr: "body.id", media: form, body: `{"id":1}`},
		"payload":            {expr: "body.payload.id", media: form, body: `payload={"id":12345678901234567891}`, want: "12345678901234567891"},
		"payload, twice":     {expr: "body.payload.id", media: form, body: `payload={"id":1,"ID":2}`, status: 400},
		"payload, no JSON":   {expr: "body.payload", media: form, body: `payload=x`},
		"two payloads":       {expr: "body.payload.id", media: form, body: `payload={"id":1}&payload={"id":2}`},
		"multipart payload":  {expr: "body.payload.id", media: multipart, body: "--b\r\nContent-Disposition: form-data; name=payload\r\n\r\n{\"id\":7}\r\n--b--", want: "7"},
		"broken media type":  {expr: "body.id", media: "application/x-www-form-urlencoded; x", body: `{"id":1.0}`, want: "1.0"},
		"JSON said plain":    {expr: "body.id", media: "text/plain", body: `{"id":1.0}`, want: "1.0"},
		"text of expression": {expr: `"a" + body.id`, body: `{"id":"1"}`, want: "a1"},
		"int":                {expr: "body.ids[0]", body: `{"ids":[9223372036854775807]}`, want: "9223372036854775807"},
		"uint":               {expr: "uint(body.ids[0])", body: `{"ids":[7]}`, want: "7"},
		"optional":           {expr: "body.?ids[?0]", body: `{"ids":["x"]}`, want: "x"},
		"optional none":      {expr: "body.?ids[?0]", body: `{"ids":[]}`},
		"double":             {expr: "body.ids[0]", body: `{"ids":[12345678901234567890]}`},
		"bool of expression": {expr: "body.ids[0]", body: `{"ids":[true]}`},
		"list of expression": {expr: "[body.id]", body: `{"id":1}`},
		"map of expression":  {expr: `{"id": body.id}`, body: `{"id":1}`},
		"null of expression": {expr: "body.ids[0]", body: `{"ids":[null]}`},
		"empty expression":   {expr: "body.id.trim()", body: `{"id":" "}`},
		"bytes, time":        {expr: "true ? dyn(raw) : dyn(received_at)", body: `{}`},
	} {
		h := &provider.HMAC{Header: "X-Sig"}
		src, err := provider.New(provider.Config{
			Provider: "hmac", HMAC: h, EventID: c.expr, EventType: c.expr, Secrets: []provider.Secret{{Text: "s"}},
		})
		require.NoError(t, err, name)
		signed, err := src.Provider().Sign(&provider.SignInput{Secret: "s", Body: []byte(c.body), HMAC: h})
		require.NoError(t, err, name)
		signed.Header.Set("Content-Type", c.media)
		v, err := src.Receive(t.Context(), &provider.Request{Method: "POST", Header: signed.Header, Body: []byte(c.body)})
		if c.status != 0 {
			var refusal *provider.Refusal
			require.ErrorAs(t, err, &refusal, name)
			require.Equal(t, c.status, refusal.Status, name)
			continue
		}
		require.NoError(t, err, name)
		require.Equal(t, c.want, named(v), name)
		if strings.TrimSpace(v.Type) != "" || c.want != "" {
			require.Equal(t, c.want, v.Type, name)
		}
	}
}

// TestNumericIDs holds the presets that read the ID from the body to the same rule.
func TestNumericIDs(t *testing.T) {
	for preset, member := range map[string]string{"stripe": "id", "slack": "event_id"} {
		src, err := provider.New(provider.Config{Provider: preset, Secrets: []provider.Secret{{Text: "s"}}})
		require.NoError(t, err)
		for token, want := range map[string]string{
			`12345678901234567890`: "12345678901234567890", `12345678901234567891`: "12345678901234567891", `1.50`: "1.50",
			`true`: "", `null`: "", `[1]`: "", `{"a":1}`: "", `"  "`: "",
		} {
			body, now := []byte(`{"`+member+`":`+token+`}`), time.Unix(1795435200, 0)
			signed, err := src.Provider().Sign(&provider.SignInput{Secret: "s", Now: now, Body: body})
			require.NoError(t, err)
			v, err := src.Receive(t.Context(), &provider.Request{Method: "POST", Header: signed.Header, Body: body, Now: now})
			require.NoError(t, err)
			require.Equal(t, want, named(v), preset+" "+token)
		}
	}
}

// named is the ID that the delivery itself names.
func named(v provider.Verified) string {
	if v.IDMissing {
		return ""
	}
	return v.ID
}

// TestQueryAndBody: where nothing stands between them in the signed text, one signature would fit every cut.
func TestQueryAndBody(t *testing.T) {
	h := &provider.HMAC{Header: "X-Signature", Signed: "{url}{body}"}
	for name, c := range map[string]struct {
		public, query, body string
		status              int
	}{
		"JSON":              {"https://hooks.example.com", "q=1", `{"a":1}`, 0},
		"moved to the body": {"https://hooks.example.com", "q=", `1{"a":1}`, 401},
		"moved to the URL":  {"https://hooks.example.com", `q=1{"a":`, `1}`, 401},
		"form":              {"https://hooks.example.com", "q=1", "a=1", 401},
		"form, no query":    {"https://hooks.example.com", "", "a=1", 0},
		"form, known query": {"https://hooks.example.com/webhooks/a?q=1", "q=1", "a=1", 0},
	} {
		src, err := provider.New(provider.Config{Provider: "hmac", HMAC: h, PublicURL: c.public, Secrets: []provider.Secret{{Text: "s"}}})
		require.NoError(t, err)
		called := "https://hooks.example.com/webhooks/a"
		if c.query != "" {
			called += "?" + c.query
		}
		signed, err := src.Provider().Sign(&provider.SignInput{Secret: "s", URL: called, Body: []byte(c.body), HMAC: h})
		require.NoError(t, err)
		_, err = src.Receive(t.Context(), &provider.Request{Method: "POST", Path: "/webhooks/a", RawQuery: c.query, Header: signed.Header, Body: []byte(c.body)})
		if c.status == 0 {
			require.NoError(t, err, name)
			continue
		}
		var refusal *provider.Refusal
		require.ErrorAs(t, err, &refusal, name)
		require.Equal(t, c.status, refusal.Status, name)
	}
}
