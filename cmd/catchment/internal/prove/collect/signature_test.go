package collect

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The key and the note of golang.org/x/mod's documentation.
const (
	signerOfNote   = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
	verifierOfNote = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
	signedNote     = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n" +
		"\u2014 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)

func TestSignature(t *testing.T) {
	verifier, err := VerifierOf(signerOfNote + "\n")
	require.NoError(t, err)
	require.Equal(t, verifierOfNote, verifier)
	require.Empty(t, unsigned([]byte(signedNote), verifierOfNote))

	signer, other, err := NewKey("PeterNeumann")
	require.NoError(t, err)
	again, err := VerifierOf(signer)
	require.NoError(t, err)
	require.Equal(t, other, again)
	for name, c := range map[string]struct{ object, key, why string }{
		"another text":      {strings.Replace(signedNote, "answer", "Answer", 1), verifierOfNote, "not one of its text"},
		"another signature": {strings.Replace(signedNote, "x08go/ZJ", "x08go/ZK", 1), verifierOfNote, "not one of its text"},
		"another key":       {signedNote, other, "no signature by PeterNeumann"},
		"another name":      {strings.Replace(signedNote, "PeterNeumann", "PeterNeumaxx", 1), verifierOfNote, "no signature by"},
		"a line more":       {strings.Replace(signedNote, "\n\n", "\nmore\n\n", 1), verifierOfNote, "not one of its text"},
		"cut off":           {strings.TrimSuffix(signedNote, "\n"), verifierOfNote, "has no end"},
		"none":              {"text\n", verifierOfNote, "it is not signed"},
		"no key":            {signedNote, "PeterNeumann", "name+hash+key"},
		"a key's hash":      {signedNote, strings.Replace(verifierOfNote, "c74f20a3", "c74f20a4", 1), "not that of its key"},
	} {
		require.Contains(t, unsigned([]byte(c.object), c.key), c.why, name)
	}
}
