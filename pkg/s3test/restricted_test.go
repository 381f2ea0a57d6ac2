package s3test

import (
	"os"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/stretchr/testify/require"
)

// A user may do what the policy says, and nothing else.
func TestRestricted(t *testing.T) {
	policy, err := os.ReadFile("../../schemas/access/s3-reader.json")
	require.NoError(t, err)
	user, owner := Restricted(t, policy)
	if user == nil {
		t.Skip("no versitygw")
	}
	key := "a"
	put := func(b *Bucket) error {
		_, err := b.Client().PutObject(t.Context(), &s3.PutObjectInput{Bucket: &b.Name, Key: &key, Body: strings.NewReader("x")})
		return err
	}
	require.ErrorContains(t, put(user), "AccessDenied")
	require.NoError(t, put(owner))
	_, err = user.Client().GetObject(t.Context(), &s3.GetObjectInput{Bucket: &user.Name, Key: &key})
	require.NoError(t, err)
	_, err = user.Client().ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: &user.Name})
	require.NoError(t, err)
	_, err = user.Client().DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &user.Name, Key: &key})
	require.ErrorContains(t, err, "AccessDenied")
}
