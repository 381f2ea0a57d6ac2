// Package s3test gives a test an empty bucket. Nothing comes in but the test; a bucket's archive URL goes out, on an
// S3 server that an environment variable names, or else on a versitygw of this process's own.
// It must never be taken for a proof when no server is there: it says so, and fails where real parts are required.
package s3test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/catchment-dev/catchment/pkg/internal/parts"
)

// Env names the variable that holds a server's address and keys: http://ACCESS:SECRET@HOST:PORT
const Env = "CATCHMENT_TEST_S3"

// Bucket is an empty bucket and how to reach it.
type Bucket struct {
	URL       string // for settings.Archive: s3://NAME?region=…&endpoint=…&path_style=true
	Name      string
	Endpoint  string // http://HOST:PORT
	Region    string
	AccessKey string
	SecretKey string
}

var (
	server = sync.OnceValues(findServer)
	serial atomic.Int64
)

// New returns an empty bucket, or nil when there is no S3 server: the caller then tests its other store alone.
// The server's keys are put into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of this process, where the archiver
// looks for them. The bucket stays: the server's folder goes when its owner ends.
func New(t testing.TB) *Bucket {
	t.Helper()
	found, err := server()
	if err != nil {
		t.Fatalf("s3test: %v", err)
	}
	if found == nil {
		if parts.Required() {
			t.Fatalf("s3test: %s=1, but no S3 server: set %s or install versitygw", parts.EnvReal, Env)
		}
		return nil
	}
	b := *found
	b.Name = fmt.Sprintf("test-%d-%d-%d", os.Getpid(), time.Now().UnixMilli(), serial.Add(1))
	query := url.Values{"region": {b.Region}, "endpoint": {b.Endpoint}, "path_style": {"true"}}
	b.URL = "s3://" + b.Name + "?" + query.Encode()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if _, err := b.Client().CreateBucket(ctx, &s3.CreateBucketInput{Bucket: &b.Name}); err != nil {
		t.Fatalf("s3test: %v", err)
	}
	return &b
}

// Client returns a client with the bucket's keys.
func (b *Bucket) Client() *s3.Client {
	keys := aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: b.AccessKey, SecretAccessKey: b.SecretKey}, nil
	})
	return s3.New(s3.Options{BaseEndpoint: &b.Endpoint, Region: b.Region, UsePathStyle: true, Credentials: keys})
}

func findServer() (*Bucket, error) {
	address, how, err := chooseServer()
	if err != nil {
		return nil, err
	}
	parts.Report("s3", how)
	if address == "" {
		return nil, nil
	}
	u, err := url.Parse(address)
	if err != nil || u.User == nil {
		return nil, fmt.Errorf("%s: want http://ACCESS:SECRET@HOST:PORT", Env)
	}
	b := &Bucket{Endpoint: u.Scheme + "://" + u.Host, Region: "us-east-1", AccessKey: u.User.Username()}
	b.SecretKey, _ = u.User.Password()
	// The process's environment, not t.Setenv: the keys are the same for all tests, also for those in parallel.
	for name, value := range map[string]string{"AWS_ACCESS_KEY_ID": b.AccessKey, "AWS_SECRET_ACCESS_KEY": b.SecretKey} {
		if err := os.Setenv(name, value); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func chooseServer() (address, how string, err error) {
	if a := os.Getenv(Env); a != "" {
		return a, "given", nil
	}
	if parts.Containers() {
		a, err := parts.Container("s3")
		return a, "container versitygw", err
	}
	if program, ok := parts.Binary("versitygw"); ok {
		a, err := start(program)
		return a, "local versitygw", err
	}
	return "", "none (file:// only)", nil
}
