package settings

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What is wrong with a place or with the checkpoints' key is said with its file, line and column, all at once.
func TestArchiveIsChecked(t *testing.T) {
	_, err := Parse("catchment.yaml", []byte(`
archive:
  url: "s3://log?region=x&sse=aws"
  checkpoint_copy: "s3://copy?endpoint=localhost:1"
  checkpoint_key: "PRIVATE+KEY+renamed+2e1ea6a2+AcaB4lTtkSu3ufLpxTKLhAGVsRxvYVT1CcN4jAuRuPkX"
`), NeedArchive)
	require.EqualError(t, err, `catchment.yaml:3:8: archive.url: unknown parameter "sse": region, endpoint and path_style are known
catchment.yaml:4:20: archive.checkpoint_copy: endpoint: expected http://host:port or https://host:port, found "localhost:1"
catchment.yaml:5:19: archive.checkpoint_key: expected PRIVATE+KEY+name+hash+key, the form of a C2SP signer key; its hash is not that of this name and key: a key that gets another name is made anew`)
	_, err = Parse("catchment.yaml", []byte(`archive: {url: "s3://log?sse=aws"}`), NeedKafka)
	require.NotContains(t, err.Error(), "archive", "who does not need the archive is not told")
}

// The second place of checkpoints is another one, however the two are written.
func TestSecondPlaceIsAnother(t *testing.T) {
	for copied, url := range map[string]string{
		"file:///a/b":                  "file:///a/c/../b/",
		"file://localhost/a":           "file:///a",
		"s3://b/log/?region=x":         "s3://b/log?region=x",
		"s3://b?endpoint=https://H:1/": "s3://b?endpoint=https://h:1&region=x",
	} {
		_, err := Parse("catchment.yaml", []byte("archive:\n  url: "+url+"\n  checkpoint_copy: "+copied+"\n"), NeedArchive)
		require.EqualError(t, err, "catchment.yaml:3:20: archive.checkpoint_copy: expected another place than archive.url")
	}
	for copied, url := range map[string]string{
		"file:///a/b": "file:///a/bc", "s3://b?region=x": "s3://c?region=x", "s3://b?endpoint=https://h": "s3://b?endpoint=https://i", "s3://b/x?region=x": "s3://b/y?region=x",
	} {
		_, err := Parse("catchment.yaml", []byte("archive:\n  url: "+url+"\n  checkpoint_copy: "+copied+"\n"), NeedArchive)
		require.NoError(t, err)
	}
}

func TestPlaces(t *testing.T) {
	for text, want := range map[string]Place{
		"file:///a/b/../c": {Folder: "/a/c"},
		"file:///a b/%23c": {Folder: "/a b/#c"},
		"s3://b":           {Bucket: "b"},
		"s3://b/some/prefix/?region=x&endpoint=https://h": {Bucket: "b", Prefix: "some/prefix", Region: "x", Endpoint: "https://h", PathStyle: true},
		"s3://b?endpoint=https://h&path_style=false":      {Bucket: "b", Endpoint: "https://h"},
	} {
		p, err := ParsePlace(text)
		require.NoError(t, err, text)
		require.Equal(t, want, p)
	}
	for text, want := range map[string]string{
		"":                            "expected file:// or s3://",
		"file:relative":               "expected file:///absolute/folder",
		"file:///a?region=x":          "expected file:///absolute/folder",
		"s3://":                       "expected s3://bucket/prefix",
		"s3://user:canary@b":          "expected s3://bucket/prefix",
		"s3://b:443/canary":           "expected s3://bucket/prefix",
		"file:///a#canary":            "expected no #",
		"s3://b/x#canary?region=x":    "expected no #",
		"s3://b?region=x&region=y":    `parameter "region" stands there 2 times`,
		"s3://b?path_style=perhaps":   "path_style: expected true or false",
		"s3://b?region=%zz":           "expected parameters such as",
		"s3://b?Region=x":             `unknown parameter "Region"`,
		"s3://b?endpoint=ftp://h":     "endpoint: expected http://host:port",
		"s3://b%zz":                   "the URL cannot be parsed",
		"s3://b?endpoint=&region=abc": "endpoint: expected http://host:port",
	} {
		_, err := ParsePlace(text)
		require.ErrorContains(t, err, want, text)
		require.NotContains(t, err.Error(), "canary")
	}
}

func TestSigners(t *testing.T) {
	const key = "AcaB4lTtkSu3ufLpxTKLhAGVsRxvYVT1CcN4jAuRuPkX"
	for text, want := range map[string]string{
		"": "", " \n": "",
		"canary":                              "expected PRIVATE+KEY+name+hash+key",
		"PUBLIC+KEY+n+00000000+" + key:        "expected PRIVATE+KEY+name+hash+key",
		"PRIVATE+KEY++00000000+" + key:        "its name is empty or has a space",
		"PRIVATE+KEY+my name+00000000+" + key: "its name is empty or has a space",
		"PRIVATE+KEY+n+00000000+canary":       "of an Ed25519 key",
		"PRIVATE+KEY+n+00000000+" + key:       "its hash is not that of this name and key",
	} {
		err := checkSigner(text)
		if want == "" {
			require.NoError(t, err, text)
			continue
		}
		require.ErrorContains(t, err, want, text)
		require.NotContains(t, err.Error(), "canary")
		require.False(t, strings.Contains(err.Error(), key), "the key is a secret")
	}
}
