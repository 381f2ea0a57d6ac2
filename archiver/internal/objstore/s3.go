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
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/catchment-dev/catchment/pkg/mutant"
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

func openS3(ctx context.Context, u *url.URL) (Forgetful, error) {
	region, endpoint, pathStyle, err := s3Query(u.Query())
	if err != nil {
		return nil, err
	}
	if u.Host == "" || u.User != nil {
		return nil, errors.New("expected s3://bucket/prefix; keys come from the environment, a profile or the machine's role")
	}
	client := awshttp.NewBuildableClient().
		WithDialerOptions(func(d *net.Dialer) { d.Timeout = 5 * time.Second }).
		WithTransportOptions(func(t *http.Transport) { t.ResponseHeaderTimeout = requestTime })
	options := []func(*config.LoadOptions) error{config.WithHTTPClient(client)}
	if region != "" {
		options = append(options, config.WithRegion(region))
	}
	cfg, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("s3: %w", err)
	}
	if cfg.Region == "" {
		return nil, errors.New("region is missing: write s3://bucket?region=…")
	}
	prefix := strings.Trim(u.Path, "/")
	if prefix != "" {
		prefix += "/"
	}
	return &s3Store{
		client: s3.NewFromConfig(cfg, func(o *s3.Options) {
			o.UsePathStyle = pathStyle
			o.DisableLogOutputChecksumValidationSkipped = true // a part of an object has no checksum
			if endpoint != "" {
				o.BaseEndpoint = &endpoint
			}
		}),
		bucket: u.Host, prefix: prefix,
	}, nil
}

// s3Query reads the URL's parameters. With an endpoint of its own, a bucket is part of the path unless said otherwise.
func s3Query(q url.Values) (region, endpoint string, pathStyle bool, err error) {
	for name := range q {
		switch name {
		case "region":
			region = q.Get(name)
		case "endpoint":
			endpoint = q.Get(name)
			if e, err := url.Parse(endpoint); err != nil || e.Scheme != "http" && e.Scheme != "https" || e.Host == "" {
				return "", "", false, fmt.Errorf("endpoint: expected http://host:port or https://host:port, found %q", endpoint)
			}
		case "path_style":
		default:
			return "", "", false, fmt.Errorf("unknown parameter %q: region, endpoint and path_style are known", name)
		}
	}
	pathStyle = endpoint != ""
	if q.Has("path_style") {
		if pathStyle, err = strconv.ParseBool(q.Get("path_style")); err != nil {
			return "", "", false, fmt.Errorf("path_style: expected true or false, found %q", q.Get("path_style"))
		}
	}
	return region, endpoint, pathStyle, nil
}

func (s *s3Store) Create(ctx context.Context, key string, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, requestTime+time.Duration(len(body)/slowestRate)*time.Second)
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
	_, err := s.client.PutObject(ctx, put)
	return s.explain(key, err)
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
	return fmt.Errorf("%s: %w", key, err)
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
				yield("", fmt.Errorf("list %s: %w", prefix, err))
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
	return fmt.Errorf("bucket %s: %w", s.bucket, err)
}
