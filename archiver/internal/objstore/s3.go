package objstore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/catchment-dev/catchment/pkg/mutant"
	"github.com/catchment-dev/catchment/pkg/settings"
)

// A request may take requestTime, and longer for large objects: at least slowestRate bytes a second must go through.
const (
	requestTime = 30 * time.Second
	slowestRate = 512 << 10
)

// s3Store keeps objects in a bucket of any S3-compatible server.
type s3Store struct {
	client         *s3.Client
	bucket, prefix string
}

func openS3(ctx context.Context, p settings.Place) (Forgetful, error) {
	client := awshttp.NewBuildableClient().
		WithDialerOptions(func(d *net.Dialer) { d.Timeout = 5 * time.Second }).
		WithTransportOptions(func(t *http.Transport) { t.ResponseHeaderTimeout = requestTime })
	options := []func(*config.LoadOptions) error{config.WithHTTPClient(client)}
	if p.Region != "" {
		options = append(options, config.WithRegion(p.Region))
	}
	cfg, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("s3: %w", err)
	}
	if cfg.Region == "" {
		return nil, errors.New("the bucket's region is missing: expected s3://bucket?region=…, or AWS_REGION in the environment")
	}
	prefix := p.Prefix
	if prefix != "" {
		prefix += "/"
	}
	return &s3Store{
		client: s3.NewFromConfig(cfg, func(o *s3.Options) {
			o.UsePathStyle = p.PathStyle
			o.DisableLogOutputChecksumValidationSkipped = true // a part of an object has no checksum
			if p.Endpoint != "" {
				o.BaseEndpoint = &p.Endpoint
			}
		}),
		bucket: p.Bucket, prefix: prefix,
	}, nil
}

func (s *s3Store) Create(ctx context.Context, key string, body []byte) error {
	within, cancel := context.WithTimeout(ctx, requestTime+time.Duration(len(body)/slowestRate)*time.Second)
	defer cancel()
	sum := sha256.Sum256(body)
	put := &s3.PutObjectInput{
		Bucket: &s.bucket, Key: aws.String(s.prefix + key),
		Body: bytes.NewReader(body), ContentLength: aws.Int64(int64(len(body))),
		IfNoneMatch:       aws.String("*"),
		ChecksumAlgorithm: types.ChecksumAlgorithmSha256, ChecksumSHA256: aws.String(base64.StdEncoding.EncodeToString(sum[:])),
	}
	if mutant.On(mutant.M10) && key != probeKey {
		put.IfNoneMatch = nil
	}
	_, err := s.client.PutObject(within, put)
	r, answered := errors.AsType[*awshttp.ResponseError](err) // without an answer its status is 0
	if err != nil && (!answered || r.HTTPStatusCode() == 0) && within.Err() == nil {
		err = s.unanswered(ctx, key, err)
	}
	return s.explain(key, err)
}

// unanswered looks whether the key is taken after an upload without an answer. A server may refuse a body that it has not read, and
// close the connection: the client, which is still sending, then sees that and no 412, however often it tries. A server that
// allows no look is as one that says nothing; of one that was not reached there is nothing to know.
func (s *s3Store) unanswered(ctx context.Context, key string, err error) error {
	if at, ok := errors.AsType[*net.OpError](err); ok && at.Op == "dial" {
		return err
	}
	if _, none := s.Size(ctx, key); none == nil {
		return fmt.Errorf("%w: %w", ErrExists, err)
	}
	return err
}

// explain gives the answers that have a meaning here their names. 409 has none: the same bytes are sent again.
func (s *s3Store) explain(key string, err error) error {
	if err == nil {
		return nil
	}
	if r, ok := errors.AsType[*awshttp.ResponseError](err); ok {
		switch r.HTTPStatusCode() {
		case http.StatusPreconditionFailed:
			return fmt.Errorf("%s: %w", key, ErrExists)
		case http.StatusNotModified, http.StatusNotImplemented:
			return fmt.Errorf("%s: %w: %w", key, ErrUnsafe, err)
		case http.StatusNotFound:
			if _, bucket := errors.AsType[*types.NoSuchBucket](err); !bucket && !strings.Contains(err.Error(), "NoSuchBucket") {
				return fmt.Errorf("%s: %w: %w", key, ErrNotFound, err)
			}
		}
	}
	return fmt.Errorf("%s: %s%w", key, s.advice(err), err)
}

