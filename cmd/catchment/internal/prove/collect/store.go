package collect

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// store lists and reads objects. Keys come in order.
type store interface {
	list(ctx context.Context, prefix string) iter.Seq2[string, error]
	read(ctx context.Context, key string) ([]byte, error)
}

func openStore(ctx context.Context, o Options) (store, error) {
	u, err := url.Parse(o.Archive)
	if err != nil {
		return nil, err
	}
	switch u.Scheme {
	case "file":
		return files(u.Path), nil
	case "s3":
		return openBucket(ctx, u, o)
	}
	return nil, fmt.Errorf("expected file:// or s3://, found %q", o.Archive)
}

// files is a folder.
type files string

func (f files) list(_ context.Context, prefix string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		top := filepath.Join(string(f), prefix)
		if _, err := os.Stat(top); os.IsNotExist(err) {
			return
		}
		err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			key, err := filepath.Rel(string(f), path)
			if err == nil && !yield(filepath.ToSlash(key), nil) {
				return filepath.SkipAll
			}
			return err
		})
		if err != nil {
			yield("", err)
		}
	}
}

func (f files) read(_ context.Context, key string) ([]byte, error) {
	return os.ReadFile(filepath.Join(string(f), filepath.FromSlash(key)))
}

// bucket is one of any S3-compatible server.
type bucket struct {
	client       *s3.Client
	name, prefix string
}

func openBucket(ctx context.Context, u *url.URL, o Options) (store, error) {
	var more []func(*config.LoadOptions) error
	if region := u.Query().Get("region"); region != "" {
		more = append(more, config.WithRegion(region))
	}
	if o.AccessKey != "" {
		more = append(more, config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider(o.AccessKey, o.SecretKey, "")))
	}
	cfg, err := config.LoadDefaultConfig(ctx, more...)
	if err != nil {
		return nil, err
	}
	b := &bucket{name: u.Host, prefix: strings.Trim(u.Path, "/")}
	if b.prefix != "" {
		b.prefix += "/"
	}
	b.client = s3.NewFromConfig(cfg, func(so *s3.Options) {
		if endpoint := u.Query().Get("endpoint"); endpoint != "" {
			so.BaseEndpoint, so.UsePathStyle = &endpoint, true
		}
		if style, err := strconv.ParseBool(u.Query().Get("path_style")); err == nil {
			so.UsePathStyle = style
		}
	})
	return b, nil
}

func (b *bucket) list(ctx context.Context, prefix string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		pages := s3.NewListObjectsV2Paginator(b.client, &s3.ListObjectsV2Input{Bucket: &b.name, Prefix: aws.String(b.prefix + prefix)})
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if err != nil {
				yield("", err)
				return
			}
			for _, object := range page.Contents {
				if !yield(strings.TrimPrefix(*object.Key, b.prefix), nil) {
					return
				}
			}
		}
	}
}

func (b *bucket) read(ctx context.Context, key string) ([]byte, error) {
	out, err := b.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &b.name, Key: aws.String(b.prefix + key)})
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Body.Close() }()
	return io.ReadAll(out.Body)
}
