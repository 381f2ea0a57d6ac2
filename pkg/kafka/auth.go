package kafka

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/aws"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/settings"
)

// mechanism asks for what authenticates us at each connection, and where the brokers want it again within one, so that
// what was rotated is used without a restart.
func mechanism(s *settings.SASL) (sasl.Mechanism, error) {
	scrams := func(context.Context) (scram.Auth, error) {
		user, pass, err := account(s)
		return scram.Auth{User: user, Pass: pass}, err
	}
	switch s.Mechanism {
	case "plain":
		return plain.Plain(func(context.Context) (plain.Auth, error) {
			user, pass, err := account(s)
			return plain.Auth{User: user, Pass: pass}, err
		}), nil
	case "scram-sha-256":
		return scram.Sha256(scrams), nil
	case "scram-sha-512":
		return scram.Sha512(scrams), nil
	case "oauthbearer":
		if s.OAuth == nil {
			return nil, fmt.Errorf("mechanism oauthbearer needs the key oauth")
		}
		tokens := newTokens(s.OAuth)
		return heard{oauth.Oauth(func(ctx context.Context) (oauth.Auth, error) {
			token, err := tokens.get(ctx)
			if err != nil {
				return oauth.Auth{}, fmt.Errorf("kafka.sasl.oauth: %w", err)
			}
			return oauth.Auth{Token: token, Extensions: s.OAuth.Extensions}, nil
		})}, nil
	case "aws-msk-iam":
		keys := &awsKeys{}
		return aws.ManagedStreamingIAM(func(ctx context.Context) (aws.Auth, error) {
			k, err := keys.get(ctx)
			if err != nil {
				return aws.Auth{}, fmt.Errorf("kafka.sasl: aws-msk-iam: %w", err)
			}
			return aws.Auth{AccessKey: k.AccessKeyID, SecretKey: k.SecretAccessKey, SessionToken: k.SessionToken, UserAgent: "catchment"}, nil
		}), nil
	}
	return nil, fmt.Errorf("unknown mechanism %q", s.Mechanism)
}

// account is the user and the password, as their files hold them now.
func account(s *settings.SASL) (user, password string, err error) {
	for _, part := range []struct {
		to   *string
		from config.Secret
		key  string
	}{{&user, s.Username, "username"}, {&password, s.Password, "password"}} {
		if *part.to, err = part.from.Reread(); err != nil {
			return "", "", fmt.Errorf("kafka.sasl.%s: %w", part.key, err)
		}
	}
	return user, password, nil
}
