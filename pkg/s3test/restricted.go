package s3test

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/internal/parts"
)

// Restricted returns a bucket of a server of the test's own, as one user sees it who may do what an identity policy of IAM
// says, and the same bucket as its owner sees it. In the policy, BUCKET stands for the bucket's name. nil: there is no
// versitygw to be started.
func Restricted(t testing.TB, policy []byte) (user, owner *Bucket) {
	t.Helper()
	program, ok := parts.Binary("versitygw")
	if !ok {
		if parts.Required() {
			t.Fatalf("s3test: %s=1, but versitygw is not installed", parts.EnvReal)
		}
		return nil, nil
	}
	owner = startWithUsers(t, program)
	u := *owner
	user = &u
	user.AccessKey, user.SecretKey = "restricted", "restricted-test-secret"
	out, err := exec.Command(program, "admin", "--allow-insecure", "--access", owner.AccessKey, "--secret", owner.SecretKey, "--endpoint-url", owner.Endpoint,
		"create-user", "--access", user.AccessKey, "--secret", user.SecretKey, "--role", "user").CombinedOutput()
	require.NoError(t, err, "%s", out)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	_, err = owner.Client().CreateBucket(ctx, &s3.CreateBucketInput{Bucket: &owner.Name})
	require.NoError(t, err)
	text := bucketPolicy(t, policy, owner.Name, user.AccessKey)
	_, err = owner.Client().PutBucketPolicy(ctx, &s3.PutBucketPolicyInput{Bucket: &owner.Name, Policy: &text})
	require.NoError(t, err)
	return user, owner
}

// bucketPolicy makes a bucket's policy of a user's: the same statements, with the user in them.
func bucketPolicy(tb testing.TB, policy []byte, bucket, user string) string {
	tb.Helper()
	var p struct {
		Version   string
		Statement []map[string]any
	}
	require.NoError(tb, json.Unmarshal([]byte(strings.ReplaceAll(string(policy), "BUCKET", bucket)), &p))
	for _, s := range p.Statement {
		s["Principal"] = map[string]any{"AWS": []string{user}}
	}
	text, err := json.Marshal(p)
	require.NoError(tb, err)
	return string(text)
}

func startWithUsers(t testing.TB, program string) *Bucket {
	t.Helper()
	dir, err := os.MkdirTemp("", "catchment-s3test-")
	require.NoError(t, err)
	users := filepath.Join(dir, "users")
	require.NoError(t, os.Mkdir(users, 0o755))
	for range 3 {
		port, err := parts.FreePort()
		require.NoError(t, err)
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		if run(program, dir, address, "--iam-dir", users) {
			b := &Bucket{Name: "restricted", Endpoint: "http://" + address, Region: "us-east-1", AccessKey: access, SecretKey: secret}
			b.URL = "s3://" + b.Name + "?region=" + b.Region + "&endpoint=" + b.Endpoint + "&path_style=true"
			return b
		}
	}
	said, _ := os.ReadFile(filepath.Join(dir, "log"))
	t.Fatalf("s3test: versitygw does not start: %s", said)
	return nil
}
