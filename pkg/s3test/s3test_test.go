package s3test_test

import (
	"io"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/s3test"
)

func TestBucketsCreateOnlyOnce(t *testing.T) {
	first, second := s3test.New(t), s3test.New(t)
	if first == nil {
		t.Log("no S3 server here")
		return
	}
	require.NotEqual(t, first.Name, second.Name)
	put := func(b *s3test.Bucket, body string) error {
		_, err := b.Client().PutObject(t.Context(), &s3.PutObjectInput{
			Bucket: &b.Name, Key: aws.String("a/b"), Body: strings.NewReader(body), IfNoneMatch: aws.String("*"),
		})
		return err
	}
	require.NoError(t, put(first, "one"))
	require.ErrorContains(t, put(first, "two"), "PreconditionFailed")
	require.NoError(t, put(second, "three"), "the other bucket is empty")
	got, err := first.Client().GetObject(t.Context(), &s3.GetObjectInput{Bucket: &first.Name, Key: aws.String("a/b")})
	require.NoError(t, err)
	body, err := io.ReadAll(got.Body)
	require.NoError(t, err)
	require.Equal(t, "one", string(body))
}