// advice says in front of an error of the SDK what is to be done, where that is known.
func (s *s3Store) advice(err error) string {
	code := ""
	if c, ok := errors.AsType[interface {
		error
		ErrorCode() string
	}](err); ok {
		code = c.ErrorCode()
	}
	switch code {
	case "NoSuchBucket":
		return fmt.Sprintf("there is no bucket %s (`catchment archive ensure` makes it): ", s.bucket)
	case "SignatureDoesNotMatch", "InvalidAccessKeyId", "ExpiredToken", "InvalidToken":
		return "the server does not accept these credentials, which come from the environment, a profile or the machine's role: "
	case "AccessDenied", "Forbidden":
		return fmt.Sprintf("bucket %s: these credentials lack a right (schemas/access has those that are needed): ", s.bucket)
	case "AuthorizationHeaderMalformed", "PermanentRedirect":
		return fmt.Sprintf("bucket %s is in another region than the URL says: ", s.bucket)
	}
	if err != nil && strings.Contains(err.Error(), "get credentials") {
		return "there are no credentials: expected AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or a role of the machine: "
	}
	return ""
}

func (s *s3Store) Read(ctx context.Context, key string, offset, length int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime+time.Duration(max(length, 64<<20)/slowestRate)*time.Second)
	defer cancel()
	if length == 0 {
		_, err := s.Size(ctx, key)
		return nil, err
	}
	in := &s3.GetObjectInput{Bucket: &s.bucket, Key: aws.String(s.prefix + key), ChecksumMode: types.ChecksumModeEnabled}
	switch {
	case length > 0:
		in.Range = aws.String(fmt.Sprintf("bytes=%d-%d", offset, offset+length-1))
	case offset > 0:
		in.Range = aws.String(fmt.Sprintf("bytes=%d-", offset))
	}
	out, err := s.client.GetObject(ctx, in)
	if r, ok := errors.AsType[*awshttp.ResponseError](err); ok && r.HTTPStatusCode() == http.StatusRequestedRangeNotSatisfiable {
		return nil, nil // from the object's end on there is nothing
	}
	if err != nil {
		return nil, s.explain(key, err)
	}
	defer func() { _ = out.Body.Close() }()
	body, err := io.ReadAll(out.Body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return body, nil
}

func (s *s3Store) Size(ctx context.Context, key string) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	out, err := s.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &s.bucket, Key: aws.String(s.prefix + key)})
	if err != nil {
		return 0, s.explain(key, err)
	}
	return aws.ToInt64(out.ContentLength), nil
}

func (s *s3Store) List(ctx context.Context, prefix, after string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		in := &s3.ListObjectsV2Input{Bucket: &s.bucket, Prefix: aws.String(s.prefix + prefix)}
		if after != "" {
			in.StartAfter = aws.String(s.prefix + after)
		}
		for pages := s3.NewListObjectsV2Paginator(s.client, in); pages.HasMorePages(); {
			page, err := s.page(ctx, pages)
			if err != nil {
				yield("", fmt.Errorf("list %s: %s%w", prefix, s.advice(err), err))
				return
			}
			for _, o := range page.Contents {
				if !yield(strings.TrimPrefix(aws.ToString(o.Key), s.prefix), nil) {
					return
				}
			}
		}
	}
}

func (s *s3Store) page(ctx context.Context, pages *s3.ListObjectsV2Paginator) (*s3.ListObjectsV2Output, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	return pages.NextPage(ctx)
}

// Delete removes the object. S3 says the same whether there was one or not.
func (s *s3Store) Delete(ctx context.Context, key string) error {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	_, err := s.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &s.bucket, Key: aws.String(s.prefix + key)})
	if err = s.explain(key, err); errors.Is(err, ErrNotFound) { // some servers tell
		return nil
	}
	return err
}

// KeepsVersions says yes for a bucket that has or once had versioning: it may hold versions from that time.
func (s *s3Store) KeepsVersions(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	out, err := s.client.GetBucketVersioning(ctx, &s3.GetBucketVersioningInput{Bucket: &s.bucket})
	if r, ok := errors.AsType[*awshttp.ResponseError](err); ok && r.HTTPStatusCode() == http.StatusNotImplemented {
		return false, nil // a server that does not know of versions
	}
	if err != nil {
		return false, fmt.Errorf("ask whether bucket %s keeps versions (this needs s3:GetBucketVersioning): %w", s.bucket, err)
	}
	return out.Status != "", nil
}

// Make makes the bucket. One that is there already is left as it is.
func (s *s3Store) Make(ctx context.Context) (made bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	_, err = s.client.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &s.bucket})
	if r, ok := errors.AsType[*awshttp.ResponseError](err); err == nil || !ok || r.HTTPStatusCode() != http.StatusNotFound {
		return false, s.bucketError(err)
	}
	in := &s3.CreateBucketInput{Bucket: &s.bucket}
	if region := s.client.Options().Region; region != "us-east-1" { // which is the one that must not be named
		in.CreateBucketConfiguration = &types.CreateBucketConfiguration{LocationConstraint: types.BucketLocationConstraint(region)}
	}
	_, err = s.client.CreateBucket(ctx, in)
	if _, ours := errors.AsType[*types.BucketAlreadyOwnedByYou](err); ours { // somebody was faster
		return false, nil
	}
	return err == nil, s.bucketError(err)
}

func (s *s3Store) bucketError(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("bucket %s: %s%w", s.bucket, s.advice(err), err)
}
