package kafka

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
)

// awsTime is how long it may take to find the credentials: a metadata service may have to be asked, and then STS.
const awsTime = 10 * time.Second

// awsKeys are the credentials that the AWS SDK finds: environment, web identity, profile, container, instance.
type awsKeys struct {
	mu    sync.Mutex
	found aws.CredentialsProvider // caches, and renews before they expire
}

// get returns credentials that are valid now. Those that never expire are looked for again each time, since their file
// may hold others.
func (k *awsKeys) get(ctx context.Context) (aws.Credentials, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, awsTime)
	defer cancel()
	if k.found == nil {
		cfg, err := config.LoadDefaultConfig(ctx)
		if err != nil {
			return aws.Credentials{}, fmt.Errorf("read the AWS configuration: %w", err)
		}
		k.found = cfg.Credentials
	}
	keys, err := k.found.Retrieve(ctx)
	if err != nil || !keys.CanExpire {
		k.found = nil
	}
	if err != nil {
		return aws.Credentials{}, fmt.Errorf("find AWS credentials (environment, web identity, profile, container, instance): %w", err)
	}
	return keys, nil
}
