package provider

import (
	"encoding/base64"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestDecodeStrict: bytes have one form, also where a text may hold line breaks, as a member of JSON may.
func TestDecodeStrict(t *testing.T) {
	for _, enc := range []*base64.Encoding{strictBase64, strictBase64URL, paddedBase64URL} {
		for _, want := range []string{"", "a", "ab", "abc", "\xff\xfe\xfd\xfc"} {
			text := enc.EncodeToString([]byte(want))
			got, err := decodeStrict(enc, text)
			require.NoError(t, err)
			require.Equal(t, want, string(got))
			for i := range len(text) + 1 {
				for _, more := range []string{"\n", "\r", "\r\n", " ", "="} {
					_, err := decodeStrict(enc, text[:i]+more+text[i:])
					require.Error(t, err, "%q in %q", more, text)
				}
			}
		}
	}
}
